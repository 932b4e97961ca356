"""Where things live in the repository.

Everything a user reads is committed (`data/`, `figures/`, `notebooks/`); everything a run needs only
for itself lies under `build/` and `data/artifacts/`, which git ignores.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
ORGANISMS = DATA / "organisms"
PROMPTS = DATA / "prompts"
BUILD = ROOT / "build"


def results(preset: str) -> Path:
    """Folder of the tidy tables of one preset: all that figures read."""
    return DATA / "results" / preset


def artifacts(preset: str) -> Path:
    """Folder of the tensors of one preset with their manifests (git-ignored)."""
    return DATA / "artifacts" / preset


def figures(preset: str) -> Path:
    """Folder of the figures of one preset."""
    return ROOT / "figures" / preset
