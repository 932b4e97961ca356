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
# > *The paper's claim, in our words (§6.3, table 1).* Steering hardly needs the attention
# > weights: with all of them held at their unsteered values, attack success changes by 8.75
# > points on average. Holding the values costs most of the steering (71.75 points), and much of
# > that goes by one direct path, the steering vector through the value projections (53.75). The
# > direct path into the MLPs matters as well (44.5).
#
# An attention head does two things. Its queries and keys (**QK**) decide *where* to read, its
# values and output (**OV**) *what* is read: at position i it writes
#
# $$\sum_j A_{ij}\, v_j W_O, \qquad A_{ij} = \operatorname{softmax}_j\big(q_i \cdot k_j /
# \sqrt{d_\text{head}}\big) .$$
#
# Steering changes the stream that queries, keys and values are all made of. Which of them
# carries it on? We steer and **freeze** one of them: at every step of the generation the
# unsteered model runs on the same tokens, and in every layer from the steering layer ℓ on the
# steered run takes over from it
#
# * **qk**, the attention weights `A`: they depend on queries and keys alone, so we copy those;
# * **ov**, the values `v`.
#
# Two more freezes take out only the *direct* path, what `α s` itself adds to the input of a
# part of the layer, while everything that earlier layers made of it stays:
#
# * **svv**: `α (s ⊙ γ) / RMS(h)` is subtracted from the input of the value projections;
# * **mlp**: the same from the input of the MLPs.
#
# A part that carries the steering takes attack success back to the unsteered model's when it is
# frozen. One that does not leaves it as it is. A third outcome is possible, too: a part may be
# enough without being necessary.
#
# *Reads* the vectors of [notebook 01](01_extract_vectors.ipynb) and the prompt sets. *Writes*
# nine tables, the shares of figure `table1_ablations` and three figures. The freezes are
# [`steerpaper/freezing.py`](../steerpaper/freezing.py), the verdicts on the claim stand in
# [RESULTS.md](../RESULTS.md).

# %% tags=["parameters"]
preset = "organism-llama"
seed = 0

# %%
from dataclasses import replace
from itertools import product

import pandas as pd
import torch

import steerpaper as sp

sp.check_parameters(preset=preset, seed=seed)
sp.use_style()
settings = sp.get_preset(preset)
preset = settings.name
model = sp.load_model(preset)

# %%
concept = sp.get_concept(settings.concept)
signs = concept.signs
steerings = {name: sp.load_steering(preset, name)
             for name, method in sp.METHODS.items() if not method.baseline}
layer = steerings["dim"].layer
prompts = sp.concept_prompts(concept, "test", settings.n_test, settings.prompts)
how = dict(concept=concept, judge=sp.load_judge(settings),
           vocabulary=sp.vocabulary(settings.prompts),
           max_new_tokens=settings.max_new_tokens, batch_size=settings.batch_size)
both_ways = sp.behaviour.judged_both_ways
print(f"steering enters layer {layer} of {model.n_layers}")

# %% [markdown]
# ## One frozen step, by hand
#
# A frozen step is two runs on the same tokens. The first is not steered, and its queries and
# keys are kept. The second is steered, and from layer ℓ on its `q_proj` and `k_proj` put out
# what they did in the first: so every head attends with `A` of the unsteered model, to values
# of the steered one. The likeliest next token goes into *both* runs, and the next step begins.
# That is all; no layer's code is touched, and whatever the attention does with its weights
# (rotation, soft-caps, sliding windows, heads that share keys) comes along by itself. Below ℓ
# the two runs are equal, so that there is nothing to freeze.
#
# The package does the same with both runs in one batch and a cache of keys and values. If it
# does what it says, its `generate(..., frozen="qk")` must decode the very tokens that these two
# runs choose, here the first 12 of an answer to the first harmful prompt (−α s) and to the
# first harmless one (+α s). What steering says with nothing frozen stands beside them: were it
# the same text, the comparison would show little.

