"""Trains one organism, which the workflow does for presets of other seeds:

    python -m steerpaper.organisms llama 3        into build/organisms/llama-3
"""

import sys

from steerpaper import paths
from steerpaper.organisms.training import train


def main(family: str, seed: str) -> None:
    """Train it, or what is left of it."""
    train(family, int(seed), paths.BUILD / "organisms" / f"{family}-{seed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
