"""The two runs of every response, base and steered (§5).

Both runs are teacher-forced on the same tokens and share every layer below the steering layer, which are run
once (see `contrasts`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerpaper.circuits.cases import Cases
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.metrics import Measure, Metric, get_metric
from steerpaper.finite import check_finite
from steerpaper.models.batches import in_batches
from steerpaper.models.maps import head_writes, scaled_heads, wide
from steerpaper.models.model import Model
from steerpaper.models.responses import Batch

T = TypeVar("T")


class NoPositionLeft(ValueError):
    """The metric is masked at every position of all responses."""


@dataclass(frozen=True)
class Run:
    """What one forward pass read and wrote from the steering layer on; lists have one entry per layer.

    Attributes:
        attention_inputs: h^l, the stream entering the layer, before the norm.
        mlp_inputs: the stream between attention and MLP, before the norm.
        final: the stream entering the final norm.
        heads: output of every head before `W_O`; with a post-norm, divided by the RMS of the heads' sum.
            Times `W_O`, times the post-norm's gamma, it is the head's write (§4, A): see `head_writes`.
        mlps: what the MLP adds to the stream.
        logits: at the response positions, the last ones of the padded rows.
    """

    attention_inputs: list[Float[Tensor, "batch pos d_model"]]
    mlp_inputs: list[Float[Tensor, "batch pos d_model"]]
    final: Float[Tensor, "batch pos d_model"]
    heads: list[Float[Tensor, "batch pos head d_head"]]
    mlps: list[Float[Tensor, "batch pos d_model"]]
    logits: Float[Tensor, "batch kept vocab"]


@dataclass(frozen=True)
class Contrast:
    """A batch of responses, base and steered.

    Attributes:
        rows: which of the responses these are.
        batch: their tokens; `kept` the number of last positions that hold every response position.
        layer: the steering layer.
        alpha: the coefficient of every row; `addition` is alpha s.
        measure: m between the two runs.
    """

    rows: list[int]
    batch: Batch
    kept: int
    layer: int
    alpha: Float[Tensor, "batch 1 1"]
    addition: Float[Tensor, "batch 1 d_model"]
    base: Run
    steered: Run
    measure: Measure


def contrasts(
    model: Model, cases: Cases, compute: Callable[[Contrast], T] = lambda contrast: contrast, *,
    metric: str | Metric, batch_size: int, what: str, done: tuple[int, int] = (0, 0),
) -> Iterator[T]:
    """What `compute` makes of the base and steered runs of the responses, batch by batch; by itself, these runs.

    Args:
        compute: takes a batch; called again with fewer responses if memory runs out, see `batches.in_batches`.
        metric: a name in `metrics.METRICS`, or a metric.
        what: as for `in_batches`.
        done: the number of first responses, by length, that are not needed any more, and of their unmasked positions.

    Raises:
        ValueError: an unknown metric, or logits that are not finite.
        NoPositionLeft: at the end, if the metric was masked at every position.
    """
    metric = get_metric(metric)

    def run(rows: list[int]) -> tuple[int, T]:
        contrast = _contrast(model, cases, rows, metric)
        return int(contrast.measure.mask.sum()), compute(contrast)

    n_done, n_positions = done
    for _, (n, result) in in_batches(cases.lengths, batch_size, what, run, n_done):
        n_positions += n
        yield result
        del result  # two batches never live at once
    if not n_positions:
        raise NoPositionLeft(f"none of the {len(cases.responses)} responses has a position left: {metric.why_masked}")


@torch.no_grad()
def _contrast(model: Model, cases: Cases, rows: list[int], metric: Metric) -> Contrast:
    batch, layer = cases.batch(model, rows), cases.layer
    alpha, addition = cases.additions(model, rows)
    kept = 1 + max(len(cases.responses[i].completion) for i in rows)
    base = _run(model, batch, kept, layer)
    steered = _run(model, batch, kept, layer, base.attention_inputs[0] + addition.to(model.dtype))
    mask = batch.response_mask[:, -kept:]
    for name, run in (("base", base), ("steered", steered)):
        check_finite(run.logits.where(mask[..., None], 0), f"logits of the {name} run of responses", rows)
    measure = metric.between(base.logits, steered.logits, mask)
    return Contrast(rows, batch, kept, layer, alpha, addition, base, steered, measure)


def _run(model: Model, batch: Batch, kept: int, layer: int, stream: Tensor | None = None) -> Run:
    """One pass, whole or from `layer` on, recorded there."""
    with model.trace(batch.input_ids, batch.attention_mask, logits_to_keep=kept):
        if stream is not None:
            model.start_at(layer, stream)
        recorded = _record(model, layer)
        recorded.save()
        final = model.final_norm.input.save()
        logits = model.logits.save()
    inputs, heads, mlp_inputs, mlps = map(list, zip(*recorded))
    return Run(inputs, mlp_inputs, final, heads, mlps, logits.to(wide(model)))


def _record(model: Model, first: int) -> list[tuple[Tensor, ...]]:
    """Within a trace: per layer h^l, the heads' scaled outputs, the MLP's input and its write."""
    recorded = []
    for layer in range(first, model.n_layers):
        stream, heads = model.layer(layer).input, scaled_heads(model, layer)
        recorded.append((stream, heads, model.mlp_norm(layer).input, model.mlp_write(layer).output))
    return recorded


def only_unmasked(
    stream: Float[Tensor, "run*batch pos d_model"], mask: Bool[Tensor, "batch kept"],
) -> Float[Tensor, "run unmasked d_model"]:
    """What the final norm is to read, for logits at a measure's unmasked positions alone, of one or several runs."""
    return stream.unflatten(0, (-1, len(mask)))[:, :, -mask.shape[1]:][:, mask]


def write_differences(
    model: Model, contrast: Contrast, layer: int, rows: slice = slice(None),
) -> tuple[Float[Tensor, "head batch pos d_model"], Float[Tensor, "batch pos d_model"]]:
    """Steered minus base writes of a layer's heads and of its MLP, in some rows of the batch."""
    i, dtype = layer - contrast.layer, wide(model)
    heads = contrast.steered.heads[i][rows].to(dtype) - contrast.base.heads[i][rows].to(dtype)
    mlp = contrast.steered.mlps[i][rows].to(dtype) - contrast.base.mlps[i][rows].to(dtype)
    return head_writes(model, layer, heads), mlp


def target_weight(model: Model, graph: Graph, layer: int, kind: str) -> Float[Tensor, "target d_model width"]:
    """What the "q", "k" or "v" targets of a layer multiply their normed inputs by (a view)."""
    weight = {"q": model.W_Q, "k": model.W_K, "v": model.W_V}[kind](layer)
    return weight if graph.split_heads else weight.mT.flatten(0, 1).mT[None]
