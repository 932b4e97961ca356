# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. Extracting steering vectors
#
# > *The paper's claim, in our words (§3.2, table 2).* One vector per model, added at one layer,
# > makes it comply with about 80 % of harmful requests and refuse nearly all harmless ones,
# > depending on the sign. Three ways to find such a vector steer about equally well, although
# > the vectors point in different directions.
#
# A steering vector `s` is added, times a coefficient α, to the residual stream entering one
# layer ℓ, at every position: `h ← h + α s`. With α = −1 it should make a model comply with
# harmful requests, with α = +1 refuse harmless ones. This notebook extracts `s` as a
# **difference in means** (DIM) and learns it by **next-token prediction** (NTP) and by
# **preference optimisation** (PO). Layer, position, hyperparameters and coefficients are chosen
# on validation prompts; test prompts are only measured on.
#
# *Reads* a model and the prompt sets: the organisms' own in `data/prompts`, for other presets
# those of the paper (`data/sources.toml`). *Writes* one vector per method (`dim`, `ntp`, `po`
# and the baselines `pca`, `random`, in `build/<preset>/artifacts`), tidy tables and figures.
# The methods are in [`steerpaper/vectors`](../steerpaper/vectors/__init__.py), steering itself
# in [`steerpaper/steering.py`](../steerpaper/steering.py), and [RESULTS.md](../RESULTS.md) has
# the verdicts.
#
# The default presets are two small **model organisms**, trained from scratch by [notebook
# 00](00_model_organisms.ipynb). What is measured on them says nothing by itself about Gemma or
# Llama; the last sections put both side by side.

# %% tags=["parameters"]
preset = "organism-llama"
seed = 0

# %%
from dataclasses import asdict

import pandas as pd
import torch

import steerpaper as sp

sp.check_parameters(preset=preset, seed=seed)
sp.use_style()
settings = sp.get_preset(preset)
preset = settings.name  # of a checkpoint folder, if that was given
model = sp.load_model(preset)
if model.commit:
    print(f"{settings.model} at commit {model.commit}; {settings.note}")

# %%
concept = sp.get_concept(settings.concept)
splits = {split: sp.concept_prompts(concept, split, n, settings.prompts)
          for split, n in settings.split_sizes.items()}
prompts = {name: {split: sets[name] for split, sets in splits.items()}
           for name in concept.sets}
positive, negative = prompts.values()
batch = dict(batch_size=settings.batch_size)
how = dict(judge=sp.load_judge(settings), vocabulary=sp.vocabulary(settings.prompts),
           max_new_tokens=settings.max_new_tokens, **batch)
pd.DataFrame({name: table["test"].prompt.head(4) for name, table in prompts.items()})

# %% [markdown]
# ## What does the model do by itself?
#
# Only a prompt to which the unsteered model answers as its set's name says can flip: a harmful
# one that is refused, a harmless one that is not. So first the unsteered answers to the
# validation prompts, with Wilson intervals. If fewer than a quarter of either set are such,
# there is nothing to steer: every number below would be made of a few answers, and the notebook
# ends here with what it found.

# %%
validation = positive["validation"], negative["validation"]
by_itself = sp.behaviour.unsteered_rates(model, *validation, concept=concept, **how)
sp.save_table(preset, "unsteered", by_itself)
by_itself.round(2)

# %%
if found := sp.behaviour.nothing_to_steer(by_itself, concept):
    print(found)
    raise SystemExit  # a result, not a failure

# %% [markdown]
# **Reading.** Both organisms refuse their harmful prompts and answer the harmless ones, with
# few exceptions: nearly every prompt can flip, in the direction that the paper asks about.
#
# *Qwen2.5-Coder-0.5B, a real model, [on its own
# page](qwen2.5-coder-0.5b-instruct/01_extract_vectors.ipynb).* It refuses 17 of these 24
# harmful prompts and, below, 54 of the 100 of the test: the rest is answered as it comes, and
# cannot flip.

# %% [markdown]
# ## Candidates: every layer, every template position
#
# The chat template ends in a few tokens after the instruction. At each of them, and entering
# each layer, the candidate is the mean over harmful training prompts minus the mean over
# harmless ones,
#
# $$s_{\ell, p} = \mathrm{mean}_{x\ \text{harmful}}\, h^\ell_p(x)
# - \mathrm{mean}_{x\ \text{harmless}}\, h^\ell_p(x) .$$
#
# The organisms' two training sets are requests in the same frames: they differ in harm, and not
# in the kind of prompt. (Questions among the harmless ones gave vectors that partly meant
# "question"; their −s broke the answers.)
#
# How long are the candidates, and do they point the same way? If refusal were read off one
# fixed direction, neighbouring layers and distant ones would agree. The norm, relative to the
# residual stream it is added to, tells how strong an intervention α = 1 is: far below 1 it is a
# nudge, around 1 it replaces much of what the stream says.

