"""The choice of a vector's layer, position and coefficient (§3.2)."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from steerpaper import arguments
from steerpaper.behaviour.rates import judged_responses
from steerpaper.behaviour.refusal import Judge, refusal_metric
from steerpaper.models.model import Model
from steerpaper.steering import Steering, next_token_logits


def select(
    model: Model,
    candidates: Float[Tensor, "layer position d_model"],
    harmful: Sequence[str],
    harmless: Sequence[str],
    refusal_tokens: Collection[int],
    *,
    kl_limit: float = 0.1,
    batch_size: int = 64,
) -> pd.DataFrame:
    """The three selection scores of every candidate and the paper's ranking (§3.2), best first.

    bypass: mean refusal metric of the harmful prompts at α = −1. induce: of the harmless prompts at α = +1.
    kl: mean KL(unablated ‖ ablated) of the harmless prompts' next token, in nats, with the candidate's
    direction ablated everywhere.

    Entering layer 0 a template token is its embedding, the same in every prompt: those candidates are zero,
    hold no direction and are left out.

    Returns:
        One row per candidate: layer, position (−1 is the last), bypass, induce, kl, score = σ(bypass) −
        σ(induce), and admissible: induce > 0, kl < kl_limit and layer < 0.8 L. Sorted by admissibility and
        score.

    Raises:
        ValueError: no prompts, or candidates that do not fit the model.
    """
    harmful, harmless = arguments.prompts(harmful), arguments.prompts(harmless)
    candidates = arguments.vector("tensor of candidates", candidates)
    n_layers, n_positions, _ = candidates.shape
    if n_layers != model.n_layers:
        raise ValueError(f"candidates for {n_layers} layers, but the model has {model.n_layers}")
    plain = next_token_logits(model, harmless, batch_size=batch_size).log_softmax(-1)
    rows = []
    for layer in tqdm([x for x in range(n_layers) if candidates[x].any()], desc="candidates", unit="layer"):
        grid = [(p, prompt) for p in range(n_positions) for prompt in harmful]
        bypass = next_token_logits(
            model, [prompt for _, prompt in grid],
            [Steering(candidates[layer, p], layer, -1.0) for p, _ in grid], batch_size=batch_size,
        )
        grid = [(p, prompt) for p in range(n_positions) for prompt in harmless]
        prompts, vectors = [prompt for _, prompt in grid], [candidates[layer, p] for p, _ in grid]
        induce = next_token_logits(model, prompts, [Steering(v, layer) for v in vectors], batch_size=batch_size)
        ablated = next_token_logits(model, prompts, ablation=torch.stack(vectors), batch_size=batch_size)
        kl = (plain.exp() * (plain - ablated.log_softmax(-1).view(n_positions, *plain.shape))).sum(-1)
        metrics = [refusal_metric(logits, refusal_tokens).view(n_positions, -1).mean(-1) for logits in (bypass, induce)]
        for p, values in enumerate(zip(*metrics, kl.mean(-1), strict=True)):
            rows.append((layer, p - n_positions, *(float(v) for v in values)))
    table = pd.DataFrame(rows, columns=["layer", "position", "bypass", "induce", "kl"])
    sigmoid = torch.sigmoid(torch.tensor(table[["bypass", "induce"]].values))
    table["score"] = (sigmoid[:, 0] - sigmoid[:, 1]).numpy()
    table["admissible"] = (table.induce > 0) & (table.kl < kl_limit) & (table.layer < 0.8 * n_layers)
    return table.sort_values(["admissible", "score"], ascending=[False, True], ignore_index=True)


def candidate_at(scores: pd.DataFrame, layer: int, position: int) -> pd.DataFrame:
    """The row of `select` for one layer and position, as a preset fixes them: a shortlist of one, whatever its scores.

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
    model: Model,
    candidates: Float[Tensor, "layer position d_model"],
    shortlist: pd.DataFrame,
    coefficients: Sequence[float],
    harmful: pd.DataFrame,
    harmless: pd.DataFrame,
    *,
    judge: Judge,
    vocabulary: Collection[str] | None,
    enough: float = 0.9,
    max_new_tokens: int = 64,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Generate with every candidate of `shortlist` at every |α| and rank by the weaker direction, best first.

    The refusal metric looks at one token; a vector can win there and then loop. Here harmful prompts under −α
    should comply and harmless ones under +α refuse. `flipped` is the smaller share of prompts that do. Where it
    reaches `enough`, candidates rank by the smaller share that flips *with clean text*; the others follow, by
    `flipped`.

    Args:
        shortlist: rows of `select` (layer, position).
        harmful, harmless: validation prompts with their topics.

    Returns:
        One row per candidate and |α|: layer, position, coefficient, asr_harmful, asr_harmless,
        flipped_clean_harmful, flipped_clean_harmless, flipped, flipped_clean.

    Raises:
        ValueError: an empty shortlist, or what `generate` refuses.
    """
    if shortlist.empty:
        raise ValueError("the shortlist is empty: no candidate passes the conditions. Raise the preset's kl_limit, "
                         "widen its layer_range, or look at the scores of `select`")
    coefficients = pd.DataFrame({"coefficient": arguments.listed("coefficients", coefficients)})
    runs = shortlist[["layer", "position"]].merge(coefficients, how="cross")
    steerings = [
        Steering(candidates[run.layer, run.position], run.layer, run.coefficient) for run in runs.itertuples()
    ]
    how = dict(judge=judge, vocabulary=vocabulary, max_new_tokens=max_new_tokens, batch_size=batch_size)
    return _ranked(model, runs, steerings, harmful, harmless, enough, **how)


def select_coefficient(
    model: Model,
    vectors: Mapping[str, Float[Tensor, "d_model"]],
    layer: int,
    coefficients: Sequence[float],
    harmful: pd.DataFrame,
    harmless: pd.DataFrame,
    *,
    judge: Judge,
    vocabulary: Collection[str] | None,
    enough: float = 0.9,
    max_new_tokens: int = 64,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Generate with every vector at every |α|, and rank each vector's |α| as `select_by_generation` does.

    Args:
        vectors: by the name of their method.

    Returns:
        One row per method and |α|: method, coefficient, and the columns of `select_by_generation`; methods in the
        given order, the best |α| of each first.

    Raises:
        ValueError: no vectors or no coefficients, or what `generate` refuses.
    """
    coefficients = arguments.listed("coefficients", coefficients)
    if not isinstance(vectors, Mapping):
        raise ValueError(f"vectors must be a mapping from methods to vectors, {arguments.shown(vectors)} was given")
    grid = list(itertools.product(vectors, coefficients))
    if not grid:
        raise ValueError(f"{len(vectors)} vectors and {len(coefficients)} coefficients were given: at least one "
                         "of each is needed")
    steerings = [Steering(vectors[method], layer, coefficient) for method, coefficient in grid]
    how = dict(judge=judge, vocabulary=vocabulary, max_new_tokens=max_new_tokens, batch_size=batch_size)
    runs = pd.DataFrame(grid, columns=["method", "coefficient"])
    ranked = _ranked(model, runs, steerings, harmful, harmless, enough, **how)
    order = {method: i for i, method in enumerate(vectors)}
    return ranked.sort_values("method", key=lambda methods: methods.map(order), kind="stable", ignore_index=True)


def _ranked(
    model: Model, runs: pd.DataFrame, steerings: Sequence[Steering], harmful: pd.DataFrame, harmless: pd.DataFrame,
    enough: float, **how,
) -> pd.DataFrame:
    """`runs` with what generation under −α (harmful) and +α (harmless) gives, ranked by the weaker direction."""
    for name, prompts, sign in (("harmful", harmful, -1), ("harmless", harmless, 1)):
        signed = [replace(steering, coefficient=sign * steering.coefficient) for steering in steerings]
        judged = judged_responses(model, prompts, signed, **how)
        flipped = judged.refused if sign > 0 else ~judged.refused
        runs[f"asr_{name}"] = (~judged.refused).groupby(judged.run).mean()
        runs[f"flipped_clean_{name}"] = (flipped & judged.clean).groupby(judged.run).mean()
    runs["flipped"] = runs.asr_harmful.clip(upper=1 - runs.asr_harmless)
    runs["flipped_clean"] = runs[["flipped_clean_harmful", "flipped_clean_harmless"]].min(axis=1)
    rank = (runs.flipped_clean + 1).where(runs.flipped >= enough, runs.flipped)
    return runs.loc[rank.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)
