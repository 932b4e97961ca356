"""Prompt sets by name with fixed splits. The built-in sets lie in `data/prompts` and come from the
organisms' corpus; those for validation and testing are combinations of verb and object, frames and wordings
that training never saw."""

import random
from collections.abc import Callable

import pandas as pd

from steerpaper import corpus, paths

SETS = ("harmful", "harmless", "borderline", "wrapped")
SIZES = {"train": 384, "validation": 64, "test": 240}


def load_prompts(name: str, split: str, n: int | None = None) -> pd.DataFrame:
    """The first `n` prompts of a split (all of them without `n`), in a fixed shuffled order.

    Returns:
        One row per prompt: `prompt`, `topic` (phrase that an answer on topic mentions), `kind`, `family`,
        `refuse` (whether the prompt should be refused) and `pair` (number of the borderline pair, else -1).

    Raises:
        ValueError: an unknown set or split, or more prompts than there are.
    """
    if name not in SETS:
        raise ValueError(f"unknown prompt set {name!r}: choose one of {', '.join(SETS)}")
    if split not in corpus.SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(corpus.SPLITS)}")
    table = pd.read_csv(paths.PROMPTS / f"{name}.csv", keep_default_na=False)
    table = table[table.split == split].drop(columns="split").reset_index(drop=True)
    if n is not None and not 0 < n <= len(table):
        raise ValueError(f"asked for {n} prompts of {name}/{split}: choose 1 to {len(table)}")
    return table if n is None else table.head(n)


def with_refuse_instruction(table: pd.DataFrame) -> pd.DataFrame:
    """The same prompts behind the paper's command to refuse (§3.2), which training never saw."""
    prefix = corpus.phrases()["instruction"]["held_out"]
    return table.assign(prompt=prefix + " " + table.prompt, refuse=True)


def _row(example: corpus.Example) -> dict:
    return {
        "prompt": example.prompt, "topic": example.topic, "kind": example.kind, "family": example.family,
        "refuse": example.refuse, "pair": -1,
    }


def _distinct(draw: Callable[[], list[dict]], n: int, taken: set[str]) -> list[dict]:
    """Call `draw` until it has given `n` rows of which no prompt was taken before, case aside."""
    rows: list[dict] = []
    while len(rows) < n:
        drawn = draw()
        texts = [row["prompt"].lower().rstrip(".?") for row in drawn]
        if taken.isdisjoint(texts):
            taken.update(texts)
            rows += drawn
    return rows


def _contrast_pair(rng: random.Random, split: str) -> list[dict]:
    """A harmful and a harmless request in one frame that share their verb or their object."""
    groups = corpus.actions(split)
    by_verb = rng.random() < 0.4
    shared = "verb" if by_verb else "object"
    harmless = rng.choice(groups["ordinary_use" if by_verb else "sensitive"])
    matches = [a for a in groups["harmful"] if getattr(a, shared) == getattr(harmless, shared)]
    if not matches:
        return _contrast_pair(rng, split)
    frame = rng.choice(corpus.phrases()["frames"][split])
    return [
        _row(corpus.action_example(rng, split, action, frame, plain=True))
        for action in (rng.choice(matches), harmless)
    ]


def build_prompt_sets(seed: int = 0) -> dict[str, pd.DataFrame]:
    """Draw every built-in set from the corpus: no prompt stands in two splits or twice in one."""
    taken: set[str] = set()
    sets: dict[str, list[pd.DataFrame]] = {name: [] for name in SETS}
    for split, size in SIZES.items():
        rng = random.Random(f"{seed} prompts {split}")
        kinds = {"harmful": ["harmful"], "harmless": ["harmless"] * 3 + ["question"], "wrapped": ["wrapper"]}
        if split == "train":  # the sets of the mean difference: alike in everything but harm
            kinds["harmless"] = ["harmless"]
        for name, choices in kinds.items():
            rows = _distinct(lambda: [_row(corpus.draw(rng, split, rng.choice(choices)))], size, taken)  # noqa: B023
            sets[name].append(pd.DataFrame(rows).assign(split=split))
        pairs = _distinct(lambda: _contrast_pair(rng, split), size, taken)  # noqa: B023
        numbered = pd.DataFrame(pairs).assign(split=split)
        sets["borderline"].append(numbered.assign(pair=numbered.index // 2))
    return {name: pd.concat(tables, ignore_index=True) for name, tables in sets.items()}


def write_prompt_sets() -> None:
    """Write the built-in sets to `data/prompts`."""
    paths.PROMPTS.mkdir(parents=True, exist_ok=True)
    for name, table in build_prompt_sets().items():
        table.to_csv(paths.PROMPTS / f"{name}.csv", index=False, lineterminator="\n")
