"""The paper's own arithmetic, done again from its printed numbers and from the graph's definition."""

from collections.abc import Iterator
from functools import cache
from itertools import product
from numbers import Integral

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import erf

from steerpaper.circuits.graph import edge_types
from steerpaper.paper.compared import reported_table
from steerpaper.paper.tables import (
    EDGE_TYPES, MODELS, average_drop, drop_points, paper_graph, paper_tables, paper_text,
)

# point, locator, quantity, printed, computation, recomputed, and whether they agree, None if that cannot be computed
Row = tuple[str, str, str, str | float, str, str | float, bool | None]
_SAID = {True: "yes", False: "no", None: "not computable"}
_NONE = "no number to recompute"
_OF_THE_TEXT: list[Row] = [  # matters of the text alone
    ("7", "figure 10", "the model of figure 10", "caption: Gemma; place in the text: Llama", "the two places compared",
     _NONE, None),
    ("8", "§6.3 (d)", "whether s is subtracted before or after the MLP's norm", "not said",
     "authors' code: after the norm, s ⊙ γ times the steered run's 1/RMS, as for SVV", _NONE, None),
    ("9", "§4.2", "whether edges are ranked by |IE| or by signed IE", "not said", "authors' code: by |IE|", _NONE,
     None),
]
# Edges of the graph in closed form: n layers from the steering layer on with H query heads, K key-value heads and t
# targets each, so n(n − 1)/2 pairs of an earlier and a later layer.
_CLOSED_FORMS = {
    "from_steering": "{n}·{t} + 1",
    "from_attention_head": "{H}·(2·{n} + {t}·{n}·{m}/2)",
    "from_mlp": "{n} + {t}·{n}·{m}/2",
    "into_query": "{H}·({n} + ({H} + 1)·{n}·{m}/2)",
    "into_key": "{K}·({n} + ({H} + 1)·{n}·{m}/2)",
    "into_value": "{K}·({n} + ({H} + 1)·{n}·{m}/2)",
    "into_mlp": "{n}·({H} + 1) + ({H} + 1)·{n}·{m}/2",
    "into_logits": "{n}·({H} + 1) + 1",
    "edges": "({n}·{t} + 1) + {H}·(2·{n} + {t}·{n}·{m}/2) + ({n} + {t}·{n}·{m}/2)",
}


def paper_arithmetic() -> pd.DataFrame:
    """What the paper prints beside what its own numbers give.

    Returns:
        Columns point (one of the nine points known to be unclear or to disagree, or empty), locator, quantity,
        printed, computation (what is done with which of the paper's numbers), recomputed (what that gives) and agrees:
        "yes", "no", or "not computable" for what is a matter of the text alone.
    """
    tables = paper_tables()
    parts = [
        _drops(tables), _edge_types(tables), _edges_that_exist(), _graph_counts(tables), _midpoints(),
        _thresholds(tables), _positions(tables), _same_numbers(tables), _possible_rates(tables), _OF_THE_TEXT,
    ]
    rows = [(*map(_shown, row[:-1]), _SAID[row[-1]]) for part in parts for row in part]
    columns = ["point", "locator", "quantity", "printed", "computation", "recomputed", "agrees"]
    return pd.DataFrame(rows, columns=columns).sort_values(
        "point", key=lambda point: point.replace("", "99").astype(int), kind="stable", ignore_index=True)


def _shown(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, Integral) else f"{value:g}"


def _drops(tables: dict) -> Iterator[Row]:
    """Point 1: the averages of table 1 over models and test sets, and the shares that the text makes of them."""
    text, ablations = paper_text()["printed"], tables["table1_ablations"]
    drops = average_drop(ablations).set_index("frozen").drop_points
    points = drop_points(ablations).sort_values(["model", "test_set"]).groupby("frozen").drop_points
    sums = {name: f"({' + '.join(f'{one:g}' for one in group)}) / {len(group)}" for name, group in points}
    for name, value in tables["table1_average_drop"].set_index("frozen").drop_points.items():
        yield ("1", "table 1", f"average drop, {name}, in points", value, sums[name], drops[name],
               np.isclose(drops[name], value, atol=0.005))
    share, stated = 100 * drops["svv"] / drops["ov"], text["svv_percent_of_ov_drop"]
    yield ("1", stated["locator"], "SVV's drop, % of OV's", stated["value"],
           f"100 · {drops['svv']:g} / {drops['ov']:g}", f"{share:.1f}", np.isclose(share, stated["value"], atol=0.05))
    stated = text["abstract_qk_drop_points"]
    yield ("", stated["locator"], "QK's drop, in points", stated["value"], sums["qk"], drops["qk"],
           np.isclose(drops["qk"], stated["value"], atol=0.005))


