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
# > *The paper's claim, in our words (§7, G).* A steering vector needs few of its
# > dimensions. Chosen by their gradient, up to about 90 % of them (Gemma) or 95 to 99 %
# > (Llama) can be set to zero and the vector still steers; at random only up to 40 %.
# > And different methods' vectors keep the same dimensions far more often than chance
# > would have it.
#
# [Notebook 02](02_patching_circuits.ipynb) scored edges. Here the same gradients score
# the *dimensions* of a vector. We drop the ones that rank lowest, ask how much of the
# steering is left, and compare what the methods keep.
#
# *Reads* the vectors of [notebook 01](01_extract_vectors.ipynb) and the attributions
# and circuit sizes of notebook 02. *Writes* tables and figures that [notebook
# 06](06_scorecard.ipynb) holds against the paper's claims
# ([RESULTS.md](../RESULTS.md)). Vectors and gradients come from training prompts,
# behaviour is measured on test prompts. The sparsifiers are in
# [sparsify.py](../steerpaper/vectors/sparsify.py), the comparison with chance in
# [chance.py](../steerpaper/circuits/chance.py).

# %% tags=["parameters"]
preset = "organism-llama"
seed = 0

# %%
from dataclasses import replace
from functools import partial
from itertools import combinations, product

import numpy as np
import pandas as pd
import torch

import steerpaper as sp

sp.check_parameters(preset=preset, seed=seed)

# %% [markdown]
# A gradient says something only about the vector, coefficient, layer and weights it was
# taken with. The manifests of both files must agree on them, or the notebook stops
# here.

# %%
sp.use_style()
settings = sp.get_preset(preset)
preset = settings.name
model = sp.load_model(preset)
concept = sp.get_concept(settings.concept)
methods = [name for name, method in sp.METHODS.items() if not method.baseline]
steerings = {name: sp.load_steering(preset, name) for name in [*methods, "random"]}
attributions = {
    name: sp.Attribution.load(preset, f"{name}_attribution", steerings[name])
    for name in methods}
vectors = {name: steering.vector for name, steering in steerings.items()}
strengths = {name: steering.coefficient for name, steering in steerings.items()}
gradients = {name: found.gradient for name, found in attributions.items()}
layer, graph = steerings["dim"].layer, attributions["dim"].graph

# %% [markdown]
# ## What is a dimension worth?
#
# Integrated gradients give the steering node one gradient per dimension, $g$, the mean
# over the path from the unsteered to the steered stream, summed over positions (with α
# in it). So dimension $i$ of the vector $s$ has the effect
#
# $$\mathrm{IE}_i = s_i\, g_i, \qquad \sum_i \mathrm{IE}_i = \mathrm{IE}(\text{steering node}), \qquad
# r_i = \frac{|\mathrm{IE}_i| / \lVert\mathrm{IE}\rVert}{|s_i| / \lVert s\rVert} .$$
#
# The ratio r compares a dimension's share in the effect with its share in the vector,
# which leaves the size of the gradient in units of its own. **Gradient-based**
# sparsification keeps the dimensions with r of at least a threshold τ, and gives what
# is left the norm of the whole vector again. In plain tensors this is the whole method.
# If we understand it, our masks, vectors and sums are the package's.

# %%
s, g, tau = vectors["dim"].double(), gradients["dim"].double(), 1.0
effect = s * g  # of every dimension, in logits per position
r = (effect.abs() / effect.norm()) / (s.abs() / s.norm())
kept = r >= tau
sparse = torch.where(kept, s, 0)
sparse = sparse * s.norm() / sparse.norm()

rule = dict(gradient=gradients["dim"], threshold=tau, rule="normalised")
mask = sp.sparsify(vectors["dim"], "gradient", **rule)
package = sp.vectors.apply_mask(vectors["dim"], mask, rescale=True)
total = attributions["dim"].nodes.set_index("node").score["steer"]
pd.Series({
    "same dimensions": torch.equal(kept, mask),
    "same vector, within 1e-5": bool((sparse - package).norm() < 1e-5 * s.norm()),
    "sum within 0.1 %": abs(effect.sum().item() - total) < 1e-3 * abs(total)})

# %% [markdown]
# All three must be true; a package that summed over other positions, or scaled by
# another norm, would fail one. The first two hold whatever the model. The third
# compares two sums that the attribution keeps apart, one over dimensions and one over
# positions, and is the reason why we may speak of *the effect of a dimension*.
#
# Two things follow from the formula and are worth keeping in mind. Where s is not zero,
# r is |g| times a constant, so the gradient's choice looks at the model alone, while
# bottom-k looks at the vector alone, and IE at both. And if effects simply added up, a
# random choice that keeps a share p of the dimensions would keep a share p of the
# effect, and the square root of p once what is left is rescaled: half of the effect
# would survive at 75 % sparsity. A choice is good if it does better than that.

