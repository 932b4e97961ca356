"""Responses and their steerings: made into one record, once for every call."""

import pytest
import torch
from test_runs import RESPONSES, steering_for

from steerpaper import steering as checks
from steerpaper.circuits import cases
from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.cases import Cases
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.patching import patch_edges
from steerpaper.circuits.recovery import faithfulness, faithfulness_of
from steerpaper.circuits.search import minimum_faithful
from steerpaper.heads.ov import decompose_heads, mlp_value_vectors
from steerpaper.heads.patterns import attention_change
from steerpaper.steering import Steering

GRAPH = Graph(4, 4, 2, 1)
CALLS = {
    "attribute": lambda model, steering: attribute(model, RESPONSES, steering, steps=1, batch_size=1),
    "patch_edges": lambda model, steering: patch_edges(model, RESPONSES, steering, GRAPH.edges[:3], batch_size=1),
    "faithfulness": lambda model, steering: faithfulness(model, Circuit(GRAPH, GRAPH.mask), RESPONSES, steering),
    "faithfulness_of": lambda model, steering: faithfulness_of(
        model, [Circuit(GRAPH, GRAPH.mask)] * 2, RESPONSES, steering, metric="kl", batch_size=1),
    "minimum_faithful": lambda model, steering: minimum_faithful(
        model, attribute(model, RESPONSES, steering, steps=1), RESPONSES, steering, resolution=20),
    "decompose_heads": lambda model, steering: decompose_heads(model, RESPONSES, steering, batch_size=1),
    "mlp_value_vectors": lambda model, steering: mlp_value_vectors(model, RESPONSES, steering.vector, 1, batch_size=1),
    "attention_change": lambda model, steering: attention_change(model, RESPONSES, steering, batch_size=1),
}


@pytest.mark.parametrize("call", CALLS)
def test_steering_and_responses_are_checked_once_for_every_call(llama, monkeypatch, call):
    """Of `minimum_faithful`, which tries many circuits, beside that of the attribution it is given here."""
    counts = {"steering": 0, "responses": 0}

    def counted(what, check):
        def run(*args):
            counts[what] += 1
            return check(*args)
        return run

    monkeypatch.setattr(checks, "_checked", counted("steering", checks._checked))
    monkeypatch.setattr(cases, "check_responses", counted("responses", cases.check_responses))
    CALLS[call](llama, steering_for(llama))
    calls = 2 if call == "minimum_faithful" else 1
    assert counts == {"steering": calls, "responses": calls}


def test_cases_by_hand(llama):
    vector = torch.arange(32.0)
    chosen = [Steering(vector.tolist(), 1, 2), Steering(vector, 1, -0.5), Steering(vector, 1)]
    found = Cases.of(llama, RESPONSES, chosen)
    assert found.coefficients == [2.0, -0.5, 1.0] and found.layer == 1 and found.lengths == [11, 6, 8]
    assert torch.equal(found.vector, vector)
    alpha, addition = found.additions(llama, [2, 0])
    assert alpha.flatten().tolist() == [1.0, 2.0] and torch.equal(addition[:, 0], torch.stack([vector, 2 * vector]))
    assert found.batch(llama, [1]).input_ids.tolist() == [RESPONSES[1].tokens]
    assert Cases.of(llama, RESPONSES, Steering(vector, 1, 3.0)).coefficients == [3.0] * 3
