# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 7. Layers and robustness
#
# > *The paper's choice, in our words (§3.2).* One steering layer per model, chosen by DIM's
# > scores, at which all of it was measured, on prompts of one kind.
#
# Three questions that the paper leaves open. Is what we found true of steering, or of one
# layer? What does steering do beside its purpose? And does it still work when the same request
# is put to the model in another way?
#
# **Layers.** Notebook [03](03_qk_freeze.ipynb) finds which part of the layers above carries the
# steering: attention weights, values, or the MLPs. A vector added earlier has more layers to act
# through, and may act through others. Is "not the attention weights" (the paper), or "the MLPs" (ours),
# true of steering this model, or of one layer?
#
# So the same three methods at two more layers, a fifth of the depth before the chosen one and
# behind it, and the same freezes. Besides those of table 1 there are two total ones: the MLPs
# write what they write in the unsteered run (*mlp-total*), and so does attention, too
# (*residual-only*): then the vector reaches the logits by the residual stream alone. Then the
# circuits of notebook [02](02_patching_circuits.ipynb), found anew at each of the layers. And
# since our selection departs from the paper's rule, the vector that the rule as printed would
# have taken goes through the same freezes.
#
# **Side effects** are measured on harmless text, closed questions and requests that only sound
# harmful, for every method and a random vector at the strength at which it steers. **Prompts put
# in other ways** leave the request as it is and change what stands around it.
#
# *Reads* the model, the prompts, and what notebook 01 has chosen. *Writes* the tables
# `layer_methods`, `layer_freezes`, `layer_undone`, `layer_circuits`, `layer_overlap`,
# `rule_winner`, `collateral`, `shift_list` and `shifts`, and four figures. Freezes are in
# [`freezing.py`](../steerpaper/freezing.py), circuits by layer in
# [`layers.py`](../steerpaper/circuits/layers.py), side effects in
# [`collateral.py`](../steerpaper/behaviour/collateral.py), and ways to put a prompt in
# [`shifts.py`](../steerpaper/prompts/shifts.py).

# %% tags=["parameters"]
preset = "organism-llama"
seed = 0

# %%
from itertools import combinations

import pandas as pd
import torch
from IPython.display import display

import steerpaper as sp

sp.check_parameters(preset=preset, seed=seed)
sp.use_style()
settings = sp.get_preset(preset)
preset = settings.name
model = sp.load_model(preset)

# %%
pd.set_option("display.max_colwidth", None)
concept = sp.get_concept(settings.concept)
splits = {split: list(sp.concept_prompts(concept, split, n, settings.prompts).values())
          for split, n in settings.split_sizes.items()}
judge, batch = sp.load_judge(settings), dict(batch_size=settings.batch_size)
sizes = dict(max_new_tokens=settings.max_new_tokens, **batch)
how = dict(judge=judge, vocabulary=sp.vocabulary(settings.prompts), **sizes)
methods = [name for name, method in sp.METHODS.items() if not method.baseline]
chosen = {name: sp.load_steering(preset, name) for name in methods}
position = int(sp.load_table(preset, "dim_selection").position[0])
layer = chosen["dim"].layer
step = round(model.n_layers / 5)
others = [i for i in (layer - step, layer + step) if 0 < i < model.n_layers]
layers = sorted([layer, *others])
print("layers:", layers, "of", model.n_layers)

# %% [markdown]
# ## The three methods at the other layers
#
# DIM is the candidate of notebook 01 at that layer and the chosen position. NTP and PO are
# trained on notebook 01's contrastive pairs, at the setting that won there: what differs between
# layers is then the place, and neither the data nor the training. (The pairs were made under DIM
# of the chosen layer, which may favour that layer a little.) Every coefficient is chosen on
# validation prompts as in notebook 01, though on fewer, those on which notebook 02 chooses the
# size of circuits: a vector's length is a matter of its layer.
#
# A layer can only tell where steering goes if steering works there. *Flipped* is the share of
# validation prompts that turn, in the weaker direction; *flipped_clean* asks for clean text, too.

# %%
candidates = sp.difference_in_means(model, *splits["train"], **batch)
counts = {"train": settings.n_pairs, "validation": settings.n_validation_pairs}
pairs = [sp.contrast_pairs(model, *(table[:n] for table in splits[split]),
                           chosen["dim"], judge, concept=concept, **sizes)
         for split, n in counts.items()]