# %%
layers = range(layer, model.n_layers)
asked = [prompts[name].prompt[0] for name in signs]
vector = steerings["dim"].coefficient * steerings["dim"].vector
vector, by_hand = vector.to(model.device, model.dtype), []
for prompt, sign in zip(asked, signs.values()):
    row = model.tokenize(prompt)
    for _ in range(12):
        ids, mask = model.pad([row])
        with torch.no_grad(), model.trace(ids, mask):  # not steered
            kept = [(model.q_proj(i).output, model.k_proj(i).output) for i in layers]
            kept.save()
        with torch.no_grad(), model.trace(ids, mask):  # steered, with these q and k
            model.layer(layer).input = model.layer(layer).input + sign * vector
            for i, (q, k) in zip(layers, kept):
                model.q_proj(i).output = q
                model.k_proj(i).output = k
            logits = model.logits[0, -1].save()
        row = [*row, int(logits.argmax())]
    by_hand.append(row[-12:])

# %%
both = [sp.Steering(vector, layer, sign) for sign in signs.values()]
frozen = sp.generate(model, asked, both, frozen="qk", max_new_tokens=12)
plain = sp.generate(model, asked, both, max_new_tokens=12)
print("the same 12 tokens as generate(..., frozen='qk') on both prompts:",
      by_hand == [answer.completion for answer in frozen])
texts = {"frozen by hand": map(model.tokenizer.decode, by_hand),
         "steered, nothing frozen": [answer.text for answer in plain]}
pd.DataFrame(texts, index=signs)

# %% [markdown]
# ## Table 1: four freezes, three vectors
#
# The paper freezes under the difference in means (DIM) only; we add the learned vectors (NTP,
# PO). Harmful test prompts are steered by −α (not steered, the model refuses them), harmless
# ones by +α (not steered, it answers). Attack success rate (ASR) is the share of answers that
# do not refuse.

# %%
kinds, unfrozen = ["none", "qk", "ov", "svv", "mlp"], steerings | {"none": None}
plain = both_ways(model, prompts, unfrozen, **how)
answers = sp.behaviour.judged_frozen(
    model, prompts, steerings, kinds[1:], plain, **how)
table = sp.rates(answers, ["method", "frozen", "prompts"])
sp.save_table(preset, "table1_ablations", table)
table.pivot(index=["prompts", "method"], columns="frozen", values="asr")[kinds].round(3)

# %% [markdown]
# Steering raises ASR on harmful prompts and lowers it on harmless ones, so a freeze that undoes
# it moves the two in opposite directions. What compares is the **share of the steering that a
# freeze undoes**, how far ASR goes from the steered model's (0) back to the unsteered one's
# (1),
#
# `(ASR frozen − ASR steered) / (ASR unsteered − ASR steered)`.
#
# The paper's values of table 1 are put on the same scale with its table 2, and stand beside as
# hollow markers. The claim holds if *attention weights* stay at 0 and *values* go near 1, with
# the direct paths between them. It would be refuted by attention weights far from 0, or by
# values near 0.

# %%
reported = sp.paper.reported("table1_ablations", concept)
unsteered = sp.paper.reported("table2_asr", concept, method="none",
                              test_set=["alpaca", "jailbreakbench"])
of_paper = pd.concat([reported, unsteered.assign(frozen="none")])
shares = sp.behaviour.share_undone(pd.concat([table.assign(model=preset), of_paper]))
sp.save_table(preset, "table1_share_undone", shares)
fig = sp.figures.draw_undone(shares, preset, concept)
sp.save_figure(fig, preset, "table1_ablations")

# %% [markdown]
# **Reading.** With the attention weights of the unsteered model nearly all of the steering is
# left, under every vector and in both directions. Without steered values DIM is undone almost
# entirely. But NTP on organism-gemma2 hardly needs the values and goes through the MLPs: there
# "steering acts through the values" is true of DIM and PO and false of NTP.
#
# Under DIM the paper's two models need the values somewhat less than ours (Llama's on harmless
# prompts aside), and disagree between themselves on the MLPs.
#
# *Qwen2.5-Coder-0.5B, a real model, [on its own
# page](qwen2.5-coder-0.5b-instruct/03_qk_freeze.ipynb).* Freezing any part of attention
# leaves at least half of the steering. Without steered values half of DIM's effect on
# harmless prompts is undone and a seventh of it on harmful ones, less of NTP's, and of PO's
# next to nothing. DIM needs the direct path into the MLPs. PO needs no single part: whichever
# is frozen, the others are enough to turn the answer. How much of the push each of them
# loses, answers cannot tell (further below).

