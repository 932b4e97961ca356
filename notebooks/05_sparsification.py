# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5. Sparsification
#
# > *The paper's claim, in our words (§7, G).* A steering vector needs few of its dimensions. Chosen by their
# > gradient, up to about 90 % of them (Gemma) or 95 to 99 % (Llama) can be set to zero and the vector still steers;
# > at random only up to 40 %. And different methods' vectors keep the same dimensions far more often than chance
# > would have it.
#
# Notebook 02 scored edges. The same integration gives every *dimension* of the vector s an indirect effect
# `IE = s ⊙ g`, with g the mean integrated gradient, so `r = IE / s = g` says what a unit of a dimension is worth.
# Four sparsifiers drop the dimensions that rank lowest: **gradient** by r, **IE-based** by |IE|, **bottom-k** by |s|,
# and **dropout** at random, the control.
#
# *Reads* the vectors of notebook 01 and the gradients, scores and circuit sizes of notebook 02. *Writes* tidy tables
# and figures. All behaviour is measured on test prompts.

# %% tags=["parameters"]
preset = "organism-llama"
seed = 0

# %%
from functools import partial
from itertools import combinations, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from scipy.stats import halfnorm

import steerpaper as sp
from steerpaper import paths

sp.check_parameters(preset=preset, seed=seed)

# %%
sp.use_style()
settings = sp.get_preset(preset)
preset = settings.name
model = sp.load_model(preset)
methods = ["dim", "ntp", "po"]
loaded = {name: sp.load_tensors(preset, name, made_by="01_extract_vectors") for name in [*methods, "random"]}
scored = {name: sp.load_tensors(preset, f"{name}_attribution", made_by="02_patching_circuits") for name in methods}
vectors = {name: tensors["vector"] for name, (tensors, _) in loaded.items()}
strengths = {name: about["coefficient"] for name, (_, about) in loaded.items()}
gradients = {name: tensors["gradient"] for name, (tensors, _) in scored.items()}
layer = loaded["dim"][1]["layer"]

# %% [markdown]
# A gradient says something only about the vector, coefficient, layer and weights it was taken with. The manifests of
# both files must agree on them, or the notebook stops here.

# %%
for name in methods:
    sp.check_attribution(vectors[name], loaded[name][1], scored[name][1])
print(f"{', '.join(methods)}: {model.d_model} dimensions, steering layer {layer} of {model.n_layers}")

# %% [markdown]
# ## Which threshold?
#
# > *In our words (§7).* Zero the dimensions with r below τ, for τ from 0 to 2.5.
#
# This can be read in three ways. *text*: r with its sign, as printed. *absolute*: |r|. *normalised*: a dimension's
# share in the norm of IE over its share in the norm of s, which is |r| in units that let thresholds carry over
# between models; the authors' code does that. The paper's tables start at 0 % sparsity for τ = 0, so r can have had
# no sign there. If thresholds were normalised, all vectors and models should also lie near one line: the half-normal
# distribution (black) if the gradient's entries are about normal and independent of s, and above it where g is large
# in the dimensions in which s is.

# %%
thresholds = [0, 0.1, 0.3, 0.5, 1, 1.5, 2, 2.5]
rows = []
for method, rule, threshold in product(methods, ("normalised", "absolute", "text"), thresholds):
    mask = sp.sparsify(vectors[method], gradient=gradients[method], threshold=threshold, rule=rule)
    rows.append((method, rule, threshold, int(mask.sum()), 1 - mask.double().mean().item()))
by_rule = pd.DataFrame(rows, columns=["method", "rule", "threshold", "kept", "sparsity"])
sp.save_table(preset, "sparsity_by_threshold", by_rule)
paper = pd.read_csv(paths.DATA / "paper" / "table10_11_sparsity.csv")
paper["sparsity"] = paper.sparsity_percent / 100
reported = paper.drop_duplicates(["model", "method", "threshold"]).assign(rule="reported")

# %%
fig, axes = plt.subplots(1, 3, figsize=(6.8, 2.6), sharex=True, sharey=True)
panels = {f"{preset}, measured": by_rule}
panels |= {f"{name.removesuffix('-instruct')}, reported": table for name, table in reported.groupby("model")}
styles = {"normalised": "o-", "absolute": "^--", "text": "v:", "reported": "o-"}
grid = np.linspace(0, 2.5)
for ax, (title, table) in zip(axes, panels.items()):
    for (rule, method), line in table.groupby(["rule", "method"]):
        ax.plot(line.threshold, 100 * line.sparsity, styles[rule], color=sp.PALETTE[method], ms=3, alpha=0.8)
    ax.plot(grid, 100 * halfnorm.cdf(grid), color="black", lw=0.7)
    ax.set(title=title, xlabel="threshold τ")
