"""Random vectors beside those that steer: what any push of that length does."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from steerpaper import arguments
from steerpaper.behaviour.effects import judged_both_ways
from steerpaper.behaviour.judging import rates
from steerpaper.models.model import Model
from steerpaper.steering import Steering
from steerpaper.vectors.extraction import random_vector

_ASKED = ["prompts", "prompt"]


def judged_random(
    model: Model, prompts: Mapping[str, pd.DataFrame], steerings: Mapping[str, Steering], *, draws: int = 10,
    seed: int = 0, **how,
) -> pd.DataFrame:
    """Judged responses under random vectors, each as long as a method's and pushed by its coefficient, in the same
    directions for all methods.

    Args:
        prompts: as for `judged_both_ways`.
        steerings: by the name of their method, each at its |alpha|.
        draws: number of directions.
        seed: of the first; the next have the seeds that follow.
        how: as for `judged_both_ways`.

    Returns:
        The rows of `judged_both_ways`, all of method "random", with the columns as_long_as (a method), draw and seed.

    Raises:
        ValueError: less than one draw, or as for `judged_both_ways`.
    """
    seeds = range(seed, seed + arguments.integer("draws", draws, 1))
    pushes = {(name, each): replace(push, vector=random_vector(push.vector, each))
              for name, push in steerings.items() for each in seeds}
    judged = judged_both_ways(model, prompts, pushes, **how)
    judged["as_long_as"], judged["seed"] = judged.method.str[0], judged.method.str[1].astype(int)  # parts of the pairs
    return judged.assign(method="random", draw=judged.seed - seed)


def random_control(random: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """How far every random vector moves ASR, beside how far the method's vector moves it on the same prompts.

    Args:
        random: as of `judged_random`.
        judged: as of `judged_both_ways`, of the methods and of the unsteered model as "none", on these prompts or more.

    Returns:
        The columns as_long_as, draw, seed, prompts, coefficient and those of `rates`, with asr_change and
        method_change: ASR minus that of the unsteered model.

    Raises:
        ValueError: answers that are missing, of a method or of the unsteered model.
    """
    asked, methods = random[_ASKED].drop_duplicates(), ["none", *random.as_long_as.unique()]
    same = judged[judged.method.isin(methods)].merge(asked)
    if missing := [name for name in methods if len(same[same.method == name].drop_duplicates(_ASKED)) < len(asked)]:
        raise ValueError(f"of {missing[0]!r} there are not the answers to all {len(asked)} prompts of the random vectors: "
                         "give those of all methods and of the unsteered model (\"none\")")
    asr = rates(same, ["method", "prompts"]).pivot(index="method", columns="prompts", values="asr")
    moved = (asr - asr.loc["none"]).stack().rename("method_change")
    table = rates(random, ["as_long_as", "draw", "seed", "prompts", "coefficient"])
    table["asr_change"] = table.asr - table.prompts.map(asr.loc["none"])
    return table.join(moved, on=["as_long_as", "prompts"])
