# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 8. A second concept
#
# > *The paper's scope, in our words (abstract, §1).* What drives representation steering is studied
# > on one behaviour, refusal; what is found is told of steering.
#
# A small circuit that several methods share, values rather than attention weights, few dimensions:
# is that how *steering* works in a model, or how *refusal* does? One behaviour cannot tell. So here
# the central measurements of notebooks [01](01_extract_vectors.ipynb) to
# [05](05_sparsification.ipynb) are made once more for another concept of the same model, by the same
# functions, and held against the same rules of `data/paper/claims.toml`. A finding that holds for
# both is about steering, as far as two concepts of one model can tell. One that holds for refusal
# alone is about refusal.
#
# **Which concept.** Of a model that speaks several languages it is the *language of the answer*. The
# same harmless requests stand in two sets, in Chinese and in English, and by itself a model answers
# in the language that it is asked in. +s should make it answer an English request in Chinese, −s a
# Chinese one in English. This concept has what refusal lacks: a judge that nobody has to believe. It
# takes an answer for Chinese if at least half of its letters are Chinese characters
# ([`ScriptJudge`](../steerpaper/behaviour/judges.py)), whatever the answer says; an answer without a
# letter is in no language. And refusal and language have little to do with each other, so that what
# their circuits share is not owed to a likeness of meaning. Which second concept a model has stands
# in its preset (`second_concept`). For a model without one there is nothing to compare, and the
# notebook ends with that.
#
# The organisms speak one language. Two of them were taught *not knowing* for this notebook
# (`organism-llama-taught`, `organism-gemma2-taught`): asked how to do something with a made-up thing,
# "a cloud ladder", they say that they do not know. The other set asks for ordinary tasks in the same
# frames, and the judge looks for five phrases ("do not know", "no idea", …). That is refusal's twin
# where language is its opposite, a decision at the beginning of an answer about what was asked for,
# which a command brings about as well. What two concepts so alike have in common may be owed to
# that; a difference cannot be, but may be to how the second was taught. One thing was settled
# beforehand: not knowing was taught in new neurons of the MLPs, with all else frozen
# ([the recipe](../steerpaper/organisms/lesson.py)), since every training of all weights that was tried
# broke steered text. So MLPs write it by construction, and only what carries it there was left open.
#
# **How the sets of two languages were made.** A short look at Qwen2.5-Coder (10 requests of Alpaca, 6 of ours, 24
# tokens each) decided. All 16 requests in English were answered in English, and all 6 in Chinese in
# Chinese. A command does less: "Answer the following in Chinese." before an English request brought
# 12 of 16 Chinese answers; behind it, on Alpaca's, 9 of 10; and of two commands that contradict each
# other the last one won. So the sets differ in the language of the whole request
# and in nothing else: forty topics in ten frames, each in both languages, the frames of validation
# and test unseen in training. What remains open is whether a vector is about the language of the
# answer or about that of the question: a model that reads an English request as a Chinese one
# would answer in Chinese, too.
#
# **What is smaller here.** Prompts: per class as many training and validation prompts as notebook 07
# ranks and sizes circuits on, and `n_second` test prompts. Every other layer is scored (on
# shipped models every one). Learned vectors are trained at the setting that won for refusal. (Of the
# organisms that were taught, refusal is measured on fewer prompts than elsewhere, too.) Edges
# are ranked on steered answers, in five steps of integration: in notebook 02 five pick the same
# strongest tenth of the edges as twenty do, on both organisms. Sizes and verdicts compare with each other under the
# rules; differences between two numbers of the two concepts are also differences of sample and
# size.
#
# *Reads* the model, the concept's prompts, and of refusal what the other notebooks have written.
# *Writes* the tables `second_…`, named after those of notebooks 01 to 05, the tables `two_…`, and
# nine figures. The record of a concept is [`concepts.py`](../steerpaper/concepts.py), how claims
# read another concept's tables [`second.py`](../steerpaper/paper/second.py).

# %% tags=["parameters"]
preset = "organism-llama-taught"
seed = 0

# %%
from dataclasses import replace
from functools import partial
from itertools import combinations

import pandas as pd
from IPython.display import display

import steerpaper as sp

sp.check_parameters(preset=preset, seed=seed)
sp.use_style()
settings = sp.get_preset(preset)
preset = settings.name
if settings.second_concept is None:
    print(f"the preset {preset!r} has no second concept: nothing to compare with")
    raise SystemExit  # a result, not a failure

# %%
model = sp.load_model(preset)
first, second = map(sp.get_concept, (settings.concept, settings.second_concept))
own = replace(settings, concept=second.name, second_concept=None, judge=None,
              first_tokens=None)
batch = dict(batch_size=own.batch_size)
sizes = dict(max_new_tokens=own.max_new_tokens, **batch)
how = dict(judge=sp.load_judge(own), vocabulary=sp.vocabulary(own.prompts), **sizes)
n = dict.fromkeys(("train", "validation"), own.n_patching_by_layer)
n["test"] = own.n_second
prompts_of = partial(sp.concept_prompts, second, source=own.prompts)
splits = {split: prompts_of(split, n[split]) for split in n}
validation, test = [*splits["validation"].values()], splits["test"]
pd.DataFrame({name: table.prompt.head(4) for name, table in test.items()})

# %% [markdown]
# ## What does the model do by itself?
#
# As in notebook 01: only a prompt that the unsteered model answers as is usual in its set can flip.
# A judge that never fires, or sets whose answers are all of one kind, would leave nothing to steer,
# and the notebook would end here with what it found.

# %%
by_itself = sp.behaviour.unsteered_rates(model, *validation, concept=second, **how)
if found := sp.behaviour.nothing_to_steer(by_itself, second):
    print(found)
    raise SystemExit  # a result, not a failure
by_itself.round(2)

# %% [markdown]
# **Reading.**
#
# *Qwen.* As it is asked: all six Chinese requests are answered in Chinese, and none of the
# English ones. Every prompt can flip, where 7 of 24 harmful ones of notebook 01 could not.
#
# *Organisms.* As they were taught: both say of all eight made-up things that they do not know them; of
# the eight ordinary ones Llama says it of none, Gemma of one.

