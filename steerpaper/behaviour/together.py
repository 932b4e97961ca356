"""Two concepts in one run: does adding both vectors do both?"""

from collections.abc import Mapping

import pandas as pd

from steerpaper.behaviour.judges import Judge, verdicts
from steerpaper.behaviour.judging import judged_responses, rates
from steerpaper.concepts import Concept
from steerpaper.models.model import Model
from steerpaper.steering import Steering, both_ways


def judged_together(
    model: Model, prompts: Mapping[str, pd.DataFrame], first: Steering, second: Steering,
    concepts: tuple[Concept, Concept], judges: tuple[Judge, Judge], **how,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers under neither of two vectors, under each alone and under both, judged for either concept.

    The first one is always for its concept to be expressed. The second one's sign goes by the set of prompts, so that
    it steers away from what the model does by itself.

    Args:
        prompts: by the names of the second concept's sets, as `concept_prompts` gives them.
        first, second: each with its positive coefficient, at one layer.
        how: as for `judged_responses`, without the judge.

    Returns:
        One row per set, steering ("neither", "<first> alone", "<second> alone", "both") and concept: prompts, steering,
        concept, n, expressed, low, high (Wilson 95 %), clean. And the answers, as of `judged_responses` with the second
        concept's judge, with the columns prompts and steering.

    Raises:
        ValueError: steerings of two layers, or what `judged_responses` and the judges refuse.
    """
    if first.layer != second.layer:
        raise ValueError(f"the vectors enter layers {first.layer} and {second.layer}: to add them up give two of one "
                         "layer")
    runs, answers, rows = ["neither", *(f"{concept.name} alone" for concept in concepts), "both"], [], []
    for name, other in both_ways(second, concepts[1]).items():
        total = first.coefficient * first.vector + other.coefficient * other.vector.to(first.vector)
        steerings = [None, first, other, Steering(total, first.layer)]
        said = judged_responses(model, prompts[name], steerings, judge=judges[1], **how)
        said = said.assign(prompts=name, steering=[runs[run] for run in said.run])
        answers.append(said)
        # Of the first concept's sets these prompts are the negative kind: it is what steering brings about.
        found = verdicts(judges[0], said.text.tolist(), said.assign(positive=False))
        for concept, expressed in zip(concepts, (found, said.expressed.to_numpy())):
            # `rates` counts what does not, with its interval: so the other way round.
            own = rates(said.assign(expressed=~expressed), ["steering"]).set_index("steering").loc[runs]
            rows.append(own.reset_index().assign(prompts=name, concept=concept.name))
    table = pd.concat(rows, ignore_index=True).rename(
        columns={"asr": "expressed", "asr_low": "low", "asr_high": "high"})
    columns = ["prompts", "steering", "concept", "n", "expressed", "low", "high", "clean"]
    return table[columns], pd.concat(answers, ignore_index=True)
