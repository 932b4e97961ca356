"""Tables as claims read them, of one preset or of the paper: beside some of them stands what a claim compares with."""

from collections.abc import Callable
from functools import cache

import pandas as pd

from steerpaper.artifacts import load_table
from steerpaper.circuits.graph import edge_types
from steerpaper.paper.tables import average_drop, drop_contrasts, of_steering, paper_graph, paper_tables, sparsity_kept


def measured_table(preset: str, name: str, prefix: str = "") -> pd.DataFrame:
    """A table of one preset as `compared` gives it, of those whose names begin with `prefix`.

    Raises:
        FileNotFoundError: a notebook has not run.
    """
    return compared(lambda own: load_table(preset, prefix + own), name)


def compared(load: Callable[[str], pd.DataFrame], name: str) -> pd.DataFrame:
    """One of the tables that `load` gives by name, with further columns:

    * `fig3_interchange`: through_random, what the random vector's circuit carries of the same steering;
    * `fig19_single_sets`: one_token, what the circuit of one token carries, of the same size and on the same prompts;
    * `svv_preference`: vector_preference and vector_chance_high, those of the steering vector itself;
    * `fig7_agreement`: control_iou and control_chance, of DIM and a random vector at the same threshold;
    * `support_control`: own_asr, with the sparse vector's own values, and unsteered_asr, of all test prompts;
    * `table5_8_edge_types`: all_from_... and all_into_..., of all edges of the graph;
    * `table1_average_drop`: as of `drop_contrasts` and `of_steering`.
    """
    table = load(name)
    match name:
        case "fig3_interchange":
            control = table[table.circuit == "random vector"]
            return _beside(table, control, ["vector", "prompts"], {"faithfulness": "through_random"})
        case "fig19_single_sets":
            control = table[table.ranked_on == "one token only"]
            return _beside(table, control, ["prompts", "share"], {"faithfulness": "one_token"})
        case "svv_preference":
            columns = {"preference": "vector_preference", "chance_high": "vector_chance_high"}
            return _beside(table, table[table.vector == "SV"], ["scale", "method"], columns)
        case "fig7_agreement":
            columns = {"iou": "control_iou", "chance": "control_chance"}
            return _beside(table, load("agreement_control"), ["threshold"], columns)
        case "support_control":
            asr = load("table2_asr")
            own = table[(table["support"] == "on the path") & (table["values"] == "vector")]
            table = _beside(table, own, ["method", "prompts"], {"asr": "own_asr"})
            return _beside(table, asr[asr.method == "none"], ["prompts"], {"asr": "unsteered_asr"})
        case "table5_8_edge_types":
            every = table[table.edges == "all edges"].head(1).drop(columns=["method", "edges"]).add_prefix("all_")
            return table.merge(every, "cross") if len(every) else table
        case "table1_average_drop":
            return of_steering(drop_contrasts(table), load("table1_ablations"))
    return table


@cache
def reported_table(model: str, name: str) -> pd.DataFrame | None:
    """The paper's own numbers of one of its models as `measured_table` has ours of that name; None where it prints
    none."""
    if name == "sparsity_kept":  # rescaled, by the authors' code
        rates = reported_table(model, "table10_11_sparsity").assign(rescaled=True)
        kept = sparsity_kept(rates, "all three")
        return kept.assign(sparsity_same_prompts=kept.sparsity)  # all were tried on all prompts
    if name == "table1_average_drop":  # printed for both models together
        ablations, asr = reported_table(model, "table1_ablations"), reported_table(model, "table2_asr")
        unsteered = asr[(asr.method == "none") & asr.test_set.isin(ablations.test_set)].assign(frozen="none")
        return of_steering(average_drop(ablations), pd.concat([ablations, unsteered], ignore_index=True))
    if (table := paper_tables().get(name)) is None:
        return None
    table = table[table.model.isin([model, "both"])]
    if name == "table5_8_edge_types":
        wide = table.pivot(index=["method", "edges"], columns="type", values="percent").reset_index()
        edges = paper_graph(model).edges
        return wide.assign(**{f"all_{kind}": 100 * n / len(edges) for kind, n in edge_types(edges).items()})
    return table


def _beside(table: pd.DataFrame, other: pd.DataFrame, keys: list[str], columns: dict[str, str]) -> pd.DataFrame:
    """A table with columns of other rows under new names, where keys agree."""
    return table.merge(other[[*keys, *columns]].rename(columns=columns), "left", on=keys, validate="many_to_one")
