"""llmopt: finds the best way to run an open LLM on this machine, proves it by measurement, leaves the machine clean."""

__all__ = ["__version__"]

__version__ = "2.0.0"
