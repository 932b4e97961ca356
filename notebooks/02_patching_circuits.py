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
# > *The paper's claim, in our words (§4, §5).* Patching every edge of the model's graph over whole answers, not over
# > one token, finds the circuit that steering acts through. About a tenth of the edges is enough to carry it, what is
# > left over carries next to nothing, and neither does a random circuit of twice the size.
#
# Steering adds `α s` to the residual stream entering layer ℓ. Everything after that reaches the logits along *edges*,
# from what writes to the stream (the steering itself, attention heads, MLPs) to what reads from it (queries, keys and
# values of the heads, MLPs, the logits). This notebook scores every edge by **multi-token integrated gradients**,
# checks the scores against patching edges one by one, and asks how few edges carry the steering.
#
# *Reads* the vector of notebook 01 and the prompt sets. *Writes* the scores
# (`build/<preset>/artifacts/dim_attribution.safetensors`), tidy tables and figures. Edges are ranked on training
# prompts, sizes chosen on validation prompts, and every faithfulness shown is measured on test prompts.

# %% tags=["parameters"]
preset = "organism-llama"
seed = 0

# %%
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown, display

import steerpaper as sp
from steerpaper import paths

sp.check_parameters(preset=preset, seed=seed)

# %%
sp.use_style()
settings = sp.get_preset(preset)
preset = settings.name
model = sp.load_model(preset)
tensors, about = sp.load_tensors(preset, "dim", made_by="01_extract_vectors")
vector, layer, coefficient = tensors["vector"], about["layer"], about["coefficient"]
graph = sp.Graph.of(model, layer)
print(f"steering enters layer {layer} of {model.n_layers} with α = ±{coefficient}; the graph from there on has "
      f"{len(graph.sources)} sources, {len(graph.targets)} targets and {graph.n_edges:,} edges")

# %% [markdown]
# ## Four data sets
#
# > *In our words (§5, table 3).* Harmful and harmless prompts, each with the base model's and the steered model's
# > answer; only prompts whose behaviour steering flips.
#
# A harmful prompt counts if the base model refuses it and the model under −α does not; a harmless one if the base
# model answers it and the model under +α refuses. Where steering works (notebook 01), most prompts should pass. Base
# and steered run then read the same answer, and the **metric** at each of its positions is the logit of the steered
# run's favourite token minus that of the base run's, `m = logit(y) − logit(y*)`. Where both agree, m is zero whatever
# happens and the position is *masked*.

# %%
split_sizes = {"train": settings.n_patching, "validation": min(settings.n_patching, settings.n_validation),
               "test": settings.n_patching_test}
how = dict(judge=sp.load_judge(settings), max_new_tokens=settings.max_new_tokens, batch_size=settings.batch_size)
data = {}
for split, n in split_sizes.items():
    texts = [sp.load_prompts(name, split, n, settings.prompts).prompt for name in ("harmful", "harmless")]
    data[split] = sp.patching_data(model, *texts, vector, layer, coefficient, **how)
counts = pd.concat({split: part.counts for split, part in data.items()}, names=["split"]).reset_index("split")
counts.set_index(["split", "prompts", "response_from"])

# %%
train = data["train"]
flips = counts.drop_duplicates(["split", "prompts"]).groupby("prompts")[["responses", "asked"]].sum()
shares = counts.assign(share=counts.positions / counts.response_positions).groupby(["prompts", "response_from"]).share
low, high = shares.mean().min(), shares.mean().max()
display(Markdown(
    f"**Reading.** Steering flips {flips.responses['harmful']} of {flips.asked['harmful']} harmful and "
    f"{flips.responses['harmless']} of {flips.asked['harmless']} harmless prompts. On the same text base and steered "
    f"run disagree at {low:.0%} to {high:.0%} of the response positions, depending on the set; the rest is masked."
))

# %% [markdown]
# ## Why more than one token
#
# Work on refusal often looks at one token only, the one where answering and refusing part ways. If steering acted
# there and the rest followed by itself, the effect m(steered) − m(base) would sit at the first unmasked position of a
# response, for later positions read the same text in both runs. If it goes on steering, the effect is spread out.

# %%
empty, full = sp.Circuit.of(graph, graph.edges[:0]), sp.Circuit.of(graph, graph.edges)
nothing, everything = sp.faithfulness_of(model, [empty, full], train.responses, train.steerings)
effects = everything.table.join(train.labels[["prompts", "response_from"]], on="response")
starts = pd.Series([len(response.prompt) - 1 for response in train.responses])
effects["token"] = effects.position - effects.response.map(starts)
effects["effect"] = effects.m_steered - effects.m_base
effects["first"] = effects.groupby("response").cumcount() == 0
sets = train.counts.set_index(["prompts", "response_from"]).responses
by_token = effects.groupby([*sets.index.names, "token"]).effect.sum().unstack()
by_token = by_token.reindex(columns=range(by_token.columns.max() + 1)).fillna(0.0).div(sets, axis=0)
sp.save_table(preset, "effect_by_position", by_token.stack().rename("effect_per_response").reset_index())

# %%
fig, axes = plt.subplots(1, 2, figsize=(6.8, 2.5))
for (prompts, source), curve in by_token.iterrows():
    style = "-" if source == "steered" else "--"
    looks = dict(color=sp.PALETTE[prompts], ls=style, label=f"{prompts}, {source}")
    axes[0].plot(curve, **looks)
    axes[1].plot(curve.cumsum() / curve.sum(), **looks)
axes[0].set(xlabel="response position", ylabel="effect on m per response\n(logits)")
axes[1].set(xlabel="response position", ylabel="cumulative share of the effect", ylim=(0, 1.03))
axes[0].legend(title="prompts, response")
sp.save_figure(fig, preset, "effect_by_position")

