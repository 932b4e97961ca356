"""Multi-token EAP-IG (§5, F): indirect effects of edges, nodes and dimensions."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper import arguments
from steerpaper.artifacts import load_tensors, save_tensors
from steerpaper.circuits.cases import Cases
from steerpaper.circuits.contrast import Contrast, contrasts, write_differences
from steerpaper.circuits.gradients import Gradients, integrate
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.metrics import Metric, get_metric
from steerpaper.models.kept import Kept
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.outputs import writer
from steerpaper.steering import Steering

_GRADIENTS = (True, False)  # with the norm's Jacobian, and without


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

    def save(self, preset: str, name: str, steering: Steering, manifest: dict) -> None:
        """By `save_tensors`, with the steering that it was made with and, in `manifest`, how else (steps, seed, …)."""
        tensors = {"scores": torch.from_numpy(self.scores), "gradient": self.gradient,
                   "nodes": torch.tensor(self.nodes.score.to_numpy())}
        about = _about(steering) | {"layer": self.graph.steering_layer, "graph": asdict(self.graph)}
        save_tensors(preset, name, tensors, {**manifest, **about, "positions": self.positions})

    @classmethod
    def load(cls, preset: str, name: str, steering: Steering) -> "Attribution":
        """What `save` has saved for this steering: the same layer, coefficient and vector, value by value.

        Raises:
            FileNotFoundError, ValueError: as for `load_tensors`, or an attribution made with another steering; the
                message names the difference.
        """
        tensors, about = load_tensors(preset, name)
        if differ := [f"{key} {about.get(key)!r}, given {value!r}" for key, value in _about(steering).items()
                      if about.get(key) != value]:
            raise ValueError(f"{name!r} of preset {preset!r} was made with another steering ({'; '.join(differ)}): run "
                             f"notebook {writer('tensors', name)} with this preset again")
        graph = Graph(**about["graph"])
        nodes = pd.DataFrame({"node": graph.sources, "score": tensors["nodes"].numpy()})
        return cls(graph, tensors["scores"].numpy(), nodes, tensors["gradient"], about["positions"])


def _about(steering: Steering) -> dict:
    """What tells steerings apart, as JSON."""
    values = torch.as_tensor(steering.vector).detach().cpu().float().contiguous().numpy().astype("<f4")
    return {"layer": int(steering.layer), "coefficient": float(steering.coefficient),
            "vector_sha256": hashlib.sha256(values.tobytes()).hexdigest()}


@torch.inference_mode(False)  # gradients are taken wherever it is called from
def attribute(
    model: Model, responses: Sequence[Response], steering: Steering | Sequence[Steering], *, steps: int = 10,
    metric: str | Metric = "logit_difference", norm_jacobian: bool = True, split_heads: bool = True,
    batch_size: int = 4,
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
        metric: "logit_difference", "kl" (E.2), or what these stand for, `LogitDifference()` and `DirectionalKL()`; as
            DirectionalKL(threshold=…) it leaves out positions.
        norm_jacobian: False takes the gradient after the target's norm (the final norm for the logits) and
            multiplies it with the source's difference before the norm, as the authors' code does: neither the
            norm's gamma nor its Jacobian is applied. Nodes and `gradient` are not affected.
        split_heads: whether q, k and v are targets per head or per layer.
        batch_size: responses per pass; memory grows with it and not with the number of responses.

    Raises:
        ValueError: as for `Cases.of` and `contrast.contrasts`, fewer than one step, or a score that is not finite.
    """
    steps, metric = arguments.integer("steps", steps, 1), get_metric(metric)
    cases = Cases.of(model, responses, steering)
    graph = Graph.of(model, cases.layer, split_heads)
    # Scores by both gradients: they cost the same passes, so where one is kept, the other is.
    inputs = {**cases.inputs, "steps": steps, "metric": repr(metric), "split_heads": split_heads, "batch_size": batch_size}
    kept = Kept("attribute", __name__, model.hf, inputs, {
        "scores": torch.zeros(len(_GRADIENTS), len(graph.sources), len(graph.targets), dtype=torch.float64),
        "nodes": torch.zeros(len(graph.sources), dtype=torch.float64),
        "gradient": torch.zeros(model.d_model, dtype=torch.float64), "positions": torch.tensor(0)})

    def added(contrast: Contrast) -> tuple[int, dict[str, Tensor]]:
        return len(contrast.rows), _added(model, graph, contrast, steps, kept.state)

    for n, sums in contrasts(model, cases, added, metric=metric, batch_size=batch_size, what="attribute",
                             done=(kept.done, int(kept.state["positions"]))):
        kept.state = sums
        kept.keep(n)
    positions, gradient = int(kept.state["positions"]), kept.state["gradient"]
    scores = kept.state["scores"][_GRADIENTS.index(norm_jacobian)].numpy() / (steps * positions)
    nodes = kept.state["nodes"].numpy() / (steps * positions)
    if not (np.isfinite(scores[graph.mask]).all() and np.isfinite(nodes).all()):
        raise ValueError("some scores are not finite (NaN or inf): use a smaller coefficient or a wider dtype")
    scores[~graph.mask] = np.nan
    table = pd.DataFrame({"node": graph.sources, "score": nodes})
    return Attribution(graph, scores, table, gradient / positions, positions)


