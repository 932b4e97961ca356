"""The paper's reported numbers (data/paper) as tidy tables, named and labelled like our own tables."""

import tomllib
from functools import cache

import pandas as pd

from steerpaper import paths
from steerpaper.choices import unknown
from steerpaper.circuits.graph import Graph
from steerpaper.concepts import REFUSAL, Concept

MODELS = ("gemma-2-2b-it", "llama-3.2-3b-instruct")
# Which of the paper's test sets stands beside which of ours. StrongREJECT is a second harmful set.
TEST_SETS = {"alpaca": "harmless", "jailbreakbench": "harmful", "strongreject": "harmful"}
ORDER = ("qk", "mlp", "svv", "ov")  # of freezes, from the one that costs least (§6.3)
# Of the edge-type tables: locator, our name of the circuit, prefix of our columns.
EDGE_TYPES = {
    "table5_outgoing_circuit": ("table 5", "circuit", "from_"),
    "table6_outgoing_top": ("table 6", "top", "from_"),
    "table7_incoming_circuit": ("table 7", "circuit", "into_"),
    "table8_incoming_top": ("table 8", "top", "into_"),
}


@cache
def paper_text() -> dict:
    """What `data/paper/text.toml` holds: the paper's models and set-up, numbers printed in its text, and `effect_kept`.

    Read once; not to be changed, like the tables below.
    """
    return tomllib.loads((paths.DATA / "paper" / "text.toml").read_text(encoding="utf-8"))


def paper_graph(model: str, split_heads: bool = True) -> Graph:
    """The graph of one of the paper's models at its steering layer (§4)."""
    sizes = paper_text()["models"][model]
    return Graph(sizes["n_layers"], sizes["n_heads"], sizes["n_kv_heads"], sizes["steering_layer"], split_heads)


@cache
def paper_tables() -> dict[str, pd.DataFrame]:
    """Every number of `data/paper/*.csv`, tidy.

    Each table has the columns source (its CSV file), locator (in the paper) and model ("both" where a number
    is of no single one), then keys and values under the names and labels of our own table of that name. Rates
    and shares lie in [0, 1], drops are in points; edge types are in %, one row per type. Numbers without a table
    of ours stand in `graph_counts` and `table4_training`.
    """
    frozen = {"ablation": "frozen", "reported_average_drop_points": "drop_points"}
    of_dim = {name: _csv(name, "table 1").rename(columns=frozen).assign(method="dim")
              for name in ("table1_ablations", "table1_average_drop")}
    asr = _by_test_set(_csv("table2_asr", "table 2"), ["method"])
    counts = _csv("graph_counts", "D.4")
    is_minimum = counts.quantity.str.startswith("minimum_faithful_")
    return {
        "table1_ablations": _by_test_set(of_dim["table1_ablations"], ["method", "frozen"]),
        "table1_average_drop": of_dim["table1_average_drop"].assign(model="both"),
        "table2_asr": asr,
        "table3_patching_data": _csv("table3_patching_data", "table 3"),
        "table4_training": _csv("table4_training", "table 4").assign(model="both"),
        "table5_8_edge_types": pd.concat([_edge_types(*item) for item in EDGE_TYPES.items()], ignore_index=True),
        "table9_positions": _positions(_csv("table9_positions", "table 9")),
        "table10_11_sparsity": _sparsity(_csv("table10_11_sparsity", "tables 10 and 11"), asr[asr.method == "none"]),
        "graph_counts": counts[~is_minimum].reset_index(drop=True),
        "fig3_minimum_faithful": _minimum(counts[is_minimum], counts[counts.quantity == "edges"]),
        "svv_tokens": _csv("figure5_12_svv_tokens", "figures 5 and 12"),
    }


