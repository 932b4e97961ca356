"""Figures of notebooks 01 and 03 show what their tables say."""

from dataclasses import replace
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from steerpaper import paths
from steerpaper.concepts import REFUSAL
from steerpaper.figures import freezing, vectors
from steerpaper.figures.heads import draw_svv_preference, draw_svv_tokens
from steerpaper.figures.sparsity import draw_asr_by_sparsity
from steerpaper.figures.style import PALETTE


def recorded(name: str) -> pd.DataFrame:
    return pd.read_csv(paths.DATA / "results" / "organism-gemma2" / f"{name}.csv", keep_default_na=False,
                       na_values=[""])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_norms_stand_over_their_layers():
    candidates = recorded("dim_candidates")
    cosines = pd.DataFrame([(a, b, 1.0 if a == b else 0.5) for a in (1, 2) for b in (1, 2)],
                           columns=["layer_a", "layer_b", "cosine"])
    left, right, _ = vectors.draw_geometry(candidates, cosines).axes
    last = candidates[candidates.position == -1].sort_values("layer")
    assert any(list(line.get_ydata()) == pytest.approx(list(last.relative_norm)) for line in left.lines)
    assert list(right.collections[0].get_array().ravel()) == [1.0, 0.5, 0.5, 1.0]


def test_the_chosen_candidate_is_framed_where_its_scores_stand():
    scores = recorded("dim_candidates")
    fig = vectors.draw_selection(scores, 5, -2)
    for ax, name in zip(fig.axes, ("bypass", "induce", "kl"), strict=True):
        column, row = ax.patches[0].get_xy()
        grid = ax.collections[0].get_array()
        own = scores[(scores.layer == 5) & (scores.position == -2)]
        assert grid[int(row), int(column)] == pytest.approx(own[name].item())
    scored = sorted(scores.layer.unique())[:-2]  # what the rule excludes need not be scored
    scores.loc[~scores.layer.isin(scored), ["bypass", "induce", "kl"]] = np.nan
    fig = vectors.draw_selection(scores, 5, -2)
    assert {len(ax.collections[0].get_array()) for ax in fig.axes} == {len(scored)}


def test_the_sweep_is_the_table_and_both_chosen_coefficients_are_marked():
    curves = recorded("dim_sweep")
    for ax, value in zip(vectors.draw_sweep(curves, 0.7).axes, ("asr", "clean"), strict=True):
        lines = {line.get_label(): line for line in ax.lines}
        harmful = curves[curves.prompts == "harmful"]
        assert list(lines["harmful prompts"].get_ydata()) == pytest.approx(list(harmful[value]))
        assert [lines[f"chosen {sign}α"].get_xdata()[0] for sign in "−+"] == [-0.7, 0.7]


def test_learned_curves_are_means_over_seeds():
    curves = recorded("learned_curves")
    axes = vectors.draw_learned_curves(curves).axes
    assert [ax.get_title().split("\n")[0] for ax in axes[:3]] == ["NTP", "PO, φ = 0.2", "PO, φ = 1e-05"]
    own = curves[(curves.method == "ntp") & (curves.learning_rate == 0.4) & (curves.batch_size == 6)]
    expected = own.groupby("epoch").validation_loss.mean()
    assert any(list(line.get_ydata()) == pytest.approx(list(expected)) for line in axes[3].lines)
    told = [vectors.draw_learned_curves(each).legends[0].get_title().get_text()
            for each in (curves, curves[curves.seed == curves.seed.min()])]
    assert told == ["lines: mean over seeds; bands: their range", ""]


def test_bars_are_attack_success_rates():
    table = recorded("table2_asr")
    for ax, (_, group) in zip(vectors.draw_asr(table).axes, table.groupby("prompts"), strict=True):
        assert [bar.get_height() for bar in ax.patches] == pytest.approx(list(group.asr))
        assert to_hex(ax.patches[1].get_facecolor()).upper() == PALETTE["dim"]


