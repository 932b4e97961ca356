"""Which edges of the model carry steering: attributed, patched, tested as circuits, compared and drawn."""

from steerpaper.circuits.attribution import Attribution, attribute
from steerpaper.circuits.chance import agreement
from steerpaper.circuits.circuit import Circuit, overlap
from steerpaper.circuits.drawing import draw_circuit, draw_faithfulness
from steerpaper.circuits.flips import PatchingData, patching_data
from steerpaper.circuits.graph import Graph, edge_types
from steerpaper.circuits.metrics import DirectionalKL, LogitDifference
from steerpaper.circuits.patching import patch_edges
from steerpaper.circuits.recovery import Faithfulness, faithfulness, faithfulness_of
from steerpaper.circuits.search import minimum_faithful

__all__ = [
    "Attribution", "Circuit", "DirectionalKL", "Faithfulness", "Graph", "LogitDifference", "PatchingData", "agreement",
    "attribute", "draw_circuit", "draw_faithfulness", "edge_types", "faithfulness", "faithfulness_of",
    "minimum_faithful", "overlap", "patch_edges", "patching_data",
]
