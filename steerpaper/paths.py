"""Where things live in the repository, and how they get there whole.

What a run computes goes to `build/`, which git ignores; what is on record (`data/`, `figures/`, `notebooks/`) changes
only by `make record`.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
NOTEBOOKS = ROOT / "notebooks"
ORGANISMS = DATA / "organisms"
PROMPTS = DATA / "prompts"
PUBLIC = DATA / "public"
MODELS = DATA / "models"
# Elsewhere where the repository cannot be written to, or for runs side by side.
BUILD = Path(os.environ.get("STEERPAPER_BUILD") or ROOT / "build").absolute()


def results(preset: str) -> Path:
    """Folder of the tidy tables of one preset that were computed here, with their manifest."""
    return BUILD / preset / "results"


def figures(preset: str) -> Path:
    """Folder of the figures of one preset that were drawn here."""
    return BUILD / preset / "figures"


def artifacts(preset: str) -> Path:
    """Folder of the tensors of one preset with their manifests."""
    return BUILD / preset / "artifacts"


def recorded_results(preset: str) -> Path:
    """Folder of the tables of one preset that are on record."""
    return DATA / "results" / preset


def recorded_figures(preset: str) -> Path:
    """Folder of the figures of one preset that are on record."""
    return ROOT / "figures" / preset


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing: a reader never sees half of it, a failure leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