def reported(name: str, concept: Concept = REFUSAL, **where) -> pd.DataFrame:
    """One of `paper_tables`, without the columns source and locator; without a row beside another concept than refusal.

    Args:
        where: columns and the value, or list of values, to keep: `reported("table2_asr", prompts="harmful")`.

    Raises:
        ValueError: an unknown table or column, or a value that no row has.
    """
    if name not in paper_tables():
        raise unknown("table of the paper", name, paper_tables())
    table = paper_tables()[name].drop(columns=["source", "locator"])
    for column, values in where.items():
        if column not in table:
            raise unknown(f"column of {name}", column, table)
        values = values if isinstance(values, list) else [values]
        if wrong := [value for value in values if value not in set(table[column])]:
            raise unknown(f"{column} of {name}", wrong[0], map(str, table[column].unique()))
        table = table[table[column].isin(values)]
    return table[[concept == REFUSAL] * len(table)].reset_index(drop=True)


def drop_points(ablations: pd.DataFrame) -> pd.DataFrame:
    """|ASR frozen − ASR not frozen|, in points (§6.3), as column drop_points beside each frozen row.

    Args:
        ablations: columns method, frozen ("none" among them), prompts, asr, and model, test_set and resample if there
            are any.
    """
    keys = [name for name in ("model", "method", "prompts", "test_set", "resample") if name in ablations]
    whole = ablations[ablations.frozen == "none"][[*keys, "asr"]]
    frozen = ablations[ablations.frozen != "none"].merge(whole, on=keys, suffixes=("", "_whole"))
    return frozen.assign(drop_points=100 * (frozen.asr - frozen.asr_whole).abs())


def average_drop(ablations: pd.DataFrame) -> pd.DataFrame:
    """Per method and frozen part the mean of `drop_points` over all sets of prompts, and models, in the table, with the
    comparisons of `drop_contrasts`."""
    keys = ["method", "frozen", *(["resample"] if "resample" in ablations else [])]
    return drop_contrasts(drop_points(ablations).groupby(keys, as_index=False).drop_points.mean())


def drop_contrasts(drops: pd.DataFrame) -> pd.DataFrame:
    """Drops compared with each other (§6.3), under one method and in one resample: the columns of_ov, as a share of the
    drop by freezing the values, and step, the drop minus that of the part before it in `ORDER`; NaN for what has none.
    """
    keys = ["method", *(["resample"] if "resample" in drops else [])]
    wide = drops.pivot(index=keys, columns="frozen", values="drop_points").rename_axis(columns="frozen")
    wide = wide.reindex(columns=wide.columns.union(ORDER))
    found = {"of_ov": wide.div(wide["ov"], axis=0), "step": wide[list(ORDER)].diff(axis=1)}
    beside = pd.concat({name: table.stack() for name, table in found.items()}, axis=1).reset_index()
    return drops.drop(columns=list(found), errors="ignore").merge(beside, "left", on=[*keys, "frozen"])


def of_steering(drops: pd.DataFrame, ablations: pd.DataFrame) -> pd.DataFrame:
    """Drops as shares of what steering does: the columns of_steering, and of_steering_low and of_steering_high where the
    drop has an interval (on this scale: that of what steering does is not in it); NaN where steering does nothing.

    What steering does is |ASR steered − ASR not steered|, in points, averaged over the same sets of prompts.

    Args:
        drops: as of `average_drop`.
        ablations: as for `drop_points`; unsteered ASR has method "none".
    """
    keys = [name for name in ("prompts", "test_set") if name in ablations]
    whole = ablations[ablations.frozen == "none"]
    both = whole.merge(whole.loc[whole.method == "none", [*keys, "asr"]], on=keys, suffixes=("", "_unsteered"))
    effect = (100 * (both.asr - both.asr_unsteered).abs()).groupby(both.method).mean()
    columns = {name: name.replace("drop_points", "of_steering") for name in drops if name.startswith("drop_points")}
    effect = drops.method.map(effect.where(effect > 0))
    return drops.assign(**{new: drops[old] / effect for old, new in columns.items()})


