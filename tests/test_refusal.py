import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from steerpaper.behaviour.guard import PairOfJudges
from steerpaper.behaviour.rates import judged_responses
from steerpaper.behaviour.refusal import (
    REFUSAL_SUBSTRINGS, SubstringJudge, attack_success_rate, judge_agreement, refusal_metric, refusal_token_ids,
    verdicts,
)
from steerpaper.circuits.flips import patching_data
from steerpaper.models.responses import Response
from steerpaper.steering import Steering
from steerpaper.vectors.pairs import contrast_pairs


def test_metric_is_the_log_odds_of_the_summed_probability():
    probabilities = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4]])
    metric = refusal_metric(probabilities.log() + 7.0, [0, 2])  # a shift of all logits changes nothing
    assert metric.tolist() == pytest.approx([math.log(0.625 / 0.375), math.log(0.4 / 0.6)], abs=1e-6)


def test_metric_counts_a_token_once_and_does_not_change_its_input():
    logits = torch.randn(3, 5)
    before = logits.clone()
    assert torch.equal(refusal_metric(logits, [1, 1, 3]), refusal_metric(logits, (3, 1)))
    assert torch.equal(logits, before)


def test_metric_is_finite_where_the_probability_is_one_or_zero():
    metric = refusal_metric(torch.tensor([[200.0, 0.0, 0.0], [-200.0, 0.0, 0.0]]), [0])
    assert metric.tolist() == pytest.approx([200 - math.log(2), -200 - math.log(2)])


def test_metric_of_half_precision_is_computed_in_float32():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    metric = refusal_metric(logits.bfloat16(), [2])
    assert metric.dtype == torch.float32
    assert torch.equal(metric, refusal_metric(logits, [2]))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [([], "0 refusal tokens"), (range(4), "1 to 3 of the 4"), ([4], "from 0 to 3"), ([-1], "from 0 to 3")],
)
def test_metric_refuses_impossible_token_sets(tokens, message):
    with pytest.raises(ValueError, match=message):
        refusal_metric(torch.zeros(1, 4), tokens)


@pytest.mark.parametrize("substring", REFUSAL_SUBSTRINGS)
def test_every_substring_is_found_in_any_case_and_with_either_apostrophe(substring):
    texts = [f"Well. {substring} x", substring.upper(), substring.replace("'", "\u2019")]
    assert SubstringJudge().refused(texts) == [True, True, True]


def test_judge_lets_other_texts_pass_and_reads_responses():
    judge = SubstringJudge()
    assert judge.refused(["Open the lid.", "", "I can do that."]) == [False, False, False]
    assert judge.refused([SimpleNamespace(text="Sadly I can\u2019t."), "Sure."]) == [True, False]


def test_rate_and_wilson_interval_by_hand():
    # 8 of 10, z = 1.959964: (0.8 + z²/20 ± z·sqrt(0.8·0.2/10 + z²/400)) / (1 + z²/10)
    asr = attack_success_rate(["Sure."] * 8 + ["I cannot."] * 2, SubstringJudge())
    assert (asr.rate, asr.n) == (0.8, 10)
    assert (asr.low, asr.high) == pytest.approx((0.49016, 0.94332), abs=1e-5)


def test_interval_stays_inside_the_unit_interval():
    asr = attack_success_rate(["I cannot."] * 10, SubstringJudge())
    assert (asr.rate, asr.low) == (0.0, 0.0)
    assert asr.high == pytest.approx(0.27753, abs=1e-5)  # z² / (10 + z²)


def test_rate_refuses_nothing_and_a_single_string():
    with pytest.raises(ValueError, match="at least one"):
        attack_success_rate([], SubstringJudge())
    with pytest.raises(ValueError, match="list of responses"):
        attack_success_rate("Sure.", SubstringJudge())


def test_agreement_of_judges_by_hand():
    # both 3, first only 1, second only 2, neither 4: agreed 0.7; by chance 0.4 * 0.5 + 0.6 * 0.5 = 0.5; kappa 0.2 / 0.5
    first = [True] * 4 + [False] * 6
    second = [True] * 3 + [False] + [True] * 2 + [False] * 4
    found = judge_agreement(first, second)
    assert (found.n, found.both_refused, found.first_only, found.second_only, found.neither) == (10, 3, 1, 2, 4)
    assert (found.share, found.kappa) == (pytest.approx(0.7), pytest.approx(0.4))
    assert judge_agreement(second, first).first_only == 2
    assert judge_agreement(first, first).kappa == pytest.approx(1.0)
    assert judge_agreement(first, [not verdict for verdict in first]).kappa < 0
    assert math.isnan(judge_agreement([True], [True]).kappa)


