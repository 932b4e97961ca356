"""Circuits at several steering layers: against the pieces they are made of, and overlaps against sets of names."""

import numpy as np
import pandas as pd
import pytest
from test_circuits import attribution_of, pairs
from test_patching import ALPHA, HARMFUL, HARMLESS, LAYER, ListJudge, data_of, some_flips, vector_for

from steerpaper.behaviour.effects import judged_both_ways
from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.chance import agreement
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.curves import faithfulness_by_class, minimum_circuit
from steerpaper.circuits.flipped import NothingFlips, flipped_responses
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.layers import circuits_by_layer, shared_above
from steerpaper.steering import Steering

SPLITS = ("train", "validation", "test")
STEPS = 2


def steering_at(model, layer=LAYER):
    return Steering(vector_for(model), layer, ALPHA)


def judged_of(model, judge=None, **steerings):
    prompts = {name: pd.DataFrame({"prompt": list(asked) * len(SPLITS), "topic": "", "positive": name == "harmful",
                                   "split": np.repeat(SPLITS, len(asked))})
               for name, asked in (("harmful", HARMFUL), ("harmless", HARMLESS))}
    return judged_both_ways(model, prompts, {"none": None} | steerings, judge=judge or some_flips(model),
                            vocabulary=None, max_new_tokens=6)


def test_flipped_responses_are_those_of_patching_data(model):
    judged = judged_of(model, dim=steering_at(model))
    found = flipped_responses(model, judged[judged.split == "train"], "dim", steering_at(model))
    expected = data_of(model)
    assert found.responses == expected.responses and found.asked == expected.asked
    assert [one.coefficient for one in found.steerings] == [one.coefficient for one in expected.steerings]
    pd.testing.assert_frame_equal(found.labels, expected.labels)
    steered = flipped_responses(model, judged[judged.split == "train"], "dim", steering_at(model), "steered")
    assert steered.responses == expected.subset(response_from="steered").responses


def test_nothing_flips_is_said(llama):
    judged = judged_of(llama, ListJudge([]), dim=steering_at(llama))
    with pytest.raises(NothingFlips, match="coefficient -1.5 flips none of the 12 harmful prompts"):
        flipped_responses(llama, judged, "dim", steering_at(llama))
    with pytest.raises(NothingFlips):
        data_of(llama, ListJudge([]))


@pytest.mark.parametrize("change, message", [
    (lambda judged: judged[judged.method != "none"], "0 answers of the unsteered model .* and 12 of 'dim' to harmful"),
    (lambda judged: judged[judged.method != "dim"], "12 answers .* and 0 of 'dim'"),
    (lambda judged: judged.assign(prompt=judged.prompt + judged.method), "give both to the same prompts"),
])
def test_answers_to_other_prompts(llama, change, message):
    with pytest.raises(ValueError, match=message):
        flipped_responses(llama, change(judged_of(llama, dim=steering_at(llama))), "dim", steering_at(llama))
    with pytest.raises(ValueError, match="answers to shifted prompts"):
        flipped_responses(llama, judged_of(llama, dim=steering_at(llama)).assign(shift="no template"), "dim",
                          steering_at(llama))
    with pytest.raises(ValueError, match="response_from is 'both': choose"):
        flipped_responses(llama, judged_of(llama), "dim", steering_at(llama), "both")


def test_circuits_by_layer_are_made_of_the_pieces(llama):
    """Two layers, one of them with a method that flips nothing: there no numbers."""
    own, nowhere = steering_at(llama), Steering(0 * vector_for(llama), 2, ALPHA)
    answers = {LAYER: judged_of(llama, dim=own), 2: judged_of(llama, dim=nowhere)}
    circuits, table = circuits_by_layer(llama, {LAYER: {"dim": own}, 2: {"dim": nowhere}}, answers, steps=STEPS)
    assert circuits.index.tolist() == [(LAYER, "dim")]
    data = data_of(llama).subset(response_from="steered")
    expected = minimum_circuit(llama, attribute(llama, data.responses, data.steerings, steps=STEPS), data, 0.85)
    assert (circuits[LAYER, "dim"].mask == expected.mask).all()
    found = table[table.layer == LAYER]
    by_class = faithfulness_by_class(llama, pd.Series({"x": expected}).rename_axis("c"), data, both=True)
    assert found.prompts.tolist() == ["both", "harmful", "harmless"] and found.missing.tolist() == [""] * 3
    np.testing.assert_allclose(found.faithfulness.astype(float), by_class.faithfulness, atol=1e-5)
    assert found.ranked_on.tolist() == [5] * 3 and found.responses.tolist() == [5, 3, 2]
    assert np.allclose(found.share.astype(float), expected.n_edges / Graph.of(llama, LAYER).n_edges)
    [row] = table[table.layer == 2].to_dict("records")
    assert row["missing"] == "train: steering with coefficient -1.5 flips none of the 4 harmful prompts"
    assert all(np.isnan(row[name]) for name in ("n_edges", "share", "faithfulness", "low", "high", "responses"))


