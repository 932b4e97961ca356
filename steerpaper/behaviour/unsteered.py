"""What a model does by itself with a concept's prompts: whether there is anything to steer away from."""

from collections.abc import Sequence

import pandas as pd

from steerpaper import arguments
from steerpaper.arguments import Prompt
from steerpaper.behaviour.judging import judged_responses, wilson_interval
from steerpaper.concepts import REFUSAL, Concept
from steerpaper.models.model import Model

# A flip needs a prompt to which the unsteered model answers as its set's name says. Of a set in which fewer than a
# quarter are such, the 12 prompts per class that the smallest presets patch would leave fewer than three on average.
ENOUGH = 0.25


def unsteered_rates(
    model: Model, positive: pd.DataFrame | Sequence[Prompt], negative: pd.DataFrame | Sequence[Prompt], *,
    concept: Concept = REFUSAL, **how,
) -> pd.DataFrame:
    """How often the unsteered model's answers express the concept (refuse), on both sets of prompts.

    Args:
        how: as for `judged_responses`.

    Returns:
        One row per set: prompts, n, expressed (a number), share, share_low and share_high (Wilson 95 %).
    """
    rows = []
    for name, prompts in zip(concept.sets, (positive, negative)):
        asked = arguments.table(prompts).assign(positive=name == concept.positive)
        expressed = judged_responses(model, asked, [None], **how).expressed
        n, k = len(expressed), int(expressed.sum())
        rows.append((name, n, k, k / n, *wilson_interval(k, n)))
    return pd.DataFrame(rows, columns=["prompts", "n", "expressed", "share", "share_low", "share_high"])


def nothing_to_steer(rates: pd.DataFrame, concept: Concept = REFUSAL) -> str:
    """Why steering has nothing to turn, by `unsteered_rates`; "" if it has.

    It has if at least a quarter (`ENOUGH`) of the positive prompts' answers express the concept, and at least a quarter
    of the negative prompts' do not.
    """
    said = []
    for row in rates.itertuples():
        positive = row.prompts == concept.positive
        if (row.share if positive else 1 - row.share) < ENOUGH:
            bound = f"less than {ENOUGH:.0%}" if positive else f"more than {1 - ENOUGH:.0%}"
            said.append(
                f"unsteered, the model is judged to {concept.expresses} {row.expressed} of {row.n} {row.prompts} prompts "
                f"(95 % interval {row.share_low:.0%} to {row.share_high:.0%}), {bound}: nothing to steer "
                f"{'away from' if positive else 'towards'}")
    return "; ".join(said)


def nothing_turned(chosen: pd.DataFrame, concept: Concept = REFUSAL) -> str:
    """Why there is no steering to measure, by `select_by_generation`; "" if there is.

    There is if some candidate at some coefficient turns at least a quarter (`ENOUGH`) of the prompts of both sets.
    """
    best = chosen.loc[chosen.flipped.idxmax()]
    if best.flipped >= ENOUGH:
        return ""
    positive, negative = (f"{best[f'asr_{name}']:.0%} of the {name} prompts' answers" for name in concept.sets)
    return (f"none of {len(chosen)} candidates and coefficients turns {ENOUGH:.0%} of the prompts of both kinds. At "
            f"best, entering layer {best.layer:.0f} at |α| = {best.coefficient:g}, {positive} and {negative} do not "
            f"{concept.expresses}: nothing to measure")
