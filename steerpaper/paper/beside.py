"""Every number that the paper reports, beside what was measured on one model."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from steerpaper.behaviour.judging import wilson_interval
from steerpaper.concepts import REFUSAL
from steerpaper.paper.compared import measured_table
from steerpaper.paper.tables import paper_tables
from steerpaper.presets import get_preset

_COLUMNS = ["source", "locator", "model", "quantity", "reported", "measured", "low", "high", "note"]
_NOT_IN_OURS = "no such row in our table"
_FIXED = "fixed in steerpaper/vectors/training.py: Adam without weight decay, learning rate falling linearly to 0"
_RATE = ("asr", "asr_low", "asr_high")
_TRIED = ("batch_size", "learning_rate", "seed", "phi")
# The test set of the paper beside each of our sets of prompts. The organisms have no StrongREJECT.
_TEST_SETS = {"harmless": "alpaca", "harmful": "jailbreakbench", "borderline": "strongreject",
              "strongreject": "strongreject"}


def reported_numbers(preset: str | None = None) -> pd.DataFrame:
    """All numbers (and words) of `data/paper/*.csv` in their order, with what was measured on one preset, if any that
    steers refusal.

    Returns:
        Columns source (CSV file), locator, model (of the paper, or "both"), quantity, reported, measured, low and
        high (95 % interval, where our table has one) and note: why there is no counterpart, or what it is. Values are
        text with six significant digits, for some of them are words.

    Raises:
        FileNotFoundError: a notebook has not run on the preset.
    """
    elsewhere = preset and get_preset(preset).concept != REFUSAL.name
    ours = _measured(preset) if preset and not elsewhere else {}
    rows = pd.concat(_parts(paper_tables(), ours), ignore_index=True)
    if elsewhere:
        rows["note"] = rows.note.replace("not run", "what is steered is not refusal")
    return rows[_COLUMNS]


def _measured(preset: str) -> dict[str, pd.DataFrame]:
    """Our tables under the labels of the paper's."""
    names = ("table1_ablations", "table1_average_drop", "table2_asr", "table3_patching_data", "table5_8_edge_types",
             "table9_positions", "table10_11_sparsity", "table10_11_second_set", "fig3_minimum_faithful", "svv_tokens",
             "learned_grid", "learned_curves")
    ours = {name: measured_table(preset, name) for name in names}
    for name in ("table1_ablations", "table2_asr", "table10_11_sparsity", "table10_11_second_set"):
        ours[name] = ours[name].assign(test_set=ours[name].prompts.map(_TEST_SETS))
    second, runs = ours["table10_11_second_set"].query("rescaled"), ours["learned_grid"]
    ours["table2_asr"] = pd.concat([ours["table2_asr"], _dense(second)], ignore_index=True)
    ours["table10_11_sparsity"] = pd.concat([ours["table10_11_sparsity"].query("rescaled"), second], ignore_index=True)
    ours["table3_patching_data"] = ours["table3_patching_data"].query("split == 'train'")
    tried = {name: sorted(runs[name].dropna().unique()) for name in _TRIED}
    tried["epochs"] = [ours["learned_curves"].epoch.max()]
    words = [(name, "; ".join(f"{value:g}" for value in values)) for name, values in tried.items()]  # as in table 4
    ours["table4_training"] = pd.DataFrame(words, columns=["hyperparameter", "values"])
    types = [name for name in ours["table5_8_edge_types"] if name.startswith(("from_", "into_"))]
    ours["table5_8_edge_types"] = ours["table5_8_edge_types"].melt(
        ["method", "edges"], types, var_name="type", value_name="percent")
    positions = ours["table9_positions"].set_index("metric").positions
    ours["table9_positions"] = ours["table9_positions"].assign(
        share=(positions / positions["KL, threshold 0"]).to_numpy())
    return ours


def _dense(second: pd.DataFrame) -> pd.DataFrame:
    """ASR of the dense vectors, and without steering, on the second harmful set of notebook 05."""
    dense = second.query("threshold == 0 and sparsifier == 'gradient'")
    rate, n = dense.unsteered.iloc[0], int(dense.n.iloc[0])
    none = pd.DataFrame([("none", rate, *wilson_interval(round(rate * n), n))], columns=["method", *_RATE])
    return pd.concat([none, dense[["method", *_RATE]]]).assign(test_set="strongreject")


def _second_note(second: pd.DataFrame) -> str:
    name, n = second.prompts.iloc[0], second[second.sparsifier == "gradient"].n.iloc[0]
    prompts = "the harmful halves of the borderline pairs" if name == "borderline" else name
    return (f"StrongREJECT: ours are {prompts}, {n} prompts, with answers a third as long as in the "
            "other rows (notebook 05)")


