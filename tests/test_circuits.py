"""Circuits against sets by hand, circuit runs against a plainly written reference, and their endpoints."""

import numpy as np
import pandas as pd
import plain_circuits as reference
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from test_runs import RESPONSES, steering_for

from steerpaper.circuits.attribution import Attribution, attribute
from steerpaper.circuits.circuit import Circuit, overlap
from steerpaper.circuits.recovery import Faithfulness, faithfulness, faithfulness_of
from steerpaper.circuits.search import minimum_faithful
from steerpaper.circuits.graph import Graph
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering

ALPHAS = (1.0, -0.8, 0.6)
GRAPH = Graph(n_layers=2, n_heads=2, n_kv_heads=1, steering_layer=0)


def steerings(model, layer=1):
    vector = steering_for(model).vector
    return [Steering(vector, layer, alpha) for alpha in ALPHAS]


def attribution_of(graph, scores):
    """An attribution with the given scores by (source, target), 0 elsewhere."""
    matrix = np.where(graph.mask, 0.0, np.nan)
    for (source, target), score in scores.items():
        matrix[graph.sources.index(source), graph.targets.index(target)] = score
    return Attribution(graph, matrix, pd.DataFrame(), torch.zeros(1), 1)


def pairs(circuit):
    return set(circuit.edges.itertuples(index=False, name=None))


# -- sets of edges -------------------------------------------------------------------------------------------

def test_top_counts_only_edges_on_a_path():
    scores = {("steer", "m0"): 5.0, ("m1", "logits"): 4.0, ("a0.h0", "logits"): -3.0, ("m0", "m1"): -2.0,
              ("steer", "logits"): 1.0, ("steer", "a0.h1<q>"): 0.5, ("steer", "a0.h0<v>"): 0.4}
    attribution = attribution_of(GRAPH, scores)
    path = {("steer", "m0"), ("m0", "m1"), ("m1", "logits")}
    for n in (1, 2, 3):  # no edge alone makes a path, so three are the fewest
        assert pairs(Circuit.top(attribution, n)) == path
    assert pairs(Circuit.top(attribution, 4)) == path | {("steer", "logits")}
    assert pairs(Circuit.top(attribution, 5)) == set(scores) - {("steer", "a0.h1<q>")}  # feeds head 1, unread
    assert Circuit.top(attribution, GRAPH.n_edges).n_edges == GRAPH.n_edges


def test_random_is_matched_in_size_and_repeatable():
    graph = Graph(6, 4, 2, 2)
    for n in (20, 60, 200):
        assert n <= Circuit.random(graph, n, seed=0).n_edges <= 1.2 * n
    first = Circuit.random(graph, 60, seed=0)
    assert (first.mask == Circuit.random(graph, 60, seed=0).mask).all()
    assert (first.mask != Circuit.random(graph, 60, seed=1).mask).any()
    assert (graph.prune(first.mask) == first.mask).all()


def test_complement_and_names():
    circuit = Circuit.random(GRAPH, 8, seed=0)
    other = circuit.complement()
    assert not pairs(circuit) & pairs(other) and circuit.n_edges + other.n_edges == GRAPH.n_edges
    assert (other.complement().mask == circuit.mask).all()
    assert (Circuit.of(GRAPH, circuit.edges.sample(frac=1, random_state=0)).mask == circuit.mask).all()


def test_overlap_by_hand():
    edges = GRAPH.edges
    assert overlap(Circuit.of(GRAPH, edges[:4]), Circuit.of(GRAPH, edges[1:9])) == 0.75
    with pytest.raises(ValueError, match="different graphs"):
        overlap(Circuit.of(GRAPH, edges), Circuit.random(Graph(2, 2, 1, 1), 3, 0))
    with pytest.raises(ValueError, match="empty circuit is undefined"):
        overlap(Circuit.of(GRAPH, edges), Circuit.of(GRAPH, edges[:0]))


