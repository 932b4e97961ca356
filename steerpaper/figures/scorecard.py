"""Figures of the scorecard: verdicts on the paper's claims, and its attack success rates beside ours."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from steerpaper.figures.style import DOUBLE_COLUMN, PALETTE


def draw_scorecard(card: pd.DataFrame, measured_on: str, colours: Mapping[str, str]) -> Figure:
    """Verdicts as a grid of coloured cells, claims by the model that was measured and the paper's.

    Args:
        card: as `scorecard_claims`.
        measured_on: name of the model that was measured.
        colours: of every verdict.
    """
    of_paper = [name for name in card if name.endswith(" verdict")]
    titles = [f"{measured_on},\nmeasured"] + [f"{name.removesuffix(' verdict')},\nas reported" for name in of_paper]
    words = card[["verdict", *of_paper]].set_axis(titles, axis=1)
    words.index = [f"{number}. {title}" for number, title in enumerate(card.title, start=1)]
    codes = words.map(list(colours).index)
    words.iloc[:, 0] = [f"{row.verdict} ({row.met}/{row.cases})" for row in card.itertuples()]
    fig, ax = plt.subplots(figsize=(DOUBLE_COLUMN, 0.5 + 0.2 * len(card)))
    sns.heatmap(codes, annot=words, fmt="", cmap=list(colours.values()), vmin=0, vmax=len(colours) - 1, cbar=False,
                linewidths=2, annot_kws={"size": 6.5}, ax=ax)
    ax.set(xlabel="", ylabel="")
    ax.tick_params(labelsize=6.5, top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    return fig


def draw_reported_measured(numbers: pd.DataFrame, measured_on: str) -> Figure:
    """The paper's attack success rates and ours: tables 1 and 2 one by one, tables 10 and 11 as distances.

    Left and middle: reported across, measured upwards with 95 % intervals. Right: measured minus reported, per
    sparsifier and kind of prompts; a point is the median of all methods, thresholds and models, its bars
    hold their middle half and 90 %.

    Args:
        numbers: as `scorecard_numbers`.
        measured_on: name of the model that was measured.
    """
    rates = numbers[numbers.quantity.str.endswith(": asr")].copy()
    columns = ["reported", "measured", "low", "high"]
    rates[columns] = rates[columns].apply(pd.to_numeric)
    rates["prompts"] = rates.quantity.str.contains("alpaca").map({True: "harmless", False: "harmful"})
    fig, axes = plt.subplots(1, 3, figsize=(DOUBLE_COLUMN, 2.7), width_ratios=(1, 1, 1.3))
    for ax, (source, title) in zip(axes, {"table1_ablations": "table 1", "table2_asr": "table 2"}.items()):
        for (model, prompts), group in rates[rates.source == source].groupby(["model", "prompts"]):
            errors = [group.measured - group.low, group.high - group.measured]
            ax.errorbar(group.reported, group.measured, errors, fmt="o" if model.startswith("gemma") else "^", ms=3,
                        color=PALETTE[prompts], lw=0.6, alpha=0.6, label=f"{model}, {prompts}")
        ax.axline((0, 0), slope=1, color=PALETTE["random"], lw=1)
        ax.set(title=title, xlabel="ASR reported", ylabel=f"ASR measured on\n{measured_on}", xlim=(-0.05, 1.05),
               ylim=(-0.05, 1.05))
    sparse = rates[rates.source == "table10_11_sparsity"]
    sparse = sparse.assign(distance=sparse.measured - sparse.reported,
                           sparsifier=sparse.quantity.str.split(", ").str[1].str.replace("_", " "))
    for middle, width in ((90, 0.8), (50, 3)):
        sns.pointplot(sparse, x="distance", y="sparsifier", hue="prompts", palette=PALETTE, estimator="median",
                      errorbar=("pi", middle), err_kws={"lw": width}, hue_order=["harmful", "harmless"], dodge=0.3,
                      linestyle="none", markersize=3, legend=False, ax=axes[2])
    axes[2].axvline(0, color=PALETTE["random"], lw=1)
    axes[2].set(title="tables 10 and 11", xlabel="ASR measured minus reported", ylabel="", xlim=(-1.05, 1.05))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig
