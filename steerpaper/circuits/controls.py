"""Random circuits beside a circuit (§5.2): as many edges, twice as many, or, ours, as many of every kind."""

import numpy as np
import pandas as pd

from steerpaper import arguments
from steerpaper.choices import unknown
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.flipped import FlippedResponses
from steerpaper.circuits.graph import Graph, Node
from steerpaper.circuits.recovery import Faithfulness, faithfulness_of
from steerpaper.models.model import Model

_AT_ONCE = 25  # circuits that share their base and steered runs, and are kept together


def random_like(circuit: Circuit, seed: int) -> Circuit:
    """A random circuit with as many edges of every kind as `circuit` has.

    A kind is that of the source (the steering node, a head, an MLP) with that of the target (a query, key or value, an
    MLP, the logits), so that it also has as many edges of the steering node; the one that leads from there straight to
    the logits is a kind of its own, in the draw if it is in the circuit. Within a kind every set is as likely as any
    other. Not pruned: some of its edges may lie on no path and change nothing.
    """
    graph, mask = circuit.graph, np.zeros_like(circuit.mask)
    rng = np.random.default_rng([arguments.integer("seed", seed, 0), circuit.n_edges])
    kinds = _kinds(graph)
    for kind, n in zip(*np.unique(kinds[circuit.mask], return_counts=True)):
        mask.flat[rng.choice(np.flatnonzero(graph.mask & (kinds == kind)), n, replace=False)] = True
    return Circuit(graph, mask)


def _kinds(graph: Graph) -> np.ndarray:
    """A number per source and target that tells pairs of their kinds apart."""
    source, target = (np.unique([Node.of(name).kind for name in names], return_inverse=True)[1]
                      for names in (graph.sources, graph.targets))
    return source[:, None] * (target.max() + 1) + target


CONTROLS = {
    "same size": lambda circuit, seed: Circuit.random(circuit.graph, circuit.n_edges, seed),
    "twice the size": lambda circuit, seed: Circuit.random(
        circuit.graph, min(2 * circuit.n_edges, circuit.graph.n_edges), seed),
    "same kinds": random_like,
}


def random_draws(
    model: Model, circuit: Circuit, data: FlippedResponses, controls: tuple[str, ...] = tuple(CONTROLS), *,
    n_draws: int = 100, seed: int = 0,
) -> pd.DataFrame:
    """Faithfulness of random circuits on the harmful and on the harmless prompts, beside the circuit's own.

    Args:
        controls: of "same size" and "twice the size" (`Circuit.random`), and "same kinds" (`random_like`).
        n_draws: circuits per control, with the seeds from `seed` on.

    Returns:
        One row per control, draw and class: columns control, draw, prompts, faithfulness, own (the circuit's, on the
        same responses), n_edges, on_path (those of the edges that lie on a path from the steering node to the logits)
        and straight (whether the edge from the steering node to the logits is one of them).

    Raises:
        ValueError: an unknown control, less than one draw, or as for `faithfulness_of`, for each class of prompts.
    """
    for name in controls:
        if name not in CONTROLS:
            raise unknown("control", name, CONTROLS)
    seeds = range(seed, seed + arguments.integer("n_draws", n_draws, 1))
    drawn = [(name, i - seed, CONTROLS[name](circuit, i)) for name in controls for i in seeds]
    [own] = _by_class(model, [circuit], data)
    found = [values for first in range(0, len(drawn), _AT_ONCE)
             for values in _by_class(model, [one for *_, one in drawn[first:first + _AT_ONCE]], data)]
    rows = [(name, draw, prompts, value, own[prompts], one.n_edges, int(one.graph.prune(one.mask).sum()),
             bool(one.mask[0, -1])) for (name, draw, one), values in zip(drawn, found)
            for prompts, value in values.items()]
    return pd.DataFrame(rows, columns=["control", "draw", "prompts", "faithfulness", "own", "n_edges", "on_path",
                                       "straight"])


def _by_class(model: Model, circuits: list[Circuit], data: FlippedResponses) -> list[dict[str, float]]:
    """The faithfulness of every circuit, per class of prompts, without the bootstrap of `Faithfulness.by`."""
    labels = data.labels.prompts
    return [{str(name): Faithfulness(own).value for name, own in found.table.groupby(found.table.response.map(labels))}
            for found in faithfulness_of(model, circuits, data.responses, data.steerings)]


def quantiles_of_draws(draws: pd.DataFrame, by: tuple[str, ...] = ()) -> pd.DataFrame:
    """What most draws of `random_draws` carry: the numbers that a circuit is to be compared with.

    Args:
        by: further columns that tell groups of draws apart.

    Returns:
        Columns `by`, control, prompts, draws (their number), median, low and high (quantiles of 2.5 and 97.5 % of their
        faithfulness, numpy's linear ones), own, reaching (the share of draws that carry at least as much as the
        circuit), n_edges and on_path (medians).
    """
    draws = draws.assign(reaching=draws.faithfulness >= draws.own)
    groups = draws.groupby([*by, "control", "prompts"], sort=False)
    table = groups.agg(
        draws=("draw", "size"), median=("faithfulness", "median"), low=("faithfulness", lambda f: f.quantile(0.025)),
        high=("faithfulness", lambda f: f.quantile(0.975)), own=("own", "first"), reaching=("reaching", "mean"),
        n_edges=("n_edges", "median"), on_path=("on_path", "median"))
    return table.reset_index()
