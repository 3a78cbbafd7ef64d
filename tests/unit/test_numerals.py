"""Korean numerals as models write them: our own cases, traps, and round trips of every surface form."""

import unicodedata
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.answers.notation import plain
from llmopt.measure.answers.numerals import find_quantities, parse_number, parse_quantity
from llmopt.workload.korean.counters import COUNTERS, amount
from llmopt.workload.korean.numbers import comma, man_form, native, sino

# one case a line: what is written → the value, and the unit where one is read
CASES = r"""
35,000 → 35000
35000원 → 35000 원
₩35,000 → 35000
￦35,000 → 35000
35,000원 → 35000 원
35,000 원 → 35000 원
3만 5천원 → 35000 원
3만5천 원입니다. → 35000 원
3만5천 → 35000
3만 5,000원 → 35000 원
3만 5000원 → 35000 원
3.5만원 → 35000 원
삼만 오천 원 → 35000 원
삼만오천원 → 35000 원
삼만 오천원입니다 → 35000 원
서른다섯 명 → 35 명
서른다섯명 → 35 명
서른다섯 → 35
스무 살 → 20 살
스무살 → 20 살
스물 → 20
스물한 살 → 21 살
백스물세 개 → 123 개
백스물셋 → 123
1억 2천만 → 120000000
1억 2,000만 원 → 120000000 원
2억3000만원 → 230000000 원
2억 3천만 원 → 230000000 원
1조 5천억 원 → 1500000000000 원
만 원 → 10000 원
만원 → 10000 원
천 원 → 1000 원
백 원짜리 → none
만 이천 원 → 12000 원
1만 2천 원 → 12000 원
12,000원 → 12000 원
십만 원 → 100000 원
일억 → 100000000
백만 → 1000000
천만 원 → 10000000 원
5천 4백 원 → 5400 원
5천4백원 → 5400 원
2천5백3십 → 2530
이천이십육 → 2026
삼천 → 3000
구천구백구십구 → 9999
7/2 → 7/2
-7/2 → -7/2
7 / 2 → 7/2
3분의 2 → 2/3
3 분의 2 → 2/3
삼분의 이 → 2/3
이분의 일 → 1/2
십분의 삼 → 3/10
8분의 3입니다 → 3/8
3과 1/2 → 7/2
3 1/2 → 7/2
1과 3분의 2 → 5/3
3½ → 7/2
½ → 1/2
¾컵 → 3/4 컵
2/3 kg → 2/3 kg
1/2개 → 1/2 개
절반 → 1/2
３５ → 35
３５，０００원 → 35000 원
１２％ → 12 %
−4℃ → -4 도
-4℃ → -4 도
영하 4도 → -4 도
영하 4℃ → -4 도
영상 12도 → 12 도
−12 → -12
–12 → -12
- 12 → -12
마이너스 12 → -12
+12 → 12
-3.5 → -3.5
₩-500 → -500
12% → 12 %
12 % → 12 %
12퍼센트 → 12 퍼센트
12.5% → 12.5 %
12%입니다. → 12 %
3할 → 3 할
십이 퍼센트 → 12 퍼센트
17개 → 17 개
17 개 → 17 개
17개입니다 → 17 개
17개입니다. → 17 개
17개이다 → 17 개
17개예요! → 17 개
17개다 → 17 개
17개임 → 17 개
17개가 됩니다 → 17 개
17개가 남습니다. → 17 개
17명이 됩니다. → 17 명
17명이에요 → 17 명
총 17개 → 17 개
모두 17개입니다. → 17 개
약 17개 → 17 개
약 3.5kg → 3.5 kg
대략 20분 → 20 분
총합계 17개 → 17 개
17마리 → 17 마리
17송이 → 17 송이
17그루 → 17 그루
17자루 → 17 자루
17권 → 17 권
17장 → 17 장
17대 → 17 대
17켤레 → 17 켤레
17쪽 → 17 쪽
17페이지 → 17 페이지
17인분 → 17 인분
17층 → 17 층
17점 → 17 점
17세 → 17 세
17살 → 17 살
17번 → 17 번
17회 → 17 회
17판 → 17 판
17도막 → 17 도막
17모둠 → 17 모둠
17묶음 → 17 묶음
17포기 → 17 포기
17꼬치 → 17 꼬치
3조각 → 3 조각
3조각입니다 → 3 조각
2사람 → 2 사람
7일 → 7 일
12월 → 12 월
두 개 → 2 개
두개 → 2 개
세 마리입니다 → 3 마리
네 시간 → 4 시간
다섯 → 5
다섯 개 → 5 개
열 → 10
열두 살 → 12 살
열하나 → 11
쉰 명 → 50 명
예순다섯 → 65
아흔아홉 개 → 99 개
서 말 → 3 말
석 달 → 3 달
넉 장 → 4 장
한 개 → 1 개
이십 개 → 20 개
이십사 시간 → 24 시간
삼십분 → 30 분
백 명 → 100 명
천이백서른다섯 명 → 1235 명
만 두 개 → 10002 개
만 이천서른 명 → 12030 명
일점오 → 1.5
삼 점 일사 → 3.14
영 → 0
삼 → 3
육 → 6
0 → 0
007 → 7
3.0 → 3
.5 → 0.5
3.14 → 3.14
1,234.50 → 1234.5
1,234,567 → 1234567
12345678 → 12345678
5시간 30분 → 330 분
5시간30분 → 330 분
1시간 → 1 시간
두 시간 삼십 분 → 150 분
두 시간 반 → 2.5 시간
3시간 반 → 3.5 시간
2분 30초 → 150 초
1일 12시간 → 36 시간
2년 6개월 → 30 개월
2주 3일 → 17 일
3시 20분 → 200 분
오후 3시 20분 → 920 분
오전 9시 5분 → 545 분
오후 12시 10분 → 730 분
15:20 → 920 분
09:05 → 545 분
사흘 → 3 일
열흘 → 10 일
하루 → 1 일
보름 → 15 일
일주일 → 7 일
2m 50cm → 250 cm
1m 5cm입니다 → 105 cm
3km 200m → 3200 m
1kg 500g → 1500 g
1L 200mL → 1200 ml
2리터 → 2 리터
350밀리리터 → 350 밀리리터
35 cm → 35 cm
35㎝ → 35 cm
35센티미터 → 35 센티미터
삼십오 센티미터 → 35 센티미터
12㎡ → 12 m^2
12m² → 12 m^2
12 cm^2 → 12 cm^2
12제곱미터 → 12 제곱미터
27㎤ → 27 cm^3
25㎏ → 25 kg
25킬로그램 → 25 킬로그램
시속 60km → 60 km
분속 80m → 80 m
90km/h → none
\boxed{35,000원} → 35000 원
\boxed{17} → 17
\frac{7}{2} → 7/2
\dfrac{7}{2} → 7/2
$\frac{7}{2}$ → 7/2
$17$ → 17
\(17\) → 17
\[17\] → 17
3\frac{1}{2} → 7/2
-\frac{3}{4} → -3/4
35{,}000 → 35000
35\,000 → 35000
35,000\text{원} → 35000 원
17\text{ 개} → 17 개
12\% → 12 %
60^\circ → 60 도
60^{\circ} → 60 도
12\,\mathrm{cm} → 12 cm
\$18.00 → 18
$18 → 18
3.5 \times 10^3 → 3500
3.5×10^{3} → 3500
2e3 → 2000
**17** → 17
**17개** → 17 개
`17` → 17
"17" → 17
“17개” → 17 개
(17) → 17
[17] → 17
17. → 17
17, → 17
 17  → 17
4 hours → 4 hours
20 minutes → 20 minutes
5 dollars → 5 dollars
2다스 → 2 다스
3만 5천원정 → 35000 원정
3만5천원 입니다 → 35000 원
십이만삼천사백원 → 123400 원
열두시 반 → 12.5 시
한 시간 반 → 1.5 시간
섭씨 4도 → 4 도
12제곱cm → 12 제곱cm
16(개) → 16
16개(명) → 16 개
16개였습니다 → 16 개
16명이었다 → 16 명
16개에요 → 16 개
16개 랍니다 → 16 개
3분의 1씩 → 1/3
백분의 이십오 → 1/4
1과 1/2시간 → 1.5 시간
2시간 15분 30초 → 8130 초
$3.5$kg → 3.5 kg
$\frac{35}{2}$ cm → 35/2 cm
35000₩ → 35000 ₩
= 16 → 16
→ 16 → 16
16~17 → none
16 또는 17 → none
두세 개 → none
서너 명 → none
4×4 → none
\sqrt{2} → none
12 ÷ 4 → none
백이 개 → 102 개
만일 → none
천사 → none
"""

