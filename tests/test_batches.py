"""Batches of like length, and smaller ones where memory runs out: the results are those of enough memory."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.recovery import faithfulness
from steerpaper.circuits.patching import patch_edges
from steerpaper.heads.ov import decompose_heads, mlp_value_vectors
from steerpaper.heads.patterns import attention_change
from steerpaper.models import batches
from steerpaper.models.batches import in_batches
from steerpaper.models.model import Model, load_model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering, generate, next_token_logits, residual_stream
from steerpaper.vectors.pairs import ContrastPairs
from steerpaper.vectors.training import Setting, train

PROMPTS = [[1, 20, 31, 45, 60], [1, 50, 51], [1, 9, 80, 81, 82, 83], [1, 66, 41, 19], [1, 14, 15, 16, 17, 18, 92]]
RESPONSES = [Response(row[:2], row[2:] + [40 + i, 70, 33]) for i, row in enumerate(PROMPTS)]


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """What ran out of memory in one test is tried again in the next."""
    monkeypatch.setattr(batches, "_ROWS_LEFT", {})


@pytest.fixture
def small(monkeypatch):
    """A tiny Llama of its own, and how to leave memory for only so many rows in its third layer."""
    model = Model(tiny_model("llama"), tiny_tokenizer())
    layer, tried = model.hf.model.layers[2], []
    forward = layer.forward

    def shrink(rows: int) -> list[int]:
        def limited(stream, *args, **kwargs):
            tried.append(len(stream))
            if len(stream) > rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 EiB")
            return forward(stream, *args, **kwargs)
        monkeypatch.setattr(layer, "forward", limited)
        return tried

    return model, shrink


def steering(coefficient=1.0):
    return Steering(torch.randn(32, generator=torch.Generator().manual_seed(1)), 1, coefficient)


# -- in_batches -------------------------------------------------------------------------------------------

def test_batches_hold_like_lengths_and_leave_out_what_is_done():
    lengths = [5, 2, 9, 2, 7]
    assert [batch for batch, _ in in_batches(lengths, 2, "x", len)] == [[1, 3], [0, 4], [2]]
    assert list(in_batches(lengths, 2, "x", sum, done=2)) == [([0, 4], 4), ([2], 2)]
    assert list(in_batches(lengths, 2, "x", sum, done=5)) == []


def test_half_as_many_rows_after_memory_ran_out_also_in_later_calls():
    tried = []

    def compute(batch):
        tried.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("full")
        return sum(batch)

    with (pytest.warns(UserWarning, match=r"out of memory with 8 rows \(x\): going on with 4"),
          pytest.warns(UserWarning, match="with 4 rows .* going on with 2")):
        assert [batch for batch, _ in in_batches([1] * 9, 8, "x", compute)] == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
    assert tried == [8, 4, 2, 2, 2, 2, 1]
    assert len(list(in_batches([1] * 4, 8, "x", compute))) == 2, "the limit is remembered"
    with pytest.warns(UserWarning):
        assert len(list(in_batches([1] * 4, 8, "y", compute))) == 2, "for this kind of work only"
    assert tried[7:] == [2, 2, 4, 2, 2]


def test_failed_pass_is_let_go_before_the_next():
    class Held:
        alive = 0

        def __init__(self):
            Held.alive += 1
            self.itself = self  # as in a graph of modules: only the garbage collector finds it

        def __del__(self):
            Held.alive -= 1

    def compute(batch):
        assert Held.alive == 0
        held = Held()
        if len(batch) > 1:
            raise torch.OutOfMemoryError("full")
        del held.itself

    with pytest.warns(UserWarning):
        assert len(list(in_batches([1, 1], 2, "x", compute))) == 2


def test_one_row_too_many_says_which_settings_to_lower(small):
    model, shrink = small
    shrink(0)
    with (pytest.warns(UserWarning),
          pytest.raises(torch.OutOfMemoryError, match="'generate' for a single row of .*max_new_tokens.*bfloat16")):
        generate(model, PROMPTS, max_new_tokens=3)


def test_weights_that_do_not_fit_say_so(llama_folder, monkeypatch):
    def full(self, device):
        raise torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(torch.OutOfMemoryError, match="0.0 GiB in torch.float32 and do not fit on cpu.*bfloat16"):
        load_model(llama_folder, device="cpu")


def test_other_errors_and_batch_sizes_below_one_are_not_swallowed():
    with pytest.raises(ValueError, match="batch_size must be at least 1, 0"):
        list(in_batches([1], 0, "x", len))
    with pytest.raises(ZeroDivisionError):
        list(in_batches([1, 1], 2, "x", lambda batch: 1 / 0))


# -- what runs in batches ---------------------------------------------------------------------------------

def pairs(model):
    counts = pd.DataFrame({"prompts": ["any"], "asked": [4]})
    losers = [Response(r.prompt, r.completion[::-1]) for r in RESPONSES[:4]]
    return ContrastPairs(RESPONSES[:4], losers, [1, -1, 1, -1], counts)


def trained(model):
    result = train(model, pairs(model), pairs(model), 1, [Setting("po", 3, phi=0.1)], epochs=1)
    return result.vectors, result.curves[["training_loss", "validation_loss"]].to_numpy()


def faithful(model):
    graph = attribute(model, RESPONSES, steering(), steps=1).graph
    return [faithfulness(model, Circuit.random(graph, 60, 0), RESPONSES, steering()).table.to_numpy()]


def patched(model):
    attribution = attribute(model, RESPONSES, steering(), steps=2)
    edges = attribution.edges.iloc[::40]
    return attribution.scores, patch_edges(model, RESPONSES, steering(), edges).score.to_numpy()


CASES = {
    "frozen": lambda model: [r.completion for r in generate(model, PROMPTS, steering(), "qk", max_new_tokens=3)],
    "next token": lambda model: [next_token_logits(model, PROMPTS, steering())],
    "residual stream": lambda model: [residual_stream(model, PROMPTS, [-1])],
    "patched": patched,
    "faithfulness": faithful,
    "heads": lambda model: [decompose_heads(model, RESPONSES, steering()).coefficient.to_numpy()],
    "mlps": lambda model: list(mlp_value_vectors(model, RESPONSES, steering().vector, 1)),
    "attention": lambda model: [attention_change(model, RESPONSES, steering()).to_numpy()],
    "training": trained,
}


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("case", CASES)
def test_too_little_memory_changes_nothing_but_rounding(small, case):
    model, shrink = small
    whole = CASES[case](model)
    tried = shrink(2)
    halved = CASES[case](model)
    assert max(tried) > 2, "memory ran out"
    for one, other in zip(whole, halved, strict=True):
        np.testing.assert_allclose(np.asarray(other), np.asarray(one), rtol=2e-4, atol=2e-5)
