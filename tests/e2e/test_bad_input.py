"""Every bad input gets one clear sentence with what to do, the exit code of the specification, and no traceback."""

import json
import os
import re
import sqlite3
import stat
from contextlib import closing

import pytest

from llmopt.cli.app import COMMANDS
from tests.e2e.bad_inputs import LANGUAGES, ROWS, page, path_of, said

OPTIMIZE = ("optimize", "--dry-run", "--dataset", "korean_math_easy")
LEAST_ROWS = 70
SENTENCE_END = re.compile(r"[.?!:)](?=\s|$)|--help`|[가-힣\w}>`]$")
NAMED = re.compile(r"`[^`]*`|'[^']*'|\"[^\"]*\"|\([^()]*\)|--[a-z-]+|[\w./:-]*[./_:=<>@-][\w./:-]*")
"""What stands the same in both languages: commands, names, options, paths, and reasons a system gives in brackets."""


def test_the_table_is_long_and_covers_every_command():
    assert len(ROWS) >= LEAST_ROWS
    assert set(COMMANDS) - {row.command for row in ROWS} == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_bad_input_gets_its_code_and_its_sentence_and_stands_on_the_page(language):
    ended = {row: said(row, language) for row in ROWS}
    wrong = {}
    for row, ran in ended.items():
        own = NAMED.sub("", ran.err)
        fine = {
            "code": ran.code == row.code,
            "names": row.names in ran.err,
            "no traceback": "Traceback" not in ran.err + ran.out,
            "what and next": len(SENTENCE_END.findall(ran.err)) >= 2,
            "language": (language == "ko") == bool(re.search("[가-힣]{2}", own)),
            "nothing untranslated": language == "en" or not re.search(r"([A-Za-z]+ ){4}", own.partition("\n")[0]),
        }
        if not all(fine.values()):
            wrong[row.words] = ([name for name, ok in fine.items() if not ok], ran.code, ran.err)
    assert wrong == {}
    written = path_of(language).read_text(encoding="utf-8")
    assert page(language, ended) == written, "where the new sentences are right: python -m tests.e2e.bad_inputs"


def refused(cli, *arguments, code, word):
    ran = cli.run(*arguments)
    assert ran.code == code, ran.err
    assert word in ran.err, ran.err
    assert "Traceback" not in ran.err


def test_a_database_that_is_damaged_or_not_ours_is_left_as_it_is(inline):
    results = inline.folder / "optimization_results"
    results.mkdir()
    database = results / "llmopt.db"
    database.write_bytes(b"this is no database" * 100)
    refused(inline, *OPTIMIZE, code=7, word="llmopt.db")
    refused(inline, "list", code=7, word="llmopt.db")
    assert database.read_bytes() == b"this is no database" * 100
    database.unlink()
    with closing(sqlite3.connect(database)) as db:
        db.execute("CREATE TABLE somebody_elses (x)")
        db.commit()
    refused(inline, *OPTIMIZE, code=7, word="llmopt.db")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(inline):
    inline.folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    refused(inline, *OPTIMIZE, code=7, word=str(inline.folder))


def test_json_errors_leave_standard_output_empty_of_prose(inline):
    ran = inline.run(*OPTIMIZE, "--trials", "0", "--json")
    assert ran.code == 2
    assert [json.loads(line) for line in ran.out.splitlines()] == []
