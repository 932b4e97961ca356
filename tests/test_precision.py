"""bfloat16 weights: sums, norms and differences are taken in float32, so that only the model's own rounding is left."""

import copy

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.recovery import faithfulness
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering, _directions, _remove, generate
from steerpaper.vectors.extraction import difference_in_means

PROMPTS = [[1, 20, 31, 45, 60], [1, 50, 51, 8], [1, 9, 80, 81, 82, 83], [1, 66, 41, 19], [1, 14, 15, 16, 17, 18, 92]]


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def models(request):
    """One model in bfloat16, and the same rounded weights in float32."""
    half = tiny_model(request.param).bfloat16()
    return Model(half, tiny_tokenizer()), Model(copy.deepcopy(half).float(), tiny_tokenizer())


def steering(coefficient=1.0):
    # Exact in bfloat16, so that both models are steered alike.
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1)).bfloat16().float()
    return Steering(vector, 1, coefficient)


def responses(model):
    return [Response(r.prompt, r.completion) for r in generate(model, PROMPTS, max_new_tokens=10)]


def test_norm_weights_are_not_rounded_again(models):
    """Gemma's norms multiply by 1 + weight in float32; 1 + weight in bfloat16 is off by up to 2^-8."""
    half, whole = models
    gammas = ("attention_gamma", "mlp_gamma", *["attention_post_gamma"] * half.has_post_norms)
    for name in gammas:
        one, other = getattr(half, name)(2), getattr(whole, name)(2)
        assert one.dtype == torch.float32
        assert torch.equal(one, other), name
    assert torch.equal(half.final_gamma, whole.final_gamma)


def test_attribution_of_bfloat16_weights(models):
    """Against float32 on the same weights: within 5 % of the scores' norm, though activations have 8 bits. With the
    metric that masks no position: elsewhere rounding may also move a greedy token."""
    half, whole = models
    of = responses(whole)
    one, other = (attribute(model, of, steering(), steps=4, metric="kl") for model in models)
    assert one.positions == other.positions
    edges = one.edges.score.to_numpy(), other.edges.score.to_numpy()
    assert np.linalg.norm(edges[0] - edges[1]) < 0.05 * np.linalg.norm(edges[1])
    assert np.corrcoef(*edges)[0, 1] > 0.999
    assert (one.gradient - other.gradient).norm() < 0.05 * other.gradient.norm()
    assert one.scores.dtype == np.float64 and one.gradient.dtype == torch.float64


def test_whole_and_empty_circuits_in_bfloat16(models):
    """The whole circuit is the steered run up to bfloat16's rounding of the streams that it mixes."""
    half, _ = models
    of = responses(half)
    graph = attribute(half, of, steering(), steps=1, metric="kl").graph
    whole, empty = (Circuit(graph, mask) for mask in (graph.mask, graph.mask & False))
    assert faithfulness(half, whole, of, steering(), metric="kl").value == pytest.approx(1, abs=0.05)
    assert faithfulness(half, empty, of, steering(), metric="kl").value == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("frozen", [None, "qk", "ov", "svv", "mlp"])
def test_generation_runs_in_bfloat16(models, frozen):
    half, _ = models
    answers = generate(half, PROMPTS, steering(-1.0), frozen, max_new_tokens=5)
    assert [r.prompt for r in answers] == PROMPTS and all(1 <= len(r.completion) <= 5 for r in answers)


def test_directional_ablation_leaves_nothing_of_the_direction(models):
    """With a direction rounded to bfloat16, or a sum in it, a share of some 2^-8 would be left at every removal."""
    half, _ = models
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(32, generator=generator)
    unit = (direction / direction.norm()).double()
    stream = (1000 * unit + torch.randn(4, 1, 32, generator=generator)).bfloat16()
    left = _remove(stream, _directions(half, direction, 4)[:, None])
    assert left.dtype == torch.bfloat16
    assert ((stream.double() @ unit) > 990).all() and ((left.double() @ unit).abs() < 0.05).all()


def test_difference_in_means_is_in_float64_over_bfloat16_streams(models):
    half, _ = models
    texts = ["How do I bake?", "Tell me now", "Why is it so"]
    other = ["What is this", "Who was that?", "Write a line"]
    found = difference_in_means(half, texts, other, batch_size=2)
    assert found.dtype == torch.float32
    half_rounded = found.bfloat16().float()
    assert not torch.equal(found, half_rounded), "means of bfloat16 streams have more digits than one stream"
