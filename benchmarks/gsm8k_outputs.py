"""English word-problem replies as models write them, each known to be meant right or wrong; all of it generated.

    python benchmarks/gsm8k_outputs.py [--count 600] [--seed 0]

A reply is a worked solution of two to four steps (with or without ``<<3*4=12>>`` calculator notes) and an ending: a
``####`` line, "The answer is", a box, a sentence with a unit, dollars, commas, decimals, bold, words after the answer,
another number after it. One in four states a wrong number, half of them with the right one in passing. Prints the share
that our extraction reads as meant. ``lm_eval_agreement.py`` sets the same replies beside lm-evaluation-harness.
"""

import argparse
import random
from dataclasses import dataclass

from llmopt.measure.quality import score
from llmopt.records import Item, Sample

PEOPLE = ("Maria", "Tom", "Aisha", "Ken", "Lucy", "Omar", "Nina", "Paul")
THINGS = ("apples", "stickers", "books", "marbles", "tickets", "cookies", "pages", "eggs")
MONEY = ("rent", "lunch", "tickets", "paint", "shoes")


@dataclass(frozen=True)
class Output:
    """``style`` is how it ends; ``gold`` the right number; ``meant`` whether the reply states it as its answer."""

    style: str
    question: str
    gold: str
    text: str
    meant: bool


ENDINGS = {
    "gsm8k": "#### {n}",
    "gsm8k, dollars": "#### ${n}",
    "gsm8k, unit": "#### {n} {thing}",
    "gsm8k after a sentence": "{who} ends up with {n} {thing}.\n#### {n}",
    "the answer is": "The answer is {n}.",
    "the answer is, colon": "Therefore, the answer is: {n}",
    "the final answer is, unit": "The final answer is {n} {thing}.",
    "the answer is, bold": "So the answer is **{n}**.",
    "answer line": "Answer: {n}",
    "answer line, bold": "**Answer:** {n} {thing}",
    "answer line, sentence": "Answer: {who} has {n} {thing} now.",
    "answer heading": "### Final Answer\n{n}",
    "boxed": "$$\\boxed{{{n}}}$$",
    "boxed in a sentence": "Thus, {who} has \\(\\boxed{{{n}}}\\) {thing}.",
    "boxed, text inside": "The result is \\boxed{{{n} \\text{{ {thing}}}}}.",
    "minerva": "The final answer is $\\boxed{{{n}}}$. I hope it is correct.",
    "sentence": "So, {who} has {n} {thing} in the end.",
    "sentence, number last": "The number of {thing} {who} has is {n}.",
    "sentence, dollars": "Therefore, the total cost of the {money} is ${n}.",
    "dollars and cents": "{who} pays ${n}.00 in total.",
    "equation": "Total = {n}",
    "equation, unit": "So {rest} + {last} = {n} {thing}.",
    "bold sentence": "**{who} has {n} {thing}.**",
    "words after": "The answer is {n}. Let me know if you would like another example!",
    "check after": "The answer is {n}.\nCheck: {n} - {last} = {rest}, which fits.",
    "explained after": "Answer: {n}\nWe got this by adding {rest} and {last}.",
    "other number after": "{who} has {n} {thing} after {k} days.",
    "unit by hours": "It takes {who} {n} minutes, or about {k} hours.",
}
WRONG_ENDINGS = {
    "wrong": "{end}",
    "wrong, right in passing": "At first {n_right} seems right, but a step was missing.\n{end}",
}


def outputs(count, seed=0):
    """``count`` replies, endings in turn; the same for the same seed."""
    source = random.Random(seed)
    found = []
    for number in range(count):
        style = list(ENDINGS)[number % len(ENDINGS)]
        meant = source.random() >= 0.25
        found.append(_output(source, style, meant=meant))
    return found


def _output(source, style, *, meant):
    who, thing, money = source.choice(PEOPLE), source.choice(THINGS), source.choice(MONEY)
    lines, value, rest, last = _worked(source, who, thing)
    stated = value if meant else value + source.choice((-7, -2, 3, 10, 11))
    written = f"{stated:,}" if stated >= 1000 and source.random() < 0.5 else str(stated)
    words = {"who": who, "thing": thing, "money": money, "rest": rest, "last": last, "k": source.randint(2, 9)}
    end = ENDINGS[style].format(n=written, **words)
    name = style
    if not meant:
        name = source.choice(list(WRONG_ENDINGS))
        end = WRONG_ENDINGS[name].format(end=end, n_right=value)
        lines = lines[:-1]  # the last step is the one that went wrong
    opening = source.choice(("", "Let's think step by step.\n", "Sure! Here is the solution:\n\n"))
    text = opening + "\n".join([*lines, end])
    return Output(style=name, question=f"How many {thing} does {who} have?", gold=str(value), text=text, meant=meant)


def _worked(source, who, thing):
    """Two to four steps: their lines, the result, and the two numbers of the last addition."""
    notes, bullets = source.random() < 0.5, source.random() < 0.3
    value = source.randint(2, 60)
    lines = []
    for step in range(source.randint(1, 3)):
        by = source.randint(2, 12)
        after = value * by
        note = f"<<{value}*{by}={after}>>" if notes else ""
        mark = f"{step + 1}. " if bullets else ""
        lines.append(f"{mark}{who} has {value} x {by} = {note}{after} {thing}.")
        value = after
    last = source.randint(3, 99)
    note = f"<<{value}+{last}={value + last}>>" if notes else ""
    lines.append(f"Adding the {last} from before gives {value} + {last} = {note}{value + last} {thing}.")
    return lines, value + last, value, last


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    right = 0
    for one in outputs(options.count, options.seed):
        item = Item(id="x", question=one.question, answers=(one.gold,), kind="numeric")
        sample = Sample(item_id="x", planned_s=0, sent_s=0, ended_s=1, text=one.text, finish_reason="stop")
        as_meant = (score(item, sample).value == 1.0) == one.meant
        right += as_meant
        if not as_meant:
            print(f"── {one.style} · gold {one.gold} · meant {'right' if one.meant else 'wrong'}\n{one.text}")
    print(f"{right} of {options.count} read as meant")


if __name__ == "__main__":
    main()