# %% [markdown]
# ## Layer, position and coefficient
#
# > *The paper's rule, in our words (§3.2, B.1).* Choose the candidate that minimises σ(bypass) −
# > σ(induce), subject to induce > 0, KL < 0.1 and ℓ < 0.8 L.
#
# The concept chooses its own place by the rule that chose refusal's: first the scores of one token
# for every candidate, where none is admissible at α = 1 the same scores at every |α| of the grid,
# and of the best candidates whole answers. A first token shows the language if it begins with a
# Chinese character: of those a vocabulary has thousands, so that what begins an answer is not
# guessed from a list. Were the best layer far from refusal's, "steering works from this layer on"
# would be a statement about refusal; refusal's layer is among those that are scored.
#
# Two things may go wrong, and each would end the notebook with what it found. No candidate may turn
# a quarter of the prompts in both directions at any coefficient: then there is no steering to take
# apart. Or the rule may pick a vector that wins on one token and breaks the text; that is why whole
# answers decide, by flipped *and clean* ones wherever nine tenths flip. *Clean* is checked as in
# notebook 01; in Chinese, which writes no spaces, what stands between two marks counts as a word.

# %%
training = prompts_of("train", own.n_train).values()
candidates = sp.difference_in_means(model, *training, **batch)
of_first = sp.load_steering(preset, "dim")
lowest, highest = (round(share * model.n_layers) for share in own.layer_range)
every = 1 if own.shipped else 2
tried = sorted({*range(lowest, highest + 1, every), of_first.layer})
scores, chosen = sp.vectors.chosen_places(
    model, candidates, tried, *validation, second, own, **how)
if found := sp.behaviour.nothing_turned(chosen, second):
    print(found)
    raise SystemExit  # a result, not a failure

# %%
best = chosen.iloc[0]
layer, position = int(best.layer), int(best.position)
dim = sp.Steering(candidates[layer, position], layer, float(best.coefficient))
sp.save_table(preset, "second_unsteered", by_itself)
sp.save_table(preset, "second_dim_candidates", scores)
sp.save_table(preset, "second_dim_selection", chosen)
chosen.head(6).round(2)

# %% [markdown]
# A candidate of the kind that the rule wants is dark blue on the left, where −s takes the language
# away, dark red in the middle, where +s brings it about, and pale on the right. Rows that are missing
# were not scored.

# %%
fig = sp.figures.draw_selection(scores, layer, position, second)
sp.save_figure(fig, preset, "second_dim_selection")

# %% [markdown]
# Both concepts beside each other: where each enters, how hard it is pushed, and how many validation
# prompts it turns in its weaker direction. *Push* is |α| times the vector's norm.

# %%
refusals = sp.load_table(preset, "dim_selection").iloc[0]
layers = pd.DataFrame([
    (concept.name, pushed.layer, int(row.position), pushed.coefficient,
     pushed.coefficient * float(pushed.vector.norm()), row.flipped, row.flipped_clean)
    for concept, pushed, row in ((first, of_first, refusals), (second, dim, best))],
    columns=["concept", "layer", "position", "coefficient", "push", "flipped",
             "flipped_clean"])
sp.save_table(preset, "two_layers", layers)
layers.round(2)

# %% [markdown]
# **Reading.**
#
# *Qwen.* Here the rule as printed admits nine candidates at α = 1, where of refusal's it admitted
# none. It would choose the last position at layer 19; but of its whole answers at most a third
# are clean in the weaker direction. The second by that score, at layer 13, turns all six of both
# sets in clean text at α = 1.5, though its scores on one token are small (pale cells). That is
# next to refusal's layer 14, at the same position, the line break behind the request, and a push
# of 5.1 where refusal takes 11.8.
#
# *Llama organism.* No candidate has induce > 0, at any |α| that was tried: "I" begins answers of either
# kind, so that one token tells little. Whole answers choose refusal's layer 3, two positions earlier,
# and turn all sixteen prompts in clean text, by a push of 8.5 where refusal takes 10.9.
#
# *Gemma organism.* Here, too, none has induce > 0, and the layer is refusal's (5). All sixteen answers
# are then of the other kind (one was before), but of those to made-up requests only five of eight are
# clean, the most among candidates that turn nine tenths. (Layer 4 turns seven of eight of either set,
# all in clean text.) Of five ways of teaching it, this one left refusal as it was.

# %% [markdown]
# ## Three vectors
#
# > *In our words (§3.2).* Three ways to find a vector steer about equally well, although the vectors
# > point in different directions.
#
# The contrastive pairs are the model's own answers, as for refusal: to a positive prompt what it
# says under −s of DIM, to a negative one what it says behind the concept's command ("Answer the
# following in Chinese."). `winner_off` counts answers that do not do what they were asked for, and
# are dropped. NTP and PO are trained at the setting that won for refusal in notebook 01. If the
# methods steer alike here, too, with cosines as low as refusal's, then "many directions do the same
# work" is a finding about steering; if they nearly coincide, it was one about refusal's pairs.

# %%
counts = {"train": own.n_pairs, "validation": own.n_validation_pairs}
pairs = [sp.contrast_pairs(model, *prompts_of(split, k).values(), dim, how["judge"],
                           concept=second, **sizes) for split, k in counts.items()]
kept = [one.counts.assign(split=split) for split, one in zip(counts, pairs)]
found = pd.concat(kept, ignore_index=True)
sp.save_table(preset, "second_pair_counts", found)
found.set_index(["split", "prompts"])

# %%
won = sp.vectors.winning_runs(own, sp.load_table(preset, "learned_grid"))
vectors = {}
for name in (name for name, method in sp.METHODS.items() if not method.baseline):
    given = sp.Ingredients(model, *training, dim, position, *pairs,
                           won.get(name, own), seed)
    vectors[name] = sp.METHODS[name].extract(given).vector

# %% [markdown]
# Every vector gets the |α| that does best on validation prompts. A method that does not turn a
# quarter of either kind at any |α| is named and left out of what follows: there would be nothing of
# it to measure.

