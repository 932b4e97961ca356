"""Figures of two concepts beside each other: the edges that their circuits share, and both vectors at once."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from steerpaper.concepts import Concept
from steerpaper.figures.style import DOUBLE_COLUMN, PALETTE, error_bars


def draw_two_circuits(shared: pd.DataFrame) -> Figure:
    """Edges that pairs of circuits share, a column per kind of pair, beside chance.

    Args:
        shared: as of `shared_above`, with the column between, the kind of pair.
    """
    fig, ax = plt.subplots(figsize=(DOUBLE_COLUMN, 2.7))
    kinds = list(shared.between.unique())
    for i, kind in enumerate(kinds):
        own = shared[shared.between == kind].dropna(subset="overlap")
        x = i + 0.4 * ((np.arange(len(own)) + 0.5) / max(1, len(own)) - 0.5)
        random = "random" in kind
        ax.scatter(x, own.overlap, s=18, color=PALETTE["random"] if random else PALETTE["base"], zorder=3)
        ax.hlines(own.chance, x - 0.05, x + 0.05, color=PALETTE["+s"], lw=1.5, label="by chance" if i == 0 else None)
    ax.set(ylabel="share of edges in common\n(of the smaller circuit)", ylim=(0, 1.03), xlim=(-0.5, len(kinds) - 0.5))
    ax.set_xticks(range(len(kinds)), [kind.replace(" and ", "\nand ") for kind in kinds])
    ax.grid(axis="x", visible=False)
    fig.legend(loc="outside upper center")
    return fig


def draw_two_vectors(table: pd.DataFrame, concepts: Sequence[Concept]) -> Figure:
    """How often answers express either of two concepts, under neither vector, one of them, and both.

    Args:
        table: columns prompts, steering, concept, expressed, low, high, a row per bar.
        concepts: the two, in the order of their bars.
    """
    sets, runs = table.prompts.unique(), list(table.steering.unique())
    fig, axes = plt.subplots(1, len(sets), figsize=(DOUBLE_COLUMN, 2.6), sharey=True, squeeze=False)
    for ax, prompts in zip(axes[0], sets):
        for shift, concept in zip((-0.2, 0.2), concepts):
            own = table[(table.prompts == prompts) & (table.concept == concept.name)].set_index("steering").loc[runs]
            ax.bar(np.arange(len(runs)) + shift, own.expressed, 0.38, yerr=error_bars(own, "expressed"),
                   color=PALETTE[concept.positive], error_kw={"lw": 1}, label=concept.expresses)
        ax.set(title=f"{prompts} prompts", ylim=(0, 1.03))
        ax.set_xticks(range(len(runs)), [run.replace(" alone", "\nalone") for run in runs])
        ax.grid(axis="x", visible=False)
    axes[0, 0].set(ylabel="share of answers that\n(lines: Wilson 95 %)")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig
