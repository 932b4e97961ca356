"""What steering writes through the OV circuits (§6, appendix A): steering value vectors, the exact identity of the
heads' writes, and the MLPs' counterpart."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper.circuits.cases import Cases
from steerpaper.circuits.contrast import Contrast, contrasts
from steerpaper.finite import check_finite
from steerpaper.heads.patterns import attention_weights
from steerpaper.models.batches import in_batches
from steerpaper.models.maps import head_writes, rms
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering, per_row

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


# -- heads -------------------------------------------------------------------------------------------------

def steering_value_vectors(
    model: Model, vector: Float[Tensor, "d_model"], layer: int,
) -> Float[Tensor, "layer head d_model"]:
    """svv^h(s) = (s * gamma) W_V^h W_O^h, times the post-norm's gamma where there is one (§6, A).

    What every head from `layer` on writes when it reads s alone, up to a positive factor per position. Query heads
    that share a key-value head share its W_V. Float32, on the CPU; the first row is `layer`.

    Raises:
        ValueError: a vector or a layer that does not fit the model.
    """
    [steering] = per_row(model, Steering(vector, layer), 1)
    return _steering_values(model, steering.vector, steering.layer).cpu()


def _steering_values(model: Model, vector: Float[Tensor, "d_model"], layer: int) -> Float[Tensor, "layer head d_model"]:
    vector = vector.to(model.device, torch.float64)[None, None]
    rows = [head_writes(model, i, _values(model, i, vector))[:, 0, 0] for i in range(layer, model.n_layers)]
    return torch.stack(rows).float()


def decompose_heads(
    model: Model, responses: Sequence[Response], steering: Steering | Sequence[Steering], *, batch_size: int = 8,
) -> pd.DataFrame:
    """The heads' writes split exactly into what comes of s directly and the rest, in the steered run (A).

    With c = 1/RMS of the stream entering the layer (steering included) and A the head's attention weights, both of
    the steered run, a head writes `A D_c (h * gamma) W_OV + (A c) alpha svv(s)`, where h is that stream without
    alpha s. With a post-norm both terms are divided by the RMS of the sum of the heads. A bias of the values passes
    the weights unchanged, since they sum to 1, and belongs to the first term. The second term is the *direct* one, its
    factor of alpha svv (A c, over that RMS) the *coefficient*. Summed in float64 from the run's own streams and
    weights, and compared with what the run handed to the output projection.

    Args:
        responses: to teacher-force, the base and the steered run on the same tokens.
        steering: one for all responses or one each; they may differ in the coefficient only.
        batch_size: responses per pass.

    Returns:
        One row per layer (from the steering layer on) and head; everything is taken over all response positions:

        - layer, head.
        - relative_error: the largest |write - both terms| / |write|.
        - coefficient, spread: mean of the coefficient, and its standard deviation over its mean.
        - q05, q25, q50, q75, q95: quantiles of the coefficient.
        - change: mean of |D|^2, D the change of the write from the base to the steered run.
        - projection: sum of <D, direct term> / sum of |D|^2: 1 where the direct term reaches as far along D as D does.
        - explained: 1 - sum of |D - direct term|^2 / sum of |D|^2: 1 where it is all of D; below 0 where D is farther
          from it than from 0.

    Raises:
        ValueError: as for `attribute`.
    """
    cases = Cases.of(model, responses, steering)
    svv = _steering_values(model, cases.vector, cases.layer).double()
    with model.eager_attention():
        # With this metric no position is masked.
        parts = list(contrasts(model, cases, lambda contrast: _decompose(model, contrast, svv), metric="kl",
                               batch_size=batch_size, what="decompose heads"))
    return _summary(cases.layer, *(np.concatenate(part, axis=-1) for part in zip(*parts)))


@torch.no_grad()
def _decompose(
    model: Model, contrast: Contrast, svv: Float[Tensor, "layer head d_model"],
) -> tuple[Float[np.ndarray, "layer head position"], ...]:
    """Of one batch, at every response position: coefficient, relative error, |D|^2, <D, direct>, |D - direct|^2."""
    weights = attention_weights(model, contrast.batch, contrast.layer, contrast.steered.attention_inputs[0])
    mask = contrast.batch.response_mask[:, -contrast.kept:]
    alpha = contrast.alpha.expand(-1, contrast.kept, -1)[mask].double()
    layers = []
    for i, A in enumerate(weights):
        layer = contrast.layer + i
        rest, coefficient = _two_terms(model, contrast, layer, A.double())
        direct = coefficient[:, mask, None] * alpha * svv[i][:, None]
        base, steered = (head_writes(model, layer, run.heads[i][:, -contrast.kept:].double())[:, mask]
                         for run in (contrast.base, contrast.steered))
        error = (steered - rest[:, mask] - direct).norm(dim=-1) / steered.norm(dim=-1)
        D = steered - base
        layers.append((coefficient[:, mask], error, D.square().sum(-1), (D * direct).sum(-1),
                       (D - direct).square().sum(-1)))
    return tuple(torch.stack(part).cpu().numpy() for part in zip(*layers))


def _two_terms(
    model: Model, contrast: Contrast, layer: int, A: Float[Tensor, "batch head kept key"],
) -> tuple[Float[Tensor, "head batch kept d_model"], Float[Tensor, "head batch kept"]]:
    """The term of the stream without alpha s, and the coefficient of alpha svv."""
    stream = contrast.steered.attention_inputs[layer - contrast.layer].double()
    addition, c = contrast.addition.double(), 1 / rms(stream, model.norm_eps)
    outputs = (A @ (_values(model, layer, stream - addition) * c[..., None]).transpose(1, 2)).transpose(1, 2)
    if (bias := model.bias(layer, "v")) is not None:
        outputs = outputs + _per_query_head(model, bias.double())
    coefficient = (A @ c[:, None])[..., 0].transpose(1, 2)
    if model.has_post_norms:
        whole = outputs + coefficient[..., None] * _values(model, layer, addition)
        scale = 1 / rms(whole.flatten(-2) @ model.W_O(layer).flatten(0, 1).double(), model.norm_eps)
        outputs, coefficient = outputs * scale[..., None], coefficient * scale
    return head_writes(model, layer, outputs), coefficient.permute(2, 0, 1)


def _values(
    model: Model, layer: int, x: Float[Tensor, "batch pos d_model"],
) -> Float[Tensor, "batch pos head d_head"]:
    """Values per query head of a stream that is scaled by the norm's gamma, but not divided by its RMS."""
    weight = model.W_V(layer).transpose(0, 1).flatten(1).to(x.dtype)  # [d_model, kv_head * d_head]
    return _per_query_head(model, (x * model.attention_gamma(layer).to(x.dtype)) @ weight)


