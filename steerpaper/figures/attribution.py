"""Figures of scores: where along an answer steering acts, how scores are distributed, and how exact they are."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steerpaper.figures.style import DOUBLE_COLUMN, PALETTE, SINGLE_COLUMN

_LINEAR = 0.001  # logits: below it, the scale of the patched edges is linear


def draw_effect_by_position(table: pd.DataFrame) -> Figure:
    """The effect of steering on m along the answer, and its share up to each position (column token)."""
    fig, axes = plt.subplots(1, 2, figsize=(DOUBLE_COLUMN, 2.5))
    for (prompts, source), part in table.groupby(["prompts", "response_from"]):
        curve, looks = part.set_index("token").effect_per_response, _looks(prompts, source)
        axes[0].plot(curve, **looks)
        axes[1].plot(curve.cumsum() / curve.sum(), **looks)
    axes[0].set(xlabel="response position", ylabel="mean effect on m per response\n(logits)")
    axes[1].set(xlabel="response position", ylabel="share of the effect up to here", ylim=(0, 1.03))
    axes[0].legend(title="prompts, response")
    return fig


def _looks(prompts: str, source: str) -> dict:
    return dict(color=PALETTE[prompts], ls="-" if source == "steered" else "--", label=f"{prompts}, {source}")


def draw_score_distribution(edges: pd.DataFrame) -> Figure:
    """Scores of all edges by rank, and the share of their sum that the strongest hold."""
    fig, axes = plt.subplots(1, 2, figsize=(DOUBLE_COLUMN, 2.4))
    for name, sign in (("positive", 1), ("negative", -1)):
        sizes = (sign * edges.score[edges.score * sign > 0]).sort_values(ascending=False)
        axes[0].plot(np.arange(1, len(sizes) + 1), sizes, color=PALETTE[name], label=f"{name} ({len(sizes):,} edges)")
    sizes = edges.score.abs().sort_values(ascending=False)
    axes[0].set(xscale="log", yscale="log", xlabel="rank among the edges of that sign",
                ylabel="|score| (logits per position)", ylim=(sizes.quantile(0.01), None))
    axes[1].plot(100 * np.arange(1, len(sizes) + 1) / len(sizes), sizes.cumsum() / sizes.sum(), color="black")
    axes[1].axvline(10, color=PALETTE["random"], ls="--", lw=1, label="a tenth of the edges")
    axes[1].set(xlabel="strongest edges (% of all)", ylabel="their share of Σ |score|", ylim=(0, 1.03))
    for ax, where in zip(axes, ("lower left", "lower right")):
        ax.legend(loc=where)
    return fig


def draw_completeness(table: pd.DataFrame) -> Figure:
    """How far integrated gradients miss the effect (column relative_error), by the number of steps."""
    fig, ax = plt.subplots(figsize=(SINGLE_COLUMN, 2.4))
    for (prompts, source), curve in table.groupby(["prompts", "response_from"]):
        ax.plot(curve.steps, curve.relative_error, marker="o", **_looks(prompts, source))
    steps, last = table.steps.unique(), table.groupby("steps").relative_error.max().iloc[-1]
    ax.plot(steps, last * (steps.max() / steps) ** 2, color=PALETTE["random"], ls=":", label="1/T²")
    ax.set(xscale="log", yscale="log", ylabel="error of Σ scores\n(share of the effect)")
    _step_ticks(ax, steps)
    ax.legend()
    return fig


def draw_patching_check(patched: pd.DataFrame, checks: pd.DataFrame) -> Figure:
    """Attributed against exactly patched effects of edges, and their correlation by the number of steps.

    `patched` has columns exact_patching, "exact, T = 10" and "norm skipped, T = 10", `checks` gradient, steps and
    correlation.
    """
    fig, axes = plt.subplots(1, 3, figsize=(DOUBLE_COLUMN, 2.4))
    ticks = [-1, -0.01, 0, 0.01, 1]
    for ax, name in zip(axes, ("exact", "norm skipped")):
        ax.axline((0, 0), slope=1, color=PALETTE["random"], lw=1)
        ax.plot(patched.exact_patching, patched[f"{name}, T = 10"], ".", ms=4, color="black", alpha=0.4, mew=0)
        ax.set(title=f"{name}, T = 10", xlabel="exact patching (logits)", ylabel="attribution")
        for axis, scale in ((ax.xaxis, ax.set_xscale), (ax.yaxis, ax.set_yscale)):
            scale("symlog", linthresh=_LINEAR)
            axis.set_ticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    for (name, curve), style in zip(checks.groupby("gradient"), ("o-", "s--")):
        axes[2].plot(curve.steps, curve.correlation, style, color="black", label=name)
    axes[2].set(xscale="log", ylabel="correlation")
    _step_ticks(axes[2], checks.steps.unique())
    axes[2].legend(title="gradient")
    return fig


def _step_ticks(ax: Axes, steps: np.ndarray) -> None:
    ax.set(xlabel="steps T")
    ax.set_xticks(steps, steps)
    ax.minorticks_off()
