"""The documented import names of memory, asynchronous work, errors and optimisation; the work is in ``llmopt``."""

__all__: list[str] = []
