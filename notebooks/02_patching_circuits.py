# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. Patching circuits
#
# > *The paper's claim, in our words (§4, §5).* Patching every edge of the
# > model's graph over whole answers, not over one token, finds the circuit that
# > steering acts through. About a tenth of the edges is enough to carry it,
# > what is left over carries next to nothing, and neither does a random circuit
# > of twice the size.
#
# Steering adds `α s` to the residual stream entering layer ℓ. Everything after that reaches the
# logits along *edges*, from what writes to the stream (the steering itself, attention heads, MLPs)
# to what reads from it (queries, keys and values of the heads, MLPs, the logits). This notebook
#
# 1. scores every edge by **multi-token integrated gradients**, once by hand and
#    then by [`attribute`](../steerpaper/circuits/attribution.py);
# 2. checks the scores against identities and against patching edges one by one;
# 3. asks how few edges carry the steering, and what has a claim to be compared
#    with that;
# 4. asks whether the circuits of other vectors are the same.
#
# *How to read a name.* The stream is a sum, so what a component reads is what all components before
# it have written: every pair of a writer and a later reader is an edge, and cutting one leaves the
# others alone. Writers are `steer`, the heads (`a4.h0` is head 0 of layer 4) and the MLPs (`m4`).
# Readers are the queries, keys and values of the heads (`a4.h0<q>`; heads that share keys and
# values share a reader), the MLPs, and `logits`. A head's own work, from what it reads to what it
# writes, is no edge but left to the model. [`graph.py`](../steerpaper/circuits/graph.py) holds
# nothing else.
#
# *Reads* the vectors of [notebook 01](01_extract_vectors.ipynb) and the prompt sets. *Writes* the
# scores (`build/<preset>/artifacts/<method>_attribution.safetensors`, which
# [04](04_ov_decomposition.ipynb) and [05](05_sparsification.ipynb) read), tidy tables and figures;
# [06](06_scorecard.ipynb) judges the claims by them, and [RESULTS.md](../RESULTS.md) has the
# verdicts of every model. Edges are ranked on training prompts, sizes chosen on validation prompts,
# and every faithfulness shown is measured on test prompts.

# %% tags=["parameters"]
preset = "organism-llama"
seed = 0

# %%
from dataclasses import replace
from itertools import combinations, product

import pandas as pd
import torch
from IPython.display import display

import steerpaper as sp

sp.check_parameters(preset=preset, seed=seed)

# %%
sp.use_style()
pd.set_option("display.max_colwidth", None)
settings = sp.get_preset(preset)
preset = settings.name
model = sp.load_model(preset)
concept = sp.get_concept(settings.concept)
methods = [name for name, method in sp.METHODS.items() if not method.baseline]
steerings = {name: sp.load_steering(preset, name) for name in [*methods, "random"]}
vectors = {name: steering.vector for name, steering in steerings.items()}
layer = steerings["dim"].layer
graph = sp.Graph.of(model, layer)
print(f"{graph.n_edges:,} edges from layer {layer} of {model.n_layers} on")

# %% [markdown]
# ## Four data sets
#
# > *In our words (§5, table 3).* Harmful and harmless prompts, each with the
# > base model's and the steered model's answer; only prompts whose behaviour
# > steering flips.
#
# A harmful prompt counts if the base model refuses it and the model under −α does not; a harmless
# one if the base model answers it and the model under +α refuses. Where steering works (notebook
# 01), most prompts should pass. Base and steered run then read the same answer, and the **metric**
# at each of its positions is the logit of the steered run's favourite token y minus that of the
# base run's, y\*: `m = logit(y) − logit(y*)`. Where both agree, m is zero whatever happens, and the
# position is *masked*. Both answers are taken, because steering has to keep working in either
# direction: against the base answer, which it would not have given, and along its own. On answers
# of the steered model the paper swaps the two runs; then the difference of activations and the
# gradient both change sign, and the score stays what it is, so here all four sets go through alike.
# Every method of notebook 01 gets data of its own: its vector, its coefficient, its flipped prompts
# and its answers.

# %%
how = dict(max_new_tokens=settings.max_new_tokens, batch_size=settings.batch_size)
sizes = {"train": settings.n_patching,
         "validation": min(settings.n_patching, settings.n_validation),
         "test": settings.n_patching_test}
data, judge = {}, sp.load_judge(settings)
for name, split in product(methods, sizes):
    asked = sp.concept_prompts(concept, split, sizes[split], settings.prompts)
    data[name, split] = sp.patching_data(
        model, *asked.values(), steerings[name], judge, concept=concept, **how)
counts = pd.concat({key: part.counts for key, part in data.items()},
                   names=["method", "split"]).reset_index(["method", "split"])
sp.save_table(preset, "table3_patching_data", counts)
sets = ["prompts", "response_from"]
counts[counts.split == "train"].drop(columns="split").set_index(["method", *sets])

# %% [markdown]
# **Reading.** On both organisms steering flips nearly all prompts of either class, so the four sets
# are about as large as they can be. Most positions are masked: on the same text base and steered
# model mostly agree about the next token, and where they do not, steering decides. Everything up to
# *Three vectors* below looks at DIM.
#
# *Qwen2.5-Coder-0.5B, a real model, [on its own
# page](qwen2.5-coder-0.5b-instruct/02_patching_circuits.ipynb).* It answers about half of the
# harmful prompts anyway, so 29 of 56 test prompts are left there and 42 to 47 harmless ones.
# Of its long answers a quarter to two fifths of the positions count; of the one-sentence
# refusals that NTP and PO bring out a tenth.

# %%
judged_on = {name: part.subset(response_from="steered", n=settings.n_judged)
             for (name, split), part in data.items() if split == "test"}
