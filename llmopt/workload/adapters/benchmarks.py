"""The adapters we ship: columns as the benchmarks publish them, scorer and protocol of each."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmopt.records import Item, digest
from llmopt.workload.adapters.base import Adapter, Cells, Protocol, choice_item
from llmopt.workload.user_data import option_letter

__all__ = ["ADAPTERS"]

_UNKNOWN = "알 수 없음"
_LETTER = "generated letter, accuracy over items"


def _listed(value: Any) -> list[Any]:
    """A list given as such, as JSON or as a Python literal (how lists stand in CSV files)."""
    if isinstance(value, list | tuple):
        return list(value)
    text = str(value).strip()
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError):
            continue
        if isinstance(found, list | tuple):
            return list(found)
    return []


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    try:
        found = json.loads(str(value))
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _hrm8k(cells: Cells, subset: str) -> Item:
    return Item(
        id=f"hrm8k-{subset}-{cells.number}",
        question=cells.text("question"),
        answers=(cells.text("answer"),),
        kind="numeric",
    )


def _gsm8k(cells: Cells, subset: str) -> Item | None:
    del subset
    working, mark, gold = cells.text("answer").rpartition("####")
    if not mark:
        return None
    solution = re.sub(r"<<[^<>]*>>", "", working).strip()
    return Item(
        id=f"gsm8k-{cells.number}",
        question=cells.text("question"),
        answers=(gold.strip().replace(",", ""),),
        kind="numeric",
        meta={"solution": solution} if solution else {},
    )


def _kmmlu(cells: Cells, subset: str) -> Item | None:
    category = str(cells.maybe("Category") or subset)
    options = [cells.text(letter) for letter in "ABCD"]
    name = f"kmmlu-{category}-{cells.number}"
    return choice_item(name, cells.text("question"), options, cells.whole("answer") - 1)


def _mmlu(cells: Cells, subset: str) -> Item | None:
    subject = str(cells.maybe("subject") or subset)
    options = [str(choice) for choice in _listed(cells["choices"])]
    gold = cells.text("answer")
    place = "ABCD".find(gold) if gold in tuple("ABCD") else cells.whole("answer")
    return choice_item(f"mmlu-{subject}-{cells.number}", cells.text("question"), options, place)


def _boolq(cells: Cells) -> Item | None:
    meta = {"context": cells.text("paragraph")}
    return choice_item("", cells.text("question"), ("아니오", "예"), cells.whole("label"), meta=meta)


def _copa(cells: Cells) -> Item | None:
    cause = cells.text("question") == "원인"
    question = f"다음 문장의 {'원인으로' if cause else '결과로'} 알맞은 것은 무엇입니까?"
    options = (cells.text("alternative_1"), cells.text("alternative_2"))
    return choice_item("", f"{question}\n{cells.text('premise')}", options, cells.whole("label"))


def _wic(cells: Cells) -> Item | None:
    sentences = f"1. {cells.text('context_1')}\n2. {cells.text('context_2')}"
    question = f"두 문장에서 낱말 '{cells.text('word')}'의 뜻이 같습니까?\n{sentences}"
    return choice_item("", question, ("다르다", "같다"), int(cells.text("label") in {"1", "True", "true", "1.0"}))


def _hellaswag(cells: Cells) -> Item | None:
    options = [cells.text(f"ending_{n}") for n in range(1, 5)]
    return choice_item(
        "", f"이어질 문장으로 가장 알맞은 것은 무엇입니까?\n{cells.text('context')}", options, cells.whole("label")
    )


def _sentineg(cells: Cells) -> Item | None:
    question = f"다음 문장의 감정은 긍정입니까, 부정입니까?\n{cells.text('sentence')}"
    return choice_item("", question, ("부정", "긍정"), cells.whole("label"))


_KOBEST = {"boolq": _boolq, "copa": _copa, "wic": _wic, "hellaswag": _hellaswag, "sentineg": _sentineg}


def _kobest(cells: Cells, subset: str) -> Item | None:
    item = _KOBEST[subset](cells)
    return None if item is None else _named(item, f"kobest-{subset}-{cells.number}")


def _named(item: Item, name: str) -> Item:
    return Item(
        id=name, question=item.question, answers=item.answers, kind=item.kind, options=item.options, meta=item.meta
    )


def _haerae(cells: Cells, subset: str) -> Item | None:
    options = [str(option) for option in _listed(cells["options"])]
    letter = option_letter(cells.text("answer"), options)
    question = cells.text("query")
    # where the query already lists its options, they are not listed again
    listed = bool(options) and all(option in question for option in options)
    meta = {"lists_options": True} if listed else None
    place = "ABCDEFGHIJ".find(letter) if letter else -1
    return choice_item(f"haerae-{subset}-{cells.number}", question, options, place, meta=meta)


def _click(cells: Cells, subset: str) -> Item | None:
    del subset
    options = [str(choice) for choice in _listed(cells["choices"])]
    answer = cells.text("answer")
    place = options.index(answer) if answer in options else -1
    paragraph = cells.text("paragraph") if cells.maybe("paragraph") else ""
    meta = {"context": paragraph} if paragraph else None
    return choice_item(
        str(cells.maybe("id") or f"click-{cells.number}"), cells.text("question"), options, place, meta=meta
    )


def _korquad(cells: Cells, subset: str) -> Item | None:
    del subset
    golds = _gold_texts(cells["answers"])
    if not golds:
        return None
    context = cells.text("context")
    name = str(cells.maybe("id") or f"korquad-{cells.number}")
    return _passage_item(name, cells.text("question"), context, golds)


def _klue_mrc(cells: Cells, subset: str) -> Item | None:
    del subset
    impossible = str(cells.maybe("is_impossible")).lower() in {"true", "1"}
    golds = [_UNKNOWN] if impossible else _gold_texts(cells["answers"])
    if not golds:
        return None
    name = str(cells.maybe("guid") or f"klue-mrc-{cells.number}")
    return _passage_item(name, cells.text("question"), cells.text("context"), golds)


def _passage_item(name: str, question: str, context: str, golds: Sequence[str]) -> Item:
    meta = {"context": context}
    return Item(id=name, question=question, answers=tuple(golds), kind="qa", cluster=digest(context), meta=meta)


def _gold_texts(value: Any) -> list[str]:
    """The texts of SQuAD-shaped answers: ``{"text": [...]}`` or a list of ``{"text": ...}``."""
    found = (
        _mapping(value).get("text", [])
        if not isinstance(value, list | tuple)
        else [_mapping(v).get("text") for v in value]
    )
    return list(dict.fromkeys(str(text) for text in (found if isinstance(found, list | tuple) else [found]) if text))


def _squad_rows(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Questions of one article of a SQuAD-shaped file; a record that is a question already stays one."""
    if "paragraphs" not in record:
        return [record]
    return [
        {**question, "context": paragraph["context"], "title": record.get("title", "")}
        for paragraph in record["paragraphs"]
        for question in paragraph["qas"]
    ]


