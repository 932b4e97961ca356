"""Attention under steering, against Hugging Face's own eager attention, one sequence at a time."""

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from steerpaper.heads.patterns import attention_change, attention_weights
from steerpaper.models.responses import Response, teacher_forcing
from steerpaper.steering import Steering

RESPONSES = [Response([1, 20, 31, 45, 60, 22], [33, 44, 55, 66, 77]), Response([1, 50, 51], [30, 40, 7]),
             Response([1, 9, 80, 81], [82, 83, 7, 12])]
ALPHAS = (1.0, -2.5, 0.5)


def steerings_for(model, layer, alphas=ALPHAS):
    vector = 3.0 * torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    return [Steering(vector, layer, alpha) for alpha in alphas]


@pytest.fixture(scope="module")
def eager(model, request):
    """The same weights in Hugging Face alone, eager from the start."""
    folder = request.getfixturevalue(f"{model.family}_folder")
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True).eval()


@torch.no_grad()
def plain_attentions(hf, tokens, steering=None):
    """Per layer [head, pos, key] of one sequence without padding."""
    def steer(module, arguments, kwargs):
        hidden = arguments[0] if arguments else kwargs.pop("hidden_states")
        return (hidden + steering.coefficient * steering.vector, *arguments[1:]), kwargs

    hook = steering and hf.model.layers[steering.layer].register_forward_pre_hook(steer, with_kwargs=True)
    attentions = hf(torch.tensor([tokens]), output_attentions=True, use_cache=False).attentions
    if hook:
        hook.remove()
    return [attention[0] for attention in attentions]


@pytest.mark.parametrize("layer", [0, 2])
def test_change_is_that_of_plain_runs(model, eager, layer):
    steerings = steerings_for(model, layer)
    rows = []
    for response, steering in zip(RESPONSES, steerings):
        base, steered = (plain_attentions(eager, response.tokens, s) for s in (None, steering))
        for i in range(layer, 4):
            for head in range(4):
                for position in range(len(response.prompt) - 1, len(response.tokens) - 1):
                    change = (steered[i][head, position] - base[i][head, position]).abs().sum() / 2
                    rows.append((i, head, float(change)))
    expected = pd.DataFrame(rows, columns=["layer", "head", "total_variation"])
    expected = expected.groupby(["layer", "head"], as_index=False).mean()
    measured = attention_change(model, RESPONSES, steerings)
    pd.testing.assert_frame_equal(measured, expected, rtol=1e-4, atol=1e-6)
    assert measured.total_variation.between(0.005, 1).all()


def test_padding_changes_nothing(model):
    steerings = steerings_for(model, 1)
    together = attention_change(model, RESPONSES, steerings)
    apart = attention_change(model, RESPONSES, steerings, batch_size=1)
    pd.testing.assert_frame_equal(together, apart, rtol=1e-4, atol=1e-6)


def test_no_steering_changes_no_attention(model):
    steering = Steering(torch.zeros(model.d_model), 1)
    assert (attention_change(model, RESPONSES, steering).total_variation == 0).all()


def test_weights_are_distributions_over_own_tokens(model):
    batch = teacher_forcing(model, RESPONSES)
    width, kept = batch.input_ids.shape[1], 1 + max(len(response.completion) for response in RESPONSES)
    stream = torch.randn(3, width, model.d_model, generator=torch.Generator().manual_seed(2))
    for weights in attention_weights(model, batch, 1, stream):
        assert weights.shape == (3, 4, kept, width)
        responses = batch.response_mask[:, -kept:, None] & torch.ones(width, dtype=torch.bool)
        inside = weights.transpose(1, 2)[responses[..., 0]]  # [response position, head, key]
        torch.testing.assert_close(inside.sum(-1), torch.ones(inside.shape[:-1]))
        padding = (batch.attention_mask == 0)[:, None, :].expand_as(responses)[responses[..., 0]]
        assert (inside.transpose(1, 2)[padding] == 0).all()


def test_attention_runs_as_before_afterwards(model):
    before = model.hf.config._attn_implementation
    attention_change(model, RESPONSES[:1], steerings_for(model, 1)[0])
    with pytest.raises(ZeroDivisionError), model.eager_attention():
        assert model.hf.config._attn_implementation == "eager"
        1 / 0  # noqa: B018
    assert model.hf.config._attn_implementation == before


def test_refuses_what_has_no_meaning(model):
    one, other, _ = steerings_for(model, 1)
    with pytest.raises(ValueError, match="no responses"):
        attention_change(model, [], one)
    with pytest.raises(ValueError, match="differ in layer"):
        attention_change(model, RESPONSES[:2], [one, Steering(one.vector, 2)])
    with pytest.raises(ValueError, match="not finite"):
        attention_change(model, RESPONSES, Steering(torch.full((model.d_model,), 1e38), 1, 30.0))
