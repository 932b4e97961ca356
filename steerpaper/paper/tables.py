"""The paper's reported numbers (data/paper) as tidy tables, named and labelled like our own tables."""

import tomllib
from functools import cache

import pandas as pd

from steerpaper import paths
from steerpaper.circuits.graph import Graph

# Which of the paper's test sets stands beside which of ours. StrongREJECT is a second harmful set.
TEST_SETS = {"alpaca": "harmless", "jailbreakbench": "harmful", "strongreject": "harmful"}
# Of the edge-type tables: locator, our name of the circuit, prefix of our columns.
EDGE_TYPES = {
    "table5_outgoing_circuit": ("table 5", "circuit", "from_"),
    "table6_outgoing_top": ("table 6", "top", "from_"),
    "table7_incoming_circuit": ("table 7", "circuit", "into_"),
    "table8_incoming_top": ("table 8", "top", "into_"),
}


@cache
def paper_text() -> dict:
    """What `data/paper/claims.toml` holds: the paper's models, numbers printed in its text, and its claims.

    Read once; not to be changed, like the tables below.
    """
    return tomllib.loads((paths.DATA / "paper" / "claims.toml").read_text(encoding="utf-8"))


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
    ablations = _csv("table1_ablations", "table 1").rename(columns={"ablation": "frozen"})
    drop = _csv("table1_average_drop", "table 1").assign(model="both", method="dim")
    drop = drop.rename(columns={"ablation": "frozen", "reported_average_drop_points": "drop_points"})
    counts = _csv("graph_counts", "D.4")
    is_minimum = counts.quantity.str.startswith("minimum_faithful_")
    return {
        "table1_ablations": _by_test_set(ablations.assign(method="dim"), ["method", "frozen"]),
        "table1_average_drop": drop,
        "table2_asr": _by_test_set(_csv("table2_asr", "table 2"), ["method"]),
        "table3_patching_data": _csv("table3_patching_data", "table 3"),
        "table4_training": _csv("table4_training", "table 4").assign(model="both"),
        "table5_8_edge_types": pd.concat([_edge_types(*item) for item in EDGE_TYPES.items()], ignore_index=True),
        "table9_positions": _positions(_csv("table9_positions", "table 9")),
        "table10_11_sparsity": _sparsity(_csv("table10_11_sparsity", "tables 10 and 11")),
        "graph_counts": counts[~is_minimum].reset_index(drop=True),
        "fig3_minimum_faithful": _minimum(counts[is_minimum], counts),
        "svv_tokens": _csv("figure5_12_svv_tokens", "figures 5 and 12"),
    }


def drop_points(ablations: pd.DataFrame) -> pd.DataFrame:
    """|ASR frozen − ASR not frozen|, in points (§6.3), as column drop_points beside each frozen row.

    Args:
        ablations: columns model, method, frozen ("none" among them), test_set, asr.
    """
    keys = ["model", "method", "test_set"]
    whole = ablations[ablations.frozen == "none"][[*keys, "asr"]]
    frozen = ablations[ablations.frozen != "none"].merge(whole, on=keys, suffixes=("", "_whole"))
    return frozen.assign(drop_points=100 * (frozen.asr - frozen.asr_whole).abs())


def average_drop(ablations: pd.DataFrame) -> pd.DataFrame:
    """Mean of `drop_points` over test sets, per model, method and frozen part."""
    groups = drop_points(ablations).groupby(["model", "method", "frozen"], sort=False)
    return groups.drop_points.mean().reset_index()


def sparsity_kept(table: pd.DataFrame, least: float = 0.8) -> pd.DataFrame:
    """The largest sparsity up to which a sparsified vector keeps `least` of the steering's effect (§7).

    The effect is the change of ASR from the unsteered model. It must be kept on every set of prompts, at that
    sparsity and at all smaller ones in the table.

    Args:
        table: columns method, sparsifier, prompts, sparsity (0, the dense vector, among them), asr and unsteered, the
            ASR without steering.

    Returns:
        Columns method, sparsifier, kept; 0 also where the dense vector has no effect.
    """
    keys = ["method", "sparsifier", "prompts"]
    effect = table.asr - table.unsteered
    dense = table.assign(effect=effect)[table.sparsity == 0].set_index(keys).effect
    dense = dense[pd.MultiIndex.from_frame(table[keys])].to_numpy()
    share = (effect / dense).where(dense != 0, 0.0)
    enough = share.groupby([table[key] for key in ("method", "sparsifier", "sparsity")]).min() >= least
    reached = enough.groupby(["method", "sparsifier"]).cummin().reset_index("sparsity", name="reached")
    kept = reached.sparsity.where(reached.reached, 0.0)
    return kept.groupby(["method", "sparsifier"]).max().rename("kept").reset_index()


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
    return table.assign(metric=label, share=share, model="gemma-2-2b-it", method="dim")


def _sparsity(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={"benchmark": "test_set"}).assign(
        prompts=table.benchmark.map(TEST_SETS), sparsity=table.sparsity_percent / 100).drop(columns="sparsity_percent")


def _minimum(rows: pd.DataFrame, counts: pd.DataFrame) -> pd.DataFrame:
    """Sizes of the minimum-faithful circuits, in edges and as shares of |M|."""
    total = counts[counts.quantity == "edges"].set_index("model").value
    return rows.assign(
        method=rows.quantity.str.removeprefix("minimum_faithful_"), n_edges=rows.value, locator="§5.2",
        share=rows.value / rows.model.map(total)).drop(columns=["quantity", "value"]).reset_index(drop=True)