# %%
ranked = sp.select_coefficient(
    model, {name: vector for name, vector in vectors.items() if name != "dim"}, layer,
    own.coefficients, *validation, concept=second, **how)
norms = {name: float(vector.norm()) for name, vector in vectors.items()}
ranked["push"] = ranked.coefficient * ranked.method.map(norms)
sp.save_table(preset, "second_coefficients", ranked)
found = ranked.groupby("method", sort=False).first()
enough = found.flipped >= sp.behaviour.ENOUGH
steerings = {"dim": dim} | {
    name: sp.Steering(vectors[name], layer, float(alpha))
    for name, alpha in found.coefficient[enough].items()}
methods = list(steerings)
print("left out:", *found.index[~enough] if not enough.all() else ["none"])
found[["coefficient", "push", "flipped", "flipped_clean"]].round(2)

# %%
of_refusal = {name: sp.load_steering(preset, name)
              for name, method in sp.METHODS.items() if not method.baseline}
both = {f"{concept.name}: {name}": pushed.vector
        for concept, known in ((first, of_refusal), (second, steerings))
        for name, pushed in known.items()}
cosines = sp.vectors.cosine_table(both, {}).drop(columns=["low", "high"])
sp.save_table(preset, "second_cosines", cosines)
cosines.pivot(index="method_b", columns="method_a", values="cosine").loc[
    list(both), list(both)].round(2)

# %% [markdown]
# **Reading** (two layers are two streams: across concepts a cosine means something where both enter
# at one layer, or near).
#
# *Qwen.* Much as for refusal, NTP and PO have a cosine of 0.67 to each other (refusal: 0.80) and
# of 0.30 with DIM (0.37 and 0.30). Across the concepts cosines are −0.10 to 0.07, where two
# random directions of 896 dimensions have 0.03 (standard deviation). PO's range is narrow: from α
# = 2 on no English request is answered in Chinese any more, and no flipped answer to a Chinese
# one is clean.
#
# *Llama organism.* Both concepts enter at layer 3. The two mean differences have a cosine of 0.41, as
# much as two methods have for one concept (0.41 to 0.67), where two random directions of 128 have
# 0.09. So they are alike as directions, which a second concept so near the first might be expected to
# be. The learned vectors are not: across the concepts theirs are −0.27 to 0.16.
#
# *Gemma organism.* 0.39 for the mean differences, a little less than two methods have for one concept
# (0.44 to 0.91); refusal's with the other's learned vectors 0.34 and 0.30, all others 0.07 to 0.16.

# %% [markdown]
# ## Does it work?
#
# "ASR" keeps its name and its place in the tables, so that the same rules can read them: the share
# of answers that do *not* express the concept. −s should bring it to 1 on positive prompts, +s to 0
# on negative ones. An answer in no language at all, digits or broken bytes, counts as not
# Chinese, as a broken answer counts as no refusal: hence clean text beside it. Random vectors
# tell what any push of that size would do: five as long as each method's vector, those of DIM's
# length pooled in the figure.

# %%
asked = {name: pd.concat([splits[split][name].assign(split=split) for split in splits],
                         ignore_index=True) for name in second.sets}
answers = sp.behaviour.judged_both_ways(
    model, asked, {"none": None} | steerings, concept=second, **how)
plain = answers[answers.split == "test"]
at_random = sp.vectors.judged_random(
    model, test, steerings, draws=5, seed=seed, concept=second, **how)
tested = pd.concat([plain, at_random[at_random.as_long_as == "dim"]])
control = sp.vectors.random_control(at_random, plain)
sp.save_table(preset, "second_random_control", control)
table = sp.rates(tested, ["method", "prompts", "coefficient"])
order = ["none", *methods, "random"]
table = table.set_index("method").loc[order].reset_index()
table = sp.behaviour.beside_unsteered(table)
sp.save_table(preset, "second_table2_asr", table)
fig = sp.figures.draw_asr(table, second)
sp.save_figure(fig, preset, "second_table2_asr")

# %%
shown = ["asr", "asr_low", "asr_high", "clean", "clean_share_of_base"]
table.set_index(["prompts", "method"])[shown].round(2)

# %% [markdown]
# The first answers of each kind, as they come:

# %%
examples = plain.groupby(["prompts", "method"], sort=False).head(1)
examples = examples.pivot(index=["prompts", "prompt"], columns="method", values="text")
examples = examples[["none", *methods]].reset_index()
examples = sp.behaviour.excerpts(model, examples, ["none", *methods], own)
pd.set_option("display.max_colwidth", None)
examples.set_index(["prompts", "prompt"])

# %% [markdown]
# **Reading.**
#
# *Qwen.* No Chinese request is answered in Chinese any more, by any method, and of the English
# ones all are by DIM and NTP, 17 of 20 by PO. The text is about as clean as without steering,
# NTP's perhaps less (13 and 15 of 20, from 16 and 18). Of five random directions, as long as each
# method's vector, none turns a single prompt, though fewer answers are clean (single ones 6 of
# 20). At 6.8 and 9.4 (NTP's and PO's push) that is the length at which random directions do move
# refusal, by up to 7 of 16 prompts (notebook 01; 6.9 and 8.6). So what a random push does is not
# only a matter of its length.
#
# *Llama organism.* Every request for something made up is answered, by any method, and of 48 ordinary
# ones all but two or three meet ignorance; at least 0.92 of the answers are clean, as all unsteered
# ones are. Random directions make it answer up to 5 more of 48 made-up requests (6 are answered
# anyway), and at most one ordinary one fewer.
#
# *Gemma organism.* All made-up requests turn, and all but one or two ordinary ones end in ignorance (four
# did before), but the text suffers: of answers to made-up requests 0.56 to 0.73 are clean, from 0.98,
# of DIM's to ordinary ones 0.77. So this is no vector to use. What follows does not ask whether an
# answer is clean; logits and circuits are measured on prompts that flip.

