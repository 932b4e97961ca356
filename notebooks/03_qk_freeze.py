# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. Freezing attention
#
# > *The paper's claim, in our words (§6.3, table 1).* Steering hardly needs the attention weights: with all of them
# > held at their unsteered values, attack success changes by 8.75 points on average. Holding the values costs most of
# > the steering (71.75 points), and much of that goes by one direct path, the steering vector through the value
# > projections (53.75). The direct path into the MLPs matters as well (44.5).
#
# An attention head does two things: its queries and keys (**QK**) decide *where* to read, its values and output
# (**OV**) *what* is read. Steering changes the stream that all of them read. To find out which of them carries it, we
# steer and **freeze** one of them: at every step of the generation the unsteered model runs on the same tokens, and
# in every layer from the steering layer ℓ on the steered run takes over from it
#
# * **qk**: the attention weights (they depend on queries and keys alone, so we copy those),
# * **ov**: the value vectors.
#
# Two freezes take out only the *direct* effect, what `α s` itself adds to the input of a part of the layer:
#
# * **svv**: `α (s ⊙ γ) / RMS(h)` is subtracted from the input of the value projections,
# * **mlp**: the same from the input of the MLPs.
#
# If a part carries the steering, freezing it takes attack success back to the unsteered model's. `generate(model,
# prompts, steering, frozen="qk")` does it, and stops with an error where a freeze leaves the logits as they were.
#
# *Reads* the vectors of notebook 01 and the prompt sets. *Writes* tidy tables and figures.

# %% tags=["parameters"]
preset = "organism-llama"
seed = 0

# %%
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

import steerpaper as sp
from steerpaper import paths

sp.check_parameters(preset=preset, seed=seed)

# %%
sp.use_style()
settings = sp.get_preset(preset)
preset = settings.name
model = sp.load_model(preset)
methods, signs = ["dim", "ntp", "po"], {"harmful": -1, "harmless": 1}
loaded = {m: sp.load_tensors(preset, m, made_by="01_extract_vectors") for m in methods}
vectors = {m: tensors["vector"] for m, (tensors, _) in loaded.items()}
coefficients = {m: about["coefficient"] for m, (_, about) in loaded.items()}
layer = loaded["dim"][1]["layer"]
print(f"steering enters layer {layer} of {model.n_layers}, so layers {layer} to {model.n_layers - 1} are frozen; α = "
      + ", ".join(f"±{coefficients[m]:g} ({m})" for m in methods))

# %% [markdown]
# ## Table 1: four freezes, three vectors
#
# The paper freezes under DIM only; we add the learned vectors. Harmful test prompts are steered by −α (unsteered,
# the model refuses them), harmless ones by +α (unsteered, it answers). The claim holds if the bars of *qk* stay where
# those of *none* are, and those of *ov*, and less so of *svv* and *mlp*, go to the dashed line of the unsteered model.

# %%
prompts = {name: sp.load_prompts(name, "test", settings.n_test, settings.prompts) for name in signs}
steerings = {name: [sp.Steering(vectors[m], layer, sign * coefficients[m]) for m in methods]
             for name, sign in signs.items()}
how = dict(judge=sp.load_judge(settings), vocabulary=sp.vocabulary(settings.prompts),
           max_new_tokens=settings.max_new_tokens, batch_size=settings.batch_size)
frozen, labels, runs = ["none", "qk", "ov", "svv", "mlp"], [*methods, "none"], []
for kind, name in product(frozen, signs):
    own = [*steerings[name], None] if kind == "none" else steerings[name]  # the unsteered model once
    judged = sp.judged_responses(model, prompts[name], own, None if kind == "none" else kind, **how)
    runs.append(judged.assign(method=[labels[run] for run in judged.run], frozen=kind, prompts=name))
answers = pd.concat(runs, ignore_index=True)

# %%
table = sp.rates(answers, ["method", "frozen", "prompts"])
sp.save_table(preset, "table1_ablations", table)
rate = table.set_index(["prompts", "method", "frozen"]).sort_index()
base = rate.xs("none", level="method").asr.droplevel("frozen")
written = [f"{row.asr:.3f} ({row.asr_low:.2f} to {row.asr_high:.2f})" for row in table.itertuples()]
table.assign(asr=written).pivot(index=["prompts", "method"], columns="frozen", values="asr")[frozen].fillna("")

