"""Figures of how far findings reach: circuits at other layers, side effects, and prompts put in other ways (notebook
07)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steerpaper.concepts import REFUSAL, Concept
from steerpaper.figures.faithfulness import FAITHFUL
from steerpaper.figures.style import DOUBLE_COLUMN, PALETTE, error_bars, method_label
from steerpaper.figures.vectors import ASR
from steerpaper.vectors.methods import METHODS

_SIGNS = {-1: ("−s", PALETTE["-s"]), 0: ("not steered", PALETTE["base"]), 1: ("+s", PALETTE["+s"])}
_TEXT = {"kl": "KL of the next token\n(nats)", "loss": "loss along given text\n(nats per token)"}
_SHARES = {"right": "that are right", "expressed": "that {verb}", "loops": "that loop"}


def draw_layer_circuits(circuits: pd.DataFrame, shared: pd.DataFrame) -> Figure:
    """Minimum-faithful circuits against the steering layer: their size, what they carry of held-out answers, and what
    share of their edges two of them have in common.

    Args:
        circuits: as of `circuits_by_layer`, of which the rows of both classes together are drawn.
        shared: as of `shared_above`: of one method at two layers, or of two methods at one.
    """
    fig, (size, carried, common) = plt.subplots(
        1, 3, figsize=(DOUBLE_COLUMN, 2.9), width_ratios=(1, 1, 1.5))
    both, methods = circuits[circuits.prompts == "both"], circuits.method.unique()
    for i, method in enumerate(methods):
        own = both[both.method == method].dropna(subset="faithfulness")
        x = own.layer + 0.12 * (i - (len(methods) - 1) / 2)
        looks = dict(color=PALETTE[method], label=method_label(method))
        size.plot(x, 100 * own.share, "o-", ms=4, lw=1, **looks)
        carried.errorbar(x, own.faithfulness, error_bars(own, "faithfulness"), fmt="o-", ms=4, lw=1, elinewidth=1,
                         **looks)
    carried.axhline(FAITHFUL, color="black", ls=":", lw=1)
    size.set(ylabel="size of the circuit\n(% of its graph's edges)", ylim=(0, None))
    carried.set(ylabel="faithfulness, held-out prompts")
    for ax in (size, carried):
        ax.set(xlabel="steering layer", xticks=sorted(circuits.layer.unique()))
    _in_common(common, shared)
    fig.legend(*size.get_legend_handles_labels(), loc="outside upper center", ncols=len(methods), title_fontsize=7,
               title="bars: 95 % bootstrap over prompts; dotted: the paper's 0.85")
    return fig


def _in_common(ax: Axes, shared: pd.DataFrame) -> None:
    """Overlaps by what was compared, each with its chance as a short line; two methods at one layer in black."""
    across = shared.layer_a != shared.layer_b
    labels = np.where(across, shared.layer_a.astype(str) + ", " + shared.layer_b.astype(str),
                      "at " + shared.layer_a.astype(str))
    order = [*dict.fromkeys(labels[across]), *dict.fromkeys(labels[~across])]
    for x, label in enumerate(order):
        own = shared[labels == label]
        at = x + 0.22 * (np.arange(len(own)) - (len(own) - 1) / 2)
        colours = [PALETTE[row.method_a if row.method_a == row.method_b else "base"] for row in own.itertuples()]
        ax.scatter(at, own.overlap, c=colours, s=18, zorder=3)
        ax.hlines(own.chance, at - 0.09, at + 0.09, color=PALETTE["random"], lw=1.5)
    ax.set(ylabel="share of edges in common\n(grey: by chance)", xticks=range(len(order)), ylim=(0, 1.03),
           xlabel="one method at two layers (colour),\ntwo methods at one (black)")
    ax.set_xticklabels(order, size=6 if len(order) > 4 else 7)


def draw_collateral(effects: pd.DataFrame, concept: Concept = REFUSAL) -> Figure:
    """What every steering does beside its purpose, at either sign, a panel per measure.

    Args:
        effects: as of `text_effects` and `answer_effects`, one below the other: columns prompts, method, sign,
            measure, value, low, high. Loops and lengths are drawn of the concept's negative prompts alone, and of
            closed questions only whether they are answered right.
    """
    closed = effects.prompts[effects.measure == "right"].unique()
    asked = [name for name in effects.prompts[effects.measure == "expressed"].unique() if name not in closed]
    panels = [*((None, measure) for measure in _TEXT), *((name, "right") for name in closed),
              *((name, "expressed") for name in asked), (concept.negative, "loops"), (concept.negative, "tokens")]
    rows = -(-len(panels) // 3)
    fig, axes = plt.subplots(rows, 3, figsize=(DOUBLE_COLUMN, 1.75 * rows + 0.5), sharex=True, squeeze=False)
    methods = list(effects.method.unique())
    for ax, (prompts, measure) in zip(axes.flat, panels):
        own = effects[effects.measure == measure]
        own = own if prompts is None else own[own.prompts == prompts]
        for sign, (label, colour) in _SIGNS.items():
            rows_of = own[own.sign == sign]
            x = rows_of.method.map(methods.index).astype(float) + 0.16 * sign
            ax.errorbar(x, rows_of.value, error_bars(rows_of, "value"), fmt="o", ms=4, elinewidth=1, color=colour,
                        label=label)
        if measure in _SHARES:
            what = _SHARES[measure].format(verb=concept.expresses)
            ax.set(ylim=(-0.05, 1.05), ylabel=f"share of answers\n{what}",
                   title=f"{prompts} {'questions' if prompts in closed else 'prompts'}")
        else:
            top = own[["value", "high"]].max().max()
            ax.set(ylabel=_TEXT.get(measure, "tokens of an answer"), ylim=(-0.05 * top, 1.05 * top),
                   title="harmless text" if prompts is None else f"{prompts} prompts")
    for ax in axes.flat[len(panels):]:
        ax.set_axis_off()
    for ax in axes.flat[max(0, len(panels) - 3):len(panels)]:
        ax.tick_params(axis="x", labelbottom=True)
        ax.set_xticks(range(len(methods)), map(method_label, methods), rotation=35, ha="right", rotation_mode="anchor")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, title_fontsize=7,
               title="each at its chosen |α|; bars: 95 % (Wilson's, or by resampling texts and prompts)")
    return fig


def draw_shifts(table: pd.DataFrame, concept: Concept = REFUSAL) -> Figure:
    """ASR of prompts put in several ways, unsteered and under every steering, a column per set of prompts.

    Args:
        table: as of `turned` by shift: columns shift, prompts, method, asr, asr_low, asr_high.
    """
    shifts = list(table["shift"].unique())
    methods = [method for method in ("none", *METHODS) if method in table.method.unique()]
    fig, axes = plt.subplots(1, 2, figsize=(DOUBLE_COLUMN, 0.55 * len(shifts) + 1.4), sharex=True, sharey=True)
    for ax, (prompts, sign) in zip(axes, concept.signs.items()):
        for i, method in enumerate(methods):
            own = table[(table.prompts == prompts) & (table.method == method)]
            colour, marker = ((PALETTE["base"], "D") if method == "none" else (PALETTE[method], "o"))
            y = own["shift"].map(shifts.index).astype(float) + 0.15 * (i - (len(methods) - 1) / 2)
            error = error_bars(own, "asr", ("asr_low", "asr_high"))
            ax.errorbar(own.asr, y, xerr=error, fmt=marker, ms=4, elinewidth=1, color=colour,
                        label=method_label(method))
        for y, shift in enumerate(shifts):
            if shift not in set(table["shift"][table.prompts == prompts]):
                ax.text(0.5, y, f"no {prompts} prompts of this kind", ha="center", va="center", size=7, color="#666666")
        ax.hlines([i + 0.5 for i in range(len(shifts) - 1)], 0, 1, color="#cccccc", lw=0.5)
        ax.set(title=f"{prompts} prompts, {'+s' if sign > 0 else '−s'}", xlabel=ASR, xlim=(-0.04, 1.04))
    axes[0].set(yticks=range(len(shifts)), yticklabels=shifts, ylim=(len(shifts) - 0.5, -0.5))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(methods), title_fontsize=7,
               title="bars: Wilson 95 % intervals")
    return fig
