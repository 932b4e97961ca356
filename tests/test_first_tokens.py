"""The log odds of first tokens, for refusal the paper's refusal metric, by hand, and the tokens' ids."""

import math
import re

import pytest
import torch

from steerpaper.behaviour.first_tokens import first_token_ids, first_token_log_odds


def test_metric_is_the_log_odds_of_the_summed_probability():
    probabilities = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4]])
    metric = first_token_log_odds(probabilities.log() + 7.0, [0, 2])  # a shift of all logits changes nothing
    assert metric.tolist() == pytest.approx([math.log(0.625 / 0.375), math.log(0.4 / 0.6)], abs=1e-6)


def test_metric_counts_a_token_once_and_does_not_change_its_input():
    logits = torch.randn(3, 5)
    before = logits.clone()
    assert torch.equal(first_token_log_odds(logits, [1, 1, 3]), first_token_log_odds(logits, (3, 1)))
    assert torch.equal(logits, before)


def test_metric_is_finite_where_the_probability_is_one_or_zero():
    metric = first_token_log_odds(torch.tensor([[200.0, 0.0, 0.0], [-200.0, 0.0, 0.0]]), [0])
    assert metric.tolist() == pytest.approx([200 - math.log(2), -200 - math.log(2)])


def test_metric_of_half_precision_is_computed_in_float32():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    metric = first_token_log_odds(logits.bfloat16(), [2])
    assert metric.dtype == torch.float32
    assert torch.equal(metric, first_token_log_odds(logits, [2]))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [([], "0 first tokens"), (range(4), "1 to 3 of the 4"), ([4], "from 0 to 3"), ([-1], "from 0 to 3")],
)
def test_metric_refuses_impossible_token_sets(tokens, message):
    with pytest.raises(ValueError, match=message):
        first_token_log_odds(torch.zeros(1, 4), tokens)


@pytest.mark.parametrize("tokens, message", [
    ("As", "first tokens must be a list, 'As'"), ([], "first tokens are empty"), (["I", 5], "5 is none"),
    (["I", "As"], "first token 'As' is 2 tokens in this model"),
])
def test_first_tokens_are_a_collection_of_single_tokens(llama, tokens, message):
    assert first_token_ids(llama, ("I", "A")) == [49, 41]
    with pytest.raises(ValueError, match=message):
        first_token_ids(llama, tokens)


@pytest.mark.parametrize("tokens", ["12", [1.5], [True], ["1"], None])
def test_metric_counts_token_ids_alone(tokens):
    with pytest.raises(ValueError, match="first tokens (must be a list|holds)"):
        first_token_log_odds(torch.zeros(1, 4), tokens)


def test_a_pattern_stands_for_all_tokens_whose_text_begins_so(llama):
    found = first_token_ids(llama, re.compile(r"\s*[0-9]"))
    texts = {token: llama.tokenizer.decode([token]).lstrip()[:1] for token in range(llama.n_vocab)}
    assert found == [token for token, text in texts.items() if text in set("0123456789") - {""}] and len(found) >= 10
    with pytest.raises(ValueError, match="no token of this model begins with '面'"):
        first_token_ids(llama, re.compile("面"))
