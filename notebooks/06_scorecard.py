# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6. Scorecard
#
# What of the paper can be seen on this model? This notebook runs no model. It holds the tables of notebooks 01 to 05
# against every claim of the paper by a rule that stands in `data/paper/claims.toml` and takes its limits from the
# paper's own numbers, puts every number that the paper reports beside ours, and does the paper's own arithmetic again.
#
# *Reads* the tables of notebooks 01 to 05 and `data/paper`: the reported numbers and `claims.toml`, the claims in our
# words with their rules. *Writes* `scorecard_claims`, `scorecard_cases`, `scorecard_numbers`, `paper_arithmetic` and
# the figures `scorecard` and `reported_measured`. `RESULTS.md` in the repository's root shows these tables for all
# models side by side.

# %% tags=["parameters"]
preset = "organism-llama"

# %%
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display

import steerpaper as sp

sp.check_parameters(preset=preset)
sp.use_style()

# %% [markdown]
# ## Claims
#
# A claim is one or more *checks*, and a check holds every *case* (a method, a set of prompts, a pair of circuits)
# against one rule. A claim **holds** if every case meets its rule, **holds in part** if some do, and **does not hold**
# if none does. The value decides, not its interval; *close* counts the cases whose 95 % interval reaches over the
# limit. Quantities without an interval are never counted as close, however near the limit they lie.
#
# Limits come from the paper's own numbers: the least favourable one that it prints for that quantity, rounded to the
# digits printed, or the sentence's own number where it states one. Where the paper says "about", the claim's `limits`
# in `claims.toml` tell the slack; where it prints no number, that the limit is ours.
#
# The same rules are applied to the paper's own numbers, where it prints any; otherwise its verdict reads *stated*.

# %%
card, cases = sp.scorecard(preset)
sp.save_table(preset, "scorecard_claims", card)
sp.save_table(preset, "scorecard_cases", cases)
with pd.option_context("display.max_colwidth", None):
    display(card[["title", "locator", "rule"]])

# %% [markdown]
# If this model worked as the paper's do, the right column would be green wherever the other two are green, and also
# where they are blue: there the paper states the claim and prints no number to which a rule could be applied.

# %%
models = ["gemma-2-2b-it", "llama-3.2-3b-instruct"]
columns = {f"{model},\nas reported": f"{model} verdict" for model in models} | {f"{preset},\nmeasured": "verdict"}
numbered = (card.index + 1).astype(str) + ". " + card.title
verdicts = card.set_index(numbered)[list(columns.values())].set_axis(list(columns), axis=1)
words = verdicts.copy()
words.iloc[:, 2] += [f" ({row.met}/{row.cases})" for row in card.itertuples()]
codes = verdicts.map(list(sp.VERDICTS).index)

# %%
fig, ax = plt.subplots(figsize=(6.8, 0.5 + 0.2 * len(card)))
sns.heatmap(codes, annot=words, fmt="", cmap=list(sp.VERDICTS.values()), vmin=0, vmax=len(sp.VERDICTS) - 1,
            cbar=False, linewidths=2, annot_kws={"size": 7}, ax=ax)
ax.set(xlabel="", ylabel="")
ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
sp.save_figure(fig, preset, "scorecard")

# %%
titles = card.groupby("verdict").title.agg("; ".join)
count = card.verdict.value_counts()
own_rule = card.title[verdicts.iloc[:, :2].isin(["holds in part", "does not hold"]).any(axis=1).to_numpy()]
display(Markdown(
    f"**Reading** (in brackets: cases that meet their rule, of all). Verdicts on the {len(card)} claims for {preset}: "
    + ", ".join(f"{count[name]} × {name}" for name in sp.VERDICTS if name in count) + "."
    + "".join(f" *{name.capitalize()}:* {titles[name]}." for name in ("does not hold", "holds in part", "no case")
              if name in titles)
    + f" By the same rules the paper's own numbers bear out all claims that they let one check but {len(own_rule)}"
    + (f": {'; '.join(own_rule)}." if len(own_rule) else ".")
))

# %% [markdown]
# The values behind the verdicts. Every single case stands in `scorecard_cases`.

# %%
with pd.option_context("display.max_colwidth", None):
    display(card[["title", "verdict", "met", "cases", "close", "measured"]])

# %% [markdown]
# ## The paper's own arithmetic
#
# Averages, sums, shares and counts that can be computed from the printed numbers, or from the definition of the graph
# (§4), each with its *computation*. Points 1 to 9 are places where the paper is unclear or disagrees with itself; the
# others should all agree. What the text leaves open is answered from the authors' code where that does. Shown is what
# does not agree; the rest stands in `paper_arithmetic`.