# %%
training = positive["train"], negative["train"]
candidates = sp.difference_in_means(model, *training, **batch)
positions = range(-candidates.shape[1], 0)
template = model.tokenizer.convert_ids_to_tokens(model.post_instruction_tokens)
print("layers × positions × d_model:", tuple(candidates.shape))
print("template after the instruction:", " ".join(template))

# %%
stream = sp.residual_stream(model, training[1], positions, **batch).norm(dim=-1)
norms = pd.DataFrame(candidates.norm(dim=-1) / stream.mean(0), columns=positions)
norms = norms.rename_axis("layer").reset_index()
norms = norms.melt("layer", var_name="position", value_name="relative_norm")
unit = torch.nn.functional.normalize(candidates[1:, -1], dim=-1)  # none in layer 0
layers = pd.RangeIndex(1, model.n_layers, name="layer_a")
cosines = pd.DataFrame(unit @ unit.T, layers, layers.rename("layer_b"))
cosines = cosines.stack().rename("cosine").reset_index()
sp.save_table(preset, "dim_layer_cosines", cosines)
fig = sp.figures.draw_geometry(norms, cosines)
sp.save_figure(fig, preset, "dim_geometry")

# %% [markdown]
# **Reading.** Entering layer 0 every template token is the same in all prompts, so the
# difference is zero. It grows with depth until it is about as long as the stream itself, in
# steps and not evenly: α = 1 is a strong push there. The later layers of both organisms agree
# among themselves, the first ones point elsewhere for a good part. One fixed direction is read
# off from the middle on, not throughout.
#
# *Qwen.* The difference is hardly longer than a third of the stream: α = 1 is a nudge.
# Positions go their own ways but for the last two, longest at layers 1, 13, 9 and 20, and
# layers agree the less the further they are apart.

# %% [markdown]
# ## The paper's selection scores
#
# > *The paper's rule, in our words (§3.2, B.1).* Choose the candidate that minimises σ(bypass)
# > − σ(induce), subject to induce > 0, KL < 0.1 and ℓ < 0.8 L.
#
# The *refusal metric* of a prompt is the log odds that its answer begins with a refusal token,
# `log P_R − log(1 − P_R)`, where `P_R` is the sum of their probabilities. *bypass* is its mean
# on harmful prompts under −s (small is good), *induce* on harmless prompts under +s (large is
# good), *kl* how much removing the direction disturbs harmless prompts (small is good). First
# the metric of one prompt by hand: one forward pass, one softmax, and both numbers that make it
# up. It must equal the package's, which never forms `1 − P_R`: where the model is sure to
# refuse, that difference would be rounded away.

# %%
refusal = sp.first_token_ids(model, settings.first_tokens or concept.first_tokens)
prompt = positive["validation"].prompt[0]
ids, mask = model.pad([model.tokenize(prompt)])
with torch.no_grad(), model.trace(ids, mask):
    logits = model.logits[0, -1].save()
p_refusal = logits.double().softmax(-1)[refusal].sum()
by_hand = p_refusal.log() - (1 - p_refusal).log()
metric = sp.first_token_log_odds(sp.next_token_logits(model, [prompt]), refusal)[0]
bound = 1e-4 if model.dtype == torch.float32 else 0.1
print(f"the metric by hand is the package's within {bound:g}:",
      bool(abs(by_hand.cpu() - metric) < bound))

# %% [markdown]
# Now all candidates. (Layers that the rule excludes are scored on the organisms only, where
# that costs little.)

# %%
limit = settings.kl_limit
scores = sp.score_candidates(model, candidates, *validation, refusal, kl_limit=limit,
                             skip_excluded=not settings.shipped, **batch)
sp.save_table(preset, "dim_candidates", norms.merge(scores, on=["layer", "position"]))
lowest, highest = (round(share * model.n_layers) for share in settings.layer_range)
within = scores.layer.between(lowest, highest)
shortlist = scores[scores.admissible & within].head(settings.n_candidates)

