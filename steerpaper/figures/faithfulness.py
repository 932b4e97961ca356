"""Figures of how much circuits carry, and of how much they share (figures 2 to 4, 19 and 20)."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from steerpaper.figures.style import DOUBLE_COLUMN, PALETTE, method_label, with_labels

FAITHFUL = 0.85  # what the paper calls faithful (§5.2)
_RANDOM = 0.1  # below which it sees random circuits
_FAR, _STEERS = 0.5, 0.1  # the limits of our own claims: less than half is far, and a tenth of an effect is no steering
BANDS = {"same size": ("as many random edges", PALETTE["random"]), "same kinds": ("as many of every kind", "#CC6677"),
          "twice the size": ("twice as many", "#332288")}
_TICKS = (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100)


def draw_faithfulness(
    curves: pd.DataFrame, by: str, looks: Mapping[str, tuple[str, str]], random: pd.DataFrame | None = None,
) -> Figure:
    """Faithfulness against the size of circuits, harmful and harmless prompts side by side.

    Points of one size stand a little beside each other, so that their intervals can be told apart.

    Args:
        curves: columns prompts, share (of all edges, in (0, 1]), faithfulness, low, high, and the column `by`.
        by: what tells the curves apart.
        looks: colour and matplotlib's format of every curve, in the order of the legend.
        random: random circuits at some of these sizes, drawn as bands with their median: columns control, prompts,
            share, median, low, high, as of `quantiles_of_draws`.
    """
    fig, axes = plt.subplots(1, 2, figsize=(DOUBLE_COLUMN, 2.9), sharex=True, sharey=True)
    aside = 1.015 ** (np.arange(len(looks)) - (len(looks) - 1) / 2)
    for ax, (prompts, group) in zip(axes, curves.groupby("prompts")):
        for factor, (name, (colour, style)) in zip(aside, looks.items()):
            curve = group[group[by] == name].sort_values("share")
            x = 100 * curve.share * factor
            ax.vlines(x, curve.low, curve.high, color=colour, lw=1)
            ax.plot(x, curve.faithfulness, style, color=colour, ms=3, label=with_labels(name))
        if random is not None:
            _bands(ax, random[random.prompts == prompts])
        ax.axhline(FAITHFUL, color="black", ls=":", lw=1, label=f"{FAITHFUL}, the paper's limit")
        ax.set(title=f"{prompts} test prompts", xscale="log", xlabel="size of the circuit (% of all edges)")
    axes[0].set(ylabel="faithfulness\n(bars: 95 % bootstrap over prompts)")
    low, high = 100 * curves.share.min(), 100 * curves.share.max()
    ticks = [tick for tick in _TICKS if 0.9 * low <= tick <= 1.1 * high]
    axes[0].set_xticks(ticks, ticks)
    axes[0].minorticks_off()
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=min(4, -(-len(labels) // 2)))
    return fig


def _bands(ax: Axes, random: pd.DataFrame) -> None:
    """Where 95 % of random circuits lie, and their median, per control."""
    for control, band in random.sort_values("share").groupby("control", sort=False):
        label, colour = BANDS[control]
        ax.fill_between(100 * band.share, band.low, band.high, color=colour, alpha=0.25, lw=0,
                        label=f"{label}: median, 95 % of draws")
        ax.plot(100 * band.share, band["median"], ":", color=colour, lw=1)


def draw_random_circuits(draws: pd.DataFrame) -> Figure:
    """Every random circuit beside the circuit that it is held against (§5.2), harmful and harmless prompts side by
    side; filled where it has the edge that leads from the steering node straight to the logits.

    Args:
        draws: as of `random_draws`, of one circuit.
    """
    fig, axes = plt.subplots(1, 2, figsize=(DOUBLE_COLUMN, 2.9), sharex=True, sharey=True)
    controls = list(draws.control.unique())
    for ax, (prompts, group) in zip(axes, draws.groupby("prompts")):
        for x, control in enumerate(controls):
            own, (_, colour) = group[group.control == control], BANDS[control]
            aside = x + 0.5 * ((own.draw + 0.5) / len(own) - 0.5)
            for straight, face in ((True, colour), (False, "none")):
                those = own.straight == straight
                ax.scatter(aside[those], own.faithfulness[those], s=12, lw=0.6, ec=colour, fc=face)
            ax.hlines(own.faithfulness.quantile([0.025, 0.5, 0.975]), x - 0.32, x + 0.32, color="black", lw=0.8)
        ax.axhline(group.own.iloc[0], color=PALETTE["dim"], lw=1.2, label="the circuit itself")
        ax.axhline(_RANDOM, color="black", ls=":", lw=1, label="the paper's limit for random circuits")
        ax.set(title=f"{prompts} test prompts", xticks=range(len(controls)))
        ax.set_xticklabels([BANDS[control][0].replace("as many ", "as many\n") for control in controls])
    axes[0].set(ylabel="faithfulness of random circuits\n(lines: median, 95 % of draws)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, title_fontsize=7,
               title="filled: with the edge from steering straight to the logits")
    return fig


def draw_interchange(table: pd.DataFrame) -> Figure:
    """Every vector's steering through every vector's circuit (figure 3), in the rows whose prompts are "both"."""
    both = table[table.prompts == "both"].pivot(index="vector", columns="circuit", values="faithfulness")
    both = both.loc[table.vector.unique(), table.circuit.unique()].rename(with_labels).rename(columns=with_labels)
    fig = _heatmap(both, "faithfulness", (4.6, 3.0))
    fig.axes[0].set(xlabel="circuit of", ylabel="steering by, on its answers")
    fig.axes[0].tick_params(axis="x", rotation=30)
    return fig


def draw_random_vector_circuits(table: pd.DataFrame) -> Figure:
    """What each random vector's circuit carries of a method's steering, as a share of what the method's own does;
    filled where the random vector by itself moves ASR by more than a tenth of what the method's moves it.

    Args:
        table: as of `random_vector_circuits`, with asr_change and method_change of `random_control`.
    """
    fig, axes = plt.subplots(1, 2, figsize=(DOUBLE_COLUMN, 2.6), sharex=True, sharey=True)
    methods = list(table.method.unique())
    for ax, (prompts, group) in zip(axes, table.groupby("prompts")):
        for x, method in enumerate(methods):
            own, colour = group[group.method == method].sort_values("seed"), PALETTE[method]
            aside = x + np.linspace(-0.3, 0.3, len(own))
            ax.vlines(aside, own.other_share_low, own.other_share_high, color=colour, lw=1)
            steers = (own.asr_change.abs() > _STEERS * own.method_change.abs()).to_numpy()
            for those, face in ((steers, colour), (~steers, "white")):
                ax.scatter(aside[those], own.other_share[those], s=18, lw=0.8, ec=colour, fc=face, zorder=3)
        ax.axhline(1, color="black", lw=0.8)
        ax.axhline(_FAR, color="black", ls=":", lw=1)
        ax.set(title=f"{prompts} test prompts", xticks=range(len(methods)), xlabel="steering by")
        ax.set_xticklabels(map(method_label, methods))
    axes[0].set(ylabel="carried by a random vector's circuit,\nshare of the method's (bars: 95 %)", ylim=(0, None))
    dots = [Line2D([], [], marker="o", ls="", ms=4, mec="black", mfc=face, label=label) for face, label in
            (("black", "the random vector moves ASR, too"), ("white", "it hardly does"))]
    half = Line2D([], [], color="black", ls=":", lw=1, label="half, our limit")
    fig.legend(handles=[*dots, half], loc="outside upper center", ncols=3)
    return fig


def draw_overlap(table: pd.DataFrame) -> Figure:
    """Edges that equally large circuits of two vectors share (figure 4), as `circuit_overlaps` gives them.

    The whole graph, which all share, is left out.
    """
    table = table[table.share < 1].assign(pair=table.method_a + " and " + table.method_b)
    wide = table.pivot(index="pair", columns="share", values="overlap").loc[table.pair.unique()]
    wide.loc["chance"] = table.groupby("share").chance.first()
    wide = wide.rename(with_labels).rename(columns=lambda share: f"{100 * share:g}")
    fig = _heatmap(wide, "share of the edges\nin common", (DOUBLE_COLUMN, 2.4))
    fig.axes[0].set(xlabel="size of both circuits (% of all edges)", ylabel="circuits of")
    return fig


def _heatmap(wide: pd.DataFrame, label: str, size: tuple[float, float]) -> Figure:
    """A table of shares, written into its cells."""
    fig, ax = plt.subplots(figsize=size)
    sns.heatmap(wide.round(2) + 0.0, annot=True, fmt=".2f", annot_kws={"size": 7}, cmap="Blues", vmin=0, vmax=1, ax=ax,
                cbar_kws={"label": label})
    ax.tick_params(axis="y", rotation=0)
    ax.grid(False)
    return fig
