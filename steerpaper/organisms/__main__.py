"""Trains one organism, which the workflow does for presets of other seeds; or teaches a shipped one a second concept:

    python -m steerpaper.organisms llama 3        into build/organisms/llama-3
    python -m steerpaper.organisms llama taught   into data/organisms/llama-taught, with its card
"""

import sys
from pathlib import Path

from steerpaper import paths
from steerpaper.models.model import load_model
from steerpaper.organisms import cards
from steerpaper.organisms.lesson import teach
from steerpaper.organisms.training import train
from steerpaper.presets import get_preset


def main(family: str, seed: str) -> None:
    """Train it, or what is left of it; or teach it, and ship it."""
    if seed != "taught":
        train(family, int(seed), Path(get_preset(f"organism-{family}-seed{seed}").model))
        return
    name = f"{family}-{seed}"
    folder = paths.BUILD / "organisms" / name
    teach(family, folder)
    model = load_model(folder)
    rates = cards.behaviour_rates(cards.taught_behaviour(model))
    cards.ship(name, folder, cards.taught_card(family, model, rates))


if __name__ == "__main__":
    main(*sys.argv[1:])
