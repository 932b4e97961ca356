"""Which edges of the model carry steering: attributed, patched, tested as circuits and compared."""

from steerpaper.circuits.attribution import Attribution, attribute
from steerpaper.circuits.chance import agreement, agreements
from steerpaper.circuits.circuit import Circuit, overlap
from steerpaper.circuits.contrast import NoPositionLeft
from steerpaper.circuits.controls import CONTROLS, quantiles_of_draws, random_draws, random_like
from steerpaper.circuits.curves import (
    circuit_overlaps, faithfulness_by_class, minimum_circuit, position_effects, top_circuits,
)
from steerpaper.circuits.differences import differences
from steerpaper.circuits.flipped import FlippedResponses, NothingFlips, flipped_responses, patching_data
from steerpaper.circuits.freezes import frozen_circuits, undone_on_logits
from steerpaper.circuits.graph import Graph, edge_types
from steerpaper.circuits.interchange import interchanged, minimum_circuits, random_vector_circuits, ranked_with_control
from steerpaper.circuits.layers import circuits_by_layer, shared_above, shared_by_kind
from steerpaper.circuits.metrics import DirectionalKL, LogitDifference
from steerpaper.circuits.patching import patch_edges
from steerpaper.circuits.recovery import Faithfulness, faithfulness, faithfulness_of
from steerpaper.circuits.search import minimum_faithful
from steerpaper.circuits.unsteered import unsteered_gradient

__all__ = [
    "CONTROLS", "Attribution", "Circuit", "DirectionalKL", "Faithfulness", "FlippedResponses", "Graph",
    "LogitDifference", "NoPositionLeft", "NothingFlips", "agreement", "agreements", "attribute", "circuit_overlaps",
    "circuits_by_layer", "differences", "edge_types", "faithfulness", "faithfulness_by_class", "faithfulness_of",
    "flipped_responses", "frozen_circuits", "interchanged", "minimum_circuit", "minimum_circuits", "minimum_faithful",
    "overlap", "patch_edges", "patching_data", "position_effects", "quantiles_of_draws", "random_draws", "random_like",
    "random_vector_circuits", "ranked_with_control", "shared_above", "shared_by_kind", "top_circuits",
    "undone_on_logits", "unsteered_gradient",
]
