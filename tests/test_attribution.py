"""Attribution against a plainly written reference, against exact patching, and its identities."""

import copy
import hashlib
import struct
from dataclasses import replace

import numpy as np
import pandas as pd
import plain_circuits as reference
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from test_runs import RESPONSES, steering_for

from steerpaper import paths, presets
from steerpaper.artifacts import load_tensors, save_tensors
from steerpaper.circuits.attribution import Attribution, attribute
from steerpaper.circuits.cases import Cases
from steerpaper.circuits.contrast import contrasts
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.metrics import DirectionalKL
from steerpaper.circuits.patching import patch_edges
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering

ALPHAS = (1.0, -0.8, 0.6)


def steerings(model, layer=1):
    vector = steering_for(model).vector
    return [Steering(vector, layer, alpha) for alpha in ALPHAS]


def plainly(function, plain, vector, *args, layer=1, **kwargs):
    """Sum of the reference's dictionaries over the responses, divided by the number of positions."""
    total, positions = {}, 0
    for response, alpha in zip(RESPONSES, ALPHAS):
        where = (plain, response.tokens, len(response.prompt), vector, alpha, layer)
        scores, n = function(*where, *args, **kwargs)
        total = {key: total.get(key, 0.0) + score for key, score in scores.items()}
        positions += n
    return pd.Series({key: score / positions for key, score in total.items()}), positions


