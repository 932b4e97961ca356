"""Steering, ablation and reads against ordinary hooks on Hugging Face's model and a loop without a cache."""

from contextlib import ExitStack

import pytest
import torch

from steerpaper.behaviour.judging import next_token_kl
from steerpaper.steering import Steering, generate, next_token_logits, residual_stream

# Unequal lengths; all but one longer than Gemma 2's sliding window of 6.
ROWS = [
    [1, 20, 31, 45, 60, 22, 23, 90, 17, 33], [1, 50, 51], [1, 9, 80, 81, 82, 83, 7, 61, 12, 70, 44, 30],
    [1, 66, 41, 19, 28, 57, 88], [1, 14, 15, 16, 17, 18, 92, 93],
]
N = 12


def vector(seed, d_model=32):
    return torch.randn(d_model, generator=torch.Generator().manual_seed(seed))


def mixed():
    """One entry per row of ROWS: layers, coefficients and vectors differ, one row is left alone."""
    return [Steering(vector(1), 2, 1.5), None, Steering(vector(2), 0, -1.0), Steering(vector(1), 2, -2.0),
            Steering(vector(3), 3, 2.0)]


def projected(h, direction):
    direction = direction / direction.norm()
    return h - torch.outer(h.flatten(0, -2) @ direction, direction).view(h.shape)


@torch.no_grad()
def reference_logits(plain, row, steering=None, ablation=None):
    """All logits of one unpadded row, by hooks: `plain` is a Hugging Face model that nnsight never saw."""
    gemma2 = plain.config.model_type == "gemma2"
    with ExitStack() as hooks:
        for i, layer in enumerate(plain.model.layers):
            def enter(module, args, i=i):
                h = args[0]
                if steering is not None and i == steering.layer:
                    h = h + steering.coefficient * steering.vector
                return (h if ablation is None else projected(h, ablation), *args[1:])
            hooks.callback(layer.register_forward_pre_hook(enter).remove)
            if ablation is not None:
                writes = (layer.post_attention_layernorm, layer.post_feedforward_layernorm) if gemma2 else (
                    layer.self_attn.o_proj, layer.mlp)
                for write in writes:
                    handle = write.register_forward_hook(lambda module, args, out: projected(out, ablation))
                    hooks.callback(handle.remove)
        return plain(input_ids=torch.tensor([row]), use_cache=False).logits[0]


def reference_completion(plain, row, steering=None, n=N):
    """Greedy without a cache: every step runs the whole sequence again."""
    tokens = list(row)
    for _ in range(n):
        tokens.append(int(reference_logits(plain, tokens, steering)[-1].argmax()))
        if tokens[-1] == plain.config.eos_token_id:
            break
    return tokens[len(row):]


def completions(responses):
    return [response.completion for response in responses]


# -- generate ---------------------------------------------------------------------------------------------

def test_generation_equals_recomputing_everything(model, plain):
    steered = completions(generate(model, ROWS, mixed(), max_new_tokens=N))
    assert steered == [reference_completion(plain, row, one) for row, one in zip(ROWS, mixed())]
    unsteered = completions(generate(model, ROWS, max_new_tokens=N))
    assert unsteered == [reference_completion(plain, row) for row in ROWS]
    assert [a != b for a, b in zip(steered, unsteered)] == [True, False, True, True, True]
    assert len({tuple(row) for row in unsteered}) == len(ROWS)


def test_steering_acts_on_generated_positions_too(model, plain):
    one = Steering(vector(1), 2, 1.5)
    [response] = generate(model, [ROWS[0]], one, max_new_tokens=N)
    first = reference_completion(plain, ROWS[0], one, n=1)
    only_prompt_steered = first + reference_completion(plain, ROWS[0] + first, None, n=N - 1)
    assert response.completion != only_prompt_steered


def test_batches_do_not_change_responses(model):
    together = generate(model, ROWS, mixed(), max_new_tokens=N)
    assert generate(model, ROWS, mixed(), max_new_tokens=N, batch_size=2) == together
    alone = [generate(model, [row], [one], max_new_tokens=N)[0] for row, one in zip(ROWS, mixed())]
    assert alone == together


def test_one_steering_serves_all_prompts(model):
    one = Steering(vector(4), 1, 2.0)
    assert generate(model, ROWS, one, max_new_tokens=4) == generate(model, ROWS, [one] * 5, max_new_tokens=4)