def _per_query_head(
    model: Model, values: Float[Tensor, "*rows kv_head*d_head"],
) -> Float[Tensor, "*rows head d_head"]:
    values = values.unflatten(-1, (model.n_kv_heads, model.d_head))
    return values.repeat_interleave(model.n_heads // model.n_kv_heads, dim=-2)


def _summary(layer: int, coefficient, error, change, overlap, rest) -> pd.DataFrame:
    """The table of `decompose_heads` from arrays [layer, head, position]."""
    layers, heads = np.indices(coefficient.shape[:2])
    mean, total = coefficient.mean(-1), change.sum(-1)
    quantiles = np.quantile(coefficient, list(_QUANTILES.values()), axis=-1)
    columns = {
        "layer": layer + layers, "head": heads, "relative_error": error.max(-1), "coefficient": mean,
        "spread": coefficient.std(-1) / mean, **dict(zip(_QUANTILES, quantiles)), "change": change.mean(-1),
        "projection": overlap.sum(-1) / total, "explained": 1 - rest.sum(-1) / total,
    }
    return pd.DataFrame({name: column.ravel() for name, column in columns.items()})


def pooled_explained(heads: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Share explained and projection of all heads of a group, told apart by the columns `by`, taken together.

    `heads` are rows of `decompose_heads`; they count by the size of their change.
    """
    weighted = heads[by].assign(**{name: heads[name] * heads.change for name in ("explained", "projection")})
    sums = weighted.assign(change=heads.change).groupby(by, sort=False).sum()
    return sums[["explained", "projection"]].div(sums.change, axis=0).reset_index()


def chance_cosines(
    vectors: Float[Tensor, "sample d_model"], svv: Float[Tensor, "sample layer head d_model"], cosine: float,
) -> tuple[Float[Tensor, "layer head"], Float[Tensor, "layer head"]]:
    """Between which cosines lie 95 % of the svv of two random vectors that have a given cosine themselves.

    Of the random unit `vectors`, the first half is paired with the second, turned to that cosine.
    """
    (first, second), (one, two) = vectors.chunk(2), svv.chunk(2)
    dot = (first * second).sum(-1)[:, None, None, None]
    across = (two - dot * one) / (1 - dot**2).sqrt()  # svv of the second's part at right angles to the first
    cosines = torch.nn.functional.cosine_similarity(one, cosine * one + max(0.0, 1 - cosine**2) ** 0.5 * across, dim=-1)
    return tuple(cosines.quantile(torch.tensor([0.025, 0.975]), dim=0))


# -- MLPs --------------------------------------------------------------------------------------------------

class MLPVectors(NamedTuple):
    """The MLPs' counterpart of the steering value vectors; rows are layers, from the steering layer on.

    Attributes:
        vectors: J s averaged over positions, J the Jacobian of the MLP's write by the stream before its norm.
        constancy: |mean J s|^2 / mean |J s|^2: 1 if it is the same at every position, near 0 if positions cancel.
    """

    vectors: Float[Tensor, "layer d_model"]
    constancy: Float[Tensor, "layer"]


@torch.no_grad()
def mlp_value_vectors(
    model: Model, responses: Sequence[Response], vector: Float[Tensor, "d_model"], layer: int, *, batch_size: int = 8,
) -> MLPVectors:
    """First-order effect of s on what each MLP writes, norms included, at the response positions of the base run.

    The paper stops at the heads: unlike svv, which is a head's whole direct response to s whatever the input, an
    MLP's response depends on where it starts. Hence the average, and how constant it is. Float32, on the CPU.

    Raises:
        ValueError: no response, or one, a vector or a layer that does not fit the model.
    """
    cases = Cases.of(model, responses, Steering(vector, layer))
    vector, layers = cases.vector.to(model.device, model.dtype), range(cases.layer, model.n_layers)
    total = torch.zeros(len(layers), model.d_model, dtype=torch.float64, device=model.device)
    squares, positions = total.new_zeros(len(layers)), 0

    def compute(rows: list[int]) -> tuple[Tensor, Tensor, int]:
        batch = cases.batch(model, rows)
        with model.trace(batch.input_ids, batch.attention_mask, logits_to_keep=1):
            streams = [model.mlp_norm(i).input for i in layers].save()
        sums, own = [], total.new_empty(len(layers))
        for i, stream in enumerate(streams):
            change = _along(model, layers[i], stream[batch.response_mask], vector).double()
            sums.append(change.sum(0))
            own[i] = change.square().sum()
        return torch.stack(sums), own, int(batch.response_mask.sum())

    for _, (sums, own, n) in in_batches(cases.lengths, batch_size, "MLP vectors", compute):
        total, squares, positions = total + sums, squares + own, positions + n
    mean = total / positions
    check_finite(mean, "MLP vectors of layers", layers)
    return MLPVectors(mean.float().cpu(), (mean.square().sum(-1) * positions / squares).float().cpu())


def _along(model: Model, layer: int, stream: Float[Tensor, "position d_model"], vector) -> Tensor:
    """Derivative of the MLP's write along the vector, at every position."""
    return torch.func.jvp(lambda x: model.mlp_on(layer, x[None])[0], (stream,), (vector.expand_as(stream),))[1]
