"""The same rules for a second concept: claims read its tables as if they were refusal's, and what comes out stands
beside that of refusal. What holds of both is about steering, as far as two concepts of one model can tell."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import zip_longest

import numpy as np
import pandas as pd

from steerpaper.concepts import REFUSAL, Concept
from steerpaper.heads.lens import word_scales
from steerpaper.paper.claims import cases, claims, summary, verdict, without_mostly
from steerpaper.paper.compared import measured_table

SECOND = "second_"  # before the names of a second concept's tables
# The claims for all of whose checks notebook 08 makes the tables again.
CENTRAL = ("effective", "random-vectors", "few-edges", "interchangeable", "beyond-random", "ov-not-qk",
           "ov-not-qk-learned", "ov-not-qk-logits", "svv-concepts", "sparse", "agree", "unsteered", "mlps",
           "order-of-drops", "svv-share", "tiny-p")


def cases_of(preset: str, concept: Concept = REFUSAL, prefix: str = "") -> pd.DataFrame:
    """The cases of the `CENTRAL` claims for one of a preset's concepts.

    Args:
        concept: whose sets of prompts and words stand in the tables, and in what is returned, where claims name
            refusal's.
        prefix: with which the names of its tables begin.

    Returns:
        As of `claims.cases`.

    Raises:
        FileNotFoundError: a table that is not there yet; the message names the notebook.
    """
    words = dict(zip(_words(REFUSAL), _words(concept)))
    load = partial(_read_as_refusal, preset, prefix, {own: name for name, own in words.items()})
    found = pd.concat([cases(claim, load) for claim in claims() if claim.id in CENTRAL], ignore_index=True)
    named = re.compile(rf"\b({'|'.join(words)})\b")
    told = {column: found[column].map(lambda text: named.sub(lambda match: words[match[0]], text))
            for column in ("quantity", "case")}
    return found.assign(**told)


def beside_each_other(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Verdicts on the `CENTRAL` claims for two concepts, and what each finding is about.

    Args:
        found: by a concept's name its `cases_of`.

    Returns:
        One row per claim: claim, title; per concept `<name> verdict`, `<name> met` and `<name> cases` (those that meet
        their limit, of all) and `<name> measured`, the values in words; and about: "steering" if the claim holds or
        mostly holds of both, a concept's name if it does so of that one and fails or mostly fails of the other,
        "neither" if it fails or mostly fails of both, "open" otherwise.
    """
    rows = []
    for claim in (claim for claim in claims() if claim.id in CENTRAL):
        row = {"claim": claim.id, "title": claim.title}
        own = {name: every[every.claim == claim.id] for name, every in found.items()}
        for name, table in own.items():
            met = table.met.dropna().astype(bool)
            row |= {f"{name} verdict": verdict(table), f"{name} met": int(met.sum()), f"{name} cases": len(met),
                    f"{name} measured": summary(table)}
        rows.append(row | {"about": _about({name: verdict(table) for name, table in own.items()})})
    return pd.DataFrame(rows)


def told_beside(
    verdicts: pd.DataFrame, found: Sequence[pd.DataFrame | None] = (), *, markdown: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The verdicts of `beside_each_other` as they are shown: claim, a column per concept and what the finding is about;
    and the values behind them, with their intervals. In Markdown verdicts are bold.

    Args:
        found: the cases behind the verdicts, of one concept after the other, where there are any: then beside a verdict
            stands how many of them are close to their limit.
    """
    bold, italic = ("**", "*") if markdown else ("", "")
    names = [column.removesuffix(" verdict") for column in verdicts if column.endswith(" verdict")]
    ours = {claim.id for claim in claims() if claim.ours}
    titles = verdicts.title + np.where(verdicts.claim.isin(ours), f" ({italic}ours{italic})", "")
    shown, values = (pd.DataFrame({"claim": titles}) for _ in range(2))
    for name, own in zip_longest(names, found):
        words, met, n, measured = (verdicts[f"{name} {column}"] for column in ("verdict", "met", "cases", "measured"))
        undecided = {} if own is None else own.clear.eq(False).groupby(own.claim).sum()
        close = [f", {k} close" if (k := undecided.get(claim)) else "" for claim in verdicts.claim]
        shown[name] = [f"{bold}{word}{bold} ({k}/{of}{near})" for word, k, of, near in zip(words, met, n, close)]
        values[name] = measured
    return shown.assign(about=verdicts.about), values


def _about(verdicts: Mapping[str, str]) -> str:
    plain = {name: without_mostly(verdict) for name, verdict in verdicts.items()}
    if not set(plain.values()) <= {"holds", "does not hold"}:
        return "open"
    holding = [name for name, verdict in plain.items() if verdict == "holds"]
    return "neither" if not holding else holding[0] if len(holding) == 1 else "steering"


def _words(concept: Concept) -> tuple[str, ...]:
    """What claims call a concept's sets of prompts and the scales on which its words are read."""
    return *concept.sets, *word_scales(concept)


def _read_as_refusal(preset: str, prefix: str, words: dict[str, str], name: str) -> pd.DataFrame:
    table = measured_table(preset, name, prefix)
    return table.assign(**{column: table[column].replace(words) for column in ("prompts", "scale") if column in table})
