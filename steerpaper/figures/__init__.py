"""How figures look, and how each is drawn from a tidy table: nothing here computes what it shows."""

from steerpaper.figures.attribution import (
    draw_completeness, draw_effect_by_position, draw_patching_check, draw_score_distribution,
)
from steerpaper.figures.circuits import draw_circuit
from steerpaper.figures.concepts import draw_two_circuits, draw_two_vectors
from steerpaper.figures.faithfulness import (
    draw_faithfulness, draw_interchange, draw_overlap, draw_random_circuits, draw_random_vector_circuits,
)
from steerpaper.figures.freezing import draw_attention_change, draw_layers, draw_undone, draw_undone_by_layer
from steerpaper.figures.heads import (
    draw_svv_coefficient, draw_svv_cosines, draw_svv_explained, draw_svv_preference, draw_svv_tokens,
)
from steerpaper.figures.robustness import draw_collateral, draw_layer_circuits, draw_shifts
from steerpaper.figures.scorecard import draw_reported_measured, draw_scorecard
from steerpaper.figures.sparsity import (
    draw_agreement, draw_asr_by_sparsity, draw_side_effects, draw_thresholds, draw_top_dimensions,
)
from steerpaper.figures.style import PALETTE, method_label, save_figure, use_style
from steerpaper.figures.vectors import (
    draw_asr, draw_cosines, draw_geometry, draw_learned_curves, draw_selection, draw_sweep,
)

__all__ = [
    "PALETTE", "draw_agreement", "draw_asr", "draw_asr_by_sparsity", "draw_attention_change", "draw_circuit",
    "draw_collateral", "draw_completeness", "draw_cosines", "draw_effect_by_position", "draw_faithfulness",
    "draw_geometry", "draw_interchange", "draw_layer_circuits", "draw_layers", "draw_learned_curves", "draw_overlap",
    "draw_patching_check", "draw_random_circuits", "draw_random_vector_circuits", "draw_reported_measured",
    "draw_score_distribution", "draw_scorecard", "draw_selection", "draw_shifts", "draw_side_effects",
    "draw_svv_coefficient", "draw_svv_cosines", "draw_svv_explained", "draw_svv_preference", "draw_svv_tokens",
    "draw_sweep", "draw_thresholds", "draw_top_dimensions", "draw_two_circuits", "draw_two_vectors", "draw_undone",
    "draw_undone_by_layer", "method_label", "save_figure", "use_style",
]
