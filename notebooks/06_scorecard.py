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
# > *The paper's sum, in our words (abstract).* Steering vectors of different methods
# > work through one small circuit, through the values that attention moves and not
# > through where it looks, and few of their dimensions suffice.
#
# How much of that can be seen on this model? This notebook runs no model. It holds the
# tables of notebooks 01 to 05 against every claim of the paper by rules that anyone can
# read, and puts every number that the paper reports beside ours. (What the paper's own
# numbers give when they are added up again stands in [possible
# errata](../docs/possible-errata.md).)
#
# *Reads* the tables of notebooks [01](01_extract_vectors.ipynb),
# [02](02_patching_circuits.ipynb), [03](03_qk_freeze.ipynb),
# [04](04_ov_decomposition.ipynb) and [05](05_sparsification.ipynb), and `data/paper`:
# the reported numbers and [claims.toml](../data/paper/claims.toml), the claims in our
# words with their rules. *Writes* `scorecard_claims`, `scorecard_cases`,
# `scorecard_numbers` and two figures. [RESULTS.md](../RESULTS.md) shows these tables for
# all models side by side; the code is in [claims.py](../steerpaper/paper/claims.py) and
# [beside.py](../steerpaper/paper/beside.py).

# %% tags=["parameters"]
preset = "organism-llama"

# %%
import pandas as pd
from IPython.display import display

import steerpaper as sp

sp.check_parameters(preset=preset)
sp.use_style()
pd.set_option("display.max_colwidth", None, "display.max_rows", None)

# %% [markdown]
# ## Claims
#
# A claim is one or more *checks*, and a check holds every *case* (a method, a set of
# prompts, a pair of circuits) against one rule. A claim **holds** if every case meets
# its rule and **does not hold** if none does. It **mostly holds** if at least 80 % of
# the cases do and **mostly fails** if at most 20 % do, unless one check by itself says
# the opposite; everything between **holds in part**. The value decides, not its
# interval; *close* counts the cases whose 95 % interval reaches over the limit.
# Quantities without an interval are never counted as close, however near the limit they
# lie.
#
# The numbers of a claim are only as good as what it is compared with. So some checks
# are ours: the circuit of one token beside that of whole answers, a random vector's
# circuit beside the methods', the share of an edge type beside its share of all edges,
# learned vectors beside the difference in means, vectors that are not rescaled, and
# sparse ones with other values in their dimensions.
#
# Limits come from the paper's own numbers: the least favourable one that it prints for
# that quantity, rounded to the digits printed, or the sentence's own number where it
# states one. Where the paper says "about", the claim's `limits` in `claims.toml` tell
# the slack; where it prints no number, that the limit is ours.

# %%
card, cases = sp.paper.scorecard(preset)
sp.save_table(preset, "scorecard_claims", card)
sp.save_table(preset, "scorecard_cases", cases)
card[["title", "locator", "rule"]]

# %% [markdown]
# One rule by hand, so that it is clear what a verdict is made of. "Hardly through QK" is
# about DIM's ASR in notebook 03: how far it moves when queries and keys are frozen, on
# average over harmful and harmless prompts, as a share of how far steering moves it. The
# limit is the larger of the paper's two models.

# %%
asr = sp.load_table(preset, "table1_ablations").pivot(
    index="prompts", columns=["method", "frozen"], values="asr")
steered, unsteered, frozen = asr["dim", "none"], asr["none", "none"], asr["dim", "qk"]
share = (frozen - steered).abs().mean() / (steered - unsteered).abs().mean()
case = cases[(cases.claim == "ov-not-qk") & cases.quantity.str.contains("QK")].iloc[0]
print("the scorecard's value, within 0.0001:", abs(share - case.value) < 1e-4)
cases.loc[[case.name], ["quantity", "rule", "value", "met"]].round(3)

# %% [markdown]
# **What the columns mean.** The left one is this model, measured. The other two are the
# paper's models, *as reported*: the same rules put to the numbers that the paper prints.
# As most limits are these very numbers, "holds" is what to expect there and confirms
# nothing but our reading; *not printed* (blue) means that there is no number to which a
# rule could be applied. Had this model worked as the paper's do, its column would be as
# green as theirs. Green or not, an organism's column tells whether a phenomenon occurs
# in a small transformer. It is no evidence about Gemma or Llama.

# %%
fig = sp.figures.draw_scorecard(card, preset, sp.paper.VERDICTS)
sp.save_figure(fig, preset, "scorecard")

# %% [markdown]
# The values behind the verdicts, with the weakest case of every check. Every single case
# stands in `scorecard_cases`.

# %%
card[["title", "verdict", "met", "cases", "close", "measured"]]