TRAPS = [
    "사과",
    "만두",
    "천안",
    "일요일",
    "오이",
    "구구단",
    "이다",
    "이야",
    "사장",
    "사장님",
    "조개",
    "천장",
    "백조",
    "이번",
    "이분",
    "이사",
    "구경",
    "만세",
    "두부",
    "한국",
    "세대",
    "열대",
    "열쇠",
    "이모",
    "사람",
    "오리",
    "이유",
    "네모",
    "일부",
    "만점자",
    "세상",
    "천사",
    "백화점",
    "일본",
    "이웃",
    "삼촌",
    "삼국지",
    "사자",
    "오징어",
    "육지",
    "칠판",
    "팔찌",
    "구름",
    "십자가",
    "백두산",
    "천둥",
    "만화",
    "억새",
    "조금",
    "두더지",
    "세수",
    "네팔",
    "다섯째날들",
    "열매",
    "서울",
    "너구리",
    "한글",
    "공원",
    "영화",
    "영수",
    "공기",
    "이상",
    "일곱난쟁이",
    "반찬",
    "반지",
    "반달",
    "하루살이",
    "오후",
    "오전",
    "모레",
    "없음",
    "모름",
    "알",
    "정답",
    "3~4개",
    "3:2",
    "1,2,3",
    "3-4",
    "12+4",
    "x",
    "개",
    "원",
    "%",
    ".",
    "-",
    "abc",
    "삼각형",
    "사각형",
    "오각형",
    "육하원칙",
    "칠월칠석",
    "팔도강산",
    "구만리장천",
    "백과사전",
    "천자문",
    "만년필",
    "일기",
    "이발소",
    "삼겹살",
    "사진",
    "오락",
    "육교",
    "칠면조",
    "팔꿈치",
    "구두",
    "십대들",
]


