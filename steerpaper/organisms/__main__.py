"""Trains one organism, which the workflow does for presets of other seeds:

    python -m steerpaper.organisms llama 3        into build/organisms/llama-3
"""

import sys
from pathlib import Path

from steerpaper.organisms.training import train
from steerpaper.presets import get_preset


def main(family: str, seed: str) -> None:
    """Train it, or what is left of it."""
    train(family, int(seed), Path(get_preset(f"organism-{family}-seed{seed}").model))


if __name__ == "__main__":
    main(*sys.argv[1:])
