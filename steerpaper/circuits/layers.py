"""Circuits of the same methods at several steering layers: how large they are, what they carry, what they share."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.chance import agreement
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.curves import faithfulness_by_class, minimum_circuit
from steerpaper.circuits.flipped import NothingFlips, flipped_responses
from steerpaper.circuits.graph import Edges, Graph
from steerpaper.concepts import REFUSAL, Concept
from steerpaper.models.model import Model
from steerpaper.prompts.corpus import SPLITS
from steerpaper.steering import Steering

_KEYS = ["layer", "method"]


def circuits_by_layer(
    model: Model, steerings: Mapping[int, Mapping[str, Steering]], answers: Mapping[int, pd.DataFrame], *,
    threshold: float = 0.85, steps: int = 10, concept: Concept = REFUSAL, seed: int = 0,
) -> tuple[pd.Series, pd.DataFrame]:
    """The minimum-faithful circuit (§5.2) of every method at every steering layer, on the flipped prompts' steered
    answers: edges ranked on those of training prompts, sizes chosen on validation and judged on test prompts.

    Args:
        steerings: by steering layer and method.
        answers: by steering layer, as of `judged_both_ways`, the unsteered model's as method "none", with the column
            split, of which "train", "validation" and "test" are read.
        threshold, steps: as for `minimum_circuit` and `attribute`.

    Returns:
        The circuits that there are, indexed by layer and method, and a row per layer, method and class of prompts
        ("both" first): layer, method, missing, ranked_on and responses (numbers of training and of judged responses),
        n_edges, share (of all edges), prompts, faithfulness, low, high. Where in some split no prompt of a class flips
        there is no circuit: one row, in which `missing` says so and numbers are missing.

    Raises:
        ValueError: as for `flipped_responses`, or as for `attribute` and `minimum_circuit`.
    """
    circuits, tables = {}, []
    for layer, method, steering in ((i, name, one) for i, own in steerings.items() for name, one in own.items()):
        data = {}
        try:
            for split in SPLITS:
                own = answers[layer][answers[layer].split == split]
                data[split] = flipped_responses(model, own, method, steering, "steered", concept=concept)
        except NothingFlips as none:
            why = f"{split}: {str(none).partition(':')[0]}"
            tables.append(pd.DataFrame({"layer": [layer], "method": [method], "prompts": "both", "missing": why}))
            continue
        train, test = data["train"], data["test"]
        ranking = attribute(model, train.responses, train.steerings, steps=steps)
        circuit = minimum_circuit(model, ranking, data["validation"], threshold)
        circuits[layer, method] = circuit
        index = pd.MultiIndex.from_tuples([(layer, method)], names=_KEYS)
        found = faithfulness_by_class(model, pd.Series([circuit], index), test, both=True, seed=seed)
        tables.append(found.assign(missing="", ranked_on=len(train.responses), responses=found.prompts.map(test.judged),
                                   share=circuit.n_edges / circuit.graph.n_edges))
    columns = [*_KEYS, "missing", "ranked_on", "responses", "n_edges", "share", "prompts", "faithfulness", "low",
               "high"]
    index = pd.MultiIndex.from_tuples(circuits, names=_KEYS) if circuits else None
    return (pd.Series(list(circuits.values()), index, dtype=object),
            pd.concat([table.reindex(columns=columns) for table in tables], ignore_index=True))


def shared_above(
    circuits: pd.Series, pairs: Sequence[tuple[tuple[int, str], tuple[int, str]]],
) -> pd.DataFrame:
    """Edges that two circuits share among those that both graphs have, and that mean the same in both.

    A graph begins at its steering layer. So what can be compared are the edges among heads, MLPs and logits from the
    later steering layer on; not those of the steering node, which stands for another stream in either graph. Of the
    earlier circuit only that part is looked at.

    Args:
        circuits: by steering layer and method.
        pairs: of these.

    Returns:
        layer_a, method_a, layer_b, method_b; among (edges that can be compared), edges_a and edges_b (those of them in
        either circuit), shared; overlap (shared / the smaller of the two) and chance (its mean for sets of these sizes
        at random); iou, iou_chance and p as of `agreement`. Without edges in one of the two, these five are missing.

    Raises:
        KeyError: a pair of which there is no circuit.
    """
    rows = []
    for a, b in pairs:
        graph = max(circuits[a].graph, circuits[b].graph, key=lambda graph: graph.steering_layer)
        among, one, other = (_above(edges, graph) for edges in (graph.edges, circuits[a].edges, circuits[b].edges))
        sizes, shared = (int(one.sum()), int(other.sum())), int((one & other).sum())
        measures = [np.nan] * 5
        if min(sizes):
            found = agreement(one, other, among)
            measures = [shared / min(sizes), max(sizes) / among.sum(), found.iou, found.chance, found.p]
        rows.append((*a, *b, int(among.sum()), *sizes, shared, *measures))
    return pd.DataFrame(rows, columns=["layer_a", "method_a", "layer_b", "method_b", "among", "edges_a", "edges_b",
                                       "shared", "overlap", "chance", "iou", "iou_chance", "p"])


def shared_by_kind(
    circuits: Mapping[str, Mapping[str, Circuit]], control: str | None = None,
) -> pd.DataFrame:
    """Edges that circuits share, within kinds and between them, as of `shared_above`.

    Args:
        circuits: by their kind (what is steered, say) and their name.
        control: a kind of which no pairs among themselves are looked at.

    Returns:
        One row per pair: between ("a", or "a and b"), kind_a, name_a, kind_b, name_b, layer_a, layer_b, and the columns
        of `shared_above` from among on.
    """
    placed = {(circuit.graph.steering_layer, (kind, name)): circuit
              for kind, own in circuits.items() for name, circuit in own.items()}
    series = pd.Series(list(placed.values()), pd.Index([*placed], tupleize_cols=False), dtype=object)
    pairs = [(a, b) for a, b in combinations(placed, 2) if {a[1][0], b[1][0]} != {control}]
    found = shared_above(series, pairs)
    for side in ("a", "b"):
        found[f"kind_{side}"], found[f"name_{side}"] = zip(*found.pop(f"method_{side}"))
    between = found.kind_a.where(found.kind_a == found.kind_b, found.kind_a + " and " + found.kind_b)
    first = ["kind_a", "name_a", "kind_b", "name_b", "layer_a", "layer_b"]
    return found.assign(between=between)[["between", *first, *found.columns.drop(first)]]


def _above(edges: pd.DataFrame, graph: Graph) -> Edges:
    """Those of some edges that a graph has, without the steering node's."""
    known = edges[edges.source != "steer"].merge(graph.edges, on=["source", "target"])
    return Circuit.of(graph, known).mask