def sparsity_kept(rates: pd.DataFrame, together: str | None = None) -> pd.DataFrame:
    """The largest sparsity up to which a sparsified vector keeps most of the steering's effect (§7), of the change of
    ASR from the unsteered model: `effect_kept` in `data/paper/text.toml`, at that sparsity and at all smaller ones in
    the table.

    Args:
        rates: columns sparsity (0, the dense vector, among them), asr, unsteered (the ASR without steering), and what
            tells curves apart: method, sparsifier and prompts, and model, rescaled, test_set and resample where there
            are any.
        together: what to call all sets of prompts at once; they get rows of their own, the least of the sets.

    Returns:
        What tells curves apart, and sparsity; 0 also where the dense vector has no effect.
    """
    keys = [name for name in ("model", "method", "sparsifier", "rescaled", "prompts", "test_set", "resample")
            if name in rates]
    groups = [rates[key] for key in keys]
    effect = rates.asr - rates.unsteered
    dense = effect.where(rates.sparsity == 0).groupby(groups).transform("first")
    share = (effect / dense).where(dense != 0, 0.0).groupby([*groups, rates.sparsity]).min()
    enough = paper_text()["effect_kept"] - 1e-9  # a share of just that counts, however its quotient was rounded
    reached = (share >= enough).groupby(keys).cummin().rename("reached").reset_index()
    kept = reached.assign(sparsity=reached.sparsity.where(reached.reached, 0.0))
    kept = kept.groupby(keys, as_index=False).sparsity.max()
    if not together:
        return kept
    curve = [key for key in keys if key not in ("prompts", "test_set")]
    least = kept.groupby(curve, as_index=False).sparsity.min().assign(prompts=together)
    return pd.concat([kept, least])[[key for key in kept if key != "test_set"]].reset_index(drop=True)


def _csv(name: str, locator: str) -> pd.DataFrame:
    table = pd.read_csv(paths.DATA / "paper" / f"{name}.csv", keep_default_na=False, na_values=[""])
    return table.assign(source=name, locator=locator)


def _by_test_set(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """ASR columns, one per test set, as rows."""
    sets = {f"{name}_asr": name for name in TEST_SETS if f"{name}_asr" in table}
    rows = table.rename(columns=sets).melt(
        ["source", "locator", "model", *keys], list(sets.values()), var_name="test_set", value_name="asr")
    return rows.assign(prompts=rows.test_set.map(TEST_SETS))


def _edge_types(name: str, about: tuple[str, str, str]) -> pd.DataFrame:
    locator, circuit, prefix = about
    keys = ["source", "locator", "model", "method"]
    rows = _csv(name, locator).melt(keys, var_name="type", value_name="percent")
    return rows.assign(edges=circuit, type=prefix + rows.type)


def _positions(table: pd.DataFrame) -> pd.DataFrame:
    """Table 9 (Gemma, DIM), also as shares of the positions with threshold 0: all of them."""
    label = table.threshold.map("KL, threshold {:.0f}".format).where(table.threshold.notna(), "logit difference")
    share = table.positions / table.positions[table.threshold == 0].item()
    return table.assign(metric=label, share=share, model=MODELS[0], method="dim")


def _sparsity(table: pd.DataFrame, unsteered: pd.DataFrame) -> pd.DataFrame:
    """Tables 10 and 11, with the ASR without steering from table 2."""
    table = table.rename(columns={"benchmark": "test_set"}).merge(
        unsteered[["model", "test_set", "asr", "prompts"]].rename(columns={"asr": "unsteered"}), "left")
    return table.assign(sparsity=table.sparsity_percent / 100).drop(columns="sparsity_percent")


def _minimum(rows: pd.DataFrame, total: pd.DataFrame) -> pd.DataFrame:
    """Sizes of the minimum-faithful circuits, in edges and as shares of |M|."""
    graph = rows.model.map(total.set_index("model").value)
    rows = rows.assign(method=rows.quantity.str.removeprefix("minimum_faithful_"), n_edges=rows.value,
                       graph_edges=graph, share=rows.value / graph, locator="§5.2")
    return rows.drop(columns=["quantity", "value"]).reset_index(drop=True)
