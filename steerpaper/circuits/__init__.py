"""Which edges of the model carry steering: attributed, patched, tested as circuits and compared."""

from steerpaper.circuits.attribution import Attribution, attribute
from steerpaper.circuits.chance import agreement, agreements
from steerpaper.circuits.circuit import Circuit, overlap
from steerpaper.circuits.contrast import NoPositionLeft
from steerpaper.circuits.curves import circuit_overlaps, faithfulness_by_class, position_effects, top_circuits
from steerpaper.circuits.flipped import FlippedResponses, patching_data
from steerpaper.circuits.graph import Graph, edge_types
from steerpaper.circuits.metrics import DirectionalKL, LogitDifference
from steerpaper.circuits.patching import patch_edges
from steerpaper.circuits.recovery import Faithfulness, faithfulness, faithfulness_of
from steerpaper.circuits.search import minimum_faithful

__all__ = [
    "Attribution", "Circuit", "DirectionalKL", "Faithfulness", "FlippedResponses", "Graph", "LogitDifference",
    "NoPositionLeft", "agreement", "agreements", "attribute", "circuit_overlaps", "edge_types", "faithfulness",
    "faithfulness_by_class", "faithfulness_of", "minimum_faithful", "overlap", "patch_edges", "patching_data",
    "position_effects", "top_circuits",
]