# %%
at_first = effects[effects["first"]].groupby(["prompts", "response_from"]).effect.sum()
share = at_first / effects.groupby(["prompts", "response_from"]).effect.sum()
total = at_first.sum() / effects.effect.sum()
display(Markdown(
    f"**Reading.** The first unmasked position, on average position {effects.token[effects['first']].mean():.1f} of "
    f"the response, holds {total:.0%} of the effect of all four sets, from {share.min():.0%} "
    f"({', '.join(share.idxmin())} responses) to {share.max():.0%} ({', '.join(share.idxmax())}). A one-token analysis "
    f"leaves out the other {1 - total:.0%}. Figure 19 below asks whether it would also find another circuit."
))

# %% [markdown]
# ## The scores
#
# > *In our words (§5, F).* The indirect effect of edge (u, v) is the difference of u's write between the two runs,
# > times the gradient of m at v's input, averaged over T = 10 midpoints between the base and the steered stream.
#
# Scores are in units of m: logits per unmasked position. We compute the four sets apart and pool them, which is
# exact: a score is a mean over positions.

# %%
parts = {}
for key in sets.index:
    part = train.subset(*key)
    parts[key] = sp.attribute(model, part.responses, part.steerings, steps=10)
scores = sp.Attribution.pooled(list(parts.values()))

# %%
ranked = scores.edges.sort_values("score", key=abs, ascending=False, ignore_index=True)
ranked["share"] = (ranked.index + 1) / graph.n_edges
ranked["cumulative"] = ranked.score.abs().cumsum() / ranked.score.abs().sum()
# Saved in the graph's order: which of two weak edges comes first is rounding.
sp.save_table(preset, "edge_scores", scores.edges)
ranked[["source", "target", "score"]].head(8).round(2)

# %% [markdown]
# How concentrated are they? If a tenth of the edges is to carry the steering, scores should fall steeply with rank.

# %%
fig, axes = plt.subplots(1, 2, figsize=(6.8, 2.4))
for name, sign in (("positive", 1), ("negative", -1)):
    sizes = ranked.score[ranked.score * sign > 0].abs()
    axes[0].plot(np.arange(1, len(sizes) + 1), sizes, color=sp.PALETTE[name], label=f"{name} ({len(sizes):,} edges)")
axes[0].set(xscale="log", yscale="log", xlabel="rank among the edges of that sign")
axes[0].set(ylabel="|score| (logits per position)", ylim=(ranked.score.abs().max() * 1e-5, None))
axes[0].legend(loc="lower left")
axes[1].plot(100 * ranked.share, ranked.cumulative, color="black")
axes[1].axvline(10, color=sp.PALETTE["random"], ls="--", lw=1, label="a tenth of the edges")
axes[1].set(xlabel="strongest edges (% of all)", ylabel="their share of Σ |score|", ylim=(0, 1.03))
axes[1].legend(loc="lower right")
sp.save_figure(fig, preset, "score_distribution")

# %%
tenth = ranked.cumulative[ranked.share <= 0.1].max()
strong = ranked[ranked.share <= 0.1]
display(Markdown(
    f"**Reading.** The strongest tenth holds {tenth:.0%} of Σ |score|; half of it lies "
    f"in the first {ranked.share[ranked.cumulative >= 0.5].min():.1%}. Of the strongest tenth "
    f"{(strong.score < 0).mean():.0%} are negative: steering is also worked against, which is why we rank by |score|."
))

# %% [markdown]
# ## Checks that must hold exactly
#
# Four identities that the code has to meet whatever the model does. A run of the *empty* circuit is the base run, one
# of the *full* circuit the steered run. The scores of the steering node's edges add up to the score of the node. In
# float32 rounding should leave less than 1e-4 logits of difference in each of the three. And integrated gradients are
# *complete*: that score tends to m(steered) − m(base) as T grows, with the midpoint rule's error falling as 1/T².

# %%
effect = (everything.table.m_steered - everything.table.m_base).mean()
steering_edges = scores.edges[scores.edges.source == "steer"].score.sum()
steering_node = scores.nodes.score[0]
identities = pd.DataFrame([
    ("empty circuit − base run, |Δm| at every position", (nothing.table.m_circuit - nothing.table.m_base).abs().max()),
    ("full circuit − steered run, |Δm| at every position",
     (everything.table.m_circuit - everything.table.m_steered).abs().max()),
    ("Σ edges of the steering node − the node's score", abs(steering_edges - steering_node)),
], columns=["check", "logits"])
# What is left is rounding, other digits on every processor: the bound is what counts.
bound = 1e-4
identities = identities[["check"]].assign(bound=bound, within=identities.logits <= bound)
sp.save_table(preset, "identity_checks", identities)
print(f"m(steered) − m(base), mean over positions: {effect:.2g} logits")
identities

# %%
checked = train.subset(n=settings.n_checked)
steps = (1, 2, 5, 10, 20)
by_steps, rows = {}, []
for key in sets.index:
    part = checked.subset(*key)
    table = sp.faithfulness(model, full, part.responses, part.steerings).table
    truth = (table.m_steered - table.m_base).mean()
    for T in steps:
        by_steps[T, key] = sp.attribute(model, part.responses, part.steerings, steps=T)
        rows.append((*key, T, abs(by_steps[T, key].nodes.score[0] / truth - 1)))
completeness = pd.DataFrame(rows, columns=["prompts", "response_from", "steps", "relative_error"])
sp.save_table(preset, "completeness", completeness)

# %%
fig, ax = plt.subplots(figsize=(3.3, 2.4))
for (prompts, source), curve in completeness.groupby(["prompts", "response_from"]):
    style = "o-" if source == "steered" else "o--"
    ax.plot(curve.steps, curve.relative_error, style, color=sp.PALETTE[prompts], label=f"{prompts}, {source}")
worst = completeness.groupby("steps").relative_error.max()
ax.plot(steps, worst[5] * (np.array(steps) / 5.0) ** -2, color=sp.PALETTE["random"], ls=":", label="1/T²")
ax.set(xscale="log", yscale="log", xlabel="steps T", ylabel="error of Σ scores\n(share of the effect)")
ax.set_xticks(steps, steps)
ax.minorticks_off()
ax.legend()
sp.save_figure(fig, preset, "completeness")

