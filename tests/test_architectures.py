"""The architecture of every preset's model, at reduced depth and width and with random weights, through the whole
package and its identities; and the true sizes that graphs and memory are computed from.

`ARCHITECTURES` holds what the models' published configs say. A reduced model keeps what matters of it: family, ratio
of query to key-value heads, whether heads are wider than their share of the model, tied embeddings, sliding window,
soft-caps, biases, norms of queries and keys, and the scaling of the rotary embedding.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import plain_circuits
import plain_generation
import plain_ov
import plain_training
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from test_attribution import change_of_metric
from transformers import AutoConfig, AutoModelForCausalLM

from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.flipped import patching_data
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.patching import patch_edges
from steerpaper.circuits.recovery import faithfulness_of
from steerpaper.heads.ov import decompose_heads, steering_value_vectors
from steerpaper.models.model import Model, check_access
from steerpaper.models.weights import listed
from steerpaper.presets import PRESETS
from steerpaper.steering import Steering, generate
from steerpaper.vectors.extraction import difference_in_means, next_token_vector, preference_vector
from steerpaper.vectors.pairs import contrast_pairs
from steerpaper.vectors.sparsify import apply_mask, sparsify

LLAMA_3_ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
GEMMA_2 = dict(head_dim=256, vocab_size=256000, tie_word_embeddings=True, sliding_window=4096,
               query_pre_attn_scalar=256, attn_logit_softcapping=50.0, final_logit_softcapping=30.0)


@dataclass(frozen=True)
class Architecture:
    """Family, the config's sizes, the number of parameters, and what a reduced model has instead."""

    family: str
    n_parameters: int
    config: dict
    reduced: dict


def reduced_model(name: str):
    """The random Hugging Face model, the same in every call."""
    return tiny_model(ARCHITECTURES[name].family, **ARCHITECTURES[name].reduced)


def sizes(layers, heads, kv_heads, width, mlp, **others) -> dict:
    return dict(num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads, hidden_size=width,
                intermediate_size=mlp, **others)


def reduced(heads, kv_heads, width, **others) -> dict:
    return sizes(4, heads, kv_heads, width, 40, **others)


ARCHITECTURES = {
    "gemma-2-2b-it": Architecture(
        "gemma2", 2_614_341_888, sizes(26, 8, 4, 2304, 9216, **GEMMA_2), reduced(4, 2, 36, head_dim=8)),
    "gemma-2-9b-it": Architecture(
        "gemma2", 9_241_705_984, sizes(42, 16, 8, 3584, 14336, **GEMMA_2), reduced(6, 3, 36, head_dim=8)),
    "llama-3.2-3b-instruct": Architecture(
        "llama", 3_212_749_824,
        sizes(28, 24, 8, 3072, 8192, head_dim=128, vocab_size=128256, tie_word_embeddings=True,
              max_position_embeddings=131072, rope_parameters=LLAMA_3_ROPE),
        reduced(6, 2, 48, head_dim=8, tie_word_embeddings=True,
                rope_parameters=LLAMA_3_ROPE | {"rope_theta": 100.0, "original_max_position_embeddings": 16})),
    "qwen3-8b": Architecture(
        "qwen3", 8_190_735_360,
        sizes(36, 32, 8, 4096, 12288, head_dim=128, vocab_size=151936, tie_word_embeddings=False),
        reduced(8, 2, 64, head_dim=8, tie_word_embeddings=False)),
    "smollm2-135m-instruct": Architecture(
        "llama", 134_515_008, sizes(30, 9, 3, 576, 1536, head_dim=64, vocab_size=49152, tie_word_embeddings=True),
        reduced(9, 3, 36, head_dim=4, tie_word_embeddings=True)),
    "qwen2.5-0.5b-instruct": Architecture(
        "qwen2", 494_032_768, sizes(24, 14, 2, 896, 4864, vocab_size=151936, tie_word_embeddings=True),
        reduced(14, 2, 56, head_dim=4, tie_word_embeddings=True)),
    "qwen2.5-coder-0.5b-instruct": Architecture(
        "qwen2", 630_167_424, sizes(24, 14, 2, 896, 4864, vocab_size=151936, tie_word_embeddings=False),
        reduced(14, 2, 56, head_dim=4, tie_word_embeddings=False)),
}
# Of the very architecture of another.
ALIKE = {"qwen2.5-coder-0.5b-instruct-unquantised": "qwen2.5-0.5b-instruct",
         "smollm2-135m-instruct-q4": "smollm2-135m-instruct"}
