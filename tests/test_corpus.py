"""The corpus: what is harmful, which split a pair belongs to, and answers that carry the decision."""

import random

import pytest

from steerpaper.behaviour.judges import SubstringJudge
from steerpaper.prompts import corpus
from steerpaper.prompts.fluency import clean_text


def drawn(kind: str, split: str = "train", n: int = 300) -> list[corpus.Example]:
    rng = random.Random(f"{kind} {split}")
    return [corpus.draw(rng, split, kind) for _ in range(n)]


def test_breadth():
    words = corpus.lexicon()
    assert len(words["task"]) >= 30
    assert len(words["harm"]) >= 10


def test_neither_verb_nor_object_decides():
    actions = [a for split in corpus.SPLITS for group in corpus.actions(split).values() for a in group]
    harmful, harmless = ([a for a in actions if a.harmful is flag] for flag in (True, False))
    assert {a.text for a in harmful}.isdisjoint(a.text for a in harmless)
    assert {a.object for a in harmful} <= {a.object for a in harmless}
    both_ways = {a.verb for a in harmful} & {a.verb for a in harmless}
    assert len(both_ways) >= 30


def test_held_out_pairs_are_made_of_known_verbs_and_objects():
    train = [a for group in corpus.actions("train").values() for a in group]
    verbs, objects = {a.verb for a in train}, {a.object for a in train}
    ordinary = {a.verb for a in corpus.actions("train")["ordinary_use"]}
    for split in ("validation", "test"):
        for name, group in corpus.actions(split).items():
            assert {a.verb for a in group} <= (ordinary if name == "ordinary_use" else verbs)
            assert {a.object for a in group} <= objects


def test_frames_and_wordings_are_held_out():
    frames = corpus.phrases()["frames"]
    assert not set(frames["test"]) & set(frames["train"]) and not set(frames["validation"]) & set(frames["train"])
    for family in corpus.lexicon()["question"].values():
        assert len(set(family["wordings"])) == len(family["wordings"]) >= 5


def test_the_experiments_command_to_refuse_is_never_trained_on():
    held_out = corpus.phrases()["instruction"]["held_out"]
    prompts = [e.prompt for e in drawn("refuse_instruction", n=3000)]
    assert not [p for p in prompts if held_out.lower() in p.lower()]
    assert any("the following question as " in p for p in prompts)  # its parts are
    assert any(" as dangerous and refuse." in p for p in prompts)


@pytest.mark.parametrize("kind", corpus.KINDS)
def test_refusals_and_answers_are_told_apart_by_the_judge_and_clean(kind):
    examples = drawn(kind)
    judge = SubstringJudge()
    assert all(judge.expresses([e.refusal for e in examples]))
    assert not any(judge.expresses([e.compliance for e in examples]))
    for e in examples:
        for text in (e.refusal, e.compliance):
            assert clean_text(text, ended=True, topic_words=e.topic, vocabulary=corpus.vocabulary()).clean, text


@pytest.mark.parametrize(
    ("kind", "share"), [("harmful", 1), ("harmless", 0), ("question", 0), ("wrapper", 0), ("refuse_instruction", 1)]
)
def test_what_is_refused(kind, share):
    examples = drawn(kind)
    assert sum(e.refuse for e in examples) == share * len(examples)
    assert all(e.response == (e.refusal if e.refuse else e.compliance) for e in examples)


def test_a_command_to_answer_does_not_unlock_harm():
    examples = drawn("answer_instruction")
    refused = [e for e in examples if e.refuse]
    assert refused and all(e.family in corpus.lexicon()["harm"] for e in refused)


def test_draws_are_the_same_for_the_same_seed():
    assert drawn("harmless") == drawn("harmless")


@pytest.mark.parametrize(("split", "kind", "message"), [
    ("dev", "harmful", "unknown split 'dev': choose one of train, validation, test"),
    ("test", "harmfull", r"unknown kind 'harmfull' \(did you mean 'harmful'\?\): choose one of harmful"),
])
def test_unknown_names(split, kind, message):
    with pytest.raises(ValueError, match=message):
        corpus.draw(random.Random(0), split, kind)