axes[0].set(ylabel="sparsity (% of dimensions)")
keys = [(style, "#666666", rule) for rule, style in styles.items() if rule != "reported"]
keys += [("-", sp.PALETTE[method], method) for method in methods] + [("-", "black", "half-normal")]
handles = [axes[0].plot([], [], style, color=colour, label=label)[0] for style, colour, label in keys]
fig.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=1.8, columnspacing=1.2)
sp.save_figure(fig, preset, "sparsity_by_threshold")

# %%
at = by_rule.set_index(["rule", "threshold", "method"]).sparsity.unstack()
gap = [(table.sparsity - halfnorm.cdf(table.threshold)).abs().max()
       for table in (by_rule[by_rule.rule == "normalised"], reported)]
signed, small = at.loc[("text", 0)], at.loc[("absolute", 0.1)]
display((100 * at.loc["normalised"]).round(1), Markdown(
    f"**Reading** (table: % of dimensions that go, normalised rule). At τ = 0 the text's rule already drops "
    f"{signed.min():.0%} to {signed.max():.0%}, the others nothing, as in the paper's tables. |r| itself, in logits "
    f"per unit of the vector, lies below 0.1 in {small.min():.0%} to {small.max():.0%} of the dimensions: absolute "
    f"thresholds depend on a model's scale. Normalised, sparsities stay within {100 * gap[0]:.0f} points of the "
    f"half-normal here and within {100 * gap[1]:.0f} points in the paper's tables. From here on we use that rule."
))

# %% [markdown]
# ## Attack success rate against sparsity
#
# > *Figures 6 and 11, tables 10 and 11, in our words.* Gradient- and IE-based sparsification keep ASR up to the
# > highest sparsities, bottom-k up to about 80 %, dropout up to about 40 %.
#
# Three sets of test prompts: **harmless** ones under +α (steering should take ASR from 1 to 0), **harmful** ones
# under −α (from 0 to 1), and a second harmful set: StrongREJECT beside JailbreakBench as in the paper, for the
# organisms the harmful halves of the **borderline** pairs, whose twins are harmless requests in nearly the same words.
# k comes from the gradient's threshold for all four sparsifiers. We add points at 70, 80 and 90 %, where the thresholds
# leave a gap. Each of four random masks of dropout is tried on a quarter of the prompts. The authors' code rescales
# every sparse vector to the dense norm, the text says nothing of it: we show both.

# %%
second_names = {"built-in": "borderline", "public": "strongreject"}
load, second, n_draws = partial(sp.load_prompts, source=settings.prompts), second_names[settings.prompts], 4
n_prompts = dict(zip(("harmless", "harmful", "second_harmful"), settings.n_sparsity))
tables = [load(name, "test", n) for name, n in n_prompts.items()]
sets = dict(zip(("harmless", "harmful", second), zip(tables, (1.0, -1.0, -1.0))))
names = dict(zip(sp.SPARSIFIERS, ("gradient", "indirect_effect", "bottom_k", "dropout")))
points = list(product(methods, thresholds[1:]))
for method, share in product(methods, (0.7, 0.8, 0.9)):
    k = int((~sp.sparsify(vectors[method], "bottom_k", sparsity=share)).sum())
    s, g = vectors[method].double(), gradients[method].double()
    r = (g.abs() * s.norm() / (s * g).norm()).sort().values
    points.append((method, r[k - 1:k + 1].mean().item()))

# %%
runs = [(draw, name, "none", False, 0.0, 0.0) for name in ["none", *methods] for draw in range(n_draws)]
tried = [vectors.get(run[1], torch.zeros(model.d_model)) for run in runs]
for (method, threshold), sparsifier, draw in product(points, sp.SPARSIFIERS, range(n_draws)):
    mask = sp.sparsify(vectors[method], sparsifier, gradient=gradients[method], threshold=threshold,
                       rule="normalised", seed=seed + draw)
    for rescaled in (True, False) if mask.any() else ():  # nothing left is the unsteered model
        sparsity = 1 - mask.double().mean().item()
        runs.append((draw, method, names[sparsifier], rescaled, threshold, sparsity))
        tried.append(sp.apply_mask(vectors[method], mask, rescale=rescaled))
runs = pd.DataFrame(runs, columns=["draw", "method", "sparsifier", "rescaled", "threshold", "sparsity"])
print(f"{len(runs) // n_draws} vectors on " + ", ".join(f"{len(table)} {name}" for name, (table, _) in sets.items())
      + " prompts")