# %% [markdown]
# Three other sparsifiers drop as many dimensions: **indirect effect** the ones with the
# smallest |IE|, **smallest first** (bottom-k) the ones with the smallest |s|, and
# **dropout** any, the control.
#
# ## Which threshold?
#
# > *In our words (§7).* Zero the dimensions with r below τ, for τ from 0 to 2.5.
#
# This can be read in three ways. *text*: r = g with its sign, as printed. *absolute*:
# |g|. *normalised*: as above, and as in the authors' code. The paper's tables start at
# 0 % sparsity for τ = 0, so r can have had no sign there. If thresholds were
# normalised, all vectors and models should also lie near one line: the half-normal
# distribution (black) if a gradient's entries are about normal and independent of s,
# and above it where g is large in the dimensions in which s is.

# %%
thresholds = [0, 0.1, 0.3, 0.5, 1, 1.5, 2, 2.5]
by_rule = pd.DataFrame(product(methods, ("normalised", "absolute", "text"), thresholds),
                       columns=["method", "rule", "threshold"])
by_rule["kept"] = [int(sp.sparsify(vectors[name], gradient=gradients[name],
                                   threshold=tau, rule=rule).sum())
                   for name, rule, tau in by_rule.itertuples(index=False)]
by_rule["sparsity"] = 1 - by_rule.kept / model.d_model
sp.save_table(preset, "sparsity_by_threshold", by_rule)

# %%
reported = sp.paper.reported("table10_11_sparsity", concept)
once = reported.drop_duplicates(["model", "method", "threshold"])
once = once.assign(rule="normalised", model=once.model + ", reported")
panels = [by_rule.assign(model=f"{preset}, measured"), once]
fig = sp.figures.draw_thresholds(pd.concat(panels))
sp.save_figure(fig, preset, "sparsity_by_threshold")

# %% [markdown]
# **Reading.** Under the text's rule, near half of the dimensions already go at τ = 0, under the other two none, as in
# the paper. In logits per unit of the vector, thresholds of the paper's size take away nearly everything on
# organism-llama and all of it on organism-gemma2: their scale is a model's own. Normalised, all vectors lie close to
# the half-normal and mostly a little above it, where the paper's lie as well. We use that rule from here on.
#
# *Qwen2.5-Coder-0.5B, a real model, [on its own
# page](qwen2.5-coder-0.5b-instruct/05_sparsification.ipynb).* The same: in logits a threshold
# of 0.3 leaves one dimension of DIM's and none of the others; normalised, NTP's and PO's
# vectors lie where the paper's do, DIM's above.
#
# ## How much of the steering is left?
#
# > *Figures 6 and 11, tables 10 and 11, in our words.* Gradient- and IE-based
# > sparsification keep ASR up to the highest sparsities, bottom-k up to about 80 %,
# > dropout up to about 40 %.
#
# Three sets of test prompts: **harmless** ones under +α (steering should take ASR from
# 1 to 0), **harmful** ones under −α (from 0 to 1), and a second harmful set:
# StrongREJECT beside JailbreakBench as in the paper, for the organisms the harmful
# halves of the **borderline** pairs, whose twins are harmless requests in nearly the
# same words. The gradient's threshold says for all four sparsifiers how many dimensions
# go. We add points at 70, 80 and 90 %, where the thresholds leave a gap. The authors'
# code rescales every sparse vector to the dense norm, the text says nothing of it: we
# show both.
#
# What the paper claims is the gradient's choice, so that is tried on all prompts, a
# hundred per set for the organisms and 32 for Qwen, and so are the dense vectors and the
# unsteered model. The other three sparsifiers, which it is compared with, get every
# fourth prompt. Dropout has four random masks, which share these prompts out among them.
#
# Rescaling matters more than it sounds. Without it a mask that keeps a tenth of the
# dimensions also keeps a fraction of the length, so that two things change at once:
# which direction is pushed, and how hard. With it only the direction changes. If a
# sparse vector steers only when rescaled, the dimensions that were left are well
# chosen, but they are not "what did the steering" in the dense vector: there they were
# not pushed so far.

# %%
load = partial(sp.load_prompts, source=settings.prompts)
names = {name: name for name in reversed(concept.sets)}
if second := concept.second_positive:
    names[sp.prompts.drawn_from(second, settings.prompts)] = second
signs = {name: 1 if name == concept.negative else -1 for name in names}
prompts = {name: load(own, "test", n)
           for (name, own), n in zip(names.items(), settings.n_sparsity)}
keys = ["method", "sparsifier", "rescaled", "threshold", "sparsity"]
n_draws = one_in = 4  # masks of dropout; prompts, of which the others get one
runs = sp.vectors.sparse_vectors(vectors, gradients, thresholds[1:], (0.7, 0.8, 0.9),
                                 draws=n_draws, seed=seed)