# %% [markdown]
# **Average drop**, as the paper states it: the absolute change of ASR that a freeze makes, in
# points (not in per cent of what was there), averaged over the test sets, here the harmful and
# the harmless one. Zero means that the part is not needed. If parts were independent channels
# of one whole, the drops of values and MLPs would add up to no more than 100. Broken text that
# does not refuse counts as success, so the least share of clean text stands beside them.
#
# A drop compares answers to the *same* prompts, so its 95 % interval (low, high) has to: prompts
# are drawn again, each with its answers under every freeze and method, and all drops are taken
# anew. The table on record has the same for what [notebook 06](06_scorecard.ipynb) asks of drops,
# their order and their share of the values' drop. It also takes them as shares of what steering
# does, since on some models that is fewer points than on others.

# %%
average = sp.paper.average_drop(table[table.method != "none"])
by = ["method", "frozen"]
drawn = sp.behaviour.resampled_rates(answers, [*by, "prompts"], seed=seed)
drawn = sp.paper.average_drop(drawn[drawn.method != "none"])
average = sp.behaviour.with_intervals(average, drawn, by)
sp.save_table(preset, "table1_average_drop", average)
columns = {"drop_points": "drop", "drop_points_low": "low", "drop_points_high": "high"}
told = average.rename(columns=columns).pivot(
    index="frozen", columns="method", values=list(columns.values()))
drops = told["drop"]
clean = table[table.method != "none"].groupby("frozen").clean.min()
told["clean text", "least share"] = clean
told.loc[kinds[1:]].round(2)

# %% [markdown]
# **Reading.** Attention weights come last under every vector, and values first, but for NTP on
# organism-gemma2, where MLPs do. Values and MLPs together drop more than there is to drop, so
# they are no separate channels: each needs what the other adds. On organism-llama the MLPs'
# direct path outweighs that of the values under DIM and NTP, against the paper's order; under
# PO it does not. No freeze breaks the text.
#
# *Qwen.* For DIM, NTP and PO the values drop 23, 16 and 2 points, where the paper has 72, and
# their direct path 12, 10 and 1 (54). The MLPs come first, clearly so under DIM alone: 55, 19
# and 3 (45). Attention weights (16, 4 and 0) are not far behind the values under DIM, nearly
# all of it on harmless prompts (31 points); on harmful ones (1 point) a third of the clean text
# goes. The paper's order does not hold on this model. Nor would channels add up: PO's drops
# sum to 5 of the 70 points that it moves.

# %% [markdown]
# ## Queries or keys, both halves of attention, and where the MLP's path is cut
#
# Not in the paper, for DIM on fewer prompts. If attention weights did not matter at all,
# queries alone and keys alone would not either; were the two to cancel, they would. *qk+ov*
# holds the attention weights **and** the values, so that nothing but the stream's own `α s` and
# the MLPs is left of steering: if it undoes no more than *ov*, then attention weights do no
# work of their own behind the values. The paper does not say whether it cuts the MLP's direct
# path before or after the MLP's norm. Ours follows the authors' code (after, at the steered
# RMS); *mlp-before-norm* subtracts `α s` before it. If the two differ, the choice would have to
# be stated with every number.

# %%
few = {name: prompts[name].head(settings.n_freezing) for name in signs}
dim = {"dim": steerings["dim"]}
kept = answers.prompt.isin(pd.concat(few.values()).prompt) & (answers.method == "dim")
more = [both_ways(model, few, dim, kind, **how).assign(frozen=kind)
        for kind in ("q", "k", "qk+ov", "mlp-before-norm")]
