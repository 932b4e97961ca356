"""How figures look, and how each is drawn from a tidy table: nothing here computes what it shows."""

from steerpaper.figures.attribution import (
    draw_completeness, draw_effect_by_position, draw_patching_check, draw_score_distribution,
)
from steerpaper.figures.circuits import draw_circuit
from steerpaper.figures.faithfulness import draw_faithfulness, draw_interchange, draw_overlap
from steerpaper.figures.heads import (
    draw_svv_coefficient, draw_svv_cosines, draw_svv_explained, draw_svv_preference, draw_svv_tokens,
)
from steerpaper.figures.style import PALETTE, save_figure, use_style

__all__ = [
    "PALETTE", "draw_circuit", "draw_completeness", "draw_effect_by_position", "draw_faithfulness",
    "draw_interchange", "draw_overlap", "draw_patching_check", "draw_score_distribution", "draw_svv_coefficient",
    "draw_svv_cosines", "draw_svv_explained", "draw_svv_preference", "draw_svv_tokens", "save_figure", "use_style",
]
