"""Which Korean particles and endings may follow a noun: so that 서울입니다 is 서울, and 고양이 is not 고양."""

from __future__ import annotations

from functools import cache
from pathlib import Path

__all__ = ["follows", "is_ending", "is_other_word"]

_LONGEST_CHAIN = 3

# What an ending may follow: a final consonant, none, either; before 로 a final ㄹ counts as none.
_AFTER_CONSONANT = """은 이 을 과 이랑 으로 으로서 으로써 이라고 이라는 이라 이란 이며 이고 이나 이에요 이어요
    이었다 이었습니다 이었어요 이여 이라고요 이라고합니다 이라고한다 이라고할수있습니다 이라고불립니다 이랍니다
    이라고적혀있습니다 이라고나와있습니다 으로보입니다"""
_AFTER_VOWEL = """는 가 를 와 랑 라고 라는 라 란 며 고 나 예요 여요 였다 였습니다 였어요 라고합니다 라고한다
    라고할수있습니다 라고불립니다 랍니다 라고적혀있습니다 라고나와있습니다"""
_AFTER_EITHER = """의 에 에서 에게 에게서 께 께서 한테 한테서 도 만 까지 부터 마다 보다 처럼 뿐 밖에 조차 마저
    이다 입니다 임 인 이죠 이지요 이군요 이네요 이지 요 다 이었던 인데 이기 이므로 이었음 였음
    된다 됩니다 되었다 되었습니다
    이됩니다 가됩니다 이된다 가된다 인것같습니다 인것으로보입니다"""
_ENDINGS = {
    **dict.fromkeys(_AFTER_EITHER.split(), "either"),
    **dict.fromkeys(_AFTER_CONSONANT.split(), "consonant"),
    **dict.fromkeys(_AFTER_VOWEL.split(), "vowel"),
    **dict.fromkeys(("로", "로서", "로써", "로보입니다"), "vowel_or_rieul"),
}
_PREDICATES = ("이다", "입니다", "이에요", "예요", "이었", "였", "이죠", "됩니다", "된다", "되었", "라고")
_FINALS, _RIEUL = 28, 8


def follows(noun: str, rest: str, *, links: int = _LONGEST_CHAIN) -> bool:
    """Whether ``rest`` is a chain of at most three endings of which the first fits the noun's last sound."""
    if not rest:
        return True
    return bool(links) and any(
        rest.startswith(ending) and _fits(noun[-1], need) and follows(ending, rest[len(ending) :], links=links - 1)
        for ending, need in _ENDINGS.items()
    )


def is_ending(rest: str) -> bool:
    """Whether the rest contains a predicate (``입니다``), which no noun ends in by chance."""
    return any(predicate in rest for predicate in _PREDICATES)


@cache
def _other_words() -> frozenset[str]:
    text = Path(__file__).with_name("other_words.tsv").read_text(encoding="utf-8")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


def is_other_word(text: str, *, than: str) -> bool:
    """Whether the text is a form of a longer noun that only looks like ``than`` with a particle: 고양이, 회의입니다."""
    return any(
        text[:end] in _other_words() and follows(text[:end], text[end:]) for end in range(len(than) + 1, len(text) + 1)
    )


def _fits(last: str, need: str) -> bool:
    """Whether an ending with this need may follow; after digits and Latin letters any may."""
    if need == "either" or not "가" <= last <= "힣":
        return True
    final = (ord(last) - ord("가")) % _FINALS
    if need == "consonant":
        return final != 0
    return final == 0 or (need == "vowel_or_rieul" and final == _RIEUL)
