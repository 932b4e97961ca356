"""The record of a concept, and a second one that goes end to end: answers with a digit, on the tiny model."""

import re
import tomllib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from steerpaper import paths
from steerpaper.behaviour import guard
from steerpaper.behaviour.first_tokens import first_token_ids
from steerpaper.behaviour.guard import load_judge
from steerpaper.behaviour.judges import ScriptJudge, verdicts
from steerpaper.behaviour.judging import judged_responses, rates
from steerpaper.behaviour.unsteered import nothing_to_steer, unsteered_rates
from steerpaper.circuits.flipped import patching_data
from steerpaper.concepts import CONCEPTS, LANGUAGE, REFUSAL, Concept, get_concept
from steerpaper.presets import PRESETS
from steerpaper.prompts import concept_prompts, load_prompts
from steerpaper.prompts.languages import language_sets
from steerpaper.steering import Steering, both_ways, generate
from steerpaper.vectors.extraction import difference_in_means
from steerpaper.vectors.methods import METHODS
from steerpaper.vectors.pairs import contrast_pairs
from steerpaper.vectors.selection import score_candidates, select_by_generation, select_coefficient

COUNTING = Concept(
    name="counting", positive="numeric", negative="wordy", second_positive=None, first_tokens=("1", "3"),
    instruction="Say a number.", judges=("digits",), expresses="count", withholds="spell",
)
# By themselves the tiny Llama's answers to the first have a digit, those to the second none.
NUMERIC = ["Dig here", "Find two", "Go on", "Ink well", "Keep calm"]
WORDY = ["Add it", "Buy ten", "Call me", "Eat up", "Hold it", "Join us", "Look out"]
LAYER, POSITION, ALPHA, N = 2, -2, 4.0, 6


def counts(text):
    return any(character.isdigit() for character in text)


class Digits:
    """A judge that nobody can argue with."""

    def expresses(self, responses, prompts=None):
        return [counts(response.text) for response in responses]


HOW = dict(concept=COUNTING, max_new_tokens=N)


@pytest.fixture(scope="module")
def candidates(llama):
    return difference_in_means(llama, NUMERIC, WORDY)


@pytest.fixture(scope="module")
def steering(candidates):
    return Steering(candidates[LAYER, POSITION], LAYER, ALPHA)


def said(model, prompts, steering=None):
    return [counts(response.text) for response in generate(model, prompts, steering, max_new_tokens=N)]


# -- a second concept, end to end ----------------------------------------------------------------------------

def test_sets_and_signs_are_the_concepts(steering):
    assert COUNTING.sets == ("numeric", "wordy") and COUNTING.signs == {"numeric": -1, "wordy": 1}
    ways = both_ways(steering, COUNTING)
    assert {name: way.coefficient for name, way in ways.items()} == {"numeric": -ALPHA, "wordy": ALPHA}
    assert all(way.vector is steering.vector and way.layer == LAYER for way in ways.values())


def test_rates_of_a_list_count_answers_that_do_not_express_it(llama, steering):
    for prompts, alpha in ((NUMERIC, -ALPHA), (WORDY, ALPHA)):
        steered = replace(steering, coefficient=alpha)
        judged = judged_responses(llama, prompts, [None, steered], judge=Digits(), vocabulary=None, max_new_tokens=N)
        expected = [said(llama, prompts), said(llama, prompts, steered)]
        assert judged.expressed.tolist() == sum(expected, []) and set(expected[0]) == {prompts is NUMERIC}
        assert rates(judged, ["run"]).asr.tolist() == [np.logical_not(each).mean() for each in expected]


