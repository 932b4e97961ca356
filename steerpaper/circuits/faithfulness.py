"""Circuits: sets of edges, and how much of the steering they carry when only they run steered (§6)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from steerpaper import arguments
from steerpaper.circuits.attribution import Attribution
from steerpaper.circuits.contrast import Contrast, circuit_logits, contrasts, one_steering
from steerpaper.circuits.graph import Edges, Graph
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering


@dataclass(frozen=True, eq=False)
class Circuit:
    """A set of edges of a graph.

    Attributes:
        graph: where the edges come from.
        mask: True at the circuit's edges, one row per source and one column per target.

    Raises:
        ValueError: a mask of another shape, or with edges that the graph does not have.
    """

    graph: Graph
    mask: Edges

    def __post_init__(self):
        if self.mask.shape != self.graph.mask.shape or (self.mask & ~self.graph.mask).any():
            raise ValueError(f"the mask of shape {self.mask.shape} is not a set of this graph's edges, "
                             f"{self.graph.mask.shape}: make circuits by Circuit.top, random or of")

    @classmethod
    def of(cls, graph: Graph, edges: pd.DataFrame) -> "Circuit":
        """The circuit of edges given by name (columns source, target). Raises ValueError as `graph.index`."""
        mask = np.zeros_like(graph.mask)
        mask[graph.index(edges)] = True
        return cls(graph, mask)

    @classmethod
    def top(cls, attribution: Attribution, n_edges: int) -> "Circuit":
        """The edges of largest |score| (§6).

        Only those on a path from the steering node to the logits count, and the list is extended until
        `n_edges` remain; a few more where the last one closes several paths at once.

        Raises:
            ValueError: n_edges outside 1..graph.n_edges.
        """
        graph, n_edges = attribution.graph, _size(attribution.graph, n_edges)
        return cls._first(graph, np.argsort(-np.abs(attribution.scores[graph.mask]), kind="stable"), n_edges)

    @classmethod
    def random(cls, graph: Graph, n_edges: int, seed: int) -> "Circuit":
        """As `top`, with the edges in random order: so its size is matched after pruning."""
        n_edges, seed = _size(graph, n_edges), arguments.integer("seed", seed, 0)
        return cls._first(graph, np.random.default_rng([seed, n_edges]).permutation(graph.n_edges), n_edges)

    @classmethod
    def _first(cls, graph: Graph, order: np.ndarray, n_edges: int) -> "Circuit":
        """The fewest first edges of `order` that leave n_edges after pruning; more never leave fewer."""
        source, target = (index[order] for index in np.nonzero(graph.mask))

        def pruned(n: int) -> Edges:
            mask = np.zeros_like(graph.mask)
            mask[source[:n], target[:n]] = True
            return graph.prune(mask)

        low, high = n_edges, graph.n_edges
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if pruned(middle).sum() >= n_edges else (middle + 1, high)
        return cls(graph, pruned(low))

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return int(self.mask.sum())

    @property
    def edges(self) -> pd.DataFrame:
        """The edges by name: columns source, target, in the graph's order."""
        return self.graph.table(self.mask)

    def complement(self) -> "Circuit":
        """All other edges of the graph, those on no path included.

        These change no run, but for post-norms: there a head counts in its layer's RMS wherever it leads.
        """
        return Circuit(self.graph, self.graph.mask & ~self.mask)


def _size(graph: Graph, n_edges: int) -> int:
    """A number of edges that a graph has; ValueError for any other."""
    if arguments.whole(n_edges) not in range(1, graph.n_edges + 1):
        raise ValueError(f"a circuit of {n_edges!r} edges was asked for: the graph has 1..{graph.n_edges}")
    return arguments.whole(n_edges)


def overlap(one: Circuit, other: Circuit) -> float:
    """|C1 and C2| / min(|C1|, |C2|) (§6).

    Raises:
        ValueError: circuits of different graphs, or an empty one.
    """
    if one.graph != other.graph:
        raise ValueError(f"circuits of different graphs do not overlap: {one.graph} and {other.graph}")
    if not min(one.n_edges, other.n_edges):
        raise ValueError("the overlap with an empty circuit is undefined: pass circuits of at least one edge")
    return int((one.mask & other.mask).sum()) / min(one.n_edges, other.n_edges)


# -- faithfulness ------------------------------------------------------------------------------------------

