"""Flipped responses, the data of patching (§5): what the base and the steered model say to the prompts whose behaviour
steering flips, each with the steering that flips it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerpaper import arguments
from steerpaper.arguments import Prompt
from steerpaper.behaviour.judges import Judge, verdicts
from steerpaper.circuits.cases import Cases
from steerpaper.circuits.contrast import Contrast, contrasts
from steerpaper.concepts import REFUSAL, Concept
from steerpaper.models.kept import Kept
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering, both_ways, generate

_KEYS = ["prompts", "response_from"]
_AT_ONCE = 8  # two runs' logits of all response positions, over a vocabulary that may have 150,000 tokens


class NothingFlips(ValueError):
    """Steering turns no prompt of a set."""


@dataclass(frozen=True, eq=False)
class FlippedResponses:
    """Responses to teacher-force, in four sets: {positive, negative} prompts x {base, steered} response.

    Attributes:
        responses: of all sets; pass them and `steerings` to `attribute` or `faithfulness`.
        steerings: one per response: -coefficient on positive prompts, +coefficient on negative ones.
        labels: one row per response: `prompts` (the concept's name of that set, "harmful" or "harmless"),
            `response_from` ("base" or "steered"), `prompt` (index into the prompts of that set), `response_positions`,
            and `positions`, those of them that the logit difference does not mask.
        asked: prompts per set before those that do not flip were left out.
    """

    responses: list[Response]
    steerings: list[Steering]
    labels: pd.DataFrame
    asked: dict[str, int]

    @property
    def counts(self) -> pd.DataFrame:
        """Table 3: per set the prompts asked, the responses kept, their positions and the unmasked ones."""
        groups = self.labels.groupby(_KEYS, sort=False)
        table = groups[["response_positions", "positions"]].sum()
        table.insert(0, "responses", groups.size())
        table = table.reset_index()
        table.insert(2, "asked", table.prompts.map(self.asked))
        return table

    @property
    def judged(self) -> dict[str, int]:
        """Responses to each kind of prompts, and to "both", as `faithfulness_by_class` calls its rows."""
        return {"both": len(self.responses), **self.labels.prompts.value_counts()}

    def subset(
        self, prompts: str | None = None, response_from: str | None = None, n: int | None = None,
    ) -> "FlippedResponses":
        """The responses of some sets; of each set at most the first `n`.

        Raises:
            ValueError: a selection that leaves nothing.
        """
        keep = np.ones(len(self.labels), dtype=bool)
        for column, wanted in zip(_KEYS, (prompts, response_from)):
            if wanted is not None:
                keep &= (self.labels[column] == wanted).to_numpy()
        if n is not None:
            keep &= (self.labels.groupby(_KEYS).cumcount() < n).to_numpy()
        if not keep.any():
            raise ValueError(f"no responses with prompts={prompts!r}, response_from={response_from!r}, n={n}: choose "
                             f"{' or '.join(map(repr, self.asked))}, 'base' or 'steered', and n of at least 1")
        kept = np.flatnonzero(keep)
        return FlippedResponses([self.responses[i] for i in kept], [self.steerings[i] for i in kept],
                            self.labels.iloc[kept].reset_index(drop=True), self.asked)


def patching_data(
    model: Model, positive: Sequence[Prompt], negative: Sequence[Prompt], steering: Steering, judge: Judge, *,
    concept: Concept = REFUSAL, max_new_tokens: int = 64, batch_size: int = 64,
) -> FlippedResponses:
    """The four data sets of §5, from the prompts whose behaviour steering flips.

    A positive prompt flips if the base model's answer expresses the concept (it refuses a harmful prompt) and the one
    under -coefficient does not; a negative one if the base model's does not and the one under +coefficient does. Both
    models' greedy responses to it are kept.

    Args:
        positive, negative: prompts, put through the chat template; of a table the column `prompt`.
        steering: with a positive coefficient, |alpha|; its sign comes from the set.
        judge: says which responses express the concept.
        max_new_tokens, batch_size: as for `generate`.

    Raises:
        NothingFlips: a set of which no prompt flips.
        ValueError: a coefficient that is not positive, a judge's verdicts that are no True or False for each response,
            or as for `generate`.
    """
    prompts = dict(zip(concept.sets, map(arguments.prompts, (positive, negative))))
    signed = both_ways(steering, concept)
    found = {name: _flipped(model, name, prompts[name], signed[name], judge, concept, max_new_tokens=max_new_tokens,
                            batch_size=batch_size) for name in signed}
    return _assembled(model, found, signed, {name: len(each) for name, each in prompts.items()})


def flipped_responses(
    model: Model, judged: pd.DataFrame, method: str, steering: Steering, response_from: str | None = None, *,
    concept: Concept = REFUSAL,
) -> FlippedResponses:
    """The same from answers that have been generated and judged already, which several methods can share.

    Args:
        judged: as of `judged_both_ways`, with the answers of the unsteered model as method "none".
        method: whose answers are the steered ones.
        steering: what they were steered by, with a positive coefficient.
        response_from: "base" or "steered" for the responses of that model alone.

    Raises:
        NothingFlips: a set of which no prompt flips.
        ValueError: a coefficient that is not positive, answers that do not go through the same prompts or to prompts
            that were shifted, or another `response_from`.
    """
    if response_from not in (None, "base", "steered"):
        raise ValueError(f"response_from is {response_from!r}: choose 'base' or 'steered', or leave it out for both")
    if "shift" in judged:  # the prompts are tokenized as they stand in the table
        raise ValueError("these are answers to shifted prompts, but stand beside the plain ones: give answers that "
                         "judged_both_ways made without a shift")
    signed, found, asked = both_ways(steering, concept), {}, {}
    for name, given in signed.items():
        base, steered = (judged[(judged.prompts == name) & (judged.method == each)] for each in ("none", method))
        if not len(base) or base.prompt.tolist() != steered.prompt.tolist():
            raise ValueError(f"there are {len(base)} answers of the unsteered model (\"none\") and {len(steered)} of "
                             f"{method!r} to {name} prompts: give both to the same prompts, in the same order")
        kept = _kept(name, base.expressed.to_numpy(), steered.expressed.to_numpy(), given, concept)
        found[name] = {label: {i: Response(model.tokenize(rows.prompt.iloc[i]), rows.completion.iloc[i],
                                           rows.text.iloc[i]) for i in kept}
                       for label, rows in (("base", base), ("steered", steered)) if response_from in (None, label)}
        asked[name] = len(base)
    return _assembled(model, found, signed, asked)


def _assembled(
    model: Model, found: dict[str, dict[str, dict[int, Response]]], signed: dict[str, Steering], asked: dict[str, int],
) -> FlippedResponses:
    """Base and steered responses by set and by prompt, each with its steering."""
    responses, steerings, labels = [], [], []
    for name, both in found.items():
        for label, kept in both.items():
            responses += kept.values()
            steerings += [signed[name]] * len(kept)
            labels += [(name, label, prompt) for prompt in kept]
    table = pd.DataFrame(labels, columns=[*_KEYS, "prompt"])
    table["response_positions"] = [len(response.completion) for response in responses]
    table["positions"] = _unmasked(model, responses, steerings)
    return FlippedResponses(responses, steerings, table, asked)


def _flipped(
    model: Model, name: str, prompts: list[Prompt], steering: Steering, judge: Judge, concept: Concept, **how,
) -> dict[str, dict[int, Response]]:
    """Base and steered responses to the prompts of one set that flip, by the prompt's index."""
    n = len(prompts)
    answers = generate(model, prompts * 2, [None] * n + [steering] * n, **how)
    base, steered = answers[:n], answers[n:]
    asked = pd.DataFrame({"prompt": prompts, "positive": name == concept.positive})
    kept = _kept(name, verdicts(judge, base, asked), verdicts(judge, steered, asked), steering, concept)
    return {"base": {i: base[i] for i in kept}, "steered": {i: steered[i] for i in kept}}


def _kept(
    name: str, before: Bool[np.ndarray, "prompt"], after: Bool[np.ndarray, "prompt"], steering: Steering,
    concept: Concept,
) -> list[int]:
    """The prompts of one set that flip, by the verdicts on the base and the steered model's answers."""
    positive = name == concept.positive  # what the base model should express, and the steered one not
    kept = np.flatnonzero((before == positive) & (after != positive)).tolist()
    if not kept:
        raise NothingFlips(
            f"steering with coefficient {steering.coefficient} flips none of the {len(before)} {name} prompts: judged "
            f"to {concept.expresses} are {sum(before)} answers of the base model and {sum(after)} of the steered one. "
            + ("Take another model, other prompts, or another judge: there is nothing to steer away from"
               if (before != positive).all() else
               "Take another coefficient, layer or vector, or prompts that the base model treats as it should"))
    return kept


@torch.no_grad()
def _unmasked(model: Model, responses: Sequence[Response], steerings: Sequence[Steering]) -> list[int]:
    """Response positions at which the greedy predictions of the base and the steered run differ."""
    cases = Cases.of(model, responses, steerings)
    kept = Kept("unmasked", __name__, model.hf, cases.inputs, {"counts": torch.zeros(len(responses), dtype=torch.int64)})

    for rows, counts in contrasts(model, cases, _counts, metric="logit_difference", batch_size=_AT_ONCE,
                                  what="unmasked positions", done=(kept.done, int(kept.state["counts"].sum()))):
        kept.state["counts"][rows] = counts
        kept.keep(len(rows))
    return kept.state["counts"].tolist()


def _counts(contrast: Contrast) -> tuple[list[int], Int[Tensor, "batch"]]:
    return contrast.rows, contrast.measure.mask.sum(1).cpu()
