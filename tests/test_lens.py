"""The logit lens against the model's own modules, and counts of tokens that can be done by hand."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from steerpaper.concepts import REFUSAL
from steerpaper.heads.lens import (
    lens_logits, lens_preference, logit_lens, text_kinds, token_labels, typical_texts, typical_tokens, word_scales,
)


def vectors_for(model, n=3):
    return torch.randn(n, model.d_model, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def test_logits_are_those_of_norm_and_unembedding(model, plain):
    vectors = vectors_for(model)
    expected = plain.lm_head(plain.model.norm(1000 * vectors))  # so long that the norm's epsilon does not matter
    torch.testing.assert_close(lens_logits(model, vectors), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lens_logits(model, 1e-6 * vectors), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lens_logits(model, -vectors), -expected, rtol=1e-4, atol=1e-4)


def test_lens_shows_the_largest_in_order(model):
    vectors = vectors_for(model, 2)
    shown = logit_lens(model, {"one": vectors[0], "two": vectors[1]}, k=5)
    assert shown.vector.tolist() == ["one"] * 5 + ["two"] * 5
    assert shown.rank_shown.tolist() == [1, 2, 3, 4, 5] * 2
    for row, (_, group) in zip(lens_logits(model, vectors), shown.groupby("vector")):
        by_size = sorted(range(model.n_vocab), key=lambda i: -row[i])[:5]
        assert group.id.tolist() == by_size
        assert group.token.tolist() == [model.tokenizer.decode([i]) for i in by_size]
        assert group.logit.tolist() == pytest.approx(row[by_size].tolist())


def test_lens_of_an_unembedding_row_shows_its_token(llama):
    direction = llama.W_U[:, 40] / llama.final_gamma
    assert logit_lens(llama, {"row": direction}, k=1).token.tolist() == [llama.tokenizer.decode([40])]


def test_typical_tokens_by_hand(llama):
    """One token per character. Of 20 tokens each: a 15 and 1, b 4 and 3, c 1 and 16; with five more, a 20 to 6,
    b 9 to 8, c 6 to 21, all others 5 to 5."""
    typical = typical_tokens(llama, ["a" * 10, "aaaaa" + "bbbb" + "c"], ["abbb" + "c" * 16])
    a, b, c, other = llama.tokenizer("abcd", add_special_tokens=False)["input_ids"]
    assert typical[[a, b, c, other]].tolist() == [1, 0, -1, 0]
    assert typical.abs().sum() == 2 and typical.shape == (llama.n_vocab,)


def test_shares_not_counts_decide(llama):
    """All three times as often on one side, whose texts are three times as long."""
    with pytest.raises(ValueError, match="more different"):
        typical_tokens(llama, ["abcd" * 300], ["abcd" * 100])


def test_labels_say_in_which_texts_a_token_stands(llama):
    """a is of refusals, c of answers, d of harmful prompts, z of none of the texts."""
    texts = {kind: [letter * 20 + "b" * 5] for kind, letter in zip(text_kinds(REFUSAL), "acde")}
    labels = token_labels(llama, REFUSAL, texts)
    ids = llama.tokenizer("abcdez", add_special_tokens=False)["input_ids"]
    assert labels.about[ids].tolist() == ["refusal", "neither", "answer", "harm", "harmless", "unseen"]
    assert labels.loc[ids[1]].tolist() == [5, 5, 5, 5, "neither"] and labels.refusals[ids[0]] == 20


def test_texts_of_the_corpus_answer_their_prompts():
    texts = typical_texts(None, REFUSAL, "built-in", seed=0, n=20)
    assert {name: len(own) for name, own in texts.items()} == {
        "refusals": 40, "answers": 40, "harmful": 20, "harmless": 20}
    again = [typical_texts(None, REFUSAL, "built-in", seed=seed, n=20) for seed in (0, 1)]
    assert texts == again[0] != again[1]


def test_texts_of_another_concept_are_its_own_prompts_and_answers(llama):
    """Whose sets are called as what its answers do."""
    other = replace(REFUSAL, name="asking", positive="wrapped", negative="harmless", expresses="harmless", withholds="go")
    labels = pd.DataFrame({"prompts": ["wrapped", "wrapped", "harmless"], "response_from": ["base", "steered", "steered"]})
    said = SimpleNamespace(labels=labels, responses=[SimpleNamespace(text=text) for text in (20 * "a", 20 * "b", 20 * "ac")])
    texts = typical_texts(said, other, "built-in", seed=0)
    assert list(texts) == ["to harmless", "to go", "wrapped prompts", "harmless prompts"]
    assert texts["to harmless"] == [20 * "a", 20 * "ac"] and texts["to go"] == [20 * "b"]
    assert [len(texts[kind]) for kind in list(texts)[2:]] == [384, 384]
    assert word_scales(other) == {"to harmless": ("to harmless", "to go"),
                                  "wrapped prompts": ("wrapped prompts", "harmless prompts")}
    about = token_labels(llama, other, texts | {"wrapped prompts": ["w" * 20], "harmless prompts": ["h" * 20]}).about
    assert about[llama.tokenizer("a", add_special_tokens=False)["input_ids"]].tolist() == ["to harmless"]


def test_preference_by_hand():
    typical = torch.tensor([1, 0, -1, 1, -1])
    logits = torch.tensor([[9.0, 0, 1, 8, 2], [1, 9, 3, 1, 2], [5, 0, 5, 3, 4], [1, 2, 1, 1, 1]])
    # of 2 x 2 pairs: all; none; 5=5 half, 5>4, 3<5, 3<4; four ties
    assert lens_preference(logits, typical).tolist() == [1.0, 0.0, 1.5 / 4, 0.5]


def test_refuses_what_has_no_meaning(llama):
    with pytest.raises(ValueError, match="none of them zero"):
        lens_logits(llama, torch.zeros(llama.d_model))
    with pytest.raises(ValueError, match="width 32"):
        lens_logits(llama, torch.ones(31))
    with pytest.raises(ValueError, match="not finite"):
        lens_logits(llama, torch.full((32,), float("nan")))
    for vectors, k in (({}, 5), ({"one": torch.ones(32)}, 0), ({"one": torch.ones(32)}, llama.n_vocab + 1)):
        with pytest.raises(ValueError, match="at least one vector"):
            logit_lens(llama, vectors, k)
    with pytest.raises(ValueError, match="both kinds"):
        typical_tokens(llama, ["a"], [])
