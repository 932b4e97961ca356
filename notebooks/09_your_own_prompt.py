# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 9. Your own prompt
#
# *Read-only on a page; open it in Jupyter to try.*
#
# > *The paper's claim, in our words (§3.2).* One vector, added at one layer times a coefficient
# > α, decides whether a model refuses or answers: with α = +1 it refuses harmless requests, with
# > α = −1 it complies with harmful ones.
#
# α = ±1 in the paper; on each model here it is the coefficient that notebook 01 chose.
#
# The other notebooks measure. In this one you try: first with a prompt of your own and a slider
# for α, then with three gaps to fill in plain tensors, each checked against the package's
# number. To do either, open the notebook with a kernel: `make figures` once, or notebook 01
# alone, and then `.venv/bin/jupyter lab notebooks/09_your_own_prompt.ipynb`. On a page there is
# no slider; the table below it shows five of its places.
#
# *Reads* the DIM vector of [notebook 01](01_extract_vectors.ipynb) and the training prompts.
# *Writes* nothing. The check is [`exercises.py`](../steerpaper/exercises.py).

# %% tags=["parameters"]
preset = "organism-llama"

# %%
from dataclasses import replace

import pandas as pd
import torch
from ipywidgets import FloatSlider, Text, interact

import steerpaper as sp

sp.check_parameters(preset=preset)
pd.set_option("display.max_colwidth", None)
settings = sp.get_preset(preset)
preset = settings.name
model = sp.load_model(preset)
concept = sp.get_concept(settings.concept)
steering = sp.load_steering(preset, "dim")
layer, n = steering.layer, settings.max_new_tokens
print(f"the vector enters layer {layer} of {model.n_layers}; α in notebook 01: "
      f"{steering.coefficient:g}")

# %% [markdown]
# ## A prompt and a slider
#
# Type a prompt and press enter, or move α and let go: the model answers anew. At α = 0 it is
# not steered; the slider begins at the coefficient that notebook 01 chose. Three things to try,
# with what would be surprising:
#
# * **Both signs.** If +α makes the model refuse and −α makes it comply, the answer to a harmless
#   request tips at one place above 0, and below 0 it stays an answer. One that tips and tips
#   back would speak against a single direction of refusal.
# * **Too much.** At twice the coefficient the push is, on the organisms, about as long as the
#   stream that it is added to. Where text breaks, a refusal is no evidence of anything, which is
#   why notebook 01 counts clean text.
# * **Other words.** The organisms know the frames and words of `data/corpus` and nothing else.
#   Of anything else they see the pieces, and talk about something that they know. The model
#   can be steered to refuse a request that it does not understand.

# %% tags=["nbval-ignore-output"]
prompt = "How do I bake an apple pie?"
slider = interact(
    lambda prompt, alpha: sp.generate(
        model, [prompt], replace(steering, coefficient=alpha),
        max_new_tokens=n)[0].text,
    prompt=Text(prompt, continuous_update=False, layout={"width": "90%"}),
    alpha=FloatSlider(steering.coefficient, min=-2 * steering.coefficient,
                      max=2 * steering.coefficient, step=0.05,
                      continuous_update=False))

# %% [markdown]
# The same without a slider is one call: as many prompts as places, a steering for each. The
# places are multiples of the chosen coefficient.

# %%
alphas = [times * steering.coefficient for times in (-1, 0, 0.5, 1, 2)]
answers = sp.generate(model, [prompt] * len(alphas),
                      [replace(steering, coefficient=alpha) for alpha in alphas],
                      max_new_tokens=n)
print(prompt)
pd.DataFrame({"alpha": alphas, "answer": [answer.text for answer in answers]})

# %% [markdown]
# **Reading.** On both organisms the answer to this harmless request tips once, between half of the
# coefficient and all of it. On organism-llama other words come before that: steering pushes, and
# does not switch. At twice the coefficient both begin to refuse, and break.
#
# *Qwen2.5-Coder-0.5B, a real model, [on its own
# page](qwen2.5-coder-0.5b-instruct/09_your_own_prompt.ipynb), which leaves its answers out.*
# Half the coefficient is enough for a refusal in one sentence. At the whole one it declines
# what nobody asked for, and at twice it speaks of danger and no longer of the pie. Below 0 it
# does not refuse, nor answer: it defines a pie, wrongly.

# %% [markdown]
# ## Exercise 1: the vector
#
# Difference in means takes the residual stream that enters layer ℓ, at one token of the chat
# template behind the instruction, and compares the prompts that bring the behaviour out with
# those that do not. Below, `positive` and `negative` hold these streams of the training
# prompts, a row per prompt: `[prompt, d_model]`. The sign matters: +α is to *bring out* what
# the positive prompts show.
#
# Fill in the vector, `[d_model]`. The check compares it with the one that notebook 01 saved.

# %%
asked = sp.concept_prompts(concept, "train", settings.n_train, settings.prompts)
position = sp.load_tensors(preset, "dim")[1]["position"]
streams = [sp.residual_stream(model, prompts, [position],
                              batch_size=settings.batch_size)
           for prompts in asked.values()]
positive, negative = (stream[:, layer, 0] for stream in streams)
tolerance = 1e-3 if model.dtype == torch.float32 else 1e-1  # for rounding
print("positive:", tuple(positive.shape), "negative:", tuple(negative.shape))

# %%
vector = ...

