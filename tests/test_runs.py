"""Runs from the steering layer on, and the metrics, against whole passes and sums written out."""

import pytest
import torch
from conftest import save_checkpoint, tiny_model

from steerpaper.circuits.cases import Cases
from steerpaper.circuits.contrast import contrasts, target_weight
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.metrics import DirectionalKL, LogitDifference
from steerpaper.models.maps import head_writes, projected
from steerpaper.models.model import load_model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering

RESPONSES = [Response([1, 20, 31, 45, 60, 22], [33, 44, 55, 66, 77]), Response([1, 50, 51], [30, 40, 7]),
             Response([1, 9, 80, 81], [82, 83, 7, 12])]


def steering_for(model, layer=1, size=4.0, coefficient=1.0):
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    return Steering(size * vector, layer, coefficient)


def contrast_of(model, responses, steering, metric="logit_difference"):
    (contrast,) = contrasts(model, Cases.of(model, responses, steering), metric=metric, batch_size=9, what="test")
    return contrast


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 2, 4])
def test_starting_at_a_layer_is_the_whole_pass(model, layer):
    ids, mask = model.pad([response.tokens for response in RESPONSES])
    with model.trace(ids, mask):
        stream = (model.layer(layer) if layer < 4 else model.final_norm).input.save()
        whole = model.logits.save()
    with model.trace(ids, mask):
        model.start_at(layer, stream)
        logits = model.logits.save()
    torch.testing.assert_close(logits, whole, rtol=0, atol=1e-5)
    with model.trace(ids, mask):
        model.start_at(layer, -stream)
        other = model.logits.save()
    assert not torch.allclose(other, whole, atol=1e-2)


def test_writes_add_up_to_the_streams(model):
    contrast = contrast_of(model, RESPONSES, steering_for(model))
    for run in (contrast.base, contrast.steered):
        streams = [*run.attention_inputs, run.final]
        for i, layer in enumerate(range(1, model.n_layers)):
            middle = streams[i] + head_writes(model, layer, run.heads[i]).sum(0)
            torch.testing.assert_close(middle, run.mlp_inputs[i], rtol=0, atol=2e-5)
            torch.testing.assert_close(middle + run.mlps[i], streams[i + 1], rtol=0, atol=2e-5)
    steered = contrast.base.attention_inputs[0] + steering_for(model).vector
    torch.testing.assert_close(contrast.steered.attention_inputs[0], steered)


@torch.no_grad()
@pytest.mark.parametrize("split_heads", [True, False])
def test_projections_of_equal_streams_are_the_models(model, split_heads):
    graph = Graph.of(model, 1, split_heads)
    ids, mask = model.pad([response.tokens for response in RESPONSES])
    with model.trace(ids, mask):
        stream = model.layer(2).input.save()
        outputs = [model.q_proj(2).output, model.k_proj(2).output, model.v_proj(2).output]
        outputs.save()
    for kind, output in zip("qkv", outputs):
        weight = target_weight(model, graph, 2, kind)
        streams = stream.expand(len(weight), -1, -1, -1)
        own = projected(streams, weight, model.attention_gamma(2), model.norm_eps)
        torch.testing.assert_close(own, output, rtol=0, atol=1e-5)


def test_logit_difference_by_hand():
    base = torch.tensor([[[1.0, 0.0, 3.0], [0.0, 2.0, 1.0], [5.0, 0.0, 0.0]]])
    steered = torch.tensor([[[4.0, 0.0, 3.0], [0.0, 2.0, 1.0], [0.0, 7.0, 0.0]]])
    metric = LogitDifference().between(base, steered, torch.tensor([[True, True, False]]))
    assert metric.mask.tolist() == [[True, False, False]]
    assert metric(base).tolist() == [-2.0] and metric(steered).tolist() == [1.0]
    assert metric.at(torch.stack([base, steered])[:, metric.mask]).tolist() == [[-2.0], [1.0]]


