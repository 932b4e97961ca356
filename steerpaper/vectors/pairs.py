"""Contrastive pairs (§3.2, B.4): what learned vectors learn from. To each prompt a response that the model should
give under steering, the winner, and the one that it gives by itself, the loser."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from steerpaper import arguments
from steerpaper.behaviour.judges import Judge, verdicts
from steerpaper.concepts import REFUSAL, Concept
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.prompts.sets import with_instruction
from steerpaper.steering import Steering, both_ways, generate


@dataclass(frozen=True, eq=False)
class ContrastPairs:
    """Pairs of responses to the same prompt.

    Attributes:
        winners, losers: the wanted response and the model's own; entry i of both answers the same prompt.
        signs: of alpha, one per pair: +1 where the winner expresses the concept (negative prompts: it refuses harmless
            ones), -1 where it does not (positive prompts: it complies with harmful ones).
        counts: one row per prompt set: `prompts`, `asked`, `kept`, and why the others were dropped: `loser_off` (the
            model's own response is not what its set calls for), `winner_off` (the wanted response is not what is
            wanted), `both_off`.
        concept: what the pairs teach.

    Raises:
        ValueError: no pairs, pairs of one sign only, lists of unequal lengths, two responses of one pair to
            different prompts, or a sign that is neither +1 nor -1.
    """

    winners: list[Response]
    losers: list[Response]
    signs: list[int]
    counts: pd.DataFrame
    concept: Concept = REFUSAL

    def __post_init__(self):
        sizes = len(self.winners), len(self.losers), len(self.signs)
        if len(set(sizes)) > 1:
            raise ValueError(f"{sizes[0]} winners, {sizes[1]} losers and {sizes[2]} signs were given: a pair has one "
                             "of each")
        found = f" of {int(self.counts.asked.sum())} prompts; see what was dropped:\n{self.counts.to_string()}"
        if not self.signs:
            raise ValueError(f"no pairs are left{found}")
        taught = {1: self.concept.expresses, -1: self.concept.withholds}
        if not set(self.signs) <= set(taught):
            raise ValueError(f"signs {sorted(set(self.signs))} were given: +1 ({taught[1]}) and -1 ({taught[-1]}) are "
                             "allowed")
        if len(set(self.signs)) == 1:
            kind, missing = taught[self.signs[0]], taught[-self.signs[0]]
            raise ValueError(f"all {len(self.signs)} pairs teach to {kind} and none to {missing}: one vector needs "
                             f"both. Left{found}")
        for i, (winner, loser) in enumerate(zip(self.winners, self.losers)):
            if list(winner.prompt) != list(loser.prompt):
                raise ValueError(f"winner and loser of pair {i} answer different prompts")

    def __len__(self) -> int:
        return len(self.signs)

    @property
    def prompts(self) -> list[list[int]]:
        """Token ids of every pair's prompt."""
        return [winner.prompt for winner in self.winners]


def contrast_pairs(
    model: Model, positive: pd.DataFrame | Sequence[str], negative: pd.DataFrame | Sequence[str], steering: Steering,
    judge: Judge, *, concept: Concept = REFUSAL, max_new_tokens: int = 64, batch_size: int = 64,
) -> ContrastPairs:
    """The model's own pairs (§3.2): compliance to win over refusal on harmful prompts, refusal over an answer on
    harmless ones, or what another concept has in their places.

    A positive prompt's winner is generated under `steering` with the sign turned (-alpha DIM). A negative one's is
    generated behind the concept's instruction; the pair's prompt goes without that command. The paper removed by hand
    what does not express the wanted behaviour; here `judge` does.

    Args:
        positive, negative: tables as from `load_prompts`, of which the column `prompt` is read, or lists of texts.
        steering: difference in means with a positive coefficient, which induces the concept.
        judge: says which responses express it.
        max_new_tokens, batch_size: as for `generate`.

    Raises:
        ValueError: a coefficient that is not positive, pairs that leave nothing or one class only, or verdicts of the
            judge that are no True or False for each response.
    """
    away = both_ways(steering, concept)[concept.positive]
    asked = pd.DataFrame([
        {"prompts": name, "prompt": prompt, "positive": name == concept.positive, "sign": concept.signs[name]}
        for name, given in zip(concept.sets, (positive, negative)) for prompt in arguments.texts(given)
    ])
    commanded = asked.prompt.where(asked.positive, with_instruction(asked, concept).prompt)
    steerings = [None] * len(asked) + [away if one else None for one in asked.positive]
    responses = generate(model, [*asked.prompt, *commanded], steerings, max_new_tokens=max_new_tokens,
                         batch_size=batch_size)
    losers, raw = responses[:len(asked)], responses[len(asked):]
    winners = [Response(loser.prompt, winner.completion, winner.text) for loser, winner in zip(losers, raw)]
    winner_off = verdicts(judge, winners, asked) == asked.positive  # it should do what the prompt's set does not
    loser_off = verdicts(judge, losers, asked) != asked.positive
    asked = asked.assign(asked=1, kept=~winner_off & ~loser_off, loser_off=loser_off & ~winner_off,
                         winner_off=winner_off & ~loser_off, both_off=loser_off & winner_off)
    counts = asked.groupby("prompts", sort=False)[["asked", "kept", "loser_off", "winner_off", "both_off"]].sum()
    kept = asked.index[asked.kept]
    return ContrastPairs([winners[i] for i in kept], [losers[i] for i in kept], asked.sign[kept].tolist(),
                         counts.reset_index(), concept)