def test_cosines_are_written_with_their_ranges():
    texts = {text.get_text() for text in vectors.draw_cosines(recorded("cosines")).axes[0].texts}
    assert {"0.43\n0.43 to 0.47", "1.00"} <= texts


def test_shares_undone_stand_with_the_papers_beside():
    shares = pd.DataFrame(
        [(model, "dim", part, prompts, value, value - 0.1, value + 0.1)
         for model, value in (("toy", 0.25), ("gemma-2-2b-it", 0.5)) for part in ("qk", "ov", "svv", "mlp")
         for prompts in ("harmful", "harmless")],
        columns=["model", "method", "frozen", "prompts", "undone", "low", "high"])
    fig = freezing.draw_undone(shares, "toy")
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == list(freezing.PARTS.values())
    for ax in fig.axes:
        points = {container.get_label(): container.lines[0] for container in ax.containers}
        assert list(points["DIM"].get_xdata()) == [0.25] * 4
        assert list(points["paper: Gemma 2 2B (DIM)"].get_xdata()) == [0.5] * 4
        own = next(container for container in ax.containers if container.get_label() == "DIM")
        assert own.lines[2][0].get_segments()[0][:, 0] == pytest.approx([0.15, 0.35])


def test_layers_frozen_alone_up_to_and_from_on():
    by_layer, whole = recorded("freeze_by_layer"), recorded("freeze_parts").query("frozen == 'none'")
    axes = freezing.draw_layers(by_layer, whole).axes
    harmful = by_layer[(by_layer.frozen == "ov") & (by_layer.prompts == "harmful")]
    chosen = (harmful["first"] == harmful["last"], harmful["first"] == 5, harmful["last"] == 9)
    for ax, rows in zip(axes[3:], chosen, strict=True):
        line = next(line for line in ax.lines if line.get_label() == "harmful prompts")
        assert list(line.get_ydata()) == pytest.approx(list(harmful[rows].asr))
        assert list(line.get_xdata()) == [5, 6, 7, 8, 9]


def test_shares_undone_stand_at_their_layer_in_their_methods_column():
    rows = [(layer, method, kind, prompts, 0.1 * i, 0.1 * i - 0.05, 0.1 * i + 0.2)
            for i, (layer, method, kind, prompts) in enumerate(product(
                (3, 5), ("dim", "po"), ("qk", "mlp-total"), ("harmful", "harmless")))]
    undone = pd.DataFrame(rows, columns=["layer", "method", "frozen", "prompts", "undone", "low", "high"])
    axes = freezing.draw_undone_by_layer(undone, ["harmful", "harmless"]).axes
    assert [ax.get_title() for ax in axes] == [
        "DIM, harmful prompts", "PO, harmful prompts", "DIM, harmless prompts", "PO, harmless prompts"]
    drawn = {lines.get_label(): lines for lines in axes[3].containers}
    for kind, label in (("qk", "attention weights"), ("mlp-total", "all that MLPs write")):
        own = undone[(undone.method == "po") & (undone.frozen == kind) & (undone.prompts == "harmless")]
        line, _, (bars,) = drawn[label]
        assert np.allclose(line.get_xdata(), own.layer, atol=0.4) and np.allclose(line.get_ydata(), own.undone)
        assert np.allclose([bar[:, 1] for bar in bars.get_segments()], own[["low", "high"]])
    assert not any(ax.texts for ax in axes)
    axes = freezing.draw_undone_by_layer(undone[undone.prompts == "harmless"], ["harmful", "harmless"]).axes
    assert [[text.get_text() for text in ax.texts] for ax in axes] == [["ASR moves by less than half"]] * 2 + [[]] * 2


