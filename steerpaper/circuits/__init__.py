"""Which edges of the model carry steering: attributed, patched, tested as circuits, compared and drawn."""

from steerpaper.circuits.agreement import agreement
from steerpaper.circuits.attribution import Attribution, attribute
from steerpaper.circuits.drawing import draw_circuit, draw_faithfulness
from steerpaper.circuits.faithfulness import (
    Circuit, Faithfulness, faithfulness, faithfulness_of, minimum_faithful, overlap,
)
from steerpaper.circuits.flipped import FlippedResponses, patching_data
from steerpaper.circuits.graph import Graph, edge_types
from steerpaper.circuits.patching import patch_edges

__all__ = [
    "Attribution", "Circuit", "Faithfulness", "FlippedResponses", "Graph", "agreement", "attribute", "draw_circuit",
    "draw_faithfulness", "edge_types", "faithfulness", "faithfulness_of", "minimum_faithful", "overlap", "patch_edges",
    "patching_data",
]
