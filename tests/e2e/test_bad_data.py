"""Bad data through the command line, in both languages: one clear sentence, the next step, exit 3 (6: no network)."""

import pytest

OFFLINE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_TELEMETRY": "1"}
WRITTEN = {
    "wrong.csv": b"\x81\x00\xff\xfe\x00",
    "late.jsonl": b'{"question": "1+1?", "answer": "2"}\n' * 8 + b'{"question": "\xff", "answer": "2"}\n',
    "cp949.csv": "question,answer\n둘 더하기 둘은?,4\n".encode("cp949"),
    "columns.csv": b"qestion,anser\n1+1?,2\n",
    "empty.jsonl": b"",
    "header.csv": b"question,answer\n",
    "gold.jsonl": b'{"question": "1+1?", "answer": "2", "kind": "numeric"}\n'
    b'{"question": "1+2?", "answer": "about three or so", "kind": "numeric"}\n',
    "twice.csv": b"id,question,answer\na,1+1?,2\nb,1+2?,3\na,1+3?,4\n",
}
# what is asked for, exit code, words that both languages show, a word of the English and of the Korean sentence
BAD = {
    "wrong encoding": (("wrong.csv",), 3, ("wrong.csv", "--encoding"), "encoding", "인코딩"),
    "wrong encoding further down": (("late.jsonl",), 3, ("late.jsonl",), "encoding", "인코딩"),
    "encoding that does not fit": (("cp949.csv", "--encoding", "utf-8"), 3, ("cp949.csv",), "utf-8", "인코딩"),
    "encoding nobody knows": (("cp949.csv", "--encoding", "utf-9"), 3, ("utf-9",), "encoding", "인코딩"),
    "missing columns": (("columns.csv",), 3, ("qestion", "--column question="), "column", "열"),
    "a column that is not there": (("cp949.csv", "--column", "question=questoin"), 3, ("question",), "column", "열"),
    "empty file": (("empty.jsonl",), 3, ("empty.jsonl",), "empty", "내용이 없습니다"),
    "only a header": (("header.csv",), 3, ("header.csv",), "empty", "내용이 없습니다"),
    "gold that is no number": (("gold.jsonl",), 3, ("about three or so", "2"), "number", "숫자"),
    "duplicate ids": (("twice.csv",), 3, ("'a'", "2", "4"), "two different", "서로 다른"),
    "a hub that does not answer": (("kobest",), 6, ("http://127.0.0.1:9", "kobest:"), "hub", "허브"),
}


@pytest.fixture
def files(inline):
    for name, content in WRITTEN.items():
        (inline.folder / name).write_bytes(content)
    return inline


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_one_clear_sentence(files, name, language):
    arguments, code, words, english, korean = BAD[name]
    ran = files.run("optimize", "--dry-run", "--dataset", *arguments, lang=language, env=OFFLINE)
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    assert [word for word in (*words, english if language == "en" else korean) if word not in ran.err] == []
    assert 1 <= len([line for line in ran.err.splitlines() if line.strip()]) <= 3
    has_hangul = any("가" <= letter <= "힣" for letter in ran.err.replace("둘 더하기 둘은?", ""))
    assert has_hangul == (language == "ko")