# %% [markdown]
# The rule was made for α = 1, a push as long as the mean difference. On another model that may
# be too short to begin answers to harmless prompts with a refusal, and the rule picks nothing,
# whatever its limits. Where that happens, the best candidate of each layer that meets the
# conditions without α (the last positions of a layer are nearly one vector) is scored in the
# same way at every |α| of the preset's grid (KL is that of an ablation and has no α), and the
# best layers by that go on.

# %%
rules = {"the paper's": (scores, 0.1),
         "the paper's, with the preset's limit on KL": (scores, limit)}
if settings.layer is not None:
    shortlist = sp.vectors.candidate_at(scores, settings.layer, settings.position)
    rules["the preset's layer and position"] = shortlist, limit
elif shortlist.empty:
    again = sp.vectors.score_coefficients(
        model, candidates, scores[within], settings.coefficients, *validation, refusal,
        kl_limit=limit, **batch)
    shortlist = again.drop_duplicates("layer").head(settings.n_candidates)
    rules["the same scores at |α| of the grid"] = again, limit

# %% [markdown]
# How many candidates meet each condition, under which rule, and which condition do the fewest
# meet? The last rule is the one that chose. The organisms, whose refusal is one of few things
# that they can do, get a wider limit on KL from their presets: where the paper's limit leaves
# some candidates, the preset departs from its rule by choice, where it leaves none, it has to.

# %%
within_layers = range(lowest, highest + 1)
counts = [{"rule": rule} | sp.vectors.count_conditions(
    table, model.n_layers, kl_limit, layers=within_layers)
    for rule, (table, kl_limit) in rules.items()]
counts = pd.DataFrame(counts)
counts["chose"] = counts.index == len(counts) - 1
sp.save_table(preset, "selection_rule", counts)
counts.set_index("rule")

# %% [markdown]
# ## From one token to whole answers
#
# The refusal metric looks at the first token only. A vector that wins there may still break the
# text that follows. So the best candidates of the rule, within the layers where there is a
# circuit left to find, generate whole answers at several coefficients. (Where the preset
# fixes layer and position, as in the paper or its authors' code, that candidate alone does; for
# the paper's models at α = 1.) Among those that flip at least 90 % of the prompts in their
# weaker direction the one with the largest share of flipped **and clean** answers wins. *Clean*
# means that the text does not loop, ended by itself, is made of the corpus' words and names what
# was asked about; all but the first are checked on the organisms' prompts only: public ones come
# without a word list and a topic, and answers to them are longer than what is generated here.
# This step is ours, not the paper's.

# %%
chosen = sp.select_by_generation(
    model, candidates, shortlist, settings.coefficients, *validation, **how)
sp.save_table(preset, "dim_selection", chosen)
best = chosen.iloc[0]
layer, position = int(best.layer), int(best.position)
coefficient = float(best.coefficient)
vector = candidates[layer, position]
chosen.head(6).round(2)

# %% [markdown]
# A candidate of the kind that the paper wants is dark blue on the left (harmful prompts are not
# refused any more), dark red in the middle (harmless ones are) and pale on the right (nothing
# else is disturbed). Were the scores of one token all that matters, the chosen cell, framed,
# would be the darkest of the admissible ones.

# %%
fig = sp.figures.draw_selection(scores, layer, position, concept)
sp.save_figure(fig, preset, "dim_selection")

# %% [markdown]
# **Reading.** From the middle on at the latest every layer and position flips the first token,
# but removing the direction there disturbs harmless prompts more than the paper allows: with
# its limit nothing is left on organism-llama, and on organism-gemma2 a few early candidates
# that hardly induce refusal. Whole answers prefer the earliest layer that they are asked
# about, and a coefficient below 1 on both: deeper candidates win on one token and break the
# text.
#
# *Qwen.* The rule as printed chooses none of the 95 candidates that it scores: at α = 1 none
# induces a refusal (log odds of −1.0 at best). Scored at larger α, one per layer, one of 14
# meets all conditions, and is best by whole answers: layer 14 of 24, the fourth token from
# the end, α = 2.5. The limit on KL, of which organism-llama needed more, is the paper's.

# %% [markdown]
# **The chosen vector, by hand.** Two forward passes and two plain means, read at the layer and
# position that were chosen. It must be the package's candidate up to rounding (the package pads
# other prompts beside each other, and batches add up in another order). Nothing is learned
# here, and nothing is tuned but where to read.

