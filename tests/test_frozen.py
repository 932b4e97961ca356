"""Frozen generation against hooks and recomputing everything, identities of freezes, and the check of their effect."""

from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from plain_generation import plain_completion, plain_logits
from transformers import AutoModelForCausalLM

from steerpaper import steering as steering_module
from steerpaper.behaviour.judges import SubstringJudge
from steerpaper.behaviour.judging import judged_responses
from steerpaper.circuits.freezes import frozen_circuits
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.recovery import faithfulness_of
from steerpaper.freezing import FREEZES
from steerpaper.models.model import Model
from steerpaper.steering import Steering, generate
from test_runs import RESPONSES, steering_for
from test_steering import ROWS, completions, vector

N = 10  # every row ends up longer than Gemma 2's sliding window of 6
TWINS = ("qk", "q", "k", "ov", "qk+ov", "mlp-total", "residual-only")


@pytest.fixture(scope="session")
def eager(model, request):
    """The weights of `model` in Hugging Face alone, with attention that returns its weights."""
    folder = request.getfixturevalue(f"{model.family}_folder")
    how = dict(dtype=torch.float32, local_files_only=True, attn_implementation="eager")
    return AutoModelForCausalLM.from_pretrained(folder, **how).eval()


def mixed():
    """One entry per row of ROWS: layers, coefficients and vectors differ, one row is left alone."""
    return [Steering(vector(1), 1, 3.0), None, Steering(vector(2), 0, -2.0), Steering(vector(1), 1, -3.0),
            Steering(vector(3), 2, 4.0)]


def one_layer():
    """The same with one layer for all, so that subsets of layers suit every row."""
    return [one and Steering(one.vector, 1, one.coefficient) for one in mixed()]


def frozen(model, steering, kind, layers=None, rows=ROWS, **how):
    return completions(generate(model, rows, steering, kind, layers, max_new_tokens=N, **how))


def passes(model, monkeypatch):
    """The rows of every forward pass from now on, as a list that grows."""
    seen, trace = [], model.trace
    monkeypatch.setattr(model, "trace", lambda ids, *rest, **more: seen.append(len(ids)) or trace(ids, *rest, **more))
    return seen


# -- freezes as circuits ------------------------------------------------------------------------------------

def test_a_freeze_on_given_text_is_a_circuit(model, eager):
    pushes = [Steering(steering_for(model).vector, 1, alpha) for alpha in (1.0, -0.8, 0.6)]
    circuits = frozen_circuits(Graph.of(model, 1))
    assert list(circuits.index) == ["qk", "ov", "svv-before-norm", "mlp-before-norm", "mlp-total"]
    found = faithfulness_of(model, list(circuits), RESPONSES, pushes)
    seen = {}

    def at(push, kind, response, position):
        key = push and push.coefficient, kind, response, position
        tokens = [*RESPONSES[response].prompt, *RESPONSES[response].completion][:position + 1]
        return seen[key] if key in seen else seen.setdefault(key, plain_logits(eager, tokens, push, kind))

    for kind, result in zip(circuits.index, found):
        m = []
        for response, position in zip(result.table.response, result.table.position):
            push = pushes[response]
            chosen, usual = (at(one, None, response, position).argmax() for one in (push, None))
            logits = at(push, kind, response, position)
            m.append(float(logits[chosen] - logits[usual]))
        np.testing.assert_allclose(result.table.m_circuit, m, rtol=0, atol=1e-4)
        assert abs(result.value - 1) > 1e-3  # something is frozen


