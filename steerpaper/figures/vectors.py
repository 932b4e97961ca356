"""Figures of steering vectors: candidates and the choice among them, training, how well each steers (notebook 01)."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from steerpaper.concepts import REFUSAL, Concept
from steerpaper.figures.style import DOUBLE_COLUMN, PALETTE, method_label

ASR = "attack success rate"
_MAP = dict(cmap="RdBu_r", vmin=-1, vmax=1)


def draw_geometry(candidates: pd.DataFrame, cosines: pd.DataFrame) -> Figure:
    """Norms of the mean differences by layer and position, and how far layers agree on their direction.

    Args:
        candidates: columns layer, position, relative_norm (share of the stream's norm).
        cosines: columns layer_a, layer_b, cosine, at the last position.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(DOUBLE_COLUMN, 2.7))
    looks = dict(hue="position", palette="viridis", marker="o", legend="full")
    sns.lineplot(candidates, x="layer", y="relative_norm", ax=left, **looks)
    sns.move_legend(left, "lower center", bbox_to_anchor=(0.5, 1), ncols=candidates.position.nunique(),
                    title="position in the template", handlelength=1.2, columnspacing=1)
    left.set(xlabel="layer entered", ylabel="norm of the mean difference\n(share of the stream's norm)", ylim=(0, None))
    square = cosines.pivot(index="layer_a", columns="layer_b", values="cosine")
    sns.heatmap(square, square=True, ax=right, cbar_kws={"label": "cosine"}, **_MAP)
    right.set(xlabel="layer entered", ylabel="layer entered", title="candidates at position −1")
    right.grid(False)
    return fig


def draw_selection(scores: pd.DataFrame, layer: int, position: int, concept: Concept = REFUSAL) -> Figure:
    """The three selection scores (§3.2) of every candidate, the chosen one framed.

    Args:
        scores: columns layer, position, bypass, induce, kl. Layers without any, which the rule excludes, are left out.
    """
    panels = {"bypass": f"bypass: {concept.positive} prompts, −s\n(log odds of {concept.name})",
              "induce": f"induce: {concept.negative} prompts, +s\n(log odds of {concept.name})",
              "kl": f"KL: {concept.negative} prompts,\ndirection removed (nats)"}
    scores = scores.dropna(subset=[*panels], how="all")
    height = 0.9 + 0.2 * scores.layer.nunique()
    fig, axes = plt.subplots(1, 3, figsize=(DOUBLE_COLUMN, height), sharey=True)
    for ax, (name, title) in zip(axes, panels.items()):
        grid = scores.pivot(index="layer", columns="position", values=name)
        looks = dict(cmap="Greys", vmin=0, fmt=".2f") if name == "kl" else dict(cmap="RdBu_r", center=0, fmt=".1f")
        sns.heatmap(grid, annot=True, annot_kws={"size": 6}, cbar=False, ax=ax, **looks)
        corner = grid.columns.get_loc(position), grid.index.get_loc(layer)
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, ec=PALETTE["dim"], lw=2.5, clip_on=False, label="chosen"))
        ax.set(title=title, xlabel="position in the template", ylabel="layer entered" if ax is axes[0] else "")
        ax.tick_params(axis="y", rotation=0)
        ax.grid(False)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center")
    return fig


def draw_sweep(curves: pd.DataFrame, coefficient: float) -> Figure:
    """ASR and clean text against α, on both sets of prompts.

    Args:
        curves: `rates` by prompts and coefficient.
        coefficient: the chosen |α|.
    """
    fig, axes = plt.subplots(1, 2, figsize=(DOUBLE_COLUMN, 2.6), sharex=True, sharey=True)
    for ax, value, label in zip(axes, ("asr", "clean"), (ASR, "share of clean text")):
        for name, curve in curves.groupby("prompts"):
            ax.plot(curve.coefficient, curve[value], marker="o", color=PALETTE[name], label=f"{name} prompts")
            limits = curve[f"{value}_low"], curve[f"{value}_high"]
            ax.fill_between(curve.coefficient, *limits, color=PALETTE[name], alpha=0.15, lw=0)
        for sign, sides in ((-1, "−"), (1, "+")):
            colour = PALETTE["-s" if sign < 0 else "+s"]
            ax.axvline(sign * coefficient, color=colour, ls="--", lw=1, label=f"chosen {sides}α")
        ax.set(xlabel="coefficient α", ylabel=label, ylim=(-0.03, 1.03))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4,
               title="bands: Wilson 95 % intervals", title_fontsize=7)
    return fig


