"""How a question is put: the prompt forms a search may choose from, in the dataset's language.

Every form but ``answer_only`` asks for a last line ``정답: <값>`` (``Answer: <value>``): extraction reads it first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmopt.records import Dataset, Item, Message
from llmopt.workload.user_data import LETTERS

__all__ = ["DEFAULT_FORM", "PROMPT_FORMS", "answer_label", "forms_for", "render"]

DEFAULT_FORM = "zero_shot"
_SHOTS = 3


@dataclass(frozen=True, kw_only=True)
class _Form:
    asks: str
    """Which instruction of ``_INSTRUCTIONS`` follows the question; none where the examples show it."""
    examples: bool = False
    steps: bool = False


_FORMS: Mapping[str, _Form] = {
    "zero_shot": _Form(asks="contract"),
    "answer_only": _Form(asks="bare"),
    "examples": _Form(asks="", examples=True),
    "step_by_step": _Form(asks="steps"),
    "examples_steps": _Form(asks="steps", examples=True, steps=True),
}
PROMPT_FORMS = tuple(_FORMS)
"""Names of the forms; ``forms_for`` says which of them a dataset can fill."""

_INSTRUCTIONS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "ko": {
        "numeric": {
            "contract": "마지막 줄에 '정답: <값>' 형식으로 답을 쓰세요.",
            "bare": "풀이 없이 답만 숫자로 쓰세요.",
            "steps": "한 단계씩 차근차근 풀고, 마지막 줄에 '정답: <값>' 형식으로 답을 쓰세요.",
        },
        "choice": {
            "contract": "보기 중에서 하나를 골라 마지막 줄에 '정답: <기호>' 형식으로 쓰세요.",
            "bare": "설명 없이 정답의 기호 하나만 쓰세요.",
            "steps": "차근차근 따져 본 뒤, 마지막 줄에 '정답: <기호>' 형식으로 쓰세요.",
        },
        "qa": {
            "contract": "마지막 줄에 '정답: <답>' 형식으로 짧게 답하세요.",
            "bare": "설명 없이 답만 짧게 쓰세요.",
            "steps": "근거를 차례로 찾아본 뒤, 마지막 줄에 '정답: <답>' 형식으로 짧게 답하세요.",
        },
    },
    "en": {
        "numeric": {
            "contract": "Write the result on the last line in the form 'Answer: <value>'.",
            "bare": "Write only the number, without any working.",
            "steps": "Think step by step, then write the result on the last line in the form 'Answer: <value>'.",
        },
        "choice": {
            "contract": "Choose one option and write it on the last line in the form 'Answer: <letter>'.",
            "bare": "Write only the letter of the right option.",
            "steps": "Think step by step, then write the last line in the form 'Answer: <letter>'.",
        },
        "qa": {
            "contract": "Answer briefly on the last line in the form 'Answer: <answer>'.",
            "bare": "Write only the short answer.",
            "steps": "Find the evidence step by step, then answer on the last line in the form 'Answer: <answer>'.",
        },
    },
}
_UNKNOWN = {
    "ko": "글에서 알 수 없는 내용이면 '알 수 없음'이라고 답하세요.",
    "en": "If the text does not say, answer 'unknown'.",
}
_TEXT_LABELS = {"ko": ("[글]", "[질문]"), "en": ("[Text]", "[Question]")}
_ANSWER_LABEL = {"ko": "정답", "en": "Answer"}
_GROUPS = {"exact": "qa", "char_f1": "qa"}


def answer_label(dataset: Dataset) -> str:
    """The word before the colon of the answer line."""
    return _ANSWER_LABEL[_language(dataset)]


def forms_for(dataset: Dataset) -> tuple[str, ...]:
    """The forms this dataset can fill: worked examples need an examples split, open questions know only one form."""
    if all(_group(item) is None for item in dataset.items):
        return (DEFAULT_FORM,)
    shown = dataset.split("examples")
    worked = any("solution" in item.meta for item in shown)
    return tuple(name for name, form in _FORMS.items() if (not form.examples or shown) and (not form.steps or worked))


def render(item: Item, form: str | None, dataset: Dataset, *, system: str | None = None) -> tuple[Message, ...]:
    """The chat messages that put ``item`` in ``form`` (the dataset's default where None).

    Examples come from the dataset's examples split, the same ones in the same order for every item of a kind, so that
    no form gains from luck. Raises KeyError for a form that is not in ``PROMPT_FORMS``.
    """
    chosen = _FORMS[form or DEFAULT_FORM]
    if "messages" in item.meta:
        return tuple(item.meta["messages"])  # a foreign task brings its prompt, whatever the form
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    shown = _examples(item, dataset) if chosen.examples and _group(item) else ()
    asks = chosen.asks if shown or chosen.asks else "contract"
    for example in shown:
        messages.append({"role": "user", "content": _question(example, asks, dataset)})
        messages.append({"role": "assistant", "content": _answer(example, dataset)})
    messages.append({"role": "user", "content": _question(item, asks, dataset)})
    return tuple(messages)


def _examples(item: Item, dataset: Dataset) -> Sequence[Item]:
    """Up to three examples of the item's group, spread over clusters and short ones first."""
    fitting = [e for e in dataset.split("examples") if _group(e) == _group(item) and e.answers and e.id != item.id]
    fitting.sort(key=lambda e: e.level)
    chosen: list[Item] = []
    for unseen_only in (True, False):
        for example in fitting:
            if len(chosen) == _SHOTS:
                break
            known = {e.cluster or e.id for e in chosen}
            if example not in chosen and (not unseen_only or (example.cluster or example.id) not in known):
                chosen.append(example)
    return chosen


def _question(item: Item, asks: str, dataset: Dataset) -> str:
    language = _language(dataset)
    group = _group(item)
    parts = []
    context = item.meta.get("context")
    if context:
        text_label, question_label = _TEXT_LABELS[language]
        parts += [f"{text_label}\n{context}", f"{question_label}\n{item.question}"]
    else:
        parts.append(item.question)
    if group == "choice" and not item.meta.get("lists_options"):
        parts.append("\n".join(f"{LETTERS[n]}. {option}" for n, option in enumerate(item.options)))
    if group and asks:
        instruction = _INSTRUCTIONS[language][group][asks]
        if context and group == "qa":
            instruction = f"{_UNKNOWN[language]} {instruction}"
        parts.append(instruction)
    return "\n\n".join(parts)


def _answer(example: Item, dataset: Dataset) -> str:
    """What the model is shown to answer: the working where there is one, then the answer line."""
    last = f"{answer_label(dataset)}: {example.answers[0]}"
    worked = example.meta.get("solution")
    return f"{worked}\n{last}" if worked else last


def _group(item: Item) -> str | None:
    """Which instructions fit the item; None for open questions, which are put as they are."""
    name = _GROUPS.get(item.kind, item.kind)
    return name if name in _INSTRUCTIONS["en"] else None


def _language(dataset: Dataset) -> str:
    return dataset.language if dataset.language in _INSTRUCTIONS else "en"