# %%
fig, axes = plt.subplots(1, 2, figsize=(6.8, 2.6), sharey=True)
for ax, name in zip(axes, signs):
    for i, method in enumerate(methods):
        bars, x = rate.loc[name, method].loc[frozen], np.arange(len(frozen)) + 0.27 * (i - 1)
        ax.bar(x, bars.asr, 0.25, color=sp.PALETTE[method], label=method)
        interval = [bars.asr - bars.asr_low, bars.asr_high - bars.asr]
        ax.errorbar(x, bars.asr, yerr=interval, fmt="none", color="black", lw=0.8)
    ax.axhline(base[name], color=sp.PALETTE["base"], ls="--", lw=1, label="not steered")
    ax.set_xticks(range(len(frozen)), frozen)
    ax.set(title=f"{name} prompts, {'−' if signs[name] < 0 else '+'}s", xlabel="frozen", ylim=(-0.02, 1.03))
axes[0].set(ylabel="attack success rate")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
sp.save_figure(fig, preset, "table1_ablations")

# %% [markdown]
# **Average drop**, as the paper states it: the absolute change of ASR that a freeze makes, in points (not in per cent
# of what was there), averaged over the test sets; here the harmful and the harmless one. Zero means that the part is
# not needed. *Possible* is the drop to the unsteered model, i.e. all of the steering.

# %%
drops = table.query("method != 'none'").merge(
    table.query("frozen == 'none'")[["method", "prompts", "asr"]], on=["method", "prompts"], suffixes=("", "_whole"))
drops["drop_points"] = 100 * (drops.asr - drops.asr_whole).abs()
average = drops[drops.frozen != "none"].groupby(["method", "frozen"], as_index=False).drop_points.mean()
sp.save_table(preset, "table1_average_drop", average)
points = average.pivot(index="method", columns="frozen", values="drop_points")[frozen[1:]]
whole = rate.xs("none", level="frozen").asr.unstack("method")
possible = (100 * whole[methods].sub(whole["none"], axis=0).abs()).mean()
points.assign(possible=possible).round(1)

# %%
by_drop = {m: list(points.loc[m].sort_values(ascending=False, kind="stable").index) for m in methods}
orders = "; ".join(" > ".join(kinds) for kinds in by_drop.values())
listed = {kind: ", ".join(f"{value:.1f}" for value in points[kind]) for kind in points}
clean = rate.clean.drop("none", level="method").groupby("frozen").min()
display(Markdown(
    f"**Reading** (intervals: Wilson 95 %; numbers in the order DIM, NTP, PO). Freezing the attention weights costs "
    f"{listed['qk']} points, freezing the values {listed['ov']} of a possible {possible.min():.1f} to "
    f"{possible.max():.1f}. The direct path into the values accounts for {listed['svv']}, the one into the MLPs for "
    f"{listed['mlp']}. By drop, the parts order as {orders} (paper: ov > svv > mlp > qk). Broken text counts as "
    "success: the smallest share of clean text, over vectors and prompts, is "
    + ", ".join(f"{clean[kind]:.2f} ({kind})" for kind in frozen) + "."
))

# %% [markdown]
# ## Queries or keys, both halves of attention, and where the MLP's direct path is cut
#
# Not in the paper, for DIM on fewer prompts. If attention weights did not matter at all, queries alone and keys alone
# would not either. *qk+ov* holds the attention weights **and** the values, so nothing but the stream's own `α s` and
# the MLPs is left of steering; if heads and MLPs share the work, it lies between *ov* and the unsteered model. The
# paper does not say whether it cuts the MLP's direct path before or after the MLP's norm. Ours follows the authors'
# code (after, at the steered RMS); *mlp-before-norm* subtracts `α s` before it.

# %%
few = {name: prompts[name].head(settings.n_freezing) for name in signs}
kept = answers.prompt.isin(pd.concat(few.values()).prompt) & (answers.method == "dim")
runs = [answers[kept]]
for kind, name in product(["q", "k", "qk+ov", "mlp-before-norm"], signs):
    judged = sp.judged_responses(model, few[name], steerings[name][:1], kind, **how)
    runs.append(judged.assign(method="dim", frozen=kind, prompts=name))
parts = sp.rates(pd.concat(runs), ["frozen", "prompts"])
sp.save_table(preset, "freeze_parts", parts)
kinds = ["none", "q", "k", "qk", "ov", "qk+ov", "svv", "mlp", "mlp-before-norm"]
by_part = parts.pivot(index="frozen", columns="prompts", values=["asr", "clean"]).loc[kinds]
by_part.round(2)

