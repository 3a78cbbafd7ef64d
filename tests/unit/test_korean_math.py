"""The generated set: the same bytes everywhere, exact, solvable in one way only, and honest about what it prints."""

import hashlib
import json
import re
from collections import Counter
from fractions import Fraction

import pytest

from llmopt.errors import DataError
from llmopt.workload.korean.audit import misfits
from llmopt.workload.korean.notation import plain
from llmopt.workload.korean.numerals import find_quantities, parse_number
from llmopt.workload.korean_math import CANARY, LEVELS, PER_TEMPLATE, SET_VERSION, as_jsonl, capacity, generate
from llmopt.workload.korean_math.draw import Draw, draw_problem
from llmopt.workload.korean_math.generator import split_of
from llmopt.workload.korean_math.literals import literal_numbers
from llmopt.workload.korean_math.program import compile_program, operations, run
from llmopt.workload.korean_math.second_solver import solve
from llmopt.workload.korean_math.template import quantities_in
from llmopt.workload.korean_math.themes import all_templates

GOLDEN = "defbdb09f3b20d56c0ebb05144d5594f"
"""BLAKE2b of the default set. A change means other items: raise SET_VERSION with it."""

OPERATIONS = {1: (1, 1), 2: (2, 4), 3: (5, 6), 4: (7, 9), 5: (7, 9)}
TEMPLATES = {template.id: template for template in all_templates()}
MANY = 5000


@pytest.fixture(scope="module")
def many():
    """5,000 items: more of each template than any drawn set has."""
    items = generate(MANY, seed=11, per_template=60)
    return [item for item in items if item.split != "examples"]


def _values(item):
    return {name: Fraction(value) for name, value in item.meta["values"].items()}


# ── reproducible ────────────────────────────────────────────────────────────────────────────────────────────────


def test_default_set_is_the_same_bytes_everywhere():
    digest = hashlib.blake2b(as_jsonl(generate()).encode(), digest_size=16).hexdigest()
    assert (SET_VERSION, digest) == ("korean_math-1", GOLDEN)


def test_seeds_share_no_item():
    questions = [{item.question for item in generate(200, seed=seed)} for seed in (0, 1)]
    assert not questions[0] & questions[1]


def test_a_smaller_set_is_part_of_a_larger_one():
    small, large = generate(40, seed=3), generate(400, seed=3)
    assert {i.id: i for i in small}.items() <= {i.id: i for i in large}.items()


def test_canary_stands_in_the_file_and_in_no_question():
    text = as_jsonl(generate(20))
    assert json.loads(text.splitlines()[0])["canary"] == CANARY
    assert text.count(CANARY) == 1


# ── composed as promised ────────────────────────────────────────────────────────────────────────────────────────


def test_there_are_enough_templates_on_every_level():
    asked = Counter(t.level for t in TEMPLATES.values() if not t.example)
    assert sum(asked.values()) >= 60
    assert set(asked) == set(LEVELS)
    assert len(set(asked.values())) == 1
    assert len(TEMPLATES) == len(all_templates())


def test_no_set_has_more_than_five_items_of_a_template():
    clusters = Counter(item.cluster for item in generate(capacity()))
    assert max(clusters.values()) == PER_TEMPLATE
    assert len({item.id for item in generate(capacity())}) == capacity() + sum(
        i.split == "examples" for i in generate(1)
    )