# -- what is computed -------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", FREEZES)
def test_equals_recomputing_everything(model, eager, kind, monkeypatch):
    logits, run = [], steering_module._last_logits
    monkeypatch.setattr(steering_module, "_last_logits", lambda *args, **cache: logits.append(run(*args, **cache))
                        or logits[-1])
    got = frozen(model, mixed(), kind)
    assert got == [plain_completion(eager, row, one, N, kind) for row, one in zip(ROWS, mixed())]
    unsteered = frozen(model, None, None)
    assert [a != b for a, b in zip(got, unsteered)] == [True, False, True, True, True]
    # The logits of the last step, so that what greedy choice hides is seen as well.
    order = sorted(range(5), key=lambda i: len(ROWS[i]))  # as rows share a batch
    steps = 2 + len(FREEZES[kind]) + N
    for i, row in zip(order, logits[steps - 1][-5:], strict=True):
        tokens = ROWS[i] + got[i][:-1]
        torch.testing.assert_close(row, plain_logits(eager, tokens, mixed()[i], kind), rtol=0, atol=5e-5)
        change = (row - plain_logits(eager, tokens, mixed()[i])).abs().max()
        assert (change < 5e-5) if i == 1 else (change > 1e-2)


@pytest.mark.parametrize("layers", [[1], [3], [1, 2]])
@pytest.mark.parametrize("kind", FREEZES)
def test_some_layers_equal_recomputing_everything(model, eager, kind, layers):
    rows, steerings = ROWS[:3], one_layer()[:3]
    expected = [plain_completion(eager, row, one, N, kind, layers) for row, one in zip(rows, steerings)]
    assert frozen(model, steerings, kind, layers, rows) == expected


@torch.no_grad()
def test_last_layer_with_its_attention_frozen_is_the_mlp_on_the_shifted_stream(model, plain):
    """Steering the last layer with queries, keys and values frozen leaves: logits(mid + alpha s + MLP(mid + alpha s))
    with mid the unsteered stream between attention and MLP."""
    one, last = Steering(vector(5), 3, 3.0), plain.model.layers[3]
    norm = last.pre_feedforward_layernorm if model.family == "gemma2" else last.post_attention_layernorm
    for row in ROWS:
        seen = []
        hook = norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))  # noqa: B023
        plain(input_ids=torch.tensor([row]), use_cache=False)
        hook.remove()
        mid = seen[0][0, -1:] + 3.0 * one.vector
        write = last.mlp(norm(mid))
        write = last.post_feedforward_layernorm(write) if model.family == "gemma2" else write
        expected = int(plain.lm_head(plain.model.norm(mid + write)).argmax())
        [response] = generate(model, [row], one, "qk+ov", max_new_tokens=1)
        assert response.completion == [expected]


# -- identities -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", FREEZES)
def test_coefficient_zero_is_a_no_op(model, kind):
    unsteered = frozen(model, None, None)
    assert frozen(model, Steering(vector(4), 1, 0.0), kind) == unsteered
    assert frozen(model, Steering(torch.zeros(32), 1), kind) == unsteered


@pytest.mark.parametrize("kind", ["qk", "ov", "svv", "mlp-before-norm", "residual-only"])
def test_batches_do_not_change_responses(model, kind):
    together = frozen(model, mixed(), kind)
    assert frozen(model, mixed(), kind, batch_size=2) == together
    alone = [completions(generate(model, [row], [one], one and kind, max_new_tokens=N))[0]
             for row, one in zip(ROWS, mixed())]
    assert alone == together


@pytest.mark.parametrize("kind", ["qk", "svv"])
def test_all_layers_by_name(model, kind):
    everywhere = frozen(model, one_layer(), kind)
    assert frozen(model, one_layer(), kind, range(1, 4)) == everywhere
    assert frozen(model, one_layer(), kind, {3, 1, 2}) == everywhere


@pytest.mark.parametrize("kind", [None, "qk+ov", "mlp"])
def test_rows_end_apart_and_leave_the_batch(model, kind, monkeypatch):
    full = frozen(model, mixed(), kind)

    def lengths(ends):
        return [next((i + 1 for i, token in enumerate(row) if token in ends), N) for row in full]
    ends = max(combinations(sorted({*sum(full, [])}), 2), key=lambda ends: len(set(lengths(ends))))
    assert len(set(lengths(ends))) > 2
    monkeypatch.setattr(model, "end_tokens", list(ends))
    seen = passes(model, monkeypatch)
    assert frozen(model, mixed(), kind) == [row[:length] for row, length in zip(full, lengths(ends))]
    decoding = seen[-max(lengths(ends)):]
    assert decoding[0] == len(ROWS)
    assert decoding == sorted(decoding, reverse=True) and decoding[-1] < decoding[0]


@pytest.mark.parametrize("kind", [None, *FREEZES])
def test_twins_part_where_steering_enters_and_never_reach_the_logits(model, kind):
    seen = {name: [] for name in ("below", "steered", "last", "head")}
    modules = [*(model.hf.model.layers[i] for i in (1, 2, 3)), model.hf.lm_head]
    hooks = [module.register_forward_hook(lambda _, __, written, own=own: own.append(len(written)))
             for module, own in zip(modules, seen.values())]
    frozen(model, Steering(vector(1), 2, 3.0), kind)
    for hook in hooks:
        hook.remove()
    n = len(ROWS)
    decoding = {name: set(rows[-N:]) for name, rows in seen.items()}
    twice = 2 * n if kind in TWINS else n
    assert decoding == {"below": {n}, "steered": {twice}, "last": {twice}, "head": {n}}


@pytest.mark.parametrize("kind", ["svv", "mlp", "mlp-before-norm", "qk"])
def test_the_direct_term_of_another_vector_is_taken_out(model, eager, kind):
    other = [one and replace(one, direct=2 * vector(5)) for one in mixed()]
    found = frozen(model, other, kind)
    assert found == [plain_completion(eager, row, one, N, kind) for row, one in zip(ROWS, other)]
    assert (found != frozen(model, mixed(), kind)) == (kind != "qk")
    assert frozen(model, other, None) == frozen(model, mixed(), None)


def test_another_vector_must_fit_the_model(llama):
    with pytest.raises(ValueError, match=r"a direct vector must have shape \(32,\), not \(31,\)"):
        generate(llama, ROWS[:1], Steering(vector(1), 1, 1.0, torch.ones(31)), "svv")


@pytest.mark.parametrize("kind", [None, "qk", "svv"])
def test_a_prompt_under_several_steerings_runs_once_below_them(model, eager, kind):
    rows, steerings = ROWS[:2] * 3, [one_layer()[4], *one_layer()]
    seen = [[] for _ in range(2)]
    hooks = [model.hf.model.layers[i].register_forward_hook(lambda _, __, written, own=own: own.append(len(written)))
             for i, own in enumerate(seen)]
    found = frozen(model, steerings, kind, rows=rows)
    for hook in hooks:
        hook.remove()
    assert found == [plain_completion(eager, row, one, N, kind) for row, one in zip(rows, steerings)]
    assert len({*map(tuple, found[::2])}) == 3
    assert seen[0][-N:] == [2] + [6] * (N - 1)
    assert set(seen[1][-N:]) == {12 if kind in TWINS else 6}


def test_decoding_stops_when_every_steered_row_has_ended(model, monkeypatch):
    one = Steering(vector(1), 1, 3.0)
    [full] = frozen(model, one, "ov", rows=ROWS[:1])
    first = full[4]
    monkeypatch.setattr(model, "end_tokens", [first])
    seen = passes(model, monkeypatch)
    [short] = frozen(model, one, "ov", rows=ROWS[:1])
    assert short == full[:full.index(first) + 1]
    assert len(seen) == 3 + len(short)  # three of the check: unsteered, steered, frozen


def test_judged_responses_pass_the_freeze_on(model):
    prompts = pd.DataFrame({"prompt": ["How?", "Why not?"], "topic": ["door", "door"]})
    one, how = Steering(vector(1), 1, 3.0), dict(max_new_tokens=N)
    table = judged_responses(
        model, prompts, [one, None], "ov", [2, 3], judge=SubstringJudge(), vocabulary={"door"}, **how)
    expected = generate(model, list(prompts.prompt) * 2, [one, one, None, None], "ov", [2, 3], **how)
    assert list(table.completion) == completions(expected)
    assert list(table.text) == [response.text for response in expected]
    assert list(table.completion[:2]) != completions(generate(model, list(prompts.prompt), one, **how))


