"""Steering vectors: difference in means, learned vectors with the choice of their hyperparameters, and baselines."""

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper import arguments
from steerpaper.arguments import Prompt
from steerpaper.choices import unknown
from steerpaper.models.model import Model
from steerpaper.steering import Steering, per_row, residual_stream, tokenized
from steerpaper.vectors.pairs import ContrastPairs
from steerpaper.vectors.training import Setting, train


def difference_in_means(
    model: Model, positive: Sequence[Prompt], negative: Sequence[Prompt], *, batch_size: int = 64
) -> Float[Tensor, "layer position d_model"]:
    """DIM (§3.2): mean of h^l over a concept's positive prompts (harmful ones) minus mean over its negative ones, one
    candidate vector for every layer and every template position after the instruction (position index -1 is the last
    token).

    Raises:
        ValueError: no prompts, an empty one, or a chat template without tokens after the instruction.
    """
    positive, negative = (tokenized(model, p) for p in (positive, negative))
    n_positions = len(model.post_instruction_tokens)
    if not n_positions:
        raise ValueError("the chat template has no tokens after the instruction: DIM has no position to read")
    positions = range(-n_positions, 0)
    # In float64, so that what is the same in all prompts cancels exactly.
    streams = (residual_stream(model, p, positions, batch_size=batch_size) for p in (positive, negative))
    means = [stream.double().mean(0) for stream in streams]
    return (means[0] - means[1]).float()


def random_vector(like: Float[Tensor, "d_model"], seed: int) -> Float[Tensor, "d_model"]:
    """A vector of uniformly random direction and the norm of `like`, on the CPU: the control of every comparison.

    Raises:
        ValueError: a vector that is not finite, or a seed that is no integer.
    """
    arguments.integer("seed", seed, 0)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} random vector".encode()))
    like = arguments.vector("vector", like).cpu()
    direction = torch.randn(like.shape, generator=generator)
    return direction * (like.norm() / direction.norm())


def principal_component(
    model: Model, positive: Sequence[Prompt], negative: Sequence[Prompt], layer: int, position: int, *,
    batch_size: int = 64,
) -> Float[Tensor, "d_model"]:
    """First principal direction of the differences between the i-th positive and the i-th negative prompt in h^layer
    at `position` (-1 is the last token): a baseline beside their mean, DIM.

    Centred: the direction along which the differences vary most. Not centred it would be the mean difference again,
    which is what all differences share. It gets the norm of the mean difference, and its sign.

    Raises:
        ValueError: lists of unequal lengths, less than two pairs, pairs that all differ alike or on average not at all,
            a layer that is not there, or as for `residual_stream`.
    """
    positive, negative = arguments.prompts(positive), arguments.prompts(negative)
    if len(positive) != len(negative):
        raise ValueError(f"{len(positive)} positive and {len(negative)} negative prompts were given: they are paired, "
                         "give as many of each")
    layer = arguments.integer("layer", layer, 0, model.n_layers - 1)
    streams = (residual_stream(model, p, [position], batch_size=batch_size) for p in (positive, negative))
    states = [stream[:, layer, 0].double() for stream in streams]
    differences = states[0] - states[1]
    mean = differences.mean(0)
    _, spread, directions = torch.linalg.svd(differences - mean, full_matrices=False)
    if len(differences) < 2 or not spread[0] > 0 or not (along := directions[0] @ mean):
        raise ValueError(f"{len(differences)} pairs were given, whose differences do not vary or are zero on average: a "
                         "principal direction needs at least two pairs that differ, each in its own way")
    return (directions[0] * mean.norm() * along.sign()).float()


# -- learned vectors ---------------------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class LearnedVector:
    """The outcome of a grid of training runs.

    Attributes:
        vector: of the chosen run; added at α = +1 it induces the concept (refusal), at −1 its opposite (compliance).
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
