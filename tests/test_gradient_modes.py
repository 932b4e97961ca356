"""A notebook may open with `torch.set_grad_enabled(False)`, or put all into inference mode: nothing changes by it."""

from contextlib import contextmanager

import pandas as pd
import pytest
import torch

from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.recovery import faithfulness
from steerpaper.heads.ov import decompose_heads, mlp_value_vectors
from steerpaper.models.model import load_model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering, generate
from steerpaper.vectors.pairs import ContrastPairs
from steerpaper.vectors.training import Setting, train

RESPONSES = [Response([1, 20, 31], [33, 44, 55]), Response([1, 50], [30, 40])]
OTHERS = [Response([1, 20, 31], [70, 71]), Response([1, 50], [60, 61, 62])]
PAIRS = ContrastPairs(RESPONSES, OTHERS, [1, -1], pd.DataFrame({"asked": [2]}))
VECTOR = 3 * torch.randn(32, generator=torch.Generator().manual_seed(1))


@contextmanager
def switched_off():
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(True)


def everything(folder):
    """A model loaded, and what is differentiated or not."""
    model = load_model(folder, device="cpu")
    steering = Steering(VECTOR * 1, 1)  # made in the mode, too
    yield "responses", torch.tensor([r.completion for r in generate(model, ["Hi", "No"], steering, max_new_tokens=3)])
    for metric in ("logit_difference", "kl"):
        found = attribute(model, RESPONSES, steering, steps=2, metric=metric)
        yield f"scores of {metric}", torch.from_numpy(found.scores[found.graph.mask])
        yield f"gradient of {metric}", found.gradient
    yield "circuit", torch.tensor(faithfulness(model, Circuit.top(found, 40), RESPONSES, steering).value)
    yield "heads", torch.from_numpy(decompose_heads(model, RESPONSES, steering).to_numpy())
    yield "MLPs", mlp_value_vectors(model, RESPONSES, steering.vector, 1).vectors
    for setting in (Setting("ntp", 2, 0.05), Setting("po", 2, 0.05, phi=0.1)):
        trained = train(model, PAIRS, PAIRS, 1, [setting], epochs=3)
        yield f"vector of {setting.method}", trained.vectors
        yield f"loss of {setting.method}", torch.tensor(trained.grid.validation_loss)


@pytest.fixture(scope="module")
def expected(llama_folder):
    found = dict(everything(llama_folder))
    assert all(value.isfinite().all() and value.any() for value in found.values()) and len(found) == 12
    return found


@pytest.mark.parametrize("mode", [switched_off, torch.no_grad, torch.inference_mode])
def test_the_mode_of_gradients_changes_nothing(llama_folder, expected, mode):
    with mode():
        found = dict(everything(llama_folder))
        assert not torch.is_grad_enabled()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert torch.is_grad_enabled()
