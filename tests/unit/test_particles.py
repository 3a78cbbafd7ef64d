"""The particle rule on cases of our own, and against an independent reading of the same words."""

import importlib.util
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.workload.korean.latin import latin_sound, unit_sound
from llmopt.workload.korean.numbers import sino
from llmopt.workload.korean.particles import PARTICLES, Sound, attach, last_sound, particle

CASES = """
사과 을 사과를 | 수박 을 수박을 | 연필 로 연필로 | 지하철 로 지하철로 | 부산 로 부산으로 | 서울 로 서울로 | 학교 로 학교로
바다 은 바다는 | 산 은 산은 | 물 은 물은 | 길 이 길이 | 나무 이 나무가 | 꽃 과 꽃과 | 풀 과 풀과 | 새 과 새와 | 닭 을 닭을
여덟 을 여덟을 | 여덟 로 여덟으로 | 값 을 값을 | 삶 은 삶은 | 밖 으로 밖으로 | 부엌 으로 부엌으로 | 옷 이랑 옷이랑 | 모자 이랑 모자랑
0 을 0을 | 1 을 1을 | 1 로 1로 | 2 을 2를 | 3 으로 3으로 | 4 이 4가 | 5 은 5는 | 6 과 6과 | 7 으로 7로 | 8 로 8로 | 9 을 9를
10 으로 10으로 | 20 이 20이 | 100 을 100을 | 1,000 은 1,000은 | 12,000 을 12,000을 | 10000 이 10000이 | 100,000,000 을 100,000,000을
1,000,000,000,000 을 1,000,000,000,000를 | 30,000,000,000,000 이 30,000,000,000,000가 | 3.5 을 3.5를 | 0.1 으로 0.1로 | 2.50 이 2.50이
12,001 로 12,001로 | 105 과 105와 | 2024 은 2024는 | 1/2 을 1/2을 | 3/4 이 3/4이 | 2/5 과 2/5와 | 9:30 이 9:30이 | 9:05 을 9:05을 | 3:00 은 3:00는
5kg 을 5kg을 | 10km 을 10km를 | 3m 로 3m로 | 250mL 이 250mL가 | 2L 을 2L를 | 80g 은 80g은 | 7t 이 7t이 | 15cm 과 15cm와 | 90km/h 로 90km/h로
20% 이 20%가 | 20% 은 20%는 | 36.5℃ 을 36.5℃를 | 25㎏ 을 25㎏을 | 40㎡ 이 40㎡가 | 30㎠ 은 30㎠는 | $5 을 $5를 | 5$ 을 5$를 | 500₩ 을 500₩을
8GB 이 8GB가 | 100Mbps 로 100Mbps로 | 60Hz 은 60Hz는 | 3m2 을 3m2를
CPU 은 CPU는 | GPU 을 GPU를 | RAM 이 RAM이 | SSD 을 SSD를 | URL 로 URL로 | URL 을 URL을 | PDF 이 PDF가 | AI 은 AI는 | JSON 을 JSON을 | HTML 로 HTML로
Python 은 Python은 | Linux 이 Linux가 | Java 으로 Java로 | Apple 은 Apple은 | Google 로 Google로 | Chrome 으로 Chrome으로 | server 을 server를
robot 이 robot이 | web 은 web은 | Slack 으로 Slack으로 | Mac 이 Mac이 | app 을 app을 | game 이 game이 | file 로 file로 | cloud 을 cloud를 | GitHub 은 GitHub은
‘연필’ 을 ‘연필’을 | "나무" 이 "나무"가 | 「수필」 로 「수필」로 | 《토지》 은 《토지》는 | 사과(apple) 을 사과(apple)를 | 서울(首都) 로 서울(首都)로
물(H2O) 은 물(H2O)은 | **정답** 은 **정답**은 | (가) 은 (가)는 | ㄱ 은 ㄱ은 | ㄹ 로 ㄹ로 | ㅏ 을 ㅏ를
선생님 이에요 선생님이에요 | 친구 이에요 친구예요 | 학생 이었 학생이었 | 교사 이었 교사였 | 밥 이나 밥이나 | 차 나 차나 | 민준 아 민준아 | 지우 야 지우야
집 으로부터 집으로부터 | 마을 으로부터 마을로부터 | 도구 으로써 도구로써 | 칼 으로써 칼로써 | 반장 으로서 반장으로서 | 이것 이란 이것이란 | 자유 이란 자유란
"""
VECTORS = [tuple(case.strip().rsplit(" ", 2)) for line in CASES.strip().splitlines() for case in line.split("|")]
VECTORS += [
    ("5 m²", "이", "5 m²가"),
    ("[그림 3]", "을", "[그림 3]을"),
    ("약 20 kg", "은", "약 20 kg은"),
    ("제2장 「봄」", "로", "제2장 「봄」으로"),
    ("５", "을", "５를"),
    ("１０", "은", "１０은"),
    ("Ⅱ", "은", "Ⅱ는"),
    ("Ⅲ", "은", "Ⅲ은"),
    ("Ⅷ", "으로", "Ⅷ로"),
    ("①", "은", "①은"),
    ("½", "을", "½을"),
    ("km", "을", "km를"),
    ("kg", "으로", "kg으로"),
    ("C++", "은", "C++는"),
    ("C#", "이", "C#이"),
]


