"""Steering vectors: difference in means, learned vectors, their baselines, and the choice of layer, position,
hyperparameters and coefficient."""

import itertools
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from steerpaper import arguments
from steerpaper.behaviour import judged_responses
from steerpaper.choices import unknown
from steerpaper.model import Model
from steerpaper.pairs import ContrastPairs
from steerpaper.refusal import Judge, refusal_metric
from steerpaper.steering import Steering, next_token_logits, per_row, residual_stream
from steerpaper.training import Setting, train


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
    """A vector of uniformly random direction and the norm of `like`: the control of every comparison.

    Raises:
        ValueError: a vector that is not finite, or a seed that is no integer.
    """
    arguments.integer("seed", seed, 0)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} random vector".encode()))
    like = arguments.vector("vector", like)
    direction = torch.randn(like.shape, generator=generator)
    return direction * (like.norm() / direction.norm())


def principal_component(
    model: Model, harmful: Sequence[str], harmless: Sequence[str], layer: int, position: int, *, batch_size: int = 64,
) -> Float[Tensor, "d_model"]:
    """First principal direction of the differences between the i-th harmful and the i-th harmless prompt in h^layer
    at `position` (-1 is the last token): a baseline beside their mean, DIM.

    Uncentred, since what all differences share is what is looked for: the direction u of unit length that maximises
    the mean of (u . difference)^2. It gets the sign and the norm of the mean difference.

    Raises:
        ValueError: lists of unequal lengths, no prompts, a layer that is not there, or as for `residual_stream`.
    """
    harmful, harmless = arguments.prompts(harmful), arguments.prompts(harmless)
    if len(harmful) != len(harmless):
        raise ValueError(f"{len(harmful)} harmful and {len(harmless)} harmless prompts were given: they are paired, "
                         "give as many of each")
    layer = arguments.integer("layer", layer, 0, model.n_layers - 1)
    streams = (residual_stream(model, p, [position], batch_size=batch_size) for p in (harmful, harmless))
    states = [stream[:, layer, 0].double() for stream in streams]
    differences = states[0] - states[1]
    mean, direction = differences.mean(0), torch.linalg.svd(differences, full_matrices=False).Vh[0]
    return (direction * mean.norm() * (direction @ mean).sign()).float()


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


# -- learned vectors ---------------------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class LearnedVector:
    """The outcome of a grid of training runs.

    Attributes:
        vector: of the chosen run; added at α = +1 it induces refusal, at −1 compliance.
        setting: of the chosen run.
        grid: one row per run of the grid: its setting, `validation_loss`, `match_score`, `norm`, `free_norm` (before
            it was rescaled for use) and `chosen`.
        curves: losses of these runs by epoch, see `training.Training`.
        by_seed: the vectors of all seeds at the chosen setting, the chosen one among them.
    """

    vector: Float[Tensor, "d_model"]
    setting: Setting
    grid: pd.DataFrame
    curves: pd.DataFrame
    by_seed: dict[int, Float[Tensor, "d_model"]]


def next_token_vector(
    model: Model, pairs: ContrastPairs, validation: ContrastPairs, dim: Steering, *,
    batch_sizes: Sequence[int] = (6, 12), learning_rates: Sequence[float] = (0.01, 0.04),
    seeds: Sequence[int] = (42, 5), more_seeds: Sequence[int] = (), norm: str = "free", **how,
) -> LearnedVector:
    """NTP (§3.2, table 4): train on the whole grid, choose the run of the lowest validation loss.

    Args:
        pairs, validation: contrastive pairs of training and of validation prompts.
        dim: difference in means: the layer, and the norm for `norm="dim"`.
        batch_sizes, learning_rates, seeds: the grid.
        more_seeds: trained at the chosen setting only, to see what the seed does to the vector.
        norm: "free" uses the vector as it was learned (the paper's text), "dim" rescales it to the norm of DIM (the
            authors' code).
        how: epochs, coefficients, n_tokens and batch_size of `training.train`.

    Raises:
        ValueError, FloatingPointError: an empty grid, an unknown norm, or as for `training.train`.
    """
    grid = _grid("ntp", batch_sizes=batch_sizes, learning_rates=learning_rates, seeds=seeds)
    return _learned(model, pairs, validation, dim, grid, more_seeds, norm, **how)


def preference_vector(
    model: Model, pairs: ContrastPairs, validation: ContrastPairs, dim: Steering, *,
    batch_sizes: Sequence[int] = (6, 12), learning_rates: Sequence[float] = (0.01, 0.04),
    phis: Sequence[float] = (0.02, 0.00001), seeds: Sequence[int] = (42, 5), more_seeds: Sequence[int] = (),
    norm: str = "free", **how,
) -> LearnedVector:
    """PO (§3.2, table 4): train on the whole grid; the lowest validation loss within each φ, since losses of
    different φ do not compare, and of those runs the one with the highest match score.

    Args:
        phis: of PO's weight, see `losses.preference_weight`; the others as for `next_token_vector`.

    Raises:
        ValueError, FloatingPointError: as for `next_token_vector`.
    """
    grid = _grid("po", batch_sizes=batch_sizes, learning_rates=learning_rates, seeds=seeds, phis=phis)
    return _learned(model, pairs, validation, dim, grid, more_seeds, norm, **how)


def _grid(method: str, **values: Sequence) -> list[Setting]:
    """Every combination of the values, the last of them changing fastest."""
    points = itertools.product(*(arguments.listed(name, grid) for name, grid in values.items()))
    return [Setting(method, *point) for point in points]


def _learned(
    model: Model, pairs: ContrastPairs, validation: ContrastPairs, dim: Steering, grid: list[Setting],
    more_seeds: Sequence[int], norm: str, **how,
) -> LearnedVector:
    """Train the grid, choose, and train the chosen setting with more seeds."""
    [dim] = per_row(model, dim, 1)
    norms = {"free": None, "dim": float(torch.as_tensor(dim.vector).norm())}
    if norm not in tuple(norms):
        raise unknown("norm", norm, norms)
    how["norm"] = norms[norm]
    trained = train(model, pairs, validation, dim.layer, grid, **how)
    best = best_run(trained.grid)
    setting = grid[best]
    by_seed = {s.seed: v for s, v in zip(grid, trained.vectors) if replace(s, seed=setting.seed) == setting}
    if more := [replace(setting, seed=seed) for seed in more_seeds if seed not in by_seed]:
        again = train(model, pairs, validation, dim.layer, more, **how)
        by_seed |= {s.seed: v for s, v in zip(more, again.vectors)}
    table = trained.grid.assign(chosen=trained.grid.index == best)
    return LearnedVector(trained.vectors[best], setting, table, trained.curves, by_seed)


def best_run(grid: pd.DataFrame) -> int:
    """The rule of §3.2: the lowest `validation_loss` within each `phi`, and of these the highest `match_score`; the
    first of equals."""
    best = grid.groupby("phi", dropna=False, sort=False).validation_loss.idxmin()
    return int(grid.match_score[best].idxmax())