def test_pairs_of_a_second_concept(llama, steering):
    pairs = contrast_pairs(llama, NUMERIC, WORDY, steering, Digits(), **HOW)
    spelt = said(llama, NUMERIC, replace(steering, coefficient=-ALPHA))
    commanded = said(llama, [f"Say a number. {prompt}" for prompt in WORDY])
    kept = [5 - sum(spelt), sum(commanded)]
    assert kept == [5, 5] and pairs.signs == [-1] * 5 + [1] * 5
    assert [counts(winner.text) for winner in pairs.winners] == [False] * 5 + [True] * 5
    assert [counts(loser.text) for loser in pairs.losers] == [True] * 5 + [False] * 5
    assert pairs.prompts[0] == llama.tokenize("Dig here") and pairs.concept == COUNTING
    assert pairs.counts.to_dict("list") == {"prompts": ["numeric", "wordy"], "asked": [5, 7], "kept": kept,
                                            "loser_off": [0, 0], "winner_off": [0, 2], "both_off": [0, 0]}
    with pytest.raises(ValueError, match="all 5 pairs teach to spell and none to count: one vector needs both"):
        contrast_pairs(llama, NUMERIC, NUMERIC, steering, Digits(), **HOW)
    with pytest.raises(ValueError, match=r"signs \[2\] were given: \+1 \(count\) and -1 \(spell\) are allowed"):
        replace(pairs, signs=[2] * len(pairs))


def test_flipped_responses_of_a_second_concept(llama, steering):
    data = patching_data(llama, NUMERIC, WORDY, steering, Digits(), **HOW)
    ways = both_ways(steering, COUNTING)
    flip = {"numeric": [not one for one in said(llama, NUMERIC, ways["numeric"])],
            "wordy": said(llama, WORDY, ways["wordy"])}
    kept = {name: [i for i, one in enumerate(flips) if one] for name, flips in flip.items()}
    assert {name: len(each) for name, each in kept.items()} == {"numeric": 5, "wordy": 6}
    found = data.labels.groupby(["prompts", "response_from"], sort=False).prompt.agg(list)
    assert found.to_dict() == {(name, whose): each for name, each in kept.items() for whose in ("base", "steered")}
    assert [s.coefficient for s in data.steerings] == [COUNTING.signs[p] * ALPHA for p in data.labels.prompts]
    assert data.asked == {"numeric": 5, "wordy": 7} and data.counts.asked.tolist() == [5, 5, 7, 7]
    with pytest.raises(ValueError, match="no responses with prompts='harmful'.*: choose 'numeric' or 'wordy', 'base'"):
        data.subset("harmful")
    with pytest.raises(ValueError, match="flips none of the 7 numeric prompts: judged to count are 0 answers of the "
                                         "base model and . of the steered one"):
        patching_data(llama, WORDY, NUMERIC, steering, Digits(), **HOW)


def test_selection_of_a_second_concept(llama, candidates, steering):
    scores = score_candidates(llama, candidates, NUMERIC, WORDY, first_token_ids(llama, COUNTING.first_tokens))
    how = dict(judge=Digits(), vocabulary=None, **HOW)
    one = scores[(scores.layer == LAYER) & (scores.position == POSITION)]
    table = select_by_generation(llama, candidates, one, [ALPHA, 1.0], NUMERIC, WORDY, **how)
    assert list(table.columns) == ["layer", "position", "coefficient", "asr_numeric", "flipped_clean_numeric",
                                   "asr_wordy", "flipped_clean_wordy", "flipped", "flipped_clean"]
    best = table.iloc[0]
    assert best.coefficient == ALPHA and (best.asr_numeric, best.asr_wordy) == (1.0, pytest.approx(1 / 7))
    assert best.flipped == pytest.approx(6 / 7)
    # The same as tables, whose own columns do not count: which set a prompt is of is said by its place.
    tables = [pd.DataFrame({"prompt": each, "topic": "", "positive": True}) for each in (NUMERIC, WORDY)]
    vectors = {"dim": steering.vector}
    by_method = select_coefficient(llama, vectors, LAYER, [ALPHA, 1.0], *tables, **how)
    pd.testing.assert_frame_equal(by_method.drop(columns="method"), table.drop(columns=["layer", "position"]))


@pytest.mark.parametrize("wrong", ["steering", None, 4.0])
def test_a_steering_is_needed_where_both_ways_are(llama, wrong):
    for run in (contrast_pairs, patching_data):
        with pytest.raises(ValueError, match="steering is .*: give a Steering, which says the vector, the layer"):
            run(llama, NUMERIC, WORDY, wrong, Digits(), **HOW)