# %%
means = completeness.groupby("steps").relative_error.mean()
slope = np.log(means[20] / means[5]) / np.log(20 / 5)
display(Markdown(
    f"**Reading.** {identities.within.sum()} of {len(identities)} differences stay within {bound:.0e} logits"
    + (", as rounding does" if identities.within.all() else f" (in {settings.dtype})")
    + f". With one step the steering node's score misses the effect by {means[1]:.1%} on "
    f"average, with 10 by {means[10]:.2%}; from 5 to 20 steps the error falls as T to the power {slope:.1f} "
    "(expected −2)."
))

# %% [markdown]
# ## Attribution against exact patching
#
# The scores are an approximation. The true effect of an edge is found by patching it alone and running the model,
# which is what attribution saves us from doing for every edge. On a sample of edges, the strongest ones and others at
# random, a good attribution lies on the diagonal. The authors' code takes gradients *after* a target's norm and
# leaves the norm's Jacobian out; those scores have other units, so there the question is the correlation, not the
# slope.

# %%
half = settings.n_patched_edges // 2
# Drawn from an order that no rounding changes: which of two weak edges ranks higher is rounding.
others = ranked[half:].sort_values(["source", "target"]).sample(half, random_state=seed)
sample = pd.concat([ranked[:half], others])[["source", "target"]]
exact = sp.patch_edges(model, checked.responses, checked.steerings, sample).score
variants = {("exact", T): sp.Attribution.pooled([by_steps[T, key] for key in parts]) for T in (1, 5, 10, 20)}
for T in (1, 5, 10, 20):
    variants["norm skipped", T] = sp.attribute(
        model, checked.responses, checked.steerings, steps=T, norm_jacobian=False)
index = pd.MultiIndex.from_frame(sample)
patched = pd.DataFrame({key: att.edges.set_index(["source", "target"]).score[index].to_numpy()
                        for key, att in variants.items()}, index=sample.index)