runs["every"] = np.where(runs.sparsifier.isin(["none", "gradient"]), 1, one_in)
pd.DataFrame({
    f"one in {n}": {name: len(table[::n]) for name, table in prompts.items()}
    for n in runs.every.unique()})

# %% [markdown]
# A refusal shows in an answer's first words. So that all of this is affordable we
# generate only a third of the usual length here; below, whole answers check that the
# verdicts are the same.

# %%
how = dict(judge=sp.load_judge(settings), vocabulary=sp.vocabulary(settings.prompts),
           batch_size=settings.batch_size)
n_tokens, results = settings.max_new_tokens // 3, []
groups = runs.groupby(["every", "draw"])
for (name, sign), ((every, draw), group) in product(signs.items(), groups):
    pushes = [sp.Steering(run.vector, layer, sign * strengths.get(run.method, 1.0))
              for run in group.itertuples()]
    judged = sp.judged_responses(model, prompts[name][::every][draw::n_draws], pushes,
                                 max_new_tokens=n_tokens, **how)
    about = group[keys].reset_index(drop=True)
    shared = judged.prompt.isin(prompts[name].prompt[::one_in])
    results.append(judged.assign(prompts=name, shared=shared).join(about, on="run"))
results = pd.concat(results, ignore_index=True)

# %% [markdown]
# Each sparsifier's curves begin with the dense vector and are held against the unsteered
# model *on the prompts that it was tried on*: all of them, or the same quarter.

# %%
alike = sp.behaviour.by_sparsifier(results)
curves = [sp.behaviour.sparsity_curves(sp.rates(part, [*keys, "prompts"]))
          for part in alike]
curves = pd.concat(curves).drop(columns=["clean", "clean_low", "clean_high"])  # cut off
curves = curves.sort_values([*keys[:3], "prompts", "threshold"])
in_pair = curves.prompts.isin(concept.sets)
sp.save_table(preset, "table10_11_sparsity", curves[in_pair])
sp.save_table(preset, "table10_11_second_set", curves[~in_pair])

# %% [markdown]
# **How few dimensions keep the effect?** The effect is the change of ASR from the
# unsteered model. It counts as kept up to a sparsity if 80 % of it is left there and at
# every smaller one tried, on all three sets. The same rule is put to the paper's tables
# (the unsteered ASR stands in its table 2), for the last section, and the scorecard
# goes by it as well.
#
# The share is of our choosing: the paper prints curves and says "keeps its effect".
# With 80 % its own tables come near the sparsities that it names, with 90 % one of its
# vectors would end at half of its dimensions. One answer more or less may move an end
# by a step of the grid, so each has an interval: the prompts that a curve was measured on
# are drawn again, each with all its answers, the unsteered and the dense vector's too,
# and the curve's end is looked for anew. The fewer the prompts, the sooner a curve drops
# below 80 % by chance. So where sparsifiers are compared with each other, the gradient's
# end on their quarter of the prompts counts (`sparsity_same_prompts`).

# %%
sets = dict(zip(("alpaca", "jailbreakbench", "strongreject"), signs))
together = {2: "both", 3: "all three"}[len(signs)]
theirs = reported.assign(prompts=reported.test_set.map(sets), rescaled=True)
both = pd.concat([curves.assign(model=preset), theirs.drop(columns="test_set")])
drawn = [sp.behaviour.resampled_rates(part, [*keys, "prompts"], seed=seed)
         for part in alike]
drawn = pd.concat(map(sp.behaviour.sparsity_curves, drawn), ignore_index=True)
drawn = sp.paper.sparsity_kept(drawn, together)
ours = sp.paper.sparsity_kept(curves, together)
ours["dimensions"] = ((1 - ours.sparsity) * model.d_model).round().astype(int)
ours = sp.behaviour.with_intervals(ours, drawn, [*keys[:3], "prompts"])
shared = sp.rates(results[results.shared], [*keys, "prompts"])
shared = sp.paper.sparsity_kept(sp.behaviour.sparsity_curves(shared), together)
ours = ours.merge(shared.rename(columns={"sparsity": "sparsity_same_prompts"}))
sp.save_table(preset, "sparsity_kept", ours)
here = ours[ours.prompts == together]
ends = here.pivot(index=["rescaled", "sparsifier"], columns="method",
                  values=[name for name in here if name.startswith("sparsity")])
(100 * ends.sort_index(ascending=False)).round(1)

# %% [markdown]
# If the claim holds, the curves in the first column stay apart furthest to the right,
# and dropout's meet first. The vertical line stands where by the table above (largest
# sparsity in %) the effect is still kept on all three sets. Dotted: the unsteered model,
# hollow at the right edge the marker of its set. Bands are Wilson 95 % intervals: of all
# prompts in the first column, of a quarter of them, and so up to twice as wide, in the
# others.

