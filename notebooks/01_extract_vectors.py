# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. Extracting a steering vector
#
# > *The paper's claim, in our words (§3.2, table 2).* One vector per model, added at one layer, makes it comply with
# > about 80 % of harmful requests and refuse nearly all harmless ones, depending on the sign.
#
# A steering vector `s` is added, times a coefficient α, to the residual stream entering one layer ℓ, at every
# position: `h ← h + α s`. With α = −1 it should make a model comply with harmful requests, with α = +1 refuse
# harmless ones. This notebook extracts `s` as a **difference in means** (DIM), chooses layer, position and
# coefficient on validation prompts, and measures on test prompts that nothing was chosen on.
#
# *Reads* a model and the prompt sets in `data/prompts`. *Writes* the candidate vectors and the chosen one
# (`data/artifacts/<preset>/dim.safetensors`), tidy tables (`data/results/<preset>/dim_*.csv`) and figures.
#
# The default presets are two small **model organisms**, trained from scratch by notebook 00. What is measured
# on them says nothing by itself about Gemma or Llama; the last section puts both side by side.

# %% tags=["parameters"]
preset = "organism-llama"
seed = 0

# %%
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display

import steerpaper as sp
from steerpaper import corpus, paths

sp.use_style()
settings = sp.get_preset(preset)
model = sp.load_model(preset)

# %%
sizes = settings.split_sizes
harmful = {split: sp.load_prompts("harmful", split, n) for split, n in sizes.items()}
harmless = {split: sp.load_prompts("harmless", split, n) for split, n in sizes.items()}
how = dict(
    judge=sp.SubstringJudge(), vocabulary=corpus.vocabulary(),
    max_new_tokens=settings.max_new_tokens, batch_size=settings.batch_size,
)
pd.DataFrame({"harmful": harmful["test"].prompt.head(4), "harmless": harmless["test"].prompt.head(4)})

# %% [markdown]
# ## Candidates: every layer, every template position
#
# The chat template ends in a few tokens after the instruction. At each of them, and entering each layer, the
# candidate is the mean over harmful training prompts minus the mean over harmless ones. The organisms' two training
# sets are requests in the same frames: they differ in harm, and not in the kind of prompt. (Questions among the
# harmless ones gave vectors that partly meant "question"; their −s broke the answers.)

# %%
candidates = sp.difference_in_means(
    model, harmful["train"].prompt, harmless["train"].prompt, batch_size=settings.batch_size
)
template = model.tokenizer.convert_ids_to_tokens(model.post_instruction_tokens)
positions = range(-len(template), 0)
print("layers × positions × d_model:", tuple(candidates.shape))
print("template after the instruction:", " ".join(template))

# %% [markdown]
# How long are the candidates, and do they point the same way? If refusal were read off one fixed direction,
# neighbouring layers would agree; the norm, relative to the residual stream it is added to, tells how strong
# an intervention α = 1 is.

# %%
stream = sp.residual_stream(model, harmless["train"].prompt, positions, batch_size=settings.batch_size)
norms = pd.DataFrame(candidates.norm(dim=-1) / stream.norm(dim=-1).mean(0), columns=positions)
norms = norms.rename_axis("layer").reset_index().melt("layer", var_name="position", value_name="relative_norm")
directions = candidates[:, -1] / candidates[:, -1].norm(dim=-1, keepdim=True)
# The stream entering layer 0 at a template token is that token's embedding: the same for every prompt.
cosines = (directions @ directions.T)[1:, 1:]

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(6.8, 2.7))
sns.lineplot(norms, x="layer", y="relative_norm", hue="position", palette="viridis", marker="o", ax=left)
left.set(xlabel="layer entered", ylabel="norm of the mean difference\n(share of the stream's norm)", ylim=(0, None))
sns.heatmap(
    cosines, vmin=-1, vmax=1, cmap="RdBu_r", square=True, ax=right, cbar_kws={"label": "cosine"},
    xticklabels=range(1, model.n_layers), yticklabels=range(1, model.n_layers),
)
right.set(xlabel="layer entered", ylabel="layer entered", title="position −1")
right.grid(False)
sp.save_figure(fig, preset, "dim_geometry")

