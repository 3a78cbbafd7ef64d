"""A study says that it lives: what other containers and hosts, who cannot look up our process, go by."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmopt.errors import StorageError
from llmopt.logs import get_logger
from llmopt.store.owner import FOREIGN_LEASE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmopt.store.database import Store

__all__ = ["BEAT_S", "beating"]

BEAT_S = FOREIGN_LEASE_S / 4
"""Three beats may be missed before anybody takes the study over."""


@contextmanager
def beating(store: Store, study_id: int, *, every_s: float = BEAT_S) -> Iterator[None]:
    """Beat from a thread of its own while the block runs. A beat that cannot be written is logged and costs nothing."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(every_s):
            try:
                store.beat(study_id)
            except StorageError as error:  # a locked or full disk: the next beat, or the next commit, will tell
                get_logger(__name__).warning("%s", error)

    thread = threading.Thread(target=beat, name="llmopt-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
