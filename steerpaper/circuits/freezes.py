"""Freezes (§6, table 1) as circuits: what they leave of the graph, so that on given text their effect is a faithfulness."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.curves import faithfulness_by_class
from steerpaper.circuits.flipped import FlippedResponses
from steerpaper.circuits.graph import Graph, Node
from steerpaper.models.model import Model


def frozen_circuits(graph: Graph) -> pd.Series:
    """The circuits that freezes leave of the graph (§6), by what is frozen: all edges but those into queries and keys
    ("qk"), into values ("ov") or into MLPs ("mlp-total"), or from the steering node into values ("svv-before-norm") or
    into MLPs ("mlp-before-norm").

    Teacher-forced, the run of such a circuit is the frozen one: what no steered edge leads into does what it does in the
    base run. So its faithfulness is the share of the effect on logits that a freeze leaves.
    """
    kinds = np.array([Node.of(name).kind for name in graph.targets])
    steering = np.array(graph.sources)[:, None] == "steer"
    cut = {
        "qk": np.isin(kinds, ["q", "k"]), "ov": kinds == "v", "svv-before-norm": steering & (kinds == "v"),
        "mlp-before-norm": steering & (kinds == "mlp"), "mlp-total": kinds == "mlp",
    }
    return pd.Series({frozen: Circuit(graph, graph.mask & ~edges) for frozen, edges in cut.items()}).rename_axis("frozen")


def undone_on_logits(model: Model, data: Mapping[str, FlippedResponses], *, seed: int = 0) -> pd.DataFrame:
    """Share of the effect on logits that each freeze undoes on given text: 1 minus the faithfulness of `frozen_circuits`.

    Args:
        data: by method its responses, steered at one layer.

    Returns:
        Columns method, frozen, prompts (a set, or "both"), n_edges (left of the graph), responses, undone, low and high.

    Raises:
        ValueError: as for `faithfulness_by_class`.
    """
    parts = []
    for method, flipped in data.items():
        left = frozen_circuits(Graph.of(model, flipped.steerings[0].layer))
        own = faithfulness_by_class(model, left, flipped, both=True, seed=seed)
        parts.append(own.assign(method=method, responses=own.prompts.map(flipped.judged)))
    table = pd.concat(parts, ignore_index=True)
    undone = pd.DataFrame({"undone": 1 - table.faithfulness, "low": 1 - table.high, "high": 1 - table.low})
    return table[["method", "frozen", "prompts", "n_edges", "responses"]].join(undone)