# %%
change = 100 * (by_part.asr - by_part.asr.loc["none"]).abs().mean(axis=1)
widest = 100 * (parts.asr_high - parts.asr_low).max()
display(Markdown(
    f"**Reading** ({len(few['harmful'])} prompts per class; the widest interval spans {widest:.0f} points). Change of "
    f"ASR in points, mean of both classes: queries alone {change['q']:.1f}, keys alone {change['k']:.1f}, both "
    f"{change['qk']:.1f}; values {change['ov']:.1f}, with the attention weights on top {change['qk+ov']:.1f}. Cutting "
    f"the MLP's direct path after the norm changes it by {change['mlp']:.1f}, before it by "
    f"{change['mlp-before-norm']:.1f}."
))

# %% [markdown]
# ## Which layers?
#
# Freezing attention in one layer, in all layers up to one, and in all layers from one on. If one layer did the work,
# its single freeze would stand out; if the work is spread, or if layers stand in for each other, only the curves of
# many layers move. Where *all from here on* is back at the steered level, later layers are not needed; where *all up to
# here* reaches its full effect, later layers cannot make up for what the earlier ones lack.

# %%
layers, rows = range(layer, model.n_layers), []
subsets = {tuple(own) for l in layers for own in ([l], range(layer, l + 1), range(l, model.n_layers))}
for kind, name, own in product(["qk", "ov"], signs, sorted(subsets)):
    judged = sp.judged_responses(model, few[name], steerings[name][:1], kind, own, **how)
    rows.append(judged.assign(frozen=kind, prompts=name, first=own[0], last=own[-1]))
by_layer = sp.rates(pd.concat(rows), ["frozen", "prompts", "first", "last"])
sp.save_table(preset, "freeze_by_layer", by_layer)
single, upto = by_layer[by_layer["first"] == by_layer["last"]], by_layer[by_layer["first"] == layer]
onward = by_layer[by_layer["last"] == layers[-1]]

# %%
scopes = {"one layer": ("first", "s:", single), "all up to here": ("last", "^--", upto),
          "all from here on": ("first", "o-", onward)}
fig, axes = plt.subplots(1, 2, figsize=(6.8, 3.0), sharey=True)
for ax, kind in zip(axes, ("qk", "ov")):
    for name, (scope, (at, style, curves)) in product(signs, scopes.items()):
        curve = curves[(curves.frozen == kind) & (curves.prompts == name)]
        ax.plot(curve[at], curve.asr, style, color=sp.PALETTE[name], mfc="white", ms=4, label=f"{name}, {scope}")
    for name in signs:
        ax.axhline(by_part.asr.loc["none", name], color=sp.PALETTE[name], lw=0.5)
    ax.set(title=f"{kind} frozen", xlabel="layer", ylim=(-0.03, 1.03), xticks=list(layers))
axes[0].set(ylabel="attack success rate")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, handlelength=3)
sp.save_figure(fig, preset, "freeze_by_layer")

# %%
moved = by_layer.assign(points=100 * (by_layer.asr - by_layer.prompts.map(by_part.asr.loc["none"])).abs())
moved = moved.groupby(["frozen", "first", "last"]).points.mean()
alone = {k: moved[k][[first == last for first, last in moved[k].index]].droplevel("last") for k in ("qk", "ov")}
from_on = {k: moved[k].xs(layers[-1], level="last") for k in ("qk", "ov")}
up_to = {k: moved[k].xs(layer, level="first") for k in ("qk", "ov")}
half = {k: from_on[k].index[from_on[k] >= from_on[k].max() / 2].max() for k in ("qk", "ov")}
reached = {k: up_to[k].index[up_to[k] >= up_to[k].max() / 2].min() for k in ("qk", "ov")}

# %%
widest = 100 * (by_layer.asr_high - by_layer.asr_low).max()
display(Markdown("**Reading** (thin lines: nothing frozen; changes of ASR in points, mean of both classes; as few "
    f"prompts as before, the widest 95 % interval of an ASR spans {widest:.0f} points). " + " ".join(
    f"**{k}**: no choice of layers changes ASR by more than {moved[k].max():.1f}." if moved[k].max() < 10 else
    f"**{k}**: all layers {from_on[k][layer]:.1f}; the single layer that matters most is {alone[k].idxmax()} with "
    f"{alone[k].max():.1f}, all single layers together make {alone[k].sum():.1f}. Freezing from layer {half[k]} on "
    f"still has half of the largest effect or more, from any later one less; freezing up to layer {reached[k]} has as "
    "much, up to any earlier one less." for k in ("qk", "ov"))
))

