"""Unpack a GGUF file into a folder of safetensors with the transformers library's own reader.

Stand-alone: started by path with the interpreter of a transformers environment (torch, transformers, gguf), nothing of
ours imported. ``gguf_to_safetensors.py FILE FOLDER`` writes one JSON line a stage to standard output: ``tokenizer``,
``weights``, ``write``, ``done`` (with the versions that did it). The weights become bfloat16: what a quantised file
holds, multiplied out, so that engines without that quantisation run the same model.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

USAGE = "usage: gguf_to_safetensors.py FILE FOLDER"


def say(stage: str, **values: object) -> None:
    """One line for the parent."""
    print(json.dumps({"stage": stage, **values}), flush=True)


def main(argv: Sequence[str]) -> int:
    """The command line."""
    if len(argv) != 2:  # noqa: PLR2004 - a file and a folder
        print(USAGE, file=sys.stderr)
        return 2
    source, target = Path(argv[0]), Path(argv[1])
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TQDM_DISABLE", "1")

    import torch  # type: ignore[import-not-found,unused-ignore]
    import transformers  # type: ignore[import-not-found,unused-ignore]

    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    say("tokenizer")
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    say("weights")
    more = {}
    if hasattr(transformers, "GgufConfig"):  # newer versions keep the weights packed unless told otherwise
        more["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16, **more)
    say("write")
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    say("done", transformers=transformers.__version__, torch=torch.__version__)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
