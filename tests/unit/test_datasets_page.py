"""The datasets page names what there is, in both languages."""

from pathlib import Path

import pytest

from llmopt.records import AnswerStatus
from llmopt.workload.columns import FIELDS
from llmopt.workload.datasets import dataset_names
from llmopt.workload.prompts import PROMPT_FORMS
from llmopt.workload.user_data import KINDS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["datasets.md", "datasets.ko.md"])
def test_every_name_is_on_the_page(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    words = [*dataset_names(), *PROMPT_FORMS, *KINDS, *FIELDS, *(status.value for status in AnswerStatus)]
    assert [word for word in words if f"`{word}`" not in text] == []
    for field, names in FIELDS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{field}` |"))
        assert row.split("|")[2].strip() == ", ".join(names)