def _edge_types(tables: dict) -> Iterator[Row]:
    """Point 2: three circuits of different sizes hardly have one row, though two may; and a row's shares sum to 100."""
    for source, group in tables["table5_8_edge_types"].groupby("source", sort=False):
        wide = group.pivot(index=["model", "method"], columns="type", values="percent")[list(group.type.unique())]
        for model in MODELS:
            own = wide.loc[model]
            n, rows = len(own.drop_duplicates()), [f"{method}: {_listed(row, ', ')}" for method, row in own.iterrows()]
            yield ("2", EDGE_TYPES[source][0], f"{model}: different rows of three methods' circuits, at least 2",
                   f"{len(own)} rows", "; ".join(rows), f"{n} different", n > 1)
        sums = wide.sum(axis=1).round(6)
        # Each entry is rounded to the digits that it shows; 0.05 for one digit.
        agrees = (sums - 100).abs().max() <= 0.05 * group.type.nunique() + 1e-9
        ends = (_listed(wide.loc[row], " + ") for row in (sums.idxmin(), sums.idxmax()))
        yield ("", EDGE_TYPES[source][0], "sum of a row, in %", "100", "least and most of six rows: " + "; ".join(ends),
               f"{sums.min():.4g} to {sums.max():.4g}", agrees)


def _listed(row: pd.Series, between: str) -> str:
    return between.join(f"{value:g}" for value in row)


def _edges_that_exist() -> Iterator[Row]:
    """Point 2: shares of a circuit's edges cannot be more edges than the graph has."""
    circuits = [about for about in EDGE_TYPES.values() if about[1] == "circuit"]
    for model, (locator, edges, prefix) in product(MODELS, circuits):
        available = _counts(model).filter(like=prefix)
        wide = reported_table(model, "table5_8_edge_types").query("edges == @edges").set_index("method")
        for row in reported_table(model, "fig3_minimum_faithful").itertuples():
            implied = wide.loc[row.method, list(available.index)].astype(float) * row.n_edges / 100
            over = implied > available
            worst = implied[over] if over.any() else implied[[(implied / available).idxmax()]]
            shares = {name: f"{100 * n / row.n_edges:g} %" for name, n in worst.items()}
            printed = [f"{name}: {shares[name]} = {n:,.0f}" for name, n in worst.items()]
            done = [f"{shares[name]} of {row.n_edges:,} against {_closed_form(model, name)}" for name in shares]
            exist = [f"{name}: {available[name]:,}" for name in shares]
            yield ("2", locator, f"{model}, {row.method}: edges of a {row.n_edges:,}-edge circuit, and of the graph",
                   *map("; ".join, (printed, done, exist)), not over.any())


def _graph_counts(tables: dict) -> Iterator[Row]:
    """Point 3: every count of the graph at both granularities; and the share of it that is a faithful circuit."""
    for row in tables["graph_counts"].itertuples():
        n = paper_graph(row.model).n_edges if row.quantity == "edges" else _counts(row.model)[row.quantity]
        point, name = ("3", "edges |M|") if row.quantity == "edges" else ("", f"edges {row.quantity.replace('_', ' ')}")
        yield (point, row.locator, f"{row.model}: {name}", row.value, _closed_form(row.model, row.quantity), n,
               n == row.value)
    stated = paper_text()["printed"]["edges_not_split"]
    for model in MODELS:
        n = paper_graph(model, split_heads=False).n_edges
        yield ("3", stated["locator"], f"{model}: edges, queries, keys and values not split by head",
               stated[model], _closed_form(model, "edges", n_targets=4), n, n == stated[model])
    for row in tables["fig3_minimum_faithful"].query("method == 'dim'").itertuples():
        share, stated = 100 * row.share, paper_text()["printed"]["minimum_faithful_percent"][row.model]
        yield ("", row.locator, f"{row.model}: {row.n_edges:,} edges, % of |M|", f"about {stated}",
               f"100 · {row.n_edges:,} / {row.graph_edges:,}", f"{share:.1f}", abs(share - stated) <= 0.5)


def _closed_form(model: str, quantity: str, n_targets: int | None = None) -> str:
    """A count of edges as a formula with the model's numbers; by default every head has its own targets."""
    sizes = paper_text()["models"][model]
    n, heads, groups = sizes["n_layers"] - sizes["steering_layer"], sizes["n_heads"], sizes["n_kv_heads"]
    targets = n_targets or heads + 2 * groups + 1
    return _CLOSED_FORMS[quantity].format(n=n, m=n - 1, H=heads, K=groups, t=targets)


@cache
def _counts(model: str) -> pd.Series:
    """Edges of the model's graph by type."""
    return edge_types(paper_graph(model).edges)


def _midpoints() -> Iterator[Row]:
    """Point 4: where the midpoint rule's last evaluation lies, and what it makes of the integral of x over [0, 1]."""
    stated = paper_text()["printed"]["integration_steps"]
    steps, first = stated["value"], stated["first_index"]
    printed, meant = (((np.arange(steps) + start) + 0.5) / steps for start in (first, 0))
    last = f"printed: ({first + steps - 1} + 1/2) / {steps}; from i = 0 on: ({steps - 1} + 1/2) / {steps}"
    yield ("4", stated["locator"], f"last of {steps} midpoints in [0, 1]", printed[-1], last, meant[-1],
           printed[-1] <= 1)
    mean = (f"mean of (i + 1/2) / {steps}; printed: i = {first} to {first + steps - 1}; recomputed: i = 0 to "
            f"{steps - 1}; exact: 1/2")
    yield ("4", stated["locator"], "integral of x over [0, 1] by that rule", printed.mean(), mean, meant.mean(),
           np.isclose(printed.mean(), 0.5))


