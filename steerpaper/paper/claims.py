"""The paper's claims, each a list of checks, and the verdict that tables pass on it.

A check turns a table into *cases*, numbers with a name, and holds each against one rule. A claim **holds** if every
case of every check meets its rule and **does not hold** if none does. It **mostly holds** if at least `MOST` of them
do, and **mostly fails** if at most `FEW` do, unless one of its checks, taken by itself, says the opposite; everything
else **holds in part**. The value counts, not its interval; how many cases lie so close to a limit that their interval does
not decide is said beside it. What is undefined does not meet a rule. A check whose table lacks a column, as one on
record from before the check may, is **not measured** and does not count.
"""

import ast
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache

import numpy as np
import pandas as pd

from steerpaper import paths
from steerpaper.choices import unknown
from steerpaper.outputs import outputs

# Verdicts and their colours in figures. "no case": the model's tables hold nothing to which the rule applies. "not
# printed": the paper prints no numbers to which it could be applied.
VERDICTS = {
    "holds": "#117733", "mostly holds": "#77AA66", "holds in part": "#DDAA33", "mostly fails": "#DD8866",
    "does not hold": "#BB5566", "no case": "#999999", "not measured": "#CCCCCC", "not printed": "#BBCCEE",
}
MOST, FEW = 0.8, 0.2  # of the cases
_RULES = {
    "at_least": "at least {0:g}", "at_most": "at most {0:g}", "above": "above {0:g}", "below": "below {0:g}",
    "within": "from {0:g} to {1:g}",
}
# What an expression of `where` and `value` may be made of: pandas would run any call in it.
_SAFE = (
    ast.Expression, ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp,
    ast.Not, ast.Invert, ast.USub, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div,
)
_CASES = ["claim", "quantity", "rule", "case", "value", "low", "high", "margin", "met", "clear"]


@dataclass(frozen=True)
class Rule:
    """One of at_least, at_most, above, below (a limit) and within (both ends allowed)."""

    kind: str
    limits: tuple[float, ...]

    @property
    def words(self) -> str:
        """The rule, readable."""
        return _RULES[self.kind].format(*self.limits)

    def margin(self, value: pd.Series) -> pd.Series:
        """By how much values meet the rule; negative where they do not."""
        low, high = {"at_least": (self.limits[0], np.inf), "above": (self.limits[0], np.inf),
                     "at_most": (-np.inf, self.limits[0]), "below": (-np.inf, self.limits[0]),
                     "within": self.limits[-2:]}[self.kind]
        return np.minimum(value - low, high - value)

    def met(self, value: pd.Series) -> pd.Series:
        """Which values meet the rule; those that are not numbers do not."""
        margin = self.margin(value)
        rounding = 1e-9 * max(map(abs, self.limits))
        return margin > rounding if self.kind in ("above", "below") else margin >= -rounding

    def clear(self, value: pd.Series, low: pd.Series, high: pd.Series) -> pd.Series:
        """Where a whole interval says the same as its value; None where there is no interval."""
        met, ends = self.met(value), [self.met(low), self.met(high)]
        around = (low < min(self.limits)) & (high > max(self.limits))
        same = pd.Series(np.where(met, ends[0] & ends[1], ~(ends[0] | ends[1] | around)), value.index, dtype=object)
        return same.where(low.notna() & high.notna(), None)


