"""Optuna-based optimisation of a model's parameters."""

from llmopt.study.optimizer import INFERENCE_SPACE, OptimizationResult, SafeOptimizer

__all__ = ["INFERENCE_SPACE", "OptimizationResult", "SafeOptimizer"]
