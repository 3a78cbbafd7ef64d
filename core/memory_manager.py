"""Complete release of memory: guards, statistics and clean-up on every device."""

from llmopt.hardware.memory import (
    Guard,
    MemoryLevel,
    MemoryNotReturned,
    MemoryStats,
    ReleaseReport,
    ResourceManager,
    get_memory_stats,
    get_resource_manager,
    memory_guard,
)

__all__ = [
    "Guard",
    "MemoryLevel",
    "MemoryNotReturned",
    "MemoryStats",
    "ReleaseReport",
    "ResourceManager",
    "get_memory_stats",
    "get_resource_manager",
    "memory_guard",
]
