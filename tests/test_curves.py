"""Tables of many circuits: against single runs, and by hand."""

import numpy as np
import pytest
from test_circuits import GRAPH, attribution_of
from test_patching import data_of

from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.curves import circuit_overlaps, faithfulness_by_class, position_effects, top_circuits
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.recovery import faithfulness


def test_faithfulness_by_class_is_that_of_the_class_alone(model):
    data = data_of(model)
    att = attribute(model, data.responses, data.steerings, steps=2)
    circuits = top_circuits({"one": att}, (0.3, 0.6), "of")
    table = faithfulness_by_class(model, circuits, data, both=True)
    assert table.columns.tolist() == ["of", "share", "n_edges", "prompts", "faithfulness", "low", "high"]
    assert table.prompts.tolist() == ["both", "harmful", "harmless"] * 2
    for row in table.itertuples():
        part = data if row.prompts == "both" else data.subset(row.prompts)
        circuit = circuits["one", row.share]
        assert row.n_edges == circuit.n_edges
        alone = faithfulness(model, circuit, part.responses, part.steerings)
        assert row.faithfulness == pytest.approx(alone.value, abs=1e-5)
        assert (row.low, row.high) == pytest.approx(alone.interval(), abs=1e-4)


def test_overlaps_of_top_circuits_by_hand():
    graph = Graph(2, 2, 1, 1)
    one, other = (attribution_of(graph, {("steer", "logits"): 9.0, **scores}) for scores in (
        {("steer", "m1"): 5.0, ("m1", "logits"): 4.0}, {("steer", "a1.h0<v>"): 5.0, ("a1.h0", "logits"): 4.0}))
    shares = (1 / graph.n_edges, 3 / graph.n_edges)
    table = circuit_overlaps(top_circuits({"a": one, "b": other}, shares), [("a", "b")])
    assert table[["method_a", "method_b"]].values.tolist() == [["a", "b"]] * 2
    assert table.overlap.tolist() == [1.0, pytest.approx(1 / 3)] and table.iou.tolist() == [1.0, pytest.approx(1 / 5)]
    assert table.chance.tolist() == table.share.tolist() == list(shares)


def test_effects_stand_at_their_position_in_the_response(model):
    data = data_of(model)
    graph = Graph.of(model, data.steerings[0].layer)
    whole = faithfulness(model, Circuit.of(graph, graph.edges), data.responses, data.steerings)
    table = position_effects(whole, data)
    assert len(table) == data.labels.positions.sum()
    assert (table.groupby("response")["first"].sum() == 1).all()
    assert table.token.between(0, 5).all()  # of six new tokens
    assert (table.groupby("response").token.min() == table[table["first"]].set_index("response").token).all()
    assert np.allclose(table.effect, whole.table.m_steered - whole.table.m_base)
    assert (table.prompts == data.labels.prompts[table.response].to_numpy()).all()