# -- scores ------------------------------------------------------------------------------------------------

def _added(
    model: Model, graph: Graph, contrast: Contrast, steps: int, sums: dict[str, Tensor],
) -> dict[str, Tensor]:
    """The sums so far plus a batch's own; those given stay as they are, should memory run out."""
    if not contrast.measure.mask.any():
        return sums
    sums = {name: tensor.clone() for name, tensor in sums.items()}
    gradients = integrate(model, graph, contrast, steps, _GRADIENTS)
    for row in range(len(contrast.rows)):
        _contract(model, graph, contrast, gradients, row, sums["scores"], sums["nodes"])
    sums["gradient"] += (contrast.alpha * gradients[0].streams[0]).sum((0, 1)).cpu().double() / steps
    sums["positions"] += contrast.measure.mask.sum().cpu()
    return sums


@torch.no_grad()
def _contract(model: Model, graph: Graph, contrast: Contrast, gradients: Sequence[Gradients], row: int, scores: Tensor,
              nodes: Tensor) -> None:
    """Add a row of a batch to the scores by each gradient: differences of the sources times gradients of the targets.

    Row by row and layer by layer, so that only one row's activations are ever spelled out per source and per
    target. Fills in some pairs that no edge joins, too; the graph's mask tells them apart.
    """
    differences = contrast.addition.new_empty(len(graph.sources), *contrast.base.final.shape[1:])
    differences[0], streams = contrast.addition[row], [stream[row] for stream in gradients[0].streams]
    nodes[:1] += _dot(differences[:1], streams[0][None])[:, 0]
    for i, layer in enumerate(graph.layers):
        heads = graph.heads(layer)
        writes, mlp = write_differences(model, contrast, layer, slice(row, row + 1))
        differences[heads], differences[heads.stop] = writes[:, 0], mlp[0]
        for sums, one in zip(scores, gradients):
            columns, targets = one.targets(layer, row)
            sums[:heads.stop, columns] += _dot(differences[:heads.stop], targets)
        nodes[heads] += _dot(differences[heads], streams[2 * i + 1][None])[:, 0]
        nodes[heads.stop] += _dot(differences[heads.stop][None], streams[2 * i + 2][None])[0, 0]
    for sums, one in zip(scores, gradients):
        columns, targets = one.targets(graph.n_layers, row)
        sums[:, columns] += _dot(differences, targets)


def _dot(sources: Tensor, targets: Tensor) -> Float[Tensor, "source target"]:
    """Inner products over positions and d_model, in float64 on the CPU."""
    return (sources.flatten(1) @ targets.flatten(1).T).cpu().double()