# %% [markdown]
# **Reading.** On both organisms steering works and DIM passes through OV and hardly
# through QK; NTP on organism-gemma2 passes through neither. Circuits are interchangeable,
# but a random vector's carries more than half of what another method's does, and one
# token's circuit carries nearly what whole answers' does. Sparsity is a matter of
# rescaling: without it no method comes near, and signs do as well as values. Of the finer
# claims few hold.
#
# *Qwen2.5-Coder-0.5B, a real model, [on its own page](qwen2.5-coder-0.5b-instruct/06_scorecard.ipynb).*
# Small circuits hold here as on the organisms; that random edges carry nothing, that whole answers find the
# better circuit, and that few dimensions suffice hold better than there. (Random edges of the same kinds as
# the circuit's carry half of what it does, and more, on all three models.) The way through attention does
# not, where answers are counted: on average over both sets freezing the values undoes a third of DIM's
# steering, the attention weights a quarter, both mostly on harmless prompts, and what the MLPs read of it
# most. Of NTP's no part alone undoes more than 0.28, of PO's next to nothing does anything. In logits the
# values undo 0.37 to 0.60 of every vector's: NTP's and PO's pushes are longer than answers can show. And
# the controls are no zero: a random vector moves ASR, and its circuit carries 73 to 103 % of what a
# method's own does.
#
# ## Beside the paper
#
# Every number and word of `data/paper/*.csv` with its counterpart, where there is one:
# the same method, frozen part, circuit or sparsifier, and for tables 10 and 11 the
# nearest sparsity. Counterparts are measured on another model, on other prompts and
# with another judge. So how near an organism's number comes to Gemma's or Llama's is a
# picture of how alike they behave, and we count no agreement: with presets of these
# very models, it would be a replication.

# %%
numbers = sp.paper.reported_numbers(preset)
sp.save_table(preset, "scorecard_numbers", numbers)
found = numbers.measured != ""
overview = numbers.assign(found=found).groupby("source", sort=False)
display(overview.agg(locator=("locator", "first"), numbers=("reported", "size"),
                     with_counterpart=("found", "sum")))
without = numbers[~found].groupby(["source", "note"], sort=False).size()
without.rename("numbers without").reset_index()

# %% [markdown]
# All attack success rates at once. Left and middle the paper's across and ours upwards,
# with 95 % intervals (Wilson); on the diagonal the two are alike, and a point in the
# upper left or lower right corner is a case where steering works on one and fails on
# the other. Tables 10 and 11 have too many numbers for that: on the right a dot is the
# median of measured minus reported, its bars hold the middle half and 90 % of all
# methods, models and thresholds.

# %%
fig = sp.figures.draw_reported_measured(numbers, preset)
sp.save_figure(fig, preset, "reported_measured")

# %%
rates = numbers[found & numbers.quantity.str.endswith(": asr")]
rates = rates.astype({"reported": float, "measured": float})
apart = (rates.measured - rates.reported).rename("measured - reported")
by_table = apart.abs().groupby(rates.source, sort=False)
display(by_table.agg(["mean", "median"]).round(2))
rates.loc[by_table.idxmax(), ["locator", "model", "quantity", "reported", "measured"]]

# %% [markdown]
# **Reading.** Plain and steered rates (table 2) lie together at both ends, as they would wherever steering works.
# Frozen parts (table 1) lie further apart, and so do sparse vectors, in single cases nearly from end to end: there a
# curve falls from one end to the other, and an organism's falls earlier or later than the paper's models' does.
#
# *Qwen.* It answers half of the harmful prompts unsteered, so that these lie apart from the
# paper's already in table 2. Fewer points can be lost, too, which is why claims on freezes
# go by shares of the steering: freezing the values undoes 0.35 of DIM's, where the paper's
# models have 0.73 and 0.87. The gap is on harmful prompts; on harmless ones Qwen's half is
# near Gemma's 0.58.
#
# ## What we learned
#
# On the models on record, by the recorded scorecards below (cases that meet their rule,
# of all): *what carries over to all three is the size of things.* Vectors by three
# methods steer, 6 to 16 % of the edges carry it, the complement nothing (random edges
# of the same kinds 0.51 to 0.73 of it), and at least four in five dimensions can go, if
# the rest is rescaled ([notebook 05](05_sparsification.ipynb)); on the real model even
# if not. *By which way it goes is more alike in logits than in answers*, if not as
# clear as in the paper. In logits freezing the values undoes about half of it on every
# model (a quarter of NTP's on organism-gemma2), the attention weights at most 0.22, and
# the MLPs' direct path 0.28 to 0.50 ([notebook 03](03_qk_freeze.ipynb)). Answers turn
# that into most of it on the organisms (NTP on organism-gemma2 aside), as in the paper,
# and into 0.35 or less on the real model, where NTP's and PO's pushes are longer than
# it takes. *What is shared is less than reported*: circuits of different methods share
# fewer edges, and a random vector's circuit carries more than half of what another
# method's does, on every model: interchange alone says little. *The fine story* mostly
# does not carry over as it is: svv name refusal in their sum on all three (NTP's on
# organism-gemma2 aside), in most of the strongest heads on organism-gemma2, and in
# hardly any on the other two; which sparsifier is better hangs on details. Two claims
# hold or mostly hold on all three, that few edges carry the steering and that methods
# agree on dimensions: those to try first on another model (with some other [training
# seeds](../docs/seeds.md) of the organisms only in part).

# %%
cards = sp.load_recorded("scorecard_claims")
on_record = cards.preset.unique()
cards["number"] = cards.groupby("preset").cumcount() + 1
rank = cards.verdict.map(list(sp.paper.VERDICTS).index)
cards["rank"] = rank.groupby(cards.claim).transform("sum")
counts = cards.met.astype(str) + "/" + cards.cases.astype(str)
cards["verdict"] += " (" + counts + ")"
cards.pivot(index=["rank", "number", "title"], columns="preset", values="verdict"
            ).droplevel("rank").loc[:, on_record]