# %% [markdown]
# ## The same prompts, frozen and not
#
# The counterpart of figure 1: the first test prompts of each class under DIM, as they come. Under *qk* the texts
# should read like the steered ones, under *ov* like the unsteered ones.

# %%
texts = answers[answers.method.isin(["dim", "none"])]
unfrozen = texts.method.map({"dim": "steered", "none": "base"})
texts = texts.assign(run=texts.frozen.where(texts.frozen != "none", unfrozen))
columns = ["base", "steered", *frozen[1:]]
shown = pd.concat([few[name].head(2) for name in signs]).prompt
examples = texts.pivot(index="prompt", columns="run", values="text").loc[shown, columns].stack().rename("text")
sp.save_table(preset, "freeze_examples", examples.reset_index())
with pd.option_context("display.max_colwidth", None):
    display(examples.to_frame())

# %% [markdown]
# ## Token by token
#
# Equal verdicts may come from different texts. How far does each frozen answer go along with the steered one, token by
# token, before the first difference? The unsteered answer is the control: what it shares with the steered one
# (first words, say) needs no steering.

# %%
tokens = texts.pivot(index=["prompts", "prompt"], columns="run", values="completion")
rows = []
for kind in ["base", *frozen[1:]]:
    for (name, _), one, other in zip(tokens.index, tokens.steered, tokens[kind]):
        until = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
        rows.append((name, kind, until / len(one), one == other))
agreement = pd.DataFrame(rows, columns=["prompts", "frozen", "shared", "identical"])
agreement = agreement.groupby(["prompts", "frozen"], sort=False)[["shared", "identical"]].mean().reset_index()
sp.save_table(preset, "freeze_agreement", agreement)
agreement.pivot(index="frozen", columns="prompts", values=["shared", "identical"]).loc[["base", *frozen[1:]]].round(2)

# %%
mean = agreement.groupby("frozen")[["shared", "identical"]].mean()
same = "also stands for nearly the same text" if mean.shared["qk"] > 0.8 else "does not mean the same text"
display(Markdown(
    f"**Reading** (shares of the steered answer's tokens before the first difference, and of answers that are the same "
    f"to the end). With the attention weights frozen the answers follow the steered ones for {mean.shared['qk']:.0%} "
    f"of their tokens and {mean.identical['qk']:.0%} are identical; with the values frozen {mean.shared['ov']:.0%} and "
    f"{mean.identical['ov']:.0%}. Unsteered answers share {mean.shared['base']:.0%}. So an ASR that a freeze leaves "
    f"where it was {same} here."
))

# %% [markdown]
# ## Do the attention weights change at all?
#
# Freezing the attention weights could cost little for two reasons: steering may hardly move them, or it moves them and
# the move does not matter. We let base and steered run read the same (DIM-steered) answers and take, for every head
# and response position, the **total-variation distance** between the two runs' attention weights: the share of the
# weight that has moved, 0 to 1. Three random vectors of DIM's norm tell how much any push of that size would move.

# %%
some = texts[texts.run == "steered"].groupby("prompts").head(settings.n_freezing // 2)
responses = [sp.Response(model.tokenize(p), ids) for p, ids in zip(some.prompt, some.completion)]
pushes = [(m, vectors[m], coefficients[m]) for m in methods]
pushes += [("random", sp.random_vector(vectors["dim"], seed + i), coefficients["dim"]) for i in range(3)]
changes = []
for name, vector, coefficient in pushes:
    own = [sp.Steering(vector, layer, signs[kind] * coefficient) for kind in some.prompts]
    changes.append(sp.attention_change(model, responses, own).assign(method=name))
changes = pd.concat(changes).groupby(["method", "layer", "head"], as_index=False).total_variation.mean()
sp.save_table(preset, "attention_change", changes)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(6.8, 2.7))
for name, curve in changes.groupby("method"):
    left.plot(curve.groupby("layer").total_variation.mean(), "o-", color=sp.PALETTE[name], label=name)