# %% [markdown]
# A refusal shows in an answer's first words. So that all of this is affordable we generate only a third of the usual
# length here; below, whole answers check that the verdicts are the same.

# %%
how = dict(judge=sp.load_judge(settings), vocabulary=sp.vocabulary(settings.prompts), batch_size=settings.batch_size)
n_tokens = settings.max_new_tokens // 3
results = []
for (prompts, (table, sign)), (draw, group) in product(sets.items(), runs.groupby("draw")):
    steerings = [sp.Steering(tried[i], layer, sign * strengths.get(runs.method[i], 1.0)) for i in group.index]
    judged = sp.judged_responses(model, table[draw::n_draws], steerings, max_new_tokens=n_tokens, **how)
    results.append(judged.assign(prompts=prompts).join(group.reset_index(drop=True), on="run"))
results = pd.concat(results, ignore_index=True)
asr = sp.rates(results, ["method", "sparsifier", "rescaled", "threshold", "sparsity", "prompts"])
asr = asr.drop(columns=["clean", "clean_low", "clean_high"])

# %%
dense = asr[(asr.sparsifier == "none") & (asr.method != "none")].drop(columns=["sparsifier", "rescaled"])
every = pd.DataFrame(product(names.values(), (True, False)), columns=["sparsifier", "rescaled"])
curves = pd.concat([dense.merge(every, how="cross"), asr[asr.sparsifier != "none"]])[asr.columns]
unsteered = asr[asr.method == "none"].set_index("prompts").asr
curves = curves.assign(unsteered=curves.prompts.map(unsteered)).sort_values(
    ["method", "sparsifier", "rescaled", "prompts", "threshold"], ignore_index=True)
sp.save_table(preset, "table10_11_sparsity", curves[curves.prompts != second])
sp.save_table(preset, "table10_11_second_set", curves[curves.prompts == second])

# %% [markdown]
# If the claim holds, the gradient's curve (black) stays at its left end's level, far from the dotted line of the
# unsteered model, while dropout leaves it first. Bands are Wilson 95 % intervals.

# %%
colours = ("black", *plt.cm.viridis([0.35, 0.75]), sp.PALETTE["random"])
looks = dict(zip(names.values(), zip(colours, ("o-", "s-", "^--", "v:"))))
drawn = {rescaled: plt.subplots(3, 3, figsize=(6.8, 5.6), sharex=True, sharey=True) for rescaled in (True, False)}
for (rescaled, prompts, method, name), line in curves.groupby(["rescaled", "prompts", "method", "sparsifier"]):
    ax = drawn[rescaled][1][list(sets).index(prompts), methods.index(method)]
    kept = 100 * (1 - line.sparsity)
    ax.plot(kept, line.asr, looks[name][1], color=looks[name][0], ms=3)
    ax.fill_between(kept, line.asr_low, line.asr_high, color=looks[name][0], alpha=0.12, lw=0)
    ax.axhline(line.unsteered.iloc[0], color="black", ls=":", lw=0.6)
percents = (100, 50, 20, 10, 5, 2, 1)
for fig, axes in drawn.values():
    axes[0, 0].set(xscale="log", xlim=(115, 75 / model.d_model), ylim=(-0.04, 1.04))
    axes[0, 0].set_xticks(percents, percents)
    axes[0, 0].minorticks_off()
    keys = [axes[0, 0].plot([], [], style, color=colour, label=name.replace("_", " "))[0]
            for name, (colour, style) in looks.items()]
    keys += axes[0, 0].plot([], [], ":", color="black", lw=0.6, label="unsteered")
    fig.legend(handles=keys, loc="outside upper center", ncols=5)
    fig.supxlabel("dimensions kept (%)", fontsize=8)
for rescaled, name in ((True, "fig6_asr_by_sparsity"), (False, "fig11_asr_not_rescaled")):
    fig, axes = drawn[rescaled]
    for ax, method in zip(axes[0], methods):
        ax.set(title=f"{method}, {'rescaled to the dense norm' if rescaled else 'not rescaled'}")
    for ax, (prompts, (_, sign)) in zip(axes[:, 0], sets.items()):
        ax.set(ylabel=f"ASR, {prompts}, {'+' if sign > 0 else '−'}α")
    display(sp.save_figure(fig, preset, name))

# %% [markdown]
# **How few dimensions keep 90 % of the effect?** The effect is the change of ASR from the unsteered model. It counts
# as kept up to a sparsity if it is kept there and at every smaller one tried, on all three sets. The same rule is put
# to the paper's tables (its unsteered ASR stands in its table 2), for the last section.

