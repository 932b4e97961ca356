"""The choice of a vector's layer, position and coefficient (§3.2)."""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div
from tqdm import tqdm

from steerpaper import arguments
from steerpaper.arguments import Prompt
from steerpaper.behaviour.first_tokens import first_token_log_odds
from steerpaper.behaviour.judges import Judge
from steerpaper.behaviour.judging import judged_responses
from steerpaper.concepts import REFUSAL, Concept
from steerpaper.models.kept import Kept
from steerpaper.models.model import Model
from steerpaper.steering import Steering, both_ways, next_token_logits, tokenized


def score_candidates(
    model: Model, candidates: Float[Tensor, "layer position d_model"], positive: Sequence[Prompt],
    negative: Sequence[Prompt], first_tokens: Collection[int], *, kl_limit: float = 0.1, batch_size: int = 64,
) -> pd.DataFrame:
    """The three selection scores of every candidate and the paper's ranking (§3.2), best first.

    bypass: mean `first_token_log_odds` of the positive prompts at α = −1 (of harmful ones: the refusal metric).
    induce: of the negative prompts at α = +1. kl: mean KL(unablated ‖ ablated) of the negative prompts' next token, in
    nats, with the candidate's direction ablated everywhere.

    Entering layer 0 a template token is its embedding, the same in every prompt: those candidates are zero, hold no
    direction and are left out.

    Returns:
        One row per candidate: layer, position (−1 is the last), bypass, induce, kl, score = σ(bypass) − σ(induce), and
        whether it is `admissible` under `kl_limit`. Sorted by admissibility and score.

    Raises:
        ValueError: no prompts, or candidates that do not fit the model.
    """
    positive, negative = tokenized(model, positive), tokenized(model, negative)
    candidates = arguments.vector("tensor of candidates", candidates)
    n_layers, n_positions, _ = candidates.shape
    if n_layers != model.n_layers:
        raise ValueError(f"candidates for {n_layers} layers, but the model has {model.n_layers}")
    inputs = {"positive": positive, "negative": negative, "candidates": candidates, "batch_size": batch_size,
              "first_tokens": sorted(set(arguments.token_ids("first_tokens", first_tokens)))}
    kept = Kept("candidates", __name__, model.hf, inputs, {
        "scores": torch.zeros(n_layers, n_positions, 3, dtype=torch.float64)})
    layers = [layer for layer in range(n_layers) if candidates[layer].any()]
    if todo := layers[kept.done:]:
        plain = next_token_logits(model, negative, batch_size=batch_size).log_softmax(-1)
        for layer in tqdm(todo, desc="candidates", unit="layer"):
            kept.state["scores"][layer] = _scores(
                model, candidates[layer], layer, positive, negative, first_tokens, plain, batch_size)
            kept.keep(1)
    rows = [(layer, p - n_positions, *kept.state["scores"][layer, p].tolist())
            for layer in layers for p in range(n_positions)]
    table = pd.DataFrame(rows, columns=["layer", "position", "bypass", "induce", "kl"])
    sigmoid = torch.sigmoid(torch.tensor(table[["bypass", "induce"]].values))
    table["score"] = (sigmoid[:, 0] - sigmoid[:, 1]).numpy()
    table["admissible"] = admissible(table, n_layers, kl_limit)
    return table.sort_values(["admissible", "score"], ascending=[False, True], ignore_index=True)


def _scores(
    model: Model, vectors: Float[Tensor, "position d_model"], layer: int, positive: list[list[int]],
    negative: list[list[int]], first_tokens: Collection[int], plain: Float[Tensor, "prompt vocab"], batch_size: int,
) -> Float[Tensor, "position 3"]:
    """bypass, induce and kl of one layer's candidates."""
    n = len(vectors)
    away = [Steering(vector, layer, -1.0) for vector in vectors for _ in positive]
    bypass = next_token_logits(model, positive * n, away, batch_size=batch_size)
    spread = vectors.repeat_interleave(len(negative), dim=0)
    towards = [Steering(vector, layer) for vector in spread]
    induce = next_token_logits(model, negative * n, towards, batch_size=batch_size)
    ablated = next_token_logits(model, negative * n, ablation=spread, batch_size=batch_size)
    ablated = ablated.log_softmax(-1).view(n, *plain.shape)
    kl = kl_div(ablated, plain, reduction="none", log_target=True).sum(-1)
    odds = [first_token_log_odds(each, first_tokens).view(n, -1).mean(-1) for each in (bypass, induce)]
    return torch.stack([*odds, kl.mean(-1)], dim=-1).double()


def admissible(scores: pd.DataFrame, n_layers: int, kl_limit: float = 0.1) -> pd.Series:
    """Which candidates of `score_candidates` meet the conditions of §3.2, by default with the paper's limit on KL:
    induce > 0, kl < kl_limit and layer < 0.8 L."""
    return (scores.induce > 0) & (scores.kl < kl_limit) & (scores.layer < 0.8 * n_layers)


def candidate_at(scores: pd.DataFrame, layer: int, position: int) -> pd.DataFrame:
    """The row of `score_candidates` for one layer and position, as a preset fixes them: a shortlist of one, whatever
    its scores.

    Raises:
        ValueError: a layer or position of which there is no candidate.
    """
    layers, positions = scores.layer, scores.position
    row = scores[(layers == arguments.whole(layer)) & (positions == arguments.whole(position))]
    if row.empty:
        raise ValueError(f"layer {layer}, position {position} was given, but candidates stand at layers {layers.min()} "
                         f"to {layers.max()} and at positions {positions.min()} to {positions.max()} (-1 is the chat "
                         "template's last token): correct the preset, or let it select by leaving out both")
    return row


