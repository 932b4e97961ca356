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
# > *The paper's claim, in our words (§6, A).* Steering acts through values
# > rather than through attention weights, and most of that directly: a head
# > that reads the steering vector `s` writes a fixed vector, its **steering
# > value vector** `svv(s)`, times a positive number. Read through the logit
# > lens, these vectors name refusal and harm, even where `s` itself names
# > nothing of the kind.
#
# With c = 1/RMS of the stream entering a layer and A the attention weights of a
# head, both of the steered run, the head writes
#
# $$A\, D_c\, (h \odot \gamma)\, W_V W_O + (A c)\, \alpha\, \mathrm{svv}(s), \qquad
# \mathrm{svv}(s) = (s \odot \gamma)\, W_V W_O,$$
#
# where h is that stream without α s and D_c scales its rows by c. (With a
# post-norm, as in Gemma 2, both terms are times γ′ and over the RMS of the
# heads' sum.) It follows from three facts: once c is known, a norm is linear in
# what it reads; values and outputs are linear; and α s is the same at every
# position, so that attention, whose weights sum over positions, can do nothing
# to it but add up c. The second term is the *direct* one, and `A c` its
# **coefficient**. What steering does to c, to A and to h is not in it. We check
# that equation, by hand and for every head, and then ask what it leaves open:
#
# 1. is the coefficient constant enough to speak of a fixed vector;
# 2. how much of the change of a head's write is the direct term;
# 3. do MLPs have anything like it;
# 4. do the words mean anything beyond what random vectors would give;
# 5. do the vectors of different methods come closer together on their way
#    through the heads?
#
# *Reads* the vectors of [notebook 01](01_extract_vectors.ipynb) and the scores
# of [notebook 02](02_patching_circuits.ipynb). *Writes* tidy tables and
# figures, which [06](06_scorecard.ipynb) judges; [03](03_qk_freeze.ipynb) takes
# the direct term out of whole answers. The verdicts of all models are in
# [RESULTS.md](../RESULTS.md). Code of the package:
# [`ov.py`](../steerpaper/heads/ov.py),
# [`lens.py`](../steerpaper/heads/lens.py).

# %% tags=["parameters"]
preset = "organism-llama"
seed = 0

# %%
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from IPython.display import display

import steerpaper as sp

sp.check_parameters(preset=preset, seed=seed)

# %%
sp.use_style()
pd.set_option("display.max_colwidth", None, "display.max_rows", None)
settings = sp.get_preset(preset)
preset = settings.name
# As the authors do here; in bfloat16 rounding would hide the identity.
model = sp.load_model(preset, dtype="float32")
concept = sp.get_concept(settings.concept)
methods = [name for name, method in sp.METHODS.items() if not method.baseline]
steerings = {m: sp.load_steering(preset, m) for m in methods}
vectors = {m: steering.vector for m, steering in steerings.items()}
layer = steerings["dim"].layer
graph = sp.Graph.of(model, layer)
print(f"from layer {layer} on {model.n_heads * len(graph.layers)} heads")

# %% [markdown]
# All three methods are compared on the same text: the base model's answers and
# those steered by DIM, to test prompts that DIM flips. Base and steered run
# read the same tokens; harmful prompts are steered by −α, harmless ones by +α.

# %%
texts = [sp.load_prompts(prompts, "test", settings.n_patching_test // 2,
                         settings.prompts) for prompts in concept.sets]
data = sp.patching_data(
    model, *texts, steerings["dim"], sp.load_judge(settings), concept=concept,
    max_new_tokens=settings.max_new_tokens, batch_size=settings.batch_size)

# %% [markdown]
# ## The identity, by hand
#
# One head of layer ℓ, one answer. The run is steered by adding α s to the
# stream that enters the layer; what its first head hands to the output
# projection, times its W_O, is its write. The two terms are summed in float64
# from that run's streams and attention weights. If equation and code are right,
# what is left is the rounding of the run, which is in float32: below 1e-5 of
# the write. A term too many or too few would be wrong by about as much as the
# write itself. (Without the post-norm, which scales both sides alike.)

# %%
one, head = data.subset(concept.negative, "steered", n=1), 0
ids, mask = model.pad([one.responses[0].tokens])
push = one.steerings[0].coefficient * vectors["dim"].to(model.device)
with torch.no_grad(), model.eager_attention(), model.trace(ids, mask):
    h = model.layer(layer).input.clone().save()
    model.layer(layer).input = h + push
    z = model.o_proj(layer).input.save()
    A = model.attention_weights(layer).save()