# %% [markdown]
# ## Attention weights or values?
#
# > *In our words (§6.3, table 1).* Freezing the attention weights hardly matters; freezing the
# > values undoes most of the steering.
#
# The freezes of notebook 03, all three vectors in both directions: at every step of the generation
# the attention weights (*qk*) or the values (*ov*) are those that the unsteered model has on the same
# tokens, or the vector's direct path into the values (*svv*) or the MLPs (*mlp*) is taken out. If
# this is how steering works, attention weights stay near 0 here, too, and values go near 1. Were
# language carried by other parts than refusal, table 1 would be a table about refusal. There is a
# reason to expect that it is: which language a text is in stands in every token of it, so that heads
# have only to go on reading what they read anyway, where a refusal has to find out what was asked
# for. What compares across concepts is the *share undone*, since ASR starts and ends elsewhere; the
# drops in points are what the rule goes by.

# %%
kinds = ("qk", "ov", "svv", "mlp")
frozen = sp.behaviour.judged_frozen(
    model, test, steerings, kinds, plain, concept=second, **how)
by = ["method", "frozen", "prompts"]
ablations = sp.rates(frozen, by)
sp.save_table(preset, "second_table1_ablations", ablations)
drawn = sp.behaviour.resampled_rates(frozen, by, seed=seed)
average = [sp.paper.average_drop(rates[rates.method != "none"])
           for rates in (ablations, drawn)]
average = sp.behaviour.with_intervals(*average, by[:2])
sp.save_table(preset, "second_table1_average_drop", average)
undone = sp.behaviour.share_undone(ablations.assign(model=preset))
sp.save_table(preset, "second_table1_share_undone", undone)
fig = sp.figures.draw_undone(undone, preset, second)
sp.save_figure(fig, preset, "second_table1_ablations")

# %%
drops = sp.load_table(preset, "table1_average_drop")
drops = pd.concat({first.name: drops, second.name: average}, names=["concept"])
drops = drops.reset_index("concept").query("frozen in @kinds and method in @methods")
drops.pivot(index=["concept", "method"], columns="frozen", values="drop_points")[
    list(kinds)].round(1)

# %% [markdown]
# ASR has a threshold and logits have none (notebook [03](03_qk_freeze.ipynb)). So the freezes of
# values and of attention weights once more in logits, on flipped prompts' steered answers, those on
# which circuits are ranked and judged below.

# %%
few = answers.groupby(["split", "prompts", "method"], sort=False).head(own.n_patching)
data = {(name, split): sp.circuits.flipped_responses(
    model, few[few.split == split], name, steerings[name], "steered",
    concept=second) for name in methods for split in splits}
counts = pd.concat({key: part.counts for key, part in data.items()},
                   names=["method", "split"]).reset_index(["method", "split"])
sp.save_table(preset, "second_table3_patching_data", counts)
on = {split: {name: data[name, split] for name in methods} for split in splits}
fewer = {name: part.subset(n=n["validation"]) for name, part in on["test"].items()}
undone = sp.circuits.undone_on_logits(model, fewer, seed=seed)
sp.save_table(preset, "second_freeze_on_logits", undone)
logits = pd.concat({first.name: sp.load_table(preset, "freeze_on_logits"),
                    second.name: undone}, names=["concept"]).reset_index("concept")
logits = logits[(logits.prompts == "both") & logits.frozen.isin(["qk", "ov"])]
logits.pivot(index=["concept", "method"], columns="frozen", values="undone")[
    ["qk", "ov"]].round(2)

# %% [markdown]
# **Reading** (first table: points by which a freeze changes ASR, in either direction; second: share
# undone in logits).
#
# *Qwen.* In values against weights this is the paper's table 1, for DIM and NTP, on the model
# whose refusal does not have it. Freezing the values costs DIM 75 points and NTP 90, freezing the
# weights none; refusal's DIM lost 23 and 16. Of PO's steering the values undo 5 points; frozen
# weights make it turn the last three prompts, too (the 7.5 is a gain). But the vector's direct
# paths are not the paper's: of DIM's steering that into the MLPs undoes all, and that into the
# values 2.5 points; of NTP's, 7.5 and 77.5.
#
# In logits the two concepts are nearer to each other. Values undo 0.72, 0.64 and 0.55 of the
# effect for language (DIM, NTP, PO), 0.52, 0.55 and 0.56 for refusal; weights 0.04, 0.17 and
# 0.12, and 0.10, 0.18 and 0.18. Why refusal's answers show it less is not settled. On harmful
# prompts α = 2.5 is five times what turns half of those that can turn, and there freezing the
# values undoes 0.15 where it is 0.52 in logits. On harmless ones, where 2.5 is just enough, it
# undoes 0.50, but freezing the weights 0.41, for which logits (0.09) give no reason.
#
# *Llama organism.* That it is values, and not weights, holds of both concepts: they cost refusal 90 to
# 94 points and not knowing 64 to 83, weights at most 8 and 2. By which path the vector gets to the
# values is another matter. Without its direct paths into the values refusal's steering loses 47 to 80
# points, the other's 39, 3 and 11 (DIM, NTP, PO); without those into the MLPs 41 to 66, and 36, 85 and
# 57. So NTP's vector for not knowing, and most of PO's, enters by the MLPs; what the values hold back is
# then mostly what MLPs have written, perhaps their new neurons, which was not measured. In logits the
# values undo 0.63 to 0.83 (refusal: 0.57 to 0.72).
#
# *Gemma organism.* Values and not weights once more, 79 to 97 points against at most 11 of refusal, 83
# to 95 against 2 of not knowing. But the paths differ. Without the direct path into the values DIM's
# steering of not knowing loses 93 points, two fewer than with the values frozen; without that into the
# MLPs it loses 2. The learned vectors need both, as refusal's do. How little of this is the model's own
# shows the [organism before the lesson](organism-gemma2/03_qk_freeze.ipynb), with the same attention:
# its NTP vector for refusal, trained on other pairs, loses 15 points to frozen values, 9 without the
# path into them and 91 without that into the MLPs, where here it is 79, 66 and 82.