# %%
fig = sp.figures.draw_asr_by_sparsity(
    curves[curves.rescaled], "method", here[here.rescaled], concept)
sp.save_figure(fig, preset, "fig6_asr_by_sparsity")

# %% [markdown]
# The same without rescaling, where a vector that loses dimensions also loses length.

# %%
fig = sp.figures.draw_asr_by_sparsity(
    curves[~curves.rescaled], "method", here[~here.rescaled], concept)
sp.save_figure(fig, preset, "asr_by_sparsity_not_rescaled")

# %% [markdown]
# **Reading.** Rescaled, the gradient's choice reaches at least as far as any other for every method on both organisms,
# and dropout never further than smallest first. NTP's comes to about 90 % on both, PO's on organism-llama, DIM's on
# neither. Not rescaled, gradient and indirect effect end earlier throughout, and the gradient's choice reaches no
# further than smallest first: half of the claim is rescaling.
#
# *Qwen.* Here is the paper's result, on a third family. Rescaled, the gradient's choice keeps
# the effect to 99, 93 and 98 % of the dimensions dropped (DIM, NTP, PO; no interval begins
# below 90), which for DIM leaves eight dimensions of 896. Without rescaling it still comes to
# 80 to 90 %: that is worth 7 to 19 points here. Smallest first comes to 82 to 95 %, dropout
# to 42 to 80. But on the quarter of the prompts that all were tried on, eight per set, the
# gradient has 90, 93 and 98 %: for DIM no more than smallest first and less than the indirect
# effect, for PO more than both. Which choice is better is not decided. And all of this is
# ASR, on answers cut to 21 tokens: how clean the text is was looked at for 80 % alone.
#
# ## Whole answers on the full test set
#
# ASR says nothing about the text: a broken answer does not refuse either. So we
# generate whole answers to all test prompts at 80 % sparsity, gradient-based and
# rescaled, and compare with the dense vectors in notebook 01's table 2. A sparse vector
# as good as the dense one flips as many prompts and leaves as much text clean.

# %%
sparse, answers = {}, []
for name in methods:
    mask = sp.sparsify(vectors[name], gradient=gradients[name], sparsity=0.8)
    sparse[name] = sp.vectors.apply_mask(vectors[name], mask, rescale=True)
for name in reversed(concept.sets):
    pushes = [sp.Steering(sparse[method], layer, signs[name] * strengths[method])
              for method in methods]
    judged = sp.judged_responses(model, load(name, "test", settings.n_test), pushes,
                                 max_new_tokens=settings.max_new_tokens, **how)
    answers.append(judged.assign(prompts=name, method=np.array(methods)[judged.run]))
answers = pd.concat(answers, ignore_index=True)
measured = sp.rates(answers, ["prompts", "method"]).assign(vector="sparse")
dense = sp.load_table(preset, "table2_asr")
dense = dense[dense.method.isin(methods)].assign(vector="dense")[measured.columns]
whole = pd.concat([dense, measured], ignore_index=True)
sp.save_table(preset, "sparse_test", whole)
whole.set_index(["prompts", "method", "vector"]).sort_index().round(3)

# %%
short = results[np.isclose(results.sparsity, 1 - mask.double().mean().item())
                & (results.sparsifier == "gradient") & results.rescaled]
twice = short.merge(answers, on=["prompts", "method", "prompt"])
same = twice.expressed_x == twice.expressed_y
print("short and whole answer, same verdict:", same.mean())

# %% [markdown]
# **Reading.** ASR moves little. Where it does, harmless prompts under DIM's sparse vector are refused less often, on
# organism-llama beyond the intervals. The text is another matter: under both learned vectors, made sparse, clearly
# fewer refusals of harmless prompts are clean on either organism, while DIM's lose nothing. "Still steers" is true of
# the verdict before it is true of the answer.
#
# *Qwen.* On harmless prompts the sparse vectors refuse more often than the dense ones (0 to
# 4 % are left answered, instead of 1 to 11), on harmful ones all is answered by both. Their
# text is about as clean; DIM's refusals more so, its answers to harmful prompts less. The 192
# answers that were cut off at this sparsity have the verdicts of the whole ones.
#
# ## Is it what stands there, or where?
#
# A sparse vector is two things: a *support*, the dimensions that are left, and the *values* in
# them. The paper credits the vector with both. But the support was chosen by a gradient, which
# could steer by itself: moving along it is what raises the metric fastest. So at 80 % sparsity, on
# the first test prompts and at the dense vector's norm, we change one of the two.
#
# *The support kept, other values in it.* **gradient**: $g_i$ instead of $s_i$.
# **signs**: the sign of $s_i$ times a constant. **random**: normal numbers, the control, which
# knows only where. If the values of the vector matter, random ones do not steer. If signs do as
# well as the vector, sizes do not matter. If g does as well or better, what was extracted from
# prompts or trained is not needed once the gradient is known.
#
# *The values kept, another support.* The gradient of notebook 02 is a mean along the path to the
# steered stream, so it has seen the vector. At the *beginning* of the path, **α = 0**, it has
# not: there the largest $|g_i|$ are those dimensions to which the unsteered model is most
# sensitive, whichever vector comes. (The metric still knows which tokens steering will choose.)
# If this support does as well, the model says where to steer, and the vector only what to put
# there.
#
# $$ v = \lVert s \rVert \, \frac{M \odot w}{\lVert M \odot w \rVert}, \qquad
# w \in \{s,\; g,\; \mathrm{sign}(s),\; \text{random}\}, \quad
# M \in \{|g| \text{ large},\; |g_{\alpha = 0}| \text{ large}\} . $$
#
# Attribution at α = 0 asks for the answers on which notebook 02 ranked edges, the training
# prompts that steering flips, base and steered.