# %%
test_sets = {"alpaca": "harmless", "jailbreakbench": "harmful", "strongreject": second}
theirs = paper.assign(prompts=paper.benchmark.map(test_sets), rescaled=True)
base = pd.read_csv(paths.DATA / "paper" / "table2_asr.csv").query("method == 'none'").set_index("model")
theirs["unsteered"] = [base.loc[row.model, f"{row.benchmark}_asr"] for row in theirs.itertuples()]
keys = ["model", "rescaled", "sparsifier", "method", "prompts"]
tried_all = pd.concat([curves.assign(model=preset), theirs]).sort_values([*keys, "threshold"], ignore_index=True)
effect = tried_all.asr - tried_all.unsteered
groups = [tried_all[key] for key in keys]
enough = (effect / effect.groupby(groups).transform("first") >= 0.9).astype(int).groupby(groups).cummin() == 1
reach = tried_all.sparsity.where(enough).groupby(groups).max().unstack("prompts")
reach["all three"] = reach.min(axis=1, skipna=False)

# %%
ours = reach.loc[preset].stack().rename("sparsity").reset_index()
ours["dimensions"] = ((1 - ours.sparsity) * model.d_model).round().astype(int)
columns = ["method", "sparsifier", "rescaled", "prompts", "sparsity", "dimensions"]
sp.save_table(preset, "sparsity_for_90", ours[columns])
shown = reach["all three"].unstack("method")
here = shown.loc[preset].reindex(pd.MultiIndex.from_product([(True, False), names.values()], names=keys[1:3]))
(100 * here).round(1)

# %%
spans = {key: f"{values.min():.0%} to {values.max():.0%}" for key, values in here.iterrows()}
level = asr[(asr.sparsifier == "none") & (asr.method != "none")].groupby("prompts").asr.agg(["min", "max"])
display(Markdown(
    f"**Reading** (table: largest sparsity in % that keeps 90 % of the effect on all three sets, "
    f"with {', '.join(map(str, settings.n_sparsity))} prompts). Over the three methods, rescaled: "
    + ", ".join(f"*{name}* {spans[True, name]}" for name in names.values()) + ". Not rescaled: "
    + ", ".join(f"*{name}* {spans[False, name]}" for name in names.values())
    + ". The dense vectors that this is measured against have ASR "
    + ", ".join(f"{row['min']:.2f} to {row['max']:.2f} on {name}" for name, row in level.iterrows()) + " prompts."
))

# %% [markdown]
# ## Whole answers on the full test set
#
# ASR says nothing about the text: a broken answer does not refuse either. So we generate whole answers to all test
# prompts at 80 % sparsity, gradient-based and rescaled, and compare with the dense vectors in notebook 01's table 2.
# A sparse vector as good as the dense one flips as many prompts and leaves as much text clean.

# %%
share = 0.8
masks = {name: sp.sparsify(vectors[name], gradient=gradients[name], sparsity=share) for name in methods}
sparse = {name: sp.apply_mask(vectors[name], masks[name], rescale=True) for name in methods}
answers = []
for prompts, sign in (("harmless", 1.0), ("harmful", -1.0)):
    steerings = [sp.Steering(sparse[name], layer, sign * strengths[name]) for name in methods]
    judged = sp.judged_responses(model, load(prompts, "test", settings.n_test), steerings,
                                 max_new_tokens=settings.max_new_tokens, **how)
    answers.append(judged.assign(prompts=prompts, method=np.array(methods)[judged.run]))
answers = pd.concat(answers, ignore_index=True)

# %%
table = sp.rates(answers, ["prompts", "method"]).assign(vector="sparse")
dense = sp.load_table(preset, "table2_asr", made_by="01_extract_vectors").query("method in @methods")
table = pd.concat([dense.assign(vector="dense")[table.columns], table], ignore_index=True)
sp.save_table(preset, "sparse_test", table)
row = table.set_index(["prompts", "method", "vector"]).sort_index()
row.round(3)

# %%
change = (row.xs("sparse", level="vector") - row.xs("dense", level="vector"))[["asr", "clean"]]
span = change.groupby("prompts").agg(["min", "max"])
at_share = np.isclose(results.sparsity, 1 - masks["dim"].double().mean().item())
short = results[at_share & (results.sparsifier == "gradient") & results.rescaled]
both = short.merge(answers, on=["prompts", "method", "prompt"], suffixes=("", "_whole"))