@pytest.mark.parametrize("n", [0, GRAPH.n_edges + 1])
def test_sizes_outside_the_graph_are_refused(n):
    with pytest.raises(ValueError, match=f"{n} edges was asked for: the graph has 1..{GRAPH.n_edges}"):
        Circuit.random(GRAPH, n, seed=0)
    with pytest.raises(ValueError, match="was asked for"):
        Circuit.top(attribution_of(GRAPH, {}), n)


def test_masks_of_another_graph_are_refused():
    with pytest.raises(ValueError, match="is not a set of this graph's edges"):
        Circuit(GRAPH, np.ones_like(GRAPH.mask))
    with pytest.raises(ValueError, match="is not a set of this graph's edges"):
        Circuit(GRAPH, np.zeros((2, 2), dtype=bool))


# -- circuit runs --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize("split_heads", [True, False])
def test_empty_is_base_and_full_is_steered(model, split_heads, layer):
    graph = Graph.of(model, layer, split_heads)
    full = Circuit(graph, graph.mask)
    empty, full = faithfulness_of(model, [full.complement(), full], RESPONSES, steerings(model, layer))
    assert empty.value == pytest.approx(0, abs=1e-5) and full.value == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(empty.table.m_circuit, empty.table.m_base, atol=1e-4)
    np.testing.assert_allclose(full.table.m_circuit, full.table.m_steered, atol=1e-4)
    assert (full.table.m_steered > 0).all() and (full.table.m_base < 0).all()


@pytest.mark.parametrize("split_heads", [True, False])
def test_random_circuits_agree_with_the_reference(model, plain, split_heads):
    chosen, graph = steerings(model), Graph.of(model, 1, split_heads)
    generator = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        circuit = Circuit(graph, graph.mask & (generator.random(graph.mask.shape) < share))
        table = faithfulness(model, circuit, RESPONSES, chosen).table
        for i, (response, steering) in enumerate(zip(RESPONSES, chosen)):
            arguments = (plain, response.tokens, steering.vector, steering.coefficient, 1)
            base, steered = reference.base_and_steered(*arguments, split_heads)
            kept = reference.kept_positions(base.logits, steered.logits, len(response.prompt))
            own = table[table.response == i]
            assert list(own.position) == [at.position for at in kept]
            circuit_logits = reference.circuit_logits(*arguments, pairs(circuit), split_heads)
            for column, logits in (("m_base", base.logits), ("m_circuit", circuit_logits),
                                   ("m_steered", steered.logits)):
                np.testing.assert_allclose(own[column], reference.metric(logits, kept), rtol=1e-3, atol=1e-3)


def test_pruning_does_not_change_a_run(model):
    """With post-norms it does a little: a head that leads nowhere still counts in the RMS of its layer."""
    graph = Graph.of(model, 1)
    mask = graph.mask & (np.random.default_rng(3).random(graph.mask.shape) < 0.2)
    assert 0 < graph.prune(mask).sum() < mask.sum()
    circuits = [Circuit(graph, mask), Circuit(graph, graph.prune(mask))]
    whole, pruned = faithfulness_of(model, circuits, RESPONSES, steerings(model))
    atol = 0.02 if model.has_post_norms else 1e-4
    np.testing.assert_allclose(whole.table.m_circuit, pruned.table.m_circuit, atol=atol)


def test_query_and_key_norms_stay_in_place():
    model = Model(tiny_model("qwen3"), tiny_tokenizer())
    graph = Graph.of(model, 1)
    full = Circuit(graph, graph.mask)
    empty, full = faithfulness_of(model, [full.complement(), full], RESPONSES, steering_for(model))
    assert empty.value == pytest.approx(0, abs=1e-5) and full.value == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("metric", ["logit_difference", "kl"])
