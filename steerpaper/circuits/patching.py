"""Exact patching (§5): the true indirect effects of edges, one at a time."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper.circuits.cases import Cases
from steerpaper.circuits.contrast import Contrast, contrasts, only_unmasked, target_weight, write_differences
from steerpaper.circuits.graph import Graph, Node
from steerpaper.circuits.metrics import Metric, get_metric
from steerpaper.models.batches import in_batches
from steerpaper.models.kept import Kept
from steerpaper.models.maps import projected, wide, with_bias
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering


@torch.no_grad()
def patch_edges(
    model: Model, responses: Sequence[Response], steering: Steering | Sequence[Steering],
    edges: pd.DataFrame, *, metric: str | Metric = "logit_difference", split_heads: bool = True, batch_size: int = 32,
) -> pd.DataFrame:
    """True indirect effects: m of the base run with one edge patched, minus m of the base run.

    Patching (u, v) has v alone read u's steered instead of its base activation; everything after v responds.
    This is what the scores of `attribute` approximate, in the same units.

    Args:
        edges: columns source, target: what to patch, one edge at a time.
        responses, steering, metric, split_heads: as for `attribute`.
        batch_size: rows per pass, each one response with one edge patched.

    Returns:
        Columns source, target, score, in the order given.

    Raises:
        ValueError: as for `attribute`, no edge, or one that the graph does not have.
    """
    cases, metric = Cases.of(model, responses, steering), get_metric(metric)
    graph = Graph.of(model, cases.layer, split_heads)
    if not len(edges):
        raise ValueError("no edges given: take some rows of graph.edges")
    graph.index(edges)  # refuses those that it does not have
    pairs = [(graph.node(source), graph.node(target)) for source, target in zip(edges["source"], edges["target"])]
    by_layer: dict[int, list[int]] = {}
    for i, (_, target) in enumerate(pairs):
        by_layer.setdefault(target.layer, []).append(i)

    inputs = {**cases.inputs, "metric": repr(metric), "split_heads": split_heads, "batch_size": batch_size,
              "edges": edges[["source", "target"]].to_numpy().tolist()}
    kept = Kept("patch", __name__, model.hf, inputs, {
        "effects": torch.zeros(len(pairs), dtype=torch.float64), "positions": torch.tensor(0)})

    def patched(contrast: Contrast) -> tuple[int, int, np.ndarray]:
        base, own = contrast.measure(contrast.base.logits), np.zeros(len(pairs))
        size = max(1, batch_size // len(contrast.rows))
        for layer, which in by_layer.items():
            own[which] = _effects(model, graph, contrast, base, layer, [pairs[i] for i in which], size)
        return len(contrast.rows), int(contrast.measure.mask.sum()), own

    for n, masked, own in contrasts(model, cases, patched, metric=metric, batch_size=batch_size,
                                    what="patched responses", done=(kept.done, int(kept.state["positions"]))):
        kept.state["effects"] += torch.from_numpy(own)
        kept.state["positions"] += masked
        kept.keep(n)
    effects, positions = kept.state["effects"].numpy(), int(kept.state["positions"])
    if not np.isfinite(effects).all():
        raise ValueError("some patched runs have logits that are not finite (NaN or inf): use a smaller coefficient or "
                         "a wider dtype")
    return edges[["source", "target"]].assign(score=effects / positions)


def _effects(model: Model, graph: Graph, contrast: Contrast, base: Tensor, layer: int, pairs: list[tuple[Node, Node]],
             batch_size: int) -> Float[np.ndarray, "edge"]:
    """What patching each of some edges into one layer does to m, summed over the batch's positions."""
    effects = np.zeros(len(pairs))

    def compute(chunk: list[int]) -> np.ndarray:
        logits = _patched_logits(model, graph, contrast, layer, [pairs[i] for i in chunk])
        return (contrast.measure.at(logits) - base).cpu().double().sum(1).numpy()

    lengths = [contrast.batch.input_ids.shape[1]] * len(pairs)
    for chunk, own in in_batches(lengths, batch_size, "patch edges", compute, show=False):
        effects[chunk] = own
    return effects


def _patched_logits(model: Model, graph: Graph, contrast: Contrast, layer: int, pairs: list[tuple[Node, Node]],
                    ) -> Float[Tensor, "edge unmasked vocab"]:
    """Base runs from `layer` on, each with one edge into that layer patched; logits at unmasked positions."""
    batch, i = contrast.batch, layer - contrast.layer
    start = contrast.base.final if layer == graph.n_layers else contrast.base.attention_inputs[i]
    differences, targets = [_difference(model, contrast, source) for source, _ in pairs], [pair[1] for pair in pairs]
    streams = start.repeat(len(pairs), 1, 1)
    if layer == graph.n_layers:
        streams = (streams + torch.cat(differences)).to(model.dtype)
    ids, mask = batch.input_ids.repeat(len(pairs), 1), batch.attention_mask.repeat(len(pairs), 1)
    with model.trace(ids, mask, logits_to_keep=0):  # 0: all there are
        model.start_at(layer, streams)
        if layer < graph.n_layers:
            _patch(model, graph, contrast, layer, differences, targets)
        model.final_norm.input = only_unmasked(model.final_norm.input, contrast.measure.mask)
        logits = model.logits.save()
    return logits.to(wide(model))


def _patch(model, graph, contrast, layer, differences, targets: list[Node]) -> None:
    """Within a trace: in the rows of every edge, have its target in `layer` read the difference too."""
    n, i = len(contrast.rows), layer - contrast.layer
    projections = {"q": model.q_proj(layer), "k": model.k_proj(layer), "v": model.v_proj(layer)}
    for kind, projection in projections.items():
        if kind not in {target.kind for target in targets}:
            continue
        weight, outputs = target_weight(model, graph, layer, kind), projection.output.clone()
        bias, width = model.bias(layer, kind), weight.shape[-1]
        for row, (difference, target) in enumerate(zip(differences, targets)):
            if target.kind == kind:
                stream = (contrast.base.attention_inputs[i] + difference)[None]
                head = target.head or 0  # of a whole layer there is one
                own = projected(stream, weight[head:head + 1], model.attention_gamma(layer), model.norm_eps)
                part = slice(head * width, (head + 1) * width)
                outputs[row * n:(row + 1) * n, :, part] = with_bias(own, None if bias is None else bias[part])
        projection.output = outputs
    into_mlp = [difference if target.kind == "mlp" else torch.zeros_like(difference)
                for difference, target in zip(differences, targets)]
    middle = model.mlp_norm(layer).input
    model.mlp_norm(layer).input = (middle + torch.cat(into_mlp)).to(model.dtype)


def _difference(model: Model, contrast: Contrast, source: Node) -> Float[Tensor, "batch pos d_model"]:
    """Steered minus base activation of one source."""
    if source.kind == "steer":
        return contrast.addition.expand_as(contrast.base.final)
    heads, mlp = write_differences(model, contrast, source.layer)
    return mlp if source.kind == "mlp" else heads[source.head]
