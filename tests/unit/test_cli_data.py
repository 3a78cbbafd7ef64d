"""The data options: columns by flag, else asked for at a terminal; nothing is asked where the answer is plain."""

import pytest
from click.testing import CliRunner

from llmopt.cli import data
from llmopt.errors import UsageError
from llmopt.paths import Workspace

GIVEN = {"columns": (), "encoding": None, "examples": None, "evaluator": None, "seeds": None}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(root=tmp_path)


def fields(monkeypatch, workspace, path, typed="", *, terminal=True, **given):
    monkeypatch.setattr(data, "_at_a_terminal", lambda: terminal)
    found = {}

    def work():
        found.update(data.data_fields({**GIVEN, **given}, str(path), workspace=workspace, as_json=False))

    import click

    ran = CliRunner().invoke(click.Command("c", callback=work), input=typed)
    assert ran.exception is None, ran.exception
    return found, ran.output


@pytest.fixture
def strange(tmp_path):
    path = tmp_path / "표.csv"
    path.write_text("가,나,다\n" + "".join(f"{n} 더하기 1은?,{n + 1},-\n" for n in range(5)), encoding="cp949")
    return path


def test_a_person_is_asked_for_columns_that_names_do_not_tell(monkeypatch, workspace, strange):
    found, shown = fields(monkeypatch, workspace, strange, "가\n나\n")
    assert found["columns"] == {"question": "가", "answer": "나"}
    assert "0 더하기 1은?" in shown


def test_answers_may_be_missing(monkeypatch, workspace, strange):
    found, _ = fields(monkeypatch, workspace, strange, "가\n\n")
    assert found["columns"] == {"question": "가"}


@pytest.mark.parametrize("case", ["no terminal", "by flag", "plain names", "a name"])
def test_nothing_is_asked_where_it_is_plain_or_nobody_is_there(monkeypatch, workspace, strange, case):
    plain = strange.with_name("plain.csv")
    plain.write_text("question,answer\n1+1?,2\n", encoding="utf-8")
    path = {"plain names": plain, "a name": "korean_math"}.get(case, strange)
    given = {"columns": ("question=가",)} if case == "by flag" else {}
    found, shown = fields(monkeypatch, workspace, path, terminal=case != "no terminal", **given)
    assert found["columns"] == ({"question": "가"} if case == "by flag" else {})
    assert shown == ""


def test_a_pair_that_is_none_is_refused():
    with pytest.raises(UsageError):
        data.column_pairs(("question",))
