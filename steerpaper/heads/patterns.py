"""Attention patterns: the weights with which positions attend, and how far steering moves them (§6)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper.circuits.cases import Cases
from steerpaper.models.batches import in_batches
from steerpaper.models.model import Model
from steerpaper.models.responses import Batch, Response
from steerpaper.steering import Steering


@torch.no_grad()
def attention_change(
    model: Model, responses: Sequence[Response], steering: Steering | Sequence[Steering], *, batch_size: int = 8,
) -> pd.DataFrame:
    """How far steering moves the attention of every head from the steering layer on.

    Base and steered run are teacher-forced on the same tokens. The change at a position is the total-variation
    distance between the weights it attends with in the two runs, half the sum of |A_steered - A_base| over keys:
    0 where they are equal, 1 where they share no key.

    Args:
        steering: one for all responses or one each; they may differ in the coefficient only.
        batch_size: responses per pass.

    Returns:
        Columns layer, head, total_variation: the mean over all response positions of all responses.

    Raises:
        ValueError: no response, or one that does not fit the model; steerings that do not fit the model or the
            responses, or that differ in layer or vector; attention that is not finite.
    """
    cases = Cases.of(model, responses, steering)
    layer, positions = cases.layer, 0
    total = torch.zeros(model.n_layers - layer, model.n_heads, dtype=torch.float64, device=model.device)

    def compute(rows: list[int]) -> tuple[Tensor, int]:
        batch, (_, addition) = cases.batch(model, rows), cases.additions(model, rows)
        stream = _stream(model, batch, layer)
        base = attention_weights(model, batch, layer, stream)
        steered = attention_weights(model, batch, layer, stream + addition.to(model.dtype))
        mask = batch.response_mask[:, -base[0].shape[2]:]
        distances = ((after.double() - before.double()).abs().sum(-1) / 2 for before, after in zip(base, steered))
        return torch.stack([(distance * mask[:, None]).sum((0, 2)) for distance in distances]), int(mask.sum())

    for _, (sums, n) in in_batches(cases.lengths, batch_size, "attention patterns", compute):
        total, positions = total + sums, positions + n
    if not total.isfinite().all():
        raise ValueError("some attention weights are not finite (NaN or inf): use a smaller coefficient or a wider "
                         "dtype")
    layers, heads = np.indices(total.shape)
    return pd.DataFrame({"layer": layer + layers.ravel(), "head": heads.ravel(),
                         "total_variation": (total / positions).cpu().numpy().ravel()})


@torch.no_grad()
def attention_weights(
    model: Model, batch: Batch, layer: int, stream: Float[Tensor, "batch pos d_model"],
) -> list[Float[Tensor, "batch head kept key"]]:
    """Attention weights of the run that enters `layer` with `stream`, from that layer on.

    Kept are the last positions of the padded rows, as many as hold every response position; keys are all
    positions.
    """
    first = int(batch.response_mask.any(0).long().argmax())
    with model.eager_attention(), model.trace(batch.input_ids, batch.attention_mask, logits_to_keep=1):
        model.start_at(layer, stream)
        weights = [model.attention_weights(i)[:, :, first:] for i in range(layer, model.n_layers)]
        weights.save()
    return weights


def _stream(model: Model, batch: Batch, layer: int) -> Float[Tensor, "batch pos d_model"]:
    """The base run's residual stream entering `layer`; nothing from there on is computed."""
    with model.trace(batch.input_ids, batch.attention_mask) as tracer:
        stream = model.layer(layer).input.save()
        tracer.stop()
    return stream