def _parts(tables: dict[str, pd.DataFrame], ours: dict[str, pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The paper's tables, one after the other, beside ours; `ours` is empty where nothing was measured."""

    def beside(name: str, value: str, labels: list[str], note: str | np.ndarray = "") -> pd.DataFrame:
        return _beside(tables[name], value, labels, ours.get(name), note)

    yield beside("table1_ablations", "asr", ["method", "frozen", "test_set"])
    yield beside("table1_average_drop", "drop_points", ["method", "frozen"],
                 "reported: mean over both models; measured: of this one")
    note = _second_note(ours["table10_11_second_set"]) if ours else ""
    yield beside("table2_asr", "asr", ["method", "test_set"],
                 np.where(tables["table2_asr"].test_set == "strongreject", note, ""))
    for value in ("responses", "positions"):
        yield beside("table3_patching_data", value, ["method", "prompts", "response_from"])
    grid = tables["table4_training"]
    varied = grid.hyperparameter.isin([*_TRIED, "epochs"])
    yield _beside(grid[varied], "values", ["hyperparameter"], ours.get("table4_training"))
    yield _rows(grid[~varied], "values", ["hyperparameter"], _FIXED)
    yield beside("table5_8_edge_types", "percent", ["method", "edges", "type"])
    for value in ("positions", "share"):
        yield beside("table9_positions", value, ["metric"])
    yield _rows(tables["graph_counts"], "value", ["quantity"],
                "a count of this model's graph, recomputed exactly in paper_arithmetic")
    for value in ("n_edges", "share"):
        yield beside("fig3_minimum_faithful", value, ["method"])
    yield from _sparsity(tables["table10_11_sparsity"], ours.get("table10_11_sparsity"))
    tokens, keys = tables["svv_tokens"], ["method", "vector", "rank_shown"]
    of_heads = ~tokens.vector.isin(["SUM", "SV"])
    yield _beside(tokens[~of_heads], "token", keys, ours.get("svv_tokens"))
    yield _rows(tokens[of_heads], "token", keys, "a head of the paper's model")


def _sparsity(paper: pd.DataFrame, ours: pd.DataFrame | None) -> Iterator[pd.DataFrame]:
    """Tables 10 and 11: each ASR beside ours at the nearest sparsity, rescaled as the authors' code does."""
    once, labels = ["method", "threshold"], ["method", "sparsifier", "threshold", "test_set"]
    yield _beside(paper.drop_duplicates(["model", *once]), "sparsity", once,
                  None if ours is None else ours.drop_duplicates(once),
                  missing="no dimension of our vector is left at this τ")
    if ours is None:
        yield _beside(paper, "asr", labels, None)
        return
    groups = ours.groupby(["method", "sparsifier", "test_set"])
    hit = ours.reindex([_nearest(groups, row) for row in paper.itertuples()]).reset_index(drop=True)
    at = [table.sparsity.map("{:.1%}".format) for table in (paper, hit)]
    note = ("reported at sparsity " + at[0] + ", measured at " + at[1]).where(hit.asr.notna(), _NOT_IN_OURS)
    measured = {name: hit[column].map(_text) for name, column in zip(("measured", "low", "high"), _RATE)}
    yield _rows(paper, "asr", labels).assign(**measured, note=note)


def _nearest(groups, row) -> int:
    """Index of our row whose sparsity is nearest to a reported one; -1 if that sparsifier was not run."""
    key = (row.method, row.sparsifier, row.test_set)
    return (groups.get_group(key).sparsity - row.sparsity).abs().idxmin() if key in groups.groups else -1


def _beside(
    paper: pd.DataFrame, value: str, labels: list[str], ours: pd.DataFrame | None, note: str | np.ndarray = "",
    missing: str = _NOT_IN_OURS,
) -> pd.DataFrame:
    """A column of the paper's table and the same one of ours, with the interval of a rate, where labels agree."""
    if ours is None:
        return _rows(paper, value, labels, "not run")
    columns = dict(zip(("measured", "low", "high"), _RATE if value == "asr" else (value,)))
    found = paper[labels].merge(ours[[*labels, *columns.values()]], "left", validate="many_to_one", indicator=True)
    text = {name: found[column].map(_text) for name, column in columns.items()}
    return _rows(paper, value, labels).assign(**text, note=np.where(found["_merge"] == "both", note, missing))


def _rows(paper: pd.DataFrame, value: str, labels: list[str], note: str = "") -> pd.DataFrame:
    """The reported side: where from, of which model, what and how much."""
    names = [label.replace("_shown", "") for label in labels]  # shown where the label is a number
    parts = [paper[label].map(lambda x, name=name: x if isinstance(x, str) else f"{name} {x:g}")
             for label, name in zip(labels, names)]
    quantity = parts[0].str.cat(parts[1:], sep=", ") + f": {value}"
    rows = paper[["source", "locator", "model"]].assign(quantity=quantity, reported=paper[value].map(_text), note=note)
    return rows.assign(measured="", low="", high="").reset_index(drop=True)


def _text(value) -> str:
    return "" if pd.isna(value) else value if isinstance(value, str) else f"{value:.6g}"
