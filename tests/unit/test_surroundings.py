"""What stands around a document that is asked about: other genres, other names, no common beginning."""

from random import Random

import pytest

from llmopt.workload.korean_qa import generate
from llmopt.workload.korean_qa.generator import LEVEL_TOKENS
from llmopt.workload.korean_qa.genres import all_genres
from llmopt.workload.korean_qa.surroundings import MOST_ROWS, Surroundings
from llmopt.workload.korean_qa.worlds import draw_world, write_world

CHARACTERS = LEVEL_TOKENS[4] * 1.25


def numbered(name):
    return sum(map(ord, name))


@pytest.mark.parametrize("genre", all_genres(), ids=lambda genre: genre.key)
def test_no_name_of_the_document_stands_elsewhere_in_its_passage(genre):
    rng, used = Random(genre.key), set()
    world = draw_world(genre, MOST_ROWS, rng, used)
    document = write_world(world, "list", rng, groups=True)
    whole = Surroundings(numbered).around(document, genre, CHARACTERS, rng, used)
    before, found, after = whole.partition(document)
    assert found
    assert 0.95 * CHARACTERS < len(whole) < 1.05 * CHARACTERS
    kinds = {field.key for field in (*genre.fields, *genre.group_fields) if field.kind in {"person", "combined"}}
    names = [
        v.text for c in (world.row_columns, world.group_columns) for key, vs in c.items() if key in kinds for v in vs
    ]
    assert len(names) >= MOST_ROWS
    assert [name for name in names if name in before or name in after] == []


def test_chapters_do_not_depend_on_what_was_written_before():
    genre = all_genres()[0]
    fresh, used = Surroundings(numbered), Surroundings(numbered)
    used.around("", genre, CHARACTERS, Random(5), set())
    assert used.around("문서", genre, 5000, Random(1), set()) == fresh.around("문서", genre, 5000, Random(1), set())


def test_passages_of_a_set_have_hardly_ever_a_common_beginning():
    items = [item for item in generate(200, 7, levels=(4,)) if item.split != "examples"]
    beginnings = {str(item.meta["context"])[:400] for item in items}
    assert len(beginnings) >= len(items) - 2