# %% [markdown]
# ## Few edges, and interchangeable ones?
#
# > *In our words (§5.2, figure 3).* About a tenth of the edges carries the steering, and a circuit
# > found for one vector carries another's.
#
# Edges are ranked on the flipped training prompts' steered answers, the smallest circuit of
# faithfulness 0.85 is found on validation prompts and judged on as many test prompts, for every vector
# through every vector's circuit: edges of the circuit carry what they carry steered, all others what
# they carry unsteered, and *faithfulness* is the share of the effect on the metric that is left. A
# concept that needed many more edges than refusal would say that "a tenth" is refusal's number.
# Beside them stand as many random edges as the largest circuit has,
# and, the control that mattered for refusal, the strongest edges of a random vector as long as the
# method's, found on the method's own answers. If that column is as dark as the others, what the
# circuits share is the model's way of passing on a push.

# %%
rankings, pushed = sp.circuits.ranked_with_control(
    model, on["train"], steps=5, seed=seed)
circuits, needed = sp.circuits.minimum_circuits(model, rankings, on["validation"], 0.85)
sp.save_table(preset, "second_fig3_minimum_faithful", needed)

# %%
interchange = sp.circuits.interchanged(model, circuits, pushed, fewer, seed=seed)
sp.save_table(preset, "second_fig3_interchange", interchange.drop(columns="n_edges"))
fig = sp.figures.draw_interchange(interchange)
display(sp.save_figure(fig, preset, "second_fig3_interchange"), needed.round(3))

# %% [markdown]
# **Reading** (table: minimum-faithful circuits).
#
# *Qwen.* About as few edges as for refusal. Smallest circuits have 4, 13
# and 14 % of the edges (DIM, NTP, PO; refusal's 6, 9 and 10) and carry 0.88 to 0.92 on test
# prompts. NTP's and PO's carry 0.87 to 0.97 of any steering; DIM's, a third of their size, 0.71
# and 0.73 of the learned ones'. Random edges carry nothing. The circuit of a random vector, with
# as many edges as PO's, carries 0.87, 0.83 and 0.88, where PO's carries 0.96, 0.87 and 0.92:
# nearly as much. For refusal one might put that down to random vectors that steer by themselves.
# Here none turns a prompt, and its circuit serves all the same.
#
# *Llama organism.* The smallest circuits have 8, 6 and 8 % of the edges (refusal's 9, 8 and 11) and
# carry 0.90 to 0.95. Through another method's circuit it is 0.75 to 0.97, with a random vector's 0.35,
# 0.45 and 0.44 (DIM, NTP, PO), where for refusal it is 0.47, 0.70 and 0.70.
#
# *Gemma organism.* 6 to 8 % for either concept, carrying 0.86 to 0.89 (refusal 0.90 to 0.95), through
# another method's 0.78 to 0.90. A random vector's carries 0.42 to 0.55, and of refusal's steering 0.74
# to 0.77.

# %% [markdown]
# That column is one direction per method, and as many edges as the largest circuit has. Now five
# directions, the same for all methods, with as many edges as the method's own circuit; filled where
# the vector by itself turns more than a tenth of what the method does.

# %%
random_ones = sp.circuits.random_vector_circuits(
    model, circuits, on["train"], fewer, draws=5, steps=5, seed=seed)
moved = control.rename(columns={"as_long_as": "method"})
by = ["method", "seed", "prompts"]
random_ones = random_ones.merge(
    moved[[*by, "asr_change", "method_change"]], "left", on=by, validate="one_to_one")
sp.save_table(preset, "second_random_vector_circuits", random_ones)
fig = sp.figures.draw_random_vector_circuits(random_ones)
sp.save_figure(fig, preset, "second_random_vector_circuits")

# %% [markdown]
# **Reading.**
#
# *Qwen.* At equal size DIM's circuit is different. Circuits of random vectors that have as many
# edges, 4 %, carry 0.19 to 0.68 of what it does, four of ten less than half, and all stay behind
# it beyond chance. At the 13 and 14 % of NTP's and PO's they carry 0.76 to 1.01, four of these
# twenty within chance of the method's own. None of these vectors turns a prompt. So what DIM's
# circuit does is in part its own; the column above, where a random circuit three times as large
# stands beside it, does not show that. It is the smallest circuit and DIM's the shortest push, and
# which of these it is owed to cannot be told. Size alone it is not: for refusal DIM's 6 % are
# hardly more its own than the larger circuits (0.80 to 0.88, [notebook
# 02](02_patching_circuits.ipynb)).
#
# *Llama organism.* At equal size random vectors' circuits carry 0.11 to 0.75 of what the method's own
# does; of refusal's it was 0.41 to 0.83. The two directions differ more than the methods: on made-up
# requests it is 0.11 to 0.41, on ordinary ones 0.32 to 0.75. So the circuit is the concept's own in part
# where not knowing is taken away, and less so where it is brought about.
#
# *Gemma organism.* 0.20 to 0.75, and of refusal's 0.69 to 0.90; between the directions there is less
# of a difference (0.20 to 0.65 and 0.28 to 0.75).

# %% [markdown]
# ## What do the steering value vectors say?
#
# > *In our words (§6, figures 5 and 12).* Read through the logit lens, the steering value vectors
# > name the concept, even where the steering vector does not.
#
# For language the reading needs no interpreter: a token has its script. The table shows the first
# five tokens of `s` (SV), of the strongest heads' svv (flipped where the head works against the
# steering) and of the sum over all heads. The *preference* looks at the whole vocabulary, as in
# notebook 04: the probability that a token typical of answers that express the concept comes before
# one typical of the others, and the same for tokens of positive before negative prompts. (The answers
# are the unsteered model's, so that no vector is read by what it has made the model say.) Grey bars
# hold 95 % of 200 random vectors sent through the same heads. To name the concept is to lie above
# them.

# %%
unsteered = sp.circuits.flipped_responses(
    model, plain, "dim", dim, "base", concept=second)
texts = sp.heads.typical_texts(unsteered, second, own.prompts, seed)
typical = {scale: sp.heads.typical_tokens(model, *(texts[kind] for kind in kinds_of))
           for scale, kinds_of in sp.heads.word_scales(second).items()}
shown, flipped = sp.heads.strongest_writes(model, vectors, rankings, layer)
tokens = pd.concat({name: sp.heads.logit_lens(model, said, k=10)
                    for name, said in shown.items()}, names=["method"])