def close(ours, theirs):
    """Equal within 1e-3 of each score, as far as float32 sums allow."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6 * np.abs(theirs).max())


# -- against the reference -----------------------------------------------------------------------------------

@pytest.mark.parametrize("norm_jacobian", [True, False])
@pytest.mark.parametrize("split_heads", [True, False])
def test_edges_agree_with_separate_inputs(model, plain, split_heads, norm_jacobian):
    chosen = steerings(model)
    options = {"split_heads": split_heads, "norm_jacobian": norm_jacobian}
    attribution = attribute(model, RESPONSES, chosen, steps=3, **options)
    theirs, positions = plainly(reference.edge_scores, plain, chosen[0].vector, 3, **options)
    assert attribution.positions == positions > 5
    edges = attribution.edges
    assert len(edges) == len(theirs) == attribution.graph.n_edges
    close(edges.score, theirs[list(zip(edges.source, edges.target))].to_numpy())


@pytest.mark.parametrize("layer", [0, 3])
def test_first_and_last_layer(model, plain, layer):
    chosen = steerings(model, layer)
    edges = attribute(model, RESPONSES, chosen, steps=2).edges
    theirs, _ = plainly(reference.edge_scores, plain, chosen[0].vector, 2, layer=layer)
    close(edges.score, theirs[list(zip(edges.source, edges.target))].to_numpy())


def test_nodes_agree_with_the_reference(model, plain):
    chosen = steerings(model)
    nodes = attribute(model, RESPONSES, chosen, steps=3).nodes.set_index("node").score
    theirs, _ = plainly(reference.node_scores, plain, chosen[0].vector, 3)
    close(nodes, theirs[nodes.index].to_numpy())


def test_gradient_is_alpha_times_the_mean_gradient_at_the_steering_node(model, plain):
    chosen, total, positions = steerings(model), 0.0, 0
    for response, alpha in zip(RESPONSES, ALPHAS):
        gradients, n = reference.source_gradients(
            plain, response.tokens, len(response.prompt), chosen[0].vector, alpha, 1, 3)
        total, positions = total + alpha * gradients["steer"].sum(0), positions + n
    close(attribute(model, RESPONSES, chosen, steps=3).gradient.numpy(), (total / positions).numpy())


def test_patching_agrees_with_the_reference(model, plain):
    chosen = steerings(model)
    positions = attribute(model, RESPONSES, chosen, steps=1).positions
    for split_heads in (True, False):
        edges = Graph.of(model, 1, split_heads).edges.sample(25, random_state=1)
        exact = patch_edges(model, RESPONSES, chosen, edges, split_heads=split_heads, batch_size=7)
        assert list(exact.index) == list(edges.index)
        theirs = np.array([
            sum(reference.patched_effect(plain, r.tokens, len(r.prompt), chosen[0].vector, alpha, 1, edge)
                for r, alpha in zip(RESPONSES, ALPHAS)) for edge in zip(edges.source, edges.target)])
        np.testing.assert_allclose(exact.score, theirs / positions, rtol=1e-3, atol=2e-6)


# -- identities ----------------------------------------------------------------------------------------------

def change_of_metric(model, responses, chosen, **kwargs):
    """m(steered) - m(base) per position, from whole runs."""
    total, positions = 0.0, 0
    arguments = {"metric": "logit_difference", "batch_size": 8, "what": "test"} | kwargs
    for contrast in contrasts(model, Cases.of(model, responses, chosen), **arguments):
        steered, base = contrast.measure(contrast.steered.logits), contrast.measure(contrast.base.logits)
        total += (steered - base).sum().item()
        positions += int(contrast.measure.mask.sum())
    return total / positions


@pytest.mark.parametrize("metric", ["logit_difference", "kl"])
def test_completeness_with_error_as_one_over_steps_squared(model, metric):
    chosen = steerings(model)
    change = change_of_metric(model, RESPONSES, chosen, metric=metric)
    errors = []
    for steps in (16, 32, 64):
        edges = attribute(model, RESPONSES, chosen, steps=steps, metric=metric).edges
        errors.append(abs(edges[edges.source == "steer"].score.sum() - change))
    assert errors[2] < 0.001 * abs(change)
    np.testing.assert_allclose(np.log2([errors[0] / errors[1], errors[1] / errors[2]]), 2, atol=0.35)


def test_edges_of_a_source_sum_to_its_node(model):
    attribution = attribute(model, RESPONSES, steerings(model), steps=4)
    sums = attribution.edges.groupby("source").score.sum()[attribution.nodes.node]
    np.testing.assert_allclose(sums, attribution.nodes.score, rtol=1e-4, atol=1e-6)


def test_dimensions_sum_to_the_steering_node(model):
    chosen = steerings(model)
    attribution = attribute(model, RESPONSES, chosen, steps=4)
    assert attribution.gradient.shape == (model.d_model,)
    total = (chosen[0].vector * attribution.gradient).sum().item()
    assert total == pytest.approx(attribution.nodes.score[0], rel=1e-5)


def test_layers_are_the_sum_of_their_heads(model):
    heads = attribute(model, RESPONSES, steerings(model), steps=4).edges
    layers = attribute(model, RESPONSES, steerings(model), steps=4, split_heads=False).edges
    heads["target"] = heads.target.str.replace(r"\.h\d+<", "<", regex=True)
    sums = heads.groupby(["source", "target"]).score.sum()
    assert len(sums) == len(layers)
    sums = sums[list(zip(layers.source, layers.target))]
    np.testing.assert_allclose(layers.score, sums, rtol=1e-4, atol=1e-6)


def test_batches_and_padding_change_nothing(model):
    chosen = steerings(model)
    whole = attribute(model, RESPONSES, chosen, steps=3)
    parts = attribute(model, RESPONSES, chosen, steps=3, batch_size=1)
    np.testing.assert_allclose(parts.edges.score, whole.edges.score, rtol=1e-3, atol=2e-6)
    singles = [attribute(model, [r], s, steps=3) for r, s in zip(RESPONSES, chosen)]
    assert sum(single.positions for single in singles) == whole.positions
    mean = sum(single.positions * single.edges.score for single in singles) / whole.positions
    np.testing.assert_allclose(mean, whole.edges.score, rtol=1e-3, atol=2e-6)


def test_kl_threshold_leaves_positions_out(llama):
    chosen = steerings(llama)
    (contrast,) = contrasts(llama, Cases.of(llama, RESPONSES, chosen), metric="kl", batch_size=8, what="")
    base, steered = contrast.base.logits.softmax(-1), contrast.steered.logits.softmax(-1)
    kl = (steered * (steered / base).log()).sum(-1)[contrast.measure.mask].sort().values
    for n, threshold in ((len(kl), 0.0), (5, (kl[-5] + kl[-6]).item() / 2)):
        attribution = attribute(llama, RESPONSES, chosen, steps=2, metric=DirectionalKL(threshold))
        assert attribution.positions == n


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
def test_small_steerings_are_patched_as_attributed(family):
    """To first order in alpha the scores are the exact effects. Covers Qwen 3's norms of queries and keys."""
    model = Model(tiny_model(family).double(), tiny_tokenizer())
    chosen, responses = steering_for(model, size=0.02), RESPONSES[:1]
    for split_heads in (True, False):
        kwargs = {"metric": "kl", "split_heads": split_heads}
        scores = attribute(model, responses, chosen, steps=1, **kwargs).edges
        scores = scores[scores.score.abs() > 0.05 * scores.score.abs().max()]
        exact = patch_edges(model, responses, chosen, scores, **kwargs)
        assert len(scores) > 20
        np.testing.assert_allclose(exact.score, scores.score, rtol=0.15, atol=0.01 * scores.score.abs().max())


def test_the_metric_may_be_taken_from_a_caller_without_gradients(llama):
    with torch.no_grad():
        quiet = attribute(llama, RESPONSES, steerings(llama), steps=1)
    pd.testing.assert_frame_equal(quiet.edges, attribute(llama, RESPONSES, steerings(llama), steps=1).edges)


