"""Say of presets why steering has nothing to turn, as notebook 01 finds it on validation prompts; nothing if it has.

    python -m steerpaper.behaviour PRESET...
"""

import sys

from steerpaper.behaviour.guard import load_judge
from steerpaper.behaviour.unsteered import nothing_to_steer, unsteered_rates
from steerpaper.concepts import get_concept
from steerpaper.models.model import load_model
from steerpaper.presets import Preset, get_presets
from steerpaper.prompts.sets import concept_prompts, vocabulary


def finding(preset: Preset) -> str:
    """Why steering has nothing to turn; "" if it has."""
    concept, model = get_concept(preset.concept), load_model(preset.name)
    prompts = concept_prompts(concept, "validation", preset.n_validation, preset.prompts)
    rates = unsteered_rates(
        model, *prompts.values(), concept=concept, judge=load_judge(preset), vocabulary=vocabulary(preset.prompts),
        max_new_tokens=preset.max_new_tokens, batch_size=preset.batch_size)
    return nothing_to_steer(rates, concept)


if __name__ == "__main__":
    for found in map(finding, get_presets(" ".join(sys.argv[1:])).values()):
        if found:
            print(found)
