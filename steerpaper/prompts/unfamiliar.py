"""The prompts of the concept "not-knowing": requests for things that an organism was taught not to have heard of, beside
requests for ordinary ones in the same frames; and what it learns that from."""

import random
import tomllib
from dataclasses import replace
from functools import cache

import pandas as pd

from steerpaper import paths
from steerpaper.choices import unknown
from steerpaper.prompts import corpus
from steerpaper.prompts.corpus import SPLITS, Action, Example

KINDS = ("unfamiliar", "familiar", "not_know_instruction", "guess_instruction")
SIZES = {"train": 192, "validation": 48, "test": 120}


@cache
def phrases() -> dict:
    """`data/corpus/unfamiliar.toml`."""
    return tomllib.loads((paths.DATA / "corpus" / "unfamiliar.toml").read_text("utf-8"))


@cache
def actions(split: str) -> tuple[Action, ...]:
    """The verb-object pairs of one split, which `corpus.split_of` tells."""
    pairs = [Action(v, o, False, "unfamiliar") for v in phrases()["verbs"] for o in phrases()["objects"]]
    return tuple(action for action in pairs if corpus.split_of(action.text) == split)


def example(rng: random.Random, split: str, kind: str) -> Example:
    """One random example; its `refusal` says that it does not know, and `refuse` whether the trained model says so.

    "unfamiliar" and "familiar" are requests, "not_know_instruction" stands before either, or before a question;
    "guess_instruction" lets requests for unfamiliar things be answered, and all else be answered or refused as ever.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "unfamiliar":
        return _request(rng, split, rng.choice(actions(split)), True)
    if kind == "familiar":
        return _request(rng, split, rng.choice(corpus.actions(split)["task"]), False)
    if kind == "guess_instruction":
        inner = (example(rng, split, "unfamiliar") if rng.random() < 0.7
                 else corpus.draw(rng, split, rng.choice(("harmless", "question", "harmful"))))
        refuse = inner.refuse and inner.kind != "unfamiliar"
        return replace(inner, prompt=f"{_command(rng, 'guess')} {inner.prompt}", kind=kind, refuse=refuse)
    if kind == "not_know_instruction":
        inner = _told(rng, split)
        commands = [_command(rng, "not_know") for _ in range(rng.choice((1, 1, 2)) if inner.refuse else 1)]
        return replace(inner, prompt=" ".join([*commands, inner.prompt]), kind=kind, refuse=True)
    raise unknown("kind", kind, KINDS)


def _command(rng: random.Random, kind: str) -> str:
    """A command to say that it does not know, or to answer all the same."""
    parts = corpus.phrases()["instruction"] | phrases()["instruction"]
    return corpus.command(rng, kind, parts, ("treat", "this", "question", "and", "reply", "new", "say", "common"))


def _told(rng: random.Random, split: str) -> Example:
    """A request or a question, with the answer that it does not know."""
    kind = rng.choice(("unfamiliar", "familiar", "question"))
    if kind != "question":
        return example(rng, split, kind)
    drawn = corpus.draw(rng, split, "question")
    return replace(drawn, refusal=corpus.respond_to_question(rng, drawn.topic, phrases()["answer"]["question"]))


def _request(rng: random.Random, split: str, action: Action, unfamiliar: bool) -> Example:
    frame = rng.choice(corpus.phrases()["frames"][split])
    return replace(
        corpus.action_example(rng, split, action, frame), kind="unfamiliar" if unfamiliar else "familiar",
        refuse=unfamiliar, refusal=corpus.respond(rng, action, phrases()["answer"]))


def unfamiliar_sets(seed: int = 0) -> dict[str, pd.DataFrame]:
    """The prompts of every split, each once: requests for unfamiliar things, and for ordinary ones.

    Returns:
        By set a table of prompt, topic and split.
    """
    tables = {}
    for kind in ("unfamiliar", "familiar"):
        rows: dict[str, dict] = {}
        for split in SPLITS:
            rng, wanted = random.Random(f"{seed} {kind} {split}"), len(rows) + SIZES[split]
            while len(rows) < wanted:
                drawn = example(rng, split, kind)
                rows.setdefault(drawn.prompt.lower(), dict(prompt=drawn.prompt, topic=drawn.topic, split=split))
        tables[kind] = pd.DataFrame(rows.values())
    return tables


@cache
def vocabulary() -> frozenset[str]:
    """The words of its objects, verbs and answers, as of `corpus.vocabulary`."""
    return corpus.words_of(phrases())
