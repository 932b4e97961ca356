"""Figures of freezes: how much of the steering each undoes, in which layers, and how attention moves (notebook 03)."""

from itertools import product

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from steerpaper.concepts import REFUSAL, Concept
from steerpaper.figures.style import DOUBLE_COLUMN, PALETTE, error_bars, method_label
from steerpaper.figures.vectors import ASR
from steerpaper.vectors.methods import METHODS

# What is frozen, in plain words, from the top.
PARTS = {
    "qk": "attention weights", "ov": "values", "svv": "vector's direct path\ninto the values",
    "mlp": "vector's direct path\ninto the MLPs",
}
_TOTAL = {"mlp-total": "all that MLPs write", "residual-only": "all but the residual path"}
_PAPER = {"gemma-2-2b-it": ("D", "paper: Gemma 2 2B (DIM)"), "llama-3.2-3b-instruct": ("s", "paper: Llama 3.2 3B (DIM)")}
_MOVED = "moved attention weight\n(total variation)"


def draw_undone(shares: pd.DataFrame, model: str, concept: Concept = REFUSAL) -> Figure:
    """Share of the steering that each freeze undoes (table 1), the paper's two models as hollow markers beside.

    Args:
        shares: as of `share_undone`, with rows of `model` and of the paper's models.
        model: whose rows are drawn with their intervals, a point per method.
    """
    own = shares[shares.model == model]
    series = [(own[own.method == method], dict(fmt="o", color=PALETTE[method]), method_label(method))
              for method in own.method.unique()]
    papers = [name for name in _PAPER if name != model and name in shares.model.unique()]
    for name in papers:
        marker, label = _PAPER[name]
        looks = dict(fmt=marker, color=PALETTE["base"], mfc="white", ms=5)
        series.append((shares[shares.model == name], looks, label))
    fig, axes = plt.subplots(1, 2, figsize=(DOUBLE_COLUMN, 3.2), sharex=True, sharey=True)
    for ax, (prompts, sign) in zip(axes, zip(concept.sets, ("−s", "+s"))):
        for at, label in ((0, "intact"), (1, "not steered")):
            ax.axvline(at, color=PALETTE["base"], ls="--", lw=0.8)
            ax.annotate(label, (at, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", size=7)
        for i, (rows, looks, label) in enumerate(series):
            rows = rows[rows.prompts == prompts].set_index("frozen").reindex(list(PARTS))
            y = [part + 0.15 * (i - (len(series) - 1) / 2) for part in range(len(PARTS))]
            ax.errorbar(rows.undone, y, xerr=error_bars(rows, "undone"), label=label, lw=0, elinewidth=1, **looks)
        ax.set_title(f"{prompts} prompts, {sign}", pad=14)
        ax.set(xlabel="share of the steering undone")
        ax.hlines([part + 0.5 for part in range(len(PARTS) - 1)], 0, 1, color="#cccccc", lw=0.5)
    axes[0].set(yticks=range(len(PARTS)), yticklabels=PARTS.values(), ylabel="frozen", ylim=(len(PARTS) - 0.5, -0.5))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, title_fontsize=7,
               title="lines: Wilson 95 % intervals of the frozen runs" + "; the paper prints none" * bool(papers))
    return fig


def draw_layers(by_layer: pd.DataFrame, whole: pd.DataFrame) -> Figure:
    """ASR with attention weights or values frozen in one layer, in all up to it, and in all from it on.

    Args:
        by_layer: columns frozen ("qk", "ov"), prompts, first and last layer, asr, asr_low, asr_high.
        whole: ASR of the same prompts with nothing frozen: columns prompts, asr.
    """
    start, end = by_layer["first"].min(), by_layer["last"].max()
    scopes = {
        "this layer alone": (by_layer["first"] == by_layer["last"], "first"),
        "all layers up to this": (by_layer["first"] == start, "last"),
        "all layers from this on": (by_layer["last"] == end, "first"),
    }
    fig, axes = plt.subplots(2, 3, figsize=(DOUBLE_COLUMN, 3.9), sharex=True, sharey=True)
    for (row, kind), (column, (scope, (chosen, at))) in product(enumerate(("qk", "ov")), enumerate(scopes.items())):
        ax = axes[row, column]
        for name, curve in by_layer[chosen & (by_layer.frozen == kind)].groupby("prompts"):
            ax.plot(curve[at], curve.asr, "o-", color=PALETTE[name], label=f"{name} prompts")
            ax.fill_between(curve[at], curve.asr_low, curve.asr_high, color=PALETTE[name], alpha=0.15, lw=0)
        for line in whole.itertuples():
            ax.axhline(line.asr, color=PALETTE[line.prompts], ls=":", lw=1, label=f"{line.prompts}, nothing frozen")
        ax.set(title=scope if row == 0 else "", xlabel="layer" if row else "", ylim=(-0.03, 1.03))
        ax.set(ylabel=f"{ASR},\n{PARTS[kind]} frozen" if column == 0 else "", xticks=range(start, end + 1))
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, title_fontsize=7,
               title="bands: Wilson 95 % intervals")
    return fig


