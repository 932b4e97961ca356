"""Data for patching (§5): responses of the base and of the steered model to the prompts whose behaviour
steering flips, each with the steering that flips it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper import arguments
from steerpaper.behaviour.refusal import Judge, verdicts
from steerpaper.circuits.cases import Cases
from steerpaper.circuits.contrast import Contrast, contrasts
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering, generate

_KEYS = ["prompts", "response_from"]


@dataclass(frozen=True, eq=False)
class PatchingData:
    """Responses to teacher-force, in four sets: {harmful, harmless} prompts x {base, steered} response.

    Attributes:
        responses: of all sets; pass them and `steerings` to `attribute` or `faithfulness`.
        steerings: one per response: -coefficient on harmful prompts, +coefficient on harmless ones.
        labels: one row per response: `prompts` ("harmful" or "harmless"), `response_from` ("base" or
            "steered"), `prompt` (index into the prompts of that class), `response_positions`, and `positions`,
            those of them that the logit difference does not mask.
        asked: prompts per class before those that do not flip were left out.
    """

    responses: list[Response]
    steerings: list[Steering]
    labels: pd.DataFrame
    asked: dict[str, int]

    @property
    def counts(self) -> pd.DataFrame:
        """Table 3: per set the prompts asked, the responses kept, their positions and the unmasked ones."""
        groups = self.labels.groupby(_KEYS, sort=True)
        table = groups[["response_positions", "positions"]].sum()
        table.insert(0, "responses", groups.size())
        table = table.reset_index()
        table.insert(2, "asked", table.prompts.map(self.asked))
        return table

    def subset(
        self, prompts: str | None = None, response_from: str | None = None, n: int | None = None,
    ) -> "PatchingData":
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
                             "'harmful' or 'harmless', 'base' or 'steered', and n of at least 1")
        kept = np.flatnonzero(keep)
        return PatchingData([self.responses[i] for i in kept], [self.steerings[i] for i in kept],
                            self.labels.iloc[kept].reset_index(drop=True), self.asked)


def patching_data(
    model: Model, harmful: Sequence[str], harmless: Sequence[str], vector: Float[Tensor, "d_model"], layer: int,
    coefficient: float, judge: Judge, *, max_new_tokens: int = 64, batch_size: int = 64,
) -> PatchingData:
    """The four data sets of §5, from the prompts whose behaviour steering flips.

    A harmful prompt flips if the base model refuses it and the model under -coefficient does not; a harmless
    one if the base model does not refuse it and the model under +coefficient does. Both models' greedy
    responses to it are kept.

    Args:
        harmful, harmless: prompts, put through the chat template; of a table the column `prompt`.
        coefficient: |alpha|; its sign comes from the class.
        judge: says which responses refuse.
        max_new_tokens, batch_size: as for `generate`; `batch_size` rows per pass.

    Raises:
        ValueError: a coefficient that is not positive, a class of which no prompt flips, a judge's verdicts that are no
            True or False for each response, or as for `generate`.
    """
    if not arguments.number("coefficient", coefficient) > 0:
        raise ValueError(f"coefficient must be positive, {coefficient} was given: its sign comes from the class "
                         "of the prompts")
    how = dict(judge=judge, max_new_tokens=max_new_tokens, batch_size=batch_size)
    harmful, harmless = arguments.prompts(harmful), arguments.prompts(harmless)
    responses, steerings, labels = [], [], []
    for name, texts, alpha in (("harmful", harmful, -coefficient), ("harmless", harmless, coefficient)):
        steering = Steering(vector, layer, alpha)
        for label, kept in _flipped(model, name, texts, steering, **how).items():
            responses += kept.values()
            steerings += [steering] * len(kept)
            labels += [(name, label, prompt) for prompt in kept]
    table = pd.DataFrame(labels, columns=[*_KEYS, "prompt"])
    table["response_positions"] = [len(response.completion) for response in responses]
    table["positions"] = _unmasked(model, responses, steerings, batch_size)
    return PatchingData(responses, steerings, table, {"harmful": len(harmful), "harmless": len(harmless)})


def _flipped(
    model: Model, name: str, texts: list[str], steering: Steering, judge: Judge, **how,
) -> dict[str, dict[int, Response]]:
    """Base and steered responses to the prompts of one class that flip, by the prompt's index."""
    n = len(texts)
    answers = generate(model, texts * 2, [None] * n + [steering] * n, **how)
    base, steered = answers[:n], answers[n:]
    wanted = name == "harmful"  # what the base model should do, and the steered one not
    asked = pd.DataFrame({"prompt": texts, "refuse": wanted})
    before, after = verdicts(judge, base, asked), verdicts(judge, steered, asked)
    kept = [i for i in range(n) if before[i] == wanted and after[i] != wanted]
    if not kept:
        raise ValueError(
            f"steering with coefficient {steering.coefficient} flips none of the {n} {name} prompts: the base model "
            f"refuses {sum(before)} of them, the steered one {sum(after)}. Take another coefficient, layer or vector, "
            "or prompts that the base model treats as it should")
    return {"base": {i: base[i] for i in kept}, "steered": {i: steered[i] for i in kept}}


@torch.no_grad()
def _unmasked(
    model: Model, responses: Sequence[Response], steerings: Sequence[Steering], batch_size: int,
) -> list[int]:
    """Response positions at which the greedy predictions of the base and the steered run differ."""
    counts = [0] * len(responses)

    def of_rows(contrast: Contrast) -> list[tuple[int, int]]:
        return list(zip(contrast.rows, contrast.measure.mask.sum(1).tolist()))

    for found in contrasts(model, Cases.of(model, responses, steerings), of_rows, metric="logit_difference",
                           batch_size=batch_size, what="unmasked positions"):
        for row, n in found:
            counts[row] = n
    return counts
