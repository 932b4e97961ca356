"""What was found on one model, in five sentences with their numbers, and of several models the numbers side by side,
from the cases of their scorecards."""

import pandas as pd

from steerpaper.paper.claims import claims, verdict
from steerpaper.vectors.methods import METHODS

_FEW = 3  # cases that are told one by one
# What each finding says of the claims.
ABOUT = (("effective", "random-vectors"), ("few-edges", "whole-answers"), ("interchangeable", "beyond-random"),
         ("ov-not-qk", "ov-not-qk-learned", "ov-not-qk-logits", "mlps"), ("sparse", "sparse-plain", "sparse-values"))
_FREEZES = "all methods' freezes"  # DIM's and the learned vectors' are two claims, with the same checks
# The same numbers, a row each: the claims that they were judged by, the place of the check there, digits, unit.
_ROWS = {
    "ASR on harmful prompts, unsteered → steered": (("unsteered", "effective"), 0, 2, ""),
    "ASR on harmless prompts, unsteered → steered": (("unsteered", "effective"), 1, 2, ""),
    "clean answers, of the unsteered model's": (("effective",), 2, 0, " %"),
    "change of ASR by a random vector, of the method's": (("random-vectors",), 0, 0, " %"),
    "smallest faithful circuit, share of all edges": (("few-edges",), 0, 0, " %"),
    "its faithfulness": (("few-edges",), 1, 2, ""),
    "faithfulness gained over a one-token circuit": (("whole-answers",), 0, 2, ""),
    "faithfulness of another method's circuit": (("interchangeable",), 0, 2, ""),
    "random vectors' circuits, of the method's own": (("beyond-random",), 1, 0, " %"),
    "steering of ASR undone, values (OV) frozen": ((_FREEZES,), 0, 0, " %"),
    "the same, attention weights (QK) frozen": ((_FREEZES,), 1, 0, " %"),
    "the same, vector out of the MLPs' input": (("mlps",), 0, 0, " %"),
    "effect on logits undone, values (OV) frozen": (("ov-not-qk-logits",), 0, 0, " %"),
    "that of attention weights (QK), of that": (("ov-not-qk-logits",), 1, 0, " %"),
    "dimensions that can go, rescaled → not rescaled": (("sparse", "sparse-plain"), 0, 0, " %"),
    "effect of signs or gradient there, of the vector's": (("sparse-values",), 0, 0, " %"),
}


def findings(cases: pd.DataFrame, *, brief: bool = False) -> list[str]:
    """Five sentences on steering, circuits, what they share, freezes and sparsity.

    Each begins with what was claimed and the verdict on it. Whatever came out, it then says the same numbers: those that
    the claims were judged by, in brackets their 95 % intervals where they have one. Of more than three cases it tells
    the least and the largest value, and the outer ends of all intervals.

    Args:
        cases: `scorecard_cases` of one model.
        brief: the numbers without the verdicts, as in `side_by_side`, and fewer of them on freezes and sparsity.
    """
    checks, words = _checks(cases), _cell if brief else _told

    def told(claim: str, check: int, digits: int = 2) -> str:
        return words(checks[claim, check], digits, "")

    def percent(claim: str, check: int) -> str:
        return words(checks[claim, check], 0, " %")

    numbers = [
        f"Unsteered, ASR is {told('unsteered', 0)} on harmful prompts and {told('unsteered', 1)} on harmless ones, steered "
        f"{told('effective', 0)} and {told('effective', 1)}, with {percent('effective', 2)} as many clean answers. Random "
        f"vectors of the same length move ASR by {percent('random-vectors', 0)} of that.",
        f"The smallest faithful circuit has {percent('few-edges', 0)} of the edges and carries {told('few-edges', 1)} of "
        f"the steering. Found on whole answers, DIM's carries {told('whole-answers', 0)} more than found on one token.",
        f"Another method's circuit carries {told('interchangeable', 0)} of the steering, a random vector's "
        f"{percent('beyond-random', 1)} of what the method's own does.",
        f"Freezing the values undoes {percent(_FREEZES, 0)} of what steering does to ASR, freezing the attention weights "
        f"{percent(_FREEZES, 1)}, and taking the vector out of what the MLPs read {percent('mlps', 0)}.",
        f"Vectors keep their effect without {percent('sparse', 0)} of their dimensions, chosen by gradient, if the rest is "
        f"rescaled, without {percent('sparse-plain', 0)} if not. With signs or the gradient for values in the rest, "
        f"{percent('sparse-values', 0)} of the effect is left.",
    ]
    if brief:
        return numbers
    numbers[0] += " (Below 0 is the other way.)"
    numbers[1] += f" All answers together, no position holds more than {percent('whole-answers', 1)} of the effect."
    numbers[2] += (f" (These are equally large; one as large as the largest carries {percent('beyond-random', 0)} of what "
                   f"another method's does.) Random edges, twice as many as in DIM's, carry at most "
                   f"{told('controls', 1)} in 97.5 % of draws; as many of the same kinds carry "
                   f"{percent('controls', 2)} of what DIM's do (medians). Two methods' vectors have cosines of "
                   f"{_range(checks['cosines', 0], 2)}.")
    numbers[3] += (f" Taking out the steering value vectors undoes {percent('svv-share', 0)} of what the values do. In "
                   f"logits freezing the values undoes {percent('ov-not-qk-logits', 0)} of the effect, the attention "
                   f"weights {percent('ov-not-qk-logits', 1)} of that.")
    numbers[4] += f" At 80 %, rescaled, {percent('sparse', 1)} of the whole vectors' clean text is left."
    verdicts = {claim.id: f"**{claim.title}: {verdict(cases[cases.claim == claim.id])}.**" for claim in claims()}
    return [" ".join([*(verdicts[name] for name in about), said]) for about, said in zip(ABOUT, numbers)]


