"""Freezes (§6, table 1) as circuits: what they leave of the graph, so that on given text their effect is a faithfulness."""

import numpy as np
import pandas as pd

from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.graph import Graph, Node


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
