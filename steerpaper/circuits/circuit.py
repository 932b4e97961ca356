"""Circuits (§6): sets of edges, by score, at random or by name, and what two of them share."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerpaper import arguments
from steerpaper.circuits.attribution import Attribution
from steerpaper.circuits.graph import Edges, Graph


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