parts = sp.rates(pd.concat([answers[kept], *more]), ["frozen", "prompts"])
sp.save_table(preset, "freeze_parts", parts)
order = ["none", "q", "k", "qk", "ov", "qk+ov", "svv", "mlp", "mlp-before-norm"]
shown = parts.pivot(index="frozen", columns="prompts")[["asr", "asr_low", "asr_high"]]
shown.loc[order].round(2)

# %% [markdown]
# **Reading.** Neither queries nor keys matter by themselves, and freezing them on top of the
# values undoes nothing more on either organism. Before or after the norm makes no difference
# beyond single prompts. With this few prompts the intervals are wide, and differences of a few
# answers say nothing.
#
# *Qwen.* On harmless prompts queries matter nearly as much as both (four and five prompts),
# keys not at all, and freezing attention weights on top of the values undoes nothing more.
# With 16 prompts each that is a hint.

# %% [markdown]
# ## Would taking out any vector do as much?
#
# *svv* and *mlp* subtract something from what a projection reads, in every layer and at every
# position. If steering breaks then, it may be because the vector's direct path is gone, which is
# the paper's reading, or because *any* subtraction of that size is too much for the model. The
# control is a **random vector as long as the steering vector**: the steering stays what it is,
# and `α (r ⊙ γ) / RMS(h)` is taken out instead of `α (s ⊙ γ) / RMS(h)`
# ([`Steering.direct`](../steerpaper/steering.py)). Three random vectors per method, on the first
# prompts of the last table; the table has the share of the steering that is undone, and the share
# of clean text.
#
# The reading of table 1 holds if taking out a random vector undoes next to nothing where taking
# out the steering vector undoes much. It falls if both undo as much. A random vector that undoes
# a part says how much of a direct term's drop is owed to its size. (On harmful prompts broken text
# counts as success, so a control may also undo *less* than nothing there.)

# %%
fewer = {name: table.head(settings.n_by_layer) for name, table in few.items()}
controls = [both_ways(model, fewer, unfrozen, **how).assign(frozen="none")]
for kind in ("svv", "mlp"):
    own = both_ways(model, fewer, steerings, kind, **how)
    controls.append(own.assign(frozen=kind, taken_out="the vector"))
    for i in range(3):
        other = {name: replace(
            push, direct=sp.random_vector(push.vector, seed + i))
            for name, push in steerings.items()}
        own = both_ways(model, fewer, other, kind, **how)
        controls.append(own.assign(frozen=kind, taken_out="a random vector"))
controls = pd.concat(controls).fillna({"taken_out": "nothing"})
by = ["method", "frozen", "taken_out", "prompts"]
controls = sp.rates(controls, by)
ends = controls[controls.frozen == "none"]
undone = [sp.behaviour.share_undone(pd.concat([ends, part]).assign(model=preset))
          .assign(taken_out=name)
          for name, part in controls[controls.frozen != "none"].groupby("taken_out")]
controls = controls.merge(pd.concat(undone)[[*by, "undone"]], "left", on=by)
sp.save_table(preset, "direct_control", controls)
controls[controls.frozen != "none"].pivot(
    index=["frozen", "method", "prompts"], columns="taken_out",
    values=["undone", "clean"]).round(2) + 0.0

# %% [markdown]
# **Reading.** Taking out a random vector undoes next to nothing, but for the values on
# organism-llama, where it undoes up to a quarter and the vector two thirds. Most of the text stays
# clean (0.78 and more). What the freezes of direct paths undo is owed mostly to the vector, and
# where it is least, of the values on organism-llama, up to three eighths to the size of what is
# taken out.
#
# *Qwen.* Of DIM's steering its direct path into the MLPs undoes 0.67 on harmful and 0.50 on
# harmless prompts, a random one 0.00 and 0.22, of the three harmful and six harmless prompts
# that turn: likely the vector on both, shown on neither. Of the direct path into the values
# neither undoes anything that so few could show.

