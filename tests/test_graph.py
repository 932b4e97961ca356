"""Graphs against the paper's counts, and pruning against a graph drawn by hand."""

import time

import numpy as np
import pandas as pd
import pytest

from steerpaper import paths
from steerpaper.circuits.graph import Graph, Node, edge_types

GEMMA = {"n_layers": 26, "n_heads": 8, "n_kv_heads": 4, "steering_layer": 15}
LLAMA = {"n_layers": 28, "n_heads": 24, "n_kv_heads": 8, "steering_layer": 12}
COUNTS = pd.read_csv(paths.DATA / "paper" / "graph_counts.csv").set_index(["model", "quantity"]).value


@pytest.mark.parametrize("name, sizes", [("gemma-2-2b-it", GEMMA), ("llama-3.2-3b-instruct", LLAMA)])
def test_counts_are_the_papers(name, sizes):
    graph, paper = Graph(**sizes), COUNTS[name]
    assert graph.n_edges == len(graph.edges) == paper["edges"]
    for quantity, count in edge_types(graph.edges).items():
        assert count == paper[quantity], quantity


@pytest.mark.parametrize("sizes, n_edges", [(GEMMA, 2_212), (LLAMA, 12_849)])
def test_counts_without_splitting_heads(sizes, n_edges):
    assert Graph(**sizes, split_heads=False).n_edges == n_edges


def test_names_and_edges_by_hand():
    graph = Graph(n_layers=3, n_heads=2, n_kv_heads=1, steering_layer=1)
    assert graph.sources == ["steer", "a1.h0", "a1.h1", "m1", "a2.h0", "a2.h1", "m2"]
    first = ["a1.h0<q>", "a1.h1<q>", "a1.h0<k>", "a1.h0<v>", "m1"]
    second = ["a2.h0<q>", "a2.h1<q>", "a2.h0<k>", "a2.h0<v>", "m2", "logits"]
    assert graph.targets == [*first, *second]
    reached = graph.edges.groupby("source", sort=False).target.agg(list).to_dict()
    assert reached == {
        "steer": [*first, *second], "a1.h0": ["m1", *second], "a1.h1": ["m1", *second], "m1": second,
        "a2.h0": ["m2", "logits"], "a2.h1": ["m2", "logits"], "m2": ["logits"],
    }
    whole = Graph(n_layers=3, n_heads=2, n_kv_heads=1, steering_layer=2, split_heads=False)
    assert whole.targets == ["a2<q>", "a2<k>", "a2<v>", "m2", "logits"]


def test_names_are_read_as_they_are_written():
    graph = Graph(n_layers=12, n_heads=11, n_kv_heads=1, steering_layer=9)
    read = {"steer": ("steer", 9, None), "a10.h10": ("head", 10, 10), "m11": ("mlp", 11, None),
            "a9.h0<q>": ("q", 9, 0), "a11.h0<v>": ("v", 11, 0), "logits": ("logits", 12, None)}
    assert {name: tuple(graph.node(name)) for name in read} == read
    assert Node.of("steer") == ("steer", None, None)
    whole = Graph(12, 11, 1, 9, split_heads=False)
    assert whole.node("a10<k>") == ("k", 10, None)
    for part in (graph, whole):
        nodes = [part.node(name) for name in part.targets]
        for layer in part.layers:
            for kind, where in zip("qkv", part.before_mlp(layer)):
                assert {(node.kind, node.layer) for node in nodes[where]} == {(kind, layer)}
                assert [node.head or 0 for node in nodes[where]] == [*range(where.stop - where.start)]
        assert [node.head for node in map(part.node, part.sources) if node.kind == "head"] == [*range(11)] * 3
    for name in ("a8.h0", "a9", "a9.h11", "m12", "logits ", "a9.h0<z>", ""):
        with pytest.raises(ValueError, match=f"{name!r} is no node of Graph"):
            graph.node(name)
    with pytest.raises(ValueError, match="'a9' is no node's name"):
        edge_types(pd.DataFrame({"source": ["a9"], "target": ["logits"]}))


