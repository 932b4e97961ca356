"""The circuits of several methods, each through every other's, beside those of random vectors (§5.2, figure 3)."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from steerpaper import arguments
from steerpaper.circuits.attribution import Attribution, attribute
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.curves import faithfulness_by_class, minimum_circuit
from steerpaper.circuits.differences import differences
from steerpaper.circuits.flipped import FlippedResponses
from steerpaper.circuits.recovery import faithfulness_of
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
    own = {method: attribute(model, part.responses, part.steerings, steps=steps) for method, part in data.items()}
    return own, {method: _random(model, part, steps, seed + i) for i, (method, part) in enumerate(data.items())}


def _random(model: Model, part: FlippedResponses, steps: int, seed: int) -> Attribution:
    """The attribution, on a method's answers, of a random vector as long as the method's and with its coefficients."""
    pushes = [replace(push, vector=random_vector(push.vector, seed)) for push in part.steerings]
    return attribute(model, part.responses, pushes, steps=steps)


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


def random_vector_circuits(
    model: Model, circuits: Mapping[str, Circuit], ranked_on: Mapping[str, FlippedResponses],
    judged_on: Mapping[str, FlippedResponses], *, draws: int = 5, steps: int = 10, seed: int = 0,
) -> pd.DataFrame:
    """What the circuits of several random vectors carry of every method's steering, beside that method's own circuit.

    A random vector's circuit is its strongest edges, as many as the method's circuit has. The vector is as long as the
    method's, has its coefficients, and is attributed on its answers. Directions are the same for all methods, and those
    of `judged_random` with the same seed.

    Args:
        circuits: by method.
        ranked_on: by method, answers on which edges are ranked.
        judged_on: by method, what to measure faithfulness on.
        draws: number of directions.
        steps: as for `attribute`.
        seed: of the first direction, the next have the seeds that follow; and of all intervals.

    Returns:
        Columns method, seed (of the direction), n_edges, prompts, faithfulness, low and high of the random vector's
        circuit, and those of `differences`: the method's circuit minus this one, and what this one carries as a share.

    Raises:
        ValueError: less than one draw, or as for `attribute` and `faithfulness_of`.
    """
    seeds, tables = range(seed, seed + arguments.integer("draws", draws, 1)), []
    for method, circuit in circuits.items():
        part, on = ranked_on[method], judged_on[method]
        random = [Circuit.top(_random(model, part, steps, each), circuit.n_edges) for each in seeds]
        own, *found = faithfulness_of(model, [circuit, *random], on.responses, on.steerings)
        for each, other in zip(seeds, found):
            both = pd.Series({"own": own, "random": other}).rename_axis("circuit")
            apart = differences(both, "random", on.labels, seed=seed).query("circuit == 'own'").drop(columns="circuit")
            through = other.by(on.labels.prompts, seed=seed).drop(columns="responses")
            through = through.merge(apart, on="prompts", validate="one_to_one")
            tables.append(pd.DataFrame({"method": method, "seed": each, "n_edges": circuit.n_edges, **through}))
    return pd.concat(tables, ignore_index=True)
