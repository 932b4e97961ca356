"""What overflows is refused wherever logits, streams or attention are read: it must never pass for a result."""

import pandas as pd
import pytest
import torch

from steerpaper.behaviour.first_tokens import first_token_log_odds
from steerpaper.behaviour.judges import SubstringJudge
from steerpaper.behaviour.judging import judged_responses
from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.flipped import patching_data
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.patching import patch_edges
from steerpaper.circuits.recovery import faithfulness
from steerpaper.finite import check_addition, check_finite
from steerpaper.heads.lens import lens_logits, lens_preference
from steerpaper.heads.ov import decompose_heads, mlp_value_vectors, steering_value_vectors
from steerpaper.heads.patterns import attention_change
from steerpaper.models.model import load_model
from steerpaper.models.responses import Response
from steerpaper.prompts.sets import load_prompts
from steerpaper.steering import Steering, generate, next_token_logits, residual_stream
from steerpaper.vectors.extraction import next_token_vector, principal_component
from steerpaper.vectors.pairs import ContrastPairs, contrast_pairs
from steerpaper.vectors.selection import score_candidates
from steerpaper.vectors.training import Setting, train

ROWS = [[1, 20, 31, 45], [1, 50], [1, 66, 41]]
RESPONSES = [Response([1, 20, 31], [33, 44, 55]), Response([1, 50], [30, 40])]
GRAPH = Graph(4, 4, 2, 1)


def reads(model, steering):
    """Everything that runs a model under a steering."""
    candidates = torch.stack([steering.coefficient * torch.as_tensor(steering.vector)] * 4)[:, None]
    prompts = load_prompts("harmful", "test", 2).assign(prompt=["Hi", "No"])
    yield lambda: generate(model, ROWS, steering, max_new_tokens=2)
    for kind in ("qk", "ov", "svv", "mlp", "mlp-before-norm"):
        yield lambda kind=kind: generate(model, ROWS, steering, kind, max_new_tokens=2)
    yield lambda: next_token_logits(model, ROWS, steering)
    yield lambda: score_candidates(model, candidates, ROWS, ROWS, [20])
    yield lambda: judged_responses(model, prompts, [steering], judge=SubstringJudge(), vocabulary=None)
    yield lambda: patching_data(model, ROWS, ROWS, steering, SubstringJudge())
    yield lambda: contrast_pairs(model, ["Hi"], ["No"], steering, SubstringJudge(), max_new_tokens=2)
    yield lambda: attribute(model, RESPONSES, steering, steps=1)
    yield lambda: patch_edges(model, RESPONSES, steering, GRAPH.edges.head(2))
    yield lambda: faithfulness(model, Circuit.random(GRAPH, 20, 0), RESPONSES, steering)
    yield lambda: decompose_heads(model, RESPONSES, steering)
    yield lambda: attention_change(model, RESPONSES, steering)
    yield lambda: steering_value_vectors(model, candidates[0, 0], 1)
    yield lambda: mlp_value_vectors(model, RESPONSES, candidates[0, 0], 1)
    yield lambda: next_token_vector(model, None, None, steering, norm="dim")


@pytest.mark.parametrize("dtype, coefficient, scale", [
    ("float16", 7e4, 1.0), ("float32", 3e38, 2.0), ("float32", 1e20, 1.0),  # whose square overflows in the norms
    ("bfloat16", 1e20, 1.0), ("float64", 1.0, 1e300), ("float32", 1.0, 1e300),
])
def test_a_steering_that_overflows_is_refused_everywhere(llama_folder, dtype, coefficient, scale):
    model = load_model(llama_folder, dtype=dtype, device="cpu")
    if dtype == "float64" or scale > 1e38:
        vector = torch.full((32,), scale, dtype=torch.float64)
    else:
        vector = torch.full((32,), scale)
    for i, run in enumerate(reads(model, Steering(vector, 1, coefficient))):
        with pytest.raises(ValueError, match="not finite"):
            run()
            pytest.fail(f"read {i} passed")
    said = rf"coefficient {coefficient:g} times a vector .* too large for a model in torch.{dtype}: .*use a smaller"
    with pytest.raises(ValueError, match=said.replace("e+", r"e\+")):
        generate(model, ROWS, Steering(vector, 1, coefficient))


def test_the_largest_that_fits_still_runs(llama):
    check_addition(torch.ones(32), 3e18, torch.float32)  # 32 * 9e36
    assert next_token_logits(llama, ROWS, Steering(torch.ones(32), 1, 3e18)).isfinite().all()
    check_addition(torch.ones(4), 6.5e4, torch.float16)
    with pytest.raises(ValueError, match="its square, which the norms take in float32, is not finite"):
        check_addition(torch.ones(4), 1e20, torch.float32)
    with pytest.raises(ValueError, match="torch.float16: it is not finite"):
        check_addition(torch.ones(4), 6.6e4, torch.float16)


