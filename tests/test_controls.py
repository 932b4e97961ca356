"""Random circuits beside a circuit: their kinds of edges counted, their quantiles by numpy, their values one by one."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from test_circuits import GRAPH, attribution_of
from test_patching import data_of

from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.controls import CONTROLS, quantiles_of_draws, random_draws, random_like
from steerpaper.circuits.curves import minimum_circuit
from steerpaper.circuits.graph import Graph, Node
from steerpaper.circuits.recovery import faithfulness
from steerpaper.circuits.search import minimum_faithful
from steerpaper.circuits.unsteered import unsteered_gradient


def kinds(circuit):
    """Edges per kind of source and of target, by their names."""
    return Counter((Node.of(source).kind, Node.of(target).kind)
                   for source, target in circuit.edges.itertuples(index=False))


@pytest.mark.parametrize("graph", [Graph(6, 4, 2, 2), Graph(6, 4, 2, 2, split_heads=False)])
@pytest.mark.parametrize("n", [1, 20, 90, 110])
def test_random_like_has_as_many_edges_of_every_kind(graph, n):
    given = Circuit.random(graph, n, seed=5)
    for seed in range(5):
        assert kinds(random_like(given, seed)) == kinds(given)
    straight = ("steer", "logits") in set(given.edges.itertuples(index=False, name=None))
    assert random_like(given, 0).mask[0, -1] == straight


def test_draws_differ_by_seed_and_repeat():
    given = Circuit.random(Graph(6, 4, 2, 2), 60, seed=5)
    for draw in CONTROLS.values():
        masks = {draw(given, seed).mask.tobytes() for seed in range(10)}
        assert len(masks) == 10 and draw(given, 3).mask.tobytes() in masks


def test_within_a_kind_every_edge_is_as_likely():
    """Of the kind "steering node to MLP" the graph has two edges, the circuit one."""
    given = Circuit.of(GRAPH, pd.DataFrame([("steer", "m0")], columns=["source", "target"]))
    drawn = Counter(random_like(given, seed).edges.target.item() for seed in range(200))
    assert set(drawn) == {"m0", "m1"} and min(drawn.values()) > 60


def test_sizes_of_the_controls():
    graph = Graph(6, 4, 2, 2)
    given = Circuit.random(graph, 30, seed=5)
    sizes = {name: draw(given, 1).n_edges for name, draw in CONTROLS.items()}
    assert sizes["same kinds"] == given.n_edges <= sizes["same size"] <= 1.2 * given.n_edges
    assert 2 * given.n_edges <= sizes["twice the size"] <= 2.4 * given.n_edges
    whole = Circuit.of(graph, graph.edges)
    assert CONTROLS["twice the size"](whole, 1).n_edges == CONTROLS["same kinds"](whole, 1).n_edges == graph.n_edges


def test_draws_are_single_circuits_on_a_single_class(model):
    data = data_of(model).subset(response_from="steered")
    graph = Graph.of(model, data.steerings[0].layer)
    circuit = Circuit.random(graph, 40, seed=7)
    table = random_draws(model, circuit, data, ("same kinds", "same size"), n_draws=14, seed=3)  # more than one share
    assert len(table) == 2 * 14 * 2
    own = {name: data.subset(name) for name in ("harmful", "harmless")}
    for row in table.iloc[[0, 1, 27, 28, 55]].itertuples():
        one, part = CONTROLS[row.control](circuit, 3 + row.draw), own[row.prompts]
        alone = faithfulness(model, one, part.responses, part.steerings).value
        assert row.faithfulness == pytest.approx(alone, abs=1e-4)
        assert row.own == pytest.approx(faithfulness(model, circuit, part.responses, part.steerings).value, abs=1e-4)
        assert (row.n_edges, row.straight) == (one.n_edges, one.mask[0, -1])
        assert row.on_path == graph.prune(one.mask).sum() <= row.n_edges


def test_what_cannot_be_drawn_is_refused(model):
    data = data_of(model)
    circuit = Circuit.random(Graph.of(model, data.steerings[0].layer), 40, seed=7)
    with pytest.raises(ValueError, match="unknown control 'same kind'.*did you mean 'same kinds'"):
        random_draws(model, circuit, data, ("same kind",))
    with pytest.raises(ValueError, match="n_draws"):
        random_draws(model, circuit, data, n_draws=0)


def test_quantiles_are_numpy_s():
    rng = np.random.default_rng(0)
    draws = pd.DataFrame([(size, control, i, prompts, rng.normal(), 0.5, 10 + i, i, True) for size in (1, 2)
                          for control in ("a", "b") for i in range(40) for prompts in ("x", "y")],
                         columns=["size", "control", "draw", "prompts", "faithfulness", "own", "n_edges", "on_path",
                                  "straight"])
    table = quantiles_of_draws(draws, ("size",))
    assert table.columns.tolist() == ["size", "control", "prompts", "draws", "median", "low", "high", "own", "reaching",
                                      "n_edges", "on_path"]
    assert len(table) == 8 and (table.draws == 40).all() and (table.own == 0.5).all()
    for row in table.itertuples():
        mine = draws[(draws["size"] == row.size) & (draws.control == row.control) & (draws.prompts == row.prompts)]
        expected = np.quantile(mine.faithfulness, [0.5, 0.025, 0.975])
        assert (row.median, row.low, row.high) == pytest.approx(tuple(expected))
        assert row.reaching == np.mean(mine.faithfulness >= 0.5)
        assert (row.n_edges, row.on_path) == (29.5, 19.5)


def test_the_minimum_circuit_is_the_larger_of_both_classes(model):
    data = data_of(model)
    ranking = attribute(model, data.responses, data.steerings, steps=2)
    sizes = [minimum_faithful(model, ranking, part.responses, part.steerings, 0.6).circuit.n_edges
             for part in (data.subset("harmful"), data.subset("harmless"))]
    assert minimum_circuit(model, ranking, data, 0.6).n_edges == max(sizes)


# -- the gradient without steering ---------------------------------------------------------------------------

def difference(plain, data, tokens, stream, layer):
    """Summed logit differences of HF's model with something added to the stream entering a layer."""
    total = 0.0
    for response, pairs in zip(data.responses, tokens):
        def push(module, args, kwargs):
            return (args[0] + stream, *args[1:]), kwargs
        hook = plain.model.layers[layer].register_forward_pre_hook(push, with_kwargs=True)
        with torch.no_grad():
            logits = plain(torch.tensor([response.tokens])).logits[0]
        hook.remove()
        total += sum((logits[at, y] - logits[at, usual]).item() for at, y, usual in pairs)
    return total


