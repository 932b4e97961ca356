# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4. OV decomposition
#
# > *The paper's claim, in our words (§6, A).* Steering acts through values rather than through attention weights, and
# > most of that directly: a head that reads the steering vector `s` writes a fixed vector, its **steering value
# > vector** `svv(s)`, times a positive number. Read through the logit lens, these vectors name refusal and harm, even
# > where `s` itself names nothing of the kind.
#
# With c = 1/RMS of the stream entering a layer and A the attention weights of a head, both of the steered run, the
# head writes
#
# `A D_c (h ⊙ γ) W_V W_O  +  (A c) · α · svv(s)`,  `svv(s) = (s ⊙ γ) W_V W_O`
#
# where h is that stream without α s (with a post-norm, `⊙ γ′` and over the RMS of the heads' sum). The second term is
# the *direct* one, and `A c` its **coefficient**. We check that equation, and then ask what it leaves open: is the
# coefficient constant enough to speak of a fixed vector, how much of the change of a head's write is the direct term,
# do the words mean anything beyond what random vectors would give, do the vectors of different methods come closer
# together on their way through the heads, and what do the MLPs do?
#
# *Reads* the vectors of notebook 01 and the scores of notebook 02. *Writes* tidy tables and figures.

# %% tags=["parameters"]
preset = "organism-llama"
seed = 0

# %%
import random
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

import steerpaper as sp
from steerpaper import paths
from steerpaper.prompts import corpus

sp.check_parameters(preset=preset, seed=seed)

# %%
sp.use_style()
settings = sp.get_preset(preset)
preset = settings.name
model = sp.load_model(preset, dtype="float32")  # as the authors do here; in bfloat16 rounding would hide the identity

# %%
methods = ["dim", "ntp", "po"]
loaded = {m: sp.load_tensors(preset, m, made_by="01_extract_vectors") for m in methods}
vectors = {m: tensors["vector"] for m, (tensors, _) in loaded.items()}
coefficients = {m: about["coefficient"] for m, (_, about) in loaded.items()}
layer = loaded["dim"][1]["layer"]
graph = sp.Graph.of(model, layer)
scored = {m: sp.load_tensors(preset, f"{m}_attribution", made_by="02_patching_circuits")[0]["nodes"] for m in methods}
nodes = pd.DataFrame({m: scores.numpy() for m, scores in scored.items()}, index=graph.sources)
print(f"steering enters layer {layer} of {model.n_layers}: {model.n_heads * len(graph.layers)} heads and "
      f"{len(graph.layers)} MLPs come after it")

# %% [markdown]
# All three methods are compared on the same text: the base model's answers and those steered by DIM, to test prompts
# that DIM flips. Base and steered run read the same tokens; harmful prompts are steered by −α, harmless ones by +α.

# %%
n_prompts = settings.n_patching_test // 2
texts = [sp.load_prompts(name, "test", n_prompts, settings.prompts).prompt for name in ("harmful", "harmless")]
how = dict(max_new_tokens=settings.max_new_tokens, batch_size=settings.batch_size)
data = sp.patching_data(model, *texts, vectors["dim"], layer, coefficients["dim"], sp.load_judge(settings), **how)

# %%
signs = {"harmful": -1, "harmless": 1}
tables = []
for method in methods:
    for prompts, sign in signs.items():
        steering = sp.Steering(vectors[method], layer, sign * coefficients[method])
        table = sp.decompose_heads(model, data.subset(prompts).responses, steering)
        tables.append(table.assign(method=method, prompts=prompts))
heads = pd.concat(tables, ignore_index=True)
keys = ["method", "prompts", "layer", "head"]

# %% [markdown]
# ## The identity
#
# Both terms, summed in float64 from the streams and attention weights of the steered run, against what that run, in
# float32, handed to the output projection. If equation and code are right, what is left is the rounding of
# the run: below 1e-5 of the write, at every position of every head.

# %%
bound = 1e-5
identity = heads[keys].assign(bound=bound, within=heads.relative_error <= bound)
sp.save_table(preset, "ov_identity", identity)
identity.groupby(["method", "prompts"], sort=False).within.agg(heads="size", within="sum")