@pytest.fixture(scope="module")
def overflowing(llama_folder):
    """One letter's stream leaves float16's reach in layer 1; prompts without it are unharmed."""
    model = load_model(llama_folder, dtype="float16", device="cpu")
    with torch.no_grad():
        model.hf.model.embed_tokens.weight[90, :16] = 6e4  # twice that after the MLP of layer 0
        model.hf.model.embed_tokens.weight[91, :16] = 6e4
    hook = model.hf.model.layers[0].register_forward_hook(
        lambda module, args, out: torch.where(out.abs() > 3e4, out * 2, out))
    yield model
    hook.remove()


def test_a_stream_that_overflows_by_itself_is_refused_by_prompt(overflowing):
    broken, whole = [[1, 20], [1, 90, 20], [1, 20, 91], [1, 30]], [[1, 20], [1, 30]]
    assert len(generate(overflowing, whole, max_new_tokens=3)) == 2
    assert residual_stream(overflowing, whole, [-1]).isfinite().all()
    one = Steering(torch.ones(32), 2)
    for run in (lambda: generate(overflowing, broken, max_new_tokens=2),
                lambda: generate(overflowing, broken, one, max_new_tokens=2),
                lambda: next_token_logits(overflowing, broken, batch_size=1)):
        with pytest.raises(ValueError, match=r"the logits of prompts \[(1, 2|1)\] are not finite .*wider dtype"):
            run()
    for frozen in ("qk", "ov", "mlp"):
        with pytest.raises(ValueError, match=r"logits of prompts \[2\] are not finite"):
            generate(overflowing, [[1, 20], [1, 30], [1, 20, 91]], one, frozen, max_new_tokens=2)
    with pytest.raises(ValueError, match=r"the residual streams of prompts \[1, 2\] are not finite"):
        residual_stream(overflowing, broken, [-1])
    with pytest.raises(ValueError, match=r"the residual streams of prompts \[0\]"):
        principal_component(overflowing, broken[2:3], whole[:1], 1, -1)
    letters = [chr(32 + token - 8) for token in (90, 91)]  # as the tiny tokenizer numbers them
    assert overflowing.tokenizer(letters, add_special_tokens=False)["input_ids"] == [[90], [91]]
    for run in (lambda: attribute(overflowing, [Response([1, 20], [30]), Response([1, 91], [30])], one, steps=1),
                lambda: attention_change(overflowing, [Response([1, 91], [30, 20])], one),
                lambda: mlp_value_vectors(overflowing, [Response([1, 91], [30, 20])], torch.ones(32), 2)):
        with pytest.raises(ValueError, match="not finite"):
            run()


def test_check_finite_names_the_rows_twins_included():
    values = torch.zeros(6, 3)
    check_finite(values, "logits of prompts", [7, 8, 9])
    values[1, 2], values[5, 0] = torch.nan, -torch.inf
    with pytest.raises(ValueError, match=r"the logits of prompts \[8, 9\] are not finite \(NaN or inf\)"):
        check_finite(values, "logits of prompts", [7, 8, 9])


def test_numbers_made_of_logits(llama):
    with pytest.raises(ValueError, match="first tokens' log odds are not finite"):
        first_token_log_odds(torch.tensor([[0.0, torch.nan, 1.0]]), [0])
    with pytest.raises(ValueError, match="none NaN"):
        lens_preference(torch.tensor([torch.nan, 1.0, 2.0]), torch.tensor([1, 0, -1]))
    with pytest.raises(ValueError, match="tokens of both kinds"):
        lens_preference(torch.ones(3), torch.tensor([1, 0, 0]))
    with pytest.raises(ValueError, match="for 2 tokens"):
        lens_preference(torch.ones(3), torch.tensor([1, -1]))
    for scale in (1e20, 1e-30):  # finite, and their squares are not, or are zero
        with pytest.raises(ValueError, match="so small or large that their squares are"):
            lens_logits(llama, torch.full((32,), scale))


def test_training_on_broken_pairs_says_so(overflowing):
    winners, losers = ([Response([1, 20], [token]), Response([1, 91], [token])] for token in (30, 31))
    pairs = ContrastPairs(winners, losers, [1, -1], pd.DataFrame({"asked": [2]}))
    with pytest.raises(ValueError, match=r"log-probabilities of responses \[1\] are not finite"):
        train(overflowing, pairs, pairs, 1, [Setting("ntp", 2)], epochs=1)
