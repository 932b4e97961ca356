"""The logit lens (§6, figures 5 and 12): which tokens a vector of the residual stream stands for, and a measure of
what they are about that needs no reader."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerpaper import arguments
from steerpaper.circuits.flipped import FlippedResponses
from steerpaper.concepts import REFUSAL, Concept
from steerpaper.models.maps import rms
from steerpaper.models.model import Model
from steerpaper.prompts import corpus
from steerpaper.prompts.sets import load_prompts


def lens_logits(model: Model, vectors: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows vocab"]:
    """Vectors through the final norm and the unembedding, without soft-cap, float32 on the CPU.

    The norm's epsilon is left out, so that a vector's length does not matter.

    Raises:
        ValueError: vectors of another width, or whose square in float32 is zero or not finite.
    """
    vectors = arguments.real("vectors", vectors).detach().float().cpu()
    scale = rms(vectors, 0.0)
    if vectors.shape[-1:] != (model.d_model,) or not (scale.isfinite() & (scale > 0)).all():
        raise ValueError(f"vectors of shape {tuple(vectors.shape)} were given; the lens needs ones of width "
                         f"{model.d_model}, none of them zero or with values that are not finite (or so small or large "
                         "that their squares are)")
    return ((vectors / scale).to(model.device) * model.final_gamma.float() @ model.W_U.float()).cpu()


def logit_lens(model: Model, vectors: Mapping[str, Float[Tensor, "d_model"]], k: int = 20) -> pd.DataFrame:
    """The `k` tokens of largest logit under `lens_logits` of every vector.

    To read a head of negative node IE as the paper does, pass its vector with the sign flipped.

    Returns:
        Columns vector (its name), rank_shown (1 the largest), token (decoded), id, logit.

    Raises:
        ValueError: no vectors, ones without names or that `lens_logits` refuses, or k outside 1..n_vocab.
    """
    if not isinstance(vectors, Mapping):
        raise ValueError(f"vectors must be a mapping from names to vectors, {arguments.shown(vectors)} was given: pass "
                         "{'a name': vector}, or read the logits by lens_logits")
    if not vectors or arguments.whole(k) not in range(1, model.n_vocab + 1):
        raise ValueError(f"{len(vectors)} vectors and k = {k!r} were given: pass at least one vector, and k from 1 to "
                         f"{model.n_vocab}")
    stacked = torch.stack([arguments.real(f"vector {name!r}", vector).cpu() for name, vector in vectors.items()])
    best = lens_logits(model, stacked).topk(k)
    rows = [(name, rank, model.tokenizer.decode([token]), token, logit)
            for name, ids, logits in zip(vectors, best.indices.tolist(), best.values.tolist())
            for rank, (token, logit) in enumerate(zip(ids, logits), start=1)]
    return pd.DataFrame(rows, columns=["vector", "rank_shown", "token", "id", "logit"])


def token_counts(model: Model, texts: Sequence[str]) -> Int[Tensor, "vocab"]:
    """How often every token of the vocabulary stands in some texts. Raises ValueError for what is none."""
    texts = arguments.listed("texts", texts)
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise ValueError(f"texts must be strings, {arguments.shown(wrong[0])} is none")
    ids = model.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return torch.bincount(torch.tensor([token for row in ids for token in row], dtype=int), minlength=model.n_vocab)


def typical_tokens(model: Model, texts: Sequence[str], others: Sequence[str]) -> Int[Tensor, "vocab"]:
    """Per token 1 if it is at least twice as common in `texts` as in `others`, -1 if half as common or less, else 0.

    Compared are shares of all tokens, after five counts are added on both sides: rare and unseen tokens get 0.

    Raises:
        ValueError: no texts on one side, or no typical token of one side.
    """
    sides = [arguments.listed("texts", side) for side in (texts, others)]
    if not all(sides):
        raise ValueError(f"{len(sides[0])} and {len(sides[1])} texts were given: pass some of both kinds")
    rates = [(counts + 5) / counts.sum() for counts in (token_counts(model, side) for side in sides)]
    ratio = rates[0] / rates[1]
    typical = (ratio >= 2).int() - (ratio <= 0.5).int()
    if not {1, -1} <= set(typical.tolist()):
        raise ValueError("one side has no token at least twice as common as on the other: pass more, or more "
                         "different, texts")
    return typical


def text_kinds(concept: Concept) -> dict[str, str]:
    """What four kinds of texts are called, and a word typical of each: answers that express a concept, other answers,
    its positive and its negative prompts."""
    if concept == REFUSAL:
        return {"refusals": "refusal", "answers": "answer", "harmful": "harm", "harmless": "harmless"}
    answers, prompts = (concept.expresses, concept.withholds), concept.sets
    return {name: name for name in (*(f"to {does}" for does in answers), *(f"{name} prompts" for name in prompts))}


def word_scales(concept: Concept) -> dict[str, tuple[str, str]]:
    """The two scales on which words are read, of answers and of prompts, by the name of a word at their upper ends:
    the `text_kinds` that are compared."""
    kinds = text_kinds(concept)
    expressing, other, positive, negative = kinds
    return {kinds[expressing]: (expressing, other), kinds[positive]: (positive, negative)}


def typical_texts(
    data: FlippedResponses, concept: Concept, source: str, seed: int, n: int = 1500,
) -> dict[str, list[str]]:
    """Texts of the `text_kinds`, to count words in (see `token_labels`).

    For refusal's built-in prompts `n` of either class are drawn from the corpus. For others there are no answers: these
    are then those of `data`, and the prompts all training prompts, as many of either class.
    """
    expressing, other, *asked = text_kinds(concept)
    if source == "built-in" and concept == REFUSAL:
        rng = random.Random(seed)
        drawn = {kind: [corpus.draw(rng, "train", kind) for _ in range(n)] for kind in asked}
        return {expressing: [entry.refusal for own in drawn.values() for entry in own],
                other: [entry.compliance for own in drawn.values() for entry in own],
                **{kind: [entry.prompt for entry in own] for kind, own in drawn.items()}}
    prompts = [load_prompts(name, "train", source=source).prompt.tolist() for name in concept.sets]
    expresses = data.labels.prompts.eq(concept.positive) == data.labels.response_from.eq("base")
    said = {kind: [response.text for response, does in zip(data.responses, expresses) if does == wanted]
            for kind, wanted in ((expressing, True), (other, False))}
    return said | {kind: own[:min(map(len, prompts))] for kind, own in zip(asked, prompts)}


def token_labels(model: Model, concept: Concept, texts: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """In which texts every token stands, and what these say that it is about.

    Args:
        texts: by `text_kinds`, as of `typical_texts`.

    Returns:
        Counts in each kind of texts, and about, by token id. That is the word of a kind of answers that express the
        concept, else of positive prompts, of other answers or of negative prompts, by `typical_tokens`; "unseen" for
        what stands in none of the texts, else "neither".
    """
    table = pd.DataFrame({name: token_counts(model, own).numpy() for name, own in texts.items()})
    said, asked = (typical_tokens(model, *(texts[kind] for kind in kinds)).numpy()
                   for kinds in word_scales(concept).values())
    expressing, other, positive, negative = text_kinds(concept).values()
    rules = {"unseen": table.sum(axis=1) == 0, expressing: said == 1, positive: asked == 1, other: said == -1,
             negative: asked == -1}
    return table.assign(about=np.select(list(rules.values()), list(rules), "neither"))


def lens_preference(
    logits: Float[Tensor, "*rows vocab"], typical: Int[Tensor, "vocab"],
) -> Float[Tensor, "*rows"]:
    """Probability that a token of kind 1 in `typical_tokens` has a larger logit than one of kind -1, ties half.

    1 where all of the former come first, 0.5 where the order says nothing, 0 where all of the latter come first.

    Raises:
        ValueError: logits that are NaN, which have no order, or of another vocabulary; no token of either kind.
    """
    if logits.shape[-1:] != typical.shape or logits.isnan().any():
        raise ValueError(f"logits of shape {tuple(logits.shape)} for {len(typical)} tokens were given: they must be as "
                         "many, and none NaN")
    if not {1, -1} <= set(typical.tolist()):
        raise ValueError("`typical` must have tokens of both kinds, 1 and -1, as typical_tokens gives them")
    one, other = logits[..., typical == 1].contiguous(), logits[..., typical == -1].sort().values
    below, upto = (torch.searchsorted(other, one, right=right).float() for right in (False, True))
    return (below + upto).mean(-1) / (2 * other.shape[-1])
