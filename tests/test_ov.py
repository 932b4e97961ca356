"""Steering value vectors, the heads' decomposition and the MLPs' counterpart, against plain loops in float64."""

import pandas as pd
import plain_ov
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

from steerpaper.heads import ov
from steerpaper.heads.lens import lens_logits
from steerpaper.heads.ov import (
    chance_cosines, decompose_heads, mlp_value_vectors, pooled_explained, steering_value_vectors,
)
from steerpaper.models.model import Model, load_model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering, residual_stream

RESPONSES = [Response([1, 20, 31, 45, 60, 22], [33, 44, 55, 66, 77]), Response([1, 50, 51], [30, 40, 7]),
             Response([1, 9, 80, 81], [82, 83, 7, 12])]
ALPHAS = (1.0, -2.0, 0.5)
LAYER = 1


def vector_for(model, seed=1):
    return 2.0 * torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed))


def steerings_for(model, layer=LAYER):
    vector = vector_for(model)
    return [Steering(vector, layer, alpha) for alpha in ALPHAS]


def positions_of(response):
    return range(len(response.prompt) - 1, len(response.tokens) - 1)


@pytest.fixture(scope="module")
def exact(model, request):
    """The same weights in Hugging Face alone, in float64 and eager."""
    folder = request.getfixturevalue(f"{model.family}_folder")
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", local_files_only=True).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def table(model):
    return decompose_heads(model, RESPONSES, steerings_for(model))


# -- heads -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("layer", [0, 2])
def test_steering_value_vectors_are_those_written_out(model, exact, layer):
    vector = vector_for(model)
    svv = steering_value_vectors(model, vector, layer)
    assert svv.shape == (4 - layer, 4, model.d_model) and svv.dtype == torch.float32
    for i in range(layer, 4):
        for head in range(4):
            expected = plain_ov.steering_value_vector(exact, vector.double(), i, head)
            torch.testing.assert_close(svv[i - layer, head].double(), expected, rtol=1e-5, atol=1e-6)


def test_what_is_read_off_a_model_on_an_accelerator_lies_on_the_cpu(monkeypatch):
    """Beside steering vectors, which lie there. A model on "meta" stands for one on a GPU: it can compute nothing with
    tensors from elsewhere."""
    away = Model(tiny_model("llama"), tiny_tokenizer())
    away.hf.to("meta")
    away.device = torch.device("meta")
    vector = vector_for(away)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: torch.zeros(tensor.shape, dtype=tensor.dtype)
                        if tensor.device.type == "meta" else tensor)
    svv = steering_value_vectors(away, vector, LAYER)
    assert svv.device.type == "cpu" and svv.shape == (away.n_layers - LAYER, away.n_heads, away.d_model)
    assert lens_logits(away, vector).device.type == "cpu"


def test_steering_value_vectors_are_linear(model):
    a, b = vector_for(model, 1), vector_for(model, 2)
    both = steering_value_vectors(model, 2 * a - b, LAYER)
    apart = 2 * steering_value_vectors(model, a, LAYER) - steering_value_vectors(model, b, LAYER)
    torch.testing.assert_close(both, apart, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [0, 2])
def test_the_two_terms_are_the_write(model, layer):
    table = decompose_heads(model, RESPONSES, steerings_for(model, layer))
    assert table[["layer", "head"]].to_numpy().tolist() == [[i, h] for i in range(layer, 4) for h in range(4)]
    assert (table.relative_error < 1e-5).all()


@pytest.mark.parametrize("preset", ["organism-llama", "organism-gemma2"])
def test_the_two_terms_are_the_write_in_the_organisms(preset):
    """Trained weights, and sequences longer than Gemma's sliding window."""
    organism = load_model(preset, device="cpu")
    ids = torch.randint(3, organism.n_vocab, (2, 80), generator=torch.Generator().manual_seed(5)).tolist()
    responses = [Response(ids[0][:20], ids[0][20:]), Response(ids[1][:9], ids[1][9:60])]
    steerings = [Steering(vector_for(organism), 4, alpha) for alpha in (0.3, -0.3)]
    assert (decompose_heads(organism, responses, steerings).relative_error < 1e-5).all()


@pytest.mark.parametrize("wrong", [lambda svv: 1.01 * svv, lambda svv: svv.roll(1, dims=1)])
def test_wrong_vectors_break_the_identity(model, monkeypatch, wrong):
    right = ov._steering_values
    monkeypatch.setattr(ov, "_steering_values", lambda *arguments: wrong(right(*arguments)))
    assert (decompose_heads(model, RESPONSES, steerings_for(model)).relative_error > 1e-4).all()


def test_decomposition_is_that_of_plain_runs(model, exact, table):
    rows = []
    for response, steering in zip(RESPONSES, steerings_for(model)):
        addition = steering.coefficient * steering.vector.double()
        base, steered = (plain_ov.run(exact, response.tokens, LAYER, a) for a in (None, addition))
        for i in range(LAYER, 4):
            for head in range(4):
                svv = plain_ov.steering_value_vector(exact, addition, i, head)
                for p in positions_of(response):
                    factor = plain_ov.coefficient(exact, steered[i], head, p)
                    before, after = (plain_ov.head_write(exact, run[i], i, head, p) for run in (base, steered))
                    D, direct = after - before, factor * svv
                    rows.append((i, head, factor, float(D @ D), float(D @ direct), float((D - direct).pow(2).sum())))
    plain = pd.DataFrame(rows, columns=["layer", "head", "factor", "size", "overlap", "rest"])
    groups = plain.groupby(["layer", "head"])
    sums = groups[["size", "overlap", "rest"]].sum()
    factor = groups.factor
    expected = pd.DataFrame({
        "coefficient": factor.mean(), "spread": factor.std(ddof=0) / factor.mean(), "q05": factor.quantile(0.05),
        "q50": factor.median(), "q95": factor.quantile(0.95), "change": groups["size"].mean(),
        "projection": sums.overlap / sums["size"], "explained": 1 - sums.rest / sums["size"]})
    measured = table.set_index(["layer", "head"])[list(expected.columns)]
    pd.testing.assert_frame_equal(measured, expected, rtol=1e-3, atol=1e-5)
    assert expected.explained.nunique() == len(expected) and expected.coefficient.min() > 0