@dataclass(frozen=True)
class Check:
    """One check of a claim; `data/paper/claims.toml` explains the fields.

    `where` and `value` are pandas' expressions, of what `_check_expression` lets pass.
    """

    quantity: str
    table: str
    value: str
    rule: Rule
    case: tuple[str, ...]
    where: tuple[str, ...] = ()
    spread: tuple[str, str] | None = None
    interval: tuple[str, str] | None = None

    def cases(self, table: pd.DataFrame) -> pd.DataFrame:
        """The cases of a table: quantity, rule, case, value, low, high, margin, met, clear (empty without interval).
        A table with the column test_set, as the paper's have it, has a case for each of its test sets."""
        for query in self.where:
            table = table.query(query)
        if table.empty:
            return pd.DataFrame(columns=_CASES)
        case = [*self.case, "test_set"] if "test_set" in table else list(self.case)
        if self.spread:
            by, values = self.spread
            table = table.pivot(index=case, columns=by, values=values).reset_index()
        value = table.eval(self.value).astype(float)
        rows = pd.DataFrame({"case": [", ".join(map(str, labels)) for labels in table[case].itertuples(index=False)]},
                            index=table.index)
        rows = rows.assign(quantity=self.quantity, rule=self.rule.words, value=value, margin=self.rule.margin(value),
                           met=self.rule.met(value))
        if self.interval and set(self.interval) <= set(table):
            low, high = (table[name].astype(float) for name in self.interval)
            return rows.assign(low=low, high=high, clear=self.rule.clear(value, low, high)).reset_index(drop=True)
        return rows.assign(low=np.nan, high=np.nan, clear=None).reset_index(drop=True)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, or a control of ours; `data/paper/claims.toml` explains the fields."""

    id: str
    title: str
    locator: str
    says: str
    limits: str
    checks: tuple[Check, ...]
    abstract: bool = False
    ours: bool = False
    reported: dict[str, str] = field(default_factory=dict)

    @property
    def rule(self) -> str:
        """All checks in words."""
        return "; ".join(f"{check.quantity}: {check.rule.words}" for check in self.checks)


@cache
def entries() -> list[dict]:
    """The claims of `data/paper/claims.toml`, unchecked, as they stand there. Read once; not to be changed."""
    return tomllib.loads((paths.DATA / "paper" / "claims.toml").read_text(encoding="utf-8"))["claims"]


def claims() -> list[Claim]:
    """The claims of `data/paper/claims.toml`, in its order.

    Raises:
        ValueError: an entry that lacks a field, has an unknown one, a check without just one rule, or an expression
            that is more than data.
    """
    found = []
    for entry in entries():
        checks = tuple(_check(entry["id"], check) for check in entry["checks"])
        found.append(_made(Claim, {**entry, "checks": checks}, f"claim {entry['id']!r}"))
    return found


def verdict(rows: pd.DataFrame) -> str:
    """The verdict of a claim's `cases`: see the module's first lines."""
    known = rows.dropna(subset="met")
    if known.empty:
        return "not measured" if len(rows) else "no case"
    met = known.met.astype(bool)
    checks = met.groupby(known.quantity)
    if met.all() or not met.any():
        return "holds" if met.all() else "does not hold"
    if met.mean() >= MOST and checks.any().all():
        return "mostly holds"
    if met.mean() <= FEW and not checks.all().any():
        return "mostly fails"
    return "holds in part"


def without_mostly(verdict: str) -> str:
    """A verdict with what "mostly" holds counted as holding, and what "mostly fails" as not."""
    return {"mostly holds": "holds", "mostly fails": "does not hold"}.get(verdict, verdict)


def cases(claim: Claim, load: Callable[[str], pd.DataFrame | None]) -> pd.DataFrame:
    """Every case of a claim, and whether it meets its rule.

    Args:
        load: gives a table by name, or None where there is none to apply a check to; it raises KeyError for one that was
            not made.

    Returns:
        Columns claim, quantity, rule, case, value, low, high, margin, met, clear. A check whose table lacks a column or
        was not made has one row, with the case "not measured", and neither a value nor met.
    """
    parts = [pd.DataFrame(columns=_CASES)]
    for check in claim.checks:
        try:
            if (table := load(check.table)) is not None:
                parts.append(check.cases(table))
        except (KeyError, pd.errors.UndefinedVariableError):
            row = {"quantity": check.quantity, "rule": check.rule.words, "case": "not measured"}
            parts.append(pd.DataFrame([row], columns=_CASES))
    parts = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(parts, ignore_index=True).assign(claim=claim.id)[_CASES]


def summary(rows: pd.DataFrame) -> str:
    """Cases in words: per quantity the range and the case that fits its rule least, with its interval."""
    texts = []
    for quantity, group in rows.groupby("quantity", sort=False):
        if group.met.isna().all():
            texts.append(f"{quantity}: not measured")
            continue
        weakest = group.loc[group.margin.fillna(-np.inf).idxmin()]
        value = _number(weakest.value)
        if pd.notna(weakest.low):
            value += f" ({_number(weakest.low)} to {_number(weakest.high)})"
        if len(group) > 1:
            span = " to ".join(dict.fromkeys(map(_number, (group.value.min(), group.value.max()))))
            value = f"{span}, weakest {weakest.case} with {value}"
        texts.append(f"{quantity}: {value}")
    return "; ".join(texts)


def _number(value: float) -> str:
    return f"{value + 0.0:.3g}"  # + 0.0: no minus before a zero


def _check(claim: str, entry: dict) -> Check:
    kinds = [kind for kind in _RULES if kind in entry]
    if len(kinds) != 1:
        raise ValueError(f"a check of claim {claim!r} has {len(kinds)} rules: give one of {', '.join(_RULES)}")
    tables = [name for about in outputs().values() for name in about["tables"]]
    if entry["table"] not in tables:
        raise unknown(f"table of claim {claim!r}", entry["table"], tables)
    if not isinstance(where := entry.get("where", []), list):
        raise ValueError(f"`where` of claim {claim!r} must be a list of expressions, not {where!r}")
    for expression in (*where, entry.get("value", "0")):
        _check_expression(claim, expression)
    limits = entry[kinds[0]]
    entry = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items() if key != kinds[0]}
    rule = Rule(kinds[0], tuple(np.atleast_1d(np.array(limits, dtype=float)).tolist()))
    return _made(Check, {**entry, "rule": rule}, f"a check of claim {claim!r}")


def _check_expression(claim: str, expression: str) -> None:
    """Raise ValueError where an expression is anything but columns, constants, comparisons and arithmetic."""
    try:
        nodes = list(ast.walk(ast.parse(expression, mode="eval")))
    except (SyntaxError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"claim {claim!r} has {expression!r}, which is no expression ({error})") from error
    called = {id(part) for node in nodes if _is_data(node) for part in (node, node.func, node.func.value)}
    if wrong := [node for node in nodes if not isinstance(node, _SAFE) and id(node) not in called
                 or isinstance(node, ast.Name) and node.id.startswith("__")]:
        part = ast.unparse(wrong[0]) or type(wrong[0]).__name__
        raise ValueError(f"claim {claim!r} has {expression!r}, with {part!r} in it: allowed are columns, constants, "
                         "lists of them, comparisons, and, or, not, + - * /, column.max(), column.duplicated() and "
                         "column.str.contains('text')")


def _is_data(node: ast.AST) -> bool:
    """Whether it is one of the few calls that ask a column for no more than its values."""
    match node:
        case ast.Call(ast.Attribute(ast.Name(), "max" | "duplicated"), [], []):
            return True
        case ast.Call(ast.Attribute(ast.Attribute(ast.Name(), "str"), "contains"), [ast.Constant(str())], []):
            return True
    return False


def _made(kind: type, entry: dict, what: str):
    try:
        return kind(**entry)
    except TypeError as error:
        known = ", ".join(sorted(one.name for one in fields(kind)))
        raise ValueError(f"{what}: {error}; fields are {known}") from error
