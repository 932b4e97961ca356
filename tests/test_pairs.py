"""Contrastive pairs: whose responses they are, what is dropped and why."""

import pandas as pd
import pytest
import torch

from steerpaper.behaviour.judges import SubstringJudge
from steerpaper.concepts import REFUSAL
from steerpaper.models.responses import Response
from steerpaper.prompts.sets import with_instruction
from steerpaper.steering import Steering, generate
from steerpaper.vectors import pairs as module
from steerpaper.vectors.pairs import ContrastPairs, contrast_pairs

HARMFUL = pd.DataFrame({"prompt": ["rob it", "burn the barn", "hit"]})
HARMLESS = pd.DataFrame({"prompt": ["sing a song", "bake"]})


class Listed:
    """A judge that calls refusals what it was given as such."""

    def __init__(self, refusals):
        self.refusals = {tuple(response.completion) for response in refusals}

    def expresses(self, responses, prompts=None):
        return [tuple(response.completion) in self.refusals for response in responses]


def test_pairs_hold_the_responses_of_generate(model):
    vector = torch.linspace(-3, 3, model.d_model)
    own = {name: generate(model, table.prompt, max_new_tokens=5)
           for name, table in (("harmful", HARMFUL), ("harmless", HARMLESS))}
    complied = generate(model, HARMFUL.prompt, Steering(vector, 1, -2.0), max_new_tokens=5)
    commanded = generate(model, with_instruction(HARMLESS, REFUSAL).prompt, max_new_tokens=5)
    judge = Listed([*own["harmful"], *commanded])
    assert not any(judge.expresses([*complied, *own["harmless"]]))  # else this test would see nothing
    found = contrast_pairs(model, HARMFUL, HARMLESS, Steering(vector, 1, 2.0), judge, max_new_tokens=5, batch_size=2)
    assert found.signs == [-1, -1, -1, 1, 1] and len(found) == 5
    assert [r.completion for r in found.winners] == [r.completion for r in [*complied, *commanded]]
    assert [r.text for r in found.winners] == [r.text for r in [*complied, *commanded]]
    assert found.losers == [*own["harmful"], *own["harmless"]]
    expected = [model.tokenize(prompt) for prompt in [*HARMFUL.prompt, *HARMLESS.prompt]]
    assert found.prompts == [response.prompt for response in found.losers] == expected  # without the command


def answering(monkeypatch, *texts):
    """Let `generate` say these texts, in its order: own responses, then wanted ones."""
    monkeypatch.setattr(module, "generate", lambda model, prompts, *_, **__: [
        Response([i % 5], [ord(text[0])], text) for i, (_, text) in enumerate(zip(prompts, texts, strict=True))
    ])


NO, YES = "I cannot do it.", "Sure."
STEERING = Steering(torch.ones(4), 1, 1.0)


def test_dropped_pairs_are_counted_by_reason(monkeypatch):
    answering(monkeypatch, *[NO, YES, YES], *[YES, NO], *[YES, YES, NO], *[YES, NO])
    with pytest.raises(ValueError, match="all 1 pairs teach to comply and none to refuse"):
        contrast_pairs(None, HARMFUL, HARMLESS, STEERING, SubstringJudge())
    answering(monkeypatch, *[NO, YES, YES], *[YES, YES], *[YES, YES, NO], *[YES, NO])
    found = contrast_pairs(None, HARMFUL, HARMLESS, STEERING, SubstringJudge())
    assert found.counts.to_dict("list") == {
        "prompts": ["harmful", "harmless"], "asked": [3, 2], "kept": [1, 1], "loser_off": [1, 0],
        "winner_off": [0, 1], "both_off": [1, 0],
    }
    assert found.signs == [-1, 1] and [winner.text for winner in found.winners] == [YES, NO]
    assert found.prompts == [[0], [4]]


def test_no_pairs_and_one_class(monkeypatch):
    answering(monkeypatch, *[YES] * 3, *[YES] * 2, *[YES] * 3, *[YES] * 2)
    with pytest.raises(ValueError, match="no pairs are left of 5 prompts; see what was dropped:\n.*loser_off"):
        contrast_pairs(None, HARMFUL, HARMLESS, STEERING, SubstringJudge())
    answering(monkeypatch, *[YES] * 3, *[YES] * 2, *[YES] * 3, *[NO] * 2)
    with pytest.raises(ValueError, match="all 2 pairs teach to refuse and none to comply: one vector needs both"):
        contrast_pairs(None, HARMFUL, HARMLESS, STEERING, SubstringJudge())


@pytest.mark.parametrize("coefficient", [0.0, -1.0, float("nan")])
def test_the_coefficient_must_be_positive(coefficient):
    with pytest.raises(ValueError, match="the steering's coefficient must be (positive|finite), .* was given"):
        contrast_pairs(None, HARMFUL, HARMLESS, Steering(torch.ones(4), 1, coefficient), SubstringJudge())


def test_impossible_pairs():
    one, other, counts = Response([1], [2]), Response([3], [2]), pd.DataFrame({"asked": [2]})
    with pytest.raises(ValueError, match="2 winners, 1 losers and 2 signs"):
        ContrastPairs([one, one], [one], [1, -1], counts)
    with pytest.raises(ValueError, match=r"signs \[-1, 0\] were given"):
        ContrastPairs([one, one], [one, one], [0, -1], counts)
    with pytest.raises(ValueError, match="winner and loser of pair 1 answer different prompts"):
        ContrastPairs([one, one], [one, other], [1, -1], counts)
