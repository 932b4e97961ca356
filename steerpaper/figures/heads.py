"""Figures of what heads write under steering: coefficients, what they explain, words, and cosines (figures 5, 12)."""

import unicodedata
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from steerpaper.concepts import REFUSAL, Concept
from steerpaper.figures.style import DOUBLE_COLUMN, PALETTE, method_label
from steerpaper.heads.lens import text_kinds, word_scales

_LEAST = -0.75  # below it, shares explained are drawn at the edge
_WIDTH = 13  # characters of a token in its column


def draw_svv_coefficient(table: pd.DataFrame) -> Figure:
    """Every head's coefficient of alpha svv, by one method: median, half and nine tenths of the positions."""
    fig, axes = plt.subplots(2, 1, figsize=(DOUBLE_COLUMN, 3.2), sharex=True, sharey=True)
    for ax, (prompts, group) in zip(axes, table.groupby("prompts")):
        x, colour = np.arange(len(group)), PALETTE[prompts]
        ax.vlines(x, group.q05, group.q95, color=colour, lw=0.7, label="nine tenths of the positions")
        ax.vlines(x, group.q25, group.q75, color=colour, lw=2, label="half of them")
        ax.plot(x, group.q50, "o", ms=2, color=colour, mfc="white", mew=0.6, label="median")
        ax.set(title=f"{prompts} prompts", ylabel="coefficient of α svv")
        ax.grid(axis="x", visible=False)
        ax.legend(loc="upper right", ncols=3)
    heads, layers = table["head"].nunique(), table.layer.unique()
    axes[1].set_xticks((np.arange(len(layers)) + 0.5) * heads - 0.5, [f"layer {layer}" for layer in layers])
    axes[1].set(ylim=(0, 1.2 * axes[1].get_ylim()[1]), xlabel="heads, layer by layer")
    return fig


def draw_svv_explained(heads: pd.DataFrame, layers: pd.DataFrame) -> Figure:
    """Share of the change of a head's write that the direct term explains: dots heads, lines whole layers."""
    fig, axes = _row(list(map(method_label, heads.method.unique())), 2.3)
    for ax, method in zip(axes, heads.method.unique()):
        for shift, prompts in zip((-0.12, 0.12), heads.prompts.unique()):
            dots, line = (table[(table.method == method) & (table.prompts == prompts)] for table in (heads, layers))
            ax.plot(dots.layer + shift, dots.explained.clip(_LEAST), ".", ms=3, alpha=0.6, color=PALETTE[prompts])
            ax.plot(line.layer, line.explained, color=PALETTE[prompts], label=prompts)
        ax.axhline(0, color="black", lw=0.8)
        ax.set(xlabel="layer", ylim=(_LEAST - 0.03, 1.02), xticks=heads.layer.unique())
    axes[0].set(ylabel="change of a head's write\nexplained by the direct term")
    axes[0].legend(loc="lower left")
    return fig


def draw_svv_tokens(tokens: pd.DataFrame, concept: Concept = REFUSAL) -> Figure:
    """The ten top tokens of every vector, coloured by what `token_labels` says that they are about."""
    expressing, other, positive, negative = text_kinds(concept).values()
    colours = {expressing: PALETTE["+s"], positive: PALETTE[concept.positive], other: PALETTE["-s"],
               negative: PALETTE[concept.negative], "neither": "#555555", "unseen": "#8a8a8a"}
    fig, axes = plt.subplots(3, 1, figsize=(DOUBLE_COLUMN, 5.4), subplot_kw=dict(frame_on=False, xticks=[], yticks=[]))
    for ax, (method, own) in zip(axes, tokens[tokens.rank_shown <= 10].groupby("method", sort=False)):
        ax.set(xlim=(-0.5, own.vector.nunique() - 0.5), ylim=(10.6, -0.9), title=method_label(method))
        for column, ((name, sign), words) in enumerate(own.groupby(["vector", "sign"], sort=False)):
            ax.text(column, 0, _signed(name, sign), weight="bold", size=6.5, ha="center", va="center")
            for row in words.itertuples():
                ax.text(column, row.rank_shown, _legible(row.token), color=colours[row.about], size=6, ha="center",
                        va="center", style="italic" if row.about == "unseen" else "normal")
    squares = [Line2D([], [], color=colour, marker="s", ls="", label=about) for about, colour in colours.items()]
    fig.legend(handles=squares, loc="outside upper center", ncols=len(squares), handletextpad=0.1)
    return fig


