"""Figures of sparse vectors (§7): how far a threshold goes, what is left of the steering, which dimensions stay.

All take tables as notebook 05 saves them; those of several models have a column `model` besides.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import halfnorm

from steerpaper.concepts import REFUSAL, Concept
from steerpaper.figures.style import DOUBLE_COLUMN, PALETTE, method_label, with_labels

_SPARSIFIERS = {"gradient": "gradient", "indirect_effect": "indirect effect", "bottom_k": "smallest first",
                "dropout": "dropout (at random)"}
_RULES = {"normalised": "o-", "absolute": "^--", "text": "v:"}
_MEASURES = {"kl": "next token's KL (nats)", "clean": "share of clean text", "asr": "ASR"}


def draw_thresholds(table: pd.DataFrame) -> Figure:
    """Sparsity against the threshold, one panel per model, with the half-normal distribution of r for comparison.

    Args:
        table: columns model, method, rule, threshold and sparsity, as `sparsity_by_threshold`.
    """
    panels = table.groupby("model", sort=False)
    fig, axes = plt.subplots(1, len(panels), figsize=(DOUBLE_COLUMN, 2.6), sharex=True, sharey=True, squeeze=False)
    tau = np.linspace(0, table.threshold.max())
    for ax, (model, panel) in zip(axes[0], panels):
        for (method, rule), line in panel.groupby(["method", "rule"], sort=False):
            ax.plot(line.threshold, 100 * line.sparsity, _RULES[rule], color=PALETTE[method], ms=3, alpha=0.8)
        ax.plot(tau, 100 * halfnorm.cdf(tau), color="black", lw=0.7)
        ax.set(title=model, xlabel="threshold τ")
    axes[0, 0].set(ylabel="sparsity (% of dimensions)")
    looks = {rule: (style, PALETTE["base"]) for rule, style in _RULES.items()}
    looks |= {method: ("-", PALETTE[method]) for method in table.method.unique()} | {"half-normal": ("-", "black")}
    return _with_legend(fig, looks)


def draw_asr_by_sparsity(curves: pd.DataFrame, rows: str, kept: pd.DataFrame, concept: Concept = REFUSAL) -> Figure:
    """ASR against the share of dimensions kept, one column per sparsifier, with 95 % intervals where there are any.

    The gap between negative and positive prompts is what steering has done. Dotted: the unsteered model.

    Args:
        curves: columns sparsifier, prompts, sparsity, asr, unsteered, the column `rows`, and asr_low and asr_high.
        rows: "method" or "model", what the rows of panels stand for.
        kept: columns sparsifier, sparsity and `rows`: where a vertical line marks the end of the effect.
    """
    names, sets = list(curves[rows].unique()), curves.prompts.unique()
    size = (DOUBLE_COLUMN, 0.8 + 1.45 * len(names))
    fig, axes = plt.subplots(len(names), len(_SPARSIFIERS), figsize=size, sharex=True, sharey=True, squeeze=False)
    panels = {(name, key): axes[i, j] for i, name in enumerate(names) for j, key in enumerate(_SPARSIFIERS)}
    looks = {concept.negative: ("o-", PALETTE[concept.negative]), concept.positive: ("s-", PALETTE[concept.positive])}
    looks |= {name: ("^--", PALETTE[concept.positive]) for name in sets if name not in looks}  # a second positive set
    for (name, key, prompts), line in curves.sort_values("sparsity").groupby([rows, "sparsifier", "prompts"]):
        ax, (style, colour) = panels[name, key], looks[prompts]
        _curve(ax, line.assign(kept=100 * (1 - line.sparsity)), "kept", "asr", style, colour)
        ax.axhline(unsteered := line.unsteered.iloc[0], color=colour, ls=":", lw=0.8)
        ax.plot(1, unsteered, style[0], color=colour, mfc="white", ms=4, clip_on=False,
                transform=ax.get_yaxis_transform())  # at the right edge: whose level it is
    for row in kept.itertuples():
        panels[getattr(row, rows), row.sparsifier].axvline(100 * (1 - row.sparsity), color="black", lw=0.8)
    for ax, title in zip(axes[0], _SPARSIFIERS.values()):
        ax.set(title=title)
    for ax, name in zip(axes[:, 0], names):
        ax.set(ylabel=f"{with_labels(name)}\nASR")
    least = 100 * (1 - curves.sparsity[curves.sparsity < 1].max())
    ticks = [tick for tick in (100, 30, 10, 3, 1, 0.3) if tick > 0.9 * least]
    axes[0, 0].set(xscale="log", xlim=(120, 0.8 * least), ylim=(-0.05, 1.05))
    axes[0, 0].set_xticks(ticks, ticks)
    axes[0, 0].minorticks_off()
    fig.supxlabel("dimensions kept (%)", fontsize=8)
    signs = {name: "+" if name == concept.negative else "−" for name in looks if name in sets}
    shown = {f"{name} prompts, {sign}α": looks[name] for name, sign in signs.items()}
    lines = {"unsteered (hollow: whose)": (":", PALETTE["base"]), "effect kept up to here": ("-", "black")}
    return _with_legend(fig, shown | lines)


def draw_agreement(table: pd.DataFrame) -> Figure:
    """IoU of what survives in two vectors, and the p of so large an overlap, against the threshold.

    Args:
        table: rows of `fig7_agreement`, then of `agreement_control`, whose panels stand apart in grey.
    """
    pairs = table.groupby(["method_a", "method_b"], sort=False)
    fig, axes = plt.subplots(2, len(pairs), figsize=(DOUBLE_COLUMN, 3.6), sharex=True, sharey="row", squeeze=False)
    for (above, below), ((one, other), line) in zip(axes.T, pairs):
        control = "random" in other
        colour = "#666666" if control else "black"
        above.plot(line.threshold, line.iou, "o-", color=colour, ms=3)
        above.plot(line.threshold, line.chance, "--", color=PALETTE["random"])
        above.fill_between(line.threshold, line.chance_low, line.chance_high, color=PALETTE["random"], alpha=0.3, lw=0)
        below.plot(line.threshold, line.p, "o-", color=colour, ms=3)
        below.axhline(0.05, color="black", ls=":", lw=0.8)
        title = f"control: {one.split(',')[0]} and\na random vector" if control else f"{one} and {other}"
        above.set(title=with_labels(title), ylim=(0, 1.03))
        below.set(yscale="log", xlabel="threshold τ")
    axes[0, 0].set(ylabel="IoU of what survives")
    axes[1, 0].set(ylabel="p of such an overlap\n(dotted: 0.05)")
    return _with_legend(fig, {"measured": ("o-", "black"), "chance, with 95 % band": ("--", PALETTE["random"])})


def draw_top_dimensions(table: pd.DataFrame, n: int = 20) -> Figure:
    """The largest effects of single dimensions, as shares of each method's summed |effects|.

    Args:
        table: as `top_dimensions`, the largest first.
    """
    methods = [name.removeprefix("rank_") for name in table if name.startswith("rank_")]
    fig, ax = plt.subplots(figsize=(DOUBLE_COLUMN, 2.3))
    colours = [PALETTE[name] for name in methods]
    shares = 100 * table.head(n).set_index("dimension")[methods]
    shares.rename(columns=method_label).plot.bar(ax=ax, width=0.8, color=colours, rot=0)
    ax.axhline(0, color="black", lw=0.6)
    ax.grid(axis="x", visible=False)
    ax.set(xlabel=f"dimension of the residual stream, the {n} largest on average",
           ylabel="share of summed\n|effects| (%)")
    return fig


def draw_side_effects(table: pd.DataFrame) -> Figure:
    """What the dense and the sparse vector of each method do to negative prompts over alpha, with 95 % intervals.

    Args:
        table: as `side_effects`; measures are missing where they were not taken.
    """
    methods = table.method.unique()
    fig, axes = plt.subplots(len(_MEASURES), len(methods), figsize=(DOUBLE_COLUMN, 4.8), sharex=True, sharey="row",
                             squeeze=False)
    for column, method in zip(axes.T, methods):
        looks = {"dense": ("o-", PALETTE["base"]), "sparse": ("^--", PALETTE[method])}
        column[0].set(title=method_label(method))
        column[-1].set(xlabel="α / coefficient")
        for (ax, measure), (kind, look) in [(pair, item) for pair in zip(column, _MEASURES) for item in looks.items()]:
            line = table[(table.method == method) & (table.vector == kind)].dropna(subset=measure)
            _curve(ax, line.replace({"kl": {0: np.nan}}), "alpha", measure, *look)  # 0 has no place on its axis
    for ax, (measure, label) in zip(axes[:, 0], _MEASURES.items()):
        ax.set(ylabel=label, **({"yscale": "log"} if measure == "kl" else {"ylim": (-0.03, 1.05)}))
    return _with_legend(fig, {"dense": ("o-", PALETTE["base"]), "sparse (in the method's colour)": ("^--", "#666666")})


def _curve(ax: Axes, line: pd.DataFrame, x: str, y: str, style: str, colour: str) -> None:
    """A line through values, with their intervals, columns <y>_low and <y>_high, as a band."""
    ax.plot(line[x], line[y], style, color=colour, ms=3)
    if f"{y}_low" in line:
        ax.fill_between(line[x], line[f"{y}_low"], line[f"{y}_high"], color=colour, alpha=0.18, lw=0)


def _with_legend(fig: Figure, looks: dict[str, tuple[str, str]]) -> Figure:
    """The figure with format and colour of everything in it explained above."""
    keys = [fig.axes[0].plot([], [], style, color=colour, ms=3, label=with_labels(label))[0]
            for label, (style, colour) in looks.items()]
    ncols = len(keys) if len(keys) < 5 else -(-len(keys) // 2)
    fig.legend(handles=keys, loc="outside upper center", ncols=ncols, handlelength=1.8, columnspacing=1.2)
    return fig