def test_batches_and_padding_change_nothing(model, metric):
    circuit = Circuit.random(Graph.of(model, 1), 40, seed=0)
    whole = faithfulness(model, circuit, RESPONSES, steerings(model), metric=metric)
    single = faithfulness(model, circuit, RESPONSES, steerings(model), metric=metric, batch_size=1)
    pd.testing.assert_frame_equal(whole.table, single.table, atol=1e-4, rtol=1e-4)
    alone = faithfulness(model, circuit, RESPONSES[1:2], steerings(model)[1], metric=metric)
    own = whole.table[whole.table.response == 1].assign(response=0).reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.table, own, atol=1e-4, rtol=1e-4)


def test_table_counts_positions_in_the_tokens(model):
    table = faithfulness(model, Circuit.random(Graph.of(model, 1), 40, 0), RESPONSES, steerings(model),
                         metric="kl").table
    expected = [(i, p) for i, r in enumerate(RESPONSES) for p in range(len(r.prompt) - 1, len(r.tokens) - 1)]
    assert list(zip(table.response, table.position)) == expected
    assert list(table.columns) == ["response", "position", "m_base", "m_circuit", "m_steered"]


def test_value_is_a_ratio_of_sums_with_a_bootstrap_over_responses():
    table = pd.DataFrame({"response": [0, 0, 1], "position": [3, 4, 7], "m_base": [-1.0, -3.0, 0.0],
                          "m_circuit": [0.0, 1.0, 2.0], "m_steered": [1.0, 1.0, 4.0]})
    result = Faithfulness(table)
    assert result.value == pytest.approx(7 / 10)
    assert result.interval() == (pytest.approx(2 / 4), pytest.approx(5 / 6))
    assert result.interval() == result.interval() and result.interval(level=0.2)[0] == pytest.approx(0.7)
    with pytest.raises(ValueError, match="1 responses and level 0.95 were given: a bootstrap needs"):
        Faithfulness(table[:2]).interval()
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="equal or not finite: faithfulness is undefined"):
            Faithfulness(table.assign(m_circuit=[0.0, wrong, 1.0])).value
    with pytest.raises(ValueError, match="equal or not finite"):
        Faithfulness(table.assign(m_steered=table.m_base)).value


TABLE = pd.DataFrame({
    "response": [0, 0, 1, 3, 4], "position": [3, 4, 7, 2, 5], "m_base": [-1.0, -3.0, 0.0, 0.0, -2.0],
    "m_circuit": [0.0, 1.0, 2.0, 1.0, 1.0], "m_steered": [1.0, 1.0, 4.0, 2.0, 2.0]})  # of response 2 all is masked


def test_groups_of_responses_by_hand():
    result, prompts = Faithfulness(TABLE), pd.Series(list("baaba"), name="prompts")
    found = result.by(prompts, seed=3)
    assert list(found.columns) == ["prompts", "faithfulness", "low", "high", "responses"]
    assert found.prompts.tolist() == ["a", "b"] and found.responses.tolist() == [2, 2]
    assert found.faithfulness.tolist() == [pytest.approx(5 / 8), pytest.approx(6 / 8)]
    for row in found.itertuples():
        group = Faithfulness(TABLE[TABLE.response.map(prompts) == row.prompts])
        assert (row.faithfulness, (row.low, row.high)) == (group.value, group.interval(seed=3))
    with_all = result.by(prompts, "both")
    assert with_all.prompts.tolist() == ["both", "a", "b"] and with_all.responses.tolist() == [4, 2, 2]
    assert tuple(with_all.loc[0, ["faithfulness", "low", "high"]]) == (result.value, *result.interval())