def select_by_generation(
    model: Model, candidates: Float[Tensor, "layer position d_model"], shortlist: pd.DataFrame,
    coefficients: Sequence[float], positive: pd.DataFrame | Sequence[Prompt], negative: pd.DataFrame | Sequence[Prompt],
    **how,
) -> pd.DataFrame:
    """Every candidate of `shortlist` at every |α|, by what is generated under it: see `rank_by_generation`.

    Args:
        shortlist: rows of `score_candidates` (layer, position).
        positive, negative: validation prompts.
        how: concept, judge, vocabulary, enough, max_new_tokens and batch_size of `rank_by_generation`.

    Returns:
        One row per candidate and |α|, best first: layer, position, coefficient, and what `rank_by_generation` adds.

    Raises:
        ValueError: an empty shortlist, no coefficients, or what `generate` refuses.
    """
    if shortlist.empty:
        raise ValueError("the shortlist is empty: no candidate passes the conditions. Raise the preset's kl_limit, "
                         "widen its layer_range, or look at the scores of `score_candidates`")
    runs = _grid(shortlist[["layer", "position"]], coefficients)
    steerings = [Steering(candidates[r.layer, r.position], r.layer, r.coefficient) for r in runs.itertuples()]
    return rank_by_generation(model, runs, steerings, positive, negative, **how)


def select_coefficient(
    model: Model, vectors: Mapping[str, Float[Tensor, "d_model"]], layer: int, coefficients: Sequence[float],
    positive: pd.DataFrame | Sequence[Prompt], negative: pd.DataFrame | Sequence[Prompt], **how,
) -> pd.DataFrame:
    """Every vector at every |α|, and each vector's |α| ranked by what is generated: see `rank_by_generation`.

    Args:
        vectors: by the name of their method.
        how: as for `select_by_generation`.

    Returns:
        One row per method and |α|: method, coefficient, and what `rank_by_generation` adds; methods in the given order,
        the best |α| of each first.

    Raises:
        ValueError: no vectors or no coefficients, or what `generate` refuses.
    """
    if not isinstance(vectors, Mapping) or not vectors:
        raise ValueError(f"vectors must be a mapping from methods to vectors, {arguments.shown(vectors)} was given")
    runs = _grid(pd.DataFrame({"method": list(vectors)}), coefficients)
    steerings = [Steering(vectors[run.method], layer, run.coefficient) for run in runs.itertuples()]
    ranked = rank_by_generation(model, runs, steerings, positive, negative, **how)
    order = {method: i for i, method in enumerate(vectors)}
    return ranked.sort_values("method", key=lambda methods: methods.map(order), kind="stable", ignore_index=True)


def _grid(runs: pd.DataFrame, coefficients: Sequence[float]) -> pd.DataFrame:
    """Every row at every coefficient."""
    coefficients = arguments.listed("coefficients", coefficients)
    if not coefficients:
        raise ValueError("coefficients are empty: give at least one")
    return runs.merge(pd.DataFrame({"coefficient": coefficients}), how="cross")


def rank_by_generation(
    model: Model, runs: pd.DataFrame, steerings: Sequence[Steering], positive: pd.DataFrame | Sequence[Prompt],
    negative: pd.DataFrame | Sequence[Prompt], *, judge: Judge, vocabulary: Collection[str] | None,
    concept: Concept = REFUSAL, enough: float = 0.9, max_new_tokens: int = 64, batch_size: int = 64,
) -> pd.DataFrame:
    """Generate under every steering, and rank them by the weaker direction, best first.

    The first token's log odds look at one token; a vector can win there and then loop. Here positive prompts under −α
    should not express the concept (harmful ones: comply) and negative ones under +α should (refuse). `flipped` is the
    smaller share of prompts that do. Where it reaches `enough`, steerings rank by the smaller share that flips *with
    clean text*; the others follow, by `flipped`.

    Args:
        runs: a row per steering, which says what it is.
        steerings: with positive coefficients.
        judge, vocabulary, max_new_tokens, batch_size: as for `judged_responses`.

    Returns:
        The rows of `runs`, each with asr_SET and flipped_clean_SET for both prompt SETs of the concept (asr_harmful,
        …), flipped and flipped_clean.

    Raises:
        ValueError: a coefficient that is not positive, or what `generate` refuses.
    """
    signed, runs = [both_ways(steering, concept) for steering in steerings], runs.copy()
    for name, prompts in zip(concept.sets, (positive, negative)):
        asked = arguments.table(prompts).assign(positive=name == concept.positive)
        judged = judged_responses(model, asked, [ways[name] for ways in signed], judge=judge, vocabulary=vocabulary,
                                  max_new_tokens=max_new_tokens, batch_size=batch_size)
        flipped = judged.expressed != judged.positive
        runs[f"asr_{name}"] = (~judged.expressed).groupby(judged.run).mean()
        runs[f"flipped_clean_{name}"] = (flipped & judged.clean).groupby(judged.run).mean()
    runs["flipped"] = runs[f"asr_{concept.positive}"].clip(upper=1 - runs[f"asr_{concept.negative}"])
    runs["flipped_clean"] = runs[[f"flipped_clean_{name}" for name in concept.sets]].min(axis=1)
    rank = (runs.flipped_clean + 1).where(runs.flipped >= enough, runs.flipped)
    return runs.loc[rank.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)