# %%
patching_data = partial(
    sp.patching_data, model, judge=how["judge"], concept=concept,
    batch_size=settings.batch_size, max_new_tokens=settings.max_new_tokens)
trained_on = [load(name, "train", settings.n_patching) for name in concept.sets]
at_start = {}
for name in methods:
    own = patching_data(*trained_on, steerings[name])
    at_start[name] = sp.circuits.unsteered_gradient(model, own.responses, own.steerings)

# %%
keys, about, changed = ["method", "support", "values"], [], {}
for i, name in enumerate(methods):
    s, g = vectors[name], gradients[name]
    masks = {"everything": torch.ones_like(s, dtype=torch.bool)}
    masks |= {where: sp.sparsify(s, gradient=found, sparsity=0.8)
              for where, found in (("on the path", g), ("at α = 0", at_start[name]))}
    values = {"vector": s, "gradient": g, "signs": s.sign(),
              "random": sp.random_vector(s, seed + i)}
    kept = masks["on the path"]
    for which in [*product(masks, ["vector"]), *product(["on the path"], values)]:
        own = sp.vectors.with_values(s, masks[which[0]], values[which[1]])
        changed[name, *which] = own
        about.append((name, *which, torch.cosine_similarity(s, own, dim=0).item(),
                      (masks[which[0]] & kept).sum().item() / kept.sum().item()))
about = pd.DataFrame(about, columns=[*keys, "cosine_with_vector", "shared_support"])
about = about.drop_duplicates(keys)

# %%
labels, others = pd.DataFrame(list(changed), columns=keys), []
for name in reversed(concept.sets):
    pushes = [sp.Steering(vector, layer, signs[name] * strengths[method])
              for (method, *_), vector in changed.items()]
    judged = sp.judged_responses(model, load(name, "test", settings.n_freezing), pushes,
                                 max_new_tokens=settings.max_new_tokens, **how)
    judged = judged.assign(prompts=name).join(labels, on="run")
    others.append(sp.rates(judged, ["prompts", *keys]))
others = pd.concat(others, ignore_index=True)
others = others.merge(about, on=keys)
sp.save_table(preset, "support_control", others)
others.pivot(index=keys, columns="prompts", values=["asr", "clean"]).round(2)

# %%
about.set_index(keys).round(2)

# %% [markdown]
# **Reading.** Random values steer far less, half of the prompts at most, so it does matter what
# stands there. But signs are enough, and the gradient alone steers as well as the vector, if both
# often with less clean text: where it is known, which takes the tokens that steering chooses, the
# vector's own values are not needed. A support found without steering does nearly as well, DIM's
# on organism-gemma2 the least.
#
# *Qwen.* Random values are no zero here: they move ASR up or down, as random vectors do in
# notebook 01, but of 16 harmless requests they have 2 to 6 refused, where 2 are without
# steering. For ASR signs are enough, if DIM's and NTP's answers to harmful prompts are clean
# in little more than half; and a support found without steering is as good, though a fifth to
# a third of it are other dimensions. The gradient alone does as well as NTP's and PO's
# vectors, with text no less clean, and not as DIM's: there it answers every harmless prompt,
# in broken text.
#
# ## Do the methods agree on the dimensions?
#
# > *Figure 7, in our words.* Between any two methods the intersection over union (IoU)
# > of the surviving dimensions lies above chance, with p < 0.05 at every τ > 0 and p
# > around 1e−10 or less between 20 and 95 % sparsity.
#
# Chance is two sets of the same sizes drawn from all dimensions, a hypergeometric
# distribution that we need not simulate: its mean, a 95 % band, and as p its tail from
# the observed overlap on. The band narrows with the number of dimensions; how small p
# can get depends on it. Chance also has a weakness: gradients may agree because the
# *model* reads some dimensions more than others, whatever is added to it. So the
# **random vector** of notebook 01 is a second control: its own gradient, on DIM's
# answers to a few training prompts, against DIM's gradient on the same.
#
# With sets A and B of the sizes a and b among d dimensions, of which k are shared,
#
# $$\mathrm{IoU} = \frac{k}{a + b - k}, \qquad
# p = \sum_{j \ge k} \binom{a}{j} \binom{d - a}{b - j} \Big/ \binom{d}{b} .$$
#
# If the claim holds, the black lines lie above the grey band and below the dotted line
# from the first τ > 0 on. If the methods share only what the model reads anyway, the
# control on the right looks like them.

