"""How figures look, and how each is drawn from a tidy table: nothing here computes what it shows."""

from steerpaper.figures.circuits import draw_circuit, draw_faithfulness
from steerpaper.figures.style import PALETTE, save_figure, use_style

__all__ = ["PALETTE", "draw_circuit", "draw_faithfulness", "save_figure", "use_style"]
