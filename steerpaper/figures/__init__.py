"""How figures look, and how each is drawn from a tidy table: nothing here computes what it shows."""

from steerpaper.figures.circuits import draw_circuit, draw_faithfulness
from steerpaper.figures.scorecard import draw_reported_measured, draw_scorecard
from steerpaper.figures.sparsity import (
    draw_agreement, draw_asr_by_sparsity, draw_side_effects, draw_thresholds, draw_top_dimensions,
)
from steerpaper.figures.style import PALETTE, save_figure, use_style

__all__ = [
    "PALETTE", "draw_agreement", "draw_asr_by_sparsity", "draw_circuit", "draw_faithfulness", "draw_reported_measured",
    "draw_scorecard", "draw_side_effects", "draw_thresholds", "draw_top_dimensions", "save_figure", "use_style",
]
