"""The vocabulary: frozen values and enums that cross stages. Units stand in the names (``_s`` seconds, ``_bytes``).

Nothing here computes more than a derived name or key; nothing here imports another layer's work.
"""

from llmopt.records.engines import (
    ContainerRun,
    Endpoint,
    Installation,
    LaunchPlan,
    ModelInfo,
)
from llmopt.records.machine import (
    Cpu,
    Device,
    Hardware,
    HostMemory,
)
from llmopt.records.measured import (
    UNJUDGED,
    AnswerStatus,
    Estimate,
    Measurement,
    Outcome,
    Sample,
    Score,
    Verdict,
    VerdictKind,
)
from llmopt.records.settings import (
    ENGINE_GROUP,
    EVALUATOR_GROUP,
    Configuration,
    DataType,
    DeviceType,
    InferenceParams,
    ModelType,
    Parameter,
    Strategy,
)
from llmopt.records.task import (
    Dataset,
    Item,
    Load,
    Request,
    Task,
)
from llmopt.records.values import (
    Message,
    Settings,
    SettingValue,
    digest,
)

__all__ = [
    "ENGINE_GROUP",
    "EVALUATOR_GROUP",
    "UNJUDGED",
    "AnswerStatus",
    "Configuration",
    "ContainerRun",
    "Cpu",
    "DataType",
    "Dataset",
    "Device",
    "DeviceType",
    "Endpoint",
    "Estimate",
    "Hardware",
    "HostMemory",
    "InferenceParams",
    "Installation",
    "Item",
    "LaunchPlan",
    "Load",
    "Measurement",
    "Message",
    "ModelInfo",
    "ModelType",
    "Outcome",
    "Parameter",
    "Request",
    "Sample",
    "Score",
    "SettingValue",
    "Settings",
    "Strategy",
    "Task",
    "Verdict",
    "VerdictKind",
    "digest",
]
