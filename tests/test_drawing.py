"""What is drawn is what the table says: circuits, curves, heatmaps, words."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from steerpaper.circuits.graph import Graph
from steerpaper.figures.attribution import (
    draw_completeness, draw_effect_by_position, draw_patching_check, draw_score_distribution,
)
from steerpaper.figures.circuits import draw_circuit, layout
from steerpaper.figures.faithfulness import draw_faithfulness, draw_interchange, draw_overlap
from steerpaper.figures.heads import (
    draw_svv_coefficient, draw_svv_cosines, draw_svv_explained, draw_svv_preference, draw_svv_tokens,
)
from steerpaper.figures.style import PALETTE

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


def test_circuits_on_one_scale_have_lines_of_like_width():
    edges = some_edges(20)
    figures = [draw_circuit(GRAPH, scored, "a title", thickest=8.0)
               for scored in (edges, edges.assign(score=edges.score / 2))]
    one, half = ([patch.get_linewidth() for patch in fig.axes[0].patches] for fig in figures)
    lines = [i for i, width in enumerate(one) if width]  # without the bands of the layers
    assert [one[i] - 0.3 for i in lines] == pytest.approx([2 * (half[i] - 0.3) for i in lines])
    assert figures[0].get_suptitle() == "a title"
    numbers = [text.get_text() for text in figures[0].axes[0].texts]
    assert {"layer", "2", "3", "4", "5"} <= set(numbers)
    for fig in figures:
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
        "prompts": ["harmful", "harmful", "harmless", "harmless"], "share": [0.5, 0.0105] * 2,
        "faithfulness": [0.9, 0.2, 1.0, 0.3], "low": 0.1, "high": [0.95, 0.3, 1.1, 0.4], "circuit": ["top"] * 4,
    })
    fig = draw_faithfulness(curves, "circuit", {"top": ("black", "o-")})
    for ax, expected in zip(fig.axes, ([0.2, 0.9], [0.3, 1.0]), strict=True):
        line = next(line for line in ax.lines if line.get_label() == "top")
        assert line.get_xdata() == pytest.approx([1.05, 50])
        assert line.get_ydata() == pytest.approx(expected)
        bars = ax.collections[0].get_segments()
        assert [bar[1][1] for bar in bars] == pytest.approx([expected[0] + 0.1, {0.9: 0.95, 1.0: 1.1}[expected[1]]])
    assert fig.axes[0].get_xticks().tolist() == [1, 2, 3, 5, 10, 20, 30, 50]
    plt.close(fig)


def written(fig) -> list[str]:
    """What stands in the cells of a heatmap."""
    plt.close(fig)
    return [text.get_text() for text in fig.axes[0].texts]


def test_heatmaps_write_the_table_in_its_order():
    table = pd.DataFrame([("po", "po", 0.9), ("po", "edges", -0.001), ("dim", "po", 0.8), ("dim", "edges", 0.1)],
                         columns=["vector", "circuit", "faithfulness"]).assign(prompts="both")
    table = pd.concat([table, table.assign(prompts="harmful", faithfulness=0.5)])
    assert written(draw_interchange(table)) == ["0.90", "0.00", "0.80", "0.10"]
    table = pd.DataFrame([("po", "dim", 0.1, 0.7, 0.1), ("a", "b", 0.1, 0.4, 0.1), ("po", "dim", 1.0, 1.0, 1.0)],
                         columns=["method_a", "method_b", "share", "overlap", "chance"])
    assert written(draw_overlap(table)) == ["0.70", "0.40", "0.10"]


def test_effects_and_scores_are_the_table():
    table = pd.DataFrame([("harmful", "base", 0, 1.0), ("harmful", "base", 1, 3.0)],
                         columns=["prompts", "response_from", "token", "effect_per_response"])
    fig = draw_effect_by_position(table)
    assert fig.axes[0].lines[0].get_ydata().tolist() == [1.0, 3.0]
    assert fig.axes[1].lines[0].get_ydata().tolist() == [0.25, 1.0]
    assert fig.axes[0].lines[0].get_linestyle() == "--"
    plt.close(fig)
    fig = draw_score_distribution(pd.DataFrame({"score": [1.0, -3.0, 4.0, 0.0]}))
    assert [line.get_ydata().tolist() for line in fig.axes[0].lines] == [[4.0, 1.0], [3.0]]
    assert fig.axes[1].lines[0].get_ydata() == pytest.approx([0.5, 0.875, 1.0, 1.0])
    plt.close(fig)


def test_errors_and_patched_edges_are_the_table():
    table = pd.DataFrame({"prompts": "harmful", "response_from": "base", "steps": [1, 10], "relative_error": [0.5, 0.01]})
    fig = draw_completeness(table)
    assert [line.get_ydata().tolist() for line in fig.axes[0].lines] == [[0.5, 0.01], [1.0, 0.01]]  # then 1/T²
    plt.close(fig)
    patched = pd.DataFrame({"exact_patching": [0.1, 0.2], "exact, T = 10": [0.3, 0.4], "norm skipped, T = 10": [1.0, 2.0]})
    checks = pd.DataFrame({"gradient": "exact", "steps": [1, 10], "correlation": [0.8, 0.9]})
    fig = draw_patching_check(patched, checks)
    for ax, name in zip(fig.axes, ("exact, T = 10", "norm skipped, T = 10")):
        assert ax.lines[1].get_ydata().tolist() == patched[name].tolist()
        assert ax.get_xscale() == ax.get_yscale() == "symlog"
    assert fig.axes[2].lines[0].get_ydata().tolist() == [0.8, 0.9]
    plt.close(fig)


def test_heads_are_drawn_where_the_tables_say():
    keys = {"prompts": ["harmful", "harmful"], "layer": [3, 3], "head": [0, 1]}
    quantiles = dict(q05=[0.1, 0.2], q25=[0.2, 0.3], q50=[0.3, 0.4], q75=[0.4, 0.5], q95=[0.5, 0.6])
    fig = draw_svv_coefficient(pd.DataFrame(keys | quantiles))
    assert fig.axes[0].lines[0].get_ydata().tolist() == quantiles["q50"]
    assert [segment[:, 1].tolist() for segment in fig.axes[0].collections[0].get_segments()] == [[0.1, 0.5], [0.2, 0.6]]
    plt.close(fig)
    heads = pd.DataFrame(keys | {"explained": [0.5, -2.0]}).assign(method="dim")
    fig = draw_svv_explained(pd.concat([heads, heads.assign(method="po")]), heads.head(1))
    dots, line = fig.axes[0].lines[:2]
    assert dots.get_ydata().tolist() == [0.5, -0.75] and line.get_ydata().tolist() == [0.5]
    plt.close(fig)
    cosines = pd.DataFrame({"method_a": "dim", "method_b": ["ntp", "po"], "layer": 3, "cosine": [0.2, 0.4],
                            "vector_cosine": 0.3, "low": 0.1, "high": 0.5})
    fig = draw_svv_cosines(cosines)
    assert [ax.lines[1].get_ydata().tolist() for ax in fig.axes] == [[0.2], [0.4]]
    assert [ax.get_title() for ax in fig.axes] == ["DIM and NTP", "DIM and PO"]
    plt.close(fig)


def test_words_are_coloured_by_their_label_and_flipped_vectors_signed():
    tokens = pd.DataFrame({"method": "dim", "vector": ["SV", "SV", "L1H0"], "sign": [1.0, 1.0, -1.0],
                           "rank_shown": [1, 2, 1], "token": [" sorry", " xyz", " how"],
                           "about": ["refusal", "unseen", "answer"]})
    fig = draw_svv_tokens(tokens)
    texts = {text.get_text(): text for text in fig.axes[0].texts}
    assert list(texts) == ["SV", "sorry", "xyz", "−L1H0", "how"]
    assert texts["sorry"].get_color() == PALETTE["+s"] and texts["xyz"].get_style() == "italic"
    plt.close(fig)
    preference = pd.DataFrame([(scale, method, "SV", value, 0.2, 0.8) for scale, method, value in (
        ("refusal", "dim", 0.9), ("refusal", "po", 0.7), ("refusal", "ntp", 0.6), ("harm", "dim", 0.5),
        ("harm", "po", 0.4), ("harm", "ntp", 0.3))], columns=[
            "scale", "method", "vector", "preference", "chance_low", "chance_high"])
    signs = pd.Series({("dim", "SV"): 1.0, ("po", "SV"): -1.0, ("ntp", "SV"): 1.0})
    fig = draw_svv_preference(preference, signs)
    assert [ax.lines[0].get_ydata().item() for ax in fig.axes] == [0.9, 0.7, 0.6, 0.5, 0.4, 0.3]
    assert fig.axes[4].get_xticklabels()[0].get_text() == "−SV"
    plt.close(fig)