# %%
by_layer = norms.groupby("layer").relative_norm.max()
adjacent = cosines.diagonal(offset=1)
display(Markdown(
    f"**Reading.** Entering layer 0 every template token is the same in all prompts, so the difference is zero. It is "
    f"largest entering layer {by_layer.idxmax()} ({by_layer.max():.2f} of the stream's norm). Neighbouring layers "
    f"agree with a cosine of {adjacent.min():.2f} to {adjacent.max():.2f}; layers 1 and {model.n_layers - 1} with "
    f"{cosines[0, -1]:.2f}: the direction turns on its way up."
))

# %% [markdown]
# ## The paper's selection scores
#
# > *The paper's rule, in our words (§3.2, B.1).* Choose the candidate that minimises σ(bypass) − σ(induce), subject to
# > induce > 0, KL < 0.1 and ℓ < 0.8 L.
#
# The *refusal metric* of a prompt is the log odds that the next token is a refusal token. *bypass* is its mean
# on harmful prompts under −s (small is good), *induce* on harmless prompts under +s (large is good), *kl* how
# much removing the direction disturbs harmless prompts (small is good). A good candidate is dark blue on the
# left, dark red in the middle and pale on the right.

# %%
scores = sp.select(
    model, candidates, harmful["validation"].prompt, harmless["validation"].prompt,
    sp.refusal_token_ids(model, settings.refusal_tokens), kl_limit=settings.kl_limit, batch_size=settings.batch_size,
)
sp.save_table(preset, "dim_candidates", norms.merge(scores, on=["layer", "position"]))
scores.head(8).round(2)

# %%
fig, axes = plt.subplots(1, 3, figsize=(6.8, 2.9), sharey=True)
for ax, name, unit in zip(axes, ("bypass", "induce", "kl"), ("log odds", "log odds", "nats")):
    grid = scores.pivot(index="layer", columns="position", values=name)
    looks = dict(cmap="Greys", vmin=0) if name == "kl" else dict(cmap="RdBu_r", center=0)
    looks |= dict(annot=True, fmt=".2f" if name == "kl" else ".1f", annot_kws={"size": 6})
    sns.heatmap(grid, cbar_kws={"label": unit}, ax=ax, **looks)
    ax.set(title=name, xlabel="position", ylabel="layer entered" if name == "bypass" else "")
    ax.grid(False)
sp.save_figure(fig, preset, "dim_selection")

# %%
lowest, highest = (round(share * model.n_layers) for share in settings.layer_range)
within = scores[scores.admissible & scores.layer.between(lowest, highest)]
best = scores.iloc[0]
display(Markdown(
    f"**Reading.** {scores.admissible.sum()} of {len(scores)} candidates pass the paper's conditions, "
    f"{len(within)} of them in layers {lowest} to {highest}. The paper's rule alone picks layer {best.layer}, position "
    f"{best.position} (bypass {best.bypass:.1f}, induce {best.induce:.1f}, KL {best.kl:.2f} nats)."
))

# %% [markdown]
# ## From one token to whole answers
#
# The refusal metric looks at the first token only. A vector that wins there may still break the text that
# follows. So the best candidates of the paper's rule, within the layers where there is a circuit left to find,
# generate whole answers at several coefficients. Among those that flip at least 90 % of the prompts in their weaker
# direction the one with the largest share of flipped **and clean** answers wins. *Clean* means that the text ended
# by itself, does not loop, is made of the corpus' words and names what was asked about. This step is ours, not the
# paper's.

# %%
chosen = sp.select_by_generation(
    model, candidates, within.head(settings.n_candidates), settings.coefficients,
    harmful["validation"], harmless["validation"], **how,
)
sp.save_table(preset, "dim_selection", chosen)
best = chosen.iloc[0]
layer, position, coefficient = int(best.layer), int(best.position), float(best.coefficient)
vector = candidates[layer, position]
chosen.head(6).round(2)