# -- the check of the effect ------------------------------------------------------------------------------

@pytest.mark.parametrize("kind, handle, part", [
    ("qk", "q_proj", "q"), ("qk", "k_proj", "k"), ("q", "q_proj", "q"), ("k", "k_proj", "k"), ("ov", "v_proj", "v"),
    ("qk+ov", "v_proj", "v"), ("svv", "v_proj", "svv"), ("mlp", "mlp", "mlp"),
    ("mlp-before-norm", "mlp_norm", "mlp-before-norm"), ("mlp-total", "mlp_write", "mlp-write"),
    ("residual-only", "attention_write", "attention-write"),
])
def test_a_freeze_that_does_not_arrive_is_an_error(llama, monkeypatch, kind, handle, part):
    original = getattr(Model, handle)
    generate(llama, ROWS, mixed(), kind, max_new_tokens=1)

    def nowhere(self, layer):
        return SimpleNamespace(input=torch.zeros(2, 10, 32), output=torch.zeros(2, 10, 48),
                               _module=original(self, layer)._module)
    monkeypatch.setattr(Model, handle, nowhere)
    with pytest.raises(RuntimeError, match="has no effect") as error:
        generate(llama, ROWS[:1], mixed()[:1], kind, max_new_tokens=1)
    assert f"freezing {kind!r} in layers [1, 2, 3]" in str(error.value) and f"part {part!r} leaves" in str(error.value)


@pytest.mark.parametrize("kind", FREEZES)
@pytest.mark.parametrize("rows, steering", [
    (ROWS, Steering(vector(4), 1, 1e-12)),  # steering itself is lost in rounding
    ([[1]], Steering(vector(4), 1, 2.0)),  # one token attends to itself, whatever queries and keys are
    ([[7] * 5], Steering(vector(4), 1, 2.0)),  # equal values have one mean, whatever the weights are
])
def test_no_error_where_nothing_can_change(model, kind, rows, steering):
    assert len(frozen(model, steering, kind, rows=rows)) == len(rows)


# -- errors -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind, layers, steering, match", [
    ("kq", None, Steering(vector(1), 2),
     r"unknown freeze 'kq' \(did you mean 'q'\?\): choose one of qk, q, k, ov, qk\+ov, svv, "),
    ("", None, Steering(vector(1), 2), "unknown freeze ''"),
    ("qk", None, None, "freeze 'qk' without steering"),
    ("qk", None, [None] * 5, "freeze 'qk' without steering"),
    ("svv", [], Steering(vector(1), 2), r"frozen_layers \[\] was given for 'svv': choose at least one of 2\.\.3"),
    ("svv", [1, 2], Steering(vector(1), 2), r"frozen_layers \[1, 2\] .* at least one of 2\.\.3"),
    ("ov", [4], Steering(vector(1), 2), r"frozen_layers \[4\] .* at least one of 2\.\.3"),
    ("ov", [2.5], Steering(vector(1), 2), r"frozen_layers \[2\.5\]"),
    ("ov", [-1], Steering(vector(1), 2), r"frozen_layers \[-1\]"),
    ("ov", [2], [Steering(vector(1), 2), Steering(vector(1), 3), None, None, None], r"at least one of 3\.\.3"),
    (None, [2], Steering(vector(1), 2), "frozen_layers without frozen"),
    ("qk", None, Steering(vector(1), 4), r"steering layer 4 is outside 0\.\.3"),
])
def test_freezes_that_cannot_be(llama, kind, layers, steering, match):
    with pytest.raises(ValueError, match=match):
        frozen(llama, steering, kind, layers)


def test_context_limit_holds_for_frozen_rows(llama):
    with pytest.raises(ValueError, match="119 tokens and 10 new ones exceed the model's context of 128"):
        frozen(llama, Steering(vector(1), 2), "qk", rows=[[1] * 119])
