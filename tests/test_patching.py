"""Data for patching: which prompts are kept, their counts, and attributions of parts pooled."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from steerpaper.circuits.attribution import Attribution, attribute
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.flipped import patching_data
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.recovery import faithfulness
from steerpaper.models.responses import teacher_forcing
from steerpaper.steering import Steering, generate

HARMFUL = ["hack it", "hurt them all", "rob a bank", "poison a well"]
HARMLESS = ["bake a pie", "sing", "walk the dog"]
LAYER, ALPHA = 1, 1.5


@dataclass
class ListJudge:
    """Calls those responses refusals that it was given, as lists of tokens."""

    refusals: list

    def expresses(self, responses, prompts=None):
        return [response.tokens in self.refusals for response in responses]


def vector_for(model):
    return 2.0 * torch.randn(model.d_model, generator=torch.Generator().manual_seed(3))


def answers(model, prompts, alpha):
    steering = Steering(vector_for(model), LAYER, alpha) if alpha else None
    return generate(model, prompts, steering, max_new_tokens=6)


def tokens(responses):
    return [response.tokens for response in responses]


def some_flips(model):
    """A judge under which all but the second harmful and all but the last harmless prompt flip."""
    base, steered = tokens(answers(model, HARMFUL, 0)), tokens(answers(model, HARMLESS, ALPHA))
    return ListJudge([base[0], base[2], base[3], *steered[:2]])


def data_of(model, judge=None, **changes):
    arguments = dict(positive=HARMFUL, negative=HARMLESS, steering=Steering(vector_for(model), LAYER, ALPHA),
                     judge=judge or some_flips(model), max_new_tokens=6)
    return patching_data(model, **(arguments | changes))


def test_keeps_both_responses_of_the_prompts_that_flip(model):
    data = data_of(model)
    kept = data.labels.groupby(["prompts", "response_from"]).prompt.agg(list)
    assert kept.to_dict() == {
        ("harmful", "base"): [0, 2, 3], ("harmful", "steered"): [0, 2, 3],
        ("harmless", "base"): [0, 1], ("harmless", "steered"): [0, 1]}
    for label, response, steering in zip(data.labels.itertuples(), data.responses, data.steerings):
        prompts, alpha = (HARMFUL, -ALPHA) if label.prompts == "harmful" else (HARMLESS, ALPHA)
        own = answers(model, [prompts[label.prompt]], alpha if label.response_from == "steered" else 0)[0]
        assert (response, steering.coefficient, steering.layer) == (own, alpha, LAYER)


@torch.no_grad()
def test_counts_are_those_of_whole_passes(model):
    data = data_of(model)
    expected = []
    for response, steering in zip(data.responses, data.steerings):
        batch, favourites = teacher_forcing(model, [response]), []
        for alpha in (0.0, steering.coefficient):
            with model.trace(batch.input_ids, batch.attention_mask):
                model.layer(LAYER).input = model.layer(LAYER).input + alpha * steering.vector
                favourites.append(model.logits.argmax(-1).save())
        expected.append(int((favourites[0] != favourites[1])[batch.response_mask].sum()))
    assert data.labels.positions.tolist() == expected and min(expected) > 0
    assert data.labels.response_positions.tolist() == [len(r.completion) for r in data.responses]
    counts = data.counts.set_index(["prompts", "response_from"])
    assert counts.responses.tolist() == [3, 3, 2, 2] and counts.asked.tolist() == [4, 4, 3, 3]
    assert counts.positions.sum() == sum(expected)


def test_subsets(model):
    data = data_of(model)
    part = data.subset("harmful", "steered")
    assert part.labels.prompt.tolist() == [0, 2, 3] and set(part.labels.response_from) == {"steered"}
    assert [s.coefficient for s in part.steerings] == [-ALPHA] * 3
    two = data.subset(n=2)
    assert two.counts.responses.tolist() == [2, 2, 2, 2]
    assert [data.responses[i] for i in (0, 1, 3, 4, 6, 7, 8, 9)] == two.responses
    for bad in (dict(prompts="wrapped"), dict(response_from="both"), dict(n=0)):
        with pytest.raises(ValueError, match="no responses with .*: choose 'harmful' or 'harmless', 'base' or"):
            data.subset(**bad)


def test_goes_into_attribution_and_faithfulness(model):
    """The four sets apart, pooled, are the four sets together."""
    data = data_of(model)
    together = attribute(model, data.responses, data.steerings, steps=2)
    parts = [data.subset(name, source) for name in ("harmful", "harmless") for source in ("base", "steered")]
    parts = [attribute(model, part.responses, part.steerings, steps=2) for part in parts]
    pooled = Attribution.pooled(parts)
    assert pooled.positions == together.positions == data.labels.positions.sum()
    scale = np.nanmax(np.abs(together.scores))
    np.testing.assert_allclose(pooled.scores, together.scores, rtol=1e-4, atol=1e-6 * scale)
    np.testing.assert_allclose(pooled.nodes.score, together.nodes.score, rtol=1e-4, atol=1e-6 * scale)
    torch.testing.assert_close(pooled.gradient, together.gradient, rtol=1e-4, atol=1e-6)
    steered = data.subset(response_from="steered")
    full = Circuit(pooled.graph, pooled.graph.mask)
    assert faithfulness(model, full, steered.responses, steered.steerings).value == pytest.approx(1, abs=1e-3)


def test_pooling_needs_parts_of_one_graph(llama):
    data = data_of(llama).subset("harmless", "base")
    heads, layers = (attribute(llama, data.responses, data.steerings, steps=1, split_heads=split)
                     for split in (True, False))
    assert layers.graph == Graph.of(llama, LAYER, split_heads=False)
    for bad in ([], [heads, layers]):
        with pytest.raises(ValueError, match="cannot be pooled"):
            Attribution.pooled(bad)


def test_clear_errors(llama):
    with pytest.raises(ValueError, match="none of the 4 harmful prompts: judged to refuse are 0 answers of the base"):
        data_of(llama, judge=ListJudge([]))
    with pytest.raises(ValueError, match="coefficient 1.5 flips none of the 3 harmless"):
        data_of(llama, judge=ListJudge(tokens(answers(llama, HARMFUL, 0))))
    with pytest.raises(ValueError, match="coefficient must be positive, -1 was given"):
        data_of(llama, steering=Steering(vector_for(llama), LAYER, -1))
    with pytest.raises(ValueError, match="at least one prompt"):
        data_of(llama, negative=[])
