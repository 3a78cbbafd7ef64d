"""Model settings: what one model is and how it is run; the catalogue file config/models.json."""

from llmopt.config.models import (
    DataType,
    DeviceType,
    InferenceParams,
    ModelConfig,
    ModelConfigManager,
    ModelType,
    QuantizationConfig,
)

__all__ = [
    "DataType",
    "DeviceType",
    "InferenceParams",
    "ModelConfig",
    "ModelConfigManager",
    "ModelType",
    "QuantizationConfig",
]