# %%
sp.save_tensors(
    preset, "dim", {"candidates": candidates, "vector": vector},
    {"method": "dim", "layer": layer, "position": position, "coefficient": coefficient, "seed": seed},
)
print(f"layer {layer} of {model.n_layers}, position {position} ({template[position]}), α = ±{coefficient}")

# %% [markdown]
# ## Coefficient sweep
#
# If the vector carries refusal, the attack success rate (ASR, the share of answers that do not refuse) should
# fall from one to zero as α grows, on harmful and on harmless prompts alike, and unsteered prompts should lie on
# the far sides of that step. Text should be clean between the useful coefficients, and may break beyond them.

# %%
sweep = pd.DataFrame({"coefficient": settings.sweep})
steerings = [sp.Steering(vector, layer, a) for a in settings.sweep]
judged = pd.concat({
    "harmful": sp.judged_responses(model, harmful["validation"], steerings, **how),
    "harmless": sp.judged_responses(model, harmless["validation"], steerings, **how),
}, names=["prompts"]).reset_index("prompts").merge(sweep, left_on="run", right_index=True)
curves = sp.rates(judged, ["prompts", "coefficient"])
sp.save_table(preset, "dim_sweep", curves)

# %%
fig, axes = plt.subplots(1, 2, figsize=(6.8, 2.5), sharex=True, sharey=True)
for ax, value, label in zip(axes, ("asr", "clean"), ("attack success rate", "share of clean text")):
    for name, curve in curves.groupby("prompts"):
        ax.plot(curve.coefficient, curve[value], marker="o", color=sp.PALETTE[name], label=f"{name} prompts")
        low, high = curve[f"{value}_low"], curve[f"{value}_high"]
        ax.fill_between(curve.coefficient, low, high, color=sp.PALETTE[name], alpha=0.15, lw=0)
    ax.axvline(-coefficient, color=sp.PALETTE["-s"], ls="--", lw=1)
    ax.axvline(coefficient, color=sp.PALETTE["+s"], ls="--", lw=1)
    ax.set(xlabel="coefficient α", ylabel=label, ylim=(-0.03, 1.03))
axes[0].legend(loc="lower left")
sp.save_figure(fig, preset, "dim_sweep")

# %%
nearest = (curves.asr - 0.5).abs().groupby(curves.prompts).idxmin()
switch = curves.coefficient[nearest].set_axis(nearest.index)
clean = curves[curves.clean >= 0.8].groupby("prompts").coefficient.agg(["min", "max"])
display(Markdown(
    f"**Reading** (vertical lines: the chosen ±α). ASR passes one half near α = {switch['harmful']:+.2f} on harmful "
    f"and α = {switch['harmless']:+.2f} on harmless prompts. At least 80 % of the texts are clean for α from "
    f"{clean['min']['harmful']:+.2f} to {clean['max']['harmful']:+.2f} (harmful) and from "
    f"{clean['min']['harmless']:+.2f} to {clean['max']['harmless']:+.2f} (harmless); beyond that steering breaks the "
    "text, and a broken text that does not refuse still counts as a success of the attack."
))

# %% [markdown]
# ## Test prompts: ASR with intervals, and a random control
#
# The chosen vector at the chosen coefficient, on unseen combinations, frames and questions. If the *direction*
# matters and not the mere size of the push, random vectors of the same norm should change nothing. Three random
# directions are pooled. Intervals are Wilson 95 %.

# %%
controls = [sp.random_vector(vector, seed + i) for i in range(3)]
results = []
for name, prompts, a in (("harmful", harmful, -coefficient), ("harmless", harmless, coefficient)):
    steerings = [None, sp.Steering(vector, layer, a), *(sp.Steering(c, layer, a) for c in controls)]
    labels = ["base", "-s" if a < 0 else "+s", "random", "random", "random"]
    answers = sp.judged_responses(model, prompts["test"], steerings, **how)
    results.append(answers.assign(prompts=name, condition=[labels[run] for run in answers.run], coefficient=a))
results = pd.concat(results, ignore_index=True)