# %%
display(Markdown(
    f"**Reading** ({settings.n_test} prompts per class; {masks['dim'].sum()} of {model.d_model} dimensions left). From "
    "dense to sparse, " + "; ".join(
        f"on {name} prompts ASR changes by {by['asr', 'min']:+.2f} to {by['asr', 'max']:+.2f} and clean text by "
        f"{by['clean', 'min']:+.2f} to {by['clean', 'max']:+.2f}" for name, by in span.iterrows())
    + f". The verdict on the first {n_tokens} tokens, used above, is the whole answer's in "
    f"{(both.refused == both.refused_whole).sum()} of {len(both)} answers that were generated both ways."
))

# %% [markdown]
# ## Do the methods agree on the dimensions?
#
# > *Figure 7, in our words.* Between any two methods the intersection over union (IoU) of the surviving dimensions
# > lies above chance, with p < 0.05 at every τ > 0 and p around 1e−10 or less between 20 and 95 % sparsity.
#
# Chance is two sets of the same sizes drawn from all dimensions, a hypergeometric distribution that we need not
# simulate: its mean, a 95 % band, and as p its tail from the observed overlap on. The band narrows with the number of
# dimensions; how small p can get depends on it. Chance also has a weakness: gradients may agree because the *model*
# reads some dimensions more than others, whatever is added to it. So the **random vector** of notebook 01 is a second
# control: its own gradient, on DIM's answers to a few training prompts, against DIM's gradient on the same.