one_run = sp.vectors.winning_runs(settings, sp.load_table(preset, "learned_grid"))

# %%
n = min(settings.n_patching, settings.n_validation)
validation = [table.head(n) for table in splits["validation"]]
steerings, ranked = {layer: chosen}, []
for at in (i for i in layers if i != layer):
    dim = sp.Steering(candidates[at, position], at, 1.0)
    vectors = {}
    for name in methods:
        given = sp.Ingredients(model, *splits["train"], dim, position, *pairs,
                               one_run.get(name, settings), seed)
        vectors[name] = sp.METHODS[name].extract(given).vector
    table = sp.select_coefficient(
        model, vectors, at, settings.coefficients, *validation, concept=concept, **how)
    best = table.groupby("method", sort=False).first()
    steerings[at] = {name: sp.Steering(vectors[name], at, float(best.coefficient[name]))
                     for name in methods}
    ranked.append(best.assign(layer=at))
steerings = dict(sorted(steerings.items()))
ranked = pd.concat(ranked).reset_index()
sp.save_table(preset, "layer_methods", ranked)
shown = ["coefficient", "flipped", "flipped_clean"]
ranked.set_index(["layer", "method"])[shown].round(2)

# %% [markdown]
# ## The freezes of table 1, and two total ones
#
# Each freeze holds its part in all layers from the steering layer on, as if there were no
# steering, for each method and in both directions. *Share undone* is 0 where attack success stays
# what it is under steering, and 1 where it is what it is unsteered; it says nothing where little
# was done, and is left out where steering moves ASR by less than half. If the paper's finding
# holds throughout, attention weights stay near 0 at every layer and in every column.

# %%
n = dict.fromkeys(splits, settings.n_patching_by_layer) | {"test": settings.n_by_layer}
asked = {name: pd.concat([splits[split][i].head(n[split]).assign(split=split)
                          for split in splits], ignore_index=True)
         for i, name in enumerate(concept.sets)}
test = {name: table[table.split == "test"] for name, table in asked.items()}
answers = {at: sp.behaviour.judged_both_ways(
    model, asked, {"none": None} | own, concept=concept, **how)
    for at, own in steerings.items()}

# %%
kinds = ("qk", "ov", "svv", "mlp", "mlp-total", "residual-only")
rows = []
for at, own in steerings.items():
    plain = answers[at][answers[at].split == "test"]
    frozen = sp.behaviour.judged_frozen(
        model, test, own, kinds, plain, concept=concept, **how)
    rows.append(frozen.assign(layer=at))
keys = ["layer", "method", "frozen", "prompts"]
freezes = sp.rates(pd.concat(rows), keys)
sp.save_table(preset, "layer_freezes", freezes)
undone = freezes.rename(columns={"layer": "model"})
undone = sp.behaviour.share_undone(undone, least=0.5).dropna()
undone = undone.rename(columns={"model": "layer"})
sp.save_table(preset, "layer_undone", undone)
fig = sp.figures.draw_undone_by_layer(undone, list(concept.sets))
sp.save_figure(fig, preset, "layer_undone")

# %%
freezes.pivot(index=keys[:2], columns=["prompts", "frozen"], values="asr")[
    [(name, kind) for name in concept.sets for kind in ("none", *kinds)]].round(2)

# %% [markdown]
# **Reading.** Freezing attention weights undoes little at any layer, a fifth at most, under any method,
# on both organisms. Which part does carry the steering depends on the layer: at the earliest the
# values, at the chosen one values, MLPs or both, at the last the MLPs on organism-gemma2, and both
# alike on organism-llama (DIM more by values, NTP by MLPs): there freezing the values leaves what the
# learned vectors do as it is, or half of it.