left.set(xlabel="layer", ylabel="total variation\n(mean over heads)", xticks=list(layers))
left.set(ylim=(0, 1.1 * left.get_ylim()[1]))
left.legend(loc="lower left", ncols=2)
heads = changes.pivot(index=["layer", "head"], columns="method", values="total_variation")
right.plot(heads.random, heads.dim, ".", color=sp.PALETTE["dim"])
right.axline((0, 0), slope=1, color=sp.PALETTE["random"], lw=1)
ends = (0, 1.05 * heads[["dim", "random"]].max().max())
right.set(xlabel="each head under random vectors", ylabel="under dim", xlim=ends, ylim=ends, aspect="equal")
sp.save_figure(fig, preset, "attention_change")

# %%
tv, top = heads.mean(), heads.dim.idxmax()
ratio, share = tv.dim / tv.random, points.qk["dim"] / possible["dim"]
moves = ("DIM moves attention, and more than a push of that size does anyway" if ratio > 1.2 else
         "DIM moves attention no more than any push of that size does")
matters = "a good part of steering needs it" if share > 0.25 else "whether the model refuses depends little on it"
display(Markdown(
    f"**Reading.** DIM moves {tv.dim:.1%} of a head's attention weight on average, NTP {tv.ntp:.1%}, PO {tv.po:.1%}, "
    f"random vectors of DIM's norm {tv.random:.1%} (DIM: {ratio:.1f} times that). Head a{top[0]}.h{top[1]} changes "
    f"most under DIM: {heads.dim.max():.1%}. The qk freeze undoes all of these changes and costs "
    f"{points.qk['dim']:.1f} of a possible {possible['dim']:.1f} points of ASR: {moves}, and {matters}."
))

# %% [markdown]
# ## Beside the paper
#
# Table 1 of the paper is for DIM; its harmless prompts are Alpaca's, its harmful ones JailbreakBench's, judged by a
# language model. Its average drops are means over both models and both test sets; we print them beside those
# recomputed from its own table. An organism is another model with other prompts: what can be compared is the
# pattern, not the number.

# %%
reported = pd.read_csv(paths.DATA / "paper" / "table1_ablations.csv").rename(
    columns={"ablation": "frozen", "alpaca_asr": "harmless", "jailbreakbench_asr": "harmful"})
reported = reported.assign(method="dim").set_index(["model", "method", "frozen"])[["harmful", "harmless"]]
measured = table.query("method != 'none'").pivot(index=["method", "frozen"], columns="prompts", values="asr")
measured = pd.concat({preset: measured}, names=["model"])
both = pd.concat({"reported": reported, "measured here": measured}, names=["source"]).stack().unstack("frozen")
both[frozen].unstack().swaplevel(axis=1)[["harmful", "harmless"]].round(2)

# %%
whole = reported.xs("none", level="frozen")
recomputed = 100 * (reported - whole).abs().mean(axis=1).groupby("frozen").mean()
drop = pd.read_csv(paths.DATA / "paper" / "table1_average_drop.csv").set_index("ablation")
beside = drop.rename_axis("frozen").set_axis(["paper, reported"], axis=1)
beside["paper, from its table"] = recomputed
for m in methods:
    beside[f"{m}, measured here"] = points.loc[m]
beside.round(2)

# %%
printed, again = beside["paper, reported"], beside["paper, from its table"]
unlike = [f"{kind} {again[kind]:.2f} where {printed[kind]:.2f} is printed" for kind in beside.index
          if not np.isclose(again[kind], printed[kind])]
paper_order = list(printed.sort_values(ascending=False, kind="stable").index)
same_order = [m for m in methods if by_drop[m] == paper_order]
over = [m for m in methods if points.mlp[m] > points.ov[m]]

# %%
display(Markdown(
    "**Reading.** The paper's table gives its printed averages" + (f", but for {'; '.join(unlike)}" if unlike else "")
    + f". Under *qk* we lose {points.qk.min():.1f} to {points.qk.max():.1f} points (the paper {printed.qk:g}), under "
    f"*svv* {(points.svv / points.ov).min():.0%} to {(points.svv / points.ov).max():.0%} of what *ov* costs (by its "
    f"table {again.svv / again.ov:.0%}). The paper's order, {' > '.join(paper_order)}, is that of "
    f"{', '.join(same_order) or 'none'} of the three vectors here"
    + (f"; cutting the MLPs' direct path costs {' and '.join(over)} even more than freezing all values." if over else
       ".")
))