# %% [markdown]
# ## On logits instead of answers
#
# ASR counts decisions. A push far beyond what a decision takes may lose half of itself to a
# freeze and still turn every prompt: then "no part is needed" says how hard was pushed, and not
# where the steering goes. Logits have no threshold. So the same freezes on given text, the
# steered answers to flipped prompts, and the metric of notebook [02](02_patching_circuits.ipynb)
# in place of the judge: by how much the token that the steered model prefers there is ahead of
# the one that the unsteered model does. On given text a freeze is a circuit,
#
# * *qk*, *ov*, *mlp-total*: all edges but those into queries and keys, into values, into MLPs;
# * *svv-before-norm*, *mlp-before-norm*: all but the steering node's into values, into MLPs.
#   (Above, *svv* and *mlp* are cut behind the norm.)
#
# and the share undone is what this circuit lacks of faithfulness 1. If parts that ASR calls
# unnecessary carry little here, too, ASR was right. If they carry much, the push was too long for
# ASR to tell.

# %%
said = plain.groupby(["prompts", "method"], sort=False).head(settings.n_patching_test)
data = {name: sp.circuits.flipped_responses(
    model, said, name, push, "steered", concept=concept).subset(n=settings.n_judged)
    for name, push in steerings.items()}
undone = sp.circuits.undone_on_logits(model, data, seed=seed)
sp.save_table(preset, "freeze_on_logits", undone)
undone.set_index(["method", "prompts", "frozen"])[["undone", "low", "high"]].unstack(
    sort=False).swaplevel(axis=1)[undone.frozen.unique()].round(2)

# %% [markdown]
# **Reading.** The same picture, with less contrast. Values undo 0.40 to 0.69 where answers
# have 0.72 to 0.98, but for NTP on organism-gemma2 (0.23 and 0.25), which goes by the MLPs
# here, too. Attention weights undo 0.02 to 0.16, and the MLPs' direct path 0.28 to 0.50. So
# "values undo nearly all of it" is a statement about answers: losing about half of a push
# that just turns a prompt is losing all of it.
#
# *Qwen.* Of NTP and PO answers could not tell. In logits freezing the values undoes half of
# the steering under every vector: 0.52, 0.57 and 0.60 on harmful prompts (DIM, NTP, PO) and
# 0.53, 0.46 and 0.37 on harmless ones, where answers have 0.15, 0.09 and 0.00, and 0.50, 0.33
# and 0.05. Most of that goes by the direct path. Freezing the attention weights undoes 0.09
# to 0.22, a half to a sixth of what values do; by the paper's averages it is an eighth. The
# MLPs' direct path is worth 0.33 to 0.50, six to eight tenths of the values over both sets,
# and all that they write 0.81 to 1.00. So values carry about as much of the steering here as
# on the organisms, and that answers need no part of PO is how far it pushes. But a threshold
# is not all: of DIM's push on harmful prompts values and MLPs' path are worth half each in
# logits, and in answers 0.15 and all of it. Which tokens lose it matters, too.
#
# ## Which layers?
#
# Attention is frozen in one layer, in all layers up to one, and in all layers from one on. If
# one layer did the work, its single freeze would stand out. If the work is spread, or layers
# stand in for each other, only the curves of many layers move. Where *all layers from this on*
# is back at the dotted line of the steered model, later layers are not needed; where *all
# layers up to this* reaches its full effect, later layers cannot make up for what earlier ones
# lack. For the attention weights the claim expects flat curves everywhere: a layer that moves
# when it is frozen alone would be where attention does matter.

