"""Memory that the caller's own process took: found and released without importing a framework ourselves."""

from __future__ import annotations

import ctypes
import gc
import sys
import traceback
import weakref
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmopt.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

__all__ = ["HeldObject", "ModelRegistry", "clear_frames", "held_tensors", "known_tensors", "release_caches"]

_LARGE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class HeldObject:
    """Objects of this process that still hold memory, and what refers to them."""

    kind: str
    place: str
    """``cuda:0``, ``cpu`` …"""
    count: int
    total_bytes: int
    referrers: tuple[str, ...] = ()


def _torch() -> Any:
    """The caller's torch; None where nobody imported it. We never import it ourselves."""
    return sys.modules.get("torch")


class ModelRegistry:
    """Models a caller loaded in this process, known by name through weak references only."""

    def __init__(self) -> None:
        self._models: dict[str, weakref.ref[Any]] = {}

    def add(self, name: str, model: Any) -> None:
        """Remember ``model``; raises TypeError where its type allows no weak reference."""
        self._models[name] = weakref.ref(model)

    def alive(self) -> dict[str, Any]:
        """The models that still exist."""
        found = {name: reference() for name, reference in self._models.items()}
        self._models = {name: self._models[name] for name, model in found.items() if model is not None}
        return {name: model for name, model in found.items() if model is not None}

    def release(self, names: Iterable[str] | None = None) -> tuple[str, ...]:
        """Take the storage out of registered models, even where the caller still holds them; returns their names.

        A torch module moves to the ``meta`` device: it keeps its shape and loses its data. An object with ``close``
        is closed. Anything else is only forgotten.
        """
        wanted = None if names is None else set(names)
        released = []
        for name, model in self.alive().items():
            if wanted is not None and name not in wanted:
                continue
            del self._models[name]
            released.append(name)
            try:
                _empty(model)
            except Exception:  # noqa: BLE001 - boundary: a model's own code must not stop the release of the others
                get_logger(__name__).exception("a registered model could not be emptied: %s", name)
        return tuple(released)


def _empty(model: Any) -> None:
    torch = _torch()
    if torch is not None and isinstance(model, torch.nn.Module):
        model.to("meta")
    elif torch is not None and isinstance(model, torch.Tensor):
        model.data = torch.empty(0)
    elif callable(getattr(model, "close", None)):
        model.close()


def clear_frames(trace: TracebackType | None) -> None:
    """Drop the local variables of the functions an exception came through: they would keep a half-loaded model."""
    if trace is not None:
        traceback.clear_frames(trace)


def release_caches() -> None:
    """Collect garbage, empty every allocator cache on every device, reset peak statistics, return free heap pages."""
    gc.collect()
    torch = _torch()
    if torch is not None:
        try:
            _empty_allocators(torch)
        except Exception:  # noqa: BLE001 - boundary: a poisoned device context must not stop the release of the rest
            get_logger(__name__).exception("an allocator cache could not be emptied")
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # musl has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)


def _empty_allocators(torch: Any) -> None:
    # asking an uninitialised CUDA for its devices would create a context, and with it hold memory
    for backend in (torch.cuda, getattr(torch, "xpu", None)):
        if backend is None or not backend.is_initialized():
            continue
        for index in range(backend.device_count()):
            with backend.device(index):
                backend.synchronize()
                backend.empty_cache()
                if hasattr(backend, "ipc_collect"):
                    backend.ipc_collect()
                backend.reset_peak_memory_stats()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def known_tensors() -> frozenset[int]:
    """Identities of the torch tensors that exist now: what a guard finds at its end and not here, was taken inside."""
    torch = _torch()
    if torch is None:
        return frozenset()
    return frozenset(id(each) for each in gc.get_objects() if _is_tensor(torch, each))


def _is_tensor(torch: Any, value: object) -> bool:
    # type(), not isinstance(): an object's __class__ may be a property with side effects
    return issubclass(type(value), torch.Tensor)


def held_tensors(known: frozenset[int] = frozenset(), *, most: int = 10) -> tuple[HeldObject, ...]:
    """Large torch tensors that are not in ``known``, by device and type, with what refers to them; largest first."""
    torch = _torch()
    if torch is None:
        return ()
    sizes: Counter[tuple[str, str]] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], object] = {}
    for each in gc.get_objects():
        if not _is_tensor(torch, each) or id(each) in known:
            continue
        with suppress(Exception):  # a half-built tensor of another library may fail on any question
            size = each.untyped_storage().nbytes() if each.device.type != "meta" else 0
            if size >= _LARGE:
                key = (f"{type(each).__module__}.{type(each).__name__}", str(each.device))
                sizes[key] += size
                counts[key] += 1
                examples.setdefault(key, each)
    found = []
    for key, size in sizes.most_common(most):
        referrers = _referrers(examples.pop(key))
        found.append(HeldObject(kind=key[0], place=key[1], count=counts[key], total_bytes=size, referrers=referrers))
    return tuple(found)


def _referrers(value: object) -> tuple[str, ...]:
    """What keeps an object alive, as names a person can search for."""
    names = []
    for referrer in gc.get_referrers(value):
        if type(referrer).__name__ == "frame":
            code = referrer.f_code
            if code.co_filename != __file__:
                names.append(f"{code.co_filename}:{referrer.f_lineno} in {code.co_name}()")
        elif isinstance(referrer, dict):
            keys = [str(key) for key, held in referrer.items() if held is value]
            names += [f"dict key {key!r}" for key in keys[:1]]
        elif not isinstance(referrer, list) or len(referrer) < _LARGE:
            names.append(f"{type(referrer).__module__}.{type(referrer).__name__}")
    return tuple(dict.fromkeys(names))[:5]