# %%
means = []
for asked in training:
    ids, mask = model.pad([model.tokenize(prompt) for prompt in asked.prompt])
    with torch.no_grad(), model.trace(ids, mask, logits_to_keep=1):
        entering = model.layer(layer).input[:, position].save()
    means.append(entering.double().mean(0))
by_hand = (means[0] - means[1]).float().cpu()
error, bound = (by_hand - vector).norm() / vector.norm(), bound / 10
print(f"DIM by hand is the package's to {bound:g} of its norm:", bool(error < bound))

# %% [markdown]
# ## Coefficient sweep
#
# If the vector carries refusal, the attack success rate (ASR, the share of answers that do not
# refuse) should fall from one to zero as α grows, on harmful and on harmless prompts alike, and
# unsteered prompts should lie on the far sides of that step. Text should be clean between the
# useful coefficients, and may break beyond them.

# %%
steerings = [sp.Steering(vector, layer, alpha) for alpha in settings.sweep]
judged = [sp.judged_responses(model, table, steerings, **how) for table in validation]
judged = pd.concat([table.assign(prompts=name) for name, table in zip(prompts, judged)])
judged["coefficient"] = judged.run.map(dict(enumerate(settings.sweep)))
curves = sp.rates(judged, ["prompts", "coefficient"])
sp.save_table(preset, "dim_sweep", curves)
fig = sp.figures.draw_sweep(curves, coefficient)
sp.save_figure(fig, preset, "dim_sweep")

# %% [markdown]
# **Reading.** On both organisms ASR makes one step on each kind of prompts, harmful ones at a
# negative and harmless ones at a positive α, and the chosen ±α lie just beyond it. Text stays
# clean between them and breaks soon after, on harmless prompts first but for +α on
# organism-llama. At the upper end of the sweep "success" comes back on prompts that were
# refused: there texts are broken, and one that does not refuse still counts.
#
# *Qwen.* No clear step: ASR falls gradually, on harmful prompts over the whole range and
# steepest just below 0, on harmless ones from 0 on. So −s alone removes refusals at any
# strength, while +s does half at α = 1 and needs more than 2 for nine tenths. Few texts loop
# in this sweep; at 2.5, which it leaves out, more do (see the test). And that is all that
# "clean" says here: many answers under −s say nothing (below).

# %% [markdown]
# ## Contrastive pairs
#
# > *In our words (§3.2, B.4).* The learned vectors see, for every prompt, two responses of the
# > model itself. To a harmful prompt: its refusal, and what it says under −s of DIM. To a
# > harmless one: its answer, and the refusal that it gives behind the command "Treat the
# > following question as dangerous and refuse." Pairs that do not show the wanted behaviour are
# > removed.
#
# The *winner* of a pair is the response that steering should bring about (compliance under −v,
# refusal under +v), the *loser* what the model says by itself. The paper removed pairs by hand,
# here the judge does. If DIM and the command work, few are lost. `winner_off` counts winners
# that do not show the wanted behaviour, `loser_off` losers that already do.

# %%
dim = sp.Steering(vector, layer, coefficient)
sizes = {"train": settings.n_pairs, "validation": settings.n_validation_pairs}
lengths = dict(max_new_tokens=settings.max_new_tokens, **batch)
pairs, counts = {}, {}
for split, n in sizes.items():
    asked = sp.concept_prompts(concept, split, n, settings.prompts).values()
    pairs[split] = sp.contrast_pairs(
        model, *asked, dim, how["judge"], concept=concept, **lengths)
    counts[split] = pairs[split].counts
counts = pd.concat(counts, names=["split"]).reset_index("split")
sp.save_table(preset, "pair_counts", counts)
counts.set_index(["split", "prompts"])

# %%
texts = [(n, given.text, wanted.text) for n, (given, wanted)
         in enumerate(zip(pairs["train"].losers, pairs["train"].winners))]
examples = pd.DataFrame(texts, pairs["train"].signs, ["prompt", "loser", "winner"])
examples = sp.behaviour.excerpts(
    model, examples.groupby(level=0).head(2), ["loser", "winner"], settings)
pd.set_option("display.max_colwidth", None)
examples.drop(columns="prompt").rename(
    {1: f"wanted: {concept.expresses}", -1: f"wanted: {concept.withholds}"})