def test_groups_by_several_columns_and_of_single_responses():
    labels = pd.DataFrame({"prompts": list("baaba"), "source": list("xxyyx")})
    found = Faithfulness(TABLE).by(labels.sample(frac=1, random_state=0))  # by number, whatever the order
    assert found[["prompts", "source"]].agg("".join, axis=1).tolist() == ["ax", "bx", "by"]
    assert found.responses.tolist() == [2, 1, 1] and found.low.isna().tolist() == [False, True, True]
    assert found.faithfulness.tolist() == [pytest.approx(5 / 8), pytest.approx(5 / 6), pytest.approx(1 / 2)]
    whole = Faithfulness(TABLE).by(labels, "all").loc[0, ["prompts", "source", "responses"]]
    assert whole.tolist() == ["all", "all", 4]


def test_labels_that_do_not_fit_are_refused():
    labels = pd.Series(["a", "b", "a"], name="prompts")
    with pytest.raises(ValueError, match=r"responses \[3, 4\] have no label"):
        Faithfulness(TABLE).by(labels)
    with pytest.raises(ValueError, match=r"responses \[4\] have no label"):
        Faithfulness(TABLE).by(pd.Series(["a", "b", "a", "b", None]))
    with pytest.raises(ValueError, match="equal or not finite: faithfulness is undefined"):
        Faithfulness(TABLE.assign(m_steered=[1.0, 1.0, 0.0, 2.0, 2.0])).by(pd.Series([0, 1, 0, 0, 0]))


def test_the_bootstrap_draws_as_on_record():
    """As written out: the intervals in the tables come of these draws."""
    sums = np.array([[-4.0, 1.0, 2.0], [0.0, 2.0, 4.0], [0.0, 1.0, 2.0], [-2.0, 1.0, 2.0]])
    for seed, level in ((0, 0.95), (1, 0.8)):
        drawn = sums[np.random.default_rng(seed).integers(4, size=(2000, 4))].sum(axis=1).T
        expected = np.quantile((drawn[1] - drawn[0]) / (drawn[2] - drawn[0]), [(1 - level) / 2, (1 + level) / 2])
        assert Faithfulness(TABLE).interval(level, seed=seed) == pytest.approx(expected, rel=1e-12)


def test_minimum_faithful_is_where_the_threshold_is_crossed(model):
    chosen = steerings(model)
    attribution = attribute(model, RESPONSES, chosen, steps=5)
    found = minimum_faithful(model, attribution, RESPONSES, chosen, 0.85, resolution=12)
    assert found.faithfulness.value >= 0.85 and found.circuit.n_edges < 0.7 * attribution.graph.n_edges
    below = found.tried[found.tried.n_edges < found.circuit.n_edges]
    assert (below.value < 0.85).all()
    assert found.tried.n_edges.is_monotonic_increasing and found.circuit.n_edges in set(found.tried.n_edges)
    assert found.faithfulness.value == faithfulness(model, found.circuit, RESPONSES, chosen).value
    n_edges = attribution.graph.n_edges
    whole = minimum_faithful(model, attribution, RESPONSES, chosen, resolution=n_edges)
    assert whole.circuit.n_edges == n_edges
    with pytest.raises(ValueError, match="threshold 1.5 and resolution 12 were given"):
        minimum_faithful(model, attribution, RESPONSES, chosen, 1.5, resolution=12)


def test_errors(model):
    other = Circuit.random(Graph.of(model, 2), 20, 0)
    with pytest.raises(ValueError, match=r"circuit belongs to Graph\(.*steering_layer=2.*steering_layer=1"):
        faithfulness(model, other, RESPONSES, steerings(model))
    circuit = Circuit.random(Graph.of(model, 1), 20, 0)
    with pytest.raises(ValueError, match="unknown metric 'accuracy'"):
        faithfulness(model, circuit, RESPONSES, steerings(model), metric="accuracy")
    with pytest.raises(ValueError, match="none of the 1 responses has a position left"):
        faithfulness(model, circuit, [Response([1, 5], [6])], steering_for(model, size=1e-4))
    with pytest.raises(ValueError, match="equal or not finite"):
        faithfulness(model, circuit, RESPONSES, steering_for(model, coefficient=0.0), metric="kl")