def test_directional_kl_by_hand():
    base, steered, other = torch.randn(3, 1, 4, 7, generator=torch.Generator().manual_seed(0)).double()
    steered[0, 3] = base[0, 3]

    def kl(a, b):
        a, b = a.softmax(-1), b.softmax(-1)
        return (a * (a / b).log()).sum(-1)

    everywhere = torch.ones(1, 4, dtype=torch.bool)
    metric = DirectionalKL().between(base, steered, everywhere)
    assert metric.mask.all()
    torch.testing.assert_close(metric(other), (kl(base, other) - kl(steered, other))[0])
    threshold = kl(steered, base).sort().values[0, 2].item() - 1e-9
    metric = DirectionalKL(threshold).between(base, steered, everywhere)
    assert metric.mask.sum() == 2
    torch.testing.assert_close(metric(other), (kl(base, other) - kl(steered, other))[metric.mask])


def test_metric_sees_response_positions_only(model):
    contrast = contrast_of(model, RESPONSES, steering_for(model), metric="kl")
    assert contrast.kept == 6
    assert contrast.measure.mask.sum(1).tolist() == [len(RESPONSES[i].completion) for i in contrast.rows]


def test_errors(model, tmp_path):
    steering = steering_for(model)

    def runs(responses=RESPONSES, steering=steering, **changes):
        arguments = {"metric": "logit_difference", "batch_size": 2, "what": "test"}
        return list(contrasts(model, Cases.of(model, responses, steering), **arguments | changes))

    with pytest.raises(ValueError, match=r"unknown metric 'logit_diference' \(did you mean 'logit_difference'\?\): "
                                         r"choose one of logit_difference, kl, or give LogitDifference\(\) or Dir"):
        runs(metric="logit_diference")
    for metric in (None, DirectionalKL, ["kl"]):  # the class is none
        with pytest.raises(ValueError, match="unknown metric .*DirectionalKL\\(threshold=…\\)"):
            runs(metric=metric)
    for threshold, message in ((-1.0, "threshold must be at least 0 nats, -1.0"), (float("nan"), "must be finite, nan"),
                               ("1", "threshold must be a number, '1'"), (True, "threshold must be a number")):
        with pytest.raises(ValueError, match=message):
            DirectionalKL(threshold)
    with pytest.raises(ValueError, match="no responses given"):
        runs([])
    with pytest.raises(ValueError, match="response 0 has an empty completion"):
        runs([Response([1], [])])
    with pytest.raises(ValueError, match="2 steerings for 3 prompts"):
        runs(steering=[steering, steering])
    with pytest.raises(ValueError, match=r"responses \[1\] have no steering"):
        runs(steering=[steering, None, steering])
    with pytest.raises(ValueError, match="steerings of responses 0 and 2 differ in layer"):
        runs(steering=[steering, steering, Steering(steering.vector, 2)])
    with pytest.raises(ValueError, match="differ in vector: one graph has one steering node"):
        runs(steering=[steering, steering, Steering(2 * steering.vector, 1)])
    with pytest.raises(ValueError, match="none of the 3 responses has a position left: steering changes"):
        runs(steering=steering_for(model, size=1e-4))
    with pytest.raises(ValueError, match="stays below 1000.0 everywhere. Lower the threshold"):
        runs(metric=DirectionalKL(1000.0))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        runs(batch_size=0)
    with pytest.raises(ValueError, match="coefficient 1e\\+38 times a vector .*too large for .*torch.float32"):
        runs(steering=steering_for(model, coefficient=1e38))


def test_coefficients_may_differ(llama):
    vector = steering_for(llama).vector
    alphas = (1.0, -1.0, 0.5)
    contrast = contrast_of(llama, RESPONSES, [Steering(vector.clone(), 1, alpha) for alpha in alphas])
    assert contrast.alpha.flatten().tolist() == [alphas[i] for i in contrast.rows]


def test_lower_layers_run_once(tmp_path):
    model = load_model(save_checkpoint(tmp_path, tiny_model("llama")), device="cpu")
    calls = []
    for i, layer in enumerate(model.hf.model.layers):
        layer.self_attn.q_proj.register_forward_hook(lambda *_, i=i: calls.append(i))
    contrast_of(model, RESPONSES, steering_for(model, layer=2))
    assert calls == [0, 1, 2, 3, 2, 3]
