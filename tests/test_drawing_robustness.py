"""Figures of notebook 07 show what their tables say, and say where there is nothing to show."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from steerpaper.figures.freezing import draw_undone_by_layer
from steerpaper.figures.robustness import draw_collateral, draw_layer_circuits, draw_shifts
from steerpaper.figures.style import PALETTE


def points(ax) -> dict[str, list[tuple[float, float]]]:
    """The markers of every series by its label."""
    return {str(one.get_label()): [(float(x), float(y)) for x, y in one.lines[0].get_xydata()]
            for one in ax.containers}


def circuits(**rows):
    return pd.DataFrame([(layer, method, prompts, *values) for method, own in rows.items()
                         for layer, values in own.items() for prompts in ("both", "harmful")],
                        columns=["layer", "method", "prompts", "share", "faithfulness", "low", "high"])


SHARED = pd.DataFrame([(3, "dim", 5, "dim", 0.5, 0.1), (3, "dim", 3, "po", 0.8, 0.2)],
                      columns=["layer_a", "method_a", "layer_b", "method_b", "overlap", "chance"])


def test_circuits_by_layer_are_the_table():
    nan = (np.nan,) * 4
    fig = draw_layer_circuits(circuits(dim={3: (0.1, 0.9, 0.8, 1.0), 5: nan}, po={5: (0.2, 0.7, 0.6, 0.9)}), SHARED)
    size, carried, common = fig.axes
    sizes = {line.get_label(): line.get_ydata().tolist() for line in size.lines}
    assert sizes == {"DIM": [10.0], "PO": [20.0]}
    assert {name: [y for _, y in own] for name, own in points(carried).items()} == {"DIM": [0.9], "PO": [0.7]}
    assert size.get_xticks().tolist() == [3, 5]
    dots = [(offset[1], to_hex(colour)) for dot in common.collections if len(dot.get_offsets()) and len(
        dot.get_facecolors()) for offset, colour in zip(dot.get_offsets(), dot.get_facecolors())]
    assert (0.5, to_hex(PALETTE["dim"])) in dots and (0.8, to_hex(PALETTE["base"])) in dots
    assert [label.get_text() for label in common.get_xticklabels()] == ["3, 5", "at 3"]
    chance = [segment[0][1] for lines in common.collections if hasattr(lines, "get_segments")
              for segment in lines.get_segments()]
    assert chance == [0.1, 0.2]
    plt.close(fig)


def test_no_circuit_at_all_can_be_drawn():
    fig = draw_layer_circuits(circuits(dim={3: (np.nan,) * 4}), SHARED.head(0))
    fig.canvas.draw()
    assert fig.axes[2].get_xticks().tolist() == []
    plt.close(fig)


def test_a_layer_at_which_nothing_turned_is_drawn_as_that():
    nothing = pd.DataFrame(columns=["layer", "method", "frozen", "prompts", "undone", "low", "high"])
    fig = draw_undone_by_layer(nothing, ["harmful", "harmless"])
    fig.canvas.draw()
    assert [text.get_text() for ax in fig.axes for text in ax.texts] == ["ASR moves by less than half"] * 6
    plt.close(fig)


def effects():
    runs = [("none", 0), ("dim", -1), ("dim", 1)]
    rows = [("text", *run, measure, i, i - 0.1, i + 0.1) for measure in ("kl", "loss") for i, run in enumerate(runs)]
    for prompts in ("harmful", "harmless", "closed"):
        for i, run in enumerate(runs):
            rows += [(prompts, *run, measure, i / 4, 0.0, 1.0) for measure in ("expressed", "loops")]
            rows.append((prompts, *run, "tokens", 10.0 + i, np.nan, np.nan))
            rows += [(prompts, *run, "right", 1 - i / 2, 0.0, 1.0)] if prompts == "closed" else []
    return pd.DataFrame(rows, columns=["prompts", "method", "sign", "measure", "value", "low", "high"])


def test_side_effects_have_a_panel_per_measure():
    fig = draw_collateral(effects())
    shown = {(ax.get_title(), ax.get_ylabel().replace("\n", " ")): points(ax) for ax in fig.axes if ax.axison}
    assert list(shown) == [
        ("harmless text", "KL of the next token (nats)"), ("harmless text", "loss along given text (nats per token)"),
        ("closed questions", "share of answers that are right"), ("harmful prompts", "share of answers that refuse"),
        ("harmless prompts", "share of answers that refuse"), ("harmless prompts", "share of answers that loop"),
        ("harmless prompts", "tokens of an answer")]
    right = shown["closed questions", "share of answers that are right"]
    assert right == {"not steered": [(0, 1.0)], "−s": [(pytest.approx(0.84), 0.5)], "+s": [(pytest.approx(1.16), 0.0)]}
    assert shown["harmless prompts", "tokens of an answer"]["+s"][0][1] == 12.0
    labels = [label.get_text() for label in fig.axes[6].get_xticklabels()]
    assert labels == ["not steered", "DIM"]
    plt.close(fig)


def test_shifts_are_the_table_and_missing_prompts_are_said():
    table = pd.DataFrame([("plain", "harmful", "dim", 0.9, 0.7, 1.0), ("plain", "harmful", "none", 0.1, 0.0, 0.3),
                          ("plain", "harmless", "dim", 0.0, 0.0, 0.3), ("wrapped", "harmless", "dim", 0.4, 0.2, 0.6)],
                         columns=["shift", "prompts", "method", "asr", "asr_low", "asr_high"])
    fig = draw_shifts(table)
    harmful, harmless = fig.axes
    assert {name: [x for x, _ in own] for name, own in points(harmful).items()} == {"not steered": [0.1], "DIM": [0.9]}
    assert [x for x, _ in points(harmless)["DIM"]] == [0.0, 0.4]
    assert [label.get_text() for label in harmful.get_yticklabels()] == ["plain", "wrapped"]
    assert [text.get_text() for text in harmful.texts] == ["no harmful prompts of this kind"] and not harmless.texts
    assert (harmful.get_title(), harmless.get_title()) == ("harmful prompts, −s", "harmless prompts, +s")
    plt.close(fig)