def test_attention_change_is_the_mean_over_heads():
    changes = recorded("attention_change")
    left, right = freezing.draw_attention_change(changes).axes
    means = changes[changes.method == "dim"].groupby("layer").total_variation.mean()
    assert any(list(line.get_ydata()) == pytest.approx(list(means)) for line in left.lines)
    assert right.lines[0].get_ydata() == pytest.approx(changes[changes.method == "dim"].total_variation.to_numpy())
    assert all("moved attention weight" in label for label in (right.get_xlabel(), right.get_ylabel()))


def test_signs_and_titles_go_by_the_concept():
    """Of answering, which is refusal the other way round: harmless prompts show it by themselves."""
    answering = replace(REFUSAL, name="answering", positive="harmless", negative="harmful", expresses="answer")
    titles = [ax.get_title() for ax in vectors.draw_asr(recorded("table2_asr"), answering).axes]
    assert titles == ["harmful prompts, +|α|", "harmless prompts, −|α|"]
    counted = [vectors.draw_asr(recorded("table2_asr"), concept).axes[0].get_ylabel() for concept in (REFUSAL, answering)]
    assert counted == ["attack success rate\n(lines: 95 %)", "share that do not answer\n(lines: 95 %)"]
    titles = [ax.get_title() for ax in vectors.draw_selection(recorded("dim_candidates"), 5, -2, answering).axes]
    assert titles[0] == "bypass: harmless prompts, −s\n(log odds of answering)"
    assert titles[1:] == ["induce: harmful prompts, +s\n(log odds of answering)",
                          "KL: harmful prompts,\ndirection removed (nats)"]
    shares = pd.DataFrame({"model": "toy", "method": "dim", "frozen": "ov", "prompts": ["harmful", "harmless"],
                           "undone": [0.5, 0.6], "low": 0.4, "high": 0.7})
    fig = freezing.draw_undone(shares, "toy", answering)
    assert [ax.get_title() for ax in fig.axes] == ["harmless prompts, −s", "harmful prompts, +s"]
    paper = pd.concat([shares, shares.assign(model="gemma-2-2b-it", method="dim")])
    told = [freezing.draw_undone(each, "toy").legends[0].get_title().get_text() for each in (shares, paper)]
    assert ["paper" in title for title in told] == [False, True]
    assert [container.get_label() for container in fig.axes[0].containers] == ["DIM"]  # none of the paper's
    curves = recorded("table10_11_sparsity").query("rescaled")
    fig = draw_asr_by_sparsity(curves, "method", curves.head(0), answering)
    said = [text.get_text() for text in fig.legends[0].get_texts()]
    assert said[:2] == ["harmful prompts, +α", "harmless prompts, −α"]


def test_words_are_called_by_the_concept():
    tokens = pd.DataFrame({"method": "dim", "vector": "SV", "sign": 1.0, "rank_shown": [1, 2], "token": ["1", "no"],
                           "about": ["to answer", "harmful prompts"]})
    answering = replace(REFUSAL, name="answering", positive="harmless", negative="harmful", expresses="answer",
                        withholds="refuse")
    words = {text.get_text(): text.get_color() for text in draw_svv_tokens(tokens, answering).axes[0].texts}
    assert words == {"SV": "black", "1": PALETTE["+s"], "no": PALETTE["harmful"]}
    rows = [(scale, method, "SV", 0.5, 0.2, 0.8) for scale in ("to answer", "harmless prompts")
            for method in ("dim", "ntp", "po")]
    preference = pd.DataFrame(rows, columns=["scale", "method", "vector", "preference", "chance_low", "chance_high"])
    signs = pd.Series(1.0, pd.MultiIndex.from_product([("dim", "ntp", "po"), ["SV"]]))
    grid = draw_svv_preference(preference, signs, answering).axes
    assert [grid[i].get_ylabel() for i in (0, 3)] == [
        "preference for\nanswer before refuse", "preference for\nharmless prompts\nbefore harmful prompts"]
    assert [ax.get_title() for ax in grid] == ["DIM", "NTP", "PO", "", "", ""]
    assert [len(ax.lines) for ax in grid] == [2] * 6
