"""Many draws at once, number for number those that ``random.Random`` makes one by one, at a third of its time.

Long passages are thousands of draws; spelled out here, they also stay the same should a later Python draw differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log
from random import Random
from typing import TypeVar

__all__ = ["below", "distinct", "picks", "shuffled"]

T = TypeVar("T")

_POOL = 21
"""Out of so many values (more for large draws) ``Random.sample`` draws from a copy, else it draws places anew."""
_FEW = 5


def below(rng: Random, bound: int, count: int) -> list[int]:
    """``count`` times ``rng.randrange(bound)``."""
    bits, draw = bound.bit_length(), rng.getrandbits
    found = []
    for _ in range(count):
        number = draw(bits)
        while number >= bound:
            number = draw(bits)
        found.append(number)
    return found


def picks(rng: Random, values: Sequence[T], count: int) -> list[T]:
    """``count`` times ``rng.choice(values)``."""
    return [values[place] for place in below(rng, len(values), count)]


def distinct(rng: Random, bound: int, count: int) -> list[int]:
    """``rng.sample(range(bound), count)``."""
    pool = _POOL + (4 ** ceil(log(count * 3, 4)) if count > _FEW else 0)
    draw = rng.getrandbits
    if bound <= pool:
        order, found = list(range(bound)), []
        for left in range(bound, bound - count, -1):
            bits = left.bit_length()
            place = draw(bits)
            while place >= left:
                place = draw(bits)
            found.append(order[place])
            order[place] = order[left - 1]
        return found
    bits = bound.bit_length()
    taken: dict[int, None] = {}
    while len(taken) < count:
        number = draw(bits)
        if number < bound:
            taken[number] = None
    return [*taken]


def shuffled(rng: Random, values: Sequence[T]) -> list[T]:
    """A copy of ``values`` after ``rng.shuffle``."""
    order, draw = list(values), rng.getrandbits
    for last in range(len(order) - 1, 0, -1):
        bound = last + 1
        bits = bound.bit_length()
        place = draw(bits)
        while place > last:
            place = draw(bits)
        order[last], order[place] = order[place], order[last]
    return order
