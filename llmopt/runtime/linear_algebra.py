"""Our own linear algebra on one thread of this process, and of this process only.

numpy's BLAS starts a thread for each core. Our matrices have a hundred rows: on a busy machine these threads wait for
each other, and a proposal takes ten times as long. The environment is left alone: engines inherit theirs as it was, and
what a user's own code computes in this process keeps its threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Everything inside runs on one BLAS thread; the number there was comes back. Also a decorator."""
    import numpy as np  # noqa: F401, PLC0415 - it loads the library that is meant
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - only where something is computed

    # every time anew, in less than a millisecond: others (scipy's) are loaded later
    with threadpool_limits(limits=1, user_api="blas"):
        yield