def test_half_precision_is_close(llama):
    half = Model(copy.deepcopy(llama.hf).bfloat16(), tiny_tokenizer())
    response = [Response([1, 20, 31, 45, 60, 22], [33, 44, 55, 66, 77])]
    ours, theirs = (attribute(m, response, steering_for(llama), steps=4, metric="kl") for m in (half, llama))
    assert np.corrcoef(ours.edges.score, theirs.edges.score)[0, 1] > 0.99
    assert isinstance(ours.scores, np.ndarray) and ours.scores.dtype == np.float64


def test_errors(llama):
    with pytest.raises(ValueError, match="steps must be at least 1, 0 was given"):
        attribute(llama, RESPONSES, steerings(llama), steps=0)
    with pytest.raises(ValueError, match="steering layer 9 is outside 0..3"):
        attribute(llama, RESPONSES, Steering(torch.ones(32), 9))
    with pytest.raises(ValueError, match="no edges given"):
        patch_edges(llama, RESPONSES, steerings(llama), pd.DataFrame({"source": [], "target": []}))
    with pytest.raises(ValueError, match="1 of 1 edges are not in this graph, the first steer -> a0.h0<q>"):
        edges = pd.DataFrame({"source": ["steer"], "target": ["a0.h0<q>"]})
        patch_edges(llama, RESPONSES, steerings(llama), edges)


# -- what is kept --------------------------------------------------------------------------------------------

@pytest.fixture
def tiny(llama_folder, tmp_path, monkeypatch):
    """The preset "tiny" on the tiny Llama; what it saves is away from the repository."""
    monkeypatch.setitem(presets.PRESETS, "tiny", replace(presets.PRESETS["tiny"], model=str(llama_folder)))
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    return "tiny"


@pytest.mark.parametrize("split_heads", [True, False])
def test_an_attribution_comes_back_as_it_was(llama, tiny, split_heads):
    steering = steering_for(llama, coefficient=0.8)
    att = attribute(llama, RESPONSES, steering, steps=2, split_heads=split_heads)
    att.save(tiny, "dim_attribution", steering, {"steps": 2, "seed": 7})
    same = replace(steering, vector=steering.vector.double().tolist(), coefficient=np.float64(0.8))
    for found in (Attribution.load(tiny, "dim_attribution", chosen) for chosen in (steering, same)):
        assert found.graph == att.graph and found.positions == att.positions
        np.testing.assert_array_equal(found.scores, att.scores)
        pd.testing.assert_frame_equal(found.nodes, att.nodes, check_exact=True)
        pd.testing.assert_frame_equal(found.edges, att.edges, check_exact=True)
        assert torch.equal(found.gradient, att.gradient)
    _, about = load_tensors(tiny, "dim_attribution")
    digest = hashlib.sha256(struct.pack("<32f", *steering.vector.tolist())).hexdigest()
    assert {"layer": 1, "coefficient": 0.8, "vector_sha256": digest, "steps": 2, "seed": 7,
            "positions": att.positions}.items() <= about.items()


def test_an_attribution_of_another_steering_is_refused(llama, tiny):
    steering = steering_for(llama, coefficient=0.8)
    att = attribute(llama, RESPONSES, steering, steps=1)
    att.save(tiny, "dim_attribution", steering, {})
    changed = steering.vector.clone()
    changed[3] = changed[3].nextafter(torch.tensor(9.0))
    for other, message in ((replace(steering, layer=2), "layer 1, given 2"),
                           (replace(steering, coefficient=-0.8), "coefficient 0.8, given -0.8"),
                           (replace(steering, vector=changed), "vector_sha256 '.*', given '"),
                           (replace(steering, vector=steering.vector.flip(0)), "vector_sha256")):
        with pytest.raises(ValueError, match=f"'dim_attribution' of preset 'tiny' was made with another steering "
                                             f"\\({message}.*run notebook 02_patching_circuits"):
            Attribution.load(tiny, "dim_attribution", other)
    att.save(tiny, "dim_attribution", replace(steering, layer=3), {})  # the layer is the graph's
    assert Attribution.load(tiny, "dim_attribution", steering).positions == att.positions
    save_tensors(tiny, "dim", {"vector": steering.vector}, {"layer": 1, "coefficient": 0.8})
    with pytest.raises(ValueError, match="vector_sha256 None"):
        Attribution.load(tiny, "dim", steering)
    with pytest.raises(FileNotFoundError, match="ntp_attribution.* is missing: run notebook 02_patching_circuits"):
        Attribution.load(tiny, "ntp_attribution", steering)