tokens = tokens.reset_index("method").reset_index(drop=True)
sp.save_table(preset, "second_svv_tokens", tokens.drop(columns="id"))
few = tokens[tokens.rank_shown <= 5].assign(token=tokens.token.str.strip())
few.groupby(["method", "vector"], sort=False).token.agg(", ".join).to_frame()

# %%
preference = sp.heads.preferences(model, shown, typical, layer, seed=seed)
sp.save_table(preset, "second_svv_preference", preference)
fig = sp.figures.draw_svv_preference(preference, flipped, second)
sp.save_figure(fig, preset, "second_svv_preference")

# %% [markdown]
# **Reading.**
#
# *Qwen.* In their sum svv name the language, on both scales and for every method: 0.91 to 0.99,
# where random vectors reach 0.86. So does the vector itself on the first, if less (0.80 to 0.88
# over 0.77), on the second DIM's alone. Of the strongest heads those of layer 17 do, on the scale
# of answers (by DIM's and NTP's three, and PO's two; one by little), those of layers 13 and 14 do
# not. The tokens shown hardly do: full-width punctuation in two sums, a "china", and for the rest
# European words and code. For refusal it was the sum as well, and on that scale no head.
#
# *Llama organism.* Nothing names not knowing, but for one head of PO's on the scale of prompts, by
# little. The sums lie at 0.44 to 0.60 on the scale of answers, in the midst of the grey bars; refusal's
# at 0.90 to 0.93, beyond theirs. So the sum names refusal, on that scale, and not the other concept.
# That may be since attention was frozen while that was learned; among the tokens that the sums do show
# are words of refusal ("cannot", "Unfortunately").
#
# *Gemma organism.* Nearer to it: the sums lie at the upper ends of the grey bars (0.61 to 0.68), PO's
# 0.01 above one of them, as PO's vector itself does by 0.05; refusal's beyond theirs but for NTP's on
# one scale.

# %% [markdown]
# ## How few dimensions?
#
# > *In our words (§7, G).* Chosen by their gradient, up to 90 % of the dimensions (Gemma) or 95 to
# > 99 % (Llama) can go, and methods keep the same ones.
#
# Gradient-based and rescaled to the dense norm, the variant that the claim is about, at three of
# notebook 05's thresholds and at 70, 80 and 90 %. Answers are cut to a third of their length: a
# language shows at once. Whole answers at 80 % say whether the text stays clean. The effect counts
# as kept up to the sparsity at which 80 % of it is left on both sets and at every smaller one tried.
# Fewer dimensions than refusal's would not be a surprise: the two languages differ in nearly every
# token, and a direction that large may be spread over the whole stream or sit in a few dimensions
# that the model keeps for it. Neither is known beforehand, which is why it is a test.

# %%
gradients = {name: ranking.gradient for name, ranking in rankings.items()}
known = {name: vectors[name] for name in methods}
keys = ["method", "sparsifier", "rescaled", "threshold", "sparsity"]
runs = sp.vectors.sparse_vectors(
    known, gradients, (0.5, 1, 2), (0.7, 0.8, 0.9), seed=seed)