A, h = A[0, head].double(), h[0].double()  # [pos key], [pos d_model]
c = ((h + push).square().mean(-1) + model.norm_eps).rsqrt()
gamma, s = model.attention_gamma(layer).double(), vectors["dim"].to(h)
kv_head = head * model.n_kv_heads // model.n_heads
W_V = model.W_V(layer)[kv_head].double()
W_O = model.W_O(layer)[head].double()
svv, alpha = (s * gamma) @ W_V @ W_O, one.steerings[0].coefficient
values = c[:, None] * (h * gamma) @ W_V
if (bias := model.bias(layer, "v")) is not None:  # Qwen 2's, steered or not
    values += bias.view(model.n_kv_heads, -1)[kv_head].double()
rest = A @ values @ W_O  # A D_c (h ⊙ γ) W_V W_O
direct = (A @ c)[:, None] * alpha * svv  # (A c) α svv(s)
write = z.unflatten(-1, (model.n_heads, -1))[0, :, head].double() @ W_O
error = (write - rest - direct).norm(dim=-1) / write.norm(dim=-1)
print("error below 1e-5 of the write everywhere:", bool((error < 1e-5).all()))

# %% [markdown]
# ## The identity, for every head
#
# [`decompose_heads`](../steerpaper/heads/ov.py) does the same for all heads,
# methods and answers, with layers after ℓ reading streams that steering has
# already changed. There h is what is left of the steered stream when α s is
# taken out, and not the base run's stream: the identity is about one run, the
# next question but one about two.

# %%
tables = {(m, prompts): sp.heads.decompose_heads(
    model, data.subset(prompts).responses, signed)
    for m, steering in steerings.items()
    for prompts, signed in sp.steering.both_ways(steering, concept).items()}
keys = ["method", "prompts", "layer", "head"]
heads = pd.concat(tables, names=keys[:2]).reset_index(keys[:2]).reset_index(drop=True)
identity = heads[keys].assign(bound=1e-5, within=heads.relative_error <= 1e-5)
sp.save_table(preset, "ov_identity", identity)
identity.groupby(keys[:2], sort=False).within.agg(heads="size", within="sum")

# %% [markdown]
# **Reading.** The identity holds for every head, method and class, on both organisms, at every
# response position. It is algebra: it says that the code is right, not that the model is simple.
#
# *Qwen2.5-Coder-0.5B, a real model, [on its own
# page](qwen2.5-coder-0.5b-instruct/04_ov_decomposition.ipynb).* It holds there, too, with
# biases, for 140 heads.

# %% [markdown]
# ## Is the coefficient constant?
#
# `svv(s)` is a fixed vector; what varies is the positive number that it is
# multiplied by. Where streams are of like length, `A c` is an average of like
# numbers, and a head adds nearly the same at every position whatever the text.
# The claim of input-invariance is worth more the narrower these intervals are.

# %%
quantiles = ["q05", "q25", "q50", "q75", "q95"]
coefficient = heads[[*keys, "coefficient", "spread", *quantiles]]
sp.save_table(preset, "svv_coefficient", coefficient)
fig = sp.figures.draw_svv_coefficient(coefficient[coefficient.method == "dim"])
sp.save_figure(fig, preset, "svv_coefficient")

# %%
coefficient.groupby(["method", "prompts"], sort=False).spread.describe().round(2)

# %% [markdown]
# **Reading** (figure: DIM, dot: median; table: standard deviation over positions as a share of the
# mean, over heads). On organism-llama a head's coefficient hardly varies over positions, and falls
# from layer to layer as streams grow longer. On organism-gemma2, where the post-norm divides by the
# heads' sum, it varies about twice as much. It is positive everywhere.
#
# *Qwen.* The coefficient varies by 0.28 to 0.43 of its mean, in layer 16 by 0.14 to 1.4 of
# it: "input-invariant" is a word for the last two layers.

