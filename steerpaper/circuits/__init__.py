"""Which edges of the model carry steering: attributed, patched, tested as circuits and compared."""

from steerpaper.circuits.agreement import agreement
from steerpaper.circuits.attribution import Attribution, attribute
from steerpaper.circuits.curves import (
    circuit_overlaps, faithfulness_by_class, position_effects, top_circuits,
)
from steerpaper.circuits.faithfulness import (
    Circuit, Faithfulness, faithfulness, faithfulness_of, minimum_faithful, overlap,
)
from steerpaper.circuits.flips import PatchingData, patching_data
from steerpaper.circuits.graph import Graph, edge_types
from steerpaper.circuits.patching import patch_edges

__all__ = [
    "Attribution", "Circuit", "Faithfulness", "Graph", "PatchingData", "agreement", "attribute", "circuit_overlaps",
    "edge_types", "faithfulness", "faithfulness_by_class", "faithfulness_of", "minimum_faithful", "overlap",
    "patch_edges", "patching_data", "position_effects", "top_circuits",
]