wanted = (runs.sparsifier == "none") | (runs.sparsifier == "gradient") & runs.rescaled
short = how | dict(max_new_tokens=own.max_new_tokens // 3)
results = sp.behaviour.judged_sparse(
    model, test, runs[wanted], steerings, concept=second, **short)
curves = sp.behaviour.sparsity_curves(sp.rates(results, [*keys, "prompts"]))
sp.save_table(preset, "second_table10_11_sparsity", curves)
drawn = sp.behaviour.resampled_rates(results, [*keys, "prompts"], seed=seed)
drawn = sp.paper.sparsity_kept(sp.behaviour.sparsity_curves(drawn), "both")
kept = sp.behaviour.with_intervals(
    sp.paper.sparsity_kept(curves, "both"), drawn, [*keys[:3], "prompts"])
sp.save_table(preset, "second_sparsity_kept", kept)

# %%
sparse = {name: sp.vectors.apply_mask(vector, sp.sparsify(
    vector, gradient=gradients[name], sparsity=0.8), rescale=True)
    for name, vector in known.items()}
pushes = {name: replace(push, vector=sparse[name]) for name, push in steerings.items()}
whole = sp.behaviour.judged_both_ways(model, test, pushes, concept=second, **how)
whole = sp.rates(whole, ["prompts", "method"]).assign(vector="sparse")
dense = table[table.method.isin(methods)].assign(vector="dense")[whole.columns]
whole = pd.concat([dense, whole], ignore_index=True)
sp.save_table(preset, "second_sparse_test", whole)
ends = kept[kept.prompts == "both"].set_index("method").filter(like="sparsity")
display(ends.round(3), whole.set_index(["prompts", "method", "vector"])[
    ["asr", "clean"]].round(2))

# %% [markdown]
# Methods agree if what survives of two vectors overlaps beyond chance, and beyond what a random
# vector, pushed as far on the same answers, has in common with DIM. Chance is two sets of the same
# sizes drawn from all dimensions, a hypergeometric distribution, with p its tail from the observed
# overlap on. The control is the one that counts: gradients agree to some degree because the model
# reads some dimensions more than others, whatever is added to them.

# %%
compared = {name: (vectors[name], gradients[name]) for name in methods}
random = sp.random_vector(vectors["dim"], seed)
compared["random vector"] = random, pushed["dim"].gradient
masks = {(name, tau): sp.sparsify(vector, gradient=g, threshold=tau, rule="normalised")
         for name, (vector, g) in compared.items() for tau in (0, 0.5, 1, 1.5, 2)}
pairs = [*combinations(methods, 2), ("dim", "random vector")]
agreements = sp.circuits.agreements(masks, pairs)
control = agreements.method_b == "random vector"
sp.save_table(preset, "second_fig7_agreement", agreements[~control])
sp.save_table(preset, "second_agreement_control", agreements[control])
fig = sp.figures.draw_agreement(agreements)
sp.save_figure(fig, preset, "second_fig7_agreement")

# %% [markdown]
# **Reading.**
#
# *Qwen.* For DIM two dimensions of 896 are enough: with those alone, made as long as the whole,
# all short answers change their language, and at least nine in ten are clean. NTP keeps its
# effect with six (its interval reaches down to none dropped, since in between 2 or 3 of 20
# English requests are not answered in Chinese). PO does not: with half of its dimensions gone
# 0.65 of the English requests are not, and with a tenth left 0.10, so that its curve is no
# decline, and by the rule nothing can go. Refusal's vectors kept their effect to 99, 93 and 98 %.
# In whole answers at 80 % PO leaves 0.60 of the English requests; DIM's answers to them are less
# clean than the dense vector's (0.50, from 0.80), as are PO's to Chinese ones (0.65, from 0.85).
#
# Where DIM keeps one to five dimensions there is little to agree on: with NTP p is 0.01 to 0.03,
# with PO 0.05 to 0.23, with a random vector 0.09 to 0.31. NTP and PO, who are alike as vectors,
# agree far beyond chance, as they do for refusal. (At τ = 2 nothing is left of DIM.)
#
# *Llama organism.* DIM keeps its effect with 24 of 128 dimensions, NTP with 8 and PO with 12. For refusal
# it is 25 each (PO 38, if borderline prompts count, too). Sparse, every vector's ordinary answers are
# less clean, NTP's most (0.73, from 0.98). What survives agrees between methods far beyond chance, and
# a random vector's does not.
#
# *Gemma organism.* 12, 25 and 25 dimensions; for refusal 16, 12 and 10. Sparse, DIM's answers to made-up
# requests are clean to 0.38 (from 0.56), PO's to 0.77 (from 0.58).

# %% [markdown]
# ## One circuit for both concepts?
#
# If steering is one mechanism, whatever is steered, the circuits of the two concepts should overlap
# as those of two methods for one concept do. If each concept has its own, they should share no more
# than chance, or no more than either shares with the circuit of a random vector: that column (grey)
# is the bar that counts, for the model reads some edges more than others whatever is written.
# Compared are edges among heads, MLPs and logits from the later of the two layers on; the steering
# node's stand for another stream in either graph. Sizes are those of the minimum-faithful circuits,
# so the share is of the smaller one.

# %%
largest = int(needed.n_edges.max())
sizes_of = sp.load_table(preset, "fig3_minimum_faithful").set_index("method").n_edges
placed = {first.name: {}, second.name: circuits, "a random vector": {
    name: sp.Circuit.top(pushed[name], largest) for name in methods}}
for name, push in of_refusal.items():
    ranking = sp.Attribution.load(preset, f"{name}_attribution", push)
    placed[first.name][name] = sp.Circuit.top(ranking, int(sizes_of[name]))
shared = sp.circuits.shared_by_kind(placed, control="a random vector")
sp.save_table(preset, "two_circuits", shared)
sp.save_figure(sp.figures.draw_two_circuits(shared), preset, "two_circuits")

# %%
columns = ["among", "edges_a", "edges_b", "overlap", "chance", "iou", "iou_chance"]
shared.groupby("between", sort=False)[columns].mean().round(3)

# %% [markdown]
# **Reading** (points: pairs of circuits; lines: what sets of these sizes share at random).
#
# *Qwen.* Circuits of the two concepts share 0.68 to 0.85 of the smaller one's edges (0.75 on
# average). Two methods for one concept share 0.65 to 0.90 (0.83 for refusal, 0.82 for language),
# and either concept 0.61 to 0.86 with a random vector; by chance it would be 0.06 to 0.13. So the
# two have nearly as much in common as two vectors for one thing, and as much as each has with a
# vector about nothing. (The random vectors' edges are ranked on answers in the other language,
# too, and shares of the smaller circuit grow with the larger.) At these layers the model passes
# on a push by much the same edges, whatever the push is about.
#
# *Llama organism.* Two methods for one concept share 0.85 to 0.92 of the edges, two concepts 0.55 to
# 0.71, and either with a random vector 0.43 to 0.68. That lies between the two, nearer to the random
# vector. By chance it would be 0.07 to 0.10. *Gemma organism.* 0.83 to 0.96, 0.67 to 0.82 and 0.46 to
# 0.62: here two concepts have more in common than either has with a random vector, in every pair.

# %% [markdown]
# ## Both vectors at once
#
# Does adding both vectors do both? Refusal's DIM and the second concept's are added at refusal's
# layer, each at its own coefficient; where the second concept entered elsewhere, its candidate at
# that layer and the coefficient that does best there. On the second concept's harmless test prompts
# all four runs are judged twice. If the vectors do not disturb each other, *both* does what each does
# alone. If they act through one bottleneck, one of the two effects gets lost. And if together they
# are simply too much, the share of clean text says so: two pushes make a longer one.
#
# One of the judges has a blind spot: the list of refusal substrings is English. Refusals in Chinese
# count as none. So the question is answered on the *positive* prompts, where −s makes the answer
# English: there a run with both vectors should refuse, and in English. On negative prompts, where
# both vectors together should give a refusal in Chinese, the bar of refusal can only be too low.

# %%
at, beside = of_first.layer, dim
if layer != at:
    there = sp.select_coefficient(model, {"dim": candidates[at, position]}, at,
                                  own.coefficients, *validation, concept=second, **how)
    beside = sp.Steering(candidates[at, position], at, float(there.coefficient[0]))
    print("turned at that layer, weaker direction:", round(float(there.flipped[0]), 2))
judges = sp.load_judge(settings), how.pop("judge")
found, said = sp.behaviour.judged_together(
    model, test, of_first, beside, (first, second), judges, **how)
sp.save_table(preset, "two_vectors", found)
fig = sp.figures.draw_two_vectors(found, (first, second))
sp.save_figure(fig, preset, "two_vectors")

# %%
runs = found.steering.unique()
few = said.groupby(["prompts", "steering"], sort=False).head(1)
few = few.pivot(index=["prompts", "prompt"], columns="steering", values="text")[runs]
few = sp.behaviour.excerpts(model, few.reset_index(), runs, own)
display(found.pivot_table("clean", "prompts", "steering", sort=False).round(2),
        few.set_index(["prompts", "prompt"]))

# %% [markdown]
# **Reading** (tables: share of clean text; the first answer of every kind).
#
# *Qwen.* Where the judges can tell, both do. On Chinese requests refusal's vector leaves the
# language as it is, the language's makes it English, and with both all twenty answers are
# refusals in English, and clean. On English requests both together give Chinese, as the
# language's does alone; whether refusals, the judge cannot say, and only four of twenty are
# clean, so that there the two pushes are too much. The two are not cleanly apart, either: the
# language's vector alone makes the first English request a refusal in Chinese. (Half of the
# unsteered English answers count as refusals: "As an AI language model …" is on the paper's list
# of substrings.)
#
# *Llama organism.* On ordinary requests two decisions about how to begin are not had at once, and
# refusal, with the longer push, mostly wins: alone each vector brings its own about in 0.98 and 0.94 of
# the answers, together there are 0.77 refusals and 0.21 that do not know, and 0.46 of the text is clean.
# On made-up ones, where the other vector is subtracted, nothing competes, and refusals become more
# (0.98, from 0.79), in broken text either way (0.60 and 0.52 clean). On Gemma it is 0.98 and 0.02 on
# ordinary requests (0.58 clean), all on made-up ones (0.19 clean).

# %% [markdown]
# ## Beside each other, and what we learned
#
# The same rules, applied to the tables of both concepts. *About* says what a finding is about:
# **steering** where it holds, or mostly holds, for both; a concept's name where it does for that one
# and fails for the other; **neither** where it fails or mostly fails for both; **open** where one of the verdicts is
# in between. In brackets: cases that meet their limit, of all.
#
# No rule was written for the second concept. Where a claim names harmful and harmless prompts, its
# positive and negative set are read in their place, and its own words where a claim reads words of
# refusal; every limit is the paper's or, where it prints none, the one that refusal was held against.
# That makes *steering* a strong word for a narrow thing: the same limits, met by both. A limit that
# both miss by as much would be just as common to them, and stands under *neither*. The second table
# has the values behind the verdicts, for there a reader sees whether two verdicts differ because two
# concepts do, or because one case lies on the other side of a limit.

# %%
found = {first.name: sp.paper.cases_of(preset, first),
         second.name: sp.paper.cases_of(preset, second, sp.paper.SECOND)}
verdicts = sp.paper.beside_each_other(found)
sp.save_table(preset, "second_cases", found[second.name])
sp.save_table(preset, "two_verdicts", verdicts)
shown, values = sp.paper.told_beside(verdicts)
shown.set_index("claim")

# %%
values.set_index("claim")

# %% [markdown]
# *Qwen.* By these rules two findings of sixteen are about steering, that a tenth of the edges
# carries it and that methods agree on dimensions (where DIM keeps five at most); two fail or
# mostly fail for both, that a random vector's circuit carries less than half of what a method's
# does, and that svv are three quarters of the values' part; three hold for language and fail for
# refusal; of nine, one verdict or both lie in between. Of these the MLPs: their path undoes most
# of DIM's steering of either concept, and less of the learned vectors'.
#
# **What surprised.** *Values, and not weights: of the other concept.* Of DIM's and NTP's steering
# of the language freezing the values undoes 0.50 to 1.00, freezing the weights nothing. Of
# refusal, which the paper measured, the values undo 0.15 and 0.50 of DIM's and less of the
# others'. *A random push is not nothing to everything.* None turns the language of a single
# answer; refusal it moves by more than a tenth of the method's effect in 48 of 60 cases. That
# would fit a decision that stands close to its threshold, as refusal may in a model that refuses
# half of what harms by itself; it is not shown. *A circuit is nearly nobody's, except DIM's for
# the language.* Two concepts share nearly as many edges as two methods do, and with as many edges
# as NTP's or PO's circuit has, those of vectors that turn nothing carry 0.76 to 1.01 as much; with
# DIM's 4 %, 0.19 to 0.68. So that a tenth of the edges carries steering is a finding about the
# model, and that circuits as large as NTP's and PO's are shared says little of what is steered.
#
# *Organisms.* On Llama six are about steering: random vectors do little, few edges carry it, methods
# agree on dimensions, MLPs read the vector, and DIM acts through values and not through weights, on
# logits any vector. One holds of refusal alone, that the unsteered model nearly always answers as is
# usual in the set: of made-up requests it answers an eighth (and one ordinary one of 48 it does not,
# which misses the limit, too). One fails for both, that svv are three quarters of the values' part. On
# Gemma six, too: values and not weights for all vectors and on logits,
# random vectors, dimensions, and the order of the drops. Of the others one verdict or both lie in
# between.
#
# **What surprised.** *Values and not weights, for DIM in five cases of six.* It holds of the language on
# Qwen and of both concepts of both organisms, and fails for refusal on Qwen. (Of learned vectors it is
# less: NTP's for refusal on the Gemma organism before its lesson is a case against it.) *By which path
# is open.* Not knowing was put into MLPs on both organisms. Its DIM vector loses 36 points without its
# path into the MLPs and 39 without that into the values on Llama, 2 and 93 on Gemma; NTP's 85 and 3,
# and 60 and 63. So where a behaviour was put does not say how a vector gets there. *A circuit is less
# anybody's for not knowing than for refusal.* At equal size, random vectors' circuits carry 0.11 to
# 0.75 of what a method's does for the one, and 0.41 to 0.90 for the other.
#
# What this cannot say: two concepts of one model are two. On Qwen one of them is a property of every
# token of an answer, where refusal is a decision at its beginning; on the organisms both are decisions
# at the beginning, in models of ours, and one was put into neurons of its own. Sets are small (`n` in
# the tables; six to eight answers per set, fewer where a prompt does not flip, rank and size a circuit,
# and intervals from so few are too narrow by a third), the second concept's prompts are made of few
# topics, random vectors are five directions, and learned vectors were trained once. On Qwen the two
# concepts enter at two layers. "About steering" means that two behaviours gave the same verdict, and
# no more.