# %% [markdown]
# ## How much of the change is direct?
#
# Steering changes a head's write in other ways, too: it moves the attention
# weights, it changes the norm by which values are divided, and from the second
# layer on a head reads what earlier layers made of `s`. The *share explained*
# is 1 − Σ‖Δ − direct‖² / Σ‖Δ‖² over response positions, Δ the change of the
# head's write between base and steered run: 1 if the direct term is all there
# is, 0 if it is no better than nothing, less if worse. At layer ℓ nothing but
# weights and norm can interfere, so it should be high there and fall later. The
# *projection* is how far the direct term reaches along Δ.

# %%
explained = heads[[*keys, "change", "projection", "explained"]]
sp.save_table(preset, "svv_explained", explained)
by_layer = sp.heads.pooled_explained(explained, ["method", "prompts", "layer"])
fig = sp.figures.draw_svv_explained(explained, by_layer)
sp.save_figure(fig, preset, "svv_explained")

# %% [markdown]
# **Reading** (dots: heads; lines: all heads of the layer by the size of their change). The direct
# term explains most of the change at layer ℓ and less later, on both organisms, though not less
# with every layer: in the last it mostly rises again. Over all layers that is more than half on
# organism-gemma2 and about half, often less, on organism-llama (table at the end): "mostly
# direct" holds for the first layers.
#
# Dots below 0: heads for which the direct term points more aside than along
# what steering does to them, so that taking it for the change is worse than
# taking nothing.
#
# *Qwen.* At layer ℓ nearly all of the change is direct, one layer later 0.36 to 0.64, over
# all layers 0.40 to 0.48.

# %% [markdown]
# ## The MLPs' counterpart
#
# The paper stops at the heads. An MLP's response to `s` is not linear, but to
# first order it is J s, with J the Jacobian of its write (norms included) at
# the base run's stream. Unlike an svv it depends on the position. How much, is
# a number: the *constancy* ‖mean J s‖² / mean ‖J s‖² over response positions, 1
# for a fixed vector. For a head's direct term the same number is 1/(1 +
# spread²).