_COLUMNS = ["m_base", "m_circuit", "m_steered"]


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """How much of the steering's effect a circuit carries.

    Attributes:
        value: (m(C) - m(base)) / (m(steered) - m(base)), each m averaged over the unmasked positions of all
            responses first: position by position the ratio has denominators near 0. 0 for the base run, 1 for
            the steered one; not confined to that range.
        table: one row per unmasked position: response (index), position (in its tokens), m_base, m_circuit,
            m_steered.
    """

    table: pd.DataFrame

    @property
    def value(self) -> float:
        """The faithfulness. Raises ValueError where it is undefined."""
        return float(_ratio(self.table[_COLUMNS].sum(skipna=False).to_numpy()))

    def interval(self, level: float = 0.95, n_resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Percentile bootstrap interval of `value`, responses resampled whole.

        Raises:
            ValueError: fewer than two responses, or a level outside (0, 1).
        """
        sums = self.table.groupby("response")[_COLUMNS].sum(skipna=False).to_numpy()
        if len(sums) < 2 or not 0 < arguments.number("level", level) < 1:
            raise ValueError(f"{len(sums)} responses and level {level} were given: a bootstrap needs at "
                             "least two responses, and a level between 0 and 1")
        draws = np.random.default_rng(seed).integers(len(sums), size=(n_resamples, len(sums)))
        values = _ratio(sums[draws].sum(axis=1).T)
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def by_labels(faithfulness: Faithfulness, labels: pd.Series, seed: int = 0) -> pd.DataFrame:
    """Faithfulness on the responses of each label, with the ends of its 95 % interval.

    Args:
        labels: one per response; the series' name becomes the first column, before faithfulness, low and high.

    Raises:
        ValueError: as for `Faithfulness.value` and `Faithfulness.interval`.
    """
    groups = faithfulness.table.groupby(faithfulness.table.response.map(labels))
    parts = {label: Faithfulness(table) for label, table in groups}
    rows = [(label, part.value, *part.interval(seed=seed)) for label, part in parts.items()]
    return pd.DataFrame(rows, columns=[labels.name, "faithfulness", "low", "high"])


def _ratio(sums: np.ndarray):
    """Faithfulness from the sums of m_base, m_circuit and m_steered."""
    base, circuit, steered = sums
    if not (np.isfinite(sums).all() and np.all(steered != base)):
        raise ValueError("m of the base and the steered run is equal or not finite: faithfulness is "
                         "undefined. Pass responses that the steering changes")
    return (circuit - base) / (steered - base)


def faithfulness(
    model: Model, circuit: Circuit, responses: Sequence[Response], steering: Steering | Sequence[Steering], *,
    metric: str = "logit_difference", kl_threshold: float = 0.0, batch_size: int = 8,
) -> Faithfulness:
    """Faithfulness of a circuit (§6): the steered model with all edges outside it at their base activations.

    Args:
        responses, steering, metric, kl_threshold: as for `attribute`; the paper uses steered responses.
        batch_size: responses per pass.

    Raises:
        ValueError: as for `contrast.contrasts`, or a circuit of another graph than the model's at the steering
            layer.
    """
    return faithfulness_of(model, [circuit], responses, steering, metric=metric, kl_threshold=kl_threshold,
                           batch_size=batch_size)[0]


@torch.no_grad()
def faithfulness_of(
    model: Model, circuits: Sequence[Circuit], responses: Sequence[Response],
    steering: Steering | Sequence[Steering], *,
    metric: str = "logit_difference", kl_threshold: float = 0.0, batch_size: int = 8,
) -> list[Faithfulness]:
    """As `faithfulness`, of many circuits that share the base and the steered runs."""
    layer, circuits = one_steering(model, responses, steering)[0].layer, arguments.listed("circuits", circuits)
    for circuit in circuits:
        if circuit.graph != (own := Graph.of(model, layer, circuit.graph.split_heads)):
            raise ValueError(f"the circuit belongs to {circuit.graph}, model and steering to {own}: "
                             "attribute with this model and steering layer first")

    def tables(contrast: Contrast) -> list[pd.DataFrame]:
        base, steered = (contrast.metric(run.logits) for run in (contrast.base, contrast.steered))
        runs = (circuit_logits(model, circuit.graph, circuit.mask, contrast) for circuit in circuits)
        return [_table(contrast, base, contrast.metric(logits), steered) for logits in runs]

    parts = contrasts(model, responses, steering, tables, metric=metric, kl_threshold=kl_threshold,
                      batch_size=batch_size, what="faithfulness")
    whole = (pd.concat(table).sort_values(["response", "position"], ignore_index=True) for table in zip(*parts))
    results = [Faithfulness(table) for table in whole]
    for result in results:
        result.value  # raises what is undefined or not finite here, where the run is known
    return results


def _table(contrast: Contrast, base: Tensor, circuit: Tensor, steered: Tensor) -> pd.DataFrame:
    """The rows of `Faithfulness.table` of one batch."""
    row, kept = (index.cpu() for index in contrast.metric.mask.nonzero(as_tuple=True))
    mask = contrast.batch.attention_mask.cpu()
    padding = (mask == 0).sum(dim=1)
    values = {name: m.cpu().double()[row, kept].numpy()
              for name, m in zip(_COLUMNS, (base, circuit, steered))}
    position = kept + mask.shape[1] - contrast.kept - padding[row]
    return pd.DataFrame({"response": np.array(contrast.rows)[row], "position": position.numpy(), **values})


# -- search ------------------------------------------------------------------------------------------------

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
    attribution: Attribution, model: Model, responses: Sequence[Response],
    steering: Steering | Sequence[Steering], threshold: float = 0.85, *, resolution: int | None = None,
    metric: str = "logit_difference", kl_threshold: float = 0.0, batch_size: int = 8,
) -> MinimumFaithful:
    """The minimum-faithful circuit (§6), by bisection over the sizes resolution, 2 resolution, ...

    Where faithfulness is not monotone in size, this is one size that reaches the threshold while the next
    smaller one does not.

    Args:
        attribution: ranks the edges.
        threshold: faithfulness to reach (paper: 0.85).
        resolution: step between sizes, in edges; a hundredth of the graph unless given.
        responses, steering, metric, kl_threshold, batch_size: as for `faithfulness`.

    Raises:
        ValueError: as for `faithfulness`, a threshold outside (0, 1], or a resolution outside 1..n_edges.
    """
    total = attribution.graph.n_edges
    resolution = max(1, total // 100) if resolution is None else resolution
    if not (0 < arguments.number("threshold", threshold) <= 1 and arguments.whole(resolution) in range(1, total + 1)):
        raise ValueError(f"threshold {threshold} and resolution {resolution} were given; allowed: a "
                         f"threshold in (0, 1] and a resolution in 1..{total}")
    tried: dict[int, float] = {}

    def run(step: int) -> tuple[Circuit, Faithfulness]:
        circuit = Circuit.top(attribution, min(step * resolution, total))
        result = faithfulness(model, circuit, responses, steering, metric=metric, kl_threshold=kl_threshold,
                              batch_size=batch_size)
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