# %%
reference = sp.Circuit.top(variants["exact", 20], graph.n_edges // 10)
checks = pd.DataFrame([{
    "gradient": name, "steps": T,
    "slope": (patched[name, T] * exact).sum() / (exact**2).sum(),
    "correlation": patched[name, T].corr(exact), "rank_correlation": patched[name, T].corr(exact, method="spearman"),
    "overlap_of_top_tenth": sp.overlap(reference, sp.Circuit.top(variants[name, T], graph.n_edges // 10)),
} for name, T in variants])
sp.save_table(preset, "patching_check", checks)
flat = patched.set_axis([f"{name}, T = {T}" for name, T in patched.columns], axis=1)
sp.save_table(preset, "patched_edges", sample.assign(exact_patching=exact).join(flat))
with pd.option_context("display.float_format", "{:.3g}".format):
    display(checks)

# %%
fig, axes = plt.subplots(1, 3, figsize=(6.8, 2.4))
for ax, name in zip(axes, ("exact", "norm skipped")):
    ax.axline((0, 0), slope=1, color=sp.PALETTE["random"], lw=1)
    ax.plot(exact, patched[name, 10], ".", ms=4, color="black", alpha=0.5)
    ax.set(title=f"{name}, T = 10", xlabel="exact patching (logits)", ylabel="attribution")
for (name, curve), style in zip(checks.groupby("gradient"), ("o-", "s--")):
    axes[2].plot(curve.steps, curve.correlation, style, color="black", label=name)
axes[2].set(xscale="log", xlabel="steps T", ylabel="correlation", ylim=(None, 1))
axes[2].set_xticks((1, 5, 10, 20), (1, 5, 10, 20))
axes[2].minorticks_off()
axes[2].legend(title="gradient")
sp.save_figure(fig, preset, "patching_check")

# %%
row = checks.set_index(["gradient", "steps"])
verdict = "below" if row.correlation["norm skipped", 10] < row.correlation["exact", 10] else "not below"
display(Markdown(
    f"**Reading** (grey: the diagonal; {len(sample)} edges, {len(checked.responses)} responses). With T = 10 the exact "
    f"gradient has slope {row.slope['exact', 10]:.2f} and correlation {row.correlation['exact', 10]:.3f} with exact "
    f"patching, with T = 1 {row.slope['exact', 1]:.2f} and {row.correlation['exact', 1]:.3f}. Leaving out the norm's "
    f"Jacobian gives slope {row.slope['norm skipped', 10]:.2f} and correlation "
    f"{row.correlation['norm skipped', 10]:.3f}, {verdict} the exact gradient's; its strongest tenth shares "
    f"{row.overlap_of_top_tenth['norm skipped', 10]:.0%} of its edges with the exact one's. What is left of the error "
    f"at T = 20 (correlation {row.correlation['exact', 20]:.3f}) is no matter of steps: patching "
    "moves one input alone from base to steered, the path of integration moves all of them together."
))

# %% [markdown]
# ## Faithfulness
#
# > *The paper's figure 2, in our words (§5.2).* Circuits of about 10 % of the edges (900 of 8,790 in Gemma-2-2B) and
# > 11 % (13,500 of 124,441 in Llama-3.2-3B) recover at least 85 % of the steered logit difference. Without them
# > almost nothing is recovered, and random circuits of twice the size recover less than 10 %.
#
# The *faithfulness* of a circuit is `(m(C) − m(base)) / (m(steered) − m(base))`, where in m(C) the edges of C carry
# their steered and all others their base activations: 0 is the base run, 1 the steered one. Measured on the steered
# answers to **test** prompts, with edges ranked on training prompts. The claim holds if the circuit's curve climbs to
# the dotted line early while its complement and the random circuit of twice its size stay low.

# %%
top = [sp.Circuit.top(scores, max(1, round(share * graph.n_edges))) for share in settings.circuit_shares]
kinds = {"circuit": top, "complement": [circuit.complement() for circuit in top]}
doubled = [2 * circuit.n_edges for circuit in top if 2 * circuit.n_edges < graph.n_edges]
kinds["random, twice the size"] = [sp.Circuit.random(graph, n, seed) for n in doubled]
tested = [(kind, top[i].n_edges, circuit) for kind, group in kinds.items() for i, circuit in enumerate(group)]
steered = data["test"].subset(response_from="steered")
results = sp.faithfulness_of(model, [circuit for *_, circuit in tested], steered.responses, steered.steerings)

# %%
rows = []
for (kind, n, circuit), result in zip(tested, results):
    for prompts, table in result.table.groupby(result.table.response.map(steered.labels.prompts)):
        part = sp.Faithfulness(table)
        rows.append((prompts, kind, n / graph.n_edges, circuit.n_edges, part.value, *part.interval(seed=seed)))
curves = pd.DataFrame(rows, columns=["prompts", "kind", "share", "n_edges", "faithfulness", "low", "high"])
sp.save_table(preset, "fig2_faithfulness", curves)

# %%
looks = {"circuit": (sp.PALETTE["dim"], "o-"), "complement": (sp.PALETTE["dim"], "s--")}
looks["random, twice the size"] = (sp.PALETTE["random"], "^:")
fig = sp.draw_faithfulness(curves, "kind", looks)
sp.save_figure(fig, preset, "fig2_faithfulness")

# %%
reached = curves[(curves.kind == "circuit") & (curves.faithfulness >= 0.85)].groupby("prompts").share.min()
near = (curves[curves.kind == "circuit"].share - 0.1).abs().idxmin()
at = curves[np.isclose(curves.share, curves.share[near])].set_index(["prompts", "kind"]).faithfulness.unstack()
display(Markdown(
    "**Reading** (bands: 95 % bootstrap over prompts). On this grid 0.85 is reached with "
    + " and ".join(f"{share:.0%} of the edges on {prompts} prompts" for prompts, share in reached.items())
    + f". At {curves.share[near]:.0%}: " + "; ".join(
        f"{prompts}: " + ", ".join(f"{kind} {value:.2f}" for kind, value in values.items())
        for prompts, values in at.iterrows()) + "."
))

# %% [markdown]
# ## The minimum-faithful circuit
#
# The smallest size that reaches 0.85, by bisection in steps of 1 % of the edges, is found on validation prompts, for
# harmful and harmless ones apart; the larger one is taken, so that neither class hides behind the other. On test
# prompts we then measure that circuit, its complement and random circuits of the same and of twice the size (three
# draws each). The size was not chosen on them, so it may fall short of 0.85 there.

# %%
found = {}
for prompts in ("harmful", "harmless"):
    part = data["validation"].subset(prompts, "steered")
    found[prompts] = sp.minimum_faithful(scores, model, part.responses, part.steerings, 0.85)
minimum = max(found.values(), key=lambda result: result.circuit.n_edges).circuit
others = {"circuit": minimum, "complement": minimum.complement()}
for i, factor in np.ndindex(3, 2):
    size = min((factor + 1) * minimum.n_edges, graph.n_edges)
    others[f"random, {('same', 'twice the')[factor]} size, draw {i + 1}"] = sp.Circuit.random(graph, size, seed + i)
results = sp.faithfulness_of(model, list(others.values()), steered.responses, steered.steerings)

# %%
rows = []
for (name, circuit), result in zip(others.items(), results):
    classes = result.table.response.map(steered.labels.prompts)
    for prompts in ("both", "harmful", "harmless"):
        part = sp.Faithfulness(result.table[(classes == prompts) | (prompts == "both")])
        size = (circuit.n_edges, circuit.n_edges / graph.n_edges)
        rows.append((name, prompts, *size, part.value, *part.interval(seed=seed)))
controls = pd.DataFrame(rows, columns=["circuit", "prompts", "n_edges", "share", "faithfulness", "low", "high"])
sp.save_table(preset, "minimum_faithful", controls)
controls[controls.prompts == "both"].drop(columns="prompts").round(3)

# %%
row = controls.set_index(["circuit", "prompts"])
draws = controls[controls.circuit.str.contains("twice") & (controls.prompts == "both")].faithfulness
display(Markdown(
    f"**Reading.** On validation prompts 0.85 takes {found['harmful'].circuit.n_edges} edges for harmful and "
    f"{found['harmless'].circuit.n_edges} for harmless prompts. **{minimum.n_edges} of {graph.n_edges:,} edges "
    f"({minimum.n_edges / graph.n_edges:.1%})** carry, on test prompts, " + ", ".join(
        f"{row.faithfulness['circuit', name]:.2f} ({row.low['circuit', name]:.2f} to {row.high['circuit', name]:.2f}) "
        f"on {name}" for name in ("harmful", "harmless", "both"))
    + f". Their complement carries {row.faithfulness['complement', 'both']:.2f}, random circuits of twice the size "
    f"{draws.min():.2f} to {draws.max():.2f}."
))

# %% [markdown]
# ## What the circuit is made of
#
# > *Tables 5 to 8, in our words.* In the paper's models most of the circuit's edges leave attention heads, and more
# > arrive at values and MLPs than at queries and keys; among the strongest edges hardly any arrive at keys.
#
# A share means little without the share of that kind among all edges, so the whole graph stands beside it.

# %%
strongest = sp.Circuit.top(scores, min(100, graph.n_edges))
kinds = {"all edges": graph.edges, "circuit": minimum.edges, "top": strongest.edges}
measured = pd.DataFrame({name: 100 * sp.edge_types(edges) / len(edges) for name, edges in kinds.items()}).T
files = ("5_outgoing_circuit", "6_outgoing_top", "7_incoming_circuit", "8_incoming_top")
reported = [pd.read_csv(paths.DATA / "paper" / f"table{name}.csv").query("method == 'dim'") for name in files]
reported = [table.set_index("model").drop(columns="method") for table in reported]
reported = [table.add_prefix(prefix) for table, prefix in zip(reported, ("from_", "from_", "into_", "into_"))]
reported = {"circuit": pd.concat(reported[::2], axis=1), "top": pd.concat(reported[1::2], axis=1)}
measured = {name: measured.loc[[name]].set_axis([preset]).rename_axis("model") for name in measured.index}
tables = {("reported", k): t for k, t in reported.items()} | {("measured here", k): t for k, t in measured.items()}

# %%
beside = pd.concat(tables, names=["source", "edges"]).swaplevel(0, 1).sort_index()
print("share of edges in % (measured: top 100)")
beside.round(1)

# %%
llama_mlp = reported["circuit"].into_mlp["llama-3.2-3b-instruct"]
all_edges, own, best = (measured[name].iloc[0] for name in ("all edges", "circuit", "top"))
display(Markdown(
    f"**Reading.** {own.from_attention_head:.0f} % of the circuit's edges leave heads (all edges: "
    f"{all_edges.from_attention_head:.0f} %), {own.from_steering:.0f} % the steering node "
    f"({all_edges.from_steering:.0f} %); {own.into_mlp:.0f} % arrive at MLPs ({all_edges.into_mlp:.0f} %), "
    f"{own.into_value:.0f} % at values ({all_edges.into_value:.0f} %), {own.into_key:.0f} % at keys "
    f"({all_edges.into_key:.0f} %) and {own.into_query:.0f} % at queries ({all_edges.into_query:.0f} %). Among the top "
    f"100, {best.from_steering:.0f} % leave the steering node and {best.into_mlp + best.into_logits:.0f} % arrive at "
    f"MLPs or logits. The paper's table 7 for Llama cannot be right: {llama_mlp} % of 13,500 edges would be "
    f"{135 * llama_mlp:,.0f} into MLPs, of which that graph has 3,400."
))

# %% [markdown]
# ## The hundred strongest edges
#
# The counterpart of figures 13 to 18, read from left to right. The bottom row is the residual stream's own line: the
# steering node, the MLPs (m) and the logits, with the edges among them as arcs. Above it, per layer, the inputs of
# the attention heads (q, k and v with their head's number) and the heads (h). Blue edges carry the steering, red ones
# work against it; widths are
# |score| in logits per unmasked position.

# %%
fig = sp.draw_circuit(graph, ranked.merge(strongest.edges, on=["source", "target"]))
sp.save_figure(fig, preset, "fig13_circuit")

# %%
drawn = ranked.merge(strongest.edges, on=["source", "target"])
heads = drawn.source[drawn.source.str.startswith("a")]
display(Markdown(
    f"**Reading.** {(drawn.score < 0).sum()} of the {len(drawn)} edges are negative. {heads.nunique()} of "
    f"{model.n_heads * len(graph.layers)} heads write along them. The strongest edge is {drawn.source[0]} → "
    f"{drawn.target[0]} ({drawn.score[0]:+.2f} logits per position); the strongest that leaves a head is "
    f"{heads.iloc[0]} → {drawn.target[heads.index[0]]} ({drawn.score[heads.index[0]]:+.2f})."
))

# %% [markdown]
# ## Circuits from a single data set, and from one token
#
# > *Figure 19, in our words.* The paper also finds circuits on each of the four sets by itself.
#
# If harmful and harmless prompts, base and steered answers used different edges, a circuit found on one set would
# fail on the other kind of test prompts. The same figure holds the circuit of a one-token analysis: all four sets,
# each answer cut after the first position at which base and steered run disagree.

# %%
until = effects[effects["first"]].token + 1
one_token = [sp.Response(train.responses[i].prompt, train.responses[i].completion[:n])
             for i, n in zip(effects.response[effects["first"]], until)]
own_steering = [train.steerings[i] for i in effects.response[effects["first"]]]
rankings = {"all four sets": scores, "one token only": sp.attribute(model, one_token, own_steering)}
rankings |= {f"{prompts}, {source}": part for (prompts, source), part in parts.items()}
some = [max(1, round(share * graph.n_edges)) for share in settings.compared_shares]
few = steered.subset(n=settings.n_patching_test // 2)
tested = [(name, n, sp.Circuit.top(ranking, n)) for name, ranking in rankings.items() for n in some]
results = sp.faithfulness_of(model, [circuit for *_, circuit in tested], few.responses, few.steerings)

# %%
rows = []
for (name, n, circuit), result in zip(tested, results):
    for prompts, table in result.table.groupby(result.table.response.map(few.labels.prompts)):
        common = sp.overlap(circuit, sp.Circuit.top(scores, n))
        rows.append((name, prompts, n / graph.n_edges, circuit.n_edges, sp.Faithfulness(table).value, common))
columns = ["ranked_on", "prompts", "share", "n_edges", "faithfulness", "overlap_with_all"]
single = pd.DataFrame(rows, columns=columns)
sp.save_table(preset, "fig19_single_sets", single)

# %%
looks = {"all four sets": ("black", "o-"), "one token only": (sp.PALETTE["random"], "^:")}
for prompts, source in parts:
    looks[f"{prompts}, {source}"] = (sp.PALETTE[prompts], "s-" if source == "steered" else "s--")
fig = sp.draw_faithfulness(single, "ranked_on", looks)
sp.save_figure(fig, preset, "fig19_single_sets")

# %%
close = single[np.isclose(single.share, single.share.iloc[(single.share - 0.1).abs().argmin()])]
table = close.pivot(index="ranked_on", columns="prompts", values="faithfulness")
table["overlap_with_all"] = close.groupby("ranked_on").overlap_with_all.first()
worst = table[["harmful", "harmless"]].stack().idxmin()
alone = table.overlap_with_all.drop(["all four sets", "one token only"])
display(table.round(2), Markdown(
    f"**Reading** (table: at {close.share.iloc[0]:.0%} of the edges). Weakest is the circuit ranked on *{worst[0]}*, "
    f"on {worst[1]} prompts: {table.loc[worst]:.2f}, where the circuit of all sets has "
    f"{table.loc['all four sets', worst[1]]:.2f}. Single sets share {alone.min():.0%} or more of their edges with it, "
    f"the one-token circuit {table.overlap_with_all['one token only']:.0%}; the latter carries "
    f"{table.harmful['one token only']:.2f} on harmful and {table.harmless['one token only']:.2f} on harmless prompts."
))

# %% [markdown]
# ## Another metric: directional KL
#
# > *Figure 20 and table 9, in our words (E.2).* The metric may be KL(base‖·) − KL(steered‖·), with positions below a
# > threshold of KL(steered‖base) left out.
#
# With threshold 0 every response position counts. A circuit found by KL and judged by the logit difference should not
# fall far behind one found by the logit difference on the same responses (a quarter of the training prompts).

# %%
part = train.subset(n=max(1, settings.n_patching // 4))
rankings = {"logit difference": sp.attribute(model, part.responses, part.steerings)}
for threshold in (0.0, 1.0, 5.0):
    rankings[f"KL, threshold {threshold:.0f}"] = sp.attribute(
        model, part.responses, part.steerings, metric="kl", kl_threshold=threshold)
positions = pd.DataFrame({"metric": list(rankings), "positions": [part.positions for part in rankings.values()]})
sp.save_table(preset, "table9_positions", positions)
tested = [(name, n, sp.Circuit.top(ranking, n)) for name, ranking in rankings.items() for n in some]
results = sp.faithfulness_of(model, [circuit for *_, circuit in tested], few.responses, few.steerings)

# %%
rows = []
for (name, n, circuit), result in zip(tested, results):
    for prompts, table in result.table.groupby(result.table.response.map(few.labels.prompts)):
        common = sp.overlap(circuit, sp.Circuit.top(rankings["logit difference"], n))
        rows.append((name, prompts, n / graph.n_edges, circuit.n_edges, sp.Faithfulness(table).value, common))
kl = pd.DataFrame(rows, columns=["metric", "prompts", "share", "n_edges", "faithfulness", "overlap"])
sp.save_table(preset, "fig20_kl", kl)

# %%
colours = ("black", *plt.cm.viridis([0.15, 0.5, 0.8]))
fig = sp.draw_faithfulness(kl, "metric", dict(zip(rankings, zip(colours, ("o-", "s-", "^-", "v-")))))
sp.save_figure(fig, preset, "fig20_kl")

# %%
close = kl[np.isclose(kl.share, kl.share.iloc[(kl.share - 0.1).abs().argmin()])]
table = close.pivot(index="metric", columns="prompts", values="faithfulness")
table["overlap"] = close.groupby("metric").overlap.first()
table["positions"] = positions.set_index("metric").positions
gap = (table[["harmful", "harmless"]] - table.loc["logit difference", ["harmful", "harmless"]]).drop("logit difference")
display(table.round(2), Markdown(
    f"**Reading** (table: at {close.share.iloc[0]:.0%} of the edges). Against ranking by the logit difference, ranking "
    f"by KL changes faithfulness by {gap.min().min():+.2f} to {gap.max().max():+.2f}; {table.overlap.min():.0%} or "
    "more of the edges are the same."
))

# %% [markdown]
# ## Three vectors, one circuit?
#
# > *The paper's first finding, in our words (§5.2, figures 3 and 4).* DIM, NTP and PO point in different directions
# > (cosines of 0.10 to 0.42), and yet a circuit found for one carries the steering of the others, and most of their
# > edges are the same at every size.
#
# Everything above is now repeated for the learned vectors of notebook 01, each with its own coefficient, its own
# flipped prompts and its own answers, and for one more baseline, the principal component of the paired differences.

# %%
methods = ["dim", "ntp", "po", "pca"]
loaded = {name: sp.load_tensors(preset, name, made_by="01_extract_vectors") for name in [*methods, "random"]}
vectors = {name: tensors["vector"] for name, (tensors, _) in loaded.items()}
strengths = {name: about["coefficient"] for name, (_, about) in loaded.items()}
by_method = {"dim": data} | {name: {} for name in methods[1:]}
for name in methods[1:]:
    for split, n in split_sizes.items():
        texts = [sp.load_prompts(prompts, split, n, settings.prompts).prompt for prompts in ("harmful", "harmless")]
        by_method[name][split] = sp.patching_data(model, *texts, vectors[name], layer, strengths[name], **how)

# %%
counts = pd.concat({(name, split): part.counts for name, parts in by_method.items() for split, part in parts.items()},
                   names=["method", "split"]).reset_index(["method", "split"])
sp.save_table(preset, "table3_patching_data", counts)
counts[counts.split == "train"].set_index(["method", "prompts", "response_from"]).drop(columns="split")

# %%
rankings = {"dim": scores}
for name in methods[1:]:
    part = by_method[name]["train"]
    rankings[name] = sp.attribute(model, part.responses, part.steerings, steps=10)
for name, ranking in rankings.items():
    sp.save_tensors(preset, f"{name}_attribution", {
        "scores": torch.from_numpy(ranking.scores), "gradient": ranking.gradient,
        "nodes": torch.from_numpy(ranking.nodes.score.to_numpy().copy()),
    }, {"layer": layer, "coefficient": strengths[name], "steps": 10, "positions": ranking.positions, "seed": seed,
        "vector_sha256": sp.vector_digest(vectors[name])})

# %% [markdown]
# The left part of figure 3: how many edges does each vector need, on its own answers? If one method found a more
# roundabout way to the same behaviour, its curve would rise later.

# %%
own = {name: parts["test"].subset(response_from="steered") for name, parts in by_method.items()}
rows = []
for name, ranking in rankings.items():
    top = [sp.Circuit.top(ranking, max(1, round(share * graph.n_edges))) for share in settings.circuit_shares]
    results = sp.faithfulness_of(model, top, own[name].responses, own[name].steerings)
    for circuit, share, result in zip(top, settings.circuit_shares, results):
        for prompts, table in result.table.groupby(result.table.response.map(own[name].labels.prompts)):
            part = sp.Faithfulness(table)
            rows.append((name, prompts, share, circuit.n_edges, part.value, *part.interval(seed=seed)))
columns = ["method", "prompts", "share", "n_edges", "faithfulness", "low", "high"]
by_size = pd.DataFrame(rows, columns=columns)
sp.save_table(preset, "fig3_faithfulness", by_size)

# %%
looks = {name: (sp.PALETTE[name], style) for name, style in zip(methods, ("o-", "s-", "^-", "v--"))}
fig = sp.draw_faithfulness(by_size, "method", looks)
sp.save_figure(fig, preset, "fig3_faithfulness")

# %%
circuits = {"dim": minimum}
for name in methods[1:]:
    halves = [by_method[name]["validation"].subset(prompts, "steered") for prompts in ("harmful", "harmless")]
    found = [sp.minimum_faithful(rankings[name], model, half.responses, half.steerings, 0.85) for half in halves]
    circuits[name] = max((result.circuit for result in found), key=lambda circuit: circuit.n_edges)
needed = pd.DataFrame({"method": methods, "n_edges": [circuits[name].n_edges for name in methods]})
needed["share"] = needed.n_edges / graph.n_edges
sp.save_table(preset, "fig3_minimum_faithful", needed)

# %%
reached = by_size[by_size.faithfulness >= 0.85].groupby(["method", "prompts"]).share.min().unstack()
display(needed.join(reached, on="method").round(3), Markdown(
    "**Reading** (n_edges: minimum-faithful on validation prompts, both classes; harmful and harmless: share of the edges "
    f"at which the test curve reaches 0.85). {needed.method[needed.n_edges.idxmin()]} needs the fewest edges "
    f"({needed.share.min():.1%}), {needed.method[needed.n_edges.idxmax()]} the most ({needed.share.max():.1%})."
))

# %% [markdown]
# The right part of figure 3: each vector's steering, on its own answers, through each vector's minimum-faithful
# circuit. If the circuits are interchangeable, the whole block of methods is as dark as its diagonal. Two controls
# tell what that is worth: *random edges*, as many as in the largest of the circuits, should carry nothing. And the
# **random vector** of notebook 01, which steers nothing, has top edges too: if its circuit carried the steering just
# as well, the circuit would be the model's way of passing on any push, and not one of refusal. Its own row uses DIM's
# answers, for it flips none.

# %%
dim_train, dim_test = (data[split].subset(response_from="steered") for split in ("train", "test"))
pushes = {split: [sp.Steering(vectors["random"], layer, s.coefficient) for s in part.steerings]
          for split, part in (("train", dim_train), ("test", dim_test))}
pushed = sp.attribute(model, dim_train.responses, pushes["train"], steps=10)
largest = int(needed.n_edges.max())
through = circuits | {"random vector": sp.Circuit.top(pushed, largest)}
through["random edges"] = sp.Circuit.random(graph, largest, seed)
rows_of = {name: (own[name], own[name].steerings) for name in methods} | {"random vector": (dim_test, pushes["test"])}

# %%
rows = []
for vector_of, (part, steerings) in rows_of.items():
    results = sp.faithfulness_of(model, list(through.values()), part.responses, steerings)
    for circuit_of, result in zip(through, results):
        classes = result.table.response.map(part.labels.prompts)
        for prompts in ("both", "harmful", "harmless"):
            if ((classes == prompts) | (prompts == "both")).any():
                value = sp.Faithfulness(result.table[(classes == prompts) | (prompts == "both")])
                rows.append((vector_of, circuit_of, prompts, value.value, *value.interval(seed=seed)))
interchange = pd.DataFrame(rows, columns=["vector", "circuit", "prompts", "faithfulness", "low", "high"])
sp.save_table(preset, "fig3_interchange", interchange)

# %%
both = interchange[interchange.prompts == "both"].pivot(index="vector", columns="circuit", values="faithfulness")
both = both.loc[list(rows_of), list(through)]
fig, ax = plt.subplots(figsize=(4.6, 3.0))
sns.heatmap(both, annot=True, fmt=".2f", cmap="Blues", vmin=0, vmax=1, ax=ax, cbar_kws={"label": "faithfulness"})
ax.set(xlabel="circuit of", ylabel="steering by, on its answers")
ax.tick_params(axis="x", rotation=30)
ax.tick_params(axis="y", rotation=0)
ax.grid(False)
sp.save_figure(fig, preset, "fig3_interchange")

# %%
block = both.loc[methods, methods].to_numpy()
diagonal, foreign = np.diag(block), block[~np.eye(len(methods), dtype=bool)]
lowest = both.loc[methods, methods].where(~np.eye(len(methods), dtype=bool)).stack().idxmin()
cosines = torch.stack([vectors[name] / vectors[name].norm() for name in methods[:3]])
cosines = (cosines @ cosines.T)[~torch.eye(3, dtype=torch.bool)]

# %%
display(Markdown(
    f"**Reading.** The three methods' vectors have cosines of {cosines.min():.2f} to {cosines.max():.2f}. With its own "
    f"circuit a vector keeps {diagonal.min():.2f} to {diagonal.max():.2f} of its effect, with another's "
    f"{foreign.min():.2f} to {foreign.max():.2f} (lowest: {lowest[0]} through the circuit of {lowest[1]}). Random edges "
    f"carry {both['random edges'][methods].min():.2f} to {both['random edges'][methods].max():.2f}; the circuit of the "
    f"random vector carries {both['random vector'][methods].min():.2f} to {both['random vector'][methods].max():.2f} of "
    f"the refusal vectors' effect" + (
        ", more than half of what their own circuits do: a good part of the shared circuit is the model's way of "
        "passing on any push at this layer, which the paper's comparison with random edges does not show."
        if both["random vector"][methods].mean() > diagonal.mean() / 2 else
        ", less than half of what their own circuits do: the shared circuit is not that of just any push.")
))

# %% [markdown]
# Figure 4: how many edges do the circuits share, size by size? By chance two circuits of a share p of all edges share
# p of their edges.

# %%
pairs = [("dim", "ntp"), ("dim", "po"), ("ntp", "po"), ("dim", "pca"), ("dim", "random vector")]
ranked_by = rankings | {"random vector": pushed}
rows = []
for share, (one, other) in product(settings.circuit_shares, pairs):
    a, b = (sp.Circuit.top(ranked_by[name], max(1, round(share * graph.n_edges))) for name in (one, other))
    found = sp.agreement(a.mask, b.mask, among=graph.mask)
    rows.append((one, other, share, sp.overlap(a, b), share, found.iou, found.chance, found.chance_low,
                 found.chance_high, found.p))

# %%
columns = ["method_a", "method_b", "share", "overlap", "chance", "iou", "iou_chance", "iou_chance_low",
           "iou_chance_high", "p"]
overlaps = pd.DataFrame(rows, columns=columns)
sp.save_table(preset, "fig4_overlap", overlaps)
overlaps[overlaps.share.between(0.04, 0.11)].round(3)

# %%
fig, ax = plt.subplots(figsize=(5.4, 2.9))
styles = zip(pairs, ("#E69F00", "#882255", "#56B4E9", "#333333", sp.PALETTE["random"]), ("o-", "s-", "^-", "v--", "x--"))
for (one, other), colour, style in styles:
    curve = overlaps[(overlaps.method_a == one) & (overlaps.method_b == other)]
    ax.plot(100 * curve.share, curve.overlap, style, color=colour, label=f"{one}, {other}")
ax.plot(100 * curve.share, curve.chance, ":", color="black", label="chance")
ax.set(xscale="log", xlabel="size of the circuits (% of all edges)", ylabel="overlap", ylim=(0, 1.03))
ax.set_xticks((1, 3, 10, 30, 100), (1, 3, 10, 30, 100))
ax.minorticks_off()
ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
sp.save_figure(fig, preset, "fig4_overlap")

# %%
learned = overlaps[overlaps.method_a.isin(methods[:3]) & overlaps.method_b.isin(methods[:3]) & (overlaps.share < 1)]
near = learned[np.isclose(learned.share, learned.share.iloc[(learned.share - 0.1).abs().argmin()])]
control = overlaps[(overlaps.method_b == "random vector") & np.isclose(overlaps.share, near.share.iloc[0])].iloc[0]

# %%
display(Markdown(
    f"**Reading.** Over all sizes below the whole graph the three methods' circuits share {learned.overlap.min():.0%} "
    f"to {learned.overlap.max():.0%} of their edges, at {near.share.iloc[0]:.0%} of the edges {near.overlap.min():.0%} "
    f"to {near.overlap.max():.0%} (paper: about 90 % and more). As IoU that is {near.iou.min():.2f} to "
    f"{near.iou.max():.2f}, where 95 % of random pairs of circuits lie between {near.iou_chance_low.min():.2f} and "
    f"{near.iou_chance_high.max():.2f}; p, the hypergeometric tail, is at most {learned.p.max():.0e} at any size. The "
    f"circuits of DIM and of the random vector share {control.overlap:.0%} there, p = {control.p:.0e}" + (
        ": far beyond chance as well, so a small p alone may only say that the model reads some edges more than others."
        if control.p < 0.001 else ".")
))

# %% [markdown]
# Tables 5 to 8 and figures 14 and 15 for the other methods: are the learned vectors' edges of other kinds?

# %%
rows = {("dim", "all edges"): graph.edges}
for name, ranking in rankings.items():
    rows[name, "circuit"] = circuits[name].edges
    rows[name, "top"] = sp.Circuit.top(ranking, min(100, graph.n_edges)).edges
types = pd.DataFrame({key: 100 * sp.edge_types(edges) / len(edges) for key, edges in rows.items()}).T
types = types.rename_axis(["method", "edges"])
sp.save_table(preset, "table5_8_edge_types", types.reset_index())
types.round(1)

# %%
for number, name in ((14, "ntp"), (15, "po")):
    strongest = sp.Circuit.top(rankings[name], min(100, graph.n_edges))
    fig = sp.draw_circuit(graph, rankings[name].edges.merge(strongest.edges, on=["source", "target"]))
    fig.suptitle(f"{name}: the hundred strongest edges")
    display(sp.save_figure(fig, preset, f"fig{number}_circuit_{name}"))

# %%
spread = types.xs("circuit", level="edges").drop("pca")
widest = max(spread, key=lambda kind: spread[kind].max() - spread[kind].min())
display(Markdown(
    f"**Reading.** Between the three methods' minimum-faithful circuits the kind of edge that differs most is "
    f"*{widest.replace('_', ' ')}*: {spread[widest].min():.0f} % ({spread[widest].idxmin()}) to {spread[widest].max():.0f} % "
    f"({spread[widest].idxmax()}) of the edges."
))

# %% [markdown]
# ## Beside the paper
#
# Sizes of the minimum-faithful circuits (§5.2), the patching data of table 3 and the positions of table 9. An organism
# is another model, a thousandth of the size, on other prompts with shorter answers: what can be compared with it is
# the *share* of edges, not the counts. In the paper circuits are found and judged on the same prompts; here on
# different ones.

# %%
graphs = pd.read_csv(paths.DATA / "paper" / "graph_counts.csv").pivot(index="model", columns="quantity", values="value")
reported = pd.concat({name: graphs[["edges", f"minimum_faithful_{name}"]].set_axis(["edges", "minimum_faithful"], axis=1)
                      for name in methods[:3]}, names=["method"]).dropna()
measured = needed.assign(edges=graph.n_edges, model=preset, minimum_faithful=needed.n_edges)
measured = measured.set_index(["method", "model"])[["edges", "minimum_faithful"]]
sizes = pd.concat({"reported": reported, "measured here": measured}, names=["source"]).astype(int)
sizes["share"] = (100 * sizes.minimum_faithful / sizes.edges).map("{:.1f} %".format)
sizes

# %%
reported = pd.read_csv(paths.DATA / "paper" / "table3_patching_data.csv")
reported = reported.set_index(["model", "method", "prompts", "response_from"])[["responses", "positions"]]
measured = counts[counts.split == "train"].assign(model=preset).set_index(reported.index.names)
beside = pd.concat({"reported": reported, "measured here": measured[reported.columns]}, names=["source"])
beside["positions per response"] = (beside.positions / beside.responses).round(1)
beside

# %%
reported = pd.read_csv(paths.DATA / "paper" / "table9_positions.csv")
reported["metric"] = ["logit difference" if np.isnan(t) else f"KL, threshold {t:.0f}" for t in reported.threshold]
reported = reported.set_index("metric").positions
beside = pd.DataFrame({"reported": reported, "measured here": positions.set_index("metric").positions})
shares = (beside / beside.loc["KL, threshold 0"]).add_suffix(", share of all positions")
beside.join(shares.round(3))
