"""What was found on one model, in five sentences with their numbers, from the cases of its scorecard."""

import pandas as pd

from steerpaper.paper.claims import claims, verdict
from steerpaper.vectors.methods import METHODS

_FEW = 3  # cases that are told one by one
_ABOUT = (("effective", "random-vectors"), ("few-edges", "whole-answers"), ("interchangeable", "beyond-random"),
          ("ov-not-qk", "ov-not-qk-learned"), ("sparse", "sparse-plain"))  # what each finding says of the claims


def findings(cases: pd.DataFrame) -> list[str]:
    """Five sentences on steering, circuits, what they share, freezes and sparsity.

    Each begins with what was claimed and the verdict on it. Whatever came out, it then says the same numbers: those that
    the claims were judged by, in brackets their 95 % intervals where they have one. Of more than three cases it tells
    the least and the largest value, and the outer ends of all intervals.

    Args:
        cases: `scorecard_cases` of one model.
    """
    checks = {(claim.id, i): cases[(cases.claim == claim.id) & (cases.quantity == check.quantity)]
              for claim in claims() for i, check in enumerate(claim.checks)}

    def share(claim: str, check: int) -> str:
        return _told(checks[claim, check], "{:.2f}")

    def percent(claim: str, check: int) -> str:
        rows = checks[claim, check]
        return _told(rows.assign(**100 * rows[["value", "low", "high"]].astype(float)), "{:.0f} %")

    values, weights = (_told(pd.concat([checks["ov-not-qk", i], checks["ov-not-qk-learned", i]]), "{:.1f}")
                       for i in (0, 1))
    numbers = [
        f"ASR is {share('effective', 0)} on harmful prompts and {share('effective', 1)} on "
        f"harmless ones, with {percent('effective', 2)} of the unsteered model's clean text. A random vector as long as DIM "
        f"moves it by {percent('random-vectors', 0)} of what DIM does.",
        f"The smallest faithful circuit has {percent('few-edges', 0)} of the edges and carries "
        f"{share('few-edges', 1)} of the steering on test prompts. Found on whole answers, a circuit carries "
        f"{share('whole-answers', 0)} more than one found on a single token; one position holds "
        f"{percent('whole-answers', 1)} of the effect.",
        f"Another method's circuit carries {share('interchangeable', 0)} of the steering, a random "
        f"vector's {percent('beyond-random', 0)} of that, and random edges, twice as many, {share('controls', 1)} at "
        "most in 97.5 % of draws.",
        f"Freezing the values moves ASR by {values} points, freezing the attention weights by {weights}, and taking the "
        f"vector out of what the MLPs read by {share('order-of-drops', 0)} points more than the weights. Taking out the steering value vectors moves it by {percent('svv-share', 0)} of what the values do.",
        "By gradient, and rescaled, vectors keep their effect up to a sparsity of "
        f"{percent('sparse', 0)}, and not rescaled up to {percent('sparse-plain', 0)}. At 80 %, rescaled, "
        f"{percent('sparse', 1)} of the dense vectors' clean text is left.",
    ]
    verdicts = {claim.id: f"**{claim.title}: {verdict(cases[cases.claim == claim.id])}.**" for claim in claims()}
    return [" ".join([*(verdicts[name] for name in about), said]) for about, said in zip(_ABOUT, numbers)]


def _told(rows: pd.DataFrame, form: str) -> str:
    """Cases in words: each by its name, or their range."""
    rows = rows.dropna(subset="met")
    if rows.empty:
        return "(not measured)"
    if len(rows) > _FEW:
        ends = form.format(rows.value.min()).removesuffix(" %"), form.format(rows.value.max())
        return f"{ends[0]} to {ends[1]}{_interval(rows.low.min(), rows.high.max(), form)}"
    each = [f"{form.format(row.value)}{_interval(row.low, row.high, form)}" for row in rows.itertuples()]
    names = [name.split(", ")[0] for name in rows.case]
    names = [f"{METHODS[name].label if name in METHODS else name} " if len(rows) > 1 else "" for name in names]
    return ", ".join(map("".join, zip(names, each)))


def _interval(low: float, high: float, form: str) -> str:
    return f" ({form.format(low).removesuffix(' %')} to {form.format(high)})" if pd.notna(low) else ""
