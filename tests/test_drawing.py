"""Figures show what their tables say; in the drawing of a circuit every node has a place of its own."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from steerpaper.circuits.graph import Graph
from steerpaper.figures.attribution import (
    draw_completeness, draw_effect_by_position, draw_patching_check, draw_score_distribution,
)
from steerpaper.figures.circuits import draw_circuit, layout
from steerpaper.figures.faithfulness import (
    draw_faithfulness, draw_interchange, draw_overlap, draw_random_circuits, draw_random_vector_circuits,
)
from steerpaper.figures.heads import (
    draw_svv_coefficient, draw_svv_cosines, draw_svv_explained, draw_svv_preference, draw_svv_tokens,
)
from steerpaper.figures.scorecard import draw_reported_measured, draw_scorecard
from steerpaper.figures.sparsity import (
    draw_agreement, draw_asr_by_sparsity, draw_side_effects, draw_thresholds, draw_top_dimensions,
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


def test_random_circuits_are_bands_at_their_own_size():
    curves = pd.DataFrame({"prompts": ["harmful", "harmless"], "share": 0.1, "faithfulness": 0.9, "low": 0.8, "high": 1.0,
                           "circuit": "top"})
    random = pd.DataFrame([(control, prompts, share, 0.05, 0.0, high) for control, high in (("same size", 0.1),
                           ("same kinds", 0.4)) for prompts in ("harmful", "harmless") for share in (0.3, 0.1)],
                          columns=["control", "prompts", "share", "median", "low", "high"])
    fig = draw_faithfulness(curves, "circuit", {"top": ("black", "o-")}, random)
    for ax in fig.axes:
        bands = [band.get_paths()[0].vertices for band in ax.collections if hasattr(band, "get_paths") and band.get_label()
                 .endswith("of draws")]
        assert [band[:, 0].min() for band in bands] == pytest.approx([10, 10])
        assert [band[:, 0].max() for band in bands] == pytest.approx([30, 30])
        assert [band[:, 1].max() for band in bands] == pytest.approx([0.1, 0.4])
    plt.close(fig)


def test_every_random_circuit_is_a_point_filled_where_it_leads_straight_to_the_logits():
    draws = pd.DataFrame([(control, draw, prompts, draw / 10, 0.9, draw > 2) for control in ("same size", "same kinds")
                          for draw in range(4) for prompts in ("harmful", "harmless")],
                         columns=["control", "draw", "prompts", "faithfulness", "own", "straight"])
    fig = draw_random_circuits(draws)
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["as many\nrandom edges", "as many\nof every kind"]
    for ax in fig.axes:
        straight, other = (ax.collections[i].get_offsets() for i in (0, 1))
        assert straight[:, 1].tolist() == pytest.approx([0.3]) and other[:, 1].tolist() == pytest.approx([0, 0.1, 0.2])
        assert len(ax.collections[0].get_facecolors()) and not len(ax.collections[1].get_facecolors())
    plt.close(fig)


def test_a_random_vectors_circuit_is_a_point_filled_where_the_vector_steers_by_itself():
    moved = {0: 0.0, 1: -0.03, 2: 0.05, 3: -0.05}  # of a method that moves ASR by 0.4, either way
    table = pd.DataFrame([(method, seed, prompts, seed / 10 + 0.4, 0.3, 0.9, change, sign)
                          for method in ("dim", "po") for seed, change in moved.items()
                          for prompts, sign in (("harmful", 0.4), ("harmless", -0.4))],
                         columns=["method", "seed", "prompts", "other_share", "other_share_low", "other_share_high",
                                  "asr_change", "method_change"])
    fig = draw_random_vector_circuits(table.sample(frac=1, random_state=0).sort_values("method", kind="stable"))
    for ax in fig.axes:
        assert [label.get_text() for label in ax.get_xticklabels()] == ["DIM", "PO"]
        for bars, steers, not_so in (ax.collections[:3], ax.collections[3:]):
            assert len(bars.get_segments()) == 4 and {tuple(part[:, 1]) for part in bars.get_segments()} == {(0.3, 0.9)}
            assert steers.get_offsets()[:, 1].tolist() == pytest.approx([0.6, 0.7])
            assert not_so.get_offsets()[:, 1].tolist() == pytest.approx([0.4, 0.5])
            assert not_so.get_facecolors().tolist() == [[1, 1, 1, 1]] and steers.get_facecolors()[0].min() < 1
    filled, open_, half = fig.legends[0].legend_handles
    assert half.get_label().startswith("half") and fig.axes[0].lines[-1].get_ydata()[0] == 0.5
    assert filled.get_markerfacecolor() == "black" and open_.get_markerfacecolor() == "white"
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
    harmful = pd.DataFrame(keys | quantiles)
    fig = draw_svv_coefficient(pd.concat([harmful.assign(prompts="harmless", q50=[0.31, 0.32]), harmful]))
    assert [ax.lines[0].get_ydata().tolist() for ax in fig.axes] == [quantiles["q50"], [0.31, 0.32]]
    assert [ax.get_title() for ax in fig.axes] == ["harmful prompts", "harmless prompts"]
    assert [segment[:, 1].tolist() for segment in fig.axes[0].collections[0].get_segments()] == [[0.1, 0.5], [0.2, 0.6]]
    plt.close(fig)
    heads = pd.DataFrame(keys | {"explained": [0.5, -2.0]}).assign(method="dim")
    fig = draw_svv_explained(pd.concat([heads, heads.assign(method="po")]), heads.head(1))
    dots, line = fig.axes[0].lines[:2]
    assert dots.get_ydata().tolist() == [0.5, -0.75] and line.get_ydata().tolist() == [0.5]
    plt.close(fig)
    cosines = pd.DataFrame({"method_a": "dim", "method_b": ["ntp", "ntp", "po", "po"], "layer": 3, "head": [0, 1, 0, 1],
                            "cosine": [0.2, 0.3, 0.4, 0.5], "vector_cosine": 0.3, "low": [0.1, 0.15] * 2, "high": 0.5})
    fig = draw_svv_cosines(cosines)
    assert [ax.lines[1].get_ydata().tolist() for ax in fig.axes] == [[0.2, 0.3], [0.4, 0.5]]
    for ax in fig.axes:  # every head has its own interval, at its own place
        segments = ax.collections[0].get_segments()
        assert [part[:, 1].tolist() for part in segments] == [[0.1, 0.5], [0.15, 0.5]]
        assert [part[0, 0] for part in segments] == ax.lines[1].get_xdata().tolist() == pytest.approx([2.825, 3.175])
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
    strange = ["\u7a74", "\u304b", "|" + 40 * "-", "AndPasswordsToo", "AndPasswords1", "  \n"]
    tokens = pd.DataFrame({"method": "dim", "vector": "SV", "sign": 1.0, "rank_shown": range(1, 7), "token": strange,
                           "about": "unseen"})
    fig = draw_svv_tokens(tokens)  # what the font cannot draw by its script, what no column holds cut
    assert [text.get_text() for text in fig.axes[0].texts[1:]] == [
        "[cjk]", "[hiragana]", "|-----------…", "AndPasswords…", "AndPasswords1", "'  \\n'"]
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


# -- sparse vectors ------------------------------------------------------------------------------------------

def curve_of(ax, colour: str):
    """The one line of a colour that has several points with markers."""
    found = [line for line in ax.lines if line.get_color() == colour and line.get_marker() != "None"]
    (found,) = [line for line in found if np.size(line.get_xdata()) > 1]
    return found


def test_sparsity_curves_stand_in_the_panel_of_their_sparsifier():
    rows = [("dim", key, prompts, sparsity, value, unsteered) for key in ("gradient", "dropout")
            for prompts, unsteered in (("harmless", 0.97), ("harmful", 0.02))
            for sparsity, value in ((0.9, 0.4), (0, 0.1))]
    curves = pd.DataFrame(rows, columns=["method", "sparsifier", "prompts", "sparsity", "asr", "unsteered"])
    kept = pd.DataFrame({"method": ["dim"], "sparsifier": ["dropout"], "sparsity": [0.5]})
    fig = draw_asr_by_sparsity(curves.assign(asr_low=curves.asr - 0.1, asr_high=curves.asr + 0.2), "method", kept)
    gradient, *empty, dropout = fig.axes
    assert [ax.get_title() for ax in fig.axes] == ["gradient", "indirect effect", "smallest first", "dropout (at random)"]
    for ax in (gradient, dropout):
        curve = curve_of(ax, PALETTE["harmful"])
        assert curve.get_xdata() == pytest.approx([100, 10]) and curve.get_ydata() == pytest.approx([0.1, 0.4])
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == pytest.approx((0, 0.6))
    assert [line.get_xdata()[0] for line in dropout.lines if line.get_color() == "black"] == pytest.approx([50])
    assert not any(len(ax.collections) for ax in empty)
    assert gradient.get_ylabel() == "DIM\nASR"
    hollow = {line.get_color(): line.get_ydata()[0] for line in gradient.lines if line.get_markerfacecolor() == "white"}
    assert hollow == {PALETTE["harmful"]: 0.02, PALETTE["harmless"]: 0.97}  # the unsteered level of each set, at the edge
    plt.close(fig)


def test_thresholds_have_a_panel_per_model():
    table = pd.DataFrame({"model": ["a", "a", "b", "b"], "method": "dim", "rule": "normalised", "threshold": [0, 1] * 2,
                          "sparsity": [0, 0.8, 0, 0.7]})
    fig = draw_thresholds(table)
    assert [ax.get_title() for ax in fig.axes] == ["a", "b"]
    assert [curve_of(ax, PALETTE["dim"]).get_ydata()[1] for ax in fig.axes] == pytest.approx([80, 70])
    assert fig.axes[0].lines[1].get_ydata()[-1] == pytest.approx(68.27, abs=0.01)  # of a normal within one deviation
    plt.close(fig)


def test_agreement_sets_the_control_apart():
    table = pd.DataFrame({
        "method_a": ["dim", "dim", "dim, few answers"], "method_b": ["ntp", "ntp", "random vector"],
        "threshold": [0.5, 1, 1], "iou": [0.8, 0.6, 0.2], "chance": 0.1, "chance_low": 0.0, "chance_high": 0.2,
        "p": [1e-9, 1e-5, 0.3]})
    fig = draw_agreement(table)
    above, control, below, _ = fig.axes
    assert above.lines[0].get_ydata() == pytest.approx([0.8, 0.6]) and above.get_title() == "DIM and NTP"
    assert below.lines[0].get_ydata() == pytest.approx([1e-9, 1e-5])
    assert control.get_title() == "control: DIM and\na random vector"
    assert control.lines[0].get_color() != above.lines[0].get_color()
    plt.close(fig)


def test_top_dimensions_are_bars_of_their_share():
    table = pd.DataFrame({"dimension": [7, 3, 1], "dim": [0.2, -0.1, 0.0], "po": [0.3, 0.1, 0.0],
                          "rank_dim": [1, 2, 3], "rank_po": [1, 2, 3]})
    fig = draw_top_dimensions(table, 2)
    ax = fig.axes[0]
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([20, -10, 30, 10])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["7", "3"]
    plt.close(fig)


def test_side_effects_show_what_was_taken_with_its_intervals():
    table = pd.DataFrame({"vector": ["dense", "dense", "sparse", "sparse"], "method": "po", "alpha": [0, 1] * 2,
                          "kl": [0, 0.5, 0, 0.7], "clean": [1, 0.9, 1, 0.4], "asr": [1, 0, np.nan, 0.1]})
    for name in ("kl", "clean", "asr"):
        table = table.assign(**{f"{name}_low": table[name] * 0.9, f"{name}_high": table[name] * 1.1})
    fig = draw_side_effects(table)
    kl, clean, asr = fig.axes
    assert np.isnan(kl.lines[0].get_ydata()[0]) and kl.lines[1].get_ydata()[1] == 0.7
    assert clean.lines[1].get_ydata() == pytest.approx([1, 0.4]) and asr.lines[1].get_ydata() == pytest.approx([0.1])
    assert [len(ax.collections) for ax in fig.axes] == [2, 2, 2]
    plt.close(fig)


# -- scorecard -----------------------------------------------------------------------------------------------

def test_scorecard_has_a_coloured_cell_per_claim_and_model():
    card = pd.DataFrame({"title": ["It works", "It splits"], "paper verdict": ["holds", "stated"],
                         "verdict": ["in part", "holds"], "met": [1, 4], "cases": [3, 4]})
    fig = draw_scorecard(card, "tiny", {"holds": "#00ff00", "in part": "#ffff00", "stated": "#0000ff"})
    ax = fig.axes[0]
    assert [text.get_text() for text in ax.texts] == ["in part (1/3)", "holds", "holds (4/4)", "stated"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["1. It works", "2. It splits"]
    fig.canvas.draw()
    assert [to_hex(colour) for colour in ax.collections[0].get_facecolors()] == [
        "#ffff00", "#00ff00", "#00ff00", "#0000ff"]
    plt.close(fig)


def test_reported_and_measured_rates():
    rows = [("table1_ablations", "gemma", "dim, qk, alpaca: asr", "0.3", "0.5", "0.4", "0.7"),
            ("table2_asr", "llama", "po, jailbreakbench: asr", "0.8", "1", "0.9", "1"),
            ("table10_11_sparsity", "gemma", "dim, gradient, threshold 1, alpaca: asr", "0.1", "0.3", "0", "1"),
            ("table10_11_sparsity", "llama", "dim, gradient, threshold 1, alpaca: asr", "0.1", "0.5", "0", "1"),
            ("table10_11_sparsity", "llama", "po, bottom_k, threshold 1, strongreject: asr", "0.6", "0.2", "0", "1"),
            ("table3_patching_data", "llama", "dim: responses", "100", "", "", "")]
    columns = ["source", "model", "quantity", "reported", "measured", "low", "high"]
    fig = draw_reported_measured(pd.DataFrame(rows, columns=columns), "tiny")
    first, second, sparse = fig.axes
    points, _, (bars,) = first.containers[0]
    assert (points.get_xdata().item(), points.get_ydata().item()) == (0.3, 0.5)
    assert bars.get_segments()[0][:, 1] == pytest.approx([0.4, 0.7])
    assert second.containers[0][0].get_ydata().item() == 1
    medians = {round(x, 6) for line in sparse.lines for x in line.get_xdata() if line.get_marker() == "o" and x == x}
    assert medians == {0.3, -0.4}
    plt.close(fig)
