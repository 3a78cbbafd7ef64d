"""Run a Python engine's own entry point with a key that no listing shows.

Stand-alone: started by path with the *engine's* interpreter, standard library only. ``keyed_main.py KEY_OPTION ENTRY
ARGUMENT …`` reads one line from standard input and calls ENTRY (``module:function``, or ``module`` run as a program) as
if it had been given ``KEY_OPTION key`` as well: the key stands in ``sys.argv`` of this process alone, neither in its
command line nor in any environment. An empty line means no key; ``-`` as KEY_OPTION means that nothing is read.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Sequence

USAGE = "usage: keyed_main.py KEY_OPTION MODULE[:FUNCTION] [ARGUMENT …]"


def main(argv: Sequence[str]) -> int:
    """The command line."""
    if len(argv) < 2:  # noqa: PLR2004 - the two that must be there
        print(USAGE, file=sys.stderr)
        return 2
    key_option, entry, *rest = argv
    key = "" if key_option == "-" else sys.stdin.readline().strip()
    module, _, function = entry.partition(":")
    sys.argv = [module, *rest, *((key_option, key) if key else ())]
    if not function:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0
    result = getattr(importlib.import_module(module), function)()
    return result if isinstance(result, int) else 0


if __name__ == "__main__":  # engines start their own processes, which import this file again
    sys.exit(main(sys.argv[1:]))