# %%
positions = data.counts.response_positions.sum()
display(Markdown(
    f"**Reading.** The identity {'holds' if identity.within.all() else '**fails**'}: of {len(identity)} heads, counted "
    f"by method and class, {identity.within.sum()} write the sum of the two terms with an error below {bound:.0e} of "
    f"the write, at every one of the {positions:,} response positions."
))

# %% [markdown]
# ## Is the coefficient constant?
#
# `svv(s)` is a fixed vector; what varies is the positive number that it is multiplied by. Where streams are of like
# length, `A c` is an average of like numbers, and a head adds nearly the same at every position whatever the text. The
# claim of input-invariance is worth more the narrower these intervals are.

# %%
quantiles = ["q05", "q25", "q50", "q75", "q95"]
sp.save_table(preset, "svv_coefficient", heads[[*keys, "coefficient", "spread", *quantiles]])
fig, ax = plt.subplots(figsize=(6.8, 2.3))
for shift, (prompts, group) in zip((-0.18, 0.18), heads[heads.method == "dim"].groupby("prompts")):
    x, colour = np.arange(len(group)) + shift, sp.PALETTE[prompts]
    ax.vlines(x, group.q05, group.q95, color=colour, lw=0.7)
    ax.vlines(x, group.q25, group.q75, color=colour, lw=2, label=f"{prompts}, {'+' if signs[prompts] > 0 else '−'}α")
    ax.plot(x, group.q50, "o", ms=2, color=colour, mfc="white", mew=0.6)
ax.set_xticks((np.arange(len(graph.layers)) + 0.5) * model.n_heads - 0.5, [f"layer {i}" for i in graph.layers])
ax.set(ylim=(0, 1.2 * ax.get_ylim()[1]), xlabel="heads, layer by layer", ylabel="coefficient of α svv")
ax.legend(loc="upper right", ncols=2)
sp.save_figure(fig, preset, "svv_coefficient")

# %%
between = heads.groupby(["method", "prompts", "layer"]).coefficient.agg(lambda c: c.std(ddof=0) / c.mean())
level = heads.groupby("layer").coefficient.mean()
classes = heads.groupby(["method", "layer", "prompts"]).coefficient.mean().unstack()
gap = (classes.harmless / classes.harmful).agg(["min", "max"])
median, widest = heads.spread.median(), heads.loc[heads.spread.idxmax()]
verdict = "nearly constant" if median < 0.1 else "roughly constant" if median < 0.25 else "far from constant"

# %%
display(Markdown(
    f"**Reading** (DIM; dot: median, thick: half of the positions, thin: nine tenths). Over positions the coefficient "
    f"of a head is {verdict}: its standard deviation is {median:.0%} of its mean in the median head, and "
    f"{widest.spread:.0%} in the worst (layer {widest.layer}, head {widest['head']}, {widest.method.upper()}, "
    f"{widest.prompts} prompts). The means of a layer's heads differ by {between.median():.0%} (standard deviation), "
    f"those of the layers range from {level.min():.2f} (layer {level.idxmin()}) to {level.max():.2f} (layer "
    f"{level.idxmax()}). On harmless prompts under +α it is {gap['min']:.2f} to {gap['max']:.2f} times that on harmful "
    "ones under −α, layer by layer."
))

# %% [markdown]
# ## How much of the change is direct?
#
# Steering changes a head's write in other ways, too: it moves the attention weights, it changes the norm by which
# values are divided, and from the second layer on a head reads what earlier layers made of `s`. The *share explained*
# is 1 − Σ‖Δ − direct‖² / Σ‖Δ‖² over response positions, Δ the change of the head's write between base and steered run:
# 1 if the direct term is all there is, 0 if it is no better than nothing, less if worse. At layer ℓ nothing but weights
# and norm can interfere, so it should be high there and fall later.

# %%
explained = heads[[*keys, "change", "projection", "explained"]]
sp.save_table(preset, "svv_explained", explained)
weighted = explained.assign(part=heads.change * heads.explained, along=heads.change * heads.projection)
sums = weighted.groupby(["method", "prompts", "layer"], sort=False)[["change", "part", "along"]].sum()
by_layer = sums.part / sums.change
totals = sums.groupby(["method", "prompts"], sort=False).sum()
totals = totals.assign(explained=totals.part / totals.change, projection=totals.along / totals.change)