# %%
few = data.subset(n=max(1, settings.n_patching_test // 5)).responses
mlps = {m: sp.heads.mlp_value_vectors(model, few, vectors[m], layer) for m in methods}
constancy = pd.DataFrame([(m, i, float(value)) for m in methods for i, value in
                          zip(graph.layers, mlps[m].constancy)],
                         columns=["method", "layer", "mlp"])
of_heads = (1 / (1 + heads.spread**2)).groupby([heads.method, heads.layer]).mean()
constancy = constancy.join(of_heads.rename("heads"), on=["method", "layer"])
sp.save_table(preset, "mlp_constancy", constancy)
constancy.pivot(index="layer", columns="method").round(2)

# %% [markdown]
# **Reading.** Heads come close to a fixed vector, MLPs do not: what they make of s cancels over
# positions, on both organisms. So MLPs have no steering value vector in the heads' sense, and the
# averages read below are the smaller part of what they do.
#
# *Qwen.* Less so on both sides: heads have 0.65 to 0.99, MLPs 0.19 to 0.43, and 0.6 in the
# last layer, where the average is the larger part.

# %% [markdown]
# ## What the vectors say
#
# > *Figures 5 and 12, in our words.* The top tokens of `s` (SV), of the svv of
# > the most important heads, and of the sum of all svv (SUM). For heads that
# > work against the steering (negative node IE) the sign is flipped.
#
# The five heads and two MLPs of largest |node IE| per method, the sums over all
# heads and all MLPs, and `s`. A label L4H0 is head 0 of layer 4; − marks a
# flipped sign. The lens is the final norm and the unembedding alone
# ([`lens.py`](../steerpaper/heads/lens.py)): what a vector would do to the
# logits if nothing came after it.

# %%
values = {m: sp.steering_value_vectors(model, vectors[m], layer) for m in methods}
of_heads = [f"L{i}H{h}" for i in graph.layers for h in range(model.n_heads)]
names = [f"L{i}H{h}" if h < model.n_heads else f"MLP {i}"
         for i in graph.layers for h in range(model.n_heads + 1)]  # the graph's order
flipped, shown = {}, {}
for m in methods:
    scored = sp.Attribution.load(preset, f"{m}_attribution", steerings[m])
    effect = scored.nodes.score[1:].set_axis(names)
    rank = effect.abs().groupby(effect.index.str[0]).rank(ascending=False)
    writes = torch.cat([values[m], mlps[m].vectors[:, None]], dim=1).flatten(0, 1)
    top = {name: float(np.sign(effect[name])) * own for name, own in zip(names, writes)
           if rank[name] <= (5 if name in of_heads else 2)}
    shown[m] = {"SV": vectors[m], **{n: top[n] for n in top if n in of_heads},
                "SUM": values[m].sum((0, 1)),
                **{n: top[n] for n in top if n not in of_heads},
                "MLP SUM": mlps[m].vectors.sum(0)}
    flipped |= {(m, name): float(np.sign(effect.get(name, 1.0))) for name in shown[m]}
flipped = pd.Series(flipped)

# %% [markdown]
# So as not to judge words by eye, every token gets a label: *refusal* or
# *answer* if it is at least twice as common in refusals as in answers to the
# same requests, or the other way round; *harm* or *harmless* if the same holds
# for harmful against harmless prompts. Five counts are added on all sides, so
# that a handful of chance occurrences labels nothing. A token that stands in
# none of these texts is *unseen*: no count can label it. For the organisms the
# texts are drawn from their own corpus. For other models, which have none, they
# are training prompts and the test answers above, where one of base and steered
# run refuses and the other answers. Those refusals and answers are few, and
# half of them were made by DIM, one of the vectors that are read here: their
# labels say less.

# %%
texts = sp.heads.typical_texts(data, concept, settings.prompts, seed)
labels = sp.heads.token_labels(model, concept, texts)
typical = {scale: sp.heads.typical_tokens(model, *(texts[kind] for kind in kinds))
           for scale, kinds in sp.heads.word_scales(concept).items()}

# %%
tokens = pd.concat({m: sp.heads.logit_lens(model, shown[m], k=20) for m in methods},
                   names=["method"]).reset_index("method").reset_index(drop=True)
tokens["about"] = labels.about[tokens.id].to_numpy()
tokens.insert(2, "sign", [flipped[key] for key in zip(tokens.method, tokens.vector)])
sp.save_table(preset, "svv_tokens", tokens.drop(columns="id"))
fig = sp.figures.draw_svv_tokens(tokens, concept)
sp.save_figure(fig, preset, "fig5_svv_tokens")

# %%
read = tokens[tokens.rank_shown <= 10].drop_duplicates("id").sort_values("token")
read = labels.loc[read.id].assign(token=read.token.to_numpy())
sp.save_table(preset, "svv_token_counts", read)
share = tokens.groupby("vector").about.value_counts(normalize=True).unstack()
share.loc["all tokens"] = labels.about.value_counts(normalize=True)
display(share.loc[["SV", "SUM", "MLP SUM", "all tokens"]].fillna(0.0).round(2),
        read[read.about.isin([next(iter(typical)), "unseen"])].set_index("token"))

# %% [markdown]
# **Reading** (tables: shares of the first 20 tokens, methods together; counts of tokens in the
# figure). SV and SUM are full of words of refusal, far beyond their share of the vocabulary, on
# both organisms (NTP's SUM on organism-gemma2 aside: 2 of 20); MLP SUM has hardly any. A label
# says in which texts a word stands, not what it means.
#
# So "something" and "people" are coloured, for this corpus' refusals use them,
# "library" counts as harm, for its harmful requests do, and "refuse", "decline"
# and "forbidden" stay grey, for they stand in none of the texts (all counts are
# in `svv_token_counts.csv`).
#
# *Qwen.* Of 151,936 tokens 98 % stand in none of the texts that are counted, and so do most
# of the top ones, so that a reader has to look. SV and SUM show nothing that one would call
# refusal, but for "fortunately", first in PO's SV and second in NTP's. Under DIM and NTP
# heads of layer 14 name passwords, masks, deletion and security; under DIM the MLPs' sum has
# "legalize", "coerc" and "illegal". What the paper reads from heads stands here, if anywhere,
# in the MLPs.

# %% [markdown]
# On the organisms "refuse", "decline" and "forbidden" are in the vocabulary
# because instructions in the training data use them. That vectors name them
# is a finding that the labels cannot count: what the figure shows in colour
# is rather too little refusal than too much.
#
# ## Measured, not read
#
# Twenty tokens out of a vocabulary leave room for luck. The **preference** of a
# vector looks at the whole vocabulary: the probability that its lens puts a
# token of refusals before a token of answers (and one of harm before a harmless
# one); 0.5 means no order. What luck can do is shown by 200 random vectors,
# sent through the same heads: a head's output has few dimensions, and an
# unembedding has directions that it likes, so 0.5 is not what chance gives
# every time. If the svv name refusal, their points should lie above the grey
# bars, and if heads make readable what `s` hides, above SV's.

# %%
generator = torch.Generator().manual_seed(seed)
draws = torch.randn(200, model.d_model, generator=generator)
draws = torch.nn.functional.normalize(draws, dim=-1)
random_svv = [sp.steering_value_vectors(model, draw, layer) for draw in draws]
random_svv = torch.stack(random_svv)
luck = {"SV": draws, "SUM": random_svv.sum((1, 2))}
luck |= dict(zip(of_heads, random_svv.flatten(1, 2).unbind(1)))
chance, rows = {}, []
for scale, kinds in typical.items():
    for name, own in luck.items():
        found = sp.heads.lens_preference(sp.heads.lens_logits(model, own), kinds)
        chance[scale, name] = found.quantile(torch.tensor([0.025, 0.975])).tolist()
    for m, own in shown.items():
        logits = sp.heads.lens_logits(model, torch.stack(list(own.values())))
        found = sp.heads.lens_preference(logits, kinds)
        rows += [(scale, m, name, value, *chance.get((scale, name), (np.nan, np.nan)))
                 for name, value in zip(own, found.tolist())]
columns = ["scale", "method", "vector", "preference", "chance_low", "chance_high"]
preference = pd.DataFrame(rows, columns=columns)
sp.save_table(preset, "svv_preference", preference)
fig = sp.figures.draw_svv_preference(preference, flipped, concept)
sp.save_figure(fig, preset, "svv_preference")

# %%
beyond = {}
for scale, kinds in typical.items():
    limits = torch.tensor([chance[scale, name][1] for name in of_heads])
    for m in methods:
        logits = sp.heads.lens_logits(model, values[m].flatten(0, 1))
        above = sp.heads.lens_preference(logits, kinds) > limits
        beyond[scale, m] = above.float().mean().item()
pd.Series(beyond).unstack().round(2)

# %% [markdown]
# **Reading** (no bars for MLPs; table: share of *all* heads above their bars, 0.025 by luck). SV
# prefers refusal beyond luck for all methods, on both organisms, and so does SUM except for NTP on
# organism-gemma2. For harm some vectors lie beyond luck and others do not. SUM is no clearer than
# SV, and MLP SUM leans to the words of answers.
#
# Where `s` is readable already, there is nothing for the heads to bring out:
# the paper's comparison, of vectors that name nothing with svv that do, cannot
# be made here.
#
# *Qwen.* Here the comparison can be made, and it is the paper's: no SV prefers words of
# refusal beyond luck (DIM's by a little: 0.739, luck ends at 0.753), and SUM does for all
# three methods, if by little for PO. Of the strongest heads none does, of all 140 4 to 6 %
# (luck: 2.5). For harm SUM is beyond luck, too, but so is DIM's SV. So the sum of the svv
# leans to refusal beyond luck where the vector does not. That is an average over some 1,250
# pairs of labelled words; the top tokens say nothing of it. And half of the texts that label
# them were written under DIM.

# %% [markdown]
# ## Do the methods meet in the heads?
#
# > *In our words (§5, §6).* The methods' vectors are far from parallel, and yet
# > use the same circuit and name the same concepts.
#
# If so, the heads' maps might turn unlike vectors into like svv. For every
# head: the cosine between two methods' svv, beside the cosine of the vectors
# themselves (dashed). A head keeps few of the stream's dimensions, so cosines
# scatter anyway. The fair comparison is not zero but two random vectors as near
# to each other as the methods' are: a head's grey bar holds 95 % of pairs of
# random vectors *with that same cosine*. The methods meet where dots lie above
# their bars.

# %%
cosine, tables = torch.nn.functional.cosine_similarity, []
for a, b in combinations(methods, 2):
    rho = float(cosine(vectors[a], vectors[b], dim=0))
    low, high = sp.heads.chance_cosines(draws, random_svv, rho)
    table = heads[keys[2:]].drop_duplicates().assign(
        method_a=a, method_b=b, cosine=cosine(values[a], values[b], dim=-1).flatten(),
        vector_cosine=rho, low=low.flatten(), high=high.flatten())
    tables.append(table)
order = ["method_a", "method_b", *keys[2:], "cosine", "vector_cosine", "low", "high"]
cosines = pd.concat(tables, ignore_index=True)[order]
sp.save_table(preset, "svv_cosines", cosines)
fig = sp.figures.draw_svv_cosines(cosines)
met = cosines.assign(above=cosines.cosine > cosines.high,
                     below=cosines.cosine < cosines.low)
met = met.drop(columns=[*keys[2:], "low", "high"]).groupby(order[:2]).mean()
display(sp.save_figure(fig, preset, "svv_cosines"), met.round(2))

# %% [markdown]
# **Reading** (table: mean cosines, shares of the heads beyond their bars, 0.025 each by luck).
# The methods do not meet in the heads: few dots lie above their bar (DIM and PO at layer ℓ of
# organism-gemma2: half), and for NTP and PO more lie below, on both organisms. What the methods
# share, they share already at the start or find elsewhere.
#
# *Qwen.* At layer ℓ DIM's svv lie closer to the learned vectors' than the vectors do, all of
# them, and most beyond their bars: the only layer where most heads meet. Later a fifth to a
# third do in layers 19 and 20 (NTP and PO fewer), elsewhere hardly any.

# %% [markdown]
# ## Beside the paper
#
# The paper's top three tokens (figures 5 and 12, from the authors' result
# files) and ours. An organism has another vocabulary, 2,048 word pieces of its
# own corpus: rows stand beside each other to be read, not compared token by
# token.

# %%
columns = ["model", "method", "vector", "rank_shown", "token"]
ours = tokens[tokens.rank_shown <= 3].assign(model=preset)
beside = sp.paper.reported("svv_tokens", concept)
beside = pd.concat([beside[columns], ours[columns]])
beside["token"] = beside.token.str.strip()
beside = beside.groupby(columns[:3], sort=False).token.agg(", ".join)
beside = beside.rename("top three tokens").reset_index()
sp.save_table(preset, "svv_beside", beside)
beside.set_index(columns[:3])

# %% [markdown]
# The paper measures the direct term in behaviour: how much less steering
# succeeds without it, beside how much less without all of OV. Its average
# drops, as printed and as its own table gives them; [notebook
# 03](03_qk_freeze.ipynb) does that experiment. Shares of a drop count answers,
# the shares explained above are of squared lengths: they are different
# quantities.

# %%
drops = sp.paper.paper_arithmetic()
drops = drops.query("locator in ['table 1', '§6.3'] and point == '1'")
drops[["quantity", "printed", "recomputed", "agrees"]].set_index("quantity")

# %% [markdown]
# ## What we learned
#
# * **The split is exact**, for both families, post-norms and shared key-value
#   heads included.
# * **"A fixed vector" is a fair word for heads** of the organisms, for a few of
#   Qwen's, and hardly one for MLPs, which do as much in the circuits of notebook 02.
# * **"Mostly direct" fades with depth.** At the steering layer most of the
#   change is direct; in the last layers most of it is not (NTP's on
#   organism-gemma2: half): it is moved attention, the norm, and what earlier
#   layers made of s.
# * **The svv name refusal, but so does s.** The claim that heads make readable
#   what s hides cannot be tested on the organisms, whose vectors are readable
#   from the start. (DIM's do not name harm, and the sum of its svv does.)
# * **On Qwen, a real model, it can be tested, and holds on average**: no vector prefers words of
#   refusal beyond luck (DIM's just not), the sum of its svv does, for all three methods. Single
#   heads do not, and top tokens say nothing. Half of the texts that tell words of refusal from
#   others were written under DIM.
# * **The methods do not meet in the heads**, but for DIM with the others, mainly at
#   layer ℓ, on Qwen, and there with PO on organism-gemma2; that they use the same
#   circuit has another reason. Notebook 02 has a candidate: much of that circuit
#   carries any push.
# * **Labels by counting have blind spots**: they see words of the texts that
#   are counted, in the sense that these texts use them in.
#
# The share of all change that the direct term explains, for every model on
# record, and the verdicts of [06](06_scorecard.ipynb):

# %%
verdicts = sp.paper.recorded_verdicts(["svv-share", "svv-concepts"])
learned = sp.load_recorded("svv_explained")
learned = sp.heads.pooled_explained(learned, ["preset", *keys[:2]])
learned = learned.set_index(["preset", *keys[:2]]).unstack("preset").swaplevel(axis=1)
display(verdicts, learned[verdicts.columns].round(2))