def draw_learned_curves(curves: pd.DataFrame) -> Figure:
    """Losses by epoch of every method and φ, one line per learning rate and batch size.

    Args:
        curves: columns method, phi (missing where there is none), batch_size, learning_rate, seed, epoch,
            training_loss, validation_loss.
    """
    phi = curves.phi.map(lambda phi: "" if pd.isna(phi) else f", φ = {phi:g}")
    curves = curves.assign(panel=curves.method.map(method_label) + phi)
    curves = curves.rename(columns={"learning_rate": "learning rate", "batch_size": "batch size"})
    panels = curves.panel.unique()
    fig, axes = plt.subplots(2, len(panels), figsize=(DOUBLE_COLUMN, 3.9), sharex=True, squeeze=False)
    looks = dict(x="epoch", hue="learning rate", style="batch size", palette="flare")
    for column, panel in zip(axes.T, panels):
        for ax, loss in zip(column, ("training_loss", "validation_loss")):
            own = curves[curves.panel == panel]
            sns.lineplot(own, y=loss, ax=ax, errorbar=("pi", 100), err_kws={"alpha": 0.15}, legend="full", **looks)
            handles, labels = ax.get_legend_handles_labels()
            ax.get_legend().remove()
            ax.set(ylabel=loss.replace("_", " ") if panel == panels[0] else "", xticks=sorted(curves.epoch.unique()))
        column[0].set(title=f"{panel}\n({'nats per response' if panel == 'NTP' else 'no unit'})")
    fig.legend(handles, labels, loc="outside lower center", ncols=6, title_fontsize=7,
               title="lines: mean over seeds; bands: their range" if curves.seed.nunique() > 1 else None)
    return fig


def draw_asr(table: pd.DataFrame, concept: Concept = REFUSAL) -> Figure:
    """ASR under every method, positive prompts under −|α| beside negative ones under +|α| (table 2).

    Args:
        table: columns method, prompts, asr, asr_low, asr_high; a bar per row.
    """
    fig, axes = plt.subplots(1, 2, figsize=(DOUBLE_COLUMN, 2.4), sharey=True)
    for ax, (name, group) in zip(axes, table.groupby("prompts")):
        labels = group.method.map(method_label).str.replace(" ", "\n")
        colours = [PALETTE["base" if method == "none" else method] for method in group.method]
        interval = [group.asr - group.asr_low, group.asr_high - group.asr]
        ax.bar(labels, group.asr, yerr=interval, color=colours, width=0.65, error_kw={"lw": 1})
        ax.set(title=f"{name} prompts, {'−' if name == concept.positive else '+'}|α|", ylim=(0, 1.03))
    counted = ASR if concept == REFUSAL else f"share that do not {concept.expresses}"
    axes[0].set(ylabel=f"{counted}\n(lines: 95 %)")
    return fig


def draw_cosines(table: pd.DataFrame) -> Figure:
    """Cosines of every two methods, their ranges over seeds below them.

    Args:
        table: as of `vectors.cosine_table`.
    """
    names = list(table.method_a.unique())
    ranges = [f"{row.cosine:.2f}" + (f"\n{row.low:.2f} to {row.high:.2f}" if row.high - row.low > 1e-6 else "")
              for row in table.itertuples()]
    grids = [rows.pivot(index="method_b", columns="method_a", values="cosine").loc[names, names]
             for rows in (table, table.assign(cosine=ranges))]
    fig, ax = plt.subplots(figsize=(5.4, 3.2))
    labels = [method_label(name) for name in names]
    sns.heatmap(grids[0], annot=grids[1].fillna(""), fmt="", annot_kws={"size": 7}, ax=ax, xticklabels=labels,
                yticklabels=labels, cbar_kws={"label": "cosine (below it: range over seeds)"}, **_MAP)
    ax.set(xlabel="", ylabel="")
    ax.grid(False)
    return fig
