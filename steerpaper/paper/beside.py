"""Every number that the paper reports, beside what was measured on one model."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pandas as pd

from steerpaper.behaviour.refusal import wilson_interval
from steerpaper.paper.claims import measured_table
from steerpaper.paper.tables import EDGE_TYPES, paper_tables

Load = Callable[[str], pd.DataFrame | None]
_COLUMNS = ["source", "locator", "model", "quantity", "reported", "measured", "low", "high", "verdict", "note"]
_NOT_IN_OURS = "no such row in our table"
_FIXED = "fixed in steerpaper/vectors/training.py: Adam without weight decay, learning rate falling linearly to 0"
_RATE = ("asr", "asr_low", "asr_high")
_TRIED = ("batch_size", "learning_rate", "seed", "phi")


def reported_numbers(preset: str | None = None) -> pd.DataFrame:
    """All numbers (and words) of `data/paper/*.csv` in their order, with what was measured on one preset, if any.

    Returns:
        Columns source (CSV file), locator, model (of the paper, or "both"), quantity, reported, measured, low and
        high (95 % interval, where our table has one), verdict ("agrees" if the reported number lies in our interval,
        "differs" if not, empty without one) and note: why there is no counterpart, or what it is. Values are text with
        six significant digits, for some of them are words.

    Raises:
        FileNotFoundError: a notebook has not run on the preset.
    """
    tables, load = paper_tables(), partial(measured_table, preset) if preset else lambda name: None
    parts = [*_asr(tables, load), *_circuits(tables, load), *_sparsity(tables, load), *_words(tables, load)]
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(verdict=_verdicts(rows))[_COLUMNS]


def verdict_counts(numbers: pd.DataFrame) -> pd.DataFrame:
    """How many numbers of `reported_numbers` agree and differ.

    Returns:
        One row per table and model of the paper with any verdict: locator, model, agrees, differs.
    """
    judged = numbers[numbers.verdict.isin(["agrees", "differs"])]
    counts = judged.groupby(["locator", "model"], sort=False).verdict.value_counts().unstack(fill_value=0)
    return counts.reindex(columns=["agrees", "differs"], fill_value=0).rename_axis(columns=None).reset_index()


def _verdicts(rows: pd.DataFrame) -> list[str]:
    """Whether a reported number lies in our interval, both as they are written."""
    reported, low, high = (pd.to_numeric(rows[name], errors="coerce") for name in ("reported", "low", "high"))
    words = np.where(reported.between(low, high), "agrees", "differs")
    return np.where(reported.isna() | low.isna() | high.isna(), "", words).tolist()


def _asr(tables: dict, load: Load) -> Iterator[pd.DataFrame]:
    yield _beside(tables["table1_ablations"], "asr", ["method", "frozen", "test_set"], load("table1_ablations"),
                  ["method", "frozen", "prompts"], interval=_RATE[1:])
    yield _beside(tables["table1_average_drop"], "drop_points", ["method", "frozen"], load("table1_average_drop"),
                  ["method", "frozen"], note="reported: mean over both models; measured: of this one")
    asr, second = tables["table2_asr"], tables["table2_asr"].test_set == "strongreject"
    yield _beside(asr[~second], "asr", ["method", "test_set"], load("table2_asr"), ["method", "prompts"],
                  interval=_RATE[1:])
    ours = load("table10_11_second_set")
    yield _beside(asr[second], "asr", ["method", "test_set"], None if ours is None else _second_set(ours), ["method"],
                  interval=_RATE[1:], note="" if ours is None else _second_note(ours))


def _second_set(sparsity: pd.DataFrame) -> pd.DataFrame:
    """ASR of the dense vectors, and without steering, on the second harmful set of notebook 05."""
    dense = sparsity.query("threshold == 0 and sparsifier == 'gradient' and rescaled")
    rate, n = dense.unsteered.iloc[0], dense.n.iloc[0]
    none = pd.DataFrame([("none", rate, *wilson_interval(round(rate * n), int(n)))], columns=["method", *_RATE])
    return pd.concat([none, dense[["method", *_RATE]]], ignore_index=True)


def _second_note(sparsity: pd.DataFrame) -> str:
    name = sparsity.prompts.iloc[0]
    prompts = "the harmful halves of the borderline pairs" if name == "borderline" else name
    return (f"StrongREJECT: ours are {prompts}, {sparsity.n.iloc[0]} prompts, with answers a third as long as in the "
            "other rows (notebook 05)")


def _circuits(tables: dict, load: Load) -> Iterator[pd.DataFrame]:
    ours = load("table3_patching_data")
    ours = None if ours is None else ours[ours.split == "train"]
    keys = ["method", "prompts", "response_from"]
    for value in ("responses", "positions"):
        yield _beside(tables["table3_patching_data"], value, keys, ours, keys)
    paper, grid = tables["table4_training"], _grid(load("learned_grid"), load("learned_curves"))
    ours = paper.hyperparameter.isin([*_TRIED, "epochs"])
    yield _beside(paper[ours], "values", ["hyperparameter"], grid, ["hyperparameter"])
    yield _without(paper[~ours], "values", ["hyperparameter"], _FIXED)
    ours = load("table5_8_edge_types")
    if ours is not None:
        types = [name for name in ours if name.startswith(tuple(about[2] for about in EDGE_TYPES.values()))]
        ours = ours.melt(["method", "edges"], types, var_name="type", value_name="percent")
    keys = ["method", "edges", "type"]
    yield _beside(tables["table5_8_edge_types"], "percent", keys, ours, keys)
    for value in ("positions", "share"):
        ours = load("table9_positions")
        if ours is not None:
            ours = ours.assign(share=ours.positions / ours.positions[ours.metric == "KL, threshold 0"].item())
        yield _beside(tables["table9_positions"], value, ["metric"], ours, ["metric"])
    yield _without(tables["graph_counts"], "value", ["quantity"],
                   "a count of this model's graph, recomputed exactly in paper_arithmetic")
    for value in ("n_edges", "share"):
        yield _beside(tables["fig3_minimum_faithful"], value, ["method"], load("fig3_minimum_faithful"), ["method"])


def _grid(runs: pd.DataFrame | None, curves: pd.DataFrame | None) -> pd.DataFrame | None:
    """The values that our training runs tried, and their epochs, written as in table 4."""
    if runs is None or curves is None:
        return None
    tried = {name: sorted(runs[name].dropna().unique()) for name in _TRIED} | {"epochs": [curves.epoch.max()]}
    return pd.DataFrame([(name, "; ".join(f"{value:g}" for value in values)) for name, values in tried.items()],
                        columns=["hyperparameter", "values"])


def _sparsity(tables: dict, load: Load) -> Iterator[pd.DataFrame]:
    """Tables 10 and 11: each ASR beside ours at the nearest sparsity, rescaled as the authors' code does."""
    paper = tables["table10_11_sparsity"]
    ours = [load(name) for name in ("table10_11_sparsity", "table10_11_second_set")]
    labels = ["method", "sparsifier", "threshold", "test_set"]
    once = paper.drop_duplicates(["model", "method", "threshold"])
    if any(table is None for table in ours):
        yield _beside(once, "sparsity", ["method", "threshold"], None, [])
        yield _beside(paper, "asr", labels, None, [])
        return
    ours = pd.concat(ours, ignore_index=True).query("rescaled").reset_index(drop=True)
    ours["prompts"] = ours.prompts.replace("borderline", "strongreject")  # the organisms' second harmful set
    yield _beside(once, "sparsity", ["method", "threshold"], ours.drop_duplicates(["method", "threshold"]),
                  ["method", "threshold"], missing="no dimension of our vector is left at this τ")
    groups = ours.groupby(["method", "sparsifier", "prompts"])
    hit = ours.reindex([_nearest(groups, row) for row in paper.itertuples()]).reset_index(drop=True)
    at = [table.sparsity.map("{:.1%}".format) for table in (paper, hit)]
    note = ("reported at sparsity " + at[0] + ", measured at " + at[1]).where(hit.asr.notna(), _NOT_IN_OURS)
    measured = {name: hit[column].map(_text) for name, column in zip(("measured", "low", "high"), _RATE)}
    yield _frame(paper, "asr", labels).assign(**measured, note=note)