def _cases():
    for line in CASES.strip("\n").splitlines():
        written, _, expected = line.rpartition(" → ")
        value, _, unit = expected.partition(" ")
        yield written, None if value == "none" else Fraction(value), unit


VECTORS = list(_cases())


@pytest.mark.parametrize(("written", "value", "unit"), VECTORS)
def test_numeral(written, value, unit):
    quantity = parse_quantity(written)
    assert (quantity.value if quantity else None) == value
    if quantity:
        assert quantity.unit == unit


@pytest.mark.parametrize("word", TRAPS)
def test_words_that_only_look_like_numerals_are_nothing(word):
    assert parse_number(word) is None


def test_there_are_enough_cases_of_our_own():
    assert len({written for written, _, _ in VECTORS}) >= 200


def test_decomposed_hangul_reads_the_same():
    assert parse_number(unicodedata.normalize("NFD", "서른다섯 명")) == 35


@given(st.integers(1, 10**16))
def test_sino_words_read_back(number):
    assert parse_number(f"{sino(number)} 원") == number
    assert parse_number(sino(number).replace(" ", "") + "원") == number


@given(st.integers(1, 999))
def test_native_words_read_back(number):
    assert parse_number(native(number)) == number


@given(st.integers(1, 10**8))
def test_digits_with_man_read_back(number):
    assert parse_number(f"{man_form(number)}원") == number
    assert parse_number(comma(number)) == number


_SPOKEN_TWICE = {"번째", "문제", "배", ""}


@given(
    st.integers(2, 9999),
    st.sampled_from(sorted(set(COUNTERS) - _SPOKEN_TWICE)),
    st.sampled_from(["digits", "man", "words"]),
)
def test_every_surface_form_of_an_amount_reads_back(number, counter, form):
    written = amount(number, counter, form)
    assert parse_number(written) == number
    assert parse_number(f"{written}입니다.") == number
    found = find_quantities(plain(f"따라서 구하는 값은 {written}입니다."))
    if any(c.isdigit() for c in written):
        assert [f.quantity.value for f in found] == [number]


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=500))
def test_fractions_read_back(value):
    assert parse_number(str(value)) == value
    if value > 0 and value.denominator > 1:
        assert parse_number(f"{value.denominator}분의 {value.numerator}") == value
        assert parse_number(rf"\frac{{{value.numerator}}}{{{value.denominator}}}") == value


@given(st.decimals(min_value=-10_000, max_value=10_000, places=3))
def test_decimals_read_back(value):
    assert parse_number(f"{value:,}") == Fraction(value)


@given(st.text(max_size=40))
def test_any_text_is_read_without_error(text):
    parse_quantity(text)
    for found in find_quantities(plain(text)):
        assert 0 <= found.start < found.end


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("사과 12개와 배 4개를 더하면 16개입니다.", [12, 4, 16]),
        ("이 문제는 이 점에서 이 배가 중요하다", []),
        ("다시 한 번 확인하자", []),
        ("답은 한 개입니다", [1]),
        ("남은 구슬은 열여섯 개이다.", [16]),
        ("모두 삼만 오천 원을 냈다", [35000]),
        ("3조각을 먹었다", [3]),
        ("기온이 -4도에서 영하 7도로", [-4, -7]),
        ("12 - 4 = 8", [12, 4, 8]),
        ("12-4=8", [12, 4, 8]),
        ("5시간 30분 동안", [330]),
        ("x2 + GPT4", []),
        ("2만원씩 3명이면 6만원", [20000, 3, 60000]),
        ("1/2컵을 3번", [Fraction(1, 2), 3]),
        ("두 사람이 서른 살", [2, 30]),
        ("The 3 dogs ate 1,250.75 grams.", [3, Fraction("1250.75")]),
        ("오이 사과 만두 백화점 천사", []),
        ("1. 먼저 17개", [1, 17]),
    ],
)
def test_numbers_in_running_text(text, values):
    assert [found.quantity.value for found in find_quantities(plain(text))] == values