def decided(plain, data, layer):
    """Per response the positions at which steering changes the prediction, with y and y*."""
    found = []
    for response, steering in zip(data.responses, data.steerings):
        runs = []
        for stream in (0.0, steering.coefficient * steering.vector):
            def push(module, args, kwargs, stream=stream):
                return (args[0] + stream, *args[1:]), kwargs
            hook = plain.model.layers[layer].register_forward_pre_hook(push, with_kwargs=True)
            with torch.no_grad():
                runs.append(plain(torch.tensor([response.tokens])).logits[0].argmax(-1).tolist())
            hook.remove()
        answer = range(len(response.prompt) - 1, len(response.tokens) - 1)
        found.append([(at, runs[1][at], runs[0][at]) for at in answer if runs[1][at] != runs[0][at]])
    return found


def test_the_unsteered_gradient_is_the_slope_at_the_base_run(model, plain):
    """By finite differences, in a few directions; m stays that of the real, far steering."""
    data = data_of(model).subset("harmless")  # of one coefficient
    layer, alpha = data.steerings[0].layer, data.steerings[0].coefficient
    gradient = unsteered_gradient(model, data.responses, data.steerings, batch_size=2)
    tokens, step = decided(plain, data, layer), 5e-3
    n = sum(map(len, tokens))
    assert n
    for seed in range(3):
        way = torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed))
        ends = [difference(plain, data, tokens, sign * step * way, layer) for sign in (1, -1)]
        slope = alpha * (ends[0] - ends[1]) / (2 * step * n)
        assert (gradient @ way.double()).item() == pytest.approx(slope, abs=5e-3 * gradient.norm().item())
    path = attribute(model, data.responses, data.steerings).gradient.double()
    assert (path - gradient).norm() > 0.05 * gradient.norm()  # elsewhere on the path it is another