def side_by_side(cases: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The numbers of the five sentences, a column per model: of every method where a check has one case per method, else
    the least and the largest.

    Args:
        cases: `scorecard_cases` by model.
    """
    columns = {}
    for model, own in cases.items():
        checks = _checks(own)
        columns[model] = [" → ".join(_cell(checks[name, check], digits, unit) for name in names)
                          for names, check, digits, unit in _ROWS.values()]
    return pd.DataFrame({"": list(_ROWS), **columns})


def _cell(rows: pd.DataFrame, digits: int, unit: str) -> str:
    """Cases in short: of every method, or the least and the largest."""
    rows = (_percent(rows) if unit else rows).dropna(subset="met")
    methods = set(_names(rows))
    if len(methods) == len(rows) > 1 and methods <= set(METHODS):
        return " / ".join(_number(value, digits) for value in rows.value) + unit
    return _range(rows, digits, unit)


def _checks(cases: pd.DataFrame) -> dict[tuple[str, int], pd.DataFrame]:
    """The cases of every check, by its claim and its place there; the freezes of all methods together, too."""
    found = {(claim.id, i): cases[(cases.claim == claim.id) & (cases.quantity == check.quantity)]
             for claim in claims() for i, check in enumerate(claim.checks)}
    return found | {(_FREEZES, i): pd.concat([found["ov-not-qk", i], found["ov-not-qk-learned", i]]) for i in (0, 1)}


def _names(rows: pd.DataFrame) -> list[str]:
    """What a case is named after: the method, where there is one."""
    return [name.split(", ")[0] for name in rows.case]


def _percent(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(**100 * rows[["value", "low", "high"]].astype(float))


def _told(rows: pd.DataFrame, digits: int, unit: str) -> str:
    """Cases in words: each by its name, or their range."""
    rows = (_percent(rows) if unit else rows).dropna(subset="met")
    if rows.empty or len(rows) > _FEW:
        return _range(rows, digits, unit) + _interval(rows.low.min(), rows.high.max(), digits, unit)
    each = [f"{_number(row.value, digits)}{unit}{_interval(row.low, row.high, digits, unit)}" for row in rows.itertuples()]
    names = [f"{METHODS[name].label if name in METHODS else name} " if len(rows) > 1 else "" for name in _names(rows)]
    return ", ".join(map("".join, zip(names, each)))


def _range(rows: pd.DataFrame, digits: int, unit: str = "") -> str:
    """The least and the largest value; one number where they are told alike."""
    values = rows.dropna(subset="met").value
    ends = dict.fromkeys(_number(value, digits) for value in (values.min(), values.max()))
    return "(not measured)" if values.empty else " to ".join(ends) + unit


def _interval(low: float, high: float, digits: int, unit: str) -> str:
    return f" ({_number(low, digits)} to {_number(high, digits)}{unit})" if pd.notna(low) else ""


def _number(value: float, digits: int) -> str:
    return f"{round(float(value), digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero
