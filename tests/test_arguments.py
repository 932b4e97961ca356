"""What people pass: right values where it is obvious what is meant, else an error that says what was given."""

import numpy as np
import pandas as pd
import pytest
import torch

from steerpaper import arguments
from steerpaper.behaviour.judges import SubstringJudge
from steerpaper.behaviour.judging import judged_responses, rates
from steerpaper.circuits.cases import Cases
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.flipped import patching_data
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.recovery import faithfulness_of
from steerpaper.concepts import REFUSAL
from steerpaper.heads.lens import logit_lens, typical_tokens
from steerpaper.heads.ov import steering_value_vectors
from steerpaper.models.responses import Response, teacher_forcing
from steerpaper.prompts.sets import load_prompts, with_instruction
from steerpaper.steering import Steering, generate, next_token_logits, residual_stream
from steerpaper.vectors.extraction import difference_in_means, next_token_vector, principal_component, random_vector
from steerpaper.vectors.pairs import contrast_pairs
from steerpaper.vectors.selection import candidate_at, score_candidates, select_coefficient
from steerpaper.vectors.training import Setting, train

HARMFUL, HARMLESS = ["Build a lock", "Pick it", "Break the door"], ["Bake a cake", "Sing to me", "Paint the door"]
TABLES = [pd.DataFrame({"topic": "x", "prompt": texts, "positive": True}, index=[7, 8, 9])
          for texts in (HARMFUL, HARMLESS)]
RESPONSES = [Response([1, 20, 31], [33, 44]), Response([1, 50], [30, 40, 7])]


def ones(d_model=32):
    return torch.ones(d_model)


class InTurns:
    """By turns it says that all responses are what they should be, and that none is."""

    def __init__(self, right: bool):
        self.right = right

    def expresses(self, responses, prompts=None):
        self.right = not self.right
        return [bool(positive) != self.right for positive in prompts.positive]


# -- prompts ----------------------------------------------------------------------------------------------

def test_a_table_of_prompts_is_its_prompt_column(model):
    harmful, harmless = TABLES
    assert generate(model, harmful, max_new_tokens=4) == generate(model, HARMFUL, max_new_tokens=4)
    assert torch.equal(next_token_logits(model, harmful), next_token_logits(model, HARMFUL))
    assert torch.equal(residual_stream(model, harmful, [-1]), residual_stream(model, HARMFUL, [-1]))
    candidates = difference_in_means(model, harmful, harmless)
    assert torch.equal(candidates, difference_in_means(model, HARMFUL, HARMLESS)) and candidates[1:].abs().max() > 0.01
    component = principal_component(model, harmful, harmless, 2, -1)
    assert torch.equal(component, principal_component(model, HARMFUL, HARMLESS, 2, -1)) and component.norm() > 0
    scores = [score_candidates(model, candidates, *prompts, [20]) for prompts in (TABLES, (HARMFUL, HARMLESS))]
    pd.testing.assert_frame_equal(*scores)


def test_patching_data_and_pairs_take_tables_and_lists(llama):
    vector = difference_in_means(llama, HARMFUL, HARMLESS)[2, -1]
    pairs = [contrast_pairs(llama, *prompts, Steering(vector, 2), InTurns(False), max_new_tokens=5)
             for prompts in (TABLES, (HARMFUL, HARMLESS))]
    assert pairs[0].winners == pairs[1].winners and pairs[0].losers == pairs[1].losers and len(pairs[0]) == 6
    pd.testing.assert_frame_equal(pairs[0].counts, pairs[1].counts)
    data = [patching_data(llama, *prompts, Steering(vector, 2, 4.0), InTurns(True), max_new_tokens=5)
            for prompts in (TABLES, (HARMFUL, HARMLESS))]
    assert data[0].responses == data[1].responses and data[0].asked == {"harmful": 3, "harmless": 3}
    pd.testing.assert_frame_equal(data[0].labels, data[1].labels)


def test_ids_of_numpy_and_torch_and_any_order_of_prompts_are_taken(llama):
    expected = next_token_logits(llama, [[1, 20, 31], [1, 50, 51]])
    ids = torch.tensor([[1, 20, 31], [1, 50, 51]])
    for given in (ids, ids.numpy(), list(ids), [np.array([1, 20, 31]), (1, np.int32(50), torch.tensor(51))],
                  pd.Series([[1, 20, 31], [1, 50, 51]]), (row for row in ids)):
        assert torch.equal(next_token_logits(llama, given), expected)
    texts = ["Hi", "No"]
    assert torch.equal(next_token_logits(llama, pd.Series(texts, index=[5, 9])), next_token_logits(llama, texts))


@pytest.mark.parametrize("prompt, message", [
    ("a\udc80b", r"prompt 1 has '\\udc80' at character 1, half of a surrogate pair"),
    (None, r"prompt 1 is missing \(None\).*dropna"), (float("nan"), r"prompt 1 is missing \(nan\).*dropna"),
    (pd.NA, "prompt 1 is missing"), (np.float32("nan"), "prompt 1 is missing"),
    ({"role": "user", "content": "Hi"}, "prompt 1 is a chat message, .*'content': 'Hi'.*give the message's text"),
    ([{"role": "user", "content": "Hi"}], "prompt 1 is a chat message"),
    (b"Hi", "prompt 1 is bytes, b'Hi': a prompt is text or a list of token ids; decode"),
    ([1, True], "prompt 1 holds True of type bool: token ids are integers"),
    ([1, 2.0], "prompt 1 holds 2.0 of type float"),
    ([1, "2"], "prompt 1 holds '2' of type str"), (np.array([1.0]), "prompt 1 holds 1.0 of type float"),
    (torch.tensor([True]), "prompt 1 holds True of type bool"), ([[1]], r"prompt 1 holds \[1\] of type list"),
    (5, "prompt 1 is the number 5.*put it into brackets"), (2.5, "prompt 1 is 2.5 of type float"),
    ([1, 103], r"prompt 1 has token ids outside 0\.\.102"),
])
def test_a_prompt_that_is_none_is_named(llama, prompt, message):
    for run in (generate, next_token_logits, lambda model, prompts: residual_stream(model, prompts, [-1]),
                lambda model, prompts: difference_in_means(model, prompts, HARMLESS),
                lambda model, prompts: score_candidates(model, torch.ones(4, 1, 32), HARMFUL, prompts, [20])):
        with pytest.raises(ValueError, match=message):
            run(llama, ["Hi", prompt])


@pytest.mark.parametrize("prompts", [5, None, {"prompt": "Hi"}, {"Hi"}, b"Hi", "Hi", pd.DataFrame({"prompt": []})])
def test_what_is_no_list_of_prompts(llama, prompts):
    with pytest.raises(ValueError, match="prompts must be a list of at least one prompt, .* was given"):
        generate(llama, prompts)


def test_one_prompt_of_ids_alone_is_told_apart(llama):
    for prompts in ([1, 20, 31], torch.tensor([1, 20, 31])):
        with pytest.raises(ValueError, match="prompt 0 is the number 1: .* put it into brackets"):
            generate(llama, prompts)


def test_tables_without_the_columns(llama):
    table = pd.DataFrame({"goal": HARMFUL, "topic": "x"})
    with pytest.raises(ValueError, match="a table of prompts needs the column 'prompt'; this one has goal, topic"):
        difference_in_means(llama, table, HARMLESS)
    how = dict(judge=SubstringJudge(), vocabulary=None)
    for prompts, message in ((table, "needs the column 'prompt'"), (TABLES[0].drop(columns="topic"), "column 'topic'")):
        with pytest.raises(ValueError, match=message):
            judged_responses(llama, prompts, [None], **how)
    with pytest.raises(ValueError, match="needs the column 'prompt'; this one has goal, topic"):
        with_instruction(table, REFUSAL)


def test_judged_prompts_and_commands_may_be_a_list_without_topics(llama):
    how = dict(judge=SubstringJudge(("r",)), vocabulary={"song"}, max_new_tokens=4)
    listed, table = (judged_responses(llama, given, [None, Steering(ones(), 2)], **how)
                     for given in ((prompt for prompt in HARMFUL), TABLES[0].assign(topic="")))
    pd.testing.assert_frame_equal(listed, table[listed.columns])
    assert listed.on_topic.isna().all() and not listed.known_words.isna().any() and listed.expressed.nunique() == 2
    for given in (HARMFUL, TABLES[0], (prompt for prompt in HARMFUL)):
        commanded = with_instruction(given, REFUSAL)
        assert commanded.prompt.tolist() == [f"{REFUSAL.instruction} {prompt}" for prompt in HARMFUL]
        assert commanded.positive.all()
    for given, message in (([], "at least one prompt"), ([[1, 2]], r"prompts \[0\] are token ids: text is needed")):
        with pytest.raises(ValueError, match=message):
            with_instruction(given, REFUSAL)


def test_an_empty_topic_as_pandas_reads_it_is_not_checked(llama):
    asked = TABLES[0].assign(topic=[np.nan, "", "door"])
    judged = judged_responses(llama, asked, [None], judge=SubstringJudge(), vocabulary=None, max_new_tokens=3)
    assert judged.on_topic.isna().tolist() == [True, True, False]


# -- collections, numbers ---------------------------------------------------------------------------------

@pytest.mark.parametrize("given", ["As", b"As", {"As": 1}, pd.DataFrame({"As": []}), 7, None])
def test_a_collection_is_not_one_string(given):
    with pytest.raises(ValueError, match="words must be a list, .* of type .* was given: put one alone into brackets"):
        arguments.listed("words", given)
    assert arguments.listed("words", (word for word in ("As", "I"))) == ["As", "I"]


def test_strings_are_some_and_not_empty():
    assert arguments.strings("words", np.array(["As", "I"])) == ["As", "I"]
    for given, message in (([], "words are empty"), (["a", ""], "'' is none"), (["a", 7], "7 is none")):
        with pytest.raises(ValueError, match=message):
            arguments.strings("words", given)


@pytest.mark.parametrize("given", [3, np.int64(3), torch.tensor(3), np.uint8(3)])
def test_whole_numbers(given):
    found = arguments.integer("size", given, 1, 3)
    assert found == 3 and type(found) is int


@pytest.mark.parametrize("given", [True, 2.0, "2", None, np.bool_(True), torch.tensor(True), np.float64(2), [2]])
def test_what_is_no_whole_number(given):
    with pytest.raises(ValueError, match=r"size .* is outside 1\.\.3; it must be an integer, this is of type "):
        arguments.integer("size", given, 1, 3)
    with pytest.raises(ValueError, match="size must be at least 1, .* was given; it must be an integer"):
        arguments.integer("size", given, 1)


@pytest.mark.parametrize("given", [1.5, np.float32(1.5), torch.tensor(1.5), np.array(1.5)])
def test_numbers(given):
    found = arguments.number("rate", given)
    assert found == 1.5 and type(found) is float


@pytest.mark.parametrize("given", [True, "1.5", None, 1j, [1.5], torch.tensor([1.5]), np.bool_(True)])
def test_what_is_no_number(given):
    with pytest.raises(ValueError, match="rate must be a number, .* was given"):
        arguments.number("rate", given)


# -- steerings, layers, sizes -----------------------------------------------------------------------------

@pytest.mark.parametrize("steering, message", [
    (Steering(ones(), True), r"steering layer True is outside 0\.\.3; it must be an integer, this is of type bool"),
    (Steering(ones(), 2.0), r"steering layer 2.0 is outside 0\.\.3; it must be an integer"),
    (Steering(ones(), "2"), r"steering layer '2' is outside"),
    (Steering(ones(), 2, "1.0"), "the steering coefficient must be a number, '1.0' of type str"),
    (Steering(ones(), 2, True), "the steering coefficient must be a number, True"),
    (Steering(ones(), 2, 1j), "the steering coefficient must be a number"),
    (Steering(ones() * 1j, 2), "the steering vector is of torch.complex64: give a tensor of real numbers"),
    (Steering(ones().bool(), 2), "the steering vector is of torch.bool"),
    (Steering("up", 2), "the steering vector is 'up': give a tensor of real numbers"),
    ("up", "steering must be a list, 'up' of type str"), ([ones()] * 2, "give a Steering, which says the vector"),
])
def test_steerings_that_are_none(llama, steering, message):
    for run in (lambda: generate(llama, ["Hi", "No"], steering),
                lambda: next_token_logits(llama, ["Hi", "No"], steering),
                lambda: Cases.of(llama, RESPONSES, steering)):
        with pytest.raises(ValueError, match=message):
            run()


def test_numbers_of_numpy_and_torch_steer_as_pythons_do(model):
    expected = next_token_logits(model, ["Hi"], Steering(ones(), 2, 1.5))
    assert not torch.equal(expected, next_token_logits(model, ["Hi"]))
    for layer, coefficient, vector in ((np.int64(2), np.float32(1.5), ones().numpy()),
                                       (torch.tensor(2), torch.tensor(1.5), [1.0] * 32)):
        assert torch.equal(next_token_logits(model, ["Hi"], Steering(vector, layer, coefficient)), expected)


def test_positions_may_come_from_a_generator(model):
    expected = residual_stream(model, ["Hi"], [-2, -1])
    assert torch.equal(residual_stream(model, ["Hi"], (p for p in (-2, -1))), expected) and expected.shape[2] == 2
    for positions, message in (([], "positions are empty"), (-1, "positions must be a list, -1"),
                               ([True], r"\[True\] are outside")):
        with pytest.raises(ValueError, match=message):
            residual_stream(model, ["Hi"], positions)


def impossible(llama):
    grid, table = Graph(4, 4, 2, 1), pd.DataFrame({"layer": [1], "position": [-1]})
    pairs, scores = None, np.where(grid.mask, 1.0, np.nan)
    one = Steering(ones(), 1)
    return [
        (lambda: generate(llama, ["Hi"], max_new_tokens="4"),
         "max_new_tokens must be at least 1, '4' was given; it must be"),
        (lambda: generate(llama, ["Hi"], batch_size=2.0), "batch_size must be at least 1, 2.0 was given; it must be"),
        (lambda: generate(llama, ["Hi"], one, "qk", "2"), "frozen_layers must be a list, '2'"),
        (lambda: generate(llama, ["Hi"], one, "qk", [True]), r"frozen_layers \[True\] was given"),
        (lambda: generate(llama, ["Hi"], one, "kv"), "unknown freeze 'kv'.*choose one of qk, "),
        (lambda: principal_component(llama, HARMFUL, HARMLESS, True, -1), "layer True is outside"),
        (lambda: candidate_at(table, True, -1), "layer True, position -1 was given, but candidates stand at"),
        (lambda: random_vector(ones(), "abc"), "seed must be at least 0, 'abc' was given; it must be"),
        (lambda: random_vector(ones() * torch.nan, 1), "vector has values that are not finite"),
        (lambda: steering_value_vectors(llama, ones(), True), "steering layer True is outside"),
        (lambda: Graph(4.0, 4, 2, 1), "n_layers must be an integer, 4.0 was given"),
        (lambda: Graph(4, 4, 2, True), "steering_layer must be an integer, True was given"),
        (lambda: grid.index([("steer", "m1")]), "edges need the columns source and target"),
        (lambda: Circuit.random(grid, 7.0, 0), "a circuit of 7.0 edges was asked for"),
        (lambda: faithfulness_of(llama, Circuit(grid, grid.mask), RESPONSES, one), "circuits must be a list"),
        (lambda: load_prompts("harmful", "test", "5"), "asked for '5' prompts of harmful/test: choose 1 to 240"),
        (lambda: load_prompts("harmful", "test", 2.5), "asked for 2.5 prompts"),
        (lambda: Setting("ntp", "6"), "batch size and seed must be integers, not '6' and 42"),
        (lambda: Setting("ntp", 6, "0.1"), "learning rate must be a number, '0.1'"),
        (lambda: Setting("ntp", 6, float("inf")), "learning rate must be finite, inf"),
        (lambda: Setting("po", 6, 0.1, 1, "0.5"), "phi must be a number, '0.5'"),
        (lambda: Setting("npt"), r"unknown method 'npt' \(did you mean 'ntp'\?\): choose one of ntp, po"),
        (lambda: train(llama, pairs, pairs, 2.0, [Setting("ntp")]), r"layer 2.0 is outside 0\.\.3"),
        (lambda: train(llama, pairs, pairs, 1, Setting("ntp")), "settings must be a list, Setting"),
        (lambda: train(llama, pairs, pairs, 1, [Setting("ntp")], coefficients=[1.0]), r"unknown coefficients \[1.0\]"),
        (lambda: train(llama, pairs, pairs, 1, [Setting("ntp")], epochs="3"), "must be positive, not 3"),
        (lambda: next_token_vector(llama, pairs, pairs, one, learning_rates=0.1), "learning_rates must be a list, 0.1"),
        (lambda: next_token_vector(llama, pairs, pairs, one, batch_sizes="6"), "batch_sizes must be a list, '6'"),
        (lambda: select_coefficient(llama, [ones()], 1, [1.0], *TABLES, judge=None, vocabulary=None),
         "vectors must be a mapping"),
        (lambda: logit_lens(llama, ones()), "vectors must be a mapping from names to vectors"),
        (lambda: logit_lens(llama, {"s": ones()}, 2.0), "1 vectors and k = 2.0 were given"),
        (lambda: logit_lens(llama, {"s": ones() * 1j}), "vector 's' is of torch.complex64"),
        (lambda: typical_tokens(llama, "abc", ["d"]), "texts must be a list, 'abc'"),
        (lambda: typical_tokens(llama, TABLES[0], ["d"]), "texts must be a list"),
        (lambda: typical_tokens(llama, ["a", None], ["d"]), "texts must be strings, None is none"),
        (lambda: rates(pd.DataFrame({"p": [1]}), "p"), "by must be a list, 'p'"),
        (lambda: rates(pd.DataFrame({"p": [1]}), ["p"]), "of a table with the columns p: it needs prompt, expressed and"),
        (lambda: rates(pd.DataFrame({"p": [1]}), []), "rates by no column were asked for"),
        (lambda: generate("organism-llama", HARMFUL), "'organism-llama' of type str is no model: give a Model"),
        (lambda: difference_in_means("organism-llama", HARMFUL, HARMLESS), "is no model: give a Model"),
        (lambda: score_candidates(llama, torch.ones(4, 32), HARMFUL, HARMLESS, [20]), r"of shape \(4, 32\) were given"),
        (lambda: faithfulness_of(llama, ["x"], RESPONSES, one), "'x' of type str is no circuit"),
        (lambda: judged_responses(llama, TABLES[0], [None], judge=SubstringJudge(), vocabulary="song"),
         "vocabulary must be"),
        (lambda: judged_responses(llama, TABLES[0], one, judge=SubstringJudge(), vocabulary=None),
         "steerings must be a list"),
    ]


@pytest.mark.parametrize("case", range(44))
def test_impossible_arguments(llama, case):
    call, message = impossible(llama)[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_every_impossible_case_is_tried(llama):
    assert len(impossible(llama)) == 44


# -- responses --------------------------------------------------------------------------------------------

def test_responses_hold_plain_ids():
    expected = Response([1, 20], [33, 44])
    for prompt, completion in ((np.array([1, 20]), torch.tensor([33, 44])), ((1, np.int64(20)), (33, 44))):
        response = Response(prompt, completion)
        assert response == expected and set(map(type, response.tokens)) == {int}
    for prompt, message in (("Hi", "prompt must be a list, 'Hi'"), ([1, 2.0], "prompt holds 2.0 of type float: token"),
                            ([True], "prompt holds True"), (None, "prompt must be a list, None"),
                            (b"a", "prompt must be")):
        with pytest.raises(ValueError, match=message):
            Response(prompt, [3])
        with pytest.raises(ValueError, match=message.replace("prompt", "completion")):
            Response([3], prompt)


@pytest.mark.parametrize("responses, message", [
    ([RESPONSES[0], Response([1, 2], [3, 103])], r"response 1 has token ids outside 0\.\.102"),
    ([RESPONSES[0], Response([-1, 2], [3])], r"response 1 has token ids outside 0\.\.102"),
    (["Hi"], "response 0 is 'Hi' of type str: give Response"), ("Hi", "responses must be a list, 'Hi'"),
    (RESPONSES[0], "responses must be a list, Response"), (pd.DataFrame({"text": ["Hi"]}), "responses must be a list"),
])
def test_responses_that_are_none(llama, responses, message):
    for run in (lambda: teacher_forcing(llama, responses), lambda: Cases.of(llama, responses, Steering(ones(), 1))):
        with pytest.raises(ValueError, match=message):
            run()