class Undecided:
    """A judge that answers neither yes nor no."""

    def expresses(self, responses, prompts=None):
        return ["perhaps"] * len(responses)


def test_a_judge_that_answers_neither_is_refused(llama, candidates, steering):
    shortlist = pd.DataFrame({"layer": [LAYER], "position": [POSITION]})
    how = dict(judge=Undecided(), vocabulary=None, **HOW)
    for run in (lambda: contrast_pairs(llama, NUMERIC, WORDY, steering, Undecided(), **HOW),
                lambda: patching_data(llama, NUMERIC, WORDY, steering, Undecided(), **HOW),
                lambda: select_by_generation(llama, candidates, shortlist, [1.0], NUMERIC, WORDY, **how)):
        with pytest.raises(ValueError, match="judge Undecided gave the verdict 'perhaps': verdicts are True .* False"):
            run()


# -- the record ----------------------------------------------------------------------------------------------

def test_an_unknown_concept_gets_the_nearest():
    assert get_concept("refusal") is REFUSAL and CONCEPTS["refusal"] is REFUSAL
    for given in ("refsal", ["refusal"], None):
        with pytest.raises(ValueError, match="unknown concept .*: choose one of refusal, language"):
            get_concept(given)
    with pytest.raises(ValueError, match=r"preset 'tiny' cannot be: concept = 'Refusals': unknown concept 'Refusals' "
                                         r"\(did you mean 'refusal'\?\)"):
        replace(PRESETS["tiny"], concept="Refusals")


@pytest.mark.parametrize("changes, message", [
    (dict(negative="numeric"), "concept 'counting' has the prompt set 'numeric' for both kinds"),
    (dict(judges=()), "concept 'counting' has no judges: give one"), (dict(first_tokens=()), "has no first_tokens"),
    (dict(instruction=""), "has no instruction"), (dict(name=""), "concept '' has no name"),
])
def test_a_concept_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(COUNTING, **changes)


def test_a_preset_takes_its_judge_and_first_tokens_from_its_concept(monkeypatch):
    monkeypatch.setitem(CONCEPTS, "counting", COUNTING)
    tiny = PRESETS["tiny"]
    assert (tiny.concept, tiny.judge) == ("refusal", "substring") and REFUSAL.first_tokens == ("I",)
    counting = replace(tiny, concept="counting", judge=None, first_tokens=None)
    assert (counting.judge, counting.first_tokens) == ("digits", None)
    with pytest.raises(ValueError, match="judge = 'substring': unknown judge 'substring': choose one of digits"):
        replace(tiny, concept="counting")
    with pytest.raises(ValueError, match="unknown judge 'digits': choose one of substring, chinese, not-knowing, llama-guard-2, or add it"):
        guard.load_judge(counting)
    monkeypatch.setitem(guard.JUDGES, "digits", Digits)
    assert isinstance(guard.load_judge(counting), Digits)


def test_every_judge_of_a_concept_can_be_made():
    assert {name for concept in CONCEPTS.values() for name in concept.judges} <= set(guard.JUDGES)


# -- prompts by concept --------------------------------------------------------------------------------------

def test_refusals_prompts_are_the_sets_by_name():
    for split in ("train", "validation", "test"):
        tables = concept_prompts(REFUSAL, split, 5)
        assert list(tables) == ["harmful", "harmless"]
        for name, table in tables.items():
            pd.testing.assert_frame_equal(table, load_prompts(name, split, 5))


@pytest.fixture
def sets(monkeypatch, tmp_path):
    """Write a concept's prompt sets, as files beside the others."""
    monkeypatch.setattr(paths, "PROMPTS", tmp_path)

    def write(**prompts):
        for name, texts in prompts.items():
            table = pd.DataFrame({"prompt": texts, "topic": "", "split": "test"})
            table.to_csv(tmp_path / f"{name}.csv", index=False)
    return write


