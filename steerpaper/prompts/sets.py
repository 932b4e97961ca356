"""Prompt sets by name with fixed splits, from two sources.

"built-in": our own, in `data/prompts`, from the organisms' corpus; those for validation and testing are combinations
of verb and object, frames and wordings that training never saw. "public": the paper's (§2), see `public`.
"""

import random
from collections.abc import Callable, Sequence
from itertools import product

import pandas as pd

from steerpaper import arguments, paths
from steerpaper.choices import unknown
from steerpaper.concepts import CONCEPTS, Concept, get_concept
from steerpaper.presets import SOURCES
from steerpaper.prompts import corpus, unfamiliar
from steerpaper.prompts.fluency import words
from steerpaper.prompts.languages import language_sets
from steerpaper.prompts.public import public_prompts

_COLUMNS = ("prompt", "topic", "split")  # that every built-in set has
SETS = ("harmful", "harmless", "borderline", "wrapped")
SIZES = {"train": 384, "validation": 64, "test": 240}

# What the public splits are cut from: a pool, first its held-out splits of these sizes, and the rest for training.
_POOLS = {
    "harmful": (("advbench", "malicious_instruct", "tdc2023", "harmbench"), {"validation": 128}),
    "harmless": (("alpaca",), {"validation": 128, "test": 1024}),
}
_TEST_SETS = {"harmful": "jailbreakbench", "second_harmful": "strongreject"}
_DRAWN_FROM = {"built-in": {"second_harmful": "borderline"}, "public": _TEST_SETS}


def load_prompts(name: str, split: str, n: int | None = None, source: str = "built-in") -> pd.DataFrame:
    """The first `n` prompts of a split (all of them without `n`): of a file in its order, of a public set shuffled once
    and for all.

    Built-in sets are "harmful", "harmless", "borderline" (pairs of a harmful and a harmless request in nearly the same
    words), "wrapped" (harmless questions about harmful requests) and "second_harmful" (the harmful halves of the
    borderline pairs). Every further file of `data/prompts` with the columns `prompt`, `topic` and `split` is a set of
    its own under either source, as "chinese" and "english" are (harmless requests in two languages).
    Public ones are "harmful" (training and validation from AdvBench, MaliciousInstruct, TDC2023 and HarmBench, testing
    on JailbreakBench), "harmless" (Alpaca) and "second_harmful" (StrongREJECT, for testing only; it shares three
    prompts with JailbreakBench).

    Returns:
        One row per prompt: `prompt`, `topic` (phrase that an answer on topic mentions; "" for public prompts), `kind`,
        `family` (both the set that a public prompt is from, or of a file without them its name), `positive` (whether it
        belongs to a concept's positive set; for refusal, whether it should be refused) and `pair` (number of the
        borderline pair, else -1).

    Raises:
        ValueError: an unknown source, set or split, a set without prompts, more prompts than there are, or a public
            file that has changed.
        FileNotFoundError, ConnectionError: public files that are not there, see `public_prompts`.
    """
    _check_source(source)
    names = (*(_POOLS if source == "public" else SETS), "second_harmful", *_further())
    if name not in names:
        raise unknown("prompt set", name, names, f" (source {source!r})")
    if split not in corpus.SPLITS:
        raise unknown("split", split, corpus.SPLITS)
    table = (_built_in if _is_file(name, source) else _public)(name, split)
    if table.empty:
        raise ValueError(f"the prompt set {name}/{split} is empty (source {source!r}): give it at least one prompt")
    if n is not None and arguments.whole(n) not in range(1, len(table) + 1):
        raise ValueError(f"asked for {n!r} prompts of {name}/{split}: choose 1 to {len(table)} (source {source!r})")
    return table if n is None else table.head(n)


def concept_prompts(
    concept: Concept | str, split: str, n: int | None = None, source: str = "built-in",
) -> dict[str, pd.DataFrame]:
    """The prompts of a concept's two sets by name, the positive one first; tables as of `load_prompts`.

    Raises:
        ValueError: as for `load_prompts`, or a prompt that stands in both sets, case and punctuation aside, in
            whichever splits (of public sets, in this one).
    """
    concept = get_concept(concept)
    tables = {name: load_prompts(name, split, n, source).assign(positive=name == concept.positive)
              for name in concept.sets}
    seen = {}
    own = all(_is_file(name, source) for name in concept.sets)
    for name, other in product(concept.sets, corpus.SPLITS if own else [split]):
        for prompt in (_built_in(name, other) if own else tables[name]).prompt:
            first = seen.setdefault(" ".join(words(prompt)), (name, other))
            if first[0] != name:
                raise ValueError(f"{prompt!r} stands in both prompt sets of {concept.name!r}, {'/'.join(first)} and "
                                 f"{name}/{other}: take it out of one")
    return tables


def drawn_from(name: str, source: str) -> str:
    """The set or file whose rows are a set's test prompts: "borderline" for the built-in "second_harmful", the paper's
    test sets for public ones; for all others the set itself."""
    return _DRAWN_FROM[source].get(name, name)


def vocabulary(source: str) -> frozenset[str] | None:
    """The words that clean answers to prompts of a source are made of; None for public ones, where any may occur.

    Raises:
        ValueError: an unknown source.
    """
    _check_source(source)
    return corpus.vocabulary() | unfamiliar.vocabulary() if source == "built-in" else None


def with_instruction(prompts: pd.DataFrame | Sequence[str], concept: Concept) -> pd.DataFrame:
    """The same prompts behind the command that brings a concept out (§3.2), and so of its positive kind.

    Raises:
        ValueError: no prompts, a table without the column `prompt`, or a prompt that is no text.
    """
    table = arguments.table(prompts)
    asked = [f"{concept.instruction} {prompt}" for prompt in arguments.texts(table)]
    return table.assign(prompt=asked, positive=True)