# %%
# At most eight places to begin or end, so that a deep model takes no longer.
subsets = {tuple(own) for i in layers[::-(-len(layers) // 8)]
           for own in ([i], range(layer, i + 1), range(i, model.n_layers))}
rows = [both_ways(model, fewer, dim, kind, own, **how)
        .assign(frozen=kind, first=own[0], last=own[-1])
        for kind, own in product(["qk", "ov"], sorted(subsets))]
by_layer = sp.rates(pd.concat(rows), ["frozen", "prompts", "first", "last"])
sp.save_table(preset, "freeze_by_layer", by_layer)
whole = answers[(answers.method == "dim") & (answers.frozen == "none")]
whole = whole[whole.prompt.isin(pd.concat(fewer.values()).prompt)]
fig = sp.figures.draw_layers(by_layer, sp.rates(whole, ["prompts"]))
sp.save_figure(fig, preset, "freeze_by_layer")

# %% [markdown]
# **Reading.** No choice of layers makes the attention weights matter beyond the intervals of
# both runs. Of the values no single layer carries the steering: on organism-llama single layers
# do next to nothing and the work is spread over the first five or six layers from ℓ on; on
# organism-gemma2 the steering layer itself counts most, and two layers do most and three nearly
# all of it. So layers do stand in for each other, and a layer-by-layer ablation would have
# found little.
#
# *Qwen.* On harmful prompts no choice of layers undoes anything, be it of weights or of
# values. On harmless ones freezes undo something, one or two prompts of eight, only where
# layers are frozen together from ℓ on.

# %% [markdown]
# ## The same prompts, frozen and not
#
# The counterpart of figure 1: the first test prompts of each class under DIM, as they come.
# Under *qk* the texts should read like the steered ones, under *ov* like the unsteered ones.
# (Answers of the organisms have no content: they name what was asked about, and say nothing of
# it.)

# %%
texts = answers[answers.method.isin(["dim", "none"])]
unfrozen = texts.method.map({"dim": "steered", "none": "base"})
texts = texts.assign(run=texts.frozen.where(texts.frozen != "none", unfrozen))
shown = [prompt for table in few.values() for prompt in table.prompt[:2]]
examples = texts.pivot(index="prompt", columns="run", values="text")
examples = examples.loc[shown, ["base", "steered", *kinds[1:]]].stack().rename("text")
examples = sp.behaviour.excerpts(model, examples.reset_index(), ["text"], settings)
sp.save_table(preset, "freeze_examples", examples)
pd.set_option("display.max_colwidth", None)
examples.set_index(["prompt", "run"])

# %% [markdown]
# ## Token by token
#
# Equal verdicts may come from different texts. How far does each frozen answer go along with
# the steered one, token by token, before the first difference? The unsteered answer is the
# control: what it shares with the steered one (first words, say) needs no steering. If *qk*
# shared no more than that, "steering without attention" would be another steering that happens
# to refuse as often.

# %%
agreement = sp.behaviour.shared_start(texts, "steered")
agreement = agreement.rename(columns={"run": "frozen"})
sp.save_table(preset, "freeze_agreement", agreement)
agreement.pivot(index="frozen", columns="prompts").loc[["base", *kinds[1:]]].round(2)

# %% [markdown]
# **Reading.** With frozen attention weights answers go along with the steered ones for more
# than half of their length, and many to the end, more on organism-gemma2 than on
# organism-llama. With frozen values they share hardly more than unsteered answers do. But
# "costs nothing in ASR" is not "changes nothing": a good part of the *qk* answers take another
# phrase somewhere, as those above do on organism-llama.

# %% [markdown]
# ## Do the attention weights change at all?
#
# Freezing the attention weights could cost little for two reasons: steering may hardly move
# them, or it moves them and the move does not matter. We let base and steered run read the same
# (DIM-steered) answers and take, for every head and response position, the **total-variation
# distance** between the two runs' attention weights: the share of the weight that has moved, 0
# to 1. Three random vectors of DIM's norm tell how much any push of that size would move. On
# the diagonal at the right a head would move as much under either. Were DIM's heads to lie on
# or below it, the freeze above would have held what hardly moved, and its small cost would say
# nothing about what attention is for.

# %%
some = texts[texts.run == "steered"].groupby("prompts").head(settings.n_freezing // 2)
responses = [sp.Response(model.tokenize(p), ids)
             for p, ids in zip(some.prompt, some.completion)]
alpha, pushes, changes = steerings["dim"].coefficient, [*steerings.items()], []
for i in range(3):
    vector = sp.vectors.random_vector(steerings["dim"].vector, seed + i)
    pushes.append(("random", sp.Steering(vector, layer, alpha)))
for method, push in pushes:
    alphas = [signs[name] * push.coefficient for name in some.prompts]
    own = [sp.Steering(push.vector, layer, alpha) for alpha in alphas]
    moved = sp.heads.attention_change(model, responses, own)
    changes.append(moved.assign(method=method))
changes = pd.concat(changes).groupby(["method", "layer", "head"], as_index=False)
changes = changes.total_variation.mean()
sp.save_table(preset, "attention_change", changes)
fig = sp.figures.draw_attention_change(changes)
sp.save_figure(fig, preset, "attention_change")

# %% [markdown]
# **Reading.** Steering moves attention, and more than a random push of DIM's size does, in most
# heads and in nearly every layer. (A learned vector may be longer than DIM, which the random
# ones are not matched to.) So the second reason holds: attention does move, and whether the
# model refuses depends little on it.
#
# *Qwen.* Here a random push of DIM's size moves attention nine tenths as much as DIM does
# (three quarters on the organisms): nearly all of what moves is owed to being pushed at all.

# %% [markdown]
# ## Beside the paper
#
# Table 1 of the paper is for DIM; its harmless prompts are Alpaca's, its harmful ones
# JailbreakBench's, judged by a language model. Its average drops are means over both models and
# both test sets; they stand beside those recomputed from its own table. An organism is another
# model with other prompts: what can be compared is the pattern, not the number. The last
# columns are what was measured here. (The paper prints one drop that its own table does not
# give.)

# %%
both = pd.concat([reported, table[table.method != "none"].assign(model=preset)])
both.pivot_table("asr", ["prompts", "model", "method"], "frozen")[kinds].round(2)

# %%
printed = sp.paper.reported("table1_average_drop", concept)
printed = printed.set_index("frozen").drop_points
recomputed = sp.paper.average_drop(reported).set_index("frozen").drop_points
beside = {"paper, as printed": printed, "paper, from its table": recomputed, **drops}
pd.DataFrame(beside).loc[kinds[1:]].round(2)

# %% [markdown]
# ## What we learned
#
# Share of the steering that each freeze undoes, mean of harmful and harmless prompts, of every
# model on record:

# %%
records = sp.load_recorded("table1_ablations").rename(columns={"preset": "model"})
undone = sp.behaviour.share_undone(pd.concat([records, of_paper]))
undone = undone.pivot_table("undone", ["model", "method"], "frozen", sort=False)
undone[kinds[1:]].round(2)

# %% [markdown]
# * **Attention weights are not needed.** This part of the paper's claim holds for both
#   organisms and all three vectors, although steering does move attention.
# * **Values are needed, under DIM.** That holds, too, and no single layer is responsible. It is
#   no law of steering: NTP on organism-gemma2 refuses and complies as reliably as DIM and goes
#   by the MLPs.
# * **Direct paths have a control, and pass it on the organisms.** *svv* and *mlp* undo so
#   much because of what they take out, and not because of how much: a random vector of the
#   same length undoes little (at most three eighths as much).
# * **The parts are not channels that add up.** Freezing either of two parts may undo most of
#   the steering, so a drop says that a part is necessary with all others as they are, and not
#   how much it carries.
# * **ASR is a coarse measure.** Answers under frozen attention often say something else
#   than the steered ones. And it has a threshold: in logits freezing the values undoes
#   about half of the steering on all three models, NTP on organism-gemma2 aside, which in
#   answers is most of it on the organisms and a third or less on Qwen.
# * **On Qwen, a real model, it depends on what is counted.** In answers the values matter
#   for half of DIM's and a third of NTP's steering on harmless prompts, and hardly else:
#   DIM goes by the MLPs, if by any one part, and PO by none that it cannot do without. In
#   logits the values carry half under every vector, the MLPs' direct path somewhat less,
#   attention weights a tenth to a fifth. PO's push can lose half of itself and still turn
#   nearly every prompt, NTP's two thirds of the harmless ones; DIM's cannot, if it is the
#   MLPs' half.
#
# [Notebook 02](02_patching_circuits.ipynb) asks which edges carry the steering, [notebook
# 04](04_ov_decomposition.ipynb) what the values that matter here say, and [notebook
# 06](06_scorecard.ipynb) holds the claim against its rule.
