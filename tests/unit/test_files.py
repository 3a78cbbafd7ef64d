"""Rows of users' files: every format and encoding, streamed, and one clear error for what cannot be read."""

import json
import sys
import tracemalloc
import types

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmopt.errors import DataError
from llmopt.workload.files import SUFFIXES, detect_encoding, read_rows

ROWS = [{"질문": "한강은 어디에 있나요?", "정답": "서울"}, {"질문": "6 + 7은?", "정답": "13"}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = "질문,정답\n한강은 어디에 있나요?,서울\n6 + 7은?,13\n"


def values(path, **options):
    return [dict(row.values) for row in read_rows(path, **options)]


def written(tmp_path, name, text, encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.jsonl", JSONL),
        ("data.ndjson", JSONL),
        ("data.csv", CSV),
        ("data.tsv", CSV.replace(",", "\t")),
        ("semi.csv", CSV.replace(",", ";")),
        ("data.json", json.dumps(ROWS, ensure_ascii=False)),
        ("inside.json", json.dumps({"version": 1, "data": ROWS}, ensure_ascii=False, indent=1)),
    ],
)
def test_every_format_in_every_encoding(tmp_path, name, text, encoding):
    assert values(written(tmp_path, name, text, encoding)) == ROWS


def test_the_encoding_can_be_named(tmp_path):
    path = written(tmp_path, "data.csv", CSV, "johab")
    assert values(path, encoding="johab") == ROWS
    with pytest.raises(DataError) as caught:
        values(path, encoding="klingon")
    assert caught.value.key == "data.unknown_encoding"


def test_quoted_cells_hold_commas_and_newlines(tmp_path):
    path = written(tmp_path, "data.csv", 'question,answer\n"가,나\n다","1,000"\n')
    assert values(path) == [{"question": "가,나\n다", "answer": "1,000"}]


def test_rows_know_their_line(tmp_path):
    path = written(tmp_path, "data.jsonl", "\n" + JSONL)
    assert [row.number for row in read_rows(path)] == [2, 3]


def test_parquet_where_the_extra_is_installed(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert values(path) == ROWS


def test_parquet_without_the_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError) as caught:
        values(written(tmp_path, "data.parquet", "x"))
    assert caught.value.key == "data.no_pyarrow"
    assert "llmopt[parquet]" in caught.value.next_step


def test_a_damaged_parquet_file(tmp_path, monkeypatch):
    def broken(path):
        raise ValueError("magic bytes not found\nin footer")

    monkeypatch.setitem(sys.modules, "pyarrow", types.ModuleType("pyarrow"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", types.SimpleNamespace(ParquetFile=broken))
    with pytest.raises(DataError) as caught:
        values(written(tmp_path, "data.parquet", "x"))
    assert (caught.value.key, caught.value.values["problem"]) == ("data.parquet", "magic bytes not found")


@pytest.mark.parametrize(
    ("name", "data", "key"),
    [
        ("data.txt", b"x", "data.format"),
        ("data", b"x", "data.format"),
        ("data.csv", b"", "data.empty"),
        ("data.jsonl", b'{"a": 1}\n{"a": \n', "data.json"),
        ("data.jsonl", b"[1, 2]\n", "data.not_an_object"),
        ("data.json", b'[{"a": 1}, {"a"', "data.json"),
        ("data.json", b'[{"a": 1}, 5]', "data.not_an_object"),
        ("data.json", b'{"a": 1}', "data.no_records"),
        ("data.json", b'{"a": [{}], "b": [{}]}', "data.no_records"),
        ("data.csv", b"a,b\n1,2,3\n", "data.ragged"),
        ("data.csv", b"a,b\n1\n", "data.ragged"),
        ("data.csv", b"a,b, a\n1,2,3\n", "data.repeated_column"),
        ("data.csv", b"\x81\x00\xff\xfe\x00", "data.encoding"),
        ("data.jsonl", b"\xff\xff\xff\xff", "data.encoding"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(tmp_path, name, data, key):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        values(path)
    assert caught.value.key == key
    for language in ("what", "next_step"):
        assert getattr(caught.value, language)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError) as caught:
        values(tmp_path / "none.csv")
    assert caught.value.key == "data.no_file"


def test_bytes_that_turn_bad_after_the_looked_at_part(tmp_path):
    path = tmp_path / "late.jsonl"
    with path.open("wb") as file:
        line = json.dumps({"a": "x" * 1000}).encode() + b"\n"
        for _ in range(8500):
            file.write(line)
        file.write(b'{"a": "\xff\xff"}\n')
    with pytest.raises(DataError) as caught:
        for _ in read_rows(path):
            pass
    assert (caught.value.key, caught.value.values["encoding"]) == ("data.undecodable", "utf-8")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".json"])
def test_memory_does_not_grow_with_the_file(tmp_path, suffix):
    peaks = []
    for count in (15_000, 60_000):
        path = tmp_path / f"big{count}{suffix}"
        lines = (json.dumps({"question": f"{n}번 문제", "answer": str(n)}, ensure_ascii=False) for n in range(count))
        with path.open("w", encoding="utf-8") as file:
            if suffix == ".csv":
                file.write("question,answer\n" + "".join(f"{n}번 문제,{n}\n" for n in range(count)))
            elif suffix == ".json":
                file.write("[" + ",\n".join(lines) + "]")
            else:
                file.write("\n".join(lines))
        detect_encoding(path)
        tracemalloc.start()
        assert sum(1 for _ in read_rows(path, encoding="utf-8")) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5 + 200_000


records = st.lists(
    st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=30) | st.integers() | st.booleans(), max_size=4),
    min_size=1,
    max_size=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(records, st.sampled_from([None, 1, 4]))
def test_any_json_array_is_read_as_json_reads_it(tmp_path, rows, indent):
    path = tmp_path / "any.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8", errors="surrogatepass")
    assert values(path) == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(st.binary(max_size=400), st.sampled_from([s for s in SUFFIXES if s != ".parquet"]))
def test_any_bytes_give_rows_or_a_data_error(tmp_path, data, suffix):
    path = tmp_path / f"any{suffix}"
    path.write_bytes(data)
    try:
        rows = values(path)
    except DataError as error:
        assert error.what  # noqa: PT017 - either outcome is right
    else:
        assert all(isinstance(row, dict) for row in rows)