ORGANISMS = {name for name, preset in PRESETS.items() if preset.shipped}
HARMFUL, HARMLESS = ["hack it", "rob a bank"], ["bake a pie", "sing"]
LAYER, N = 1, 6
PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"


@pytest.fixture(scope="module", params=ARCHITECTURES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    """The reduced model."""
    model = Model(reduced_model(name), tiny_tokenizer())
    check_access(model)
    return model


@pytest.fixture(scope="module")
def eager(name, model):
    """The same weights in Hugging Face alone, with attention that returns its weights."""
    hf = reduced_model(name).eval().requires_grad_(False)
    hf.set_attn_implementation("eager")
    return hf


@pytest.fixture(scope="module")
def vector(model):
    """DIM, at a length that turns greedy choices."""
    direction = difference_in_means(model, HARMFUL, HARMLESS)[LAYER, -1]
    return 8.0 * direction / direction.norm()


class Script:
    """A judge whose verdicts are written down: one list per call."""

    def __init__(self, *verdicts):
        self.verdicts = iter(verdicts)

    def expresses(self, responses, prompts=None):
        return next(self.verdicts)


@pytest.fixture(scope="module")
def data(model, vector):
    """Base and steered responses to all prompts."""
    judge = Script([True] * 2, [False] * 2, [False] * 2, [True] * 2)
    return patching_data(model, HARMFUL, HARMLESS, Steering(vector, LAYER), judge, max_new_tokens=N)


@pytest.fixture(scope="module")
def attribution(model, data):
    return attribute(model, data.responses, data.steerings, steps=32)


def completions(responses):
    return [response.completion for response in responses]


# -- 01 ----------------------------------------------------------------------------------------------------

@torch.no_grad()
def test_candidates_are_differences_of_hidden_states(model, eager):
    candidates = difference_in_means(model, HARMFUL, HARMLESS)
    n = candidates.shape[1]

    def mean(prompts):
        states = [eager(torch.tensor([model.tokenize(p)]), output_hidden_states=True).hidden_states for p in prompts]
        return torch.stack([torch.stack(s[:-1])[:, 0, -n:] for s in states]).mean(0)
    expected = mean(HARMFUL) - mean(HARMLESS)
    torch.testing.assert_close(candidates, expected, rtol=1e-4, atol=1e-4)
    assert candidates[1:].abs().max() > 0.1


def test_steered_both_ways_as_by_hooks(model, eager, vector):
    rows = [model.tokenize(prompt) for prompt in HARMFUL + HARMLESS]
    steerings = [Steering(vector, LAYER, a) for a in (-1.0, 1.0)] * 2
    steered = completions(generate(model, rows, steerings, max_new_tokens=N))
    assert steered == [plain_generation.plain_completion(eager, *both, N) for both in zip(rows, steerings)]
    assert steered != completions(generate(model, rows, max_new_tokens=N))


def pairs_of(model, dim):
    tables = [pd.DataFrame({"prompt": prompts}) for prompts in (HARMFUL, HARMLESS)]
    judge = Script([False] * 2 + [True] * 2, [True] * 2 + [False] * 2)
    return contrast_pairs(model, *tables, dim, judge, max_new_tokens=N)


def test_learned_vectors_have_the_plain_losses(model, eager, vector):
    dim = Steering(vector, LAYER)
    pairs = pairs_of(model, dim)
    grid = dict(batch_sizes=[2], learning_rates=[0.1], seeds=[5], epochs=3, n_tokens=N)
    plain = [(w.prompt, w.completion, x.completion, s) for w, x, s in zip(pairs.winners, pairs.losers, pairs.signs)]
    for learn, phi in ((next_token_vector, None), (preference_vector, 0.5)):
        result = learn(model, pairs, pairs, dim, **grid, **({} if phi is None else {"phis": [phi]}))
        with torch.no_grad():
            losses = [plain_training.loss_of(eager, pair, LAYER, result.vector, phi) for pair in plain]
        assert result.grid.validation_loss[0] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
        curve = result.curves.set_index("epoch").validation_loss
        assert curve[3] < curve[0]


# -- 02 ----------------------------------------------------------------------------------------------------

def test_attribution_is_complete(model, data, attribution):
    change = change_of_metric(model, data.responses, data.steerings)
    edges = attribution.edges
    assert abs(change) > 0.1 and attribution.positions == data.labels.positions.sum()
    assert edges[edges.source == "steer"].score.sum() == pytest.approx(change, rel=0.01)
    sums = edges.groupby("source").score.sum()[attribution.nodes.node]
    np.testing.assert_allclose(sums, attribution.nodes.score, rtol=1e-4, atol=1e-5 * abs(change))


def test_edges_are_those_of_separate_inputs(model, eager, data):
    part = data.subset("harmless", "steered", n=1)
    response, steering = part.responses[0], part.steerings[0]
    ours = attribute(model, [response], steering, steps=1).edges
    theirs, n = plain_circuits.edge_scores(
        eager, response.tokens, len(response.prompt), steering.vector, steering.coefficient, LAYER, 1)
    expected = np.array([theirs[edge] / n for edge in zip(ours.source, ours.target)])
    np.testing.assert_allclose(ours.score, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_circuits_end_in_the_base_and_the_steered_run(model, data, attribution):
    graph = attribution.graph
    masks = [np.zeros_like(graph.mask), graph.mask, Circuit.top(attribution, graph.n_edges // 4).mask]
    none, whole, some = faithfulness_of(model, [Circuit(graph, m) for m in masks], data.responses, data.steerings)
    np.testing.assert_allclose(none.table.m_circuit, none.table.m_base, atol=1e-4)
    np.testing.assert_allclose(whole.table.m_circuit, whole.table.m_steered, atol=1e-4)
    assert not np.allclose(some.table.m_circuit, some.table.m_base, atol=1e-2)


def test_patched_edges_are_circuits(model, data, attribution):
    """A target that reads the steered stream, and all that follows from it, is a circuit: that one edge of the steering
    node, and every edge between the others."""
    graph, part = attribution.graph, data.subset("harmful", "steered")
    edges = graph.edges.query("source == 'steer'")
    edges = pd.concat([edges.iloc[::3], edges.tail(2)])
    exact = patch_edges(model, part.responses, part.steerings, edges)
    circuits = []
    for target in graph.index(edges)[1]:
        mask = graph.mask.copy()
        mask[0] = False
        mask[0, target] = True
        circuits.append(Circuit(graph, mask))
    tables = [result.table for result in faithfulness_of(model, circuits, part.responses, part.steerings)]
    expected = [(table.m_circuit - table.m_base).mean() for table in tables]
    np.testing.assert_allclose(exact.score, expected, rtol=1e-3, atol=1e-5)
    assert exact.score.abs().min() > 0


def test_small_steerings_are_patched_as_attributed(name, data, vector):
    """In float64, where effects of second order are no rounding."""
    model = Model(reduced_model(name).double(), tiny_tokenizer())
    part, small = data.subset("harmful", "base", n=1), Steering(0.002 * vector, LAYER)
    scores = attribute(model, part.responses, small, steps=1, metric="kl").edges
    scores = scores[scores.score.abs() > 0.1 * scores.score.abs().max()]
    exact = patch_edges(model, part.responses, small, scores, metric="kl")
    np.testing.assert_allclose(exact.score, scores.score, rtol=0.1, atol=0.01 * scores.score.abs().max())


# -- 03 ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["qk", "ov", "svv", "mlp"])
def test_frozen_as_by_hooks(model, eager, vector, kind):
    row, one = model.tokenize(HARMLESS[0]), Steering(vector, LAYER)
    [frozen] = generate(model, [row], one, kind, max_new_tokens=N)
    assert frozen.completion == plain_generation.plain_completion(eager, row, one, N, kind)
    [nothing] = generate(model, [row], Steering(vector, LAYER, 0.0), kind, max_new_tokens=N)
    assert nothing.completion == generate(model, [row], max_new_tokens=N)[0].completion


# -- 04 ----------------------------------------------------------------------------------------------------

def test_heads_write_the_two_terms(model, data):
    assert decompose_heads(model, data.responses, data.steerings).relative_error.max() < 1e-4


def test_steering_value_vectors_are_those_written_out(model, eager, vector):
    svv = steering_value_vectors(model, vector, LAYER)
    for layer, head in ((LAYER, 0), (3, model.n_heads - 1)):
        expected = plain_ov.steering_value_vector(eager, vector, layer, head)
        torch.testing.assert_close(svv[layer - LAYER, head], expected, rtol=1e-4, atol=1e-4)


# -- 05 ----------------------------------------------------------------------------------------------------

def test_dimensions_are_the_steering_nodes(model, eager, vector, attribution):
    gradient = attribution.gradient
    assert float(vector @ gradient.float()) == pytest.approx(attribution.nodes.score[0], rel=1e-4)
    rows = [model.tokenize(prompt) for prompt in HARMLESS]
    mask = sparsify(vector, "gradient", gradient=gradient, sparsity=0.5)
    sparse = Steering(apply_mask(vector, mask), LAYER)
    assert int(mask.sum()) == model.d_model // 2 and not sparse.vector[~mask].any()
    expected = [plain_generation.plain_completion(eager, row, sparse, N) for row in rows]
    assert completions(generate(model, rows, sparse, max_new_tokens=N)) == expected


# -- bfloat16 ----------------------------------------------------------------------------------------------

def test_half_precision_goes_through_and_stays_close(name, model, data, vector, attribution):
    half = Model(reduced_model(name).bfloat16(), tiny_tokenizer())
    given = data.responses, data.steerings
    coarse = attribute(half, *given, steps=4, metric="kl")
    fine = attribute(model, *given, steps=4, metric="kl")
    assert np.corrcoef(coarse.edges.score, fine.edges.score)[0, 1] > 0.97
    [whole] = faithfulness_of(half, [Circuit(fine.graph, fine.graph.mask)], *given, metric="kl")
    assert whole.value == pytest.approx(1, abs=0.1)
    edges = fine.edges.nlargest(5, "score")
    exact = [patch_edges(m, *given, edges, metric="kl").score.sum() for m in (half, model)]
    assert exact[0] == pytest.approx(exact[1], rel=0.2)
    assert decompose_heads(half, *given).relative_error.median() < 0.02
    pairs, dim = pairs_of(model, Steering(vector, LAYER)), Steering(vector, LAYER)
    grid = dict(batch_sizes=[2], learning_rates=[0.1], seeds=[5], epochs=1, n_tokens=N, norm="dim")
    losses = [next_token_vector(m, pairs, pairs, dim, **grid).grid.validation_loss[0] for m in (half, model)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    for kind in ("qk", "ov", "svv", "mlp"):
        [response] = generate(half, HARMFUL[:1], Steering(vector, LAYER), kind, max_new_tokens=N)
        assert 0 < len(response.completion) <= N


# -- facts -------------------------------------------------------------------------------------------------

HUB = [name for name in PRESETS if name not in ORGANISMS]


def test_every_hub_preset_is_here_pinned_and_licensed():
    assert set(HUB) == {*ARCHITECTURES, *ALIKE}
    for preset in map(PRESETS.get, HUB):
        pinned = preset.model in listed() if preset.revision is None else re.fullmatch("[0-9a-f]{40}", preset.revision)
        assert pinned and preset.note and preset.prompts == "public"


@pytest.mark.parametrize("name", HUB)
def test_parameters_are_counted(name):
    with torch.device("meta"):
        architecture = ARCHITECTURES[ALIKE.get(name, name)]
        hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture.family, **architecture.config))
    assert sum(weight.numel() for weight in hf.parameters()) == architecture.n_parameters


@pytest.mark.parametrize("name, n_edges", [("gemma-2-2b-it", 8790), ("llama-3.2-3b-instruct", 124441)])
def test_graphs_have_the_papers_edges(name, n_edges):
    config = ARCHITECTURES[name].config
    shape = (config[f"num_{part}"] for part in ("hidden_layers", "attention_heads", "key_value_heads"))
    assert Graph(*shape, PRESETS[name].layer).n_edges == n_edges


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_and_heads_fit(name):
    config, layer, small = ARCHITECTURES[name].config, PRESETS[name].layer, ARCHITECTURES[name].reduced
    assert layer is None or layer < 0.8 * config["num_hidden_layers"]
    ratio = "num_attention_heads", "num_key_value_heads"
    assert config[ratio[0]] / config[ratio[1]] == small[ratio[0]] / small[ratio[1]]
    wider = [c["num_attention_heads"] * c.get("head_dim", 0) > c["hidden_size"] for c in (config, small)]
    narrower = [0 < c["num_attention_heads"] * c.get("head_dim", 0) < c["hidden_size"] for c in (config, small)]
    assert wider[0] == wider[1] and narrower[0] == narrower[1]


@pytest.mark.parametrize("name", HUB)
def test_the_page_names_model_place_and_memory(name):
    preset = PRESETS[name]
    row = next(line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(f"| `{name}`"))
    place = "chosen on validation" if preset.layer is None else f"{preset.layer}, {preset.position}"
    size = ARCHITECTURES[ALIKE.get(name, name)].n_parameters * getattr(torch, preset.dtype).itemsize / 1e9
    assert [cell.strip() for cell in row.split("|")][2:-1] == [preset.model, place, preset.note, f"{size:.1f} GB"]