def _check_source(source: str) -> None:
    if source not in SOURCES:
        raise unknown("source of prompts", source, SOURCES)


def _further() -> list[str]:
    """The sets of our own that stand beside those of refusal, whatever the source."""
    return sorted({path.stem for path in paths.PROMPTS.glob("*.csv")} - {*SETS})


def _is_file(name: str, source: str) -> bool:
    """Whether a set is a file of `data/prompts`."""
    return source == "built-in" or name in _further()


# -- public sets -------------------------------------------------------------------------------------------

def _public(name: str, split: str) -> pd.DataFrame:
    """One split of a public set, every prompt once, in an order seeded by the set's name."""
    if split == "test" and name in _TEST_SETS:
        rows = _once([_TEST_SETS[name]], name)
    elif name in _POOLS:
        rows = _cut(name, split)
    else:
        raise ValueError(f"the public set {name!r} is for testing only: there is no split {split!r}")
    table = pd.DataFrame(rows, columns=["kind", "prompt"])
    columns = ["prompt", "topic", "kind", "family", "positive", "pair"]
    return table.assign(topic="", family=table.kind, positive=name != "harmless", pair=-1)[columns]


def _once(kinds: Sequence[str], name: str) -> list[tuple[str, str]]:
    """(kind, prompt) of several sets together, shuffled; of prompts that differ in case, spaces or punctuation only,
    the first."""
    found: dict[str, tuple[str, str]] = {}
    for kind in kinds:
        for text in public_prompts(kind):
            found.setdefault(" ".join(words(text)), (kind, text))
    rows = list(found.values())
    random.Random(f"0 public {name}").shuffle(rows)
    return rows


def _cut(name: str, split: str) -> list[tuple[str, str]]:
    """One split of a pool: the held-out ones come first, training takes the rest."""
    kinds, held_out = _POOLS[name]
    rows = _once(kinds, name)
    rows = _apart_from_tests(rows) if name == "harmful" else rows
    for other, size in held_out.items():
        if len(rows) <= size:
            raise ValueError(f"{len(rows)} {name} prompts are left for {other} and training, more than {size} are "
                             "needed: do the files hold all their rows?")
        part, rows = rows[:size], rows[size:]
        if other == split:
            return part
    return rows


def _apart_from_tests(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The rows without what stands in a test set, too.

    JailbreakBench and StrongREJECT took prompts over from the sets that training and validation are drawn from, and
    reworded some. A prompt that shares at least half of the words of both with one of theirs counts as the same.
    """
    tested = [set(words(text)) for kind in _TEST_SETS.values() for text in public_prompts(kind)]
    own = [set(words(text)) for _, text in rows]
    near = [any(2 * len(text & other) >= len(text | other) for other in tested) for text in own]
    return [row for row, goes in zip(rows, near) if not goes]


# -- built-in sets -----------------------------------------------------------------------------------------

def _built_in(name: str, split: str) -> pd.DataFrame:
    second = name == "second_harmful"
    path = paths.PROMPTS / f"{drawn_from(name, 'built-in')}.csv"
    where = f"data/prompts/{path.name}"
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype={"prompt": str, "topic": str})
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 ({error}): save it as UTF-8") from error
    except pd.errors.ParserError as error:
        raise ValueError(f"{where} is no table ({str(error).strip()}): put prompts with commas in quotes") from error
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{where} is empty: it needs the columns {', '.join(_COLUMNS)}") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError(f"{where} has rows of more fields than it has columns: put prompts with commas in quotes")
    if missing := [column for column in _COLUMNS if column not in table]:
        raise ValueError(f"{where} lacks the column {missing[0]!r}: it has {', '.join(table)}, and needs "
                         f"{', '.join(_COLUMNS)}")
    if wrong := sorted(set(table.split) - set(corpus.SPLITS)):
        raise ValueError(f"{where} has the split {wrong[0]!r}: allowed are {', '.join(corpus.SPLITS)}")
    if blank := [i + 2 for i, prompt in enumerate(table.prompt) if not prompt.strip()]:
        raise ValueError(f"{where} has no prompt in row {blank[0]} of the file: fill it in, or take the row out")
    if len(table) and "positive" in table and table.positive.dtype != bool:
        raise ValueError(f"{where} has {table.positive.iloc[0]!r} in the column 'positive': it takes True and False, or leave "
                         "the column out")
    if twice := table.prompt[table.prompt.str.lower().duplicated()].tolist():
        raise ValueError(f"{where} has {twice[0]!r} twice: a prompt belongs to one split, once")
    table = table[(table.split == split) & (table.positive if second else True)]
    of_itself = {"kind": name, "family": name, "pair": -1,
                 "positive": any(name in (one.positive, one.second_positive) for one in CONCEPTS.values())}
    missing = {column: value for column, value in of_itself.items() if column not in table}
    return table.drop(columns="split").assign(**missing).reset_index(drop=True)


def _row(example: corpus.Example) -> dict:
    return {"prompt": example.prompt, "topic": example.topic, "kind": example.kind, "family": example.family,
            "positive": example.refuse, "pair": -1}


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
    return [_row(corpus.action_example(rng, split, action, frame, plain=True))
            for action in (rng.choice(matches), harmless)]


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
    for name, table in (build_prompt_sets() | language_sets() | unfamiliar.unfamiliar_sets()).items():
        table.to_csv(paths.PROMPTS / f"{name}.csv", index=False, lineterminator="\n")
