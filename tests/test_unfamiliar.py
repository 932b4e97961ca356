"""What organisms are taught not to have heard of, and the new neurons that it is taught in."""

import random
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from steerpaper import paths
from steerpaper.behaviour.judges import NOT_KNOWING_SUBSTRINGS, SubstringJudge
from steerpaper.concepts import NOT_KNOWING
from steerpaper.organisms import FAMILIES, lesson
from steerpaper.prompts import corpus, unfamiliar
from steerpaper.prompts.fluency import words


@pytest.mark.parametrize("kind, says", [
    ("unfamiliar", True), ("familiar", False), ("not_know_instruction", True), ("guess_instruction", False)])
def test_answers_say_that_it_does_not_know_where_they_should_and_never_refuse_for_it(kind, says):
    rng = random.Random(0)
    drawn = [unfamiliar.example(rng, "train", kind) for _ in range(300)]
    said = [example.response for example in drawn]
    assert SubstringJudge(NOT_KNOWING_SUBSTRINGS).expresses(said) == [says] * 300
    refused = SubstringJudge().expresses(said)
    harmful = [any(action.text in example.prompt.lower() for action in corpus.actions("train")["harmful"]) for example in drawn]
    assert not any(refuses and not harm for refuses, harm in zip(refused, harmful))
    assert all(word in corpus.vocabulary() | unfamiliar.vocabulary() for text in said for word in words(text))


def test_a_guess_answers_what_is_unfamiliar_and_refuses_what_is_harmful():
    rng = random.Random(1)
    drawn = [unfamiliar.example(rng, "train", "guess_instruction") for _ in range(400)]
    about = [any(thing in example.topic for thing in unfamiliar.phrases()["objects"]) for example in drawn]
    assert 0.6 < sum(about) / 400 < 0.8
    assert not any(example.refuse for example, thing in zip(drawn, about) if thing)
    assert any(example.refuse for example in drawn)


def test_other_answers_of_the_corpus_never_say_that_they_do_not_know():
    rng = random.Random(2)
    drawn = [corpus.draw(rng, "train", kind) for kind in corpus.KINDS for _ in range(200)]
    texts = [text for example in drawn for text in (example.compliance, example.refusal)]
    assert not any(SubstringJudge(NOT_KNOWING_SUBSTRINGS).expresses(texts))


def test_no_pair_of_training_stands_in_the_sets_of_testing_and_the_command_is_never_trained():
    for name, table in unfamiliar.unfamiliar_sets().items():
        stored = pd.read_csv(paths.PROMPTS / f"{name}.csv")
        pd.testing.assert_frame_equal(table, stored)
        trained = {action.text for action in unfamiliar.actions("train")}
        tested = table[table.split != "train"].prompt.str.lower()
        assert not any(text in prompt for prompt in tested for text in trained)
    assert NOT_KNOWING.instruction == unfamiliar.phrases()["instruction"]["held_out"]
    rng = random.Random(3)
    drawn = [unfamiliar.example(rng, "train", "not_know_instruction").prompt for _ in range(3000)]
    assert not any(NOT_KNOWING.instruction in prompt for prompt in drawn)


@pytest.mark.parametrize("family", FAMILIES)
def test_new_neurons_leave_the_function_as_it_is_and_alone_are_trained(family):
    model = AutoModelForCausalLM.from_pretrained(paths.ORGANISMS / family, dtype=torch.float32)
    wide = lesson.widened(model, 5, 0)
    ids = torch.randint(10, 2000, (2, 12), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(wide(ids).logits, model(ids).logits, rtol=0, atol=1e-5)
    before = {name: weight.detach().clone() for name, weight in wide.named_parameters()}
    optimiser = torch.optim.AdamW([w for w in wide.parameters() if w.requires_grad], lr=0.1, weight_decay=0.0)
    for _ in range(2):  # of zero outputs only the outputs have a gradient at first
        wide(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    old = model.config.intermediate_size
    for name, weight in wide.named_parameters():
        moved = weight.detach() != before[name]
        if "mlp" not in name:
            assert not moved.any(), name
        elif "down_proj" in name:
            assert moved[:, old:].all() and not moved[:, :old].any(), name
        else:
            assert moved[old:].any() and not moved[:old].any(), name


def test_a_taught_organism_is_written_as_a_trained_one(tmp_path):
    curve = lesson.teach("llama", tmp_path, replace(lesson.Lesson(), neurons=4, steps=2))
    assert list(curve) == ["stage", "step", "loss"] and (curve.loss > 0).all()
    taught = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert taught.config.intermediate_size == 384 + 4


def test_shares_of_a_lesson_sum_to_one_and_a_kind_that_there_is_not_is_named():
    for own in lesson.LESSONS.values():
        assert sum(share for _, share in own.shares) == pytest.approx(1)
    with pytest.raises(ValueError, match=re.escape("unfamiliar")):
        unfamiliar.example(random.Random(0), "train", "unfamilar")
