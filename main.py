"""The command line from a bare checkout: ``python main.py COMMAND …`` is ``llmopt COMMAND …``."""

import sys

from llmopt.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