def test_zero_coefficient_changes_nothing(model):
    zero = Steering(vector(4), 1, 0.0)
    assert generate(model, ROWS, zero, max_new_tokens=N) == generate(model, ROWS, max_new_tokens=N)


def test_strings_go_through_the_chat_template(model):
    [response] = generate(model, ["Hi you"], max_new_tokens=5)
    assert response.prompt == model.tokenize("Hi you")
    assert response == generate(model, [model.tokenize("Hi you")], max_new_tokens=5)[0]


def test_completion_ends_with_the_first_end_token(model, monkeypatch):
    full = generate(model, ROWS, mixed(), max_new_tokens=N)
    end = full[0].completion[3]
    monkeypatch.setattr(model, "end_tokens", [end])
    for long, short in zip(full, generate(model, ROWS, mixed(), max_new_tokens=N), strict=True):
        length = long.completion.index(end) + 1 if end in long.completion else N
        assert short.completion == long.completion[:length]


def test_decoding_stops_when_every_row_has_ended(model, monkeypatch):
    [full] = generate(model, [ROWS[0]], max_new_tokens=N)
    monkeypatch.setattr(model, "end_tokens", [full.completion[0]])
    passes = []
    trace = model.trace
    monkeypatch.setattr(model, "trace", lambda *args, **kwargs: passes.append(1) or trace(*args, **kwargs))
    [short] = generate(model, [ROWS[0]], max_new_tokens=N)
    assert short.completion == full.completion[:1] and len(passes) == 1


def test_text_leaves_special_tokens_out(model, monkeypatch):
    monkeypatch.setattr("steerpaper.steering._decode", lambda *args: [[60, 61, 4, 2]])
    [response] = generate(model, [[1, 2]])
    assert response.completion == [60, 61, 4, 2]
    assert response.text == model.tokenizer.decode([60, 61]) and len(response.text) == 2


# -- next_token_logits and ablation -----------------------------------------------------------------------

def test_next_token_logits_under_steering(model, plain):
    logits, unsteered = next_token_logits(model, ROWS, mixed(), batch_size=2), next_token_logits(model, ROWS)
    expected = [reference_logits(plain, row, one)[-1] for row, one in zip(ROWS, mixed())]
    torch.testing.assert_close(logits, torch.stack(expected), rtol=0, atol=2e-5)
    assert logits.dtype == torch.float32
    assert ((logits - unsteered).abs().amax(1) > 0.1).tolist() == [True, False, True, True, True]


def test_ablation_equals_hooks_per_row(model, plain):
    directions = torch.stack([vector(10 + i) for i in range(len(ROWS))])
    logits = next_token_logits(model, ROWS, ablation=directions, batch_size=2)
    expected = [reference_logits(plain, row, None, direction)[-1] for row, direction in zip(ROWS, directions)]
    torch.testing.assert_close(logits, torch.stack(expected), rtol=0, atol=2e-5)
    assert (logits - next_token_logits(model, ROWS)).abs().amax(1).min() > 0.05
    shared = next_token_logits(model, ROWS, ablation=3 * directions[0])
    torch.testing.assert_close(shared[0], logits[0], rtol=0, atol=2e-5)
    assert (shared[1:] - logits[1:]).abs().amax(1).min() > 0.05


def test_ablation_comes_after_steering(model, plain):
    one, direction = Steering(vector(1), 2, 1.5), vector(11)
    logits = next_token_logits(model, ROWS[:1], one, direction)
    expected = reference_logits(plain, ROWS[0], one, direction)[-1]
    torch.testing.assert_close(logits[0], expected, rtol=0, atol=2e-5)
    along = next_token_logits(model, ROWS, Steering(direction, 2, 5.0), direction)
    torch.testing.assert_close(along, next_token_logits(model, ROWS, None, direction), rtol=0, atol=2e-5)


# -- residual_stream --------------------------------------------------------------------------------------

@torch.no_grad()
def test_residual_stream_equals_hidden_states(model, plain):
    positions = [-3, -1, -2]
    streams = residual_stream(model, ROWS, positions, batch_size=2)
    assert streams.shape == (5, 4, 3, 32) and streams.dtype == torch.float32
    for row, stream in zip(ROWS, streams):
        hidden = plain(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
        for layer in range(4):
            torch.testing.assert_close(stream[layer], hidden[layer][0, positions], rtol=0, atol=2e-5)


# -- errors -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("steering, match", [
    (Steering(vector(0), 4), r"steering layer 4 is outside 0\.\.3"),
    (Steering(vector(0), -1), r"steering layer -1 is outside 0\.\.3"),
    (Steering(vector(0), 1.5), r"steering layer 1.5 is outside 0\.\.3"),
    (Steering(vector(0, 31), 1), r"must have shape \(32,\), not \(31,\)"),
    (Steering(vector(0)[None], 1), r"must have shape \(32,\), not \(1, 32\)"),
    (Steering(vector(0) / 0, 1), "values that are not finite"),
    (Steering(vector(0) * torch.nan, 1), "values that are not finite"),
    (Steering(vector(0), 1, float("nan")), "coefficient must be finite, nan was given"),
    ([None] * 4, "4 steerings for 5 prompts"),
])
def test_steering_that_does_not_fit(llama, steering, match):
    for run in (generate, next_token_logits):
        with pytest.raises(ValueError, match=match):
            run(llama, ROWS, steering)


@pytest.mark.parametrize("prompts, match", [
    ([], r"at least one prompt, \[\] was given"),
    ("Hi", "must be a list of at least one prompt, 'Hi' was given"),
    (["Hi", ""], r"prompts \[1\] are empty"),
    ([[1], []], r"prompts \[1\] are empty"),
    ([[1, 103]], r"prompt 0 has token ids outside 0\.\.102"),
    ([[1, -1]], "prompt 0 has token ids outside"),
    ([[1], [1] * 129], "prompt 1 has 129 tokens, the model's context 128"),
])
def test_bad_prompts(llama, prompts, match):
    for run in (generate, next_token_logits, lambda model, prompts: residual_stream(model, prompts, [-1])):
        with pytest.raises(ValueError, match=match):
            run(llama, prompts)


def test_context_batch_size_and_length_limits(llama):
    with pytest.raises(ValueError, match="100 tokens and 29 new ones exceed the model's context of 128"):
        generate(llama, [[1] * 100], max_new_tokens=29)
    assert len(generate(llama, [[1] * 100], max_new_tokens=28)[0].completion) <= 28
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, 0 was given"):
        generate(llama, ROWS, max_new_tokens=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, 0 was given"):
        generate(llama, ROWS, batch_size=0)


@pytest.mark.parametrize("positions", [[0], [-1, 2], [-4]])
def test_positions_outside_a_prompt(llama, positions):
    with pytest.raises(ValueError, match=r"are outside -3\.\.-1.* the shortest prompt has 3 tokens"):
        residual_stream(llama, ROWS, positions)


@pytest.mark.parametrize("ablation, match", [
    (torch.zeros(32), "zero or not finite"),
    (torch.full((32,), torch.nan), "zero or not finite"),
    (torch.ones(31), r"shape \(32,\) or \(5, 32\), \(31,\) was given"),
    (torch.ones(4, 32), r"shape \(32,\) or \(5, 32\), \(4, 32\) was given"),
])
def test_bad_ablation(llama, ablation, match):
    with pytest.raises(ValueError, match=match):
        next_token_logits(llama, ROWS, ablation=ablation)


def test_next_token_kl_by_hand(llama):
    """Nothing without steering, and the mean over prompts of what PyTorch gives."""
    prompts = ["Why is a cat?", "Tell me of rain, please", "How to sing"]
    push = Steering(torch.ones(llama.d_model), 1, 0.5)
    table = next_token_kl(llama, prompts, [Steering(push.vector, 1, 0.0), push])
    base, steered = (next_token_logits(llama, prompts, s).log_softmax(-1) for s in (None, push))
    each = torch.nn.functional.kl_div(steered, base, log_target=True, reduction="none").sum(-1)
    assert table.kl.tolist() == pytest.approx([0, each.mean().item()], rel=1e-4)
    assert each.min() <= table.kl_low[1] <= table.kl[1] <= table.kl_high[1] <= each.max()
    alone = next_token_kl(llama, prompts[:1], [push])  # has no interval
    assert alone.kl.item() == pytest.approx(each[0].item(), rel=1e-4) and alone[["kl_low", "kl_high"]].isna().all(axis=None)