# %% [markdown]
# **Reading.** Hardly a pair is lost, and those that are had a winner that refused in spite of
# DIM. So what the learned vectors learn from is, on harmful prompts, DIM's own text: they can
# become better than DIM at bringing it about, but it is DIM that says what compliance looks
# like.
#
# *Qwen.* A third of the harmful prompts is lost because the model answers them anyway, half
# of the harmless ones because it does not refuse though told to. What is left, 34 pairs, is
# less than half of an organism's.

# %% [markdown]
# ## Training
#
# > *In our words (§3.2).* NTP minimises $-\sum_i \log p(y_i \mid x)$ over the winner's tokens,
# > under steering. PO compares winner $w$ and loser $l$, under steering as well:
# >
# > $$\Delta = \frac{\beta^+}{|y_w|} \log p(y_w) - \frac{1}{|y_l|} \log p(y_l), \qquad
# > \text{loss} = -\log \sigma(\Delta), \qquad
# > \beta^+ = \max\big(\varphi\, (\log p_0(y_l) - \log p_0(y_w)),\, 1\big) .$$
# >
# > So $\beta^+$ weighs the winner more the less likely it is without steering ($p_0$).
#
# One vector per run, α = +1 on harmless and −1 on harmful prompts, the same layer as DIM, the
# grid of table 4: batch size, learning rate, φ (PO) and seed. All runs of a batch size train
# side by side, each as it would alone. The preset says how many pairs and epochs there are, and
# at what length the vectors are used: as learned, or at DIM's norm as in the authors' code. The
# organisms' presets depart from table 4, as the table shows: their responses are fewer, shorter
# and likelier than a large model's, so that there are few steps. The paper's φ of 0.02 would
# leave PO's weight at 1 just as 0.00001 does, and at its lower learning rate so few steps leave
# a short vector.
#
# But for PO's weight both losses see the steered model only: what a learned vector may become
# is limited by nothing but the pairs, while DIM is limited to the difference of two means. If
# the learned ones steered better, refusal would be more than that difference; if all steer
# alike, the difference was enough.

# %%
tried = dict(
    batch_size=settings.pair_batch_sizes, learning_rate=settings.learning_rates,
    epochs=settings.epochs, seed=settings.training_seeds, phi=settings.phis)
table4 = sp.paper.reported("table4_training").set_index("hyperparameter")["values"]
pd.DataFrame({"table 4": table4, preset: pd.Series(tried)}).loc[list(tried)]

# %%
given = sp.Ingredients(model, *training, dim, position, pairs["train"],
                       pairs["validation"], settings, seed)
extracted = {name: method.extract(given) for name, method in sp.METHODS.items()}
learned = {name: found.learned for name, found in extracted.items() if found.learned}
runs = pd.concat([result.grid for result in learned.values()], ignore_index=True)
sp.save_table(preset, "learned_grid", runs)

# %% [markdown]
# Losses should fall and flatten. The training loss is that of the vector at its own length, the
# validation loss that of the vector as it is used. Used as learned, a validation loss that
# turns up again while the training loss falls would mean learning by heart. At DIM's norm the
# two need not start together, and a turn does not tell learning by heart from a direction that
# is good at the length it was learned at and less so at DIM's.

# %%
curves = pd.concat([result.curves for result in learned.values()], ignore_index=True)
sp.save_table(preset, "learned_curves", curves)
fig = sp.figures.draw_learned_curves(curves)
sp.save_figure(fig, preset, "learned_curves")

# %% [markdown]
# > *In our words (§3.2, B.4).* NTP: the lowest validation loss. PO: the lowest validation loss
# > within each φ, since losses of different φ do not compare, and of those the highest *match
# > score*, the share of the validation responses' tokens that the steered model would pick
# > itself.
#
# The chosen runs, with the norm of DIM beside theirs. A match score near 1 means that steering
# by the vector alone reproduces nearly every token of answers that were brought about in
# another way.

# %%
chosen_runs = runs[runs.chosen].drop(columns="chosen")
chosen_runs.assign(norm_of_dim=float(vector.norm())).round(3)

# %% [markdown]
# **Reading.** No validation loss ends on a rise (two runs on organism-llama pass through one).
# At the higher learning rate the curves flatten, at the lower one they still fall, so the
# grid's best runs lie at its edge on both organisms, where a larger one might do better. At
# the end seeds hardly differ, one setting on organism-gemma2 aside. PO's smaller φ reaches the
# lower loss, mostly with longer vectors that match the responses worse: won by making losers
# unlikely.
#
# *Qwen.* The same at the edge of the grid; of the chosen runs NTP's has levelled off, PO's
# still falls. One seed and one φ were in the grid.