@pytest.mark.parametrize(("word", "name", "expected"), VECTORS)
def test_particle_follows_the_last_sound(word, name, expected):
    assert attach(word, name) == expected


def test_there_are_enough_cases_of_our_own():
    assert len(set(VECTORS)) >= 60


def test_either_form_or_both_name_a_particle():
    assert particle("산", "은") == particle("산", "는") == particle("산", "은/는") == "은"
    assert particle("산", "이/가") == "이"
    assert particle("산", "로") == "으로"


def test_unknown_particle_is_a_bug():
    with pytest.raises(KeyError):
        particle("산", "에서")


@pytest.mark.parametrize("word", ["", "漢字", "カナ", "😀", "??"])
def test_unreadable_words_get_both_forms(word):
    assert last_sound(word) is None
    assert attach(word, "은") == f"{word}은(는)"


def _by_decomposition(syllable):
    jamo = unicodedata.normalize("NFD", syllable)
    if len(jamo) < 3:
        return Sound.VOWEL
    return Sound.RIEUL if jamo[-1] == "\u11af" else Sound.CONSONANT


@given(st.integers(0xAC00, 0xD7A3).map(chr))
def test_hangul_agrees_with_unicode_decomposition(syllable):
    assert last_sound(syllable) is _by_decomposition(syllable)


@given(st.integers(0, 10**19))
def test_numbers_end_as_they_are_read_aloud(number):
    spoken = _by_decomposition(sino(number)[-1])
    assert last_sound(str(number)) is spoken
    assert last_sound(f"{number:,}") is spoken


@given(st.text(max_size=20), st.sampled_from(sorted(PARTICLES)))
def test_any_text_gets_some_form(word, name):
    forms = PARTICLES[name]
    assert particle(word, name) in (*forms, f"{forms[0]}({forms[1]})")


def test_units_and_words_are_separate_questions():
    assert unit_sound("kg") == "consonant"
    assert unit_sound("furlong") is None
    assert latin_sound("kg") == "vowel"  # as a bare word nobody can know it is a unit


@pytest.mark.skipif(importlib.util.find_spec("hangulpy") is None, reason="a development cross-check only")
def test_agrees_with_another_library_on_hangul_and_digits():
    import hangulpy

    for word, name, expected in VECTORS:
        if name in ("을", "은", "이") and all("가" <= c <= "힣" or c.isdigit() for c in word):
            assert hangulpy.josa(word, {"을": "을/를", "은": "은/는", "이": "이/가"}[name]) == expected
