"""Everything about memory in one place: measure it, admit, watch, release, prove."""

from __future__ import annotations

from llmopt.hardware.guard import Guard, MemoryNotReturned, ResourceManager, get_resource_manager, memory_guard
from llmopt.hardware.levels import (
    LevelChange,
    MemoryActions,
    MemoryLevel,
    MemoryLimits,
    MemoryPlan,
    MemoryReading,
    MemoryWatch,
)
from llmopt.hardware.release import Baseline, ReleaseReport, prove_release, take_baseline
from llmopt.hardware.sampler import MemoryTrace, PeakSampler, TracePoint
from llmopt.hardware.stats import DeviceStats, MemoryReader, MemoryStats, get_memory_stats
from llmopt.hardware.supervision import LaunchMemory, WatchedLaunch
from llmopt.hardware.tree import TreeMemory, shared_segments, tree_memory

__all__ = [
    "Baseline",
    "DeviceStats",
    "Guard",
    "LaunchMemory",
    "LevelChange",
    "MemoryActions",
    "MemoryLevel",
    "MemoryLimits",
    "MemoryNotReturned",
    "MemoryPlan",
    "MemoryReader",
    "MemoryReading",
    "MemoryStats",
    "MemoryTrace",
    "MemoryWatch",
    "PeakSampler",
    "ReleaseReport",
    "ResourceManager",
    "TracePoint",
    "TreeMemory",
    "WatchedLaunch",
    "get_memory_stats",
    "get_resource_manager",
    "memory_guard",
    "prove_release",
    "shared_segments",
    "take_baseline",
    "tree_memory",
]