def _legible(token: str) -> str:
    """A token as the figures' font can draw it and its column hold it: of another script its name, such as `[cjk]`."""
    text = token.strip() or repr(token)
    if unknown := [character for character in text if ord(character) not in _characters()]:
        return f"[{unicodedata.name(unknown[0], 'unnamed').split()[0].lower()}]"
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH - 1]}…"


@cache
def _characters() -> frozenset[int]:
    """What the figures' font, that of `paper.mplstyle`, has a glyph for."""
    return frozenset(font_manager.get_font(font_manager.findfont(font_manager.FontProperties())).get_charmap())


def draw_svv_preference(preference: pd.DataFrame, signs: pd.Series, concept: Concept = REFUSAL) -> Figure:
    """How far every vector prefers one kind of words, beside 95 % of random vectors.

    `signs` tells by method and vector which were flipped (-1).
    """
    fig, grid = plt.subplots(2, 3, figsize=(DOUBLE_COLUMN, 3.8), sharey=True, sharex="col")
    words = text_kinds(concept)
    for axes, (scale, (one, other)) in zip(grid, word_scales(concept).items()):
        own = preference[preference.scale == scale]
        for ax, (method, group) in zip(axes, own.groupby("method", sort=False)):
            x = np.arange(len(group))
            luck = ax.vlines(x, group.chance_low, group.chance_high, color=PALETTE["random"], lw=4, alpha=0.5)
            ax.plot(x, group.preference, "o", color=PALETTE[method])
            ax.axhline(0.5, color="black", lw=0.6)
            ax.set_xticks(x, [_signed(name, signs[method, name]) for name in group.vector], rotation=90)
            if ax in grid[0]:
                ax.set(title=method_label(method))
        order = " before ".join(words[kind].removeprefix("to ") for kind in (one, other))  # of an infinitive the verb
        order = order if len(order) < 30 else order.replace(" before ", "\nbefore ")
        axes[0].set(ylabel=f"preference for\n{order}", ylim=(0, 1))
    fig.legend([luck], ["95 % of random vectors"], loc="outside upper center")
    return fig


def draw_svv_cosines(cosines: pd.DataFrame) -> Figure:
    """Cosines of two methods' svv, head by head, each with 95 % of random pairs, beside that of their vectors."""
    pairs = cosines.groupby(["method_a", "method_b"], sort=False)
    fig, axes = _row([f"{method_label(a)} and {method_label(b)}" for a, b in pairs.groups], 2.2)
    for ax, (_, group) in zip(axes, pairs):
        n = group["head"].nunique()
        x = group.layer + 0.7 * ((group["head"] + 0.5) / n - 0.5)  # a layer's heads beside each other
        ax.vlines(x, group.low, group.high, color=PALETTE["random"], alpha=0.5, lw=12 / n,
                  label="95 % of random pairs, for this head")
        ax.axhline(group.vector_cosine.iloc[0], color="black", ls="--", lw=1, label="vectors")
        ax.plot(x, group.cosine, ".", ms=4, color="black", label="svv of a head")
        ax.set(xlabel="layer", xticks=group.layer.unique())
    axes[0].set(ylabel="cosine")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def _row(titles, height: float) -> tuple[Figure, list[Axes]]:
    """Panels side by side, one per title, with one y axis."""
    fig, axes = plt.subplots(1, len(titles), figsize=(DOUBLE_COLUMN, height), sharey=True)
    for ax, title in zip(axes, titles):
        ax.set(title=title)
    return fig, axes


def _signed(name: str, sign: float) -> str:
    return f"−{name}" if sign < 0 else name
