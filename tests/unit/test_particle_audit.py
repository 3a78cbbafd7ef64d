"""The independent particle checker: it must find wrong particles, and leave right Korean alone."""

import pytest

from llmopt.workload.korean.audit import misfits


@pytest.mark.parametrize(
    "text",
    [
        "지우는 사과를 12개와 배 4개를 샀고, 연필로 이름을 적었습니다.",
        "가을에 마을 사람들이 있는 곳으로 갔다.",
        "무게가 5kg인 상자는 20%가 비어 있고 35cm를 잘라 10m로 만들었다.",
        "기온은 18℃였고 어제는 20도였습니다. 학생이었다.",
        "서울로 가는 길은 물과 풀이 많다.",
        "12,000원을 내고 1,000,000,000,000를 세었다.",
        "닭이 낳는 알을 모은 사람이 많이 있다.",
    ],
)
def test_right_korean_passes(text):
    assert misfits(text) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("사과을 먹었다", "사과을"),
        ("연필를 샀다", "연필를"),
        ("지우은 갔다", "지우은"),
        ("책는 있다", "책는"),
        ("물가 맑고 꽃가 핀다", "꽃가"),
        ("바다이 넓다", "바다이"),
        ("부산로 갔다", "부산로"),
        ("서울으로 갔다", "서울으로"),
        ("나무과 풀", "나무과"),
        ("산와 들", "산와"),
        ("5kg를 들었다", "5kg를"),
        ("35cm을 잘랐다", "35cm을"),
        ("20%이 남았다", "20%이"),
        ("10를 더했다", "10를"),
        ("3로 나누었다", "3로"),
        ("18℃이었습니다.", "18℃이었습니다"),
        ("5번였습니다.", "5번였습니다"),
    ],
)
def test_wrong_particles_are_found(text, wrong):
    assert misfits(text) == [wrong]
