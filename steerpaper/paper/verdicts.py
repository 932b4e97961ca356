"""The scorecard of one model: a verdict on each of the paper's claims, beside the one on the paper's own numbers."""

from functools import partial

import pandas as pd

from steerpaper.artifacts import load_recorded
from steerpaper.paper.claims import Claim, cases, claims, summary, verdict
from steerpaper.paper.compared import measured_table, reported_table
from steerpaper.paper.tables import MODELS


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
    all_cases = {claim.id: cases(claim, partial(measured_table, preset)) for claim in claims()}
    rows = []
    for claim in claims():
        row = {"claim": claim.id, "title": claim.title, "locator": claim.locator, "rule": claim.rule}
        for model in MODELS:
            row[f"{model} verdict"], row[f"{model} reported"] = as_reported(claim, model)
        own = all_cases[claim.id]
        close = int((~own.clear.dropna().astype(bool)).sum())
        met = own.met.dropna().astype(bool)
        rows.append(row | {"verdict": verdict(own), "met": int(met.sum()), "cases": len(met), "close": close,
                           "measured": summary(own)})
    return pd.DataFrame(rows), pd.concat(all_cases.values(), ignore_index=True)


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
