"""No line of an overview is wider than 80 cells, in either language; only a word that cannot be broken stands out."""

import pytest

from llmopt.cli.lines import cells

COMMANDS = [
    ("init", "--no-measure", "--force"),
    ("status",),
    ("status", "--detailed"),
    *(("list", "--type", kind) for kind in ("results", "models", "datasets", "errors", "engines")),
    ("models", "show", "qwen2.5-7b"),
    ("models", "show", "exaone3.5-7.8b"),
    ("models", "add", "ours", "team/ours", "--replace"),
    ("estimate", "qwen2.5-7b", "--gpu", "h100"),
    ("engines",),
    ("engines", "doctor", "--quick"),
]


@pytest.mark.parametrize("lang", ["ko", "en"])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_line_fits(inline, words, lang):
    ran = inline.run(*words, lang=lang, env={"COLUMNS": "80"})
    assert ran.code in {0, 5}, ran.err
    assert ran.out.strip()
    wide = [line for line in ran.out.splitlines() if cells(line) > 80 and len(line.split()) > 1]
    assert wide == []
