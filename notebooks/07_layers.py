# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 7. Other layers
#
# > *The paper's choice, in our words (§3.2).* One steering layer per model, chosen by DIM's
# > scores, at which all of it was measured.
#
# Notebook [03](03_qk_freeze.ipynb) finds which part of the layers above carries the steering:
# attention weights, values, or the MLPs. A vector added earlier has more layers to act through,
# and may act through others. Is "not the attention weights" (the paper), or "the MLPs" (ours),
# true of steering this model, or of one layer?
#
# So the same three methods at two more layers, a fifth of the depth before the chosen one and
# behind it, and the same freezes. Besides those of table 1 there are two total ones: the MLPs
# write what they write in the unsteered run (*mlp-total*), and so does attention, too
# (*residual-only*): then the vector reaches the logits by the residual stream alone. And since
# our selection departs from the paper's rule, the vector that the rule as printed would have
# taken goes through the same freezes.
#
# *Reads* the model, the prompts, and what notebook 01 has chosen. *Writes* `layer_methods`,
# `layer_freezes`, `layer_undone`, `rule_winner` and a figure. Freezes are in
# [`steerpaper/freezing.py`](../steerpaper/freezing.py).

# %% tags=["parameters"]
preset = "organism-llama"
seed = 0

# %%
from dataclasses import replace

import pandas as pd

import steerpaper as sp

sp.check_parameters(preset=preset, seed=seed)
sp.use_style()
settings = sp.get_preset(preset)
preset = settings.name
model = sp.load_model(preset)

# %%
concept = sp.get_concept(settings.concept)
splits = {split: list(sp.concept_prompts(concept, split, n, settings.prompts).values())
          for split, n in settings.split_sizes.items()}
judge, batch = sp.load_judge(settings), dict(batch_size=settings.batch_size)
sizes = dict(max_new_tokens=settings.max_new_tokens, **batch)
how = dict(judge=judge, concept=concept, vocabulary=sp.vocabulary(settings.prompts),
           **sizes)
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
# validation prompts, as in notebook 01, since a vector's length is a matter of its layer.
#
# A layer can only tell where steering goes if steering works there. *Flipped* is the share of
# validation prompts that turn, in the weaker direction; *flipped_clean* asks for clean text, too.

# %%
candidates = sp.difference_in_means(model, *splits["train"], **batch)
counts = {"train": settings.n_pairs, "validation": settings.n_validation_pairs}
pairs = [sp.contrast_pairs(model, *(table[:n] for table in splits[split]),
                           chosen["dim"], judge, concept=concept, **sizes)
         for split, n in counts.items()]
won = sp.load_table(preset, "learned_grid").query("chosen").set_index("method")
one_run = {name: replace(settings, pair_batch_sizes=(int(run.batch_size),),
                         learning_rates=(float(run.learning_rate),), more_seeds=(),
                         training_seeds=(int(run.seed),),
                         phis=settings.phis if pd.isna(run.phi) else (float(run.phi),))
           for name, run in won.iterrows()}

# %%
steerings, ranked = {layer: chosen}, []
for at in (i for i in layers if i != layer):
    dim = sp.Steering(candidates[at, position], at, 1.0)
    vectors = {}
    for name in methods:
        given = sp.Ingredients(model, *splits["train"], dim, position, *pairs,
                               one_run.get(name, settings), seed)
        vectors[name] = sp.METHODS[name].extract(given).vector
    table = sp.select_coefficient(
        model, vectors, at, settings.coefficients, *splits["validation"], **how)
    best = table.groupby("method", sort=False).first()
    steerings[at] = {name: sp.Steering(vectors[name], at, float(best.coefficient[name]))
                     for name in methods}
    ranked.append(best.assign(layer=at))
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
# was done, and is left out where steering turns fewer than half of the prompts. If the paper's
# finding holds throughout, attention weights stay near 0 at every layer and in every column.

# %%
kinds = ("qk", "ov", "svv", "mlp", "mlp-total", "residual-only")
test = {name: table.head(settings.n_freezing) for name, table in zip(concept.sets,
                                                                    splits["test"])}
rows = []
for at, own in steerings.items():
    plain = sp.behaviour.judged_both_ways(model, test, own | {"none": None}, **how)
    frozen = [sp.behaviour.judged_both_ways(model, test, own, kind, **how)
              .assign(frozen=kind) for kind in kinds]
    rows += [part.assign(layer=at) for part in (plain.assign(frozen="none"), *frozen)]
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
# **Reading.** Freezing attention weights undoes next to nothing at any layer, under any method, on both
# organisms. Which part does carry the steering depends on the layer: at the earliest the values,
# at the chosen one values and MLPs, at the last the MLPs: there freezing the values leaves what
# the learned vectors do as it is (organism-gemma2), or half of it (organism-llama).

# %% [markdown]
# The total freezes say less than they seem to, and that is what they are for. The residual path
# alone carries little (at most a quarter, at the last layer): the vector is not read off at the
# logits, layers have to act on it. Holding all that the MLPs write undoes most of it at every
# layer, but an MLP is also where what the values have moved arrives: the total freeze of a part
# is no proof that this part reads the vector, as the freeze of its direct path is.

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
    frozen = [sp.behaviour.judged_both_ways(model, test, steering, kind, **how)
              .assign(frozen=kind or "none") for kind in (None, *kinds[:4])]
    rows.append(sp.rates(pd.concat(frozen), ["method", "frozen", "prompts"]).assign(
        selection="the paper's rule", layer=one.layer, position=one.position, coefficient=1.0))
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

# %% [markdown]
# ## Beside each other, and what we learned
#
# Mean share undone over methods and directions, of all models on record:

# %%
records = sp.load_recorded("layer_undone")
records.pivot_table("undone", ["preset", "layer"], "frozen")[list(kinds)].round(2)

# %% [markdown]
# * **"Hardly through attention weights" holds at every layer tried**, on both organisms and for
#   all methods: this part of the paper's claim is about steering, and not about one layer.
# * **"Through the values" does not.** It holds for a vector that enters early. Two or four layers
#   later the same methods steer as well, and through the MLPs. One layer per model, as in the
#   paper, cannot tell a mechanism of steering from a place in the network.
# * **Steering needs layers behind it.** DIM of organism-llama two layers earlier does not steer at
#   all, though vectors learned at that layer do: the candidate is what is missing there, not a
#   direction that works.
#
# What this cannot say: three layers of a model of ten are few, the prompts are few (`n` in
# `layer_freezes`), and every interval here is that of one frozen run, not of a difference. The
# table below the figure has the attack success behind every share, and notebook
# [03](03_qk_freeze.ipynb) the chosen layer in full.