# %%
fig, axes = plt.subplots(1, 3, figsize=(6.8, 2.3), sharey=True)
for ax, method in zip(axes, methods):
    for shift, prompts in zip((-0.12, 0.12), signs):
        own = explained[(explained.method == method) & (explained.prompts == prompts)]
        ax.plot(own.layer + shift, own.explained, ".", ms=3, alpha=0.6, color=sp.PALETTE[prompts])
        ax.plot(by_layer[method, prompts], color=sp.PALETTE[prompts], label=prompts)
    ax.axhline(0, color="black", lw=0.8)
    ax.set(title=method.upper(), xlabel="layer", ylim=(-0.75, 1.02), xticks=graph.layers)
axes[0].set(ylabel="change of a head's write\nexplained by the direct term")
axes[0].legend(loc="lower left")
sp.save_figure(fig, preset, "svv_explained")

# %%
first, last = by_layer.xs(layer, level="layer"), by_layer.xs(model.n_layers - 1, level="layer")
below = (explained.explained < -0.75).sum()
named = [f"{m.upper()} {p} {row.explained:.0%} ({row.projection:.2f})" for (m, p), row in totals.iterrows()]
display(Markdown(
    "**Reading** (dots: heads; lines: all heads of the layer, weighted by the size of their change). Over all heads "
    f"the direct term explains, with its projection on the change in brackets: {', '.join(named)}. At layer {layer} it "
    f"is {first.min():.0%} to {first.max():.0%}, in the last layer {last.min():.0%} to {last.max():.0%}"
    + (f"; {below} of {len(explained)} dots lie below the axis" if below else "") + ". "
    + ("Most of what steering does to the heads' writes is direct." if totals.explained.min() > 0.5 else
       "For at least one method and class, less than half of what steering does to the heads' writes is direct.")
))

# %% [markdown]
# ## The MLPs' counterpart
#
# The paper stops at the heads. An MLP's response to `s` is not linear, but to first order it is J s, with J the
# Jacobian of its write (norms included) at the base run's stream. Unlike an svv it depends on the position. How much,
# is a number: the *constancy* ‖mean J s‖² / mean ‖J s‖² over response positions, 1 for a fixed vector. For a head's
# direct term the same number is 1/(1 + spread²).

