"""Exact patching (§5): the true indirect effects of edges, one at a time."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper.circuits.contrast import Contrast, contrasts, one_steering, target_weight, write_differences
from steerpaper.circuits.graph import Graph
from steerpaper.models.batches import in_batches
from steerpaper.models.maps import projected, wide, with_bias
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering


@torch.no_grad()
def patch_edges(
    model: Model, responses: Sequence[Response], steering: Steering | Sequence[Steering],
    edges: pd.DataFrame, *, metric: str = "logit_difference", kl_threshold: float = 0.0,
    split_heads: bool = True, batch_size: int = 32,
) -> pd.DataFrame:
    """True indirect effects: m of the base run with one edge patched, minus m of the base run.

    Patching (u, v) has v alone read u's steered instead of its base activation; everything after v responds.
    This is what the scores of `attribute` approximate, in the same units.

    Args:
        edges: columns source, target: what to patch, one edge at a time.
        responses, steering, metric, kl_threshold, split_heads: as for `attribute`.
        batch_size: rows per pass, each one response with one edge patched.

    Returns:
        Columns source, target, score, in the order given.

    Raises:
        ValueError: as for `contrast.contrasts`, no edge, or one that the graph does not have.
    """
    layer = one_steering(model, responses, steering)[0].layer
    graph = Graph.of(model, layer, split_heads)
    if not len(edges):
        raise ValueError("no edges given: take some rows of graph.edges")
    pairs = list(zip(*graph.index(edges)))
    by_layer: dict[int, list[int]] = {}
    for i, (_, target) in enumerate(pairs):
        by_layer.setdefault(graph.place(target)[0], []).append(i)

    def patched(contrast: Contrast) -> tuple[int, np.ndarray]:
        base, own = contrast.metric(contrast.base.logits), np.zeros(len(pairs))
        size = max(1, batch_size // len(contrast.rows))
        for layer, which in by_layer.items():
            own[which] = _effects(model, graph, contrast, base, layer, [pairs[i] for i in which], size)
        return int(contrast.metric.mask.sum()), own

    effects, positions = np.zeros(len(pairs)), 0
    for n, own in contrasts(model, responses, steering, patched, metric=metric, kl_threshold=kl_threshold,
                            batch_size=batch_size, what="patched responses"):
        effects, positions = effects + own, positions + n
    if not np.isfinite(effects).all():
        raise ValueError("some patched runs have logits that are not finite (NaN or inf): use a smaller coefficient or "
                         "a wider dtype")
    return edges[["source", "target"]].assign(score=effects / positions)


def _effects(model: Model, graph: Graph, contrast: Contrast, base: Tensor, layer: int, pairs: list[tuple[int, int]],
             batch_size: int) -> Float[np.ndarray, "edge"]:
    """What patching each of some edges into one layer does to m, summed over the batch's positions."""
    effects = np.zeros(len(pairs))

    def compute(chunk: list[int]) -> np.ndarray:
        logits = _patched_logits(model, graph, contrast, layer, [pairs[i] for i in chunk])
        return (contrast.metric(logits) - base).cpu().double().sum((1, 2)).numpy()

    lengths = [contrast.batch.input_ids.shape[1]] * len(pairs)
    for chunk, own in in_batches(lengths, batch_size, "patch edges", compute, show=False):
        effects[chunk] = own
    return effects


def _patched_logits(model: Model, graph: Graph, contrast: Contrast, layer: int, pairs: list[tuple[int, int]],
                    ) -> Float[Tensor, "edge batch kept vocab"]:
    """Base runs from `layer` on, each with one edge into that layer patched."""
    n, batch, i = len(contrast.rows), contrast.batch, layer - contrast.layer
    start = contrast.base.final if layer == graph.n_layers else contrast.base.attention_inputs[i]
    differences = [_difference(model, contrast, graph, source) for source, _ in pairs]
    places = [graph.place(target)[1:] for _, target in pairs]
    streams = start.repeat(len(pairs), 1, 1)
    if layer == graph.n_layers:
        streams = (streams + torch.cat(differences)).to(model.dtype)
    ids, mask = batch.input_ids.repeat(len(pairs), 1), batch.attention_mask.repeat(len(pairs), 1)
    with model.trace(ids, mask, logits_to_keep=contrast.kept):
        model.start_at(layer, streams)
        if layer < graph.n_layers:
            _patch(model, graph, contrast, layer, differences, places)
        logits = model.logits.save()
    return logits.to(wide(model)).unflatten(0, (len(pairs), n))


def _patch(model, graph, contrast, layer, differences, places) -> None:
    """Within a trace: in the rows of every edge, have its target in `layer` read the difference too."""
    n, i = len(contrast.rows), layer - contrast.layer
    projections = {"q": model.q_proj(layer), "k": model.k_proj(layer), "v": model.v_proj(layer)}
    for kind, projection in projections.items():
        if kind not in {name for name, _ in places}:
            continue
        weight, outputs = target_weight(model, graph, layer, kind), projection.output.clone()
        bias, width = model.bias(layer, kind), weight.shape[-1]
        for row, (difference, (name, head)) in enumerate(zip(differences, places)):
            if name == kind:
                stream = (contrast.base.attention_inputs[i] + difference)[None]
                own = projected(stream, weight[head:head + 1], model.attention_gamma(layer), model.norm_eps)
                part = slice(head * width, (head + 1) * width)
                outputs[row * n:(row + 1) * n, :, part] = with_bias(own, None if bias is None else bias[part])
        projection.output = outputs
    into_mlp = [difference if name == "m" else torch.zeros_like(difference)
                for difference, (name, _) in zip(differences, places)]
    middle = model.mlp_norm(layer).input
    model.mlp_norm(layer).input = (middle + torch.cat(into_mlp)).to(model.dtype)


def _difference(
    model: Model, contrast: Contrast, graph: Graph, source: int,
) -> Float[Tensor, "batch pos d_model"]:
    """Steered minus base activation of one source."""
    if source == 0:
        return contrast.addition.expand_as(contrast.base.final)
    layer, head = divmod(source - 1, graph.n_heads + 1)
    heads, mlp = write_differences(model, contrast, layer + graph.steering_layer)
    return mlp if head == graph.n_heads else heads[head]
