"""``python -m llmopt`` is the installed program."""

import sys

from llmopt.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