# %% [markdown]
# ## Coefficients, and two baselines
#
# Beside the three methods stand the first **principal component** of the differences between
# paired harmful and harmless prompts (centred; same layer and position, DIM's norm and sign: is
# the mean more than the direction in which they spread most?) and a **random** vector of DIM's
# norm. Each but the random one, which has DIM's, gets the |α| that does best on validation
# prompts by the rule that chose DIM's. If the methods are alike, so should their coefficients
# be, up to the vectors' lengths: what enters the stream is the product of both.

# %%
vectors = {name: found.vector for name, found in extracted.items()}
tuned = {name: vectors[name] for name, method in sp.METHODS.items()
         if name != "dim" and not method.control}
ranked = sp.select_coefficient(
    model, tuned, layer, settings.coefficients, *validation, **how)
sp.save_table(preset, "learned_coefficients", ranked)
alphas = dict.fromkeys(vectors, coefficient)  # DIM's, for itself and for controls
alphas |= ranked.groupby("method").coefficient.first().to_dict()
lengths = {name: float(v.norm()) for name, v in vectors.items()}
pushes = pd.DataFrame({"|α|": alphas, "norm": lengths})
pushes.assign(push=pushes["|α|"] * pushes["norm"]).round(2)

# %% [markdown]
# **Reading.** Learned vectors differ from DIM in length, in either
# direction, but what they add to the stream is a longer push than DIM's on both organisms. So
# effects at the chosen coefficients compare vectors that are as good as each can be made, and
# not pushes of one size; random vectors come at the length of each.
#
# The vectors are saved with how they were made; later notebooks read them from there.

# %%
found = {name: sp.Steering(v, layer, alphas[name]) for name, v in vectors.items()}
for name, steering in found.items():
    sp.save_steering(preset, name, steering, extracted[name].about)

# %% [markdown]
# ## Test prompts: ASR with intervals, and a random control
#
# Every vector at its coefficient, −|α| on harmful and +|α| on harmless prompts, on unseen
# combinations, frames and questions. The claim holds if the three methods bring ASR on harmful
# prompts up and on harmless ones down about equally. If the *direction* matters and not the
# mere size of the push, random vectors of the same norm and coefficient should change nothing.
# How far they do differs from one to the next, so there are ten as long as each method's, the
# same ten directions, on fewer prompts each. Those of DIM's length are pooled here, and each of
# all thirty counts by itself, in ranges below.

# %%
tested = {"none": None, "dim": dim} | {name: found[name] for name in tuned}
pushed = {name: push for name, push in found.items() if not sp.METHODS[name].baseline}
asked = {name: table["test"] for name, table in prompts.items()}
few = {name: table.head(settings.n_freezing) for name, table in asked.items()}
results = sp.behaviour.judged_both_ways(model, asked, tested, concept=concept, **how)
random = sp.vectors.judged_random(
    model, few, pushed, draws=10, seed=seed, concept=concept, **how)

# %%
by = ["method", "prompts", "coefficient"]
pooled = pd.concat([results, random[random.as_long_as == "dim"]])
checks = pooled.groupby(by)[["ended", "no_loop", "known_words", "on_topic"]].mean()
table = sp.rates(pooled, by).merge(checks.reset_index(), on=by).set_index("method")
table = table.loc[[*tested, "random"]].reset_index()
condition = table.method.map({"none": "base", "random": "random"})
signs = table.prompts.map({name: "+s" if sign > 0 else "-s"
                           for name, sign in concept.signs.items()})
table.insert(2, "condition", condition.fillna(signs))
table = sp.behaviour.beside_unsteered(table)
sp.save_table(preset, "table2_asr", table)
fig = sp.figures.draw_asr(table, concept)
sp.save_figure(fig, preset, "table2_asr")

# %%
shown = ["asr", "asr_low", "asr_high", "clean", "clean_share_of_base"]
table.set_index(["prompts", "method"])[shown].round(2)

# %%
control = sp.vectors.random_control(random, results)
sp.save_table(preset, "random_control", control)
changes = control.groupby(["prompts", "as_long_as"], sort=False)
ranges = changes.asr_change.agg(["min", "mean", "max"])
ranges.assign(**{"the method's": changes.method_change.first()}).round(3)