def draw_undone_by_layer(undone: pd.DataFrame, sets: list[str]) -> Figure:
    """Share of the steering that each freeze undoes, against the steering layer, a column per method.

    Args:
        undone: as of `share_undone`, with the column layer.
        sets: the prompts' names, a row each.
    """
    methods, parts = [name for name in METHODS if name in undone.method.unique()], PARTS | _TOTAL
    methods = methods or [name for name, method in METHODS.items() if not method.baseline]  # of which nothing turned
    colours = dict(zip(parts, sns.color_palette("colorblind", len(parts))))
    beside = 0.02 * ((undone.layer.max() - undone.layer.min()) or 4)  # in layers, from one part to the next
    size = (DOUBLE_COLUMN, 1.9 * len(sets) + 0.8)
    fig, axes = plt.subplots(len(sets), len(methods), figsize=size, sharex=True, sharey=True, squeeze=False)
    for (row, prompts), (column, method) in product(enumerate(sets), enumerate(methods)):
        ax = axes[row, column]
        for end in (0, 1):
            ax.axhline(end, color=PALETTE["base"], ls="--", lw=0.8)
        for i, (kind, label) in enumerate(parts.items()):
            own = undone[(undone.frozen == kind) & (undone.method == method) & (undone.prompts == prompts)]
            error = error_bars(own, "undone")
            ax.errorbar(own.layer + beside * (i - (len(parts) - 1) / 2), own.undone, error, fmt="o-", ms=3, lw=0.8,
                        elinewidth=0.8, color=colours[kind], label=label.replace("\n", " "))
        if undone[(undone.method == method) & (undone.prompts == prompts)].empty:
            ax.text(0.5, 0.5, "ASR moves by less than half", transform=ax.transAxes, ha="center", va="center", size=7,
                    color="#666666")
        ax.set(title=f"{method_label(method)}, {prompts} prompts", xticks=sorted(undone.layer.unique()), ylim=(-0.3, 1.4),
               xlabel="steering layer" if row == len(sets) - 1 else "",
               ylabel="share of the\nsteering undone" if column == 0 else "")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, title_fontsize=7,
               title="bars: Wilson 95 % intervals of the frozen runs; 0 intact, 1 as unsteered")
    return fig


def draw_attention_change(changes: pd.DataFrame) -> Figure:
    """How far steering moves the heads' attention weights, by layer, and head by head beside random vectors.

    Args:
        changes: columns method ("random" and "dim" among them), layer, head, total_variation.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(DOUBLE_COLUMN, 2.9))
    looks = dict(palette=PALETTE, errorbar=("pi", 50), dodge=0.4, linewidth=1, markersize=4, err_kws={"linewidth": 1})
    sns.pointplot(changes, x="layer", y="total_variation", hue="method", ax=left, **looks)
    left.set(xlabel="layer", ylabel=_MOVED, ylim=(0, None))
    handles, methods = left.get_legend_handles_labels()
    left.legend(handles, map(method_label, methods), loc="lower left", ncols=2, title_fontsize=7,
                title="mean over heads; lines: middle half of them")
    heads = changes.pivot(index=["layer", "head"], columns="method", values="total_variation")
    ends = (0, 1.05 * heads[["dim", "random"]].max().max())
    right.plot(heads.random, heads.dim, ".", color=PALETTE["dim"])
    right.axline((0, 0), slope=1, color=PALETTE["random"], lw=1)
    right.set(title="every head from the steering layer on", xlabel=f"random vectors: {_MOVED}",
              ylabel=f"DIM: {_MOVED}", xlim=ends, ylim=ends, aspect="equal")
    return fig
