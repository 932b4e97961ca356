"""Steering vectors and their selection against plain computations on tiny random models."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from steerpaper.behaviour.first_tokens import first_token_ids, first_token_log_odds
from steerpaper.behaviour.judges import SubstringJudge
from steerpaper.behaviour.judging import judged_responses, rates
from steerpaper.models.responses import Response
from steerpaper.steering import Steering, generate, next_token_logits
from steerpaper.vectors.extraction import (
    best_run, difference_in_means, next_token_vector, preference_vector, principal_component, random_vector,
)
from steerpaper.vectors.pairs import ContrastPairs
from steerpaper.vectors.selection import (
    admissible, candidate_at, score_candidates, select_by_generation, select_coefficient,
)
from steerpaper.vectors.training import Setting, train

HARMFUL = ["rob it", "burn the barn", "hit"]
HARMLESS = ["sing a song", "bake", "water the rose", "go"]


def test_difference_in_means_by_hand(model, plain):
    found = difference_in_means(model, HARMFUL, HARMLESS, batch_size=2)
    n = len(model.post_instruction_tokens)
    assert found.shape == (model.n_layers, n, model.d_model)
    sums = [torch.zeros(model.n_layers, n, model.d_model) for _ in range(2)]
    for total, prompts in zip(sums, (HARMFUL, HARMLESS), strict=True):
        for prompt in prompts:
            states = plain(torch.tensor([model.tokenize(prompt)]), output_hidden_states=True).hidden_states
            total += torch.stack([states[layer][0, -n:] for layer in range(model.n_layers)])
    torch.testing.assert_close(found, sums[0] / 3 - sums[1] / 4, rtol=1e-4, atol=1e-5)
    assert not found[0].any()  # entering layer 0 a template token is its embedding


def test_selection_scores_by_hand(model):
    candidates = difference_in_means(model, HARMFUL, HARMLESS)
    tokens = first_token_ids(model, ["r", "o"])
    table = score_candidates(model, candidates, HARMFUL, HARMLESS, tokens, kl_limit=0.5, batch_size=5)
    assert len(table) == (model.n_layers - 1) * candidates.shape[1]  # layer 0 holds no direction
    row = table[(table.layer == 2) & (table.position == -1)].iloc[0]
    vector = candidates[2, -1]
    bypass = first_token_log_odds(next_token_logits(model, HARMFUL, Steering(vector, 2, -1.0)), tokens).mean()
    induce = first_token_log_odds(next_token_logits(model, HARMLESS, Steering(vector, 2, 1.0)), tokens).mean()
    plain = next_token_logits(model, HARMLESS).softmax(-1)
    ablated = next_token_logits(model, HARMLESS, ablation=vector).softmax(-1)
    kl = (plain * (plain / ablated).log()).sum(-1).mean()
    assert row.bypass == pytest.approx(float(bypass), abs=1e-4)
    assert row.induce == pytest.approx(float(induce), abs=1e-4)
    assert row.kl == pytest.approx(float(kl), rel=1e-3)
    assert row.score == pytest.approx(float(bypass.sigmoid() - induce.sigmoid()), abs=1e-4)


def test_selection_order_and_conditions(model):
    candidates = difference_in_means(model, HARMFUL, HARMLESS)
    table = score_candidates(model, candidates, HARMFUL, HARMLESS, first_token_ids(model, ["r"]), kl_limit=0.5)
    expected = (table.induce > 0) & (table.kl < 0.5) & (table.layer < 0.8 * model.n_layers)
    assert (table.admissible == expected).all() and (admissible(table, model.n_layers, 0.5) == expected).all()
    paper = (table.induce > 0) & (table.kl < 0.1) & (table.layer < 0.8 * model.n_layers)
    assert (admissible(table, model.n_layers) == paper).all()
    for _, group in table.groupby("admissible"):
        assert group.score.is_monotonic_increasing
    assert table.admissible.is_monotonic_decreasing


def test_scoring_refuses_candidates_of_another_model(model):
    with pytest.raises(ValueError, match="candidates for 3 layers, but the model has 4"):
        score_candidates(model, torch.zeros(3, 2, model.d_model), HARMFUL, HARMLESS, [1])


@pytest.mark.parametrize("prompts", [([], HARMLESS), (HARMFUL, [])])
def test_empty_prompt_lists(model, prompts):
    with pytest.raises(ValueError, match="prompt"):
        difference_in_means(model, *prompts)


def test_random_vector_has_the_norm_and_its_own_direction():
    like = torch.linspace(-1, 2, 64)
    first, again, other = random_vector(like, 0), random_vector(like, 0), random_vector(like, 1)
    assert torch.equal(first, again)
    assert first.norm().item() == pytest.approx(like.norm().item(), rel=1e-5)
    assert abs(torch.cosine_similarity(first, other, dim=0)) < 0.5


def prompt_table(prompts):
    return pd.DataFrame({"prompt": prompts, "topic": ["song"] * len(prompts)})


def test_judged_responses_are_those_of_generate(model):
    steerings = [None, Steering(torch.ones(model.d_model), 1, -3.0)]
    how = dict(judge=SubstringJudge(("a",)), vocabulary={"song"}, max_new_tokens=6)
    table = judged_responses(model, prompt_table(HARMLESS), steerings, **how)
    for run, steering in enumerate(steerings):
        expected = [r.text for r in generate(model, HARMLESS, steering, max_new_tokens=6)]
        assert table[table.run == run].text.tolist() == expected
    assert (table.expressed == table.text.str.contains("a", case=False)).all()
    with pytest.raises(ValueError, match=r"no steerings given: pass \[None\]"):
        judged_responses(model, prompt_table(HARMLESS), [], **how)


def test_rates_by_hand():
    judged = pd.DataFrame({
        "run": [0, 0, 0, 0, 1, 1], "prompt": list("abcdab"),
        "expressed": [True, False, False, False, True, True],
        "clean": [True, True, False, False, True, True],
    })
    table = rates(judged, ["run"])
    assert table.asr.tolist() == [0.75, 0.0] and table.clean.tolist() == [0.5, 1.0] and table.n.tolist() == [4, 2]
    # Wilson, 3 of 4, z = 1.959964: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    assert table.asr_low[0] == pytest.approx(0.30064, abs=1e-5)
    assert table.asr_high[0] == pytest.approx(0.95441, abs=1e-5)
    # 8 of 10, and none of 10, whose interval ends in 0 and z² / (10 + z²)
    judged = pd.DataFrame({"run": [0] * 10 + [1] * 10, "prompt": list(map(str, range(10))) * 2,
                           "expressed": [False] * 8 + [True] * 12, "clean": True})
    ends = rates(judged, ["run"])[["asr", "asr_low", "asr_high"]].to_numpy()
    np.testing.assert_allclose(ends, [[0.8, 0.49016, 0.94332], [0, 0, 0.27753]], atol=1e-5)


def test_an_empty_shortlist_is_an_error(model):
    with pytest.raises(ValueError, match="the shortlist is empty: give at least one candidate; `count_conditions`"):
        select_by_generation(
            model, torch.zeros(4, 1, model.d_model), pd.DataFrame({"layer": [], "position": []}), [1.0],
            prompt_table(HARMFUL), prompt_table(HARMLESS), judge=SubstringJudge(), vocabulary={"song"},
        )


def test_a_fixed_candidate_must_be_there(model):
    candidates = difference_in_means(model, HARMFUL, HARMLESS)
    n = candidates.shape[1]
    scores = score_candidates(model, candidates, HARMFUL, HARMLESS, first_token_ids(model, ["r"]))
    found = candidate_at(scores, 2, -n)
    assert found[["layer", "position"]].to_numpy().tolist() == [[2, -n]]
    for layer, position in ((0, -1), (model.n_layers, -1), (2, -n - 1), (2, 0)):
        message = (f"layer {layer}, position {position} was given, but candidates stand at layers 1 to "
                   f"{model.n_layers - 1} and at positions {-n} to -1")
        with pytest.raises(ValueError, match=message):
            candidate_at(scores, layer, position)


def test_select_by_generation_ranks_by_the_weaker_direction(model):
    candidates = difference_in_means(model, HARMFUL, HARMLESS)
    shortlist = pd.DataFrame({"layer": [1, 2], "position": [-1, -1]})
    how = dict(judge=SubstringJudge(("e",)), vocabulary={"song"}, max_new_tokens=5)
    table = select_by_generation(
        model, candidates, shortlist, [0.5, 4.0], prompt_table(HARMFUL), prompt_table(HARMLESS), **how
    )
    assert len(table) == 4
    assert (table.flipped == table[["asr_harmful"]].assign(x=1 - table.asr_harmless).min(axis=1)).all()
    enough = table.flipped >= 0.9
    assert enough.is_monotonic_decreasing
    assert table.flipped_clean[enough].is_monotonic_decreasing
    assert table.flipped[~enough].is_monotonic_decreasing
    for row in table.itertuples():
        vector, layer = candidates[row.layer, row.position], row.layer
        harmful = generate(model, HARMFUL, Steering(vector, layer, -row.coefficient), max_new_tokens=5)
        harmless = generate(model, HARMLESS, Steering(vector, layer, row.coefficient), max_new_tokens=5)
        assert row.asr_harmful == pytest.approx(sum("e" not in r.text.lower() for r in harmful) / 3)
        assert row.asr_harmless == pytest.approx(sum("e" not in r.text.lower() for r in harmless) / 4)


# -- baselines and learned vectors -----------------------------------------------------------------------------

def test_principal_component_by_hand(model, plain):
    harmful, harmless = HARMFUL, HARMLESS[:3]
    found = principal_component(model, harmful, harmless, 2, -2, batch_size=2)
    rows = []
    for pair in zip(harmful, harmless, strict=True):
        states = [plain(torch.tensor([model.tokenize(p)]), output_hidden_states=True).hidden_states for p in pair]
        rows.append((states[0][2][0, -2] - states[1][2][0, -2]).detach().double().numpy())
    differences = np.array(rows)
    mean = differences.mean(0)
    values, directions = np.linalg.eigh(np.cov(differences.T))
    expected = directions[:, values.argmax()] * np.linalg.norm(mean)
    expected *= np.sign(expected @ mean)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-4)
    dim = difference_in_means(model, harmful, harmless)[2, -2]
    assert found.norm().item() == pytest.approx(dim.norm().item(), rel=1e-4)
    assert found @ dim > 0


def test_principal_component_refuses_what_has_no_pairs(model):
    with pytest.raises(ValueError, match="3 positive and 4 negative prompts were given: they are paired"):
        principal_component(model, HARMFUL, HARMLESS, 1, -1)
    with pytest.raises(ValueError, match=r"layer 4 is outside 0\.\.3"):
        principal_component(model, HARMFUL, HARMFUL, 4, -1)
    for positive, negative in ((HARMFUL[:1], HARMLESS[:1]), (HARMFUL[:1] * 2, HARMLESS[:1] * 2), (HARMFUL, HARMFUL)):
        with pytest.raises(ValueError, match=f"{len(positive)} pairs were given, whose differences do not vary"):
            principal_component(model, positive, negative, 1, -1)


def test_best_run_by_hand():
    grid = pd.DataFrame([
        # Within 0.5 the second has the lowest loss, within 0.1 the fourth; of these two the second matches better,
        # and the best match of all, the third's, does not count.
        (0.5, 3.0, 0.9), (0.5, 2.0, 0.8), (0.1, 0.9, 0.99), (0.1, 0.5, 0.7),
    ], columns=["phi", "validation_loss", "match_score"])
    assert best_run(grid) == 1
    assert best_run(grid.assign(match_score=0.5)) == 1  # the first of equals
    assert best_run(grid.assign(phi=None)) == 3  # NTP: the lowest validation loss


def made_up_pairs(model):
    rng = random.Random(0)
    prompts = [[rng.randrange(8, model.n_vocab) for _ in range(4)] for _ in range(4)]
    said = [[Response(p, [rng.randrange(8, model.n_vocab) for _ in range(n)]) for p in prompts] for n in (3, 4)]
    return ContrastPairs(*said, [1, -1, 1, -1], pd.DataFrame({"asked": [4]}))


HOW = dict(batch_sizes=(2, 4), learning_rates=(0.05, 0.2), seeds=(42, 5), epochs=2)


def test_next_token_vector_is_the_best_run_of_the_grid(model):
    pairs, dim = made_up_pairs(model), Steering(torch.full((model.d_model,), 0.5), 1)
    found = next_token_vector(model, pairs, pairs, dim, more_seeds=(5, 0), **HOW)
    settings = [Setting("ntp", *point) for point in itertools.product((2, 4), (0.05, 0.2), (42, 5))]
    alone = train(model, pairs, pairs, 1, settings, epochs=2)
    best = alone.grid.validation_loss.idxmin()
    assert found.setting == settings[best] and torch.equal(found.vector, alone.vectors[best])
    assert found.grid.chosen.sum() == 1 and found.grid.chosen[best]
    pd.testing.assert_frame_equal(found.grid.drop(columns="chosen"), alone.grid)
    assert set(found.by_seed) == {42, 5, 0}
    assert torch.equal(found.by_seed[found.setting.seed], found.vector)
    third = train(model, pairs, pairs, 1, [replace(found.setting, seed=0)], epochs=2)
    torch.testing.assert_close(found.by_seed[0], third.vectors[0], rtol=1e-4, atol=1e-5)


def test_preference_vector_follows_the_rule_and_the_norm(model):
    pairs, dim = made_up_pairs(model), Steering(torch.full((model.d_model,), 0.5), 2)
    found = preference_vector(model, pairs, pairs, dim, phis=(0.6, 0.0), norm="dim", **HOW)
    assert found.grid.phi.tolist() == [0.6, 0.0] * 8
    by_phi = found.grid.loc[found.grid.groupby("phi").validation_loss.idxmin()]
    assert found.grid[found.grid.chosen].match_score.item() == by_phi.match_score.max()
    assert found.vector.norm().item() == pytest.approx(dim.vector.norm().item(), rel=1e-5)
    assert found.setting.phi == found.grid[found.grid.chosen].phi.item()
    assert set(found.by_seed) == {42, 5}


def test_learned_vectors_refuse_an_unknown_norm_and_an_empty_grid(model):
    pairs, dim = made_up_pairs(model), Steering(torch.ones(model.d_model), 1)
    with pytest.raises(ValueError, match="unknown norm 'unit': choose one of free, dim"):
        next_token_vector(model, pairs, pairs, dim, norm="unit")
    with pytest.raises(ValueError, match="settings of the methods"):
        preference_vector(model, pairs, pairs, dim, phis=())


def test_select_coefficient_gives_each_method_its_own_ranking(model):
    candidates = difference_in_means(model, HARMFUL, HARMLESS)
    how = dict(judge=SubstringJudge(("e",)), vocabulary={"song"}, max_new_tokens=5)
    prompts, coefficients = (prompt_table(HARMFUL), prompt_table(HARMLESS)), [0.5, 4.0, 1.0]
    vectors = {"b": candidates[1, -1], "a": candidates[1, -2]}
    table = select_coefficient(model, vectors, 1, coefficients, *prompts, **how)
    assert table.method.tolist() == ["b"] * 3 + ["a"] * 3
    for (method, group), position in zip(table.groupby("method", sort=False), (-1, -2), strict=True):
        shortlist = pd.DataFrame({"layer": [1], "position": [position]})
        expected = select_by_generation(model, candidates, shortlist, coefficients, *prompts, **how)
        group = group.drop(columns="method").reset_index(drop=True)
        pd.testing.assert_frame_equal(group, expected.drop(columns=["layer", "position"]), obj=method)
    for given, wanted in (({}, "vectors must be a mapping"), (vectors, "coefficients are empty")):
        with pytest.raises(ValueError, match=wanted):
            select_coefficient(model, given, 1, [], *prompts, **how)