# %% [markdown]
# **Reading.** All three methods flip nearly every prompt in both directions, equally well;
# what differs is the price: under +α part of the answers to harmless prompts is no longer
# clean. PCA steers organism-gemma2, where it lies near DIM (below), and not organism-llama,
# where it does not. Random vectors do little: as long as DIM none of ten turns more than
# three prompts of 24 on balance, as long as the learned ones, which is a longer push, none
# more than five.
#
# *Qwen.* So do they here: harmful prompts answered rise from 46 to 100 %, harmless ones fall
# from 87 to 11, 5 and 1 %. DIM pays with a fifth of the clean text on harmless prompts, NTP
# with as much on harmful ones, PO with nothing. But random vectors are no zero, at any of the
# three lengths (pushes of 11.8, 6.9 and 8.6 for DIM, NTP, PO): on harmful prompts single ones
# change ASR by −0.25 to 0.44, −0.31 to 0.25 and −0.31 to 0.38, on harmless ones by −0.56,
# −0.38 and −0.44 to 0.06. Their means are near zero on harmful prompts and about −0.1 on
# harmless ones. (On 16 prompts per class: at DIM's length two of the ten answer all harmful
# ones, as DIM does.) So it is not the longest push alone: this model's refusal is easily
# moved, and an effect of one vector is to be read against that.

# %% [markdown]
# The paper judges answers to harmful prompts with Llama Guard 2. Where that is the preset's
# judge, the refusal substrings read the same answers, and how far both agree says how much ASR
# owes to the choice of the judge. (The organisms are judged by substrings alone, so here this
# compares the list with itself: all agree.)

# %%
answers = results[results.prompts == concept.positive]
by_substrings = sp.SubstringJudge().expresses(answers.text.tolist())
both = sp.behaviour.judge_agreement(answers.expressed, by_substrings)
pd.Series(asdict(both), name=f"{settings.judge} and substrings").to_frame().round(2)

# %% [markdown]
# Which prompts resist DIM? A vector read off one kind of prompt may not act on another, and an
# average over kinds would hide it. Harmless test prompts are of three kinds: requests like
# those of training, questions, and borderline requests that sound harmful and are not.

# %%
by_kind = sp.rates(results[results.method == "dim"], ["prompts", "kind"])
sp.save_table(preset, "dim_asr_by_kind", by_kind)
by_kind.set_index(["prompts", "kind"]).round(2)

# %% [markdown]
# **Reading.** No kind of harmless prompt resists (on organism-llama a few questions do),
# although DIM was read off requests and never saw a question or a borderline pair. Plain
# requests pay most in clean text, questions nothing.

# %% [markdown]
# ## Do the vectors point the same way?
#
# > *In our words (§3.2).* The three vectors of a model have pairwise cosines of only 0.10 to
# > 0.42.
#
# Low cosines with equal effect would mean that many directions do the same work. But a learned
# vector also depends on its seed, so the range over all seeds trained at the chosen setting
# stands beside each cosine, and on the diagonal the mean cosine between two seeds of one
# method: the ceiling that a comparison between methods could reach. Two random directions
# differ from a right angle by about `1/√d`; the organisms' d is 128, the paper's models' 2304
# and 3072. The claim holds if the cells between DIM, NTP and PO are pale, and far below those
# of one method with itself.

# %%
seeds = {name: torch.stack([*of.by_seed.values()]) for name, of in learned.items()}
angles = sp.vectors.cosine_table(vectors, seeds)
sp.save_table(preset, "cosines", angles)
fig = sp.figures.draw_cosines(angles)
sp.save_figure(fig, preset, "cosines")

# %% [markdown]
# **Reading.** The learned vectors have a good part of DIM in them, near or above the top of the
# paper's range, and far more than random ones. NTP and PO lie well beyond that range, on
# organism-gemma2 not far from two seeds of one method: "different directions" is tested less
# here than in the paper. (Runs of one seed see the pairs in one order, which makes them more
# alike.) PCA is near DIM on organism-gemma2 only.
#
# *Qwen.* DIM's cosines with both are in the paper's range. NTP and PO share 0.80, not far from
# two seeds of one method: there are two directions here, not three.

# %% [markdown]
# ## Answers side by side
#
# The first test prompts, as they come; nothing is picked. First DIM in both directions on
# prompts of both kinds. −s should turn refusals into answers and leave answers alone, +s the
# other way round.

