"""The scorecard of one model: a verdict on each of the paper's claims, beside the one on the paper's own numbers."""

from collections.abc import Callable
from functools import partial

import pandas as pd

from steerpaper.artifacts import load_recorded
from steerpaper.paper.claims import Claim, cases, claims, summary, verdict
from steerpaper.paper.compared import measured_table, reported_table
from steerpaper.paper.tables import MODELS

_OF_CLAIM = ["claim", "title", "locator", "rule"]


def scorecard(preset: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The claims and what the tables of one preset say of them.

    Returns:
        One row per claim: claim, title, locator, rule; per model of the paper `<model> verdict` and
        `<model> reported`, the rule applied to its own numbers; verdict, met, cases, close (cases whose interval
        reaches over the limit) and measured, the values in words.
        One row per case: as `claims.cases`.

    Raises:
        FileNotFoundError: a table of an earlier notebook is missing; the message names the notebook.
    """
    card, all_cases = judged(partial(measured_table, preset))
    reported = [{f"{model} {what}": said for model in MODELS
                 for what, said in zip(("verdict", "reported"), as_reported(claim, model))} for claim in claims()]
    return pd.concat([card[_OF_CLAIM], pd.DataFrame(reported), card.drop(columns=_OF_CLAIM)], axis=1), all_cases


def judged(load: Callable[[str], pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The claims and what tables say of them that `load` gives by name, as `compared` has them.

    Returns:
        As of `scorecard`, without the columns of the paper's models.
    """
    all_cases, rows = {claim.id: cases(claim, load) for claim in claims()}, []
    for claim in claims():
        own = all_cases[claim.id]
        close = int((~own.clear.dropna().astype(bool)).sum())
        met = own.met.dropna().astype(bool)
        rows.append((claim.id, claim.title, claim.locator, claim.rule, verdict(own), int(met.sum()), len(met), close,
                     summary(own)))
    card = pd.DataFrame(rows, columns=[*_OF_CLAIM, "verdict", "met", "cases", "close", "measured"])
    return card, pd.concat(all_cases.values(), ignore_index=True)


def alike(verdicts: pd.DataFrame) -> str:
    """Of how many claims each organism has the same verdict with every training seed, in words.

    Args:
        verdicts: columns organism, seed, claim and verdict, as `data/seeds.csv`.
    """
    told = []
    for organism, own in verdicts.groupby("organism"):
        same = own.groupby("claim").verdict.nunique() == 1
        told.append(f"{same.sum()} of {len(same)} on {organism} ({own.seed.nunique()} seeds)")
    return " and ".join(told)


def recorded_verdicts(claims: list[str]) -> pd.DataFrame:
    """The verdicts on record on some claims, one row per claim, by title, and one column per preset."""
    cards = load_recorded("scorecard_claims")
    return cards[cards.claim.isin(claims)].pivot_table("verdict", "title", "preset", aggfunc="first", sort=False)


def reported_cases(model: str) -> pd.DataFrame:
    """The cases of every claim by the paper's own numbers of one of its models, as `scorecard` has ours."""
    return pd.concat([cases(claim, partial(reported_table, model)) for claim in claims()], ignore_index=True)


def as_reported(claim: Claim, model: str) -> tuple[str, str]:
    """Verdict on a claim by the paper's own numbers of one of its models, and these in words.

    "not printed" where there are no numbers to which a rule could be applied.
    """
    own = cases(claim, partial(reported_table, model)).dropna(subset="met")
    stated = [claim.reported[key] for key in ("both", model) if key in claim.reported]
    return (verdict(own) if len(own) else "not printed"), "; ".join([summary(own)] * bool(len(own)) + stated)
