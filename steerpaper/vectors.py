"""Steering vectors: difference in means, the choice of layer, position and coefficient, a random control."""

import zlib
from collections.abc import Collection, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from steerpaper.behaviour import judged_responses
from steerpaper.model import Model
from steerpaper.refusal import Judge, refusal_metric
from steerpaper.steering import Steering, next_token_logits, residual_stream


def difference_in_means(
    model: Model, harmful: Sequence[str], harmless: Sequence[str], *, batch_size: int = 64
) -> Float[Tensor, "layer position d_model"]:
    """DIM (§3.2): mean of h^l over harmful prompts minus mean over harmless ones, one candidate vector for
    every layer and every template position after the instruction (position index -1 is the last token).

    Raises:
        ValueError: no prompts, an empty one, or a chat template without tokens after the instruction.
    """
    n_positions = len(model.post_instruction_tokens)
    if not n_positions:
        raise ValueError("the chat template has no tokens after the instruction: DIM has no position to read")
    positions = range(-n_positions, 0)
    # In float64, so that what is the same in all prompts cancels exactly.
    streams = (residual_stream(model, p, positions, batch_size=batch_size) for p in (harmful, harmless))
    means = [stream.double().mean(0) for stream in streams]
    return (means[0] - means[1]).float()


def random_vector(like: Float[Tensor, "d_model"], seed: int) -> Float[Tensor, "d_model"]:
    """A vector of uniformly random direction and the norm of `like`: the control of every comparison."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} random vector".encode()))
    direction = torch.randn(like.shape, generator=generator)
    return direction * (like.norm() / direction.norm())


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


def select_by_generation(
    model: Model,
    candidates: Float[Tensor, "layer position d_model"],
    shortlist: pd.DataFrame,
    coefficients: Sequence[float],
    harmful: pd.DataFrame,
    harmless: pd.DataFrame,
    *,
    judge: Judge,
    vocabulary: Collection[str],
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
    runs = shortlist[["layer", "position"]].merge(pd.DataFrame({"coefficient": coefficients}), how="cross")
    how = dict(judge=judge, vocabulary=vocabulary, max_new_tokens=max_new_tokens, batch_size=batch_size)
    for name, prompts, sign in (("harmful", harmful, -1), ("harmless", harmless, 1)):
        steerings = [
            Steering(candidates[run.layer, run.position], run.layer, sign * run.coefficient)
            for run in runs.itertuples()
        ]
        judged = judged_responses(model, prompts, steerings, **how)
        flipped = judged.refused if sign > 0 else ~judged.refused
        runs[f"asr_{name}"] = (~judged.refused).groupby(judged.run).mean()
        runs[f"flipped_clean_{name}"] = (flipped & judged.clean).groupby(judged.run).mean()
    runs["flipped"] = runs.asr_harmful.clip(upper=1 - runs.asr_harmless)
    runs["flipped_clean"] = runs[["flipped_clean_harmful", "flipped_clean_harmless"]].min(axis=1)
    rank = (runs.flipped_clean + 1).where(runs.flipped >= enough, runs.flipped)
    return runs.loc[rank.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)
