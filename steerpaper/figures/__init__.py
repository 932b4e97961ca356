"""How figures look, and how each is drawn from a tidy table: nothing here computes what it shows."""

from steerpaper.figures.circuits import draw_circuit, draw_faithfulness
from steerpaper.figures.freezing import draw_attention_change, draw_layers, draw_undone
from steerpaper.figures.style import PALETTE, save_figure, use_style
from steerpaper.figures.vectors import (
    draw_asr, draw_cosines, draw_geometry, draw_learned_curves, draw_selection, draw_sweep,
)

__all__ = [
    "PALETTE", "draw_asr", "draw_attention_change", "draw_circuit", "draw_cosines", "draw_faithfulness",
    "draw_geometry", "draw_layers", "draw_learned_curves", "draw_selection", "draw_sweep", "draw_undone", "save_figure",
    "use_style",
]
