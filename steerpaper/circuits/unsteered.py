"""The gradient at the steering node in the run that is not steered: what a direction would do, before any is taken."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper.circuits.cases import Cases
from steerpaper.circuits.contrast import Contrast, contrasts
from steerpaper.circuits.gradients import integrate
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.metrics import get_metric
from steerpaper.models.kept import Kept
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering


@torch.inference_mode(False)  # gradients are taken wherever it is called from
def unsteered_gradient(
    model: Model, responses: Sequence[Response], steering: Steering | Sequence[Steering], *,
    metric: str = "logit_difference", batch_size: int = 4,
) -> Float[Tensor, "d_model"]:
    """The gradient of m at the steering node at alpha = 0, with the sign and size of alpha, in logits per position.

    As `Attribution.gradient`, which is its mean over the path from the base to the steered stream, at the path's first
    point alone: so it does not look at the direction of the vector. The metric does, as far as it has to know what
    steering changes: y and y* and the unmasked positions are those of the steered and the base run.

    Args:
        responses, steering, metric, batch_size: as for `attribute`.

    Raises:
        ValueError: as for `attribute`.
    """
    cases, metric = Cases.of(model, responses, steering), get_metric(metric)
    graph = Graph.of(model, cases.layer)
    inputs = {**cases.inputs, "metric": repr(metric), "batch_size": batch_size}
    kept = Kept("unsteered_gradient", __name__, model.hf, inputs, {
        "gradient": torch.zeros(model.d_model, dtype=torch.float64), "positions": torch.tensor(0)})

    def added(contrast: Contrast) -> tuple[int, dict[str, Tensor]]:
        return len(contrast.rows), _added(model, graph, contrast, kept.state)

    done = kept.done, int(kept.state["positions"])
    for n, sums in contrasts(model, cases, added, metric=metric, batch_size=batch_size, what="unsteered gradient",
                             done=done):
        kept.state = sums
        kept.keep(n)
    return kept.state["gradient"] / int(kept.state["positions"])


def _added(model: Model, graph: Graph, contrast: Contrast, sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sums so far plus a batch's own."""
    if not contrast.measure.mask.any():
        return sums
    # A path of no length: its one midpoint is the base run, while the measure stays that of the steered one.
    start = replace(contrast, addition=torch.zeros_like(contrast.addition))
    gradients = integrate(model, graph, start, 1, [True])[0]
    return {"gradient": sums["gradient"] + (contrast.alpha * gradients.streams[0]).sum((0, 1)).cpu().double(),
            "positions": sums["positions"] + contrast.measure.mask.sum().cpu()}