@pytest.mark.parametrize("split_heads", [True, False])
def test_every_edge_of_a_whole_graph_lies_on_a_path(split_heads):
    graph = Graph(4, 4, 2, 1, split_heads)
    assert (graph.prune(graph.mask) == graph.mask).all()


def pruned(graph, *edges):
    mask = np.zeros_like(graph.mask)
    mask[graph.index(pd.DataFrame(edges, columns=["source", "target"]))] = True
    return list(graph.table(graph.prune(mask)).itertuples(index=False, name=None))


def test_pruning_by_hand():
    graph = Graph(n_layers=2, n_heads=4, n_kv_heads=2, steering_layer=0)
    through_key = [("steer", "a0.h1<k>"), ("a0.h3", "logits")]
    assert pruned(graph, *through_key) == through_key  # head 3 belongs to key-value head 1
    assert pruned(graph, ("steer", "a0.h1<v>"), ("a0.h1", "logits")) == []  # head 1 belongs to head 0
    assert pruned(graph, ("steer", "a0.h1<q>"), ("a0.h0", "logits")) == []  # queries are each head's own
    assert pruned(graph, ("steer", "a0.h1<q>")) == []  # leads nowhere
    assert pruned(graph, ("a0.h0", "logits"), ("m0", "a1.h0<q>"), ("a1.h0", "logits")) == []  # fed by nothing
    path = [("steer", "m0"), ("a0.h1", "m0"), ("m0", "a1.h0<v>"), ("a1.h1", "m1"), ("m1", "logits")]
    assert pruned(graph, *path) == [path[0], *path[2:]]
    joined = pruned(graph, *path, ("steer", "a0.h0<k>"))
    assert set(joined) == {*path, ("steer", "a0.h0<k>")}  # now key-value head 0 feeds head 1


def test_pruning_agrees_with_walking_every_path():
    graph = Graph(n_layers=3, n_heads=4, n_kv_heads=2, steering_layer=0)
    generator = np.random.default_rng(0)
    for share in (0.03, 0.06, 0.1, 0.3):
        mask = graph.mask & (generator.random(graph.mask.shape) < share)
        edges = list(graph.table(mask).itertuples(index=False, name=None))
        assert set(map(tuple, graph.table(graph.prune(mask)).to_numpy())) == walked(edges)


def walked(edges):
    """Edges on a path, found by following names; 4 heads in 2 groups."""
    def feeds(target):
        if "<" not in target:
            return [target]
        layer, head, kind = target.split(".h")[0], int(target.split(".h")[1][0]), target[-2]
        return [f"{layer}.h{head}"] if kind == "q" else [f"{layer}.h{2 * head}", f"{layer}.h{2 * head + 1}"]

    found = set()

    def walk(node, path):
        for source, target in edges:
            if source == node and (source, target) not in path:
                if target == "logits":
                    found.update(path | {(source, target)})
                for follower in feeds(target):
                    walk(follower, path | {(source, target)})

    walk("steer", frozenset())
    return found


def test_the_largest_graph_is_quick():
    start = time.perf_counter()
    graph = Graph(**LLAMA)
    graph.edges, graph.prune(graph.mask)
    assert time.perf_counter() - start < 2


def test_graph_of_a_model(model):
    graph = Graph.of(model, steering_layer=2)
    assert graph == Graph(4, 4, model.n_kv_heads, 2)


def test_errors():
    with pytest.raises(ValueError, match="steering layer 4 is outside 0..3"):
        Graph(4, 4, 2, 4)
    with pytest.raises(ValueError, match="query heads in equal groups"):
        Graph(4, 4, 3, 0)
    graph = Graph(4, 4, 2, 1)
    with pytest.raises(ValueError, match="2 of 3 edges are not in this graph, the first m1 -> m1: take"):
        graph.index(pd.DataFrame({"source": ["steer", "m1", "a0.h0"], "target": ["logits", "m1", "logits"]}))
    with pytest.raises(ValueError, match="target is missing"):
        graph.index(pd.DataFrame({"source": ["steer"]}))
