"""Judges of responses, their verdicts and how far two of them agree."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from steerpaper.behaviour.guard import PairOfJudges
from steerpaper.behaviour.judges import (
    REFUSAL_SUBSTRINGS, ScriptJudge, SubstringJudge, judge_agreement, script_shares, verdicts,
)
from steerpaper.behaviour.judging import judged_responses
from steerpaper.circuits.flipped import patching_data
from steerpaper.models.responses import Response
from steerpaper.steering import Steering
from steerpaper.vectors.pairs import contrast_pairs


@pytest.mark.parametrize("substring", REFUSAL_SUBSTRINGS)
def test_every_substring_is_found_in_any_case_and_with_either_apostrophe(substring):
    texts = [f"Well. {substring} x", substring.upper(), substring.replace("'", "\u2019")]
    assert SubstringJudge().expresses(texts) == [True, True, True]


def test_judge_lets_other_texts_pass_and_reads_responses():
    judge = SubstringJudge()
    assert judge.expresses(["Open the lid.", "", "I can do that."]) == [False, False, False]
    assert judge.expresses([SimpleNamespace(text="Sadly I can\u2019t."), "Sure."]) == [True, False]


def test_agreement_of_judges_by_hand():
    # both 3, first only 1, second only 2, neither 4: agreed 0.7; by chance 0.4 * 0.5 + 0.6 * 0.5 = 0.5; kappa 0.2 / 0.5
    first = [True] * 4 + [False] * 6
    second = [True] * 3 + [False] + [True] * 2 + [False] * 4
    found = judge_agreement(first, second)
    assert (found.n, found.both, found.first_only, found.second_only, found.neither) == (10, 3, 1, 2, 4)
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

    def expresses(self, responses, prompts=None):
        return self.said


@pytest.mark.parametrize("said", [[True, False], (True, False), np.array([True, False]), torch.tensor([True, False]),
                                  pd.Series([True, False], index=[5, 7]), [np.True_, np.False_]])
def test_verdicts_may_come_in_any_collection(said):
    assert verdicts(Says(said), ["a", "b"]).tolist() == [True, False]


@pytest.mark.parametrize("said, message", [
    ([True], "judge Says gave 1 verdicts on 2 responses"), ([True] * 3, "judge Says gave 3 verdicts on 2 responses"),
    (["yes", "no"], "judge Says gave the verdict 'yes'"), ([True, None], "judge Says gave the verdict None"),
    ([1, 0], "judge Says gave the verdict 1"), (np.array([0.0, 1.0]), "gave the verdict np.float64"),
    (None, "judge Says gave nothing .None."), ("no", "verdicts of judge Says must be a list, 'no'"),
    (True, "verdicts of judge Says must be a list, True"),
])
def test_a_judge_that_says_neither_is_refused_wherever_it_is_asked(llama, said, message):
    judge, vector = Says(said), torch.ones(32)
    prompts = pd.DataFrame({"prompt": ["Hi", "No"], "topic": "", "positive": True})
    for run in (lambda: verdicts(judge, ["a", "b"]),
                lambda: judged_responses(llama, prompts, [None], judge=judge, vocabulary=None, max_new_tokens=2),
                lambda: patching_data(llama, ["Hi", "No"], ["Hi", "No"], Steering(vector, 1), judge, max_new_tokens=2),
                lambda: contrast_pairs(llama, ["Hi"], ["No"], Steering(vector, 1), judge, max_new_tokens=2),
                lambda: PairOfJudges(judge, SubstringJudge()).expresses(["a", "b"], prompts)):
        with pytest.raises(ValueError, match=message):
            run()


def test_what_is_no_judge():
    with pytest.raises(ValueError, match=r"'substring' is no judge: give one, such as load_judge\(preset\)"):
        verdicts("substring", ["a"])


@pytest.mark.parametrize("substrings, message", [
    ("I cannot", "substrings must be a list, 'I cannot'"), ((), "substrings are empty"),
    (("I cannot", ""), "'' is none"), ((None,), "None is none"),
])
def test_substrings_are_a_collection(substrings, message):
    with pytest.raises(ValueError, match=message):
        SubstringJudge(substrings)


def test_substrings_may_be_a_list():
    judge = SubstringJudge(["nope"])
    assert judge == SubstringJudge(("nope",)) and judge.expresses(["Nope.", "Sure."]) == [True, False]


@pytest.mark.parametrize("responses", ["I cannot", pd.DataFrame({"text": ["I cannot"]}), None])
def test_responses_are_a_collection(responses):
    with pytest.raises(ValueError, match="responses must be a list"):
        SubstringJudge().expresses(responses)


def test_a_response_without_text_is_not_judged():
    with pytest.raises(ValueError, match="a response without text was given, Response"):
        SubstringJudge().expresses([Response([1], [2])])


@pytest.mark.parametrize("second", [[], [True]])
def test_agreement_needs_as_many_verdicts_of_both(second):
    with pytest.raises(ValueError, match=rf"got {2 * len(second)} and {len(second)} verdicts"):
        judge_agreement(second * 2, second)


# -- judging by script ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, share", [
    ("面包是一种食品。", 1.0), ("Bread is food.", 0.0), ("", 0.0), ("42 × 7 = 294", 0.0), ("！？…", 0.0),
    ("tea 茶", 0.25), ("ab 面包", 0.5), ("面包是 bread", 3 / 8), ("１２ 面", 1.0),
    ("𠀀 a", 0.5),  # beyond the first plane
    ("カナ漢", 1 / 3),  # kana is another script
])
def test_the_share_of_letters_in_a_script(text, share):
    assert script_shares([text]) == [pytest.approx(share)]
    assert ScriptJudge().expresses([text]) == [share >= 0.5]


def test_code_in_a_chinese_answer_counts_as_what_it_is_written_in():
    told, code = "下面的函数会把两个数相加：", "def add(first, second): return first + second"
    assert ScriptJudge().expresses([told, f"{told}\n{code}"]) == [True, False]
    assert ScriptJudge(share=0.2).expresses([f"{told}\n{code}"]) == [True]
    assert ScriptJudge(characters="a-z").expresses(["Abc", "面", "ab"]) == [True, False, True]


@pytest.mark.parametrize("wrong, message", [
    (dict(share=0), "share 0 were given: .* a share of the letters in"), (dict(share=1.5), "share 1.5"),
    (dict(share="half"), "share must be a number"), (dict(characters=""), "characters '' and"),
])
def test_a_script_judge_that_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        ScriptJudge(**wrong)


def test_a_script_judge_needs_texts():
    with pytest.raises(ValueError, match="a response without text"):
        ScriptJudge().expresses([SimpleNamespace(text=None)])