@pytest.mark.parametrize("size", [10, 50, 180, 360])
def test_levels_and_splits_are_in_equal_parts(size):
    items = [item for item in generate(size, seed=5) if item.split != "examples"]
    assert set(Counter(item.level for item in items).values()) == {size // 5}
    assert set(Counter(item.split for item in items).values()) == {size // 2}


def test_splits_never_share_a_template():
    splits = {}
    for item in generate(capacity()):
        splits.setdefault(item.cluster, set()).add(item.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {cluster: found.pop() for cluster, found in splits.items()} == split_of()


def test_levels_can_be_chosen():
    assert {item.level for item in generate(30, levels=(1, 2))} == {1, 2}


@pytest.mark.parametrize("size", [0, -1, 100_000])
def test_an_impossible_size_is_refused_with_the_limit(size):
    with pytest.raises(DataError) as caught:
        generate(size)
    assert str(capacity()) in str(caught.value)


def test_a_template_that_runs_out_says_so():
    with pytest.raises(DataError) as caught:
        generate(18 * 200, levels=(1,), per_template=200)
    assert caught.value.key == "korean_math.exhausted"
    assert caught.value.values["template"] in TEMPLATES


def test_numbers_of_a_level_have_the_same_sizes_for_every_seed():
    def sizes(seed):
        counted = Counter()
        for item in generate(180, seed=seed):
            values = _values(item)
            for sentence in (*TEMPLATES[item.cluster].facts, TEMPLATES[item.cluster].question):
                counted.update((item.level, len(str(int(values[name])))) for name in quantities_in(sentence))
        return counted

    assert sizes(0) == sizes(1) == sizes(12345)


def test_level_one_stays_within_two_digits():
    for item in generate(90, levels=(1,)):
        assert int(item.answers[0]) < 100
        assert all(value < 100 for value in _values(item).values())


@pytest.mark.parametrize("template", all_templates(), ids=lambda t: t.id)
def test_each_template_keeps_to_its_level(template):
    low, high = OPERATIONS[template.level]
    assert low <= operations(compile_program(template.program)) <= high
    assert bool(template.noise) == (template.level >= 4)
    if not template.made:
        return
    for made in template.made.values():
        assert made.low < made.high


@pytest.mark.parametrize("template", all_templates(), ids=lambda t: t.id)
def test_each_question_names_the_unit_of_its_answer(template):
    asked = "며칠" if template.unit == "일" else f"몇 {template.unit}"
    assert asked in template.question


def test_worked_examples_show_their_steps():
    examples = [item for item in generate(10) if item.split == "examples"]
    assert [item.level for item in examples] == sorted(item.level for item in examples) or examples[0].level == 1
    for item in examples:
        last = item.meta["solution"].splitlines()[-1]
        assert last.rpartition(" = ")[2].replace(",", "") == item.answers[0]
    assert len({item.meta["solution"].split()[1] for item in examples[:4]}) == 4  # one of each kind of sum


# ── exact ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_solvers_agree_on_every_item(many):
    for item in many:
        template = TEMPLATES[item.cluster]
        values = _values(item)
        first = run(compile_program(template.program), values)
        second = solve(template.equations, values, search=template.search)
        assert first == second == Fraction(item.answers[0]), item.question


def test_stored_programs_run_to_the_answer(many):
    for item in many[:500]:
        tokens = item.meta["program"].split()
        numbers = {token: Fraction(token) for token in tokens if re.fullmatch(r"[\d./]*\d", token)}
        assert run(tuple(tokens), numbers) == Fraction(item.answers[0])


def test_answers_are_what_the_number_reader_reads(many):
    for item in many:
        assert parse_number(item.answers[0]) == Fraction(item.answers[0])
        assert item.answers[0] not in ("0", "1")


def test_no_question_occurs_twice(many):
    assert len(many) == MANY
    assert len({re.sub(r"\W", "", item.question) for item in many}) == MANY


def test_no_question_prints_its_answer(many):
    for item in many[::2]:
        answer = Fraction(item.answers[0])
        printed = {found.quantity.value for found in find_quantities(plain(item.question))}
        digits = {Fraction(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", item.question)}
        used = {_values(item)[name] for text in _all_sentences(item) for name in quantities_in(text)}
        assert answer not in digits | used | {Fraction(n) for n in literal_numbers(item.question)}, item.question
        # a compound such as 4시간 30분 is read as one quantity of its own, so only plain ones are compared
        assert answer not in {value for value in printed if value in used}


def _all_sentences(item):
    template = TEMPLATES[item.cluster]
    return (*template.facts, template.noise, template.question)


def test_people_are_at_most_a_hundred_years_old(many):
    ages = [int(n) for item in many for n in re.findall(r"(\d+)살", item.question)]
    assert ages
    assert max(ages) <= 100


# ── necessary ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("template", all_templates(), ids=lambda t: t.id)
def test_every_sentence_but_the_distractor_is_necessary(template):
    """Each sentence says at least one quantity, and the next test shows the answer to depend on every one of them."""
    used = {token for token in compile_program(template.program) if isinstance(token, str)}
    assert not used & set(quantities_in(template.noise))
    assert all(quantities_in(fact) for fact in template.facts)
    assert quantities_in(template.noise) or not template.noise


@pytest.mark.parametrize("template", all_templates(), ids=lambda t: t.id)
def test_every_quantity_but_the_distractor_s_is_necessary(template):
    """Left out (taken as nothing), each quantity changes the answer or leaves none."""
    for problem, _ in zip(_problems(template), range(30), strict=False):
        for sentence in (*template.facts, template.question):
            for name in quantities_in(sentence):
                assert _answer_depends_on(template, name, problem.values), (name, problem.question)


@pytest.mark.parametrize("template", all_templates(), ids=lambda t: t.id)
def test_printed_quantities_do_not_follow_from_one_another(template):
    """A computed quantity that is printed must rest on a hidden one, else it would repeat what is already said."""
    printed = {name for text in (*template.facts, template.noise, template.question) for name in quantities_in(text)}
    for name, made in template.made.items():
        inputs = {token for token in compile_program(made.program) if isinstance(token, str) and token.isidentifier()}
        assert name in printed
        assert (inputs & set(template.draws)) - printed
    assert set(template.draws) | set(template.made) >= printed


def _problems(template):
    draw = Draw(f"test|{template.id}")
    return (problem for problem in (draw_problem(template, draw) for _ in range(20_000)) if problem is not None)


def _answer_depends_on(template, name, values):
    program = compile_program(template.program)
    known = run(program, values)
    return run(program, {**values, name: 0}) != known


# ── natural ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_particle_is_wrong(many):
    wrong = Counter(word for item in many for word in misfits(item.question))
    assert not wrong


def test_the_audit_would_find_wrong_particles(many):
    """Turn particles round in generated text: nearly all of these errors must be seen."""
    turned = {"를": "을", "을": "를", "는": "은", "은": "는", "와": "과", "과": "와", "가": "이", "이": "가"}
    seen = made = 0
    for item in many[::25]:
        for match in re.finditer(
            r"(?:개|명|원|지우|수아|지호|유나|나래|준서)(을|를|은|는|이|가|와|과)(?= )", item.question
        ):
            text = item.question
            made += 1
            seen += bool(misfits(text[: match.start(1)] + turned[match.group(1)] + text[match.end(1) :]))
    assert made > 100
    assert seen == made


def test_higher_levels_mix_surface_forms(many):
    forms = {level: Counter(item.meta["surface"] for item in many if item.level == level) for level in LEVELS}
    assert set(forms[1]) == set(forms[2]) == {"digits"}
    assert len(forms[3]) == len(forms[4]) == 2
    assert any("words" in form and "+" in form for form in forms[5])
    assert any("만 " in item.question for item in many if item.level == 5)
    assert any(
        re.search(r"(세|네|스물|서른|마흔)\S* (개|명|송이|마리)", item.question) for item in many if item.level == 5
    )


def test_level_four_and_five_tell_facts_in_any_order(many):
    for level in (4, 5):
        template = next(t for t in TEMPLATES.values() if t.level == level and not t.example)
        orders = set()
        for item in many:
            if item.cluster == template.id:
                sentences = item.question.split(". ")
                orders.add(tuple(re.sub(r"\W|\d", "", sentence)[-6:] for sentence in sentences))
        assert len(orders) > 10