def test_padding_changes_nothing(model, table):
    apart = decompose_heads(model, RESPONSES, steerings_for(model), batch_size=1)
    columns = [name for name in table if name != "relative_error"]  # which is rounding
    pd.testing.assert_frame_equal(table[columns], apart[columns], rtol=1e-4, atol=1e-6)


def test_a_turned_stream_is_explained_whole(llama):
    """A lone token attends to itself alone, and alpha s turns its stream without changing its length: pattern and RMS
    stay put, so that all of the first layer's change is the direct term. Later layers read other changes, too."""
    vector = vector_for(llama)
    h = residual_stream(llama, [[20]], [-1])[0, LAYER, 0]
    steering = Steering(vector, LAYER, float(-2 * (h @ vector) / (vector @ vector)))
    table = decompose_heads(llama, [Response([20], [30])], steering)
    for column in ("projection", "explained"):
        whole = (table[column] - 1).abs() < 1e-4
        assert whole[table.layer == LAYER].all() and not whole[table.layer > LAYER].any()


def test_heads_together_count_by_their_change():
    heads = pd.DataFrame({"layer": [2, 2, 1], "change": [3.0, 1.0, 2.0], "explained": [0.8, 0.0, 0.5],
                          "projection": [1.0, 0.2, 0.6]})
    pooled = pooled_explained(heads, ["layer"])
    assert pooled.columns.tolist() == ["layer", "explained", "projection"]
    assert pooled.to_numpy().ravel().tolist() == pytest.approx([2, 0.6, 0.8, 1, 0.5, 0.6])


def test_chance_keeps_a_cosine_that_the_map_keeps():
    """Under the identity svv have the vectors' own cosine, under one coordinate all or nothing of it."""
    vectors = torch.nn.functional.normalize(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    for cosine in (1.0, 1 + 1e-7, 0.3, -0.5):  # rounding takes cosines of parallel vectors beyond 1
        low, high = chance_cosines(vectors, vectors[:, None, None], cosine)
        torch.testing.assert_close(torch.cat([low, high]).flatten(), torch.full((2,), cosine))
    low, high = chance_cosines(vectors, vectors[:, None, None, :1], 0.0)
    assert low == -1 and high == 1


# -- MLPs --------------------------------------------------------------------------------------------------

def test_mlp_vectors_are_finite_differences(model, exact):
    vector, layer, step = vector_for(model), LAYER, 1e-5
    found = mlp_value_vectors(model, RESPONSES, vector, layer)
    assert found.vectors.shape == (4 - layer, model.d_model) and found.constancy.shape == (4 - layer,)
    runs = [(response, plain_ov.run(exact, response.tokens, layer)) for response in RESPONSES]
    for i in range(layer, 4):
        changes = []
        for response, noted in runs:
            for p in positions_of(response):
                h, nudge = noted[i].mlp_input[p], step * vector.double()
                ahead, behind = (plain_ov.mlp_write(exact, i, h + sign * nudge) for sign in (1, -1))
                changes.append((ahead - behind) / (2 * step))
        changes = torch.stack(changes)
        mean = changes.mean(0)
        torch.testing.assert_close(found.vectors[i - layer].double(), mean, rtol=1e-3, atol=1e-4)
        constancy = mean.pow(2).sum() / changes.pow(2).sum(-1).mean()
        torch.testing.assert_close(found.constancy[i - layer].double(), constancy, rtol=1e-3, atol=1e-5)
        assert 0 < constancy < 1


def test_mlp_vectors_do_not_depend_on_padding(model):
    together, apart = (mlp_value_vectors(model, RESPONSES, vector_for(model), 0, batch_size=n) for n in (3, 1))
    torch.testing.assert_close(together.vectors, apart.vectors, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.constancy, apart.constancy, rtol=1e-4, atol=1e-5)


def test_mlp_on_a_stream_is_what_the_run_writes(model):
    ids, mask = model.pad([response.tokens for response in RESPONSES])
    with torch.no_grad(), model.trace(ids, mask):
        stream, write = model.mlp_norm(2).input.save(), model.mlp_write(2).output.save()
    torch.testing.assert_close(model.mlp_on(2, stream), write, rtol=0, atol=1e-5)


# -- errors ------------------------------------------------------------------------------------------------

def test_refuses_what_does_not_fit(model):
    with pytest.raises(ValueError, match="shape"):
        steering_value_vectors(model, torch.ones(3), LAYER)
    with pytest.raises(ValueError, match="outside 0..3"):
        steering_value_vectors(model, vector_for(model), 4)
    with pytest.raises(ValueError, match="outside 0..3"):
        mlp_value_vectors(model, RESPONSES, vector_for(model), -1)
    with pytest.raises(ValueError, match="no responses"):
        decompose_heads(model, [], Steering(vector_for(model), LAYER))
    with pytest.raises(ValueError, match="no responses"):
        mlp_value_vectors(model, [], vector_for(model), LAYER)
