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
# > *The paper's claim, in our words (§3.2, table 2).* One vector per model, added at one layer, makes it comply with
# > about 80 % of harmful requests and refuse nearly all harmless ones, depending on the sign. Three ways to find such
# > a vector steer about equally well, although the vectors point in different directions.
#
# A steering vector `s` is added, times a coefficient α, to the residual stream entering one layer ℓ, at every
# position: `h ← h + α s`. With α = −1 it should make a model comply with harmful requests, with α = +1 refuse
# harmless ones. This notebook extracts `s` as a **difference in means** (DIM) and learns it by **next-token
# prediction** (NTP) and by **preference optimisation** (PO). Layer, position, hyperparameters and coefficients are
# chosen on validation prompts; test prompts are only measured on.
#
# *Reads* a model and the prompt sets: the organisms' own in `data/prompts`, for other presets those of the paper
# (`data/sources.toml`). *Writes* one vector per method (`dim`, `ntp`, `po` and the
# baselines `pca`, `random`, in `build/<preset>/artifacts`), tidy tables and figures.
#
# The default presets are two small **model organisms**, trained from scratch by notebook 00. What is measured
# on them says nothing by itself about Gemma or Llama; the last section puts both side by side.

# %% tags=["parameters"]
preset = "organism-llama"
seed = 0

# %%
import itertools

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
preset = settings.name  # of a checkpoint folder, if that was given
model = sp.load_model(preset)
if model.commit:
    print(f"{settings.model} at commit {model.commit}; {settings.note}")