# %% [markdown]
# The total freezes say less than they seem to, and that is what they are for. The residual path
# alone carries little (at most a quarter, at the last layer): the vector is not read off at the
# logits, layers have to act on it. Holding all that the MLPs write undoes most of it at every
# layer, but an MLP is also where what the values have moved arrives: the total freeze of a part
# is no proof that this part reads the vector, as the freeze of its direct path is.
#
# *Qwen2.5-Coder-0.5B, a real model, [on its own
# page](qwen2.5-coder-0.5b-instruct/07_layers_and_robustness.ipynb).* It answers five of the
# eight harmful prompts unsteered, so that at most three can turn: the figure has harmless
# ones alone, and DIM only at the layer that was chosen for it (at 9 it turns two of eight, at
# 19 one). Of these eight, no freeze of one part but all that the MLPs write undoes more than
# a half at any layer; of a hundred, DIM's direct path into the MLPs does (notebook 03).
# Attention weights undo a third of DIM's and at most a seventh of the others'. What changes
# with depth is how far steering goes by the residual path alone: next to nothing at layers 9
# and 14, where holding the MLPs undoes three quarters and more, and nearly all at 19, where
# no freeze undoes more than one prompt of eight. There the learned vectors are read off at
# the logits. (All of this in answers; notebook 03 has the chosen layer in logits, where it
# looks otherwise.)

# %% [markdown]
# ## Circuits at the other layers
#
# Notebook 02 finds, at the chosen layer, a small circuit that carries the steering, and mostly
# the same one for all methods. Here the same at the other layers: edges ranked by attribution on
# flipped training prompts, the smallest circuit of faithfulness 0.85 on validation prompts, and
# what it carries of test prompts. To be able to afford nine of them, there are fewer prompts
# (`n_patching_by_layer`), steered answers only and five steps of integration instead of ten (in
# notebook 02 five pick the same strongest tenth of the edges as twenty do, on both organisms). So
# compare sizes here with each other, not with those of notebook 02.
#
# A graph begins at its steering layer: an earlier one has more edges. Sizes are therefore shares
# of each graph. Faithfulness well below 0.85 on test prompts would say that the prompts are too
# few to find a circuit at that layer.

# %%
circuits, found = sp.circuits.circuits_by_layer(
    model, steerings, answers, steps=5, concept=concept, seed=seed)
sp.save_table(preset, "layer_circuits", found)
missing = found.missing[found.missing != ""]
print("without a circuit:", *(missing if len(missing) else ["none"]), sep="\n")

# %% [markdown]
# Are they one circuit, entered at several places? What two graphs have in common are the edges
# among heads, MLPs and logits from the later layer on. (The steering node's are left out: it
# stands for another stream in each.) Of these the table counts how many both circuits have
# (*overlap*, of the smaller part), beside what two sets of such sizes share at random. The
# measure for "the same circuit" is what two *methods* at one layer share on such edges. If
# circuits of one method at two layers share as much, steering joins one mechanism wherever it
# enters. If they are near chance, every layer has its own. *Cosine* is that of the two vectors:
# circuits may be alike because the vectors are.

# %%
places = [(at, name) for at, own in steerings.items() for name in own]
pairs = [(a, b) for a, b in combinations(places, 2) if (a[0] == b[0]) != (a[1] == b[1])]
keys = ["layer_a", "method_a", "layer_b", "method_b"]
cosines = pd.DataFrame([
    (*a, *b, float(torch.cosine_similarity(
        steerings[a[0]][a[1]].vector, steerings[b[0]][b[1]].vector, dim=0)))
    for a, b in pairs], columns=[*keys, "cosine"])
with_circuits = [pair for pair in pairs if {*pair} <= {*circuits.index}]
shared = sp.circuits.shared_above(circuits, with_circuits)
overlaps = cosines.merge(shared, "left", on=keys)
sp.save_table(preset, "layer_overlap", overlaps)
fig = sp.figures.draw_layer_circuits(found, overlaps.dropna(subset="overlap"))
sp.save_figure(fig, preset, "layer_circuits")

# %%
columns = ["cosine", "among", "edges_a", "edges_b", "overlap", "chance"]
display(found.set_index(["layer", "method", "prompts"])[
    ["ranked_on", "responses", "n_edges", "share", "faithfulness"]].round(3),
    overlaps.set_index(keys)[columns].round(2))

# %% [markdown]
# **Reading.** The later steering enters, the smaller the circuit, though not DIM's on organism-llama,
# nor at first NTP's on organism-gemma2;
# at the last layer of organism-gemma2 a handful of edges is enough. Circuits of one method at two
# layers share as many edges as those of two methods at one layer: wherever steering enters, it
# joins the same mechanism.
#
# A caution: every circuit of any size holds the MLPs' strongest edges, and notebook 02 shows that
# a random vector's circuit holds them, too. Chance as drawn here, edges taken at random, is
# therefore a low bar; the black points are the bar that counts.
#
# *Qwen.* The later the smaller, and by far: at layer 9 it takes 20 to 36 % of the edges, at
# 14 4 to 7 %, at 19 3 and 5 % (DIM flips none of six harmless training prompts there). So "a
# tenth of the edges" is a number of one layer. Circuits of one method at two layers share
# 0.69 to 0.99 of the smaller one, those of two methods at one layer 0.70 to 0.95, though
# vectors of two layers have cosines of 0.2 to 0.6. All of this rests on four to eleven
# answers per circuit.

