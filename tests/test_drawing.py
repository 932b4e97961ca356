"""The drawing of a circuit: every node has a place of its own, and every edge is drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from steerpaper.circuits.graph import Graph
from steerpaper.figures.circuits import draw_circuit, draw_faithfulness, layout

GRAPH = Graph(n_layers=6, n_heads=4, n_kv_heads=2, steering_layer=2)


def some_edges(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    edges = GRAPH.edges.iloc[rng.choice(GRAPH.n_edges, n, replace=False)]
    return edges.assign(score=rng.normal(size=n)).reset_index(drop=True)


def test_no_two_nodes_share_a_place():
    edges = some_edges(60)
    places = layout(GRAPH, edges)
    assert not places[["x", "y"]].round(6).duplicated().any()


def test_a_circuit_is_drawn_with_both_signs():
    fig = draw_circuit(GRAPH, some_edges(60))
    labels = {text.get_text() for text in fig.axes[0].texts}
    assert {"steer", "logits"} <= labels
    colours = {patch.get_edgecolor() for patch in fig.axes[0].patches}
    assert len(colours) >= 2
    plt.close(fig)


def test_a_circuit_without_edges_is_an_error():
    with pytest.raises(ValueError, match="no edges to draw"):
        draw_circuit(GRAPH, some_edges(1).head(0))


@pytest.mark.parametrize("scores", [
    [1.0, float("nan"), 2.0], [1.0, float("inf"), 2.0], ["1", "2", "3"], [0.0, 0.0, 0.0]])
def test_a_circuit_is_not_drawn_from_scores_that_are_none(scores):
    edges = some_edges(3)
    for wrong in (edges.assign(score=scores), edges.drop(columns="score")):
        with pytest.raises(ValueError, match="need the column score, a finite number for each"):
            draw_circuit(GRAPH, wrong)


def test_faithfulness_curves_are_the_table():
    curves = pd.DataFrame({
        "prompts": ["harmful", "harmful", "harmless", "harmless"], "share": [0.1, 0.5] * 2,
        "faithfulness": [0.2, 0.9, 0.3, 1.0], "circuit": ["top"] * 4,
    })
    fig = draw_faithfulness(curves, "circuit", {"top": ("black", "o-")})
    for ax, expected in zip(fig.axes, ([0.2, 0.9], [0.3, 1.0]), strict=True):
        line = next(line for line in ax.lines if line.get_label() == "top")
        assert line.get_xdata() == pytest.approx([10, 50])
        assert line.get_ydata() == pytest.approx(expected)
    plt.close(fig)