def _nearest(groups, row) -> int:
    """Index of our row whose sparsity is nearest to a reported one; -1 if that sparsifier was not run."""
    key = (row.method, row.sparsifier, "strongreject" if row.test_set == "strongreject" else row.prompts)
    if key not in groups.groups:
        return -1
    return (groups.get_group(key).sparsity - row.sparsity).abs().idxmin()


def _words(tables: dict, load: Load) -> Iterator[pd.DataFrame]:
    paper, keys = tables["svv_tokens"], ["method", "vector", "rank_shown"]
    of_heads = ~paper.vector.isin(["SUM", "SV"])
    yield _beside(paper[~of_heads], "token", keys, load("svv_tokens"), keys)
    yield _without(paper[of_heads], "token", keys, "a head of the paper's model")


def _beside(
    paper: pd.DataFrame, value: str, labels: list[str], ours: pd.DataFrame | None, keys: list[str], *,
    interval: tuple[str, str] | tuple = (), note: str = "", missing: str = _NOT_IN_OURS,
) -> pd.DataFrame:
    """A column of the paper's table and the same one of ours, in rows where both agree in `keys`."""
    rows = _frame(paper, value, labels)
    if ours is None:
        return rows.assign(measured="", low="", high="", note="not run")
    columns = [value, *interval]
    found = paper[keys].merge(ours[[*keys, *columns]], how="left", on=keys, validate="many_to_one", indicator=True)
    text = {name: found[column].map(_text).to_numpy() for name, column in zip(("measured", "low", "high"), columns)}
    without = (found["_merge"] == "left_only").to_numpy()
    rows = rows.assign(**{"measured": "", "low": "", "high": ""} | text)
    return rows.assign(note=[missing if gone else note for gone in without])


def _without(paper: pd.DataFrame, value: str, labels: list[str], reason: str) -> pd.DataFrame:
    return _frame(paper, value, labels).assign(measured="", low="", high="", note=reason)


def _frame(paper: pd.DataFrame, value: str, labels: list[str]) -> pd.DataFrame:
    """The reported side: where from, of which model, what and how much."""
    parts = [paper[label].map(lambda x, label=label: _label(label, x)) for label in labels]
    quantity = parts[0].str.cat(parts[1:], sep=", ") + f": {value}"
    return paper[["source", "locator", "model"]].assign(
        quantity=quantity, reported=paper[value].map(_text)).reset_index(drop=True)


def _label(name: str, value) -> str:
    """A label that tells rows apart, with its name where it is a number."""
    if isinstance(value, str):
        return value
    return f"{name.replace('_shown', '')} {value:g}"


def _text(value) -> str:
    return "" if pd.isna(value) else value if isinstance(value, str) else f"{value:.6g}"
