"""Contrastive pairs (§3.2, B.4): what learned vectors learn from. To each prompt a response that the model should
give under steering, the winner, and the one that it gives by itself, the loser."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from steerpaper import arguments
from steerpaper.behaviour.refusal import Judge, verdicts
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.prompts.sets import with_refuse_instruction
from steerpaper.steering import Steering, generate


@dataclass(frozen=True, eq=False)
class ContrastPairs:
    """Pairs of responses to the same prompt.

    Attributes:
        winners, losers: the wanted response and the model's own; entry i of both answers the same prompt.
        signs: of alpha, one per pair: +1 where the winner refuses (harmless prompts), -1 where it complies
            (harmful ones).
        counts: one row per class of prompts: `prompts`, `asked`, `kept`, and why the others were dropped:
            `loser_off` (the model's own response is not what its class calls for), `winner_off` (the wanted
            response does not express the wanted behaviour), `both_off`.

    Raises:
        ValueError: no pairs, pairs of one sign only, lists of unequal lengths, two responses of one pair to
            different prompts, or a sign that is neither +1 nor -1.
    """

    winners: list[Response]
    losers: list[Response]
    signs: list[int]
    counts: pd.DataFrame

    def __post_init__(self):
        sizes = len(self.winners), len(self.losers), len(self.signs)
        if len(set(sizes)) > 1:
            raise ValueError(f"{sizes[0]} winners, {sizes[1]} losers and {sizes[2]} signs were given: a pair has one "
                             "of each")
        found = f" of {int(self.counts.asked.sum())} prompts; see what was dropped:\n{self.counts.to_string()}"
        if not self.signs:
            raise ValueError(f"no pairs are left{found}")
        if not set(self.signs) <= {-1, 1}:
            raise ValueError(f"signs {sorted(set(self.signs))} were given: +1 (refuse) and -1 (comply) are allowed")
        if len(set(self.signs)) == 1:
            kind, missing = ("refuse", "comply") if self.signs[0] > 0 else ("comply", "refuse")
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
    model: Model, harmful: pd.DataFrame | Sequence[str], harmless: pd.DataFrame | Sequence[str], steering: Steering,
    judge: Judge, *, max_new_tokens: int = 64, batch_size: int = 64,
) -> ContrastPairs:
    """The model's own pairs (§3.2): compliance to win over refusal on harmful prompts, refusal over an answer on
    harmless ones.

    A harmful prompt's winner is generated under `steering` with the sign turned (-alpha DIM). A harmless one's is
    generated behind the command to refuse; the pair's prompt goes without that command. The paper removed by hand
    what does not express the wanted behaviour; here `judge` does.

    Args:
        harmful, harmless: tables as from `load_prompts`, of which the column `prompt` is read, or lists of texts.
        steering: difference in means with a positive coefficient, which induces refusal.
        judge: says which responses refuse.
        max_new_tokens, batch_size: as for `generate`.

    Raises:
        ValueError: a coefficient that is not positive, pairs that leave nothing or one class only, or verdicts of the
            judge that are no True or False for each response.
    """
    if not arguments.number("the steering's coefficient", steering.coefficient) > 0:
        raise ValueError(f"the steering's coefficient must be positive, {steering.coefficient} was given: harmful "
                         "prompts are steered by its negative")
    harmful, harmless = arguments.texts(harmful), arguments.texts(harmless)
    plain = [*harmful, *harmless]
    instructed = [*harmful, *with_refuse_instruction(pd.DataFrame({"prompt": harmless})).prompt]
    away = Steering(steering.vector, steering.layer, -steering.coefficient)
    steerings = [None] * len(plain) + [away] * len(harmful) + [None] * len(harmless)
    responses = generate(model, plain + instructed, steerings, max_new_tokens=max_new_tokens, batch_size=batch_size)
    losers, raw = responses[:len(plain)], responses[len(plain):]
    winners = [Response(loser.prompt, winner.completion, winner.text) for loser, winner in zip(losers, raw)]
    signs = [-1] * len(harmful) + [1] * len(harmless)
    asked = pd.DataFrame({"prompt": plain, "refuse": [sign < 0 for sign in signs]})
    kept, counts = _judged(winners, losers, asked, judge)
    return ContrastPairs([winners[i] for i in kept], [losers[i] for i in kept], [signs[i] for i in kept], counts)


def _judged(
    winners: list[Response], losers: list[Response], asked: pd.DataFrame, judge: Judge,
) -> tuple[list[int], pd.DataFrame]:
    """Indices of the pairs in which winner and loser behave as they should, and the table of counts."""
    table = pd.DataFrame({"prompts": asked.refuse.map({True: "harmful", False: "harmless"})})
    refuses = ~asked.refuse  # what the winner should do, and the loser not
    winner_off = pd.Series(verdicts(judge, winners, asked)) != refuses
    loser_off = pd.Series(verdicts(judge, losers, asked)) == refuses
    table["asked"] = 1
    table["kept"] = ~winner_off & ~loser_off
    table["loser_off"], table["winner_off"] = loser_off & ~winner_off, winner_off & ~loser_off
    table["both_off"] = loser_off & winner_off
    counts = table.groupby("prompts", sort=True).sum().astype(int).reset_index()
    return table.index[table.kept].tolist(), counts
