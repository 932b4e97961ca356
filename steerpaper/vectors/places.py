"""Where and how another concept is steered: notebook 01's rule on some of the layers, and the runs that won there."""

from collections.abc import Collection
from dataclasses import replace

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper import arguments
from steerpaper.behaviour.first_tokens import first_token_ids
from steerpaper.concepts import Concept
from steerpaper.models.model import Model
from steerpaper.presets import Preset
from steerpaper.vectors.selection import score_candidates, score_coefficients, select_by_generation


def chosen_places(
    model: Model, candidates: Float[Tensor, "layer position d_model"], layers: Collection[int], positive: pd.DataFrame,
    negative: pd.DataFrame, concept: Concept, settings: Preset, **how,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scores of the candidates of some layers (§3.2), and the best of them by whole answers.

    The shortlist is that of the paper's rule, under the preset's limit on KL; where no candidate is admissible at
    alpha = 1, it is that of the same scores at every |alpha| of the preset's grid, one candidate per layer.

    Args:
        layers: that may be chosen.
        positive, negative: validation prompts.
        settings: limit on KL, coefficients, size of the shortlist, batch size.
        how: judge, vocabulary, max_new_tokens and batch_size of `select_by_generation`.

    Returns:
        The table of `score_candidates`, and that of `select_by_generation`, best first.

    Raises:
        ValueError: a layer that the model lacks, or as for the functions that it calls.
    """
    layers = [arguments.whole(layer) for layer in layers]
    if wrong := [layer for layer in layers if layer not in range(len(candidates))]:
        raise ValueError(f"layer {wrong[0]} was given: the candidates are of layers 0 to {len(candidates) - 1}")
    among = torch.zeros_like(candidates)  # what is zero is not scored
    among[layers] = candidates[layers]
    begins = first_token_ids(model, concept.first_tokens)
    limit = dict(kl_limit=settings.kl_limit, batch_size=settings.batch_size)
    scores = score_candidates(model, among, positive, negative, begins, skip_excluded=True, **limit)
    shortlist = scores[scores.admissible]
    if shortlist.empty:
        again = score_coefficients(model, among, scores, settings.coefficients, positive, negative, begins, **limit)
        shortlist = again.drop_duplicates("layer")
    return scores, select_by_generation(model, candidates, shortlist.head(settings.n_candidates), settings.coefficients,
                                        positive, negative, concept=concept, **how)


def winning_runs(settings: Preset, grid: pd.DataFrame) -> dict[str, Preset]:
    """A preset per learned method whose grid is the one run that won before.

    Args:
        grid: as of `LearnedVector.grid`, of several methods: method, batch_size, learning_rate, seed, phi (missing
            where there is none) and chosen.
    """
    return {run.method: replace(
        settings, pair_batch_sizes=(int(run.batch_size),), learning_rates=(float(run.learning_rate),), more_seeds=(),
        training_seeds=(int(run.seed),), phis=settings.phis if pd.isna(run.phi) else (float(run.phi),))
        for run in grid[grid.chosen].itertuples()}