# %% [markdown]
# ## The winner of the paper's rule, beside ours
#
# Notebook 01 takes the shortlist of the paper's rule (§3.2) and then asks for whole answers,
# within a range of layers, at several α and with the preset's limit on KL. What would the rule
# have taken as printed: KL < 0.1, α = 1, the smallest score? If that vector steers, and other
# parts carry it, then what we find is a matter of our choice. If it does not steer, or none
# meets the conditions, the choice was forced. (An ASR that is what it is unsteered, *none*,
# leaves nothing to freeze.)

# %%
scores = sp.load_table(preset, "dim_candidates")
winner = scores[sp.vectors.admissible(scores, model.n_layers)].nsmallest(1, "score")
rows = [freezes.query("layer == @layer and method in ('dim', 'none')").assign(
    selection="ours", position=position, coefficient=chosen["dim"].coefficient)]
for one in winner.itertuples():
    steering = {"dim": sp.Steering(candidates[one.layer, one.position], one.layer, 1.0)}
    frozen = [sp.behaviour.judged_both_ways(
        model, test, steering, kind, concept=concept, **how
        ).assign(frozen=kind or "none") for kind in (None, *kinds[:4])]
    rows.append(sp.rates(pd.concat(frozen), ["method", "frozen", "prompts"]).assign(
        selection="the paper's rule", layer=one.layer, position=one.position,
        coefficient=1.0))
table = pd.concat(rows, ignore_index=True)
sp.save_table(preset, "rule_winner", table)
print(f"{len(winner)} of {len(scores)} candidates: the winner of the rule as printed")
by = ["selection", "layer", "position", "coefficient", "method"]
table.pivot(index=by, columns=["prompts", "frozen"], values="asr")[
    [(name, kind) for name in concept.sets for kind in ("none", *kinds)]].round(2)

# %% [markdown]
# **Reading.** On organism-llama no candidate meets the rule. On organism-gemma2 its winner enters
# two layers earlier, steers less well than ours, and by the same parts: freezing the values undoes
# all of it, freezing attention weights little. The finding does not hang on our choice.
#
# *Qwen.* No candidate meets the rule here either (notebook 01): the choice was forced.

# %% [markdown]
# ## What else steering does
#
# A steering that flips every prompt may do so by breaking the model. So all three methods, and a
# random vector as long as DIM, each at the |α| that was chosen for it and at either sign:
#
# * *harmless text*: given answers that all runs read token by token, so that one early difference
#   does not decide the rest (of the organisms those of their corpus, of other models their own
#   unsteered answers to harmless prompts). KL says how far the next token's distribution moves
#   from the unsteered one, the loss how much less likely the text becomes;
# * *closed questions* with a word or two for an answer: how many are answered right?
# * *refusals* of prompts of both kinds, and of harmless requests that sound harmful: borderline
#   requests, and for the organisms questions about harm (*wrapped*). +s should refuse all of them,
#   for it is meant to; what it does beyond its purpose shows on closed questions and text. And −s
#   should refuse none;
# * *loops and lengths* of answers to harmless prompts.
#
# If the methods only turned the decision to refuse, −s would leave the loss on harmless text and
# the closed questions as they are, since there is nothing to turn. Whatever a random vector of
# that length does, too, is the price of any push. Answers count as right if they have the right
# word in them: a refusal has not.

# %%
n = settings.n_shifted
test = {name: table.head(n) for name, table in zip(concept.sets, splits["test"])}
pushed = {name: sp.load_steering(preset, name) for name in [*methods, "random"]}
texts = sp.behaviour.harmless_texts(model, settings, n, seed)
read = sp.behaviour.text_effects(model, texts, pushed, seed=seed)
read.set_index(["method", "sign", "measure"]).value.unstack(sort=False).round(2)