def _ifeval(cells: Cells, subset: str) -> Item:
    del subset
    rules = [str(rule) for rule in _listed(cells["instruction_id_list"])]
    settings = [{k: v for k, v in _mapping(one).items() if v is not None} for one in _listed(cells["kwargs"])]
    meta = {"instructions": [{"id": rule, **kwargs} for rule, kwargs in zip(rules, settings, strict=False)]}
    name = f"ifeval-{cells.maybe('key') or cells.number}"
    return Item(id=name, question=cells.text("prompt"), kind="instructions", meta=meta)


ADAPTERS: Mapping[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        Adapter(
            name="hrm8k",
            hub="HAERAE-HUB/HRM8K",
            protocol=Protocol(scoring="number, compared exactly", max_tokens=2048, official="number in \\boxed{}"),
            read=_hrm8k,
            subsets=("GSM8K", "MATH", "OMNI_MATH", "MMMLU", "KSM"),
        ),
        Adapter(
            name="kmmlu",
            hub="HAERAE-HUB/KMMLU",
            protocol=Protocol(scoring=_LETTER, shots=5, official="5-shot direct, macro average over subjects"),
            read=_kmmlu,
            shown_split="dev",
        ),
        Adapter(
            name="kobest",
            hub="skt/kobest_v1",
            protocol=Protocol(scoring=_LETTER, official="log-likelihood of options, macro F1"),
            read=_kobest,
            subsets=tuple(_KOBEST),
            shown_split="train",
        ),
        Adapter(
            name="haerae",
            hub="HAERAE-HUB/HAE_RAE_BENCH",
            protocol=Protocol(scoring=_LETTER, official="log-likelihood of letters, accuracy"),
            read=_haerae,
            subsets=("general_knowledge", "history", "loan_words", "rare_words", "standard_nomenclature"),
        ),
        Adapter(
            name="click",
            hub="EunsuKim/CLIcK",
            protocol=Protocol(scoring=_LETTER, official="choice accuracy by category"),
            read=_click,
            test_split="train",
        ),
        Adapter(
            name="korquad",
            hub="KorQuAD/squad_kor_v1",
            protocol=Protocol(
                scoring="exact match with particles accepted; em and f1_char beside it", official="em, f1"
            ),
            read=_korquad,
            test_split="validation",
            shown_split="train",
            expand=_squad_rows,
        ),
        Adapter(
            name="klue_mrc",
            hub="klue/klue",
            protocol=Protocol(
                scoring="exact match with particles accepted; em beside it", official="em, character ROUGE-W"
            ),
            read=_klue_mrc,
            subsets=("mrc",),
            test_split="validation",
            shown_split="train",
            expand=_squad_rows,
        ),
        Adapter(
            name="ifeval_ko",
            hub="allganize/IFEval-Ko",
            protocol=Protocol(scoring="every instruction followed", max_tokens=1280, official="strict, loose"),
            read=_ifeval,
            test_split="train",
        ),
        Adapter(
            name="gsm8k",
            hub="openai/gsm8k",
            protocol=Protocol(scoring="number, compared exactly", max_tokens=512, official="number after ####"),
            read=_gsm8k,
            language="en",
            subsets=("main",),
            shown_split="train",
        ),
        Adapter(
            name="mmlu",
            hub="cais/mmlu",
            protocol=Protocol(
                scoring=_LETTER, shots=5, official="log-likelihood of letters, macro average over subjects"
            ),
            read=_mmlu,
            language="en",
            subsets=("all",),
            any_subset=True,
            shown_split="dev",
        ),
    )
}