# %%
arithmetic = sp.paper_arithmetic()
sp.save_table(preset, "paper_arithmetic", arithmetic)
with pd.option_context("display.max_colwidth", None, "display.max_rows", None):
    display(arithmetic[arithmetic.agrees != "yes"].drop(columns="agrees"))

# %%
known = arithmetic.point != ""
outcome = pd.crosstab(known.map({True: "points 1 to 9", False: "others"}), arithmetic.agrees)
outside = arithmetic.quantity[~known & (arithmetic.agrees == "no")]
display(outcome, Markdown(
    f"**Reading.** {(arithmetic.agrees == 'yes').sum()} of {len(arithmetic)} recomputed quantities agree with what is "
    f"printed, {(arithmetic.agrees == 'no').sum()} do not, and {(arithmetic.agrees == 'not computable').sum()} are "
    "matters of the text alone. " + (f"Outside the nine points: {'; '.join(outside)}." if len(outside) else
                                     "Outside the nine points nothing disagrees.")
))

# %% [markdown]
# ## Beside the paper
#
# Every number and word of `data/paper/*.csv` with its counterpart, where there is one: the same method, frozen part,
# circuit or sparsifier, and for tables 10 and 11 the nearest sparsity. Counterparts are measured on another model, on
# other prompts and with another judge.
#
# Where ours has a 95 % interval, a reported number *agrees* if it lies in it and *differs* if not. The interval tells
# what our choice of prompts may have done, nothing else, and a wide one, from few prompts, agrees easily.

# %%
numbers = sp.reported_numbers(sp.our_table(preset))
sp.save_table(preset, "scorecard_numbers", numbers)
found = numbers.assign(counterpart=numbers.measured != "")
overview = found.groupby("source", sort=False).agg(
    locator=("locator", "first"), numbers=("reported", "size"), with_counterpart=("counterpart", "sum"))
display(overview, sp.verdict_counts(numbers))

# %% [markdown]
# Why the others have none:

# %%
without = found[~found.counterpart].groupby(["source", "note"], sort=False).size().rename("numbers").reset_index()
with pd.option_context("display.max_colwidth", None):
    display(without)

# %% [markdown]
# All attack success rates at once, the paper's across and ours upwards, with 95 % intervals. On the diagonal the two
# agree; a point in the upper left or lower right corner is a case where steering, frozen or sparsified, works on one
# and fails on the other.

# %%
rates = found[found.counterpart & found.quantity.str.endswith(": asr")]
rates = rates.astype({name: float for name in ("reported", "measured", "low", "high")})
rates["prompts"] = rates.quantity.str.contains("alpaca").map({True: "harmless", False: "harmful"})
panels = {"table1_ablations": "table 1", "table2_asr": "table 2", "table10_11_sparsity": "tables 10 and 11"}

# %%
fig, axes = plt.subplots(1, 3, figsize=(6.8, 2.5), sharex=True, sharey=True)
for (source, title), ax in zip(panels.items(), axes):
    for (model, prompts), group in rates[rates.source == source].groupby(["model", "prompts"]):
        looks = dict(fmt="o" if model.startswith("gemma") else "^", color=sp.PALETTE[prompts], ms=3, lw=0.6, alpha=0.6)
        errors = [group.measured - group.low, group.high - group.measured]
        ax.errorbar(group.reported, group.measured, errors, label=f"{model}, {prompts}", **looks)
    ax.axline((0, 0), slope=1, color=sp.PALETTE["random"], lw=1)
    ax.set(title=title, xlabel="ASR, as reported", xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
axes[0].set(ylabel=f"ASR measured\non {preset}")
fig.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
sp.save_figure(fig, preset, "reported_measured")

# %%
rates["gap"] = rates.measured - rates.reported
apart = rates.groupby("source", sort=False).gap.agg(lambda gap: gap.abs().mean())
widest = rates.loc[rates.gap.abs().idxmax()]
display(Markdown(
    "**Reading.** Mean distance between measured and reported ASR: " + ", ".join(
        f"{gap:.2f} ({panels[source]})" for source, gap in apart.items())
    + f". Farthest apart is *{widest.quantity.removesuffix(': asr')}* ({widest.source}, {widest.model}): reported "
    f"{widest.reported:.2f}, measured {widest.measured:.2f}. Of {len(rates)} reported rates "
    f"{(rates.verdict == 'agrees').sum()} lie in our intervals, on average {(rates.high - rates.low).mean():.2f} wide."
))