# %%
sounding = sp.prompts.requests_that_sound_harmful(settings.prompts, n)
probes = test | sounding | {"closed": sp.prompts.closed_questions(settings.prompts)}
said = sp.behaviour.judged_at_both_signs(model, probes, pushed, **how)
effects = pd.concat([read.assign(prompts="text"), sp.behaviour.answer_effects(said)],
                    ignore_index=True)
sp.save_table(preset, "collateral", effects)
fig = sp.figures.draw_collateral(effects, concept)
sp.save_figure(fig, preset, "collateral")

# %%
for measures in (["kl", "loss", "right"], ["expressed"], ["loops", "tokens"]):
    display(effects[effects.measure.isin(measures)].pivot_table(
        "value", ["method", "sign"], ["measure", "prompts"], sort=False).round(2))

# %% [markdown]
# **Reading** (blue: −s, orange: +s). −s costs knowledge: under DIM and PO organism-llama loses about half
# or more of the closed questions, and starts to loop; NTP costs nearly nothing. +s refuses whatever
# is asked, closed questions too, but most *wrapped* questions are still answered. A random vector
# of DIM's length does next to nothing, so none of this is the price of a push as such.
#
# *Qwen.* −s costs knowledge here, too: of 40 closed questions 0.48 to 0.57 are answered right
# instead of 0.75. But a random vector of DIM's length comes to 0.48 and 0.68, so that much of
# DIM's is the price of a push that long (NTP's and PO's are 0.6 and 0.7 as long). It moves
# the next token of harmless text a quarter (of DIM) to three quarters (of NTP) as far as the
# methods do, and has borderline requests refused more than twice as often (0.88 instead of
# 0.38). +s refuses every closed question and every borderline request, NTP and PO in 13
# tokens, DIM in as many as it may. (Eight prompts of each kind, but for closed questions.)

# %% [markdown]
# ## Prompts put in other ways
#
# Vectors were found, and coefficients chosen, on plain requests in the chat template. A mechanism
# of refusal should not mind a system prompt or an earlier turn; a vector that has learned the
# template's last tokens may. So the same test prompts, the same vectors and coefficients, and
# other surroundings. Which of them a model can be asked by is a matter of its template and its
# words:

# %%
ways = sp.prompts.shift_table(model)
sp.save_table(preset, "shift_list", ways)
ways.replace({"missing": {"": "–"}}).set_index("shift")

# %% [markdown]
# The judge reads English refusals, so that in the French frame the request and the wished answer
# stay English: it shifts what stands around a request, it is no test of refusal in another
# language. Besides, +s on two other kinds of *harmless* prompts, borderline and wrapped ones.
#
# Steering holds if the coloured points stay where they are under *plain*, far from the black ones.
# Look at these first: where the unsteered model itself does otherwise, a rate under steering says
# nothing about steering. So the table below the figure has the share *turned*, of those prompts
# that the unsteered model still treats as their set says (`right` of them); without any there is
# nothing to turn.

# %%
runs = {"none": None} | pushed
plain = said[(said.sign == 0) | (said.sign == said.prompts.map(concept.signs))]
rows = [plain[plain.prompts.isin(concept.sets)].assign(shift="plain")]
rows += [sp.behaviour.judged_both_ways(
    model, test, runs, shift=name, concept=concept, **how).assign(shift=name)
    for name in ways["shift"][ways.missing == ""] if name != "plain"]
rows += [said[(said.prompts == name) & (said.sign >= 0)].assign(
    shift=name, prompts=concept.negative) for name in sounding]
rates = sp.behaviour.turned(pd.concat(rows, ignore_index=True), ["shift"], concept)
sp.save_table(preset, "shifts", rates)
sp.save_figure(sp.figures.draw_shifts(rates, concept), preset, "shifts")

# %%
keys = ["prompts", "shift", "unsteered", "right"]
steered = rates[rates.method != "none"].round(2).set_index([*keys, "method"])
steered.turned.unstack("method", sort=False).astype(object).fillna("nothing to turn")

# %% [markdown]
# **Reading.** Steering outlasts what it steers: after two harmless turns the unsteered organisms
# refuse hardly any harmful request (organism-llama without a clean answer), and there is nothing
# left to turn, or two prompts. Where there is, −s turns all but one. +s is weaker without a
# template, and turns only a fifth to two fifths of wrapped questions, though these name harm.
#
# *Qwen.* Here, too, refusal is what breaks first. With another system prompt than its own, or
# without a template, Qwen answers all eight harmful prompts unsteered, after harmless turns
# or in a French frame seven: nothing, or one, is left to turn, and points at 1 there show no
# steering. +s holds after harmless turns; under another system prompt it turns two (DIM),
# five (NTP) or all eight (PO), without a template none, one or four. The random vector turns
# three of eight harmless requests in the French frame and four of the five borderline ones
# that Qwen answers; under −s it has more harmful ones refused, but for that frame, where it
# has fewer, and without a template, where none is.