# %%
few = data.subset(n=max(1, settings.n_patching_test // 5))
mlps = {m: sp.mlp_value_vectors(model, few.responses, vectors[m], layer) for m in methods}
rows = [(m, i, float(c)) for m, found in mlps.items() for i, c in zip(graph.layers, found.constancy)]
constancy = pd.DataFrame(rows, columns=["method", "layer", "mlp"])
of_heads = (1 / (1 + heads.spread**2)).groupby([heads.method, heads.layer]).mean().rename("heads")
constancy = constancy.join(of_heads, on=["method", "layer"])
sp.save_table(preset, "mlp_constancy", constancy)
constancy.pivot(index="layer", columns="method", values="mlp")[methods].round(2)

# %%
display(Markdown(
    f"**Reading.** A head's direct response has a constancy of {constancy.heads.min():.2f} to "
    f"{constancy.heads.max():.2f}, an MLP's first-order response one of {constancy.mlp.min():.2f} to "
    f"{constancy.mlp.max():.2f} (mean {constancy.mlp.mean():.2f}). " + (
        "So MLPs have no steering value vector in the heads' sense: most of what they make of s depends on the "
        "position, and the averages read below are the smaller part of it." if constancy.mlp.mean() < 0.5 else
        "So most of what an MLP makes of s is the same everywhere, and its average can be read like an svv.")
))

# %% [markdown]
# ## What the vectors say
#
# > *Figures 5 and 12, in our words.* The top tokens of `s` (SV), of the svv of the most important heads, and of the sum
# > of all svv (SUM). For heads that work against the steering (negative node IE) the sign is flipped.
#
# The five heads and two MLPs of largest |node IE| per method, the sums over all heads and all MLPs, and `s`. So as
# not to judge words by eye, every token gets a label: *refusal* or *answer* if it is at least twice as common in
# refusals as in answers to the same requests, or the other way round; *harm* or *harmless* if the same holds for
# harmful against harmless prompts. For the organisms the texts are drawn from their own corpus. For other models, which
# have none, they are training prompts and the test answers above, where one of base and steered run refuses and the
# other answers. Those refusals and answers are few, and half of them were made by the vectors that are read here: their
# labels say less.

# %%
values = {m: sp.steering_value_vectors(model, vectors[m], layer) for m in methods}
names = {node: re.sub(r"a(\d+)\.h", r"L\1H", node).replace("m", "MLP ") for node in graph.sources[1:]}
place = {node: [int(number) for number in re.findall(r"\d+", node)] for node in names}

# %%
signs_of, shown = {}, {}
for m in methods:
    own = {node: values[m][at[0] - layer, at[1]] if at[1:] else mlps[m].vectors[at[0] - layer]
           for node, at in place.items()}
    signs_of |= {(m, name): float(np.sign(nodes[m][node])) for node, name in names.items()}
    best = nodes[m].abs().groupby(nodes.index.str[0]).rank(ascending=False)
    top = {k: {names[n]: signs_of[m, names[n]] * own[n] for n in names if n[0] == k and best[n] <= size}
           for k, size in (("a", 5), ("m", 2))}
    shown[m] = {"SV": vectors[m], **top["a"], "SUM": values[m].sum((0, 1)), **top["m"]}
    shown[m]["MLP SUM"] = mlps[m].vectors.sum(0)

# %%
rng = random.Random(seed)
if settings.prompts == "built-in":
    drawn = {kind: [corpus.draw(rng, "train", kind) for _ in range(1500)] for kind in ("harmful", "harmless")}
    asked = [[e.prompt for e in drawn[kind]] for kind in ("harmful", "harmless")]
    said = [[getattr(e, kind) for group in drawn.values() for e in group] for kind in ("refusal", "compliance")]
else:
    train = [sp.load_prompts(kind, "train", source=settings.prompts) for kind in ("harmful", "harmless")]
    asked = [table.prompt.head(min(map(len, train))) for table in train]
    refuses = (data.labels.prompts == "harmful") == (data.labels.response_from == "base")
    said = [[r.text for r, does in zip(data.responses, refuses) if does == kind] for kind in (True, False)]
typical = {"refusal": sp.typical_tokens(model, *said), "harm": sp.typical_tokens(model, *asked)}

# %%
labels = {("refusal", 1): "refusal", ("harm", 1): "harm", ("refusal", -1): "answer", ("harm", -1): "harmless"}
about = np.select([typical[scale] == sign for scale, sign in labels], list(labels.values()), "neither")
print({label: int((about == label).sum()) for label in (*labels.values(), "neither")})

# %%
tokens = pd.concat({m: sp.logit_lens(model, shown[m], k=20) for m in methods}, names=["method"])
tokens = tokens.reset_index("method").reset_index(drop=True).assign(about=lambda t: about[t.id])
tokens.insert(2, "sign", [signs_of.get(key, 1.0) for key in zip(tokens.method, tokens.vector)])
sp.save_table(preset, "svv_tokens", tokens.drop(columns="id"))
colours = {"refusal": sp.PALETTE["+s"], "harm": sp.PALETTE["harmful"], "answer": sp.PALETTE["-s"]}
colours |= {"harmless": sp.PALETTE["harmless"], "neither": "#777777"}

# %%
fig, axes = plt.subplots(3, 1, figsize=(6.8, 5.4), subplot_kw=dict(frame_on=False, xticks=[], yticks=[]))
for ax, method in zip(axes, methods):
    ax.set(xlim=(-0.5, 9.5), ylim=(10.6, -0.9), title=f"{method.upper()} at layer {layer}")
    for column, name in enumerate(shown[method]):
        minus = "−" if signs_of.get((method, name), 1) < 0 else ""
        ax.text(column, 0, minus + name, weight="bold", size=6.5, ha="center", va="center")
        for row in tokens[(tokens.method == method) & (tokens.vector == name)].head(10).itertuples():
            text = row.token.strip() or repr(row.token)
            ax.text(column, row.rank_shown, text, color=colours[row.about], size=6, ha="center", va="center")
squares = [plt.Line2D([], [], color=colour, marker="s", ls="", label=label) for label, colour in colours.items()]
fig.legend(handles=squares, loc="outside upper center", ncols=len(squares), handletextpad=0.1)
sp.save_figure(fig, preset, "fig5_svv_tokens")

# %%
share = tokens.groupby(["method", "vector"], sort=False).about.value_counts(normalize=True).unstack(fill_value=0.0)
share = share.reindex(columns=[*labels.values(), "neither"], fill_value=0.0)
usual = pd.Series(about).value_counts(normalize=True).reindex(share.columns, fill_value=0.0)
concept, expected = share.refusal + share.harm, usual.refusal + usual.harm
rows = [f"{m.upper()}: {concept[m, 'SV']:.0%} in SV, {concept[m].filter(like='H').mean():.0%} in the five heads on "
        f"average, {concept[m, 'SUM']:.0%} in SUM, {concept[m, 'MLP SUM']:.0%} in MLP SUM" for m in methods]
display(Markdown(
    "**Reading** (leading spaces left out; − marks flipped signs). Of the first 20 tokens of a vector, these are of "
    f"refusal or harm, where {expected:.0%} of all tokens are: {'; '.join(rows)}. Of SUM's, at most "
    f"{share.answer[:, 'SUM'].max():.0%} are of answers (of all tokens {usual.answer:.0%})."
))

# %% [markdown]
# ## Measured, not read
#
# Twenty tokens out of a vocabulary leave room for luck. The **preference** of a vector looks at the whole vocabulary:
# the probability that its lens puts a token of refusals before a token of answers (and one of harm before a harmless
# one); 0.5 means no order. What luck can do is shown by 200 random vectors, sent through the same heads. If the svv
# name refusal, their points should lie above the grey bars, and if heads make readable what `s` hides, above SV's.

# %%
generator = torch.Generator().manual_seed(seed)
draws = torch.nn.functional.normalize(torch.randn(200, model.d_model, generator=generator), dim=-1)
random_svv = torch.stack([sp.steering_value_vectors(model, draw, layer) for draw in draws])
ends = torch.tensor([0.025, 0.975])
chance, rows = {}, []
for scale, kinds in typical.items():
    luck = {"SV": draws, "SUM": random_svv.sum((1, 2))}
    luck |= {names[node]: random_svv[:, at[0] - layer, at[1]] for node, at in place.items() if at[1:]}
    for name, of in luck.items():
        chance[scale, name] = sp.lens_preference(sp.lens_logits(model, of), kinds).quantile(ends).tolist()

# %%
for scale, kinds in typical.items():
    for m in methods:
        for name, vector in shown[m].items():
            value = float(sp.lens_preference(sp.lens_logits(model, vector), kinds))
            rows.append((scale, m, name, value, *chance.get((scale, name), (np.nan, np.nan))))
preference = pd.DataFrame(rows, columns=["scale", "method", "vector", "preference", "chance_low", "chance_high"])
sp.save_table(preset, "svv_preference", preference)

# %%
fig, axes = plt.subplots(2, 3, figsize=(6.8, 3.8), sharey=True, sharex="col")
for (scale, m), group in preference.groupby(["scale", "method"]):
    ax, x = axes[["refusal", "harm"].index(scale), methods.index(m)], np.arange(len(group))
    luck = ax.vlines(x, group.chance_low, group.chance_high, color=sp.PALETTE["random"], lw=4, alpha=0.5)
    ax.plot(x, group.preference, "o", color=sp.PALETTE[m])
    ax.axhline(0.5, color="black", lw=0.6)
    ax.set_xticks(x, ["−" * (signs_of.get((m, name), 1) < 0) + name for name in group.vector], rotation=90)
for ax, of in zip(axes[:, 0], ("refusal before answer", "harm before harmless")):
    ax.set(ylabel=f"preference for\n{of}", ylim=(0, 1))
for ax, m in zip(axes[0], methods):
    ax.set(title=m.upper())
fig.legend([luck], ["95 % of random vectors"], loc="outside upper center")
sp.save_figure(fig, preset, "svv_preference")

# %%
above = {}
for scale, kinds in typical.items():
    high = {node: chance[scale, names[node]][1] for node, at in place.items() if at[1:]}
    found = {m: sp.lens_preference(sp.lens_logits(model, values[m]), kinds).flatten().tolist() for m in methods}
    above[scale] = np.mean([value > limit for m in methods for value, limit in zip(found[m], high.values())])
by_vector = preference.assign(beyond=preference.preference > preference.chance_high)
by_vector = by_vector.pivot(index=["scale", "vector"], columns="method", values=["preference", "beyond"])

# %%
of = by_vector.preference
of_sum, of_mlps = of.loc["refusal", "SUM"], of.loc["refusal", "MLP SUM"]
gain = of_sum - of.loc["refusal", "SV"]
rows = [f"{scale}, {name}: " + ", ".join(f"{m.upper()} {of.loc[(scale, name), m]:.2f}" for m in methods)
        + f" ({by_vector.beyond.loc[scale, name].sum()} of 3 beyond chance)"
        for scale in typical for name in ("SV", "SUM")]

# %%
display(Markdown(
    f"**Reading** (grey: 95 % of random vectors; none for MLPs). Preferences: {'; '.join(rows)}. Of all heads and "
    f"methods, {above['refusal']:.0%} lie beyond chance for refusal and {above['harm']:.0%} for harm, where 2.5 % "
    "would by luck. "
    + "From SV to SUM the preference for refusal changes by "
    + ", ".join(f"{gain[m]:+.2f} ({m.upper()})" for m in methods)
    + ("." if (gain > 0).any() else ": the heads do not bring out what the vector hides.")
    + f" The heads' sum (SUM) scores {of_sum.min():.2f} to {of_sum.max():.2f}, the MLPs' averages taken together (MLP "
    f"SUM) {of_mlps.min():.2f} to {of_mlps.max():.2f}: these lean towards the words of "
    + ("answers." if of_mlps.max() < 0.5 else "refusals." if of_mlps.min() > 0.5 else "neither.")
))

# %% [markdown]
# ## Do the methods meet in the heads?
#
# > *In our words (§5, §6).* The methods' vectors are far from parallel, and yet use the same circuit and name the same
# > concepts.
#
# If so, the heads' maps might turn unlike vectors into like svv. For every head: the cosine between two methods' svv,
# beside the cosine of the vectors themselves (dashed). A head keeps few of the stream's dimensions, so cosines scatter
# anyway; the band holds 95 % of pairs of random vectors *with that same cosine*. The methods meet where dots lie above
# the band.

# %%
one, two = random_svv[:100], random_svv[100:]
dot = (draws[:100] * draws[100:]).sum(-1)[:, None, None, None]
across = (two - dot * one) / (1 - dot**2).sqrt()  # svv of the part of the second vector at right angles to the first
pairs, tables = [("dim", "ntp"), ("dim", "po"), ("ntp", "po")], []
cosine = torch.nn.functional.cosine_similarity
for a, b in pairs:
    rho = cosine(vectors[a], vectors[b], dim=0)
    low, high = cosine(one, rho * one + (1 - rho**2).sqrt() * across, dim=-1).quantile(ends, dim=0).flatten(1)
    table = dict(cosine=cosine(values[a], values[b], dim=-1).flatten(), vector_cosine=float(rho), low=low, high=high)
    tables.append(heads[keys[2:]].drop_duplicates().assign(method_a=a, method_b=b, **table))
cosines = pd.concat(tables, ignore_index=True)
sp.save_table(preset, "svv_cosines", cosines[["method_a", "method_b", *cosines.columns.drop(["method_a", "method_b"])]])

# %%
fig, axes = plt.subplots(1, 3, figsize=(6.8, 2.2), sharey=True)
for ax, (pair, group) in zip(axes, cosines.groupby(["method_a", "method_b"], sort=False)):
    band = group.groupby("layer")[["low", "high"]].mean()
    ax.fill_between(band.index, band.low, band.high, color=sp.PALETTE["random"], alpha=0.3, lw=0, label="random pairs")
    ax.axhline(group.vector_cosine.iloc[0], color="black", ls="--", lw=1, label="vectors")
    ax.plot(group.layer, group.cosine, ".", ms=4, color="black", alpha=0.6, label="svv of a head")
    ax.set(title=" and ".join(pair).upper().replace("AND", "and"), xlabel="layer", xticks=graph.layers)
axes[0].set(ylabel="cosine")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
sp.save_figure(fig, preset, "svv_cosines")

# %%
cosines["above"], cosines["below"] = cosines.cosine > cosines.high, cosines.cosine < cosines.low
by_pair = cosines.groupby(["method_a", "method_b"], sort=False)[["vector_cosine", "cosine", "above", "below"]].mean()
rows = [f"{a.upper()} and {b.upper()}: vectors {row.vector_cosine:.2f}, svv {row.cosine:.2f} on average, "
        f"{row.above:.0%} of the heads above chance and {row.below:.0%} below" for (a, b), row in by_pair.iterrows()]
met = (by_pair.above > 0.25) & (by_pair.above > 2 * by_pair.below)
closer = (by_pair.above > by_pair.below) & (by_pair.cosine > by_pair.vector_cosine)

# %%
display(Markdown(
    f"**Reading.** {'; '.join(rows)} (by luck 2.5 % each). "
    + ("The methods meet in the heads for every pair." if met.all() else "The methods meet in the heads for "
       + " and ".join("–".join(pair).upper() for pair in by_pair.index[met]) + " only." if met.any() else
       "The value maps bring " + " and ".join("–".join(pair).upper() for pair in by_pair.index[closer])
       + " a little closer, but in most heads no further than chance: most of what the methods share, they share "
       "already at the start or find elsewhere." if closer.any() else
       "So the value maps do not bring the methods together: what they share, they share already at the start or find "
       "elsewhere.")
))

# %% [markdown]
# ## Beside the paper
#
# The paper's top three tokens (figures 5 and 12, from the authors' result files) and ours. An organism has another
# vocabulary, 2,048 word pieces of its own corpus: rows stand beside each other to be read, not compared token by token.

# %%
reported = pd.read_csv(paths.DATA / "paper" / "figure5_12_svv_tokens.csv", keep_default_na=False)
ours = tokens[tokens.rank_shown <= 3].assign(model=preset)[reported.columns]
beside = pd.concat([reported, ours]).assign(token=lambda t: t.token.str.strip())
beside = beside.groupby(["model", "method", "vector"], sort=False).token.agg(", ".join).rename("top three tokens")
sp.save_table(preset, "svv_beside", beside.reset_index())
with pd.option_context("display.max_rows", None, "display.max_colwidth", None):
    display(beside.to_frame())

# %%
drops = pd.read_csv(paths.DATA / "paper" / "table1_average_drop.csv").set_index("ablation").reported_average_drop_points
rates = pd.read_csv(paths.DATA / "paper" / "table1_ablations.csv").set_index(["ablation", "model"])
again = 100 * (rates - rates.loc["none"]).abs().mean(axis=1).groupby("ablation").mean()

# %%
display(Markdown(
    f"**Reading.** The paper measures the direct term in behaviour: without it attack success is reported to change by "
    f"{drops.svv} points, without all of OV by {drops.ov}, a share of {drops.svv / drops.ov:.0%} (its own table "
    f"gives {again.svv:g}, {again.ov:g} and {again.svv / again.ov:.0%}; notebook 03 does that experiment). "
    f"Here, in the heads' writes, the direct term explains {totals.explained.min():.0%} to "
    f"{totals.explained.max():.0%} of the change. These are different quantities: one counts answers, the other "
    "lengths. "
    f"Refusal or harm make up {concept[:, 'SUM'].min():.0%} to {concept[:, 'SUM'].max():.0%} of SUM's tokens here, and "
    f"{concept[:, 'SV'].min():.0%} to {concept[:, 'SV'].max():.0%} of the vectors' own."
))