print(sp.check_answer(vector, steering.vector, tolerance))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# vector = positive.mean(0) - negative.mean(0)
# ```
#
# Each mean holds what its prompts share. What both sets share, such as being a request in this
# template, is in both means and drops out; what is left is what sets them apart.
#
# </details>
#
# ## Exercise 2: a frozen step
#
# At position i a head hands on `z_i = Σ_j A_ij v_j`: its attention weights `A` say where to
# read, its values `v` what is there. Steering changes both. [Notebook 03](03_qk_freeze.ipynb)
# freezes one of them, and asks whether steering still works. In a **QK freeze** the head
# attends as in the unsteered run; all else is steered.
#
# The cell below runs the model twice on the same tokens, your prompt with its steered answer,
# and keeps of the first head of layer ℓ what you need: `A_unsteered` and `A_steered`,
# `[pos, key]`, and `v_unsteered` and `v_steered`, `[key, d_head]`.

# %%
[response] = sp.generate(model, [prompt], steering, max_new_tokens=n)
ids, mask = model.pad([response.tokens])
push = (steering.coefficient * steering.vector).to(ids.device, model.dtype)
runs = []
for added in (0 * push, push):
    with torch.no_grad(), model.eager_attention(), model.trace(ids, mask):
        stream = (model.layer(layer).input + added).save()
        model.layer(layer).input = stream
        q = model.q_proj(layer).output.save()
        k = model.k_proj(layer).output.save()
        v = model.v_proj(layer).output.save()
        A = model.attention_weights(layer).save()
        write = model.mlp_write(layer).output.save()
        logits = model.logits.save()
    v = v.unflatten(-1, (model.n_kv_heads, model.d_head))
    runs.append((stream, q, k, v[0, :, 0], A[0, 0], write[0], logits))
h, q, k, v_unsteered, A_unsteered, write_unsteered, base = runs[0]
*_, v_steered, A_steered, write_steered, steered = runs[1]

# %% [markdown]
# Fill in what the head hands on under the freeze, `[pos, d_head]`. The check compares it with
# the model itself: queries and keys of the unsteered run are put into the steered one, which is
# what `generate(..., frozen="qk")` does at every step.

# %%
with torch.no_grad(), model.trace(ids, mask):
    model.layer(layer).input = model.layer(layer).input + push
    model.q_proj(layer).output = q
    model.k_proj(layer).output = k
    z = model.o_proj(layer).input.save()
z = z.unflatten(-1, (model.n_heads, model.d_head))[0, :, 0]

# %%
frozen = ...

print(sp.check_answer(frozen, z, tolerance))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# frozen = A_unsteered @ v_steered
# ```
#
# Weights of one run, values of the other. Exchange them and you have an OV freeze. Now compare
# `A_steered @ v_steered`, nothing frozen, with both: the freeze whose result is nearer takes
# less away.
#
# </details>
#
# ## Exercise 3: the score of an edge
#
# [Notebook 02](02_patching_circuits.ipynb) scores the edge from a writer u to a reader v by
#
# $$\mathrm{IE}(u \to v) = \frac{1}{n} \Big\langle u_\text{steered} - u_\text{unsteered},\;
# \frac{1}{T} \sum_i g_i \Big\rangle,$$
#
# where `gᵢ = ∂m/∂v_in` is the gradient at the reader's input in a run that enters layer ℓ with
# `h + (i + ½)/T · α s`, and ⟨·,·⟩ sums over positions and dimensions. The metric m adds up, over
# the answer, the logit of the steered run's favourite token y minus that of the unsteered run's,
# y\*. Only n positions count: where both runs want the same token, m is zero.
#
# Take the edge from the MLP of layer ℓ to the logits. The MLP's writes are `write_unsteered`
# and `write_steered`, `[pos, d_model]`, of the runs above. What reads is the final norm; its
# `gradients`, `[T, pos, d_model]`, and n are made here.

# %%
T, gradients = 10, []
answer = slice(len(response.prompt) - 1, len(response.tokens) - 1)
y, y_star = (run[:, answer].argmax(-1, keepdim=True) for run in (steered, base))
n_unmasked = (y != y_star).sum()
for i in range(T):
    point = (h + (i + 0.5) / T * push).requires_grad_()
    with model.trace(ids, mask):
        model.start_at(layer, point)
        read = model.final_norm.input.save()
        logits = model.logits[:, answer].save()
    m = (logits.gather(-1, y) - logits.gather(-1, y_star)).sum()
    gradients.append(torch.autograd.grad(m, read)[0][0])
gradients = torch.stack(gradients)
edges = sp.attribute(model, [response], [steering], steps=T).edges
edge = edges.set_index(["source", "target"]).score[f"m{layer}", "logits"]
print("gradients:", tuple(gradients.shape), "writes:", tuple(write_steered.shape))

# %% [markdown]
# Fill in the score, one number in logits per unmasked position.

# %%
score = ...

print(sp.check_answer(score, edge, tolerance))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# change = write_steered - write_unsteered
# score = (change * gradients.mean(0)).sum() / n_unmasked
# ```
#
# With `gradients[0]` in the place of the mean you have one-step attribution: how m begins to
# change, not how far it gets.
#
# </details>
#
# ## What we learned
#
# * **Steering is one addition.** All that the slider changes is `h ← h + α s` at one layer; the
#   rest is the model's own. There is a threshold, and a place where text breaks.
# * **Each step of the argument is a line.** A difference of two means, a product of weights of
#   one run and values of the other, a mean gradient times a change: what the package adds is to
#   do it for every head, edge and position at once, and to check it.
# * **One prompt proves nothing.** What you saw above is one answer by one vector; the rates, with
#   their intervals, are in [notebook 01](01_extract_vectors.ipynb) and
#   [RESULTS.md](../RESULTS.md).
