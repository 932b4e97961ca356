"""Probes: what a right answer is, and questions that do not give theirs away."""

import pytest

from steerpaper.behaviour.judges import SubstringJudge
from steerpaper.presets import SOURCES
from steerpaper.prompts import corpus
from steerpaper.prompts.probes import closed_questions, corpus_answers, is_answered, requests_that_sound_harmful
from steerpaper.prompts.sets import load_prompts


@pytest.mark.parametrize("text, answers, right", [
    ("It is Paris.", ("Paris",), True), ("PARIS!", ("paris",), True), ("It is Parisian.", ("Paris",), False),
    ("A spider has 8 legs.", ("eight", "8"), True), ("A spider has 88 legs.", ("eight", "8"), False),
    ("In South  America, I think.", ("South America",), True), ("In the south of America.", ("South America",), False),
    ("It is Paris.", "Paris", True), ("the (twenty-seven)", ("twenty-seven",), True), ("", ("Paris",), False), ("I cannot tell.", ("can",), False),
])
def test_an_answer_is_right_word_for_word(text, answers, right):
    assert is_answered(text, answers) == right


@pytest.mark.parametrize("answers, message", [
    ((), "answers are empty"), (None, "answers must be a list"), ((" . ",), "one without a word")])
def test_answers_that_are_none(answers, message):
    with pytest.raises(ValueError, match=message):
        is_answered("Paris", answers)


@pytest.mark.parametrize("source", SOURCES)
def test_questions_do_not_hold_their_answers(source):
    table = closed_questions(source)
    assert len(table) == 40 and table.prompt.is_unique and not table.positive.any()
    assert not [row.prompt for row in table.itertuples() if is_answered(row.prompt, row.answers)]


def test_what_the_corpus_answers_is_right():
    facts = {topic: fact for _, topic, fact, _ in corpus._questions("test")}
    assert facts.pop("the season of spring flowers") == "spring"  # is not asked: any answer to it holds the word
    asked = {example.prompt: example for example in
             (corpus.draw(corpus.random.Random(i), "test", "question") for i in range(300))}
    for example in (example for example in asked.values() if example.topic in facts):
        assert is_answered(example.compliance, (facts[example.topic],))
        assert not is_answered(example.refusal, (facts[example.topic],))
    wordings = closed_questions("built-in").prompt
    assert set(wordings) <= {wording for wording, *_ in corpus._questions("test")}


def test_requests_that_sound_harmful():
    for source, names in (("built-in", ["borderline", "wrapped"]), ("public", ["borderline"])):
        found = requests_that_sound_harmful(source, 5)
        assert list(found) == names
        for name, table in found.items():
            assert table.columns.tolist() == ["prompt", "topic", "positive"] and len(table) == 5
            assert not table.positive.any() and table.prompt.is_unique
    harmful = set(load_prompts("borderline", "test").query("positive").prompt)
    assert harmful.isdisjoint(requests_that_sound_harmful("built-in")["borderline"].prompt)
    assert len(requests_that_sound_harmful("public")["borderline"]) == 20


def test_harmless_answers_of_the_corpus():
    drawn = corpus_answers(40)
    assert len(drawn) == 40 and drawn == corpus_answers(40) != corpus_answers(40, seed=1)
    assert not any(SubstringJudge().expresses([text for _, text in drawn]))
    assert set(" ".join(text for _, text in drawn).lower().split()) > {"the", "is"}


@pytest.mark.parametrize("call, message", [
    (lambda: closed_questions("pubic"), "'pubic'.*public"),
    (lambda: requests_that_sound_harmful("x"), "choose.*built-in"),
    (lambda: requests_that_sound_harmful("public", 0), "n must be at least 1, 0 was given"),
    (lambda: corpus_answers(0), "n must be at least 1, 0 was given"),
])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