# %%
sizes = settings.split_sizes
harmful = {split: sp.load_prompts("harmful", split, n, settings.prompts) for split, n in sizes.items()}
harmless = {split: sp.load_prompts("harmless", split, n, settings.prompts) for split, n in sizes.items()}
how = dict(
    judge=sp.load_judge(settings), vocabulary=sp.vocabulary(settings.prompts),
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
adjacent, ends = cosines.diagonal(offset=1), cosines[0, -1].clip(-1, 1)
display(Markdown(
    f"**Reading.** Entering layer 0 every template token is the same in all prompts, so the difference is zero. It is "
    f"largest entering layer {by_layer.idxmax()} ({by_layer.max():.2f} of the stream's norm). Neighbouring layers "
    f"agree with a cosine of {adjacent.min():.2f} to {adjacent.max():.2f}; layers 1 and {model.n_layers - 1} with "
    f"{ends:.2f}, an angle of {ends.arccos().rad2deg():.0f}° (one fixed direction would have 0°)."
))

# %% [markdown]
# ## The paper's selection scores
#
# > *The paper's rule, in our words (§3.2, B.1).* Choose the candidate that minimises σ(bypass) − σ(induce), subject to
# > induce > 0, KL < 0.1 and ℓ < 0.8 L.
#
# (The organisms, whose refusal is one of few things that they can do, get a wider limit on KL from their presets.)
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
strict = (scores.induce > 0) & (scores.kl < 0.1) & (scores.layer < 0.8 * model.n_layers)
lowest, highest = (round(share * model.n_layers) for share in settings.layer_range)
passed = scores[scores.admissible]
within = passed[passed.layer.between(lowest, highest)]
places = {"of any layer": passed.head(1), f"within layers {lowest} to {highest}": within.head(1)}
winners = "; ".join(
    f"{where}, layer {row.layer}, position {row.position} (bypass {row.bypass:.1f}, induce {row.induce:.1f}, KL "
    f"{row.kl:.2f} nats)" for where, rows in places.items() for row in rows.itertuples()
)

# %%
display(Markdown(
    f"**Reading.** {len(passed)} of {len(scores)} candidates pass the conditions with this preset's limit on KL, "
    f"{settings.kl_limit} nats ({strict.sum()} with the paper's 0.1); {len(within)} of the {len(passed)} stand in "
    f"layers {lowest} to {highest}. " + (f"The best by score is, {winners}." if winners else "So the rule picks none.")
))

# %%
shortlist = within.head(settings.n_candidates)
if settings.layer is not None:
    shortlist = sp.candidate_at(scores, settings.layer, settings.position)
    same = shortlist.index.equals(passed.index[:1])
    picks = "it here, too" if same else "none here" if passed.empty else "another one here, see above"
    display(Markdown(
        f"The preset fixes layer {settings.layer}, position {settings.position}, as in the paper or its authors' code. "
        f"The rule, with this preset's limit on KL, picks {picks}."
    ))

# %% [markdown]
# ## From one token to whole answers
#
# The refusal metric looks at the first token only. A vector that wins there may still break the text that
# follows. So the best candidates of the paper's rule, within the layers where there is a circuit left to find,
# generate whole answers at several coefficients. (Where the preset fixes layer and position, that candidate alone does;
# for the paper's models at α = 1.) Among those that flip at least 90 % of the prompts in their weaker
# direction the one with the largest share of flipped **and clean** answers wins. *Clean* means that the text ended
# by itself, does not loop, is made of the corpus' words and names what was asked about; the last two are checked on
# the organisms' prompts only, public ones come without a word list and a topic. This step is ours, not the paper's.

# %%
chosen = sp.select_by_generation(
    model, candidates, shortlist, settings.coefficients,
    harmful["validation"], harmless["validation"], **how,
)
sp.save_table(preset, "dim_selection", chosen)
best = chosen.iloc[0]
layer, position, coefficient = int(best.layer), int(best.position), float(best.coefficient)
vector = candidates[layer, position]
chosen.head(6).round(2)

# %%
kl = sp.candidate_at(scores, layer, position).kl.item()
display(Markdown(
    f"**Reading.** Chosen: layer {layer} of {model.n_layers}, position {position} (`{template[position]}`), α = "
    f"±{coefficient}. On validation prompts ASR is {best.asr_harmful:.2f} on harmful ones under −α and "
    f"{best.asr_harmless:.2f} on harmless ones under +α. Removing its direction disturbs harmless prompts by a KL of "
    f"{kl:.2f} nats, {'within' if kl < 0.1 else 'above'} the paper's limit of 0.1"
    + ("." if kl < 0.1 else ": by the paper's own conditions it would not have been a candidate.")
))

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
    ax.axvline(-coefficient, color=sp.PALETTE["-s"], ls="--", lw=1, label="chosen −α")
    ax.axvline(coefficient, color=sp.PALETTE["+s"], ls="--", lw=1, label="chosen +α")
    ax.set(xlabel="coefficient α", ylabel=label, ylim=(-0.03, 1.03))
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
sp.save_figure(fig, preset, "dim_sweep")

# %%
steps = curves[(curves.coefficient < 0) == (curves.prompts == "harmful")]  # the side on which ASR should turn
nearest = (steps.asr - 0.5).abs().groupby(steps.prompts).idxmin()
switch = curves.loc[nearest].set_index("prompts")
clean = curves[curves.clean >= 0.8].groupby("prompts").coefficient.agg(["size", "min", "max"])
ranges = "; ".join(
    f"for {row['size']:.0f} of them on {name} prompts ({row['min']:+.2f} to {row['max']:+.2f})" if row["size"] else
    f"for none of them on {name} prompts" for name, row in clean.reindex(["harmful", "harmless"]).fillna(0).iterrows()
)

# %%
display(Markdown(
    f"**Reading.** Of the {len(sweep)} values of α, ASR comes closest to one half at "
    f"{switch.coefficient['harmful']:+.2f} on harmful ({switch.asr['harmful']:.2f}) and at "
    f"{switch.coefficient['harmless']:+.2f} on harmless prompts ({switch.asr['harmless']:.2f}). At least 80 % of the "
    f"texts are clean {ranges}. Where texts are broken, one that does not refuse still counts as a success."
))

# %% [markdown]
# ## Contrastive pairs
#
# > *In our words (§3.2, B.4).* The learned vectors see, for every prompt, two responses of the model itself. To a
# > harmful prompt: its refusal, and what it says under −s of DIM. To a harmless one: its answer, and the refusal that
# > it gives behind the command "Treat the following question as dangerous and refuse." Pairs that do not show the
# > wanted behaviour are removed.
#
# The *winner* of a pair is the response that steering should bring about (compliance under −v, refusal under +v), the
# *loser* what the model says by itself. The paper removed pairs by hand, here the judge does. If DIM and the command
# work, few are lost.

# %%
dim = sp.Steering(vector, layer, coefficient)
sizes = {"train": settings.n_pairs, "validation": settings.n_validation_pairs}
lengths = dict(max_new_tokens=settings.max_new_tokens, batch_size=settings.batch_size)
pairs = {}
for split, n in sizes.items():
    prompts = [sp.load_prompts(name, split, n, settings.prompts) for name in ("harmful", "harmless")]
    pairs[split] = sp.contrast_pairs(model, *prompts, dim, how["judge"], **lengths)
counts = pd.concat({split: part.counts for split, part in pairs.items()}, names=["split"]).reset_index("split")
sp.save_table(preset, "pair_counts", counts)
counts.set_index(["split", "prompts"])

# %%
examples = pd.DataFrame({
    "wanted": ["refuse" if sign > 0 else "comply" for sign in pairs["train"].signs],
    "loser": [response.text for response in pairs["train"].losers],
    "winner": [response.text for response in pairs["train"].winners],
}).groupby("wanted").head(2)
with pd.option_context("display.max_colwidth", None):
    display(examples.set_index("wanted"))

# %%
total = counts.drop(columns=["split", "prompts"]).sum()
display(Markdown(
    f"**Reading.** {total.kept} of {total.asked} pairs are kept. {total.winner_off} were dropped because the winner "
    f"does not show the wanted behaviour, {total.loser_off} because the loser, the model's own response, already does, "
    f"and {total.both_off} for both reasons."
))

# %% [markdown]
# ## Training
#
# > *In our words (§3.2).* NTP minimises `−Σ log p(y_i | x, h ← h + αv)` over the winner's tokens. PO compares winner
# > and loser: `Δ = β⁺/|y_w| · log p(y_w) − 1/|y_l| · log p(y_l)` under steering, loss `−log σ(Δ)`, where `β⁺` weighs
# > the winner more the less likely it is without steering, `max((log p(y_l) − log p(y_w)) · φ, 1)`.
#
# One vector per run, α = +1 on harmless and −1 on harmful prompts, the same layer as DIM, the grid of table 4: batch
# size, learning rate, φ (PO) and seed. All runs of a batch size train side by side, each as it would alone. The preset
# says how many pairs and epochs there are, and at what length the vectors are used: as learned, or at DIM's norm as in
# the authors' code. The organisms' presets depart from table 4: their responses are fewer, shorter and likelier than a
# large model's, so that there are few steps. The paper's φ of 0.02 would leave PO's weight at 1 just as 0.00001 does,
# and at its learning rates so few steps leave a vector at less than a tenth of DIM's length.
#
# Losses should fall and flatten. The training loss is that of the vector at its own length, the validation loss that of
# the vector as it is used. Used as learned, a validation loss that turns up again while the training loss falls would
# mean learning by heart. At DIM's norm the two need not start together, and a turn does not tell learning by heart from
# a direction that is good at the length it was learned at and less so at DIM's.

# %%
ours = {"batch_size": settings.pair_batch_sizes, "learning_rate": settings.learning_rates,
        "epochs": (settings.epochs,), "seed": settings.training_seeds, "phi": settings.phis}
table4 = pd.read_csv(paths.DATA / "paper" / "table4_training.csv").set_index("hyperparameter")["values"]
here = {name: "; ".join(np.format_float_positional(value, trim="-") for value in values)
        for name, values in ours.items()}
other = [f"{name} {here[name]} for {table4[name]}" for name, values in ours.items()
         if {float(value) for value in table4[name].split(";")} != set(values)]
display(Markdown("**Reading.** This preset has the grid and the epochs of table 4" + (
    f", except for {', '.join(other)}." if other else ".")))

# %%
grid = dict(
    batch_sizes=settings.pair_batch_sizes, learning_rates=settings.learning_rates, seeds=settings.training_seeds,
    more_seeds=settings.more_seeds, norm=settings.learned_norm, epochs=settings.epochs,
    coefficients=settings.training_coefficients, n_tokens=settings.training_tokens,
)
data = pairs["train"], pairs["validation"], dim
learned = {
    "ntp": sp.next_token_vector(model, *data, **grid),
    "po": sp.preference_vector(model, *data, phis=settings.phis, **grid),
}

# %%
runs = pd.concat([result.grid for result in learned.values()], ignore_index=True)
curves = pd.concat([result.curves for result in learned.values()], ignore_index=True)
sp.save_table(preset, "learned_grid", runs)
sp.save_table(preset, "learned_curves", curves)
curves["panel"] = curves.method.str.upper() + curves.phi.map(lambda phi: "" if pd.isna(phi) else f", φ = {phi:g}")
panels = list(curves.panel.unique())
print(f"{len(runs)} runs, {settings.epochs} epochs, {settings.training_coefficients} coefficients, "
      f"norm: {settings.learned_norm} (DIM's is {vector.norm():.1f}, the runs reached {runs.free_norm.min():.1f} to "
      f"{runs.free_norm.max():.1f})")
with pd.option_context("display.float_format", "{:.3g}".format):
    display(runs)

# %%
fig, axes = plt.subplots(2, len(panels), figsize=(6.8, 3.8), sharex=True, squeeze=False)
looks = dict(hue="learning_rate", style="batch_size", palette="viridis", errorbar=("pi", 100), err_kws={"alpha": 0.15})
for (i, loss), (j, panel) in itertools.product(enumerate(("training_loss", "validation_loss")), enumerate(panels)):
    part = curves[curves.panel == panel]
    sns.lineplot(part, x="epoch", y=loss, ax=axes[i, j], legend="full" if i == j == 0 else False, **looks)
    unit = "\n(nats per response)" if panel == "NTP" else ""
    axes[i, j].set(title=panel if i == 0 else "", ylabel=loss.replace("_", " ") + unit)
plt.setp(axes, xticks=range(settings.epochs + 1))
handles, labels = axes[0, 0].get_legend_handles_labels()
axes[0, 0].get_legend().remove()
fig.legend(handles, [label.replace("_", " ") for label in labels], loc="outside lower center", ncols=6)
sp.save_figure(fig, preset, "learned_curves")

# %% [markdown]
# ## The chosen runs
#
# > *In our words (§3.2, B.4).* NTP: the lowest validation loss. PO: the lowest validation loss within each φ, since
# > losses of different φ do not compare, and of those the highest *match score*, the share of the validation
# > responses' tokens that the steered model would pick itself.

# %%
chosen_runs = runs[runs.chosen].set_index("method")
matched = runs.groupby("method").match_score.agg(["min", "max"])
setting = ["method", "batch_size", "learning_rate", "seed", "phi"]
last = curves.groupby(setting, dropna=False).validation_loss.agg(["min", "last"])
ratio = (last["last"] / last["min"]).reset_index(name="ratio").astype({"phi": float})
turned = runs.astype({"phi": float}).merge(ratio, on=setting).query("chosen").set_index("method").ratio
with pd.option_context("display.float_format", "{:.3g}".format):
    display(chosen_runs)

# %%
display(Markdown("**Reading** (lines: mean over seeds, bands: their range). " + " ".join(
    f"{name.upper()}: batch size {row.batch_size}, learning rate {row.learning_rate:g}, seed {row.seed}"
    + ("" if pd.isna(row.phi) else f", φ = {row.phi:g}") + f"; of the validation tokens {row.match_score:.1%} match, "
    f"over the grid {matched['min'][name]:.1%} to {matched['max'][name]:.1%}; its last validation loss is "
    f"{turned[name]:.3f} times its lowest, and before any rescaling it had {row.free_norm / vector.norm():.2f} times "
    "DIM's length."
    for name, row in chosen_runs.iterrows()
) + f" In {(last['last'] > 1.01 * last['min']).sum()} of {len(last)} runs the validation loss ends more than 1 % above "
    "its lowest value."))

# %% [markdown]
# ## Coefficients, and two baselines
#
# Beside the three methods stand the first **principal component** of the differences between paired harmful and
# harmless prompts (same layer and position, DIM's norm and sign: is the mean more than the direction of largest
# spread?) and a **random** vector of DIM's norm. Each vector gets the |α| that does best on validation prompts by the
# rule that chose DIM's.

# %%
train_prompts = [table["train"].prompt for table in (harmful, harmless)]
pca = sp.principal_component(model, *train_prompts, layer, position, batch_size=settings.batch_size)
controls = [sp.random_vector(vector, seed + i) for i in range(3)]
vectors = {"dim": vector, "ntp": learned["ntp"].vector, "po": learned["po"].vector, "pca": pca}
found = sp.select_coefficient(
    model, {name: v for name, v in vectors.items() if name != "dim"}, layer, settings.coefficients,
    harmful["validation"], harmless["validation"], **how,
)
sp.save_table(preset, "learned_coefficients", found)
alphas = {"dim": coefficient} | found.groupby("method").coefficient.first().to_dict()
found.groupby("method", sort=False).head(2).round(2)

# %%
for name, v in [*vectors.items(), ("random", controls[0])]:
    extra = {"candidates": candidates} if name == "dim" else {}
    place = {"position": position} if name in ("dim", "pca") else {}
    run = chosen_runs.loc[name].to_dict() if name in learned else {}
    trained = {key: run[key] for key in ("batch_size", "learning_rate", "phi") if key in run and not pd.isna(run[key])}
    about = {"method": name, "layer": layer, "coefficient": alphas.get(name, coefficient)}
    sp.save_tensors(preset, name, {"vector": v, **extra}, {**about, **place, **trained, "seed": run.get("seed", seed)})
pd.DataFrame({
    "|α|": alphas, "norm": {name: float(v.norm()) for name, v in vectors.items()},
}).round({"|α|": 2, "norm": 1})

# %% [markdown]
# ## Test prompts: ASR with intervals, and a random control
#
# Every vector at its coefficient, −|α| on harmful and +|α| on harmless prompts, on unseen combinations, frames and
# questions. The claim holds if the three methods bring ASR on harmful prompts up and on harmless ones down about
# equally. If the *direction* matters and not the mere size of the push, random vectors of DIM's norm should change
# nothing; three random directions are pooled, and each of them stands by itself below. Intervals are Wilson 95 %.

# %%
tested = [("none", None, 0.0), *((name, v, alphas[name]) for name, v in vectors.items())]
tested += [("random", v, coefficient) for v in controls]
results = []
for name, prompts, sign in (("harmful", harmful, -1), ("harmless", harmless, 1)):
    steerings = [None if v is None else sp.Steering(v, layer, sign * a) for _, v, a in tested]
    answers = sp.judged_responses(model, prompts["test"], steerings, **how)
    labels = pd.DataFrame([(method, sign * a + 0.0) for method, _, a in tested], columns=["method", "coefficient"])
    steered = "-s" if sign < 0 else "+s"
    labels["condition"] = labels.method.map({"none": "base", "random": "random"}).fillna(steered)
    results.append(answers.assign(prompts=name).merge(labels, left_on="run", right_index=True))
results = pd.concat(results, ignore_index=True)

# %%
by = ["method", "prompts", "condition", "coefficient"]
checks = results.groupby(by)[["ended", "no_loop", "known_words", "on_topic"]].mean().reset_index()
table = sp.rates(results, by).merge(checks, on=by)
order = [name for name, *_ in tested[:-2]]
table = table.sort_values("method", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)
unsteered = table[table.method == "none"].set_index("prompts")
# A share of hardly anything would say nothing.
table["clean_share_of_base"] = table.clean / table.prompts.map(unsteered.clean.where(unsteered.clean >= 0.1))
sp.save_table(preset, "table2_asr", table)
table.drop(columns=["clean_low", "clean_high"]).set_index(["prompts", "method"]).round(2)

# %%
fig, axes = plt.subplots(1, 2, figsize=(6.8, 2.3), sharey=True)
colours = {**sp.PALETTE, "none": sp.PALETTE["base"]}
for ax, (name, group) in zip(axes, table.groupby("prompts")):
    labels = group.method.replace({"none": "base", "dim": "DIM", "ntp": "NTP", "po": "PO", "pca": "PCA"})
    ax.bar(labels, group.asr, color=[colours[method] for method in group.method], width=0.65)
    interval = [group.asr - group.asr_low, group.asr_high - group.asr]
    ax.errorbar(labels, group.asr, yerr=interval, fmt="none", color="black", lw=1)
    ax.set(title=f"{name} prompts, {'−' if name == 'harmful' else '+'}|α|", ylim=(0, 1.03))
axes[0].set(ylabel="attack success rate")
sp.save_figure(fig, preset, "table2_asr")

# %%
labels = ["draw", "seed", "prompts", "coefficient"]
control = results[results.method == "random"].assign(draw=lambda runs: runs.run - runs.run.min())
control = sp.rates(control.assign(seed=seed + control.draw), labels)
control["asr_change"] = control.asr - control.prompts.map(unsteered.asr)
sp.save_table(preset, "random_control", control)
control.round(3)

# %%
row = table.set_index(["method", "prompts"])
broken = unsteered.clean[unsteered.clean < 0.1].index
shift = [row.asr["random", name] - row.asr["none", name] for name in ("harmful", "harmless")]
display(Markdown(
    f"**Reading.** Unsteered ASR is {row.asr['none', 'harmful']:.3f} on harmful and {row.asr['none', 'harmless']:.3f} "
    "on harmless prompts. Under −|α| on harmful and +|α| on harmless prompts: " + "; ".join(
        f"{name.upper()} {row.asr[name, 'harmful']:.3f} and {row.asr[name, 'harmless']:.3f} (clean text, as a share of "
        f"the unsteered model's, {row.clean_share_of_base[name, 'harmful']:.2f} and "
        f"{row.clean_share_of_base[name, 'harmless']:.2f})" for name in vectors) + "."
    + (f" (nan: of the unsteered texts on {' and '.join(broken)} prompts under 10 % are clean.)" if len(broken) else "")
))

# %%
most = control.loc[control.asr_change.abs().idxmax()]
far = (control.asr_change.abs() > 0.05 + 1e-9).sum()
display(Markdown(
    f"**Reading.** The {control.draw.nunique()} random vectors together change ASR by {shift[0]:+.3f} on harmful and "
    f"{shift[1]:+.3f} on harmless prompts. By itself, draw {most.draw} changes it most, by {most.asr_change:+.3f} on "
    f"{most.prompts} prompts; {far} of {len(control)} changes of single draws exceed 0.05."
))

# %% [markdown]
# The paper judges answers to harmful prompts with Llama Guard 2. Where that is the preset's judge, the refusal
# substrings read the same answers, and how far both agree says how much ASR owes to the choice of the judge.

# %%
harmful_answers = results[results.prompts == "harmful"]
by_substrings = sp.SubstringJudge().refused(harmful_answers.text.tolist())
both = sp.judge_agreement(harmful_answers.refused, by_substrings)
display(Markdown(f"**Reading.** Judge: {settings.judge}. " + (
    "So no second judge is there to compare with." if settings.judge == "substring" else
    f"It and the substrings agree on {both.share:.1%} of {both.n} answers to harmful prompts (Cohen's kappa "
    f"{both.kappa:.2f}): both call {both.both_refused} refusals, it alone {both.first_only}, the substrings alone "
    f"{both.second_only}."
)))

# %% [markdown]
# Which prompts resist DIM? A vector read off one kind of prompt may not act on another, and an average over kinds
# would hide it.

# %%
steered = results[results.method == "dim"]
by_kind = sp.rates(steered, ["prompts", "kind"])
sp.save_table(preset, "dim_asr_by_kind", by_kind)
by_kind.set_index(["prompts", "kind"]).round(2)

# %% [markdown]
# ## Do the vectors point the same way?
#
# > *In our words (§3.2).* The three vectors of a model have pairwise cosines of only 0.10 to 0.42.
#
# Low cosines with equal effect would mean that many directions do the same work. But a learned vector also depends on
# its seed, so the range over all seeds trained at the chosen setting stands beside each cosine, and on the diagonal the
# mean cosine between two seeds of one method: the ceiling that a comparison between methods could reach. Two random
# directions differ from a right angle by about `1/√d`.

# %%
groups = {name: torch.stack([*learned[name].by_seed.values()]) if name in learned else v[None]
          for name, v in [*vectors.items(), ("random", controls[0])]}
unit = {name: torch.nn.functional.normalize(group, dim=1) for name, group in groups.items()}
chosen_one = {name: torch.nn.functional.normalize(v, dim=0) for name, v in [*vectors.items(), ("random", controls[0])]}
rows = []
for a, b in itertools.combinations_with_replacement(groups, 2):
    between = (unit[a] @ unit[b].T).numpy()
    if a == b and len(between) > 1:
        between = between[~np.eye(len(between), dtype=bool)]
    rows.append((a, b, between.mean() if a == b else chosen_one[a] @ chosen_one[b], between.min(), between.max()))
angles = pd.DataFrame(rows, columns=["method_a", "method_b", "cosine", "low", "high"]).astype({"cosine": float})
sp.save_table(preset, "cosines", angles)

# %%
names, short = list(groups), {"dim": "DIM", "ntp": "NTP", "po": "PO", "pca": "PCA"}
square = angles.pivot(index="method_b", columns="method_a", values="cosine").loc[names, names]
text = angles.assign(text=[
    f"{x.cosine:.2f}" + ("" if x.high - x.low < 1e-6 else f"\n{x.low:.2f} to {x.high:.2f}") for x in angles.itertuples()
]).pivot(index="method_b", columns="method_a", values="text").loc[names, names].fillna("")
fig, ax = plt.subplots(figsize=(5.4, 3.2))
sns.heatmap(square.astype(float), annot=text, fmt="", vmin=-1, vmax=1, cmap="RdBu_r", ax=ax, annot_kws={"size": 7},
            cbar_kws={"label": "cosine"}, xticklabels=[short.get(name, name) for name in names],
            yticklabels=[short.get(name, name) for name in names])
ax.set(xlabel="", ylabel="")
ax.grid(False)
sp.save_figure(fig, preset, "cosines")

# %%
three = angles[angles.method_a.isin(short) & angles.method_b.isin(["ntp", "po"]) & (angles.method_a != "pca")]
between = three[three.method_a != three.method_b]
same = three[three.method_a == three.method_b].set_index("method_a").cosine
inside = "lies within" if between.cosine.between(0.10, 0.42).all() else "does not lie within"
display(Markdown(
    f"**Reading** (small: range over {len(learned['ntp'].by_seed)} seeds). "
    + ", ".join(f"{x.method_a.upper()} and {x.method_b.upper()} {x.cosine:.2f}" for x in between.itertuples())
    + f": this {inside} the paper's 0.10 to 0.42. Two seeds of NTP agree with a cosine of {same['ntp']:.2f}, two of PO "
    f"with {same['po']:.2f}; random directions in {model.d_model} dimensions would with about "
    f"±{model.d_model ** -0.5:.2f}. (Runs of one seed see the pairs in one order, which makes them more alike. And "
    f"here the residual stream is {model.d_model} wide, in the paper's models 2304 and 3072.)"
))

# %% [markdown]
# ## Answers side by side
#
# The first test prompts, as they come; nothing is picked. First DIM in both directions on prompts of both kinds. −s
# should turn refusals into answers and leave answers alone, +s the other way round.

# %%
both_ways = {"base": None, "−s": sp.Steering(vector, layer, -coefficient), "+s": dim}
few = pd.concat({name: table["test"].head(2) for name, table in (("harmful", harmful), ("harmless", harmless))},
                names=["prompts"]).reset_index("prompts").reset_index(drop=True)
answers = sp.judged_responses(model, few, list(both_ways.values()), **how)
dim_examples = few[["prompts", "prompt"]].assign(**{
    name: answers[answers.run == run].text.to_list() for run, name in enumerate(both_ways)})
sp.save_table(preset, "dim_examples", dim_examples)
with pd.option_context("display.max_colwidth", None):
    display(dim_examples.set_index(["prompts", "prompt"]))

# %% [markdown]
# Then the methods beside each other: unsteered, and under each of the three vectors, −|α| on harmful and +|α| on
# harmless prompts.

# %%
compared = ["none", "dim", "ntp", "po"]
shown = results[results.method.isin(compared)].groupby(["prompts", "method"]).head(4)
examples = shown.pivot(index=["prompts", "prompt"], columns="method", values="text")[compared]
examples = examples.loc[shown[["prompts", "prompt"]].drop_duplicates().itertuples(index=False, name=None)]
sp.save_table(preset, "examples", examples.reset_index())
with pd.option_context("display.max_colwidth", None):
    display(examples)

# %% [markdown]
# ## Beside the paper
#
# Table 2 of the paper, ASR under each method, and its cosines. Its harmless prompts are Alpaca's, its harmful ones
# JailbreakBench's, its judge of harmful prompts a language model. An organism's column is another model, other prompts
# and another judge: there the comparison is of the phenomenon, not of the number.

# %%
reported = pd.read_csv(paths.DATA / "paper" / "table2_asr.csv")
reported = reported.rename(columns={"alpaca_asr": "harmless", "jailbreakbench_asr": "harmful"})
reported = reported.set_index(["model", "method"])[["harmful", "harmless"]]
ours = table[table.method.isin(compared)].pivot(index="method", columns="prompts", values="asr").loc[compared]
measured = pd.concat({preset: ours}, names=["model"])
pd.concat({"reported": reported, "measured here": measured}, names=["source"]).round(3)

# %%
ranges = pd.DataFrame([
    ("reported, both models", 0.10, 0.42), (f"measured here, {preset}", between.cosine.min(), between.cosine.max()),
], columns=["cosines of DIM, NTP, PO", "smallest", "largest"])
spread = {name: reported[name].drop("none", level="method").groupby("model").agg(np.ptp).max() for name in reported}
own = ours.drop("none").max() - ours.drop("none").min()
ranges.round(2)

# %%
display(Markdown(
    "**Reading.** In the paper the three methods lie at most "
    f"{100 * spread['harmful']:.0f} points apart on harmful and {100 * spread['harmless']:.0f} on harmless prompts; "
    f"here {100 * own['harmful']:.1f} and {100 * own['harmless']:.1f}. That different ways of learning steer about "
    f"equally well {'holds' if own.max() <= 0.1 else 'does not hold'} here (within 10 points); that their vectors "
    f"have little in common (cosines of at most 0.42) {'holds' if between.cosine.max() <= 0.42 else 'does not'}."
))
