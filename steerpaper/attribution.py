"""Multi-token EAP-IG (§5, F): indirect effects of edges, nodes and dimensions, and exact patching."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper import arguments
from steerpaper.batches import in_batches
from steerpaper.gradients import Gradients, integrate
from steerpaper.graph import Graph
from steerpaper.model import Model
from steerpaper.responses import Response
from steerpaper.resume import Progress
from steerpaper.runs import (
    Contrast, contrasts, head_writes, one_steering, projected, target_weight, wide, with_bias,
)
from steerpaper.steering import Steering


@dataclass(frozen=True, eq=False)
class Attribution:
    """Indirect effects, in units of the metric per position.

    Attributes:
        graph: the nodes and edges that were scored.
        scores: one per source and target, NaN where no edge joins them.
        nodes: columns node, score: the effect of a source along all of its edges.
        gradient: alpha times the mean integrated gradient at the steering node, summed over its positions, so
            that the steering node's effect per dimension is vector * gradient (§7).
        positions: unmasked response positions, the number that every sum was divided by.
    """

    graph: Graph
    scores: Float[np.ndarray, "source target"]
    nodes: pd.DataFrame
    gradient: Float[Tensor, "d_model"]
    positions: int

    @property
    def edges(self) -> pd.DataFrame:
        """Columns source, target, score, in the graph's order."""
        return self.graph.edges.assign(score=self.scores[self.graph.mask])

    @classmethod
    def pooled(cls, parts: Sequence["Attribution"]) -> "Attribution":
        """What `attribute` makes of the parts' responses taken together: means weighted by their positions.

        Raises:
            ValueError: no parts, or parts of different graphs.
        """
        if not parts or any(part.graph != parts[0].graph for part in parts):
            raise ValueError(f"{len(parts)} attributions cannot be pooled: pass at least one, all of one graph")
        positions = sum(part.positions for part in parts)
        weights = [part.positions / positions for part in parts]
        scores = sum(weight * part.scores for weight, part in zip(weights, parts))
        nodes = parts[0].nodes.assign(score=sum(w * part.nodes.score for w, part in zip(weights, parts)))
        gradient = sum(weight * part.gradient for weight, part in zip(weights, parts))
        return cls(parts[0].graph, scores, nodes, gradient, positions)


@torch.inference_mode(False)  # gradients are taken wherever it is called from
def attribute(
    model: Model, responses: Sequence[Response], steering: Steering | Sequence[Steering], *, steps: int = 10,
    metric: str = "logit_difference", kl_threshold: float = 0.0, norm_jacobian: bool = True,
    split_heads: bool = True, batch_size: int = 4,
) -> Attribution:
    """Indirect effect of every edge, source and steered dimension by integrated gradients (§5, F).

    The score of edge (u, v) is (u_steered - u_base) times the gradient of m at v's input, averaged over
    `steps` midpoints between the base and the steered stream, summed over all positions and over the unmasked
    response positions of m, divided by their number in the data set. For responses of the steered model the
    paper swaps the two runs and with them m: both factors change sign and the score is the same, so both
    kinds of response go through here alike.

    Args:
        responses: base or steered responses to teacher-force.
        steering: one for all responses or one each; they may differ in the coefficient only.
        steps: T, midpoints of the path.
        metric: "logit_difference" or "kl" (E.2); see `runs.LogitDifference` and `runs.DirectionalKL`.
        kl_threshold: "kl" leaves out positions with KL(P_steered || P_base) below it, in nats.
        norm_jacobian: False takes the gradient after the target's norm (the final norm for the logits) and
            multiplies it with the source's difference before the norm, as the authors' code does: neither the
            norm's gamma nor its Jacobian is applied. Nodes and `gradient` are not affected.
        split_heads: whether q, k and v are targets per head or per layer.
        batch_size: responses per pass; memory grows with it and not with the number of responses.

    Raises:
        ValueError: as for `runs.contrasts`, fewer than one step, or a score that is not finite.
    """
    steps = arguments.integer("steps", steps, 1)
    steerings = one_steering(model, responses, steering)
    graph, how = Graph.of(model, steerings[0].layer, split_heads), dict(metric=metric, kl_threshold=kl_threshold)
    inputs = {
        "rows": [(response.prompt, response.completion) for response in responses], "layer": graph.steering_layer,
        "alphas": [float(s.coefficient) for s in steerings], "vector": steerings[0].vector, "steps": steps, **how,
        "norm_jacobian": norm_jacobian, "split_heads": split_heads, "batch_size": batch_size,
    }
    progress = Progress("attribute", model.hf, inputs, {
        "scores": torch.zeros(len(graph.sources), len(graph.targets), dtype=torch.float64),
        "nodes": torch.zeros(len(graph.sources), dtype=torch.float64),
        "gradient": torch.zeros(model.d_model, dtype=torch.float64), "positions": torch.tensor(0)})

    def added(contrast: Contrast) -> tuple[int, dict[str, Tensor]]:
        return len(contrast.rows), _added(model, graph, contrast, steps, norm_jacobian, progress.state)

    for n, sums in contrasts(model, responses, steerings, added, **how, batch_size=batch_size, what="attribute",
                             done=(progress.done, int(progress.state["positions"]))):
        progress.state = sums
        progress.keep(n)
    positions, gradient = int(progress.state["positions"]), progress.state["gradient"]
    scores, nodes = (progress.state[name].numpy() / (steps * positions) for name in ("scores", "nodes"))
    if not (np.isfinite(scores[graph.mask]).all() and np.isfinite(nodes).all()):
        raise ValueError("some scores are not finite (NaN or inf): use a smaller coefficient or a wider dtype")
    scores[~graph.mask] = np.nan
    table = pd.DataFrame({"node": graph.sources, "score": nodes})
    return Attribution(graph, scores, table, gradient / positions, positions)