# %%
both_ways = {"base": None, "−s": sp.Steering(vector, layer, -coefficient), "+s": dim}
few = pd.concat([t.head(2).assign(prompts=name) for name, t in asked.items()])
few = few.reset_index(drop=True)
answers = sp.judged_responses(model, few, list(both_ways.values()), **how)
texts = [group.text.to_list() for _, group in answers.groupby("run")]
dim_examples = few[["prompts", "prompt"]].assign(**dict(zip(both_ways, texts)))
dim_examples = sp.behaviour.excerpts(model, dim_examples, list(both_ways), settings)
sp.save_table(preset, "dim_examples", dim_examples)
dim_examples.set_index(["prompts", "prompt"])

# %% [markdown]
# Then the methods beside each other: unsteered, and under each of the three vectors, −|α| on
# harmful and +|α| on harmless prompts. If they do the same thing, their answers should be of
# one kind, though not the same word for word.

# %%
studied = [name for name, method in sp.METHODS.items() if not method.baseline]
compared = ["none", *studied]
shown = results[results.method.isin(compared)].groupby(["prompts", "method"]).head(4)
keys = ["prompts", "prompt"]
examples = shown.pivot(index=keys, columns="method", values="text")[compared]
examples = examples.loc[pd.MultiIndex.from_frame(shown[keys].drop_duplicates())]
examples = sp.behaviour.excerpts(model, examples.reset_index(), compared, settings)
sp.save_table(preset, "examples", examples)
examples.set_index(keys)

# %% [markdown]
# **Reading.** Steered answers are of the same stock as unsteered ones, only of the other kind,
# and a push in the direction that a prompt already has leaves the kind of answer as it is. It
# is not free of side effects: on organism-llama −s makes a harmless answer loop. "Compliance"
# of these models says nothing that could be used.
#
# *Qwen.* Under +s it refuses, a poem under DIM and NTP aside, with nearly the same sentence
# for every vector; under NTP and PO it stops there, under DIM it goes on to the limit of
# length. Under −s "compliance" is often a definition or a remark about something else,
# which the judge counts since it does not refuse: ASR is the absence of a refusal, and no
# measure of help.

# %% [markdown]
# ## Beside the paper, and what we learned
#
# Table 2 of the paper, ASR under each method, beside this run and all models on record. Its
# harmless prompts are Alpaca's, its harmful ones JailbreakBench's, its judge of harmful prompts
# a language model. An organism's row is another model, other prompts and another judge: there
# the comparison is of the phenomenon, not of the number.

# %%
records = sp.load_recorded("table2_asr").rename(columns={"preset": "model"})
reported = sp.paper.reported(
    "table2_asr", concept, test_set=["alpaca", "jailbreakbench"])
both = pd.concat([reported, records, table.assign(model=f"{preset}, this run")])
both = both.pivot_table("asr", ["prompts", "model"], "method", sort=False)
both[compared].round(2)

# %% [markdown]
# The cosines of DIM, NTP and PO, of all models on record (the paper's: 0.10 to 0.42):

# %%
pairs = sp.load_recorded("cosines").query("method_a != method_b")
pairs = pairs[pairs.method_a.isin(compared) & pairs.method_b.isin(compared)]
pairs.pivot(index=["method_a", "method_b"], columns="preset", values="cosine").round(2)

# %% [markdown]
# * **Steering works by all three methods**, in both directions, on unseen prompts, and a random
#   push hardly does. That much of the claim holds on both organisms, more completely than on the
#   paper's models.
# * **The vectors differ less than the paper's.** NTP and PO share most of their direction.
#   Whether different directions do the same work is hardly tested by them, and what later
#   notebooks find for "three methods" are not three independent findings.
# * **The first token is a poor guide.** The candidates that flip it best break the text, and
#   with the paper's limit on KL the organisms would have no candidate or only weak ones. Layer
#   and coefficient come from whole answers here.
# * **ASR needs clean text beside it.** Beyond the useful coefficients, success is what broken
#   text is counted as.
# * **On Qwen**, a real model, all three methods steer, too, on harmless prompts less
#   completely than in the paper. Random vectors steer as well, each its own way; DIM is as far
#   from the learned vectors as the paper's; and the scores of first tokens chose the layer that
#   whole answers chose.
#
# [Notebook 02](02_patching_circuits.ipynb) asks which edges carry these vectors, [notebook
# 03](03_qk_freeze.ipynb) whether attention weights do, and [notebook 06](06_scorecard.ipynb)
# holds the claims against their rules.
