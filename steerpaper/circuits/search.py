"""The search for the smallest circuit that carries the steering (§6)."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from steerpaper import arguments
from steerpaper.circuits.attribution import Attribution
from steerpaper.circuits.cases import Cases
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.metrics import Metric
from steerpaper.circuits.recovery import Faithfulness
from steerpaper.circuits.runs import m_of_runs
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering


@dataclass(frozen=True, eq=False)
class MinimumFaithful:
    """The smallest top circuit found that reaches a threshold.

    Attributes:
        circuit, faithfulness: of that circuit.
        tried: columns n_edges, value: every size that was run, by size.
    """

    circuit: Circuit
    faithfulness: Faithfulness
    tried: pd.DataFrame


def minimum_faithful(
    model: Model, attribution: Attribution, responses: Sequence[Response],
    steering: Steering | Sequence[Steering], threshold: float = 0.85, *, resolution: int | None = None,
    metric: str | Metric = "logit_difference", batch_size: int = 8,
) -> MinimumFaithful:
    """The minimum-faithful circuit (§6), by bisection over the sizes resolution, 2 resolution, ...

    Where faithfulness is not monotone in size, this is one size that reaches the threshold while the next
    smaller one does not.

    Args:
        attribution: ranks the edges.
        threshold: faithfulness to reach (paper: 0.85).
        resolution: step between sizes, in edges; a hundredth of the graph unless given.
        responses, steering, metric, batch_size: as for `faithfulness`.

    Raises:
        ValueError: as for `faithfulness`, a threshold outside (0, 1], or a resolution outside 1..n_edges.
    """
    total = attribution.graph.n_edges
    resolution = max(1, total // 100) if resolution is None else resolution
    if not (0 < arguments.number("threshold", threshold) <= 1 and arguments.whole(resolution) in range(1, total + 1)):
        raise ValueError(f"threshold {threshold} and resolution {resolution} were given; allowed: a "
                         f"threshold in (0, 1] and a resolution in 1..{total}")
    cases, tried = Cases.of(model, responses, steering), {}

    def run(step: int) -> tuple[Circuit, Faithfulness]:
        circuit = Circuit.top(attribution, min(step * resolution, total))
        [table] = m_of_runs(model, [circuit], cases, metric, batch_size)
        result = Faithfulness(table)
        tried[circuit.n_edges] = result.value
        return circuit, result

    low, high, best = 1, -(-total // resolution), None  # in steps; the last, the whole graph, is faithful
    while low < high:
        middle = (low + high) // 2
        found = run(middle)
        if found[1].value >= threshold:
            high, best = middle, found
        else:
            low = middle + 1
    best = best or run(high)
    table = pd.DataFrame(sorted(tried.items()), columns=["n_edges", "value"])
    return MinimumFaithful(*best, table)
