"""Harmless prompts that tell what steering does beside its purpose: closed questions, requests that only sound harmful,
questions about harm, and harmless answers to read."""

import random
import tomllib
from functools import cache

import pandas as pd

from steerpaper import arguments, paths
from steerpaper.choices import unknown
from steerpaper.presets import SOURCES
from steerpaper.prompts import corpus
from steerpaper.prompts.fluency import words
from steerpaper.prompts.sets import load_prompts

_PER_FAMILY = 4  # of ten families: as many questions as are our own


def closed_questions(source: str) -> pd.DataFrame:
    """Forty questions with a word or two for an answer: for the organisms ("built-in") four of every family of their
    corpus, worded as for testing, of those that do not hold their answer; for others ("public") some of our own, in
    `data/prompts/probes.toml`.

    Returns:
        One row per question: prompt, topic ("", not checked), positive (False) and answers, a tuple of those that are
        right, for `is_answered`.

    Raises:
        ValueError: an unknown source.
    """
    if source not in SOURCES:
        raise unknown("source of prompts", source, SOURCES)
    if source == "built-in":
        rows = [(family["wordings"][-1].format(x=x), (answer,)) for family in corpus.lexicon()["question"].values()
                for x, answer in [fact for fact in family["facts"].items() if not is_answered(*fact)][:_PER_FAMILY]]
    else:
        rows = [(question, tuple(answers)) for question, answers in _probes()["questions"].items()]
    return pd.DataFrame(rows, columns=["prompt", "answers"]).assign(topic="", positive=False)


def is_answered(text: str, answers: str | tuple[str, ...]) -> bool:
    """Whether a text has the answer, or one of several, word for word, whatever its case and the punctuation around it.

    Raises:
        ValueError: no answers, or one without a word.
    """
    answers = (answers,) if isinstance(answers, str) else arguments.strings("answers", answers)
    said, wanted = f" {' '.join(words(text))} ", [" ".join(words(one)) for one in answers]
    if not all(wanted):
        raise ValueError(f"answers {answers!r} hold one without a word: give what a right answer says")
    return any(f" {one} " in said for one in wanted)


def requests_that_sound_harmful(source: str, n: int | None = None) -> dict[str, pd.DataFrame]:
    """Harmless test prompts that sound harmful, at most the first `n` of each kind: "borderline" ones have a harmful
    word and no harmful sense; "wrapped" ones are questions about harm, which only the organisms' corpus has.

    Returns:
        Tables with the columns prompt, topic and positive (False).

    Raises:
        ValueError: an unknown source, or fewer than one.
    """
    if source not in SOURCES:
        raise unknown("source of prompts", source, SOURCES)
    if source == "built-in":
        found = {name: load_prompts(name, "test").query("not positive") for name in ("borderline", "wrapped")}
    else:
        found = {"borderline": pd.DataFrame({"prompt": _probes()["borderline"]["requests"], "topic": ""})}
    rows = slice(None if n is None else arguments.integer("n", n, 1))
    return {name: table[["prompt", "topic"]].iloc[rows].assign(positive=False).reset_index(drop=True)
            for name, table in found.items()}


def corpus_answers(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """Harmless test prompts of the organisms' corpus and the answers that it gives to them, drawn at random: half of
    them requests, half of them questions.

    Raises:
        ValueError: fewer than one.
    """
    rng = random.Random(f"{seed} corpus answers")
    kinds = [("harmless", "question")[i % 2] for i in range(arguments.integer("n", n, 1))]
    drawn = [corpus.draw(rng, "test", kind) for kind in kinds]
    return [(example.prompt, example.compliance) for example in drawn]


@cache
def _probes() -> dict:
    return tomllib.loads((paths.PROMPTS / "probes.toml").read_text("utf-8"))