# %%
table = sp.rates(results, ["prompts", "condition"])
checks = results.groupby(["prompts", "condition"])[["ended", "no_loop", "known_words", "on_topic"]].mean()
table = table.merge(checks.reset_index(), on=["prompts", "condition"])
unsteered = table[table.condition == "base"].set_index("prompts")
table["clean_share_of_base"] = table.clean / table.prompts.map(unsteered.clean)
sp.save_table(preset, "table2_asr", table)
table.set_index(["prompts", "condition"]).round(2)

# %%
fig, axes = plt.subplots(1, 2, figsize=(6.8, 2.2), sharey=True)
for ax, (name, group) in zip(axes, table.groupby("prompts")):
    colours = [sp.PALETTE[condition] for condition in group.condition]
    interval = [group.asr - group.asr_low, group.asr_high - group.asr]
    ax.bar(group.condition, group.asr, color=colours, width=0.6)
    ax.errorbar(group.condition, group.asr, yerr=interval, fmt="none", color="black", lw=1)
    ax.set(title=f"{name} prompts", ylim=(0, 1.03))
axes[0].set(ylabel="attack success rate")
sp.save_figure(fig, preset, "table2_asr")

# %%
row = table.set_index(["prompts", "condition"])
shift = [row.asr[name, "random"] - row.asr[name, "base"] for name in ("harmful", "harmless")]
display(Markdown(
    f"**Reading.** −s takes ASR on harmful prompts from {row.asr['harmful', 'base']:.2f} to "
    f"{row.asr['harmful', '-s']:.2f}; +s takes it on harmless prompts from {row.asr['harmless', 'base']:.2f} to "
    f"{row.asr['harmless', '+s']:.2f}. Random vectors change it by {shift[0]:+.3f} and {shift[1]:+.3f}. Clean text, as "
    f"a share of the unsteered model's: {row.clean_share_of_base['harmful', '-s']:.2f} under −s, "
    f"{row.clean_share_of_base['harmless', '+s']:.2f} under +s; the columns before it tell which check fails."
))

# %% [markdown]
# Which prompts resist? A vector read off one kind of prompt may not act on another, and an average over kinds
# would hide it.

# %%
steered = results[results.condition.isin(["-s", "+s"])]
by_kind = sp.rates(steered, ["prompts", "kind"])
sp.save_table(preset, "dim_asr_by_kind", by_kind)
by_kind.set_index(["prompts", "kind"]).round(2)

# %% [markdown]
# ## Answers side by side
#
# The first test prompts, as they come: base, −s and +s. Nothing is picked.

# %%
shown = pd.concat([harmful["test"].head(4), harmless["test"].head(4)], ignore_index=True)
steerings = [None, sp.Steering(vector, layer, -coefficient), sp.Steering(vector, layer, coefficient)]
answers = sp.judged_responses(model, shown, steerings, **how)
answers["condition"] = answers.run.map({0: "base", 1: "−s", 2: "+s"})
examples = answers.pivot(index="prompt", columns="condition", values="text").loc[shown.prompt, ["base", "−s", "+s"]]
sp.save_table(preset, "dim_examples", examples.reset_index())
with pd.option_context("display.max_colwidth", None):
    display(examples)

# %% [markdown]
# ## Beside the paper
#
# Table 2 of the paper, ASR under DIM. Its harmless prompts are Alpaca's, its harmful ones JailbreakBench's, its
# judge of harmful prompts a language model. The organism's column is another model, other prompts and another
# judge: the comparison is of the phenomenon, not of the number.

# %%
reported = pd.read_csv(paths.DATA / "paper" / "table2_asr.csv").query("method in ['none', 'dim']")
reported = reported.rename(columns={"alpaca_asr": "harmless", "jailbreakbench_asr": "harmful"})
reported = reported.set_index(["model", "method"])[["harmful", "harmless"]]
flipped = table[table.condition.isin(["-s", "+s"])].set_index("prompts")
ours = pd.DataFrame({"none": unsteered.asr, "dim": flipped.asr}).T.rename_axis("method")
measured = pd.concat({preset: ours}, names=["model"])
pd.concat({"reported": reported, "measured here": measured}, names=["source"]).round(3)