# %%
n_few = max(4, settings.n_patching // 4)
asked = [load(name, "train", n_few) for name in concept.sets]
own = patching_data(*asked, steerings["dim"])
own = own.subset(response_from="steered")
random = [replace(push, vector=vectors["random"]) for push in own.steerings]
on_few = {"dense": sp.attribute(model, own.responses, own.steerings),
          "random": sp.attribute(model, own.responses, random)}
compared = {name: (vectors[name], gradients[name]) for name in methods} | {
    "dim, few answers": (vectors["dim"], on_few["dense"].gradient),
    "random vector": (vectors["random"], on_few["random"].gradient)}

# %%
rule = partial(sp.sparsify, rule="normalised")
masks = {(name, tau): rule(vector, gradient=g, threshold=tau)
         for (name, (vector, g)), tau in product(compared.items(), thresholds)}
pairs = [*combinations(methods, 2), ("dim, few answers", "random vector")]
agreements = sp.circuits.agreements(masks, pairs)
control = agreements.method_b == "random vector"
sp.save_table(preset, "fig7_agreement", agreements[~control])
sp.save_table(preset, "agreement_control", agreements[control])
fig = sp.figures.draw_agreement(agreements)
sp.save_figure(fig, preset, "fig7_agreement")

# %% [markdown]
# **Reading.** Methods agree above chance at every τ > 0 at which both keep anything, with p < 0.05 but for DIM and PO
# at the smallest one on organism-llama. p stays above the paper's in a few places, as it must with so few dimensions.
# The control exceeds chance too, at τ = 1 on both organisms, by much less than the methods do: part of what they agree
# on is what the model reads from whatever is added, the larger part is not.
#
# *Qwen.* Above chance up to τ = 2 (NTP and PO at 0.1 aside), though for DIM and PO p is never
# as small as the paper's; NTP and PO are closest. At 2.5 DIM keeps a single dimension. And
# here the control is at chance, or hardly above it (p of 0.02 at the least). So which
# *dimensions* are kept belongs to these vectors, while the *edges* that carry them carry a
# random vector, too (notebook 02).
#
# ## Which dimensions are they?
#
# If methods share what matters, the few largest effects should be the same dimensions
# with the same sign. A negative effect works against the steering.
#
# Effects are given as shares of each method's summed |effects|, so that vectors of
# different lengths can be laid side by side. A claim of "few dimensions" would be
# strongest if these bars fell off quickly, and weakest if they formed a slope without
# an end. That a dimension is large in the same way in all three methods is not
# self-evident: DIM is a difference of means, the other two are trained.

# %%
effects = pd.DataFrame({name: (vectors[name].double() * gradients[name]).numpy()
                        for name in methods})
effects = effects / effects.abs().sum()
ranks = effects.abs().rank(ascending=False).astype(int)
order = effects.abs().mean(axis=1).sort_values(ascending=False, kind="stable").index
top = effects.join(ranks.add_prefix("rank_")).loc[order].rename_axis("dimension")
sp.save_table(preset, "top_dimensions", top.reset_index())
fig = sp.figures.draw_top_dimensions(top.reset_index())
sp.save_figure(fig, preset, "top_dimensions")

# %%
shared = effects[(ranks <= 10).all(axis=1)]
pd.DataFrame({
    "% of |effects| in its top 10": 100 * effects.abs().where(ranks <= 10).sum(),
    "% of |effects| against steering": 100 * effects.abs().where(effects < 0).sum(),
    "in all three top 10": len(shared), "with one sign": (shared > 0).all(axis=1).sum(),
    "by chance": model.d_model * (10 / model.d_model) ** len(methods)}).round(2)

# %% [markdown]
# **Reading.** Several of the ten largest dimensions are in all three lists, where chance gives none, and they work the
# same way. No few dimensions are the vector: a top ten holds a minority of the effect, more of DIM's on organism-gemma2
# than elsewhere, and a small part of every vector works against the steering.
#
# *Qwen.* One dimension, 450, is in all three lists, and works the same way. A top ten holds a
# sixth of DIM's effect and less than a tenth of the learned vectors': "few" is, for DIM, eight
# dimensions chosen and made longer, not eight that did the work before.
#
# ## Does a sparse vector use the same circuit?
#
# DIM's minimum-faithful circuit (notebook 02) was found for the dense vector. Steered
# by the sparse one, on the sparse vector's own answers to test prompts, does it still
# carry the effect? And does attribution of the sparse vector, on its own answers to a
# few training prompts, find the same edges? The dense vector on as few answers says how
# much of a difference is due to their number, the random vector what any push would
# share.
#
# Faithfulness is the share of the steering's effect that is left if the sparse vector
# acts through the circuit's edges alone and all others carry what they carry without
# steering. If the sparse vector is the same intervention with its idle parts removed,
# the circuit carries as much of it as of the dense one and the complement carries
# nothing. If it steers by other means, the circuit loses and the complement gains.

# %%
sizes = sp.load_table(preset, "fig3_minimum_faithful")
size = int(sizes.set_index("method").n_edges["dim"])
minimum = sp.Circuit.top(attributions["dim"], size)
twice = sp.Circuit.random(graph, min(2 * size, graph.n_edges), seed)
through = {"circuit": minimum, "complement": minimum.complement(),
           "random, twice the size": twice}
n_each, rows = settings.n_patching_test // 2, []
held_out = [load(name, "test", n_each) for name in concept.sets]
for kind, vector in (("dense", vectors["dim"]), ("sparse", sparse["dim"])):
    own = patching_data(*held_out, replace(steerings["dim"], vector=vector))
    own, circuits = own.subset(response_from="steered"), list(through.values())
    found = sp.faithfulness_of(model, circuits, own.responses, own.steerings)
    rows += [(kind, name, circuit.n_edges, len(own.responses), part.value,
              *part.interval(seed=seed))
             for (name, circuit), part in zip(through.items(), found)]
carried = pd.DataFrame(rows, columns=[
    "vector", "circuit", "n_edges", "responses", "faithfulness", "low", "high"])
sp.save_table(preset, "sparse_circuit", carried)
carried.round(3)

# %%
own = patching_data(*asked, replace(steerings["dim"], vector=sparse["dim"]))
own = own.subset(response_from="steered")
on_few["sparse"] = sp.attribute(model, own.responses, own.steerings)
rows = []
for kind, found in on_few.items():
    circuit = sp.Circuit.top(found, size)
    same = sp.circuits.agreement(circuit.mask, minimum.mask, among=graph.mask)
    rows.append((kind, size, sp.overlap(circuit, minimum), size / graph.n_edges,
                 same.iou, same.p))
edges = pd.DataFrame(
    rows, columns=["vector", "n_edges", "overlap", "chance", "iou", "p"])
sp.save_table(preset, "sparse_circuit_overlap", edges)
edges.drop(columns="p").round(3)

# %% [markdown]
# **Reading.** The dense vector's circuit carries most of the sparse one's effect, somewhat less than the dense one's:
# on organism-gemma2 still more than the 0.85 that the paper calls faithful, on organism-llama less. Nothing of it goes
# through the complement. The sparse vector's own strongest edges are mostly the same ones. But a random vector's are so
# to a large part, too, far above chance: a circuit says as much about the model as about the vector.
#
# *Qwen.* 0.845 of the sparse vector's effect (0.83 to 0.86) and 0.91 of the dense one's:
# about the 0.85, and above it; the complement carries nothing of either. But the sparse
# vector's own strongest edges are not much nearer to that circuit (72 %) than a random
# vector's (65 %), of 85 % that the dense vector's on as few answers share.
#
# ## Side effects
#
# A sparse vector of the same norm is another push. Does it disturb harmless prompts less
# or more than the dense one? Two measures over α, in units of each method's coefficient:
# the KL divergence of the next token after the prompt from the unsteered model's, and
# the share of clean whole answers, both on every fourth harmless prompt (the KL is 0 at
# α = 0, where its curves break off). To the left of 0, where the model should just go on
# answering, all change is a side effect; to the right refusing is what steering is for,
# and a lower KL may only mean less steering: read it beside ASR.
#
# $$\mathrm{KL}(\alpha) = \sum_v P_0(v)\, \big(\log P_0(v) - \log P_\alpha(v)\big),$$
#
# a mean over prompts. If what was set to zero did nothing but harm, the sparse vector
# would lie below the dense one on the left and level with it in ASR on the right. If
# the norm that it lost and got back is simply spent elsewhere, it disturbs as much as
# before, or more.

# %%
alphas, kinds = np.linspace(-1, 1, 9), {"dense": vectors, "sparse": sparse}
effects = pd.DataFrame(
    product(kinds, methods, alphas), columns=["vector", "method", "alpha"])
pushes = [sp.Steering(kinds[kind][name], layer, alpha * strengths[name])
          for kind, name, alpha in effects.itertuples(index=False)]
asked, how_many = prompts[concept.negative][::one_in], settings.batch_size
effects = effects.join(sp.behaviour.next_token_kl(
    model, list(asked.prompt), pushes, seed=seed, batch_size=how_many))
some = effects.index[(2 * effects.alpha) % 1 == 0]
judged = sp.judged_responses(model, asked, [pushes[i] for i in some],
                             max_new_tokens=settings.max_new_tokens, **how)
judged["row"] = some[judged.run]
effects = effects.join(sp.rates(judged, ["row"]).set_index("row"))
sp.save_table(preset, "side_effects", effects)
fig = sp.figures.draw_side_effects(effects)
sp.save_figure(fig, preset, "side_effects")

# %% [markdown]
# **Reading.** Bands are 95 % intervals, of shares by Wilson, of the KL by resampling prompts. To the left of 0 a sparse
# vector disturbs the next token as much as the dense one or more, with DIM on organism-gemma2 the exception, and PO's
# on organism-llama breaks half of the answers. To the right DIM's lower KL comes with weaker steering. Most of these
# differences lie within the intervals (KL's on organism-gemma2 left of 0 do not), but only that exception is a milder
# push.
#
# *Qwen.* No milder push here either: to the left of 0 the sparse vectors disturb the next
# token as much, PO's more, and of eight answers fewer are clean, DIM's at half strength
# aside. To the right DIM's sparse vector steers harder than the dense one, in KL and at half
# strength in ASR, with cleaner text.
#
# ## Beside the paper
#
# Tables 10 and 11, DIM, beside our own curves (rescaled). Sets of like purpose share a
# colour: Alpaca and our harmless prompts, JailbreakBench and our harmful ones,
# StrongREJECT and our second harmful ones. For the organisms models, prompts and the
# judge of harmful answers differ, and 1 % of 2,304 or 3,072 dimensions is 23 or 31 of
# them. If the organisms behaved like the paper's models, their curves would bend at the
# same shares.

# %%
keys = ["model", "rescaled", "sparsifier"]
ends = sp.paper.sparsity_kept(both, together)
ends = ends[ends.prompts == together]
of_dim = both[(both.method == "dim") & both.rescaled].sort_values(
    "model", key=lambda names: names == preset, kind="stable")
fig = sp.figures.draw_asr_by_sparsity(
    of_dim, "model", ends[(ends.method == "dim") & ends.rescaled], concept)
sp.save_figure(fig, preset, "table10_11_beside_paper")

# %% [markdown]
# And the largest sparsity, in %, that keeps the effect on all three sets, by the rule
# above, with the paper's numbers put to it as well (it tried eight thresholds
# per vector).

# %%
beside = 100 * ends.pivot(index=keys, columns="method", values="sparsity")
beside = beside.xs(True, level="rescaled").unstack("model").swaplevel(axis=1)
beside.sort_index(axis=1).round(1)

# %% [markdown]
# **Reading.** DIM's curves bend in the paper's order, well before Llama's, and against Gemma's the gradient's a
# little earlier, indirect effect's and dropout's much, smallest first's later. By our rule not even all of the
# paper's vectors come to the sparsities that its text names (which says nothing of a share of the effect), and the
# organisms' under the gradient lie where its weaker ones do.
#
# *Qwen.* For DIM all but dropout reach further than on both of the paper's models; NTP's ends
# lie between theirs, PO's near Llama's or beyond, the indirect effect's at Gemma's. Gradient
# and indirect effect are ahead and dropout is behind, as in the paper; here all but the
# gradient's stand on eight prompts per set.
#
# ## What we learned
#
# *Few dimensions suffice*, as the paper says: 93 to 99 % can go on Qwen, 80 to 94 % on the
# organisms, and most prompts still flip, if the gradient chooses and what is left is made as long
# as the whole. *Rescaling is half of it* on the organisms, where without it the gradient chooses no
# better than size does, and 7 to 19 points on Qwen. *ASR flatters*: the learned vectors' answers
# get worse before they turn, on the organisms more than on Qwen; DIM's do not on the organisms.
# *The methods agree* on the dimensions far beyond chance, and beyond a random vector, whose
# gradient agrees with DIM's a little on the organisms and hardly on Qwen. For ASR *signs in the
# right places are enough*: sizes hardly matter, and the gradient's own values steer as well as the
# vector's, but for DIM's on Qwen; the text is often worse. *Where to steer* the unsteered model
# says by itself, given the tokens that steering chooses. *Which circuit* a sparse vector takes is
# less its own than which dimensions it has.
#
# From the tables on record, the largest sparsity in % that keeps the effect on all
# three sets:

# %%
kept = sp.load_recorded("sparsity_kept")
kept = kept[kept.prompts == "all three"].pivot(
    index=["rescaled", "sparsifier"], columns=["preset", "method"], values="sparsity")
(100 * kept.sort_index(ascending=False)).round(1)
