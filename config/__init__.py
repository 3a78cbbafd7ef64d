"""The documented import names of settings; the work is in ``llmopt.config``."""

__all__: list[str] = []