def test_without_any_circuit_there_is_a_table_all_the_same(llama):
    nowhere = Steering(0 * vector_for(llama), 2, ALPHA)
    circuits, table = circuits_by_layer(llama, {2: {"dim": nowhere}}, {2: judged_of(llama, dim=nowhere)})
    assert not len(circuits) and len(table) == 1 and table.missing[0]
    assert shared_above(circuits, []).empty


def test_shared_edges_by_hand():
    early, late = (Graph(n_layers=3, n_heads=2, n_kv_heads=1, steering_layer=layer) for layer in (0, 1))
    scored = {("m1", "logits"): 9.0, ("m1", "m2"): 8.0, ("m2", "logits"): 7.0, ("steer", "m1"): 6.0}
    one = Circuit.top(attribution_of(early, scored | {("steer", "m0"): 5.0, ("m0", "m1"): 4.0}), 6)
    other = Circuit.top(attribution_of(late, scored | {("a1.h0", "m2"): 5.0, ("steer", "a1.h0<v>"): 4.0}), 6)
    [row] = shared_above(pd.Series({(0, "dim"): one, (1, "po"): other}), [((0, "dim"), (1, "po"))]).to_dict("records")
    assert (row["layer_a"], row["method_a"], row["layer_b"], row["method_b"]) == (0, "dim", 1, "po")
    # Of one: m1 -> logits, m1 -> m2, m2 -> logits; other has a1.h0 -> m2 besides. The steering node's do not count.
    assert (row["edges_a"], row["edges_b"], row["shared"]) == (3, 4, 3)
    assert row["among"] == sum(source != "steer" for source in late.edges.source)
    assert row["overlap"] == 1.0 and row["chance"] == pytest.approx(4 / row["among"]) and row["iou"] == 0.75


@pytest.mark.parametrize("layers", [(1, 3), (3, 1), (2, 2)])
def test_shared_edges_are_those_of_sets_of_names(layers):
    graphs = [Graph(n_layers=5, n_heads=4, n_kv_heads=2, steering_layer=layer) for layer in layers]
    places = [(layer, name) for layer, name in zip(layers, ("a", "b"))]
    circuits = pd.Series({place: Circuit.random(graph, graph.n_edges // 3, 1) for place, graph in zip(places, graphs)})
    [row] = shared_above(circuits, [places]).to_dict("records")
    later = max(graphs, key=lambda graph: graph.steering_layer)
    region = {edge for edge in later.edges.itertuples(index=False, name=None) if edge[0] != "steer"}
    one, other = (pairs(circuits[place]) & region for place in places)
    assert (row["among"], row["edges_a"], row["edges_b"], row["shared"]) == (
        len(region), len(one), len(other), len(one & other))
    assert row["overlap"] == len(one & other) / min(len(one), len(other))
    flags = [np.array([edge in members for edge in sorted(region)]) for members in (one, other)]
    expected = agreement(*flags)
    assert (row["iou"], row["iou_chance"], row["p"]) == (expected.iou, expected.chance, expected.p)


def test_chance_is_what_random_sets_share():
    graph = Graph(n_layers=4, n_heads=4, n_kv_heads=2, steering_layer=1)
    found = []
    for seed in range(60):
        circuits = pd.Series({(1, "a"): Circuit.random(graph, 60, seed), (1, "b"): Circuit.random(graph, 120, 1000 + seed)})
        found.append(shared_above(circuits, [((1, "a"), (1, "b"))]))
    table = pd.concat(found)
    assert table.overlap.mean() == pytest.approx(table.chance.mean(), abs=0.05)


def test_a_circuit_of_the_steering_node_alone_shares_nothing_that_counts():
    graph = Graph(n_layers=3, n_heads=2, n_kv_heads=1, steering_layer=1)
    straight = Circuit.of(graph, pd.DataFrame([("steer", "logits")], columns=["source", "target"]))
    circuits = pd.Series({(1, "a"): straight, (1, "b"): Circuit(graph, graph.mask)})
    [row] = shared_above(circuits, [((1, "a"), (1, "b"))]).to_dict("records")
    assert row["edges_a"] == 0 and np.isnan([row[name] for name in ("overlap", "chance", "iou", "p")]).all()
    with pytest.raises(KeyError):
        shared_above(circuits, [((1, "a"), (2, "b"))])