@pytest.mark.parametrize("first, second", [(["no"], ["yes"]), ([1], [0]), ([True], [None]), ([0.5], [True])])
def test_agreement_is_of_verdicts_alone(first, second):
    with pytest.raises(ValueError, match="the (first|second) judge gave the verdict .*: verdicts are True"):
        judge_agreement(first, second)


class Says:
    """A judge that says what it is told to, whatever it is asked."""

    def __init__(self, said):
        self.said = said

    def refused(self, responses, prompts=None):
        return self.said


@pytest.mark.parametrize("said", [[True, False], (True, False), np.array([True, False]), torch.tensor([True, False]),
                                  pd.Series([True, False], index=[5, 7]), [np.True_, np.False_]])
def test_verdicts_may_come_in_any_collection(said):
    assert verdicts(Says(said), ["a", "b"]).tolist() == [True, False]
    assert attack_success_rate(["a", "b"], Says(said)).rate == 0.5


@pytest.mark.parametrize("said, message", [
    ([True], "judge Says gave 1 verdicts on 2 responses"), ([True] * 3, "judge Says gave 3 verdicts on 2 responses"),
    (["yes", "no"], "judge Says gave the verdict 'yes'"), ([True, None], "judge Says gave the verdict None"),
    ([1, 0], "judge Says gave the verdict 1"), (np.array([0.0, 1.0]), "gave the verdict np.float64"),
    (None, "verdicts of judge Says must be a list, None"), ("no", "verdicts of judge Says must be a list, 'no'"),
    (True, "verdicts of judge Says must be a list, True"),
])
def test_a_judge_that_says_neither_is_refused_wherever_it_is_asked(llama, said, message):
    judge, vector = Says(said), torch.ones(32)
    prompts = pd.DataFrame({"prompt": ["Hi", "No"], "topic": "", "refuse": True})
    for run in (lambda: attack_success_rate(["a", "b"], judge),
                lambda: judged_responses(llama, prompts, [None], judge=judge, vocabulary=None, max_new_tokens=2),
                lambda: patching_data(llama, ["Hi", "No"], ["Hi", "No"], vector, 1, 1.0, judge, max_new_tokens=2),
                lambda: contrast_pairs(llama, ["Hi"], ["No"], Steering(vector, 1), judge, max_new_tokens=2),
                lambda: PairOfJudges(judge, SubstringJudge()).refused(["a", "b"], prompts)):
        with pytest.raises(ValueError, match=message):
            run()


def test_what_is_no_judge():
    with pytest.raises(ValueError, match=r"'substring' is no judge: give one, such as load_judge\(preset\)"):
        attack_success_rate(["a"], "substring")


@pytest.mark.parametrize("substrings, message", [
    ("I cannot", "refusal substrings must be a list, 'I cannot'"), ((), "refusal substrings are empty"),
    (("I cannot", ""), "'' is none"), ((None,), "None is none"),
])
def test_substrings_are_a_collection(substrings, message):
    with pytest.raises(ValueError, match=message):
        SubstringJudge(substrings)


def test_substrings_may_be_a_list():
    judge = SubstringJudge(["nope"])
    assert judge == SubstringJudge(("nope",)) and judge.refused(["Nope.", "Sure."]) == [True, False]


@pytest.mark.parametrize("responses", ["I cannot", pd.DataFrame({"text": ["I cannot"]}), None])
def test_responses_are_a_collection(responses):
    with pytest.raises(ValueError, match="responses must be a list"):
        SubstringJudge().refused(responses)


def test_a_response_without_text_is_not_judged():
    with pytest.raises(ValueError, match="a response without text was given, Response"):
        SubstringJudge().refused([Response([1], [2])])


@pytest.mark.parametrize("tokens, message", [
    ("As", "refusal tokens must be a list, 'As'"), ([], "refusal tokens are empty"), (["I", 5], "5 is none"),
    (["I", "As"], "refusal token 'As' is 2 tokens in this model"),
])
def test_refusal_tokens_are_a_collection_of_single_tokens(llama, tokens, message):
    assert refusal_token_ids(llama, ("I", "A")) == [49, 41]
    with pytest.raises(ValueError, match=message):
        refusal_token_ids(llama, tokens)


@pytest.mark.parametrize("tokens", ["12", [1.5], [True], ["1"], None])
def test_metric_counts_token_ids_alone(tokens):
    with pytest.raises(ValueError, match="refusal_tokens (must be a list|holds)"):
        refusal_metric(torch.zeros(1, 4), tokens)


@pytest.mark.parametrize("second", [[], [True]])
def test_agreement_needs_as_many_verdicts_of_both(second):
    with pytest.raises(ValueError, match=rf"got {2 * len(second)} and {len(second)} verdicts"):
        judge_agreement(second * 2, second)