train, test = data["dim", "train"], judged_on["dim"]
checked = train.subset(n=settings.n_checked)  # for what is slow
few = test.subset(n=settings.n_judged // 2)
fewest = test.subset(n=settings.n_random_responses)  # for hundreds of circuits

# %% [markdown]
# ## Why more than one token
#
# Work on refusal often looks at one token only, the one where answering and refusing part ways. If
# steering acted there and the rest followed by itself, the effect m(steered) − m(base) would sit at
# the first unmasked position of a response, for later positions read the same text in both runs. If
# it goes on steering, the effect is spread out. Two numbers say how far: the share at each
# response's *first* unmasked position, and the share at the *largest* single position, counted from
# the start of the answer. Only if both are small does one token miss most. In the table `at` is
# that largest position, and the last row takes the four sets together, each with the same weight.

# %%
empty = sp.Circuit.of(graph, graph.edges[:0])
full = sp.Circuit.of(graph, graph.edges)
ends = sp.faithfulness_of(model, [empty, full], train.responses, train.steerings)
effects = sp.circuits.position_effects(ends[1], train)
by_token = effects.pivot_table("effect", sets, "token", aggfunc="sum", fill_value=0.0)
by_token = by_token.reindex(columns=range(effects.token.max() + 1), fill_value=0.0)
responses = train.counts.set_index(sets).responses
by_token = by_token.div(responses, axis=0)
by_position = by_token.stack().rename("effect_per_response").reset_index()
sp.save_table(preset, "effect_by_position", by_position)
fig = sp.figures.draw_effect_by_position(by_position)
sp.save_figure(fig, preset, "effect_by_position")

# %%
by_token.loc[("together", ""), :] = by_token.sum()
at_first = effects[effects["first"]].groupby(sets).effect.sum() / responses
at_first.loc[("together", "")] = at_first.sum()
shares = pd.DataFrame({"first": at_first, "largest": by_token.max(axis=1)})
shares = shares.div(by_token.sum(axis=1), axis=0).assign(at=by_token.idxmax(axis=1))
sp.save_table(preset, "effect_shares", shares.reset_index())
shares.round(2)

# %% [markdown]
# **Reading.** The *first* unmasked position misses most of the effect. But one position, the third
# of the answer, holds about half of the pooled effect on organism-gemma2, more on organism-llama,
# and most of it on steered answers. Base answers to harmful prompts, on organism-gemma2 to harmless
# ones, too, go on being steered until late.
#
# So the two ways to look at one token disagree: where the runs first part is often an unimportant
# word before the decision, while the decision itself is one position. What a one-token analysis
# finds depends on which of the two it takes; its circuit is tested below.
#
# *Qwen.* Here no position stands out: the largest holds 8 % of the pooled effect, and it
# takes the first 23 tokens of an answer to get to the half. (Base answers to harmful prompts
# are the exception: they are refusals of one line.) The two ways to look at one token agree,
# for once: either misses nine tenths.

# %% [markdown]
# ## The score of one edge, by hand
#
# > *In our words (§5, F).* The indirect effect of edge (u, v) is the difference
# > of u's write between the two runs, times the gradient of m at v's input,
# > averaged over T = 10 midpoints between the base and the steered stream.
#
# For one response of n unmasked positions, with h the base run's stream
# entering layer ℓ and ⟨·,·⟩ summed over positions and dimensions,
#
# $$\mathrm{IE}(u \to v) = \frac{1}{n T} \sum_{i=0}^{T-1} \Big\langle
# u_\text{steered} - u_\text{base},\;
# \frac{\partial m}{\partial v_\text{in}}\Big|_{h + \frac{i + 1/2}{T} \alpha s}
# \Big\rangle,$$
#
# the gradient taken in the run that enters layer ℓ with what the index says.
#
# Why an average along the path? With one step the gradient at the base run (or in the middle) says
# how m *begins* to change; where the model saturates, as a softmax does, that is not how far it
# gets. Along the whole path gradients add up to the difference, as in the fundamental theorem of
# calculus, so that nothing of the effect is lost or counted twice.
#
# The cell below does that for an edge that every model has, from the steering node to the MLP of
# layer ℓ. The source writes `α s` in the steered run and nothing in the base run, so its difference
# is `α s` at every position. The target reads the stream before the MLP's norm, and *only* through
# the MLP: a copy of the stream is put where the norm reads, so that the gradient does not go round
# it along the residual stream. m is summed over all positions of the answer, from the prompt's last
# token to the answer's last but one; where y = y\* it is zero.

# %%
one, T = checked.subset(concept.positive, "base", n=1), 10
response, push = one.responses[0], one.steerings[0].coefficient * vectors["dim"]
ids, mask = model.pad([response.tokens])
answer = slice(len(response.prompt) - 1, len(response.tokens) - 1)
push = push.to(ids.device, model.dtype)
with torch.no_grad(), model.trace(ids, mask):
    h = model.layer(layer).input.save()
    base = model.logits.save()
with torch.no_grad(), model.trace(ids, mask):
    model.start_at(layer, h + push)
    steered = model.logits.save()
y, y_star = (run[:, answer].argmax(-1, keepdim=True) for run in (steered, base))

# %%
score = 0.0
for i in range(T):
    point = (h + (i + 0.5) / T * push).requires_grad_()
    with model.trace(ids, mask):
        model.start_at(layer, point)
        read = model.mlp_norm(layer).input.clone().save()  # v's input
        model.mlp_norm(layer).input = read
        logits = model.logits[:, answer].save()
    m = (logits.gather(-1, y) - logits.gather(-1, y_star)).sum()
    score += (push * torch.autograd.grad(m, read)[0]).sum().item() / T
score /= (y != y_star).sum().item()

# %%
att = sp.attribute(model, one.responses, one.steerings, steps=T)
edge = att.edges.set_index(["source", "target"]).score["steer", f"m{layer}"]
bound = 1e-4 if model.dtype == torch.float32 else 1e-1  # of the score
print(f"by hand as by the package, to {bound:.0e}:", abs(score / edge - 1) <= bound)

# %% [markdown]
# [`gradients.py`](../steerpaper/circuits/gradients.py) gets the gradients of *all* targets from
# those same T passes, every head's queries, keys and values apart, without a copy of the stream for
# each: gradients are taken at the outputs of the projections and pulled back through the head's
# rows of the weight and through the norm.
#
# ## All scores
#
# Scores are in units of m: logits per unmasked position. We compute the four sets apart and pool
# them, which is exact: a score is a mean over positions. If a tenth of the edges is to carry the
# steering, scores should fall steeply with rank.

# %%
by_set = {}
for key in responses.index:
    part = train.subset(*key)
    by_set[key] = sp.attribute(model, part.responses, part.steerings, steps=10)
scores = sp.Attribution.pooled(list(by_set.values()))
ranked = scores.edges.sort_values("score", key=abs, ascending=False, ignore_index=True)
ranked.head(8).round(2)

# %%
fig = sp.figures.draw_score_distribution(scores.edges)
sp.save_figure(fig, preset, "score_distribution")

# %% [markdown]
# **Reading.** On both organisms a tenth of the edges holds most of Σ |score|. A part even of the
# strongest is negative: steering is also worked against, which is why edges are ranked by |score|.
# The very strongest leave the steering node or arrive at the logits.
#
# *Qwen.* A tenth holds more than nine tenths. Nearly as many edges work against the steering
# as for it, but more weakly: two to one beyond the strongest hundred, and about level only
# beyond the strongest tenth.

# %% [markdown]
# ## Checks that must hold exactly
#
# Identities that the code has to meet whatever the model does. A run of the *empty* circuit is the
# base run, one of the *full* circuit the steered run. The scores of the steering node's edges add
# up to the score of the node. The first two would fail if an edge were missing from the graph or a
# run mixed in the wrong activations, the third if a gradient were pulled back wrongly. In float32
# rounding should leave less than 1e-4 logits of difference in each of them.

# %%
nothing, everything = (result.table for result in ends)
of_steer = scores.edges.score[scores.edges.source == "steer"].sum()
rows = [("empty circuit − base run, |Δm| at every position",
         (nothing.m_circuit - nothing.m_base).abs().max()),
        ("full circuit − steered run, |Δm| at every position",
         (everything.m_circuit - everything.m_steered).abs().max()),
        ("Σ edges of the steering node − the node's score",
         abs(of_steer - scores.nodes.score[0]))]
# What is left is rounding, other digits on every processor: the bound is what counts.
identities = pd.DataFrame([(check, 1e-4, left <= 1e-4) for check, left in rows],
                          columns=["check", "bound", "within"])
sp.save_table(preset, "identity_checks", identities)
identities.set_index("check")

# %% [markdown]
# And integrated gradients are *complete*: the steering node's score tends to m(steered) − m(base)
# as T grows, with the midpoint rule's error falling as 1/T². A line that leaves that slope, or
# stops falling, would mean a gradient that is not the metric's.

# %%
by_steps, rows = {}, []
for key in by_set:
    part = checked.subset(*key)
    table = sp.faithfulness(model, full, part.responses, part.steerings).table
    truth = (table.m_steered - table.m_base).mean()
    for T in (1, 2, 5, 10, 20):
        by_steps[T, key] = sp.attribute(model, part.responses, part.steerings, steps=T)
        rows.append((*key, T, abs(by_steps[T, key].nodes.score[0] / truth - 1)))
completeness = pd.DataFrame(rows, columns=[*sets, "steps", "relative_error"])
sp.save_table(preset, "completeness", completeness)
fig = sp.figures.draw_completeness(completeness)
sp.save_figure(fig, preset, "completeness")

# %% [markdown]
# **Reading.** One step misses some of the effect, the paper's ten miss next to nothing. From ten
# steps on the error falls as it should in every set; before that it falls unevenly, most so on
# organism-gemma2, where errors of opposite sign cancel in some sets.
#
# *Qwen.* The same, on a slope of 1/T² from five steps on.

# %% [markdown]
# ## Attribution against exact patching
#
# The scores are an approximation. The true effect of an edge is found by patching it alone: its
# reader gets the writer's steered instead of its base activation, everything after that reader
# responds, and m of that run is compared with the base run's. That is one run of the model per edge
# and response ([`patch_edges`](../steerpaper/circuits/patching.py)), which attribution saves us
# from doing for every edge. On a sample of edges, half of them the strongest and half at random, a
# good attribution lies on the diagonal. The authors' code takes gradients *after* a target's norm
# and leaves the norm's Jacobian out; those scores have other units, so there the question is the
# correlation, not the slope.

# %%
half = settings.n_patched_edges // 2
# Drawn from an order that no rounding changes, as that of two weak edges may be.
others = ranked[half:].sort_values(["source", "target"]).sample(half, random_state=seed)
sample = pd.concat([ranked[:half], others])[["source", "target"]]
exact = sp.patch_edges(model, checked.responses, checked.steerings, sample).score
variants = {("exact", T): sp.Attribution.pooled([by_steps[T, key] for key in by_set])
            for T in (1, 5, 10, 20)}
variants |= {("norm skipped", T): sp.attribute(
    model, checked.responses, checked.steerings, steps=T, norm_jacobian=False)
    for T in (1, 5, 10, 20)}

# %%
patched, rows = sample.assign(exact_patching=exact), []
tenths = {key: sp.Circuit.top(variants[key], graph.n_edges // 10) for key in variants}
for (name, T), att in variants.items():
    found = sample.merge(att.edges, how="left").set_axis(sample.index).score
    patched[f"{name}, T = {T}"] = found
    rows.append((name, T, (found * exact).sum() / (exact**2).sum(), found.corr(exact),
                 found.corr(exact, method="spearman"),
                 sp.overlap(tenths["exact", 20], tenths[name, T])))
checks = pd.DataFrame(rows, columns=["gradient", "steps", "slope", "correlation",
                                     "rank_correlation", "overlap_of_top_tenth"])
sp.save_table(preset, "patching_check", checks)
sp.save_table(preset, "patched_edges", patched)
fig = sp.figures.draw_patching_check(patched, checks)
display(sp.save_figure(fig, preset, "patching_check"), checks.round(3))

# %% [markdown]
# **Reading** (axes linear within ±0.001, logarithmic beyond; grey: the diagonal). Attribution ranks
# edges nearly as patching does, at ten steps as well as at twenty, and overstates strong ones,
# those from the steering node into MLPs and values by half or more. Skipping the norm's Jacobian
# correlates better on organism-llama, ranks slightly worse on both, and finds nearly the same
# strongest tenth on both (what its circuits do: near the end).
#
# What is left of the error is no matter of steps: patching moves one input alone from base to
# steered, the path of integration moves all of them together. Where inputs interact, as in an MLP
# that reads the steering and what earlier MLPs made of it, both are right about different things.
#
# *Qwen.* Correlation and rank correlation with exact patching are 0.99 and 0.96 at any number
# of steps, the slope is 0.96. Of the strong edges two, from heads of layer 14 into m15, are
# twice too large, three a sixth to a third too small, and a weak one (m14→m16) has the wrong
# sign. Without the norm's Jacobian the slope halves and the correlation is 0.97; a fifth of
# the strongest tenth is exchanged.

# %% [markdown]
# ## Faithfulness
#
# > *The paper's figure 2, in our words (§5.2).* Circuits of about 10 % of the
# > edges (900 of 8,790 in Gemma-2-2B) and 11 % (13,500 of 124,441 in
# > Llama-3.2-3B) recover at least 85 % of the steered logit difference. Without
# > them almost nothing is recovered, and random circuits of twice the size
# > recover less than 10 %.
#
# The *faithfulness* of a circuit is `(m(C) − m(base)) / (m(steered) − m(base))`, where in m(C) the
# edges of C carry what their writers write in that run and all others their base activations: 0 is
# the base run, 1 the steered one, as the endpoint identities above showed for the empty and the
# full circuit. Each m is averaged over all positions first and the ratio taken last, for position
# by position it has denominators near zero. Intervals are bootstrapped over prompts, which is what
# a new sample would draw anew; they do not contain the choice of the edges. A circuit holds the
# strongest edges that lie on some path from the steering node to the logits: others change nothing,
# the RMS of a post-norm aside. Measured on the steered answers to **test** prompts, with edges
# ranked on training prompts.
#
# One random circuit says little: what it carries depends on which edges of the steering node it
# happens to hold, and above all on the one that leads straight to the logits. So each is drawn a
# hundred times ([`controls.py`](../steerpaper/circuits/controls.py)), on a part of the test
# prompts, and shown as the band that holds 95 % of the draws, their median dotted. One kind has *as
# many edges* as the circuit. The other has as many *of every kind*: of every pair of a source's
# kind (the steering node, heads, MLPs) and a target's (queries, keys, values, MLPs, the logits).
# What that one carries, the circuit owes to the kinds of its edges, what it lacks, to which of them
# attribution chose.
#
# The claim holds if the circuit's curve climbs to the dotted line (0.85) early, while the
# complement (drawn at the size of the circuit that it lacks) and the band of as many random edges
# stay low. It is the stronger, the lower the other band lies, too.

# %%
tested = {}
for circuit in sp.circuits.top_circuits({"circuit": scores}, settings.circuit_shares):
    share = circuit.n_edges / graph.n_edges
    tested["circuit", share] = circuit
    tested["complement", share] = circuit.complement()
tested = pd.Series(tested).rename_axis(["kind", "share"]).sort_index()
curves = sp.circuits.faithfulness_by_class(model, tested, test, seed=seed)
columns = ["prompts", "share", "n_edges", "faithfulness", "low", "high"]
sp.save_table(preset, "fig2_faithfulness", curves[["prompts", "kind", *columns[1:]]])

# %%
tops = sp.circuits.top_circuits({"strongest": scores}, settings.compared_shares)
drawn = [sp.circuits.random_draws(model, circuit, fewest, ("same size", "same kinds"),
                                  n_draws=settings.n_random_circuits, seed=seed)
         .assign(circuit="strongest", share=circuit.n_edges / graph.n_edges)
         for circuit in tops]
random = sp.circuits.quantiles_of_draws(pd.concat(drawn), ("circuit", "share"))
looks = {"circuit": (sp.PALETTE["dim"], "o-"), "complement": (sp.PALETTE["dim"], "s--")}
fig = sp.figures.draw_faithfulness(curves, "kind", looks, random)
sp.save_figure(fig, preset, "fig2_faithfulness")

# %% [markdown]
# **Reading.** On both organisms the circuit is faithful at a tenth of the edges or less, sooner on
# harmful than on harmless prompts on organism-llama, and its complement carries next to nothing
# from there on. Up to there nearly all circuits of as many random edges stay below a fifth of the
# effect, but those of as many of every kind climb with the circuit, an octave of size behind it on
# organism-llama, two on organism-gemma2: at a fifth of all edges none of a hundred reaches it.
#
# *Qwen.* The paper's figure 2, on a third family: 5 % of the edges carry 0.82 to 0.85, a
# tenth 0.95, the complement nothing. Random edges carry nothing, less than the organisms'.
# Those of the same kinds climb here, too, to 0.64 and 0.77 at a tenth, but no draw reaches
# the circuit. (Draws are judged on two answers per class.)

# %% [markdown]
# ## The minimum-faithful circuit
#
# The smallest size that reaches 0.85, by bisection in steps of 1 % of the edges, is found on
# validation prompts, for harmful and harmless ones apart; the larger one is taken, so that neither
# class hides behind the other. (Faithfulness need not grow with size, for some edges work against
# the steering; then this is one size that reaches it while the next smaller one does not.) On test
# prompts we then measure that circuit and its complement. The size was not chosen on them, so it
# may fall short of 0.85 there.

# %%
rankings, circuits = {"dim": scores}, {}
for name in methods:
    part = data[name, "train"]
    if name != "dim":
        rankings[name] = sp.attribute(model, part.responses, part.steerings, steps=10)
    rankings[name].save(preset, f"{name}_attribution", steerings[name],
                        {"steps": 10, "seed": seed})
    part = data[name, "validation"].subset(response_from="steered")
    circuits[name] = sp.circuits.minimum_circuit(model, rankings[name], part, 0.85)
minimum = circuits["dim"]
# Saved in the graph's order: which of two weak edges comes first is rounding.
edges = {name: ranking.edges.set_index(["source", "target"]).score
         for name, ranking in rankings.items()}
sp.save_table(preset, "edge_scores", pd.concat(edges, axis=1).reset_index())

# %%
others = {"circuit": minimum, "complement": minimum.complement()}
others = pd.Series(others).rename_axis("circuit")
controls = sp.circuits.faithfulness_by_class(model, others, test, both=True, seed=seed)
controls["share"] = controls.n_edges / graph.n_edges
order = ["circuit", "prompts", "n_edges", "share", "faithfulness", "low", "high"]
sp.save_table(preset, "minimum_faithful", controls[order])
controls[controls.prompts == "both"].drop(columns="prompts").round(3)

# %% [markdown]
# **Reading.** Both organisms need less than a tenth of the edges, faithful on test prompts of
# either class, too. The complement carries about nothing.
#
# ### Beside a hundred random circuits
#
# The paper's control has twice as many edges, taken at random. Three kinds stand beside the
# minimum-faithful circuit: as many edges, twice as many, and as many of every kind. A single
# circuit that fails shows that failing is possible; so what is held against the paper's limit of
# 0.1 is the value below which 97.5 % of the draws stay (*high*), and against half of what the
# circuit carries the *median* (*reaching*: the share of draws that carry as much as the circuit).
# The paper's sentence holds if *high* of twice as many edges lies below 0.1 in both classes. That
# *which* edges are in the circuit matters, and not only how many of what kind, is shown by the
# last kind or not at all.
#
# A filled point holds the edge that leads from the steering node straight to the logits. If the
# filled ones lie apart, "random circuits carry something" is a matter of that one edge. (Circuits
# of the last kind hold it whenever the circuit does. Some of their edges lie on no path, and do
# nothing: *on_path* counts the others.)
#
# *Qwen.* 6 % of the edges, 798 of 13,306, carry 0.91 on test prompts of both classes, though
# they were ranked on 13 flipped prompts and sized on 12. What is left carries nothing.

# %%
draws = sp.circuits.random_draws(model, minimum, fewest, seed=seed,
                                 n_draws=settings.n_random_circuits)
sp.save_table(preset, "random_draws", draws)
draws = draws.assign(circuit="minimum-faithful", share=minimum.n_edges / graph.n_edges)
found = sp.circuits.quantiles_of_draws(draws, ("circuit", "share"))
sp.save_table(preset, "random_circuits", pd.concat([found, random]))
fig = sp.figures.draw_random_circuits(draws)
shown = found.drop(columns=["circuit", "share"]).set_index(["control", "prompts"])
display(sp.save_figure(fig, preset, "random_circuits"), shown.round(3))

# %%
draws.groupby(["control", "prompts", "straight"], sort=False).faithfulness.agg(
    ["size", "median"]).round(3)

# %% [markdown]
# **Reading.** The paper's sentence falls: the quantiles of twice as many random edges are 0.15 to
# 0.20. On organism-llama that is the straight edge, and draws without it carry next to nothing;
# on organism-gemma2 4 and 7 of 78 without it exceed 0.1, too. As many of every kind carry half to
# three quarters of what the circuit carries, and none of a hundred as much. The kinds of edges
# alone go that far.
#
# *Qwen.* The paper's sentence holds as printed: of twice as many random edges 97.5 % of the
# draws stay below 0.05 on harmful and 0.08 on harmless prompts (two answers per class). With
# kinds matched it is the organisms' picture: random edges of the same kinds alone carry half
# on harmful and two thirds on harmless prompts, and no draw as much as the circuit.

# %% [markdown]
# ## Circuits from a single data set, and from one token
#
# > *Figure 19, in our words.* The paper also finds circuits on each of the four
# > sets by itself.
#
# If harmful and harmless prompts, base and steered answers used different edges, a circuit found on
# one set would fail on the other kind of test prompts. The same figure holds the circuit of a
# one-token analysis: all four sets, each answer cut after the first position at which base and
# steered run disagree. If patching over whole answers is needed, that curve lies below. How far
# below is measured on the same prompts, and what makes a prompt hard makes it so for both circuits:
# the intervals of the *difference*, over prompts drawn again with both circuits' values, say more
# than those of the two curves.

# %%
cut, steerings = [], []
for row in effects[effects["first"]].itertuples():
    whole = train.responses[row.response]
    cut.append(sp.Response(whole.prompt, whole.completion[:row.token + 1]))
    steerings.append(train.steerings[row.response])
ranked_on = {"all four sets": scores,
             "one token only": sp.attribute(model, cut, steerings)}
ranked_on |= {", ".join(key): part for key, part in by_set.items()}
some = [round(share * graph.n_edges) / graph.n_edges
        for share in settings.compared_shares]

# %%
tested = sp.circuits.top_circuits(ranked_on, some, "ranked_on")
shared = pd.Series([sp.overlap(circuit, tested["all four sets", share])
                    for (_, share), circuit in tested.items()], tested.index)
single = sp.circuits.faithfulness_by_class(
    model, tested, few, against="one token only", seed=seed)
single = single.join(shared.rename("overlap_with_all"), on=tested.index.names)
paired = ["difference", "difference_low", "difference_high"]
sp.save_table(preset, "fig19_single_sets",
              single[["ranked_on", *columns, "overlap_with_all", *paired]])

# %%
looks = {"all four sets": ("black", "o-"),
         "one token only": (sp.PALETTE["random"], "^:")}
for prompts, source in by_set:
    style = "s-" if source == "steered" else "s--"
    looks[f"{prompts}, {source}"] = (sp.PALETTE[prompts], style)
fig = sp.figures.draw_faithfulness(single, "ranked_on", looks)
sp.save_figure(fig, preset, "fig19_single_sets")

# %%
single[single.share.round(2) == 0.1].pivot_table(
    ["faithfulness", "overlap_with_all"], "ranked_on", "prompts", sort=False).round(2)

# %% [markdown]
# Faithfulness of the circuit of all four sets minus that of one token, at every size. What is to be
# looked at is whether an interval excludes 0 (then whole answers are better, or worse, beyond the
# chance of which prompts were asked), and at which sizes: the claim is about those that could be
# called small.

# %%
single[single.ranked_on == "all four sets"].set_index(["prompts", "share"])[
    paired].sort_index().round(3)

# %% [markdown]
# **Reading.** Each single set finds a circuit that serves the other class nearly as well. So does
# one token: on organism-gemma2 its circuits carry 0.04 to 0.08 less up to a tenth of the edges,
# beyond chance; on organism-llama hardly less, and of harmless prompts at a tenth even more. On
# these short answers whole ones are the safer choice, not a necessary one.
#
# *Qwen.* This is the paper's claim, and organism-llama's refutation does not carry over: the
# circuit of one token carries 0.10 to 0.18 less than that of whole answers, beyond chance at
# both sizes, and shares 58 to 66 % of its edges. Qwen's answers are as short as the
# organisms', those to harmless prompts twice as long, but no formulas. Whole answers are
# also more data: one position per answer is ranked on against fifteen, and what that does by
# itself was not tried. Circuits of single sets serve the other class, but each, base
# refusals least, falls short of all four together, some by next to nothing.

# %% [markdown]
# ## Another metric: directional KL
#
# > *Figure 20 and table 9, in our words (E.2).* The metric may be KL(base‖·) −
# > KL(steered‖·), with positions below a threshold of KL(steered‖base) left
# > out.
#
# The logit difference looks at two tokens and is blind where both runs prefer
# the same one. KL compares whole distributions: it is largest where the run has
# left the base model's and come to the steered one's. With threshold 0 every
# response position counts, with a high one only those at which steering changes
# the prediction drastically, and on some models none. A circuit found by KL and judged by the logit
# difference should not fall far behind one found by the logit difference on the
# same responses (a quarter of the training prompts).

# %%
part = train.subset(n=max(1, settings.n_patching // 4))
by_metric = {"logit difference": sp.attribute(model, part.responses, part.steerings)}
positions = {"logit difference": by_metric["logit difference"].positions}
for threshold in (0.0, 1.0, 5.0):
    name, metric = f"KL, threshold {threshold:.0f}", sp.DirectionalKL(threshold)
    try:
        by_metric[name] = sp.attribute(
            model, part.responses, part.steerings, metric=metric)
    except sp.circuits.NoPositionLeft:
        positions[name] = 0
    else:
        positions[name] = by_metric[name].positions
positions = pd.Series(positions, name="positions").rename_axis("metric").reset_index()
sp.save_table(preset, "table9_positions", positions)
tested = sp.circuits.top_circuits(by_metric, some, "metric")
shared = pd.Series([sp.overlap(circuit, tested["logit difference", share])
                    for (_, share), circuit in tested.items()], tested.index)
kl = sp.circuits.faithfulness_by_class(model, tested, few, seed=seed)
kl = kl.join(shared.rename("overlap"), on=tested.index.names)
sp.save_table(preset, "fig20_kl", kl[["metric", *columns, "overlap"]])

# %%
greys = ("black", "#440154", "#21918c", "#b5a000")
looks = dict(zip(by_metric, zip(greys, ("o-", "s-", "^-", "v-"))))
fig = sp.figures.draw_faithfulness(kl, "metric", looks)
sp.save_figure(fig, preset, "fig20_kl")

# %% [markdown]
# **Reading.** The four curves lie within 0.02 of each other on both organisms, mostly well
# within their intervals: which metric ranks the edges makes hardly a difference here, although
# the highest threshold counts only a small share of the positions.
#
# *Qwen.* KL ranks as well as the logit difference, a little better where edges are few. Only
# with the highest threshold, which six positions pass, is something lost: 0.04 to 0.08.

# %% [markdown]
# ## Three vectors, one circuit?
#
# > *The paper's first finding, in our words (§5.2, figures 3 and 4).* DIM, NTP
# > and PO point in different directions (cosines of 0.10 to 0.42), and yet a
# > circuit found for one carries the steering of the others, and most of their
# > edges are the same at every size.
#
# Everything above is now repeated for the other vectors of notebook 01. How far
# apart they are says how much a common circuit can mean here: nearly parallel
# vectors have to share one.

# %%
unit = torch.stack([vector / vector.norm() for vector in vectors.values()])
pd.DataFrame((unit @ unit.T).numpy(), list(vectors), list(vectors)).round(2)

# %% [markdown]
# **Reading** (cosines). On both organisms DIM is far from the learned vectors, if hardly as far as
# in the paper, and NTP and PO are close to each other, closer than any pair of the paper's. The
# random vector is at right angles to all of them, or nearly (−0.17 on organism-gemma2).
#
# *Qwen.* DIM's cosines, 0.37 and 0.30, are the paper's; NTP and PO share 0.80. Interchange
# tests two directions here, not three.

# %% [markdown]
# The left part of figure 3: how many edges does each vector need, on its own
# answers? If one method found a more roundabout way to the same behaviour, its
# curve would rise later.

# %%
tops = sp.circuits.top_circuits(rankings, settings.circuit_shares)
by_size = [curves[curves.kind == "circuit"].assign(method="dim")]  # as in figure 2
by_size += [sp.circuits.faithfulness_by_class(
    model, tops.loc[[name]], judged_on[name], seed=seed) for name in methods[1:]]
by_size = pd.concat(by_size)
sp.save_table(preset, "fig3_faithfulness", by_size[["method", *columns]])
needed = [(name, c.n_edges, c.n_edges / graph.n_edges) for name, c in circuits.items()]
needed = pd.DataFrame(needed, columns=["method", "n_edges", "share"])
sp.save_table(preset, "fig3_minimum_faithful", needed)
looks = {name: (sp.PALETTE[name], style) for name, style in
         zip(methods, ("o-", "s-", "^-", "v-"))}
fig = sp.figures.draw_faithfulness(by_size, "method", looks)
display(sp.save_figure(fig, preset, "fig3_faithfulness"), needed.round(3))

# %% [markdown]
# **Reading** (table: minimum-faithful circuits, sized on validation prompts). On organism-gemma2
# all methods need about as many edges by that search, NTP fewer on test prompts (3 %). On
# organism-llama the learned vectors reach 0.85 later on harmless prompts, PO last although it
# rises first, and PO needs the largest circuit.
#
# *Qwen.* 6, 9 and 10 % of the edges for DIM, NTP and PO: the paper's "about a tenth". On
# harmless test prompts PO's falls short, with 0.83. The bars of the learned vectors there are
# wide, since their refusals are a line long.

# %% [markdown]
# The right part of figure 3: each vector's steering, on its own answers, through each vector's
# minimum-faithful circuit. If the circuits are interchangeable, the whole block of methods is as
# dark as its diagonal. Two controls tell what that is worth: *random edges*, as many as in the
# largest of the circuits, should carry nothing. And a **random vector**, which is about nothing,
# has top edges too: if its circuit carried the steering just as well, the circuit would be the
# model's way of passing on any push, and not one of refusal.
#
# For a fair comparison the push must be as long, since a longer one drives the model further into
# its non-linear parts: a learned vector's push may be nearly half as long again as DIM's. So every
# row has a random vector of its own, as long as the method's and with its coefficient, attributed
# on the method's answers. The last row steers by DIM's random vector, on DIM's answers, for it
# flips hardly any: it only moves the predictions at some of their positions.

# %%
pushed = {}
for i, name in enumerate(methods):
    part = data[name, "train"].subset(response_from="steered")
    vector = sp.random_vector(vectors[name], seed + i)
    pushes = [replace(push, vector=vector) for push in part.steerings]
    pushed[name] = sp.attribute(model, part.responses, pushes, steps=10)
pushes = [replace(push, vector=vectors["random"]) for push in test.steerings]
judged_on["random vector"] = replace(test, steerings=pushes)
as_long = pushed | {"random vector": pushed["dim"]}
interchange = sp.circuits.interchanged(model, circuits, as_long, judged_on, seed=seed)
sp.save_table(preset, "fig3_interchange", interchange.drop(columns="n_edges"))
sp.save_figure(sp.figures.draw_interchange(interchange), preset, "fig3_interchange")

# %% [markdown]
# **Reading.** The methods' circuits serve each other nearly as well as themselves on both
# organisms, and random edges carry about nothing, as the paper finds. A random vector's circuit
# carries half (DIM on organism-gemma2) to nine tenths (NTP there, PO on organism-llama) of what
# the method's own does: the model's way of passing on any push of that length.
#
# The paper's comparison with random edges does not show that part. Interchange
# is evidence about refusal only as far as it goes beyond that column. How far that
# is was measured on the same answers, so the table has the *difference* from the
# random vector's circuit, and what that carries as a share of the circuit's own
# faithfulness (*other_share*), with intervals over prompts drawn again for both
# circuits at once. Is a difference beyond chance at all (its interval excludes 0), and
# does the share's interval lie on one side of the half that the
# [scorecard](06_scorecard.ipynb) asks for?
#
# *Qwen.* The same, more sharply. Every method's circuit carries 0.76 to 0.93 of every other's
# steering. But the circuits of random vectors carry 0.69 to 0.85 of it, and NTP's and PO's
# circuits carry the random vector's push as well as its own does, DIM's nearly (0.83 of
# 0.90).

# %%
beyond = interchange.query("vector in @methods and circuit in @methods")
beyond = beyond[beyond.prompts != "both"].set_index(["vector", "circuit", "prompts"])
beyond.filter(regex="difference|other_share").round(3)

# %% [markdown]
# **Reading.** Every difference is beyond chance, and every share is above a half, all but two with
# its whole interval: interchange says something about refusal, and more about any push.
#
# *Qwen.* The random vector's circuit, as large as PO's, does 73 to 113 % of what the methods'
# do; of PO's circuit alone 73 to 103 %. On harmless prompts five of the learned vectors' six
# comparisons are within chance or go the other way; those that do so clearly are with DIM's
# circuit, which is smaller (as are three of the four interchanges that miss 0.85). On harmful
# ones all are beyond chance. So the paper's first finding holds here in part (8 of 12 reach
# 0.85), and says less about refusal than it seems to: most of what these circuits share is
# how this model passes on a push. One caution: a random direction is not always about
# nothing. NTP's control has the direction of draw 1 of notebook 01's ten, which at NTP's length
# moves ASR by 0.25 and 0.38, NTP's way; DIM's, draw 0, moves it by 0.25 on harmful prompts, the
# other way.

# %% [markdown]
# One direction per method is a thin control, and some of these move ASR by themselves. So the same
# for five of the ten directions of [notebook 01](01_extract_vectors.ipynb), the same five for all
# methods, and with as many edges as the method's *own* circuit, not the largest. Points are open
# where the random vector by itself moves ASR by no more than a tenth of what the method does. An
# open point high up is the clearest sign of a circuit that is the model's and not the concept's;
# below the dotted line the method's circuit goes far beyond it.

# %%
ranked_on = {name: data[name, "train"].subset(response_from="steered")
             for name in methods}
random_ones = sp.circuits.random_vector_circuits(
    model, circuits, ranked_on, judged_on, draws=5, seed=seed)
moved = sp.load_table(preset, "random_control").rename(columns={"as_long_as": "method"})
by = ["method", "seed", "prompts"]
random_ones = random_ones.merge(
    moved[[*by, "asr_change", "method_change"]], "left", on=by, validate="one_to_one")
sp.save_table(preset, "random_vector_circuits", random_ones)
fig = sp.figures.draw_random_vector_circuits(random_ones)
sp.save_figure(fig, preset, "random_vector_circuits")

# %% [markdown]
# **Reading.** On the organisms these vectors steer little (in 8 of 60 cases by more than a tenth,
# in none by more than 0.21), and their circuits serve all the same: 57 of 60 carry more than half
# of what the method's own does, and all stay behind it beyond chance. Larger circuits are less the
# method's own on organism-llama (0.40 to 0.90), not on organism-gemma2 (0.50 to 0.92), where DIM's
# and NTP's are equally large. Directions differ by more than prompts: one was a thin control.
#
# *Qwen.* 0.73 to 1.03, and all but two stay behind the method's own beyond chance. Here most
# vectors move ASR by themselves, on harmful prompts all (5 of 15 by one prompt, 6 the other way).
# That their circuits serve is not owed to it: on harmless prompts a direction that moves ASR by
# one prompt, the wrong way, has the circuits that carry most, 0.88, 0.98 and 1.03. So the caution
# above falls: seven tenths or more of what a circuit carries can be had from one that was found
# for any push.

# %% [markdown]
# Figure 4: how many edges do the circuits share, size by size? By chance two circuits of a share p
# of all edges share p of their edges. A column that is as dark for the random vector as for the
# methods would say that the model reads some edges more than others, whatever is written.

# %%
between = [*combinations(methods, 2)]
as_long = {name: f"random, as long as {name}" for name in methods}
by_vector = rankings | {as_long[name]: pushed[name] for name in methods}
tops = sp.circuits.top_circuits(by_vector, settings.circuit_shares)
pairs = between + [*as_long.items()]
overlaps = sp.circuits.circuit_overlaps(tops, pairs)
sp.save_table(preset, "fig4_overlap", overlaps)
sp.save_figure(sp.figures.draw_overlap(overlaps), preset, "fig4_overlap")

# %% [markdown]
# **Reading.** At every size the methods' circuits share most of their edges, but on both organisms
# fewer than the paper's nine tenths, with a single exception. All pairs lie far beyond chance (the
# table's p), but so does each with its random vector, which shares a third to three fifths of the
# strongest edges, and with growing size comes near the methods: a small p alone says little.
#
# *Qwen.* DIM shares 0.69 to 0.79 of its edges with the learned vectors and 0.60 to 0.66 with
# its own random vector: at a tenth of the edges the two numbers all but meet.

# %% [markdown]
# ## The authors' attribution, carried through
#
# Above, skipping the norm's Jacobian changed scores, and hardly the strongest tenth. But the
# paper's circuits, sizes and overlaps are all made of such scores, so the question is what becomes
# of *them*. For every method: edges ranked anew on the same answers with `norm_jacobian=False`, the
# minimum-faithful circuit by the same search, and everything that was asked of the exact circuits
# asked of these. Circuit runs do not depend on how edges were ranked, so faithfulness means the
# same for both.
#
# If the shortcut is harmless, dashed and solid curves lie on each other, sizes and interchange
# agree, and the two circuits of a method share nearly all of their edges. A ranking that needs
# *fewer* edges would be the better one, whoever calls it exact. And if methods overlap *more* when
# the norm is skipped, part of the paper's overlap is the shortcut's: without the Jacobian all
# scores have the same gradients at the same places, whatever the length of the stream there.

# %%
skipped, theirs = {}, {}
for name in methods:
    part = data[name, "train"]
    skipped[name] = sp.attribute(
        model, part.responses, part.steerings, steps=10, norm_jacobian=False)
    part = data[name, "validation"].subset(response_from="steered")
    theirs[name] = sp.circuits.minimum_circuit(model, skipped[name], part, 0.85)

# %%
by_gradient = {name: rankings[name] for name in methods}
by_gradient |= {f"{name}, norm skipped": skipped[name] for name in methods}
tops = sp.circuits.top_circuits(by_gradient, some)
curves = [sp.circuits.faithfulness_by_class(
    model, tops.loc[[name, f"{name}, norm skipped"]],
    judged_on[name].subset(n=settings.n_judged // 2),
    against=f"{name}, norm skipped", seed=seed) for name in methods]
curves = pd.concat(curves)
sp.save_table(preset, "norm_skipped", curves[["method", *columns, *paired]])
looks = {name: (sp.PALETTE[name.split(",")[0]], "s--" if "," in name else "o-")
         for name in by_gradient}
fig = sp.figures.draw_faithfulness(curves, "method", looks)
sp.save_figure(fig, preset, "norm_skipped")

# %% [markdown]
# Where does a solid curve lie above or below its dashed one by more than the chance of
# which prompts were asked? These are the comparisons, of all, whose paired interval of
# the difference (exact minus norm skipped) excludes 0; of twenty, one or two do so by
# chance.

# %%
exact = curves[curves.method.isin(methods)].set_index(["method", "prompts", "share"])
apart = exact[(exact.difference_low > 0) | (exact.difference_high < 0)]
print(f"{len(apart)} of {len(exact)}")
apart[paired].round(3)

# %% [markdown]
# **Reading.** It costs nothing: dashed and solid curves of a colour lie within 0.05 of each other.
# What difference there is goes the other way: where the two can be told apart, the ranking without
# the Jacobian carries *more* twice as often as less, and on organism-llama always where edges are
# few.
#
# Sizes and interchange: each vector's steering through each vector's
# minimum-faithful circuit, all test prompts, by either attribution. The *share*
# of all edges is that of the circuit.
#
# *Qwen.* At most 0.07 apart, and where they can be told apart (4 of 12) half the time in
# favour of either.

# %%
through = pd.Series(theirs).rename_axis("circuit")
by_them = pd.concat({
    name: sp.circuits.faithfulness_by_class(
        model, through, judged_on[name], both=True, seed=seed)
    for name in methods}, names=["vector"]).reset_index("vector")
by_us = interchange.query("vector in @methods and circuit in @methods")
both = {"exact": by_us[by_them.columns], "norm skipped": by_them}
both = pd.concat(both, names=["gradient"])
both = both.reset_index("gradient")
both["share"] = both.n_edges / graph.n_edges
sp.save_table(preset, "norm_skipped_interchange", both)
both[both.prompts == "both"].pivot(
    index=["gradient", "circuit", "share"], columns="vector", values="faithfulness"
).round(3)

# %% [markdown]
# And overlap, size by size: of a method's two circuits, and of two methods' by
# either attribution.

# %%
pairs = [(name, f"{name}, norm skipped") for name in methods] + between
pairs += [(f"{a}, norm skipped", f"{b}, norm skipped") for a, b in between]
shared = sp.circuits.circuit_overlaps(tops, pairs)
sp.save_table(preset, "norm_skipped_overlap", shared)
shared.pivot(index=["method_a", "method_b"], columns="share", values="overlap").loc[
    pairs].round(2)

# %% [markdown]
# **Reading.** Sizes are nearly the same (but PO's on organism-llama, which gets smaller), and so is
# interchange. The shortcut exchanges about a tenth of the edges, fewer than another method does,
# and methods look hardly more alike through it (by 0.06 at most). What the paper finds about
# circuits is not owed to it.
#
# *Qwen.* Circuits without the Jacobian come out smaller, 4, 7 and 7 % of the edges, and less
# faithful on test prompts, with 0.83 to 0.90 (0.88 to 0.92); as far as can be seen that is
# where the search on twelve prompts happened to stop. The shortcut exchanges a sixth of the
# edges, and methods look no more alike through it.

# %% [markdown]
# ## What the circuits are made of
#
# > *Tables 5 to 8, in our words.* In the paper's models most of the circuit's
# > edges leave attention heads, and more arrive at values and MLPs than at
# > queries and keys; among the strongest edges hardly any arrive at keys.
#
# A share means little without the share of that kind among all edges, so the whole graph stands in
# the first row. If steering acted through attention weights, queries and keys would be kept or
# enriched; if through values and MLPs, these would. The claim in the quotation is about shares
# alone, and on a graph whose edges mostly leave heads and mostly arrive at queries and keys the
# first half of it is nearly free, the second half is not.

# %%
kinds = {("dim", "all edges"): graph.edges}
strongest = {name: sp.Circuit.top(rankings[name], min(100, graph.n_edges)).edges
             for name in methods}
for name in methods:
    kinds |= {(name, "circuit"): circuits[name].edges, (name, "top"): strongest[name]}
types = pd.DataFrame({key: 100 * sp.circuits.edge_types(edges) / len(edges)
                      for key, edges in kinds.items()}).T
types = types.rename_axis(["method", "edges"])
sp.save_table(preset, "table5_8_edge_types", types.reset_index())
paper = sp.paper.reported("table5_8_edge_types", concept, method="dim")
paper = paper.pivot(index=["model", "edges"], columns="type", values="percent")
paper = paper.reindex(columns=types.columns).rename_axis(columns="type")
display(types.round(1), paper)

# %% [markdown]
# **Reading** (% of edges; above ours, below the paper's for DIM). On both organisms heads are
# depleted in the circuits: most of *all* edges leave heads, fewer of the circuit's. Steering node
# and MLPs are enriched, and among the targets MLPs and logits, on organism-llama values, too.
# Queries and keys are rare in every circuit, and rarer among the strongest edges, as the paper
# says.
#
# *Qwen.* Of all edges 92 % leave heads, and of the circuits' 72 to 73 %: what is enriched
# are the steering node, the logits and MLPs, these threefold as sources and seven- to
# eightfold as targets, and values, not twofold. Of the hundred strongest edges three
# quarters arrive at MLPs, a tenth at values, and two at most at queries. Most of the
# strongest ways lead by MLPs, as the freezes of notebook 03 say for DIM.

# %% [markdown]
# The paper's table 7 for Llama cannot be right: its share of edges into MLPs
# would be more edges than that graph has.
# [`arithmetic.py`](../steerpaper/paper/arithmetic.py) does all such sums.

# %%
sums = sp.paper.paper_arithmetic().query("locator == 'table 7' and agrees == 'no'")
sums = sums[sums.quantity.str.contains("edge circuit")]
sums[["quantity", "printed", "recomputed"]].set_index("quantity")

# %% [markdown]
# ## The hundred strongest edges
#
# The counterpart of figures 13 to 18, read from left to right. The bottom row is the residual
# stream's own line: the steering node, the MLPs (m) and the logits, with the edges among them as
# arcs. Above it, per layer, the inputs of the attention heads (q, k and v with their head's number)
# and the heads (h). Blue edges carry the steering, red ones work against it; widths are |score| in
# logits per unmasked position, on one scale for the three methods. Like drawings mean like ways
# through the model. (With any number of edges, and two methods in one drawing: [the
# explorer](../docs/explorer.md).)

# %%
edges = {name: rankings[name].edges.merge(strongest[name]) for name in methods}
thickest = max(edges[name].score.abs().max() for name in methods[:3])
files = ("fig13_circuit", "fig14_circuit_ntp", "fig15_circuit_po")
for file, name in zip(files, methods):
    title = f"{sp.figures.method_label(name)}: the {len(edges[name])} strongest edges"
    fig = sp.figures.draw_circuit(graph, edges[name], title, thickest)
    display(sp.save_figure(fig, preset, file))

# %% [markdown]
# **Reading.** The three drawings are alike on each organism. The thickest edges lead from the
# steering into the first MLPs and straight to the logits, and from the MLPs to the logits; on
# organism-gemma2, but for NTP, also into values of the first layers' heads. Few edges are red,
# and few arrive at a query or key.
#
# *Qwen.* From the steering into values of the first layer and into most MLPs, above all those
# of layers 14 to 16 (15 and 16 under DIM), and from the MLPs of layers 19 to 21 to the
# logits. The last MLP works against the steering, strongly, under all three methods.

# %% [markdown]
# ## Beside the paper
#
# Sizes of the minimum-faithful circuits (§5.2), the patching data of table 3 and the positions of
# table 9. An organism is another model, a thousandth of the size, on other prompts with shorter
# answers: what can be compared with it is the *share* of edges, not the counts. In the paper
# circuits are found and judged on the same prompts; here on different ones. The *positions* of
# table 3 are those that steering decides: in the paper, too, their number depends more on the
# method and the set than on the number of answers.

# %%
whole = positions.positions.where(positions.metric == "KL, threshold 0").max()
beside = [(needed, "fig3_minimum_faithful", ["method"], ["share"]),
          (counts[counts.split == "train"], "table3_patching_data",
           ["method", *sets], ["responses", "positions"]),
          (positions.assign(share=positions.positions / whole), "table9_positions",
           ["metric"], ["share"])]
for own, name, keys, values in beside:
    both = pd.concat([sp.paper.reported(name, concept), own.assign(model=preset)])
    display(both.pivot_table(values, keys, "model", sort=False).round(3))

# %% [markdown]
# ## What we learned
#
# * **A small circuit carries the steering** in both organisms, as in the paper:
#   less than a tenth of the edges for DIM, faithful on prompts that it was not
#   found on.
# * **Attribution can be trusted** to find it. It is complete, by hand and by
#   the package the same, and ranks edges as exact patching does; ten steps are
#   more than enough.
# * **Whole answers are not what makes the difference here.** About half of the
#   effect or more sits at one position, and the circuit of one token serves
#   nearly as well. With the organisms' short, formulaic answers that is no
#   evidence about longer ones.
# * **"One circuit for all vectors" needs its control.** The circuits are
#   interchangeable, but with as many edges the circuit of a random vector does 0.40 to
#   0.92 of the work, nearly always more than half, so that interchange alone is weak
#   evidence about refusal.
# * **Random edges are a weak control**, and not one that passes: now and then they
#   hold the edge from the steering node to the logits. As many edges of every
#   kind, drawn at random, carry half to three quarters of what the circuit does,
#   though none of a hundred draws as much.
# * **The authors' shortcut is harmless here**: without the norm's Jacobian other
#   edges come first, a tenth of them, and circuits are as small and as faithful.
# * **Heads are depleted, MLPs enriched.** Most of the graph's edges leave
#   heads, so a majority of head edges in a circuit says nothing; few edges into
#   queries and keys does.
#
# * **On Qwen, a real model, the paper's first finding holds in part and means less.** 6 to
#   10 % of the edges carry the steering, on whole answers better than on one token, and two
#   thirds of the interchanges reach the paper's 0.85. But circuits of random vectors, equally
#   large, do 73 to 103 % of the same, for the learned vectors on harmless prompts 83 % and more:
#   much of that circuit is one for any push.
#
# What this cannot say: the organisms are small, their prompts few, and their answers made of
# templates; each is one training run, and with another seed [some verdicts
# change](../docs/seeds.md); random vectors are five directions. None of it is evidence about the
# paper's models, whose numbers stand above under their names.
#
# The verdicts of [06](06_scorecard.ipynb) on the claims of this notebook, and
# the numbers behind them, for every model on record:

# %%
verdicts = sp.paper.recorded_verdicts([
    "few-edges", "whole-answers", "interchangeable", "beyond-random", "overlap",
    "controls", "edge-types"])
through = sp.load_recorded("fig3_interchange").query("prompts == 'both'")
display(verdicts, through.pivot_table("faithfulness", ["preset", "vector"], "circuit",
                                      sort=False).round(2))