def _thresholds(tables: dict) -> Iterator[Row]:
    """Point 5: sparsities under r < tau, which is half of them or more if r is as often negative as positive."""
    table = tables["table10_11_sparsity"].drop_duplicates(["model", "method", "threshold"])
    zero, following = (table.groupby(["model", "method"]).nth(i) for i in (0, 1))  # thresholds rise in each
    low, high, tau = following.sparsity.min(), following.sparsity.max(), following.threshold.max()
    yield ("5", zero.locator.iloc[0], "sparsity at τ = 0 of all six vectors, under r < τ",
           "half or more, by the rule as §7 prints it", f"the tables' {len(zero)} rows of τ = 0 and of τ = {tau:g}",
           f"at most {zero.sparsity.max():.1%}; at τ = {tau:g} {low:.1%} to {high:.1%}", zero.sparsity.min() >= 0.5)
    for (model, method), group in table.groupby(["model", "method"], sort=False):
        scale, miss = half_normal(group)
        yield ("5", group.locator.iloc[0], f"{model}, {method}: sparsities under |r| < τ with half-normal |r|",
               "the table's", f"erf(τ / ({scale:.2f} · √2)) less the table's sparsity at the {len(group)} τ, the scale "
               "fitted by least squares", f"within {100 * miss:.1f} points (scale {scale:.2f})", miss <= 0.05)


def half_normal(curve: pd.DataFrame) -> tuple[float, float]:
    """The half-normal |r| whose share below each threshold comes nearest to the sparsities of one vector.

    Args:
        curve: columns threshold and sparsity.

    Returns:
        Its scale, fitted by least squares, and the largest difference of the two shares.
    """
    def misses(scale: float) -> pd.Series:
        return (erf(curve.threshold / (scale * 2**0.5)) - curve.sparsity).abs()

    scale = minimize_scalar(lambda scale: (misses(scale) ** 2).sum(), bounds=(0.1, 3), method="bounded").x
    return scale, misses(scale).max()


def _positions(tables: dict) -> Iterator[Row]:
    """Point 6: the positions of table 3, their repetitions and their sums."""
    table, stated = tables["table3_patching_data"], tables["table9_positions"].set_index("metric").positions
    for (model, method), group in table.groupby(["model", "method"], sort=False):
        repeated = group[group.positions.duplicated(keep=False)]
        names = ", ".join(f"{row.prompts} {row.response_from} {row.positions:,}" for row in repeated.itertuples())
        yield ("6", "table 3", f"{model}, {method}: different sets of responses, different numbers of positions",
               f"{len(group)} numbers", "; ".join(f"{n:,}" for n in group.positions),
               f"{group.positions.nunique()} different" + (f" ({names})" if names else ""), not names)
    of_dim = table.query("model == 'gemma-2-2b-it' and method == 'dim'").positions
    yield ("6", "table 9", "gemma-2-2b-it, dim: positions of table 3 together", stated["logit difference"],
           " + ".join(f"{n:,}" for n in of_dim), of_dim.sum(), of_dim.sum() == stated["logit difference"])
    limit = paper_text()["printed"]["response_tokens_at_most"]["value"]
    ratio = table.positions / table.responses
    most = table.loc[ratio.idxmax()]
    yield ("", "table 3", "positions per response, at most", limit,
           f"{most.positions:,} / {most.responses} ({most.model}, {most.method}, {most.prompts}, {most.response_from})",
           f"{ratio.max():.0f}", ratio.max() <= limit)


def _same_numbers(tables: dict) -> Iterator[Row]:
    """Numbers that stand in two tables."""
    keys = ["model", "method", "test_set"]
    asr = tables["table2_asr"].set_index(keys).asr
    others = {"table 1, nothing frozen": tables["table1_ablations"].query("frozen == 'none'"),
              "tables 10 and 11, τ = 0": tables["table10_11_sparsity"].query("threshold == 0")}
    for locator, table in others.items():
        same = np.isclose(table.asr, asr[pd.MultiIndex.from_frame(table[keys])])
        yield ("", locator, "ASRs equal to table 2's", len(same),
               "each against table 2's of the same model, method and test set", same.sum(), same.all())


def _possible_rates(tables: dict) -> Iterator[Row]:
    """Rates that some whole number of the test prompts gives, at the three digits printed."""
    n = paper_text()["printed"]["prompts_per_test_set"]
    for name, locator in (("table1_ablations", "table 1"), ("table2_asr", "table 2"),
                          ("table10_11_sparsity", "tables 10 and 11")):
        for test_set, group in tables[name].groupby("test_set"):
            size = n.get(f"{test_set}_sparsity", n[test_set]) if name == "table10_11_sparsity" else n[test_set]
            possible = (group.asr - (group.asr * size).round() / size).abs() <= 0.0005 + 1e-9
            yield ("", locator, f"ASRs that a whole number of {size} prompts gives ({test_set})", len(group),
                   f"each against the nearest k / {size}, to 0.0005", possible.sum(), possible.all())
