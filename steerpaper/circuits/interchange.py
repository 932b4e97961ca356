"""The circuits of several methods, each through every other's, beside those of random vectors (§5.2, figure 3)."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from steerpaper.circuits.attribution import Attribution, attribute
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.curves import faithfulness_by_class, minimum_circuit
from steerpaper.circuits.flipped import FlippedResponses
from steerpaper.models.model import Model
from steerpaper.vectors.extraction import random_vector


def ranked_with_control(
    model: Model, data: Mapping[str, FlippedResponses], *, steps: int = 10, seed: int = 0,
) -> tuple[dict[str, Attribution], dict[str, Attribution]]:
    """Every method's attribution on its own answers, and on the same answers that of a random vector which is as long
    and has the same coefficients.

    Args:
        data: by method.
        steps: as for `attribute`.
        seed: of the first random vector; each method has its own.
    """
    own, random = {}, {}
    for i, (method, part) in enumerate(data.items()):
        as_long = random_vector(part.steerings[0].vector, seed + i)
        pushes = [replace(push, vector=as_long) for push in part.steerings]
        own[method] = attribute(model, part.responses, part.steerings, steps=steps)
        random[method] = attribute(model, part.responses, pushes, steps=steps)
    return own, random


def minimum_circuits(
    model: Model, rankings: Mapping[str, Attribution], data: Mapping[str, FlippedResponses], threshold: float = 0.85,
) -> tuple[dict[str, Circuit], pd.DataFrame]:
    """The minimum-faithful circuit of every method on its own answers, and a row for each: method, n_edges and share,
    of all edges."""
    circuits = {method: minimum_circuit(model, rankings[method], data[method], threshold) for method in rankings}
    rows = [(method, one.n_edges, one.n_edges / one.graph.n_edges) for method, one in circuits.items()]
    return circuits, pd.DataFrame(rows, columns=["method", "n_edges", "share"])


def interchanged(
    model: Model, circuits: Mapping[str, Circuit], random: Mapping[str, Attribution],
    data: Mapping[str, FlippedResponses], *, seed: int = 0,
) -> pd.DataFrame:
    """What every circuit carries of every method's steering, on that method's answers, with two controls as large as
    the largest circuit: the strongest edges of a random vector, and edges at random.

    Args:
        circuits: by method.
        random: by method, as of `ranked_with_control`.
        data: by method, what to measure on.

    Returns:
        Columns vector (the method), circuit (a method, "random vector" or "random edges"), n_edges, prompts ("both"
        first), faithfulness, low, high, and the columns of `differences` from the random vector's circuit.
    """
    graph, largest = next(iter(circuits.values())).graph, max(circuit.n_edges for circuit in circuits.values())
    edges, tables = Circuit.random(graph, largest, seed), {}
    for method, part in data.items():
        through = {**circuits, "random vector": Circuit.top(random[method], largest), "random edges": edges}
        tables[method] = faithfulness_by_class(model, pd.Series(through).rename_axis("circuit"), part, both=True,
                                               against="random vector", seed=seed)
    return pd.concat(tables, names=["vector"]).reset_index("vector").reset_index(drop=True)