# %%
few = dict(judge=how["judge"], max_new_tokens=settings.max_new_tokens, batch_size=settings.batch_size)
asked = [load(name, "train", max(4, settings.n_patching // 4)).prompt for name in ("harmful", "harmless")]
train = sp.patching_data(model, *asked, vectors["dim"], layer, strengths["dim"], **few).subset(response_from="steered")
pushes = [sp.Steering(vectors["random"], layer, steering.coefficient) for steering in train.steerings]
attributions = {"dense": sp.attribute(model, train.responses, train.steerings),
                "random": sp.attribute(model, train.responses, pushes)}
compared = {name: (vectors[name], gradients[name]) for name in methods}
compared["dim, few answers"] = (vectors["dim"], attributions["dense"].gradient)
compared["random vector"] = (vectors["random"], attributions["random"].gradient)
two = [*combinations(methods, 2), ("dim, few answers", "random vector")]

# %%
rows = []
for (one, other), threshold in product(two, thresholds):
    a, b = (sp.sparsify(vector, gradient=gradient, threshold=threshold, rule="normalised")
            for vector, gradient in (compared[one], compared[other]))
    if a.any() and b.any():
        found = sp.agreement(a, b)
        left = [1 - mask.double().mean().item() for mask in (a, b)]
        rows.append((one, other, threshold, *left, found.shared, found.iou, found.chance, found.chance_low,
                     found.chance_high, found.p))
columns = ["method_a", "method_b", "threshold", "sparsity_a", "sparsity_b", "shared", "iou", "chance", "chance_low",
           "chance_high", "p"]
agreements = pd.DataFrame(rows, columns=columns)

# %%
control = agreements.method_b == "random vector"
sp.save_table(preset, "fig7_agreement", agreements[~control])
sp.save_table(preset, "agreement_control", agreements[control])
with pd.option_context("display.float_format", "{:.3g}".format):
    display(agreements[agreements.threshold.isin([0.5, 1])].set_index(columns[:3]))

# %%
fig, axes = plt.subplots(2, len(two), figsize=(6.8, 3.6), sharex=True, sharey="row")
for column, (one, other) in zip(axes.T, two):
    line = agreements[(agreements.method_a == one) & (agreements.method_b == other)]
    column[0].plot(line.threshold, line.iou, "o-", color="black", ms=3, label="measured")
    column[0].plot(line.threshold, line.chance, "--", color=sp.PALETTE["random"], label="chance")
    band = (line.chance_low, line.chance_high)
    column[0].fill_between(line.threshold, *band, color=sp.PALETTE["random"], alpha=0.3, lw=0, label="95 % of chance")
    column[0].set(title=f"{one},\n{other}" if "random" in other else f"{one}, {other}", ylim=(0, 1.03))
    column[1].plot(line.threshold, line.p, "o-", color="black", ms=3)
    column[1].axhline(0.05, color="black", ls=":", lw=0.8)
    column[1].set(yscale="log", xlabel="threshold τ")
axes[0, 0].set(ylabel="IoU of what survives")
axes[1, 0].set(ylabel="p (dotted: 0.05)")
fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
sp.save_figure(fig, preset, "fig7_agreement")

# %%
tests = agreements[~control & (agreements.threshold > 0)]
undefined = 3 * np.count_nonzero(thresholds) - len(tests)
both = tests[["sparsity_a", "sparsity_b"]]
middle = tests.p[(both >= 0.2).all(axis=1) & (both <= 0.95).all(axis=1)]
above, beyond = (tests.iou > tests.chance).sum(), (tests.iou > tests.chance_high).sum()
display(Markdown(
    f"**Reading.** IoU lies above chance in {above} of {len(tests)} comparisons of two methods, above the 95 % band in "
    f"{beyond}. p < 0.05 in {(tests.p < 0.05).sum()}, and below 0.05 / {len(tests)} in "
    f"{(tests.p < 0.05 / len(tests)).sum()}; {undefined} more are undefined, as nothing is left of one vector. Between "
    f"20 and 95 % sparsity p runs from {middle.min():.0e} to {middle.max():.0e}; the paper's models have 2,304 and "
    f"3,072 dimensions, {preset} has {model.d_model}."
))

# %%
at_one, pushed = tests.iou[tests.threshold == 1], agreements[control & (agreements.threshold > 0)]
pushed_at_one = pushed[pushed.threshold == 1].iloc[0]
display(Markdown(
    f"At τ = 1 the methods' IoU is {at_one.min():.2f} to {at_one.max():.2f}; that of DIM and the random vector is "
    f"{pushed_at_one.iou:.2f}, where chance gives {pushed_at_one.chance:.2f}, and p < 0.05 at "
    f"{(pushed.p < 0.05).sum()} of {len(pushed)} thresholds. " + (
        "So the methods agree on more than which dimensions the model reads anyway."
        if at_one.min() > pushed_at_one.iou else
        "So part of what the methods agree on is what the model reads whatever is added.")
))

# %% [markdown]
# ## Which dimensions are they?
#
# If methods share what matters, the few largest effects should be the same dimensions with the same sign. A negative
# effect works against the steering.

# %%
effects = pd.DataFrame({name: (vectors[name].double() * gradients[name]).numpy() for name in methods})
effects = effects / effects.abs().sum()
order = effects.abs().mean(axis=1).sort_values(ascending=False, kind="stable").index
ranks = effects.abs().rank(ascending=False).astype(int)
top = effects.join(ranks.add_prefix("rank_")).loc[order].rename_axis("dimension").reset_index()
sp.save_table(preset, "top_dimensions", top)
fig, ax = plt.subplots(figsize=(6.8, 2.3))
(100 * top.head(20).set_index("dimension")[methods]).plot.bar(
    ax=ax, width=0.8, color=[sp.PALETTE[name] for name in methods], rot=0)
ax.set(xlabel="dimension of the residual stream, the 20 largest on average", ylabel="share of summed\n|effects| (%)")
sp.save_figure(fig, preset, "top_dimensions")

# %%
n_top = 10
common = (ranks <= n_top).all(axis=1)
by_chance = model.d_model * (n_top / model.d_model) ** len(methods)
one_sign = (np.sign(effects[common]).sum(axis=1).abs() == len(methods)).sum()
held = effects.abs().where(ranks <= n_top).sum()
against = effects.abs().where(effects < 0).sum()
display(Markdown(
    f"**Reading.** Of each method's top {n_top}, {common.sum()} are in all three (by chance {by_chance:.2f}), "
    f"{one_sign} of these with one sign. A top {n_top}, {n_top / model.d_model:.0%} of the dimensions, holds "
    f"{held.min():.0%} to {held.max():.0%} of the summed |effects|. {against.min():.0%} to {against.max():.0%} of that "
    "sum works against the steering."
))

# %% [markdown]
# ## Does a sparse vector use the same circuit?
#
# DIM's minimum-faithful circuit (notebook 02) was found for the dense vector. Steered by the sparse one, on the
# sparse vector's own answers to test prompts, does it still carry the effect? And does attribution of the sparse
# vector, on its own answers to a few training prompts, find the same edges? The dense vector on as few answers says
# how much of a difference is due to their number, the random vector what any push would share.

# %%
tensors, about = scored["dim"]
graph = sp.Graph.of(model, layer)
nodes = pd.DataFrame({"node": graph.sources, "score": tensors["nodes"].numpy()})
stored = sp.Attribution(graph, tensors["scores"].numpy(), nodes, tensors["gradient"], about["positions"])
sizes = sp.load_table(preset, "fig3_minimum_faithful", made_by="02_patching_circuits").set_index("method").n_edges
minimum = sp.Circuit.top(stored, int(sizes["dim"]))
twice = sp.Circuit.random(graph, min(2 * minimum.n_edges, graph.n_edges), seed)
through = {"circuit": minimum, "complement": minimum.complement(), "random, twice the size": twice}

# %%
held_out = [load(name, "test", settings.n_patching_test // 2).prompt for name in ("harmful", "harmless")]
rows = []
for kind, vector in (("dense", vectors["dim"]), ("sparse", sparse["dim"])):
    own = sp.patching_data(model, *held_out, vector, layer, strengths["dim"], **few).subset(response_from="steered")
    carried = sp.faithfulness_of(model, list(through.values()), own.responses, own.steerings)
    rows += [(kind, name, circuit.n_edges, len(own.responses), part.value, *part.interval(seed=seed))
             for (name, circuit), part in zip(through.items(), carried)]
columns = ["vector", "circuit", "n_edges", "responses", "faithfulness", "low", "high"]
carried = pd.DataFrame(rows, columns=columns)
sp.save_table(preset, "sparse_circuit", carried)
carried.round(3)

# %%
own = sp.patching_data(model, *asked, sparse["dim"], layer, strengths["dim"], **few).subset(response_from="steered")
attributions["sparse"] = sp.attribute(model, own.responses, own.steerings)
rows = []
for kind, attribution in attributions.items():
    circuit = sp.Circuit.top(attribution, minimum.n_edges)
    found = sp.agreement(circuit.mask, minimum.mask, among=graph.mask)
    rows.append((kind, circuit.n_edges, sp.overlap(circuit, minimum), found.iou, found.p))
edges = pd.DataFrame(rows, columns=["vector", "n_edges", "overlap", "iou", "p"])
edges.insert(3, "chance", minimum.n_edges / graph.n_edges)
sp.save_table(preset, "sparse_circuit_overlap", edges)
with pd.option_context("display.float_format", "{:.3g}".format):
    display(edges)

# %%
value = carried.set_index(["circuit", "vector"]).faithfulness
shared = edges.set_index("vector").overlap
display(Markdown(
    f"**Reading** ({share:.0%} sparsity; {carried.responses.iloc[-1]} answers of the sparse vector). The circuit of "
    f"{minimum.n_edges} edges carries {value['circuit', 'sparse']:.2f} of the sparse vector's effect and "
    f"{value['circuit', 'dense']:.2f} of the dense one's; its complement {value['complement', 'sparse']:z.2f} and "
    f"{value['complement', 'dense']:z.2f}. The sparse vector's own top edges share {shared['sparse']:.0%} with it, the "
    f"dense vector's on as few answers {shared['dense']:.0%}, the random vector's {shared['random']:.0%} "
    f"(chance: {edges.chance[0]:.0%})."
))

# %% [markdown]
# ## Side effects
#
# A sparse vector of the same norm is another push. Does it disturb harmless prompts less or more than the dense one?
# Two measures over α, in units of each method's coefficient: the KL divergence of the next token after the prompt
# from the unsteered model's, and the share of clean whole answers. To the left of 0, where the model should just go
# on answering, all change is a side effect; to the right refusing is what steering is for.

# %%
prompts, alphas = sets["harmless"][0], (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
pushes = pd.DataFrame(product(("dense", "sparse"), methods, alphas), columns=["vector", "method", "alpha"])
steerings = [sp.Steering((sparse if push.vector == "sparse" else vectors)[push.method], layer,
                         push.alpha * strengths[push.method]) for push in pushes.itertuples()]
texts, size = list(prompts.prompt), settings.batch_size
before = sp.next_token_logits(model, texts, batch_size=size).log_softmax(-1)
after = (sp.next_token_logits(model, texts, steering, batch_size=size).log_softmax(-1) for steering in steerings)
pushes["kl"] = [(before.exp() * (before - log_p)).sum(-1).mean().item() for log_p in after]

# %%
some = pushes[pushes.alpha.isin([-1, -0.5, 0, 0.5, 1])].index
judged = sp.judged_responses(model, prompts, [steerings[i] for i in some],
                             max_new_tokens=settings.max_new_tokens, **how)
rates = sp.rates(judged.assign(row=some[judged.run]), ["row"]).set_index("row")
pushes = pushes.join(rates)
sp.save_table(preset, "side_effects", pushes)
pushes.loc[some].set_index(["method", "vector", "alpha"])[["kl", "asr", "clean"]].unstack("vector").round(2)

# %%
styles = {"dense": "o-", "sparse": "^--"}
fig, axes = plt.subplots(1, 3, figsize=(6.8, 2.5), sharex=True)
for (method, kind), line in pushes.groupby(["method", "vector"]):
    for ax, column in zip(axes, ("kl", "clean", "asr")):
        points = line.dropna(subset=column)
        ax.plot(points.alpha, points[column], styles[kind], color=sp.PALETTE[method], ms=3)
for ax, label in zip(axes, ("KL of the next token (nats)", "share of clean text", "ASR, harmless prompts")):
    ax.set(xlabel="α / coefficient", ylabel=label, ylim=(0, None) if ax is axes[0] else (-0.03, 1.03))
keys = [axes[0].plot([], [], color=sp.PALETTE[method], label=method)[0] for method in methods]
keys += [axes[0].plot([], [], style, color="#666666", label=kind)[0] for kind, style in styles.items()]
fig.legend(handles=keys, loc="outside upper center", ncols=5)
sp.save_figure(fig, preset, "side_effects")

# %%
spans = pushes.loc[some].groupby(["alpha", "vector"])[["kl", "clean", "asr"]].agg(["min", "max"])
texts = {key: ", ".join(f"{name} {row[column, 'min']:.2f} to {row[column, 'max']:.2f}" for column, name in (
    ("kl", "KL"), ("clean", "clean text"), ("asr", "ASR"))) for key, row in spans.iterrows()}
display(Markdown(
    f"**Reading** ({len(prompts)} harmless prompts, {share:.0%} sparsity, over the three methods). At −α, dense: "
    f"{texts[-1.0, 'dense']}; sparse: {texts[-1.0, 'sparse']}. At +α, dense: {texts[1.0, 'dense']}; sparse: "
    f"{texts[1.0, 'sparse']}. A vector that disturbs less by steering less has not gained anything: read KL beside ASR."
))

# %% [markdown]
# ## Beside the paper
#
# Tables 10 and 11, DIM, beside our own curves (rescaled). The rows put sets of like purpose side by side: Alpaca and
# our harmless prompts, JailbreakBench and our harmful ones, StrongREJECT and our second harmful ones. For the organisms
# models, prompts and the judge of harmful answers differ, and 1 % of 2,304 or 3,072 dimensions is 23 or 31 of them.

# %%
panels = {f"{name.removesuffix('-instruct')}, reported": table for name, table in theirs.groupby("model")}
panels[f"{preset}, measured"] = curves[curves.rescaled]
fig, axes = plt.subplots(3, 3, figsize=(6.8, 5.4), sharex=True, sharey=True)
for (title, table), column in zip(panels.items(), axes.T):
    column[0].set(title=title)
    lines = table[table.method == "dim"].sort_values("threshold").groupby(["prompts", "sparsifier"])
    for (prompts, name), line in lines:
        ax = column[list(sets).index(prompts)]
        ax.plot(100 * (1 - line.sparsity), line.asr, looks[name][1], color=looks[name][0], ms=3)
        ax.axhline(line.unsteered.iloc[0], color="black", ls=":", lw=0.6)
axes[0, 0].set(xscale="log", xlim=(115, 0.25), ylim=(-0.04, 1.04))
axes[0, 0].set_xticks((*percents, 0.5), (*percents, 0.5))
axes[0, 0].minorticks_off()
for ax, (theirs_name, ours_name) in zip(axes[:, 0], test_sets.items()):
    ax.set(ylabel=f"ASR, {theirs_name}\nor {ours_name}")
fig.supxlabel("dimensions kept (%)", fontsize=8)
keys = [axes[0, 0].plot([], [], style, color=colour, label=name.replace("_", " "))[0]
        for name, (colour, style) in looks.items()]
keys += axes[0, 0].plot([], [], ":", color="black", lw=0.6, label="unsteered")
fig.legend(handles=keys, loc="outside upper center", ncols=5)
sp.save_figure(fig, preset, "table10_11_beside_paper")

# %% [markdown]
# And the largest sparsity, in %, that keeps 90 % of the effect on all three sets, by the rule above, with the paper's
# numbers put to it as well (it tried eight thresholds per vector).

# %%
by_model = {name: table.droplevel("model").reindex(names.values())
            for name, table in shown.xs(True, level="rescaled").groupby("model")}
beside = {("measured here" if name == preset else "reported", name): table for name, table in by_model.items()}
beside = pd.concat(beside, names=["source", "model"])
(100 * beside.sort_index(level="source", ascending=False, sort_remaining=False)).round(1)

# %%
display(Markdown(
    "**Reading** (the weakest of the three methods). " + " ".join(
        f"{name}: " + ", ".join(f"*{key}* {value:.0%}" for key, value in table.min(axis=1).items()) + "."
        for name, table in by_model.items())
))