# -- scores ------------------------------------------------------------------------------------------------

def _added(
    model: Model, graph: Graph, contrast: Contrast, steps: int, norm_jacobian: bool, sums: dict[str, Tensor],
) -> dict[str, Tensor]:
    """The sums so far plus a batch's own; those given stay as they are, should memory run out."""
    if not contrast.metric.mask.any():
        return sums
    sums = {name: tensor.clone() for name, tensor in sums.items()}
    gradients = integrate(model, graph, contrast, steps, norm_jacobian)
    for row in range(len(contrast.rows)):
        _contract(model, graph, contrast, gradients, row, sums["scores"], sums["nodes"])
    sums["gradient"] += (contrast.alpha * gradients.streams[0]).sum((0, 1)).cpu().double() / steps
    sums["positions"] += contrast.metric.mask.sum().cpu()
    return sums


@torch.no_grad()
def _contract(model: Model, graph: Graph, contrast: Contrast, gradients: Gradients, row: int, scores: Tensor,
              nodes: Tensor) -> None:
    """Add a row of a batch to the scores: differences of the sources times gradients of the targets.

    Row by row and layer by layer, so that only one row's activations are ever spelled out per source and per
    target. Fills in some pairs that no edge joins, too; the graph's mask tells them apart.
    """
    differences = contrast.addition.new_empty(len(graph.sources), *contrast.base.final.shape[1:])
    differences[0], streams = contrast.addition[row], [stream[row] for stream in gradients.streams]
    nodes[:1] += _dot(differences[:1], streams[0][None])[:, 0]
    for i, layer in enumerate(graph.layers):
        heads = graph.heads(layer)
        writes, mlp = _differences(model, contrast, layer, slice(row, row + 1))
        differences[heads], differences[heads.stop] = writes[:, 0], mlp[0]
        columns, targets = gradients.targets(layer, row)
        scores[:heads.stop, columns] += _dot(differences[:heads.stop], targets)
        nodes[heads] += _dot(differences[heads], streams[2 * i + 1][None])[:, 0]
        nodes[heads.stop] += _dot(differences[heads.stop][None], streams[2 * i + 2][None])[0, 0]
    columns, targets = gradients.targets(graph.n_layers, row)
    scores[:, columns] += _dot(differences, targets)


def _differences(
    model: Model, contrast: Contrast, layer: int, rows: slice = slice(None),
) -> tuple[Float[Tensor, "head batch pos d_model"], Float[Tensor, "batch pos d_model"]]:
    """Steered minus base writes of a layer's heads and of its MLP, in some rows of the batch."""
    i, dtype = layer - contrast.layer, wide(model)
    heads = contrast.steered.heads[i][rows].to(dtype) - contrast.base.heads[i][rows].to(dtype)
    mlp = contrast.steered.mlps[i][rows].to(dtype) - contrast.base.mlps[i][rows].to(dtype)
    return head_writes(model, layer, heads), mlp


def _dot(sources: Tensor, targets: Tensor) -> Float[Tensor, "source target"]:
    """Inner products over positions and d_model, in float64 on the CPU."""
    return (sources.flatten(1) @ targets.flatten(1).T).cpu().double()


# -- exact patching ----------------------------------------------------------------------------------------

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
        ValueError: as for `runs.contrasts`, no edge, or one that the graph does not have.
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
    heads, mlp = _differences(model, contrast, layer + graph.steering_layer)
    return mlp if head == graph.n_heads else heads[head]