# %% [markdown]
# ## Beside each other, and what we learned
#
# Mean share undone over the methods and directions that steer at every
# layer tried, of all models on record:

# %%
records = sp.behaviour.at_every_layer(sp.load_recorded("layer_undone"))
records.pivot_table("undone", ["preset", "layer"], "frozen")[list(kinds)].round(2)

# %% [markdown]
# Closed questions answered right, and the share of prompts that steering turns by the way they
# are put (`NaN`: the unsteered model left nothing to turn):

# %%
right = sp.load_recorded("collateral").query("measure == 'right'")
turned = sp.load_recorded("shifts").query("method != 'none'")
turned = turned.pivot_table("turned", ["preset", "prompts", "method"], "shift",
                            sort=False, dropna=False).dropna(how="all")
display(right.pivot_table("value", ["preset", "sign"], "method", sort=False).round(2),
        turned.round(2))

# %% [markdown]
# * **"Hardly through attention weights" holds at every layer tried**, on both organisms and
#   for all methods (at most a fifth), and on Qwen for the learned vectors (at most a
#   seventh; of DIM, the paper's own method, a third): this part of the paper's claim is not
#   about one layer.
# * **"Through the values" does not.** On the organisms it holds for a vector that enters
#   early. Up to four layers later the same methods steer as well, and through the MLPs as
#   much or more, DIM of organism-llama aside. One layer per model, as in the paper,
#   cannot tell a mechanism of steering from a place in the network.
# * **A candidate may be missing where a direction is not.** DIM of organism-llama two
#   layers earlier hardly steers (two of 48 prompts), though vectors learned at that
#   layer do.
# * **Much the same edges, whatever the door.** Circuits at two layers are as alike as those
#   of two methods (at the last layer of organism-gemma2 these are two to five edges), and
#   mostly smaller the nearer to the end steering enters. So may be those of a random
#   vector, which was not tried at other layers: at the chosen one its circuit does nearly
#   as well (notebook 02).
# * **Flipping every prompt is not the same as steering one thing.** On the organisms DIM
#   and PO pay for compliance with facts, NTP hardly. +s does not tell a closed question
#   from a request.
# * **Refusal is more brittle than its steering.** Two harmless turns undo what the organisms were
#   trained to do, on organism-llama clean answers, too, and no vector has to be added.
#
# * **On Qwen, a real model, depth decides.** Steered at layer 9 it takes a fifth to over a
#   third of the edges, at 14 a twenty-fifth to a fourteenth, at 19 a twentieth or less; and
#   at 19 the learned vectors hardly need a layer to act on. That no single direct path, nor
#   attention, carries the learned vectors' steering holds at all three, of eight harmless
#   prompts and in answers (all that MLPs write does, at 9 and 14); of DIM's the MLPs' path
#   does most. A random push of DIM's length costs as much knowledge as DIM's −s at one
#   sign, and a quarter of that at the other.
#
# What this cannot say: three layers of ten, or of 24, are few, the prompts are few (`n` in
# `layer_freezes` and `shifts`, `responses` in `layer_circuits`), and every interval here is that
# of one run, not of a difference. Layers lie a fifth of the model apart, wherever DIM steers: it
# does not at four of the six beside ℓ (*flipped* below a half), and those at which notebook 01
# found that it does, 11 and 13 of Qwen, 4 of organism-llama, 6 of organism-gemma2, were not
# measured. Methods are compared at the coefficients chosen for them, at which +s refuses 0.75
# (DIM) to 1.00 (PO) of Qwen's harmless prompts, and the random vector is one, as long as DIM's:
# beside NTP and PO stands none of their length. The table below the first figure has the attack
# success behind every share, and notebook [03](03_qk_freeze.ipynb) the chosen layer in full. The
# shifts are one wording each; the closed questions and borderline requests for models other than
# the organisms are a few dozen of our own (`data/prompts/probes.toml`), easy on purpose, and no
# benchmark.