def test_further_sets_are_files(sets):
    sets(numeric=NUMERIC, wordy=WORDY)
    tables = concept_prompts(COUNTING, "test", 4)
    assert [table.prompt.tolist() for table in tables.values()] == [NUMERIC[:4], WORDY[:4]]
    assert [set(table.positive) for table in tables.values()] == [{True}, {False}]
    assert [set(table.kind) for table in tables.values()] == [{"numeric"}, {"wordy"}]
    with pytest.raises(ValueError, match=r"unknown prompt set 'wrdy' \(did you mean 'wordy'\?\): .*numeric, wordy .source"):
        load_prompts("wrdy", "test")
    public = concept_prompts(COUNTING, "test", 4, source="public")  # its files are there whatever else is asked
    assert all(public[name].equals(table) for name, table in tables.items())
    with pytest.raises(ValueError, match="unknown prompt set 'borderline': choose one of harmful, harmless, second"):
        load_prompts("borderline", "test", source="public")


def test_sets_that_share_a_prompt_or_are_empty(sets):
    sets(numeric=[*NUMERIC, "hold it!", "Look  out."], wordy=WORDY)
    with pytest.raises(ValueError, match="'Hold it' stands in both prompt sets of 'counting', numeric/test and "
                                         "wordy/test: take it out of one"):
        concept_prompts(COUNTING, "test")
    sets(numeric=[*NUMERIC, "Hold it"], wordy=WORDY)
    both = pd.read_csv(paths.PROMPTS / "numeric.csv").assign(split=["test"] * len(NUMERIC) + ["train"])
    both.to_csv(paths.PROMPTS / "numeric.csv", index=False)
    with pytest.raises(ValueError, match="'Hold it' stands in both .*'counting', numeric/train and wordy/test: take"):
        concept_prompts(COUNTING, "test")
    sets(numeric=NUMERIC, wordy=[])
    with pytest.raises(ValueError, match=r"the prompt set wordy/test is empty \(source 'built-in'\): give it at least"):
        concept_prompts(COUNTING, "test", 3)


@pytest.mark.parametrize("field, given", [("first_tokens", "I"), ("judges", "substring"), ("first_tokens", (1,))])
def test_a_text_is_no_tuple_of_texts(field, given):
    with pytest.raises(ValueError, match=f"{field} of concept 'refusal' are {re.escape(repr(given))}: give a tuple"):
        replace(REFUSAL, **{field: given})


@pytest.mark.parametrize("content, message", [
    ("", "is empty: it needs the columns prompt, topic, split"),
    ("prompt,topic\nWho?,\n", "lacks the column 'split': it has prompt, topic"),
    ("prompt;topic;split\nWho?;;train\n", "lacks the column 'prompt'"),
    ("prompt,topic,split\nWho?,,dev\n", "has the split 'dev': allowed are train, validation, test"),
    ("prompt,topic,split\nSay who, and why?,who,train\n", "has rows of more fields than it has columns: put .* in quotes"),
    ("prompt,topic,split\nWho?,,train\nSay who, and why?,who,train\n", "is no table .*quotes"),
    ("prompt,topic,split\nWho?,,train\nwho?,,test\n", "has 'who\\?' twice: a prompt belongs to one split"),
    ("prompt,topic,split\nWho?,,train\n,,train\n", "has no prompt in row 3 of the file"),
    ("prompt,topic,split\n  ,,train\n", "has no prompt in row 2 of the file"),
    ("prompt,topic,split,positive\nWho?,,train,yes\n", "has 'yes' in the column 'positive': it takes True and False"),
    ("prompt,topic,split\nGrüße?,,train\n".encode("latin-1"), "is not UTF-8 .*save it as UTF-8"),
    ("prompt,topic,split\nWho?,,train\n".encode("utf-16"), "is not UTF-8 .*save it as UTF-8"),
])
def test_files_of_prompts_that_are_not_as_they_should_be(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(paths, "PROMPTS", tmp_path)
    (tmp_path / "mine.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"data/prompts/mine.csv.*({message})"):
        load_prompts("mine", "train")


def test_prompts_and_topics_may_be_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PROMPTS", tmp_path)
    (tmp_path / "mine.csv").write_text("prompt,topic,split\n12,5,train\n007,NA,train\n")
    found = load_prompts("mine", "train")
    assert found.prompt.tolist() == ["12", "007"] and found.topic.tolist() == ["5", "NA"]


def test_concepts_by_name_and_other_things_by_mistake():
    assert concept_prompts("refusal", "train", 4)["harmful"].equals(concept_prompts(REFUSAL, "train", 4)["harmful"])
    with pytest.raises(ValueError, match="unknown concept 'refusl' .did you mean 'refusal'"):
        concept_prompts("refusl", "train")
    with pytest.raises(ValueError, match="load_judge takes a preset, 'substring' was given"):
        load_judge("substring")


def test_a_judge_that_says_nothing():
    with pytest.raises(ValueError, match=r"judge SimpleNamespace gave nothing \(None\)"):
        verdicts(SimpleNamespace(expresses=lambda responses, prompts: None), ["a"])


@pytest.mark.parametrize("change, message", [
    ({"name": ""}, "the name '' and"), ({"name": "a/b"}, "the name 'a/b' and"), ({"label": ""}, "the label ''"),
    ({"colour": "nocolour"}, "the colour 'nocolour'"), ({"extract": None}, "by None: give a colour .* and a function"),
])
def test_methods_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        replace(METHODS["dim"], **change)


# -- the language of the answer ------------------------------------------------------------------------------

def test_the_languages_say_the_same_and_stand_in_one_split_each():
    both = language_sets()
    assert list(both) == ["english", "chinese"] == list(reversed(LANGUAGE.sets))
    assert both["english"].split.equals(both["chinese"].split) and not (both["english"].topic != "").any()
    for name, table in both.items():
        kept = pd.read_csv(paths.PROMPTS / f"{name}.csv", keep_default_na=False)
        pd.testing.assert_frame_equal(table, kept, check_dtype=False)  # what is committed is what the words make
        assert set(ScriptJudge(share=1.0).expresses(table.prompt.tolist())) == {name == "chinese"}
        frames = [set(table.prompt[table.split == split].str[-6:]) for split in ("train", "validation", "test")]
        assert all(map(len, frames)) and table.prompt.is_unique
    words = tomllib.loads((paths.DATA / "corpus" / "languages.toml").read_text("utf-8"))
    frames = [frame for split in words["frames"].values() for frame in split]
    for column in (0, 1):
        assert len({frame[column] for frame in frames}) == len(frames)
        assert len({topic[column] for topic in words["topics"]}) == len(words["topics"])


@pytest.mark.parametrize("source", ["built-in", "public"])
def test_the_languages_are_there_whatever_the_source(source):
    tables = concept_prompts(LANGUAGE, "validation", 3, source)
    assert list(tables) == ["chinese", "english"] and [len(table) for table in tables.values()] == [3, 3]
    assert tables["chinese"].positive.all() and not tables["english"].positive.any()


def test_sets_in_one_language_have_nothing_to_steer(llama):
    """The tiny model answers everything in Latin letters: what is found is told, and no number is made of it."""
    how = dict(concept=LANGUAGE, judge=ScriptJudge(), vocabulary=None, max_new_tokens=N)
    found = nothing_to_steer(unsteered_rates(llama, NUMERIC, WORDY, **how), LANGUAGE)
    assert found == ("unsteered, the model is judged to answer in Chinese 0 of 5 chinese prompts (95 % interval 0% to "
                     "43%), less than 25%: nothing to steer away from")
    rates = pd.DataFrame({"prompts": ["chinese", "english"], "n": 8, "expressed": [8, 8], "share": 1.0,
                          "share_low": 0.68, "share_high": 1.0})
    assert "8 of 8 english prompts" in nothing_to_steer(rates, LANGUAGE)
    assert "more than 75%: nothing to steer towards" in nothing_to_steer(rates, LANGUAGE)
