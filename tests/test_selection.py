"""The rule of selection, its scores from the stream entering a layer, and other coefficients where it picks none."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import save_checkpoint, tiny_model

from steerpaper.behaviour.first_tokens import first_token_ids, first_token_log_odds
from steerpaper.models.model import load_model
from steerpaper.steering import Entering, Steering, next_token_logits
from steerpaper.vectors import selection
from steerpaper.vectors.extraction import difference_in_means
from steerpaper.vectors.selection import (
    admissible, candidate_at, conditions, count_conditions, score_candidates, score_coefficients,
)

HARMFUL = ["rob it", "burn the barn", "hit"]
HARMLESS = ["sing a song", "bake", "water the rose", "go"]


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """Six layers, of which the rule excludes the last one: l < 4.8."""
    folder = save_checkpoint(tmp_path_factory.mktemp("six"), tiny_model("llama", num_hidden_layers=6))
    return load_model(folder, device="cpu")


@pytest.fixture(scope="module")
def candidates(six):
    return difference_in_means(six, HARMFUL, HARMLESS)


@pytest.mark.parametrize("batch_size", [64, 3])
def test_logits_from_the_stream_entering_a_layer_are_those_of_whole_passes(model, batch_size):
    generator = torch.Generator().manual_seed(2)
    entering = Entering.of(model, HARMLESS, 0, batch_size=batch_size)
    for layer in range(model.n_layers):  # one after the other, as selection goes up
        entering = entering.at(layer)
        vectors = torch.randn(len(HARMLESS), model.d_model, generator=generator)
        steerings = [Steering(vector, layer, alpha) for vector, alpha in zip(vectors, (-1.0, 2.5, 0.0, 1.0))]
        found = entering.next_token_logits(steerings)
        assert torch.equal(found, next_token_logits(model, HARMLESS, steerings, batch_size=batch_size))
        assert not torch.allclose(found[:2], next_token_logits(model, HARMLESS[:2]), atol=1e-2)
        one = Entering.of(model, HARMLESS, layer, batch_size=batch_size).next_token_logits(steerings[1])
        assert torch.equal(one, next_token_logits(model, HARMLESS, steerings[1], batch_size=batch_size))


def test_entering_goes_up_only_and_steers_where_it_is(llama):
    entering, vector = Entering.of(llama, HARMFUL, 2), torch.ones(llama.d_model)
    with pytest.raises(ValueError, match=r"layer.*1.*2\.\.3"):
        entering.at(1)
    with pytest.raises(ValueError, match=r"layer.*4.*0\.\.3"):
        Entering.of(llama, HARMFUL, 4)
    for steering in (Steering(vector, 3), None, [Steering(vector, 2), None, Steering(vector, 2)]):
        with pytest.raises(ValueError, match="steering enters at .*the prompts are about to enter layer 2"):
            entering.next_token_logits(steering)
    with pytest.raises(ValueError, match="too large for a model"):
        entering.next_token_logits(Steering(vector, 2, 1e38))


def test_scores_are_those_of_whole_passes_bit_for_bit(model):
    """What the tables on record were made by: every layer's prompts through the whole model."""
    candidates, tokens = difference_in_means(model, HARMFUL, HARMLESS), first_token_ids(model, ["r", "o"])
    table = score_candidates(model, candidates, HARMFUL, HARMLESS, tokens, batch_size=5)
    n = candidates.shape[1]
    for layer, rows in table.groupby("layer"):
        rows = rows.sort_values("position")
        for name, prompts, alpha in (("bypass", HARMFUL, -1.0), ("induce", HARMLESS, 1.0)):
            steerings = [Steering(vector, layer, alpha) for vector in candidates[layer] for _ in prompts]
            logits = next_token_logits(model, prompts * n, steerings, batch_size=5)
            odds = first_token_log_odds(logits, tokens).view(n, -1).mean(-1)
            assert rows[name].tolist() == odds.tolist(), (layer, name)


def test_lower_layers_are_run_once(tmp_path):
    model = load_model(save_checkpoint(tmp_path, tiny_model("llama")), device="cpu")
    candidates = difference_in_means(model, HARMFUL, HARMLESS)
    rows = {layer: 0 for layer in range(model.n_layers)}
    for i, layer in enumerate(model.hf.model.layers):
        layer.self_attn.q_proj.register_forward_hook(
            lambda _, given, __, i=i: rows.update({i: rows[i] + len(given[0])}))
    score_candidates(model, candidates, HARMFUL, HARMLESS, [20])
    n, positions = len(HARMFUL) + len(HARMLESS), candidates.shape[1]
    # In layer l: steered in layers 1 to l, ablated in 1 to 3, unablated once, and once on the way up, but in the last.
    ablated = 3 * len(HARMLESS) * positions + len(HARMLESS)
    assert rows == {layer: ablated + n * positions * (layer + (layer < 3)) for layer in rows}


def test_candidates_of_excluded_layers_are_listed_without_scores(six, candidates):
    tokens = first_token_ids(six, ["r"])
    whole = score_candidates(six, candidates, HARMFUL, HARMLESS, tokens, kl_limit=0.5)
    found = score_candidates(six, candidates, HARMFUL, HARMLESS, tokens, kl_limit=0.5, skip_excluded=True)
    assert len(found) == len(whole) and whole.notna().all(axis=None)
    assert (found.layer[found.score.isna()] == 5).all() and found.score.isna().sum() == candidates.shape[1]
    assert not found.admissible[found.layer == 5].any()
    pd.testing.assert_frame_equal(found[found.layer < 5].reset_index(drop=True),
                                  whole[whole.layer < 5].reset_index(drop=True))
    assert candidate_at(found, 5, -1).induce.isna().all()  # a preset may still fix one


def test_excluded_layers_have_no_scores_though_a_kept_run_has_them(six, candidates, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERPAPER_KEPT", str(tmp_path))
    asked = six, candidates, HARMFUL, HARMLESS, first_token_ids(six, ["r"])
    few, whole, again = (score_candidates(*asked, skip_excluded=skipped) for skipped in (True, False, True))
    assert whole.notna().all(axis=None)
    pd.testing.assert_frame_equal(few, again)


def test_scores_at_other_coefficients_by_hand(six, candidates):
    tokens = range(8, 60)  # half of the vocabulary: log odds on both sides of 0
    scores = score_candidates(six, candidates, HARMFUL, HARMLESS, tokens)
    scores["kl"] = np.where(scores.position == -1, 0.2, 2.0)
    some = scores[scores.layer.between(2, 5)]
    found = score_coefficients(six, candidates, some, [0.5, 1.0, 6.0], HARMFUL, HARMLESS, tokens, kl_limit=0.5)
    # Only what no coefficient can exclude: KL below the limit, layer below 4.8.
    assert sorted(zip(found.layer, found.position, found.coefficient)) == [
        (layer, -1, alpha) for layer in (2, 3, 4) for alpha in (0.5, 1.0, 6.0)]
    assert (found.kl == 0.2).all()
    for row in found.itertuples():
        vector = candidates[row.layer, -1]
        for name, prompts, alpha in (("bypass", HARMFUL, -row.coefficient), ("induce", HARMLESS, row.coefficient)):
            logits = next_token_logits(six, prompts, Steering(vector, row.layer, alpha))
            assert getattr(row, name) == pytest.approx(first_token_log_odds(logits, tokens).mean().item(), abs=1e-4)
        assert row.score == pytest.approx(1 / (1 + np.exp(-row.bypass)) - 1 / (1 + np.exp(-row.induce)))
        assert row.admissible == (row.induce > 0)
    same = found[found.coefficient == 1].merge(scores, on=["layer", "position"], suffixes=("", "_at_1"))
    np.testing.assert_allclose(same[["bypass", "induce"]], same[["bypass_at_1", "induce_at_1"]], atol=1e-5)
    for _, group in found.groupby("admissible"):
        assert group.score.is_monotonic_increasing
    assert found.admissible.is_monotonic_decreasing and found.admissible.nunique() == 2


def test_where_kl_excludes_all_the_best_scores_go_on(six, candidates):
    tokens = first_token_ids(six, ["r"])
    scores = score_candidates(six, candidates, HARMFUL, HARMLESS, tokens).assign(kl=9.0)
    found = score_coefficients(six, candidates, scores, [2.0], HARMFUL, HARMLESS, tokens, kl_limit=0.5)
    best = scores[scores.layer < 5].sort_values("score").drop_duplicates("layer")
    assert sorted(zip(found.layer, found.position)) == sorted(zip(best.layer, best.position)) and len(found) == 4
    assert not found.admissible.any() and found.score.is_monotonic_increasing


def test_a_layer_whose_best_candidate_is_beyond_the_limit_is_there_by_another(six, candidates):
    tokens = first_token_ids(six, ["r"])
    scores = score_candidates(six, candidates, HARMFUL, HARMLESS, tokens)
    best = scores.sort_values("score").drop_duplicates("layer")
    scores["kl"] = np.where(scores.index.isin(best.index), 2.0, 0.2)
    found = score_coefficients(six, candidates, scores, [2.0], HARMFUL, HARMLESS, tokens, kl_limit=0.5)
    second = scores[(scores.kl == 0.2) & (scores.layer < 5)].sort_values("score").drop_duplicates("layer")
    assert sorted(zip(found.layer, found.position)) == sorted(zip(second.layer, second.position)) and len(found) == 4
    assert (found.kl == 0.2).all()


def test_no_coefficient_helps_where_every_layer_is_excluded(six, candidates):
    tokens = first_token_ids(six, ["r"])
    scores = score_candidates(six, candidates, HARMFUL, HARMLESS, tokens, skip_excluded=True)
    n = candidates.shape[1]
    with pytest.raises(ValueError, match=rf"none of {n} candidates given can be chosen, by no coefficient.*are met: "
                                         r"induce > 0 by 0, KL < limit by 0, l < 0\.8 L by 0\. Let .*layer_range"):
        score_coefficients(six, candidates, scores[scores.layer == 5], [1.0], HARMFUL, HARMLESS, tokens)
    for coefficients, message in (([], "coefficients are empty"), (["2"], "a coefficient must be a number"),
                                  ([float("nan")], "a coefficient must be finite")):
        with pytest.raises(ValueError, match=message):
            score_coefficients(six, candidates, scores, coefficients, HARMFUL, HARMLESS, tokens)


def test_an_interrupted_scoring_goes_on_with_the_same_numbers(six, candidates, tmp_path, monkeypatch):
    tokens = first_token_ids(six, ["r"])

    def both():
        scores = score_candidates(six, candidates, HARMFUL, HARMLESS, tokens, batch_size=5)
        return scores, score_coefficients(six, candidates, scores, [2.0, 3.0], HARMFUL, HARMLESS, tokens, kl_limit=99.0)

    whole, plain, layers = both(), selection._first_token_scores, []
    monkeypatch.setenv("STEERPAPER_KEPT", str(tmp_path))

    def watched(entering, *rest):
        layers.append(entering[0].layer)
        if len(layers) == limit:
            raise InterruptedError
        return plain(entering, *rest)

    monkeypatch.setattr(selection, "_first_token_scores", watched)
    for limit in (3, 9):  # in the third layer of the one, then in the second of the other
        with pytest.raises(InterruptedError):
            both()
    limit = None
    for found, expected in zip(both(), whole):
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert layers == [1, 2, 3, 3, 4, 5, 1, 1, 2, 2, 2, 3, 3, 4, 4]


def test_conditions_by_hand():
    scores = pd.DataFrame({"layer": [1, 7, 8, 3, 9], "position": -1, "induce": [0.0, 0.1, 1.0, 2.0, np.nan],
                           "kl": [0.05, 0.1, 0.2, 0.05, np.nan]})
    assert conditions(scores, 10).to_numpy().tolist() == [
        [False, True, True], [True, False, True], [True, False, False], [True, True, True], [False, False, False]]
    assert admissible(scores, 10).tolist() == [False, False, False, True, False]
    assert admissible(scores, 10, 0.11).tolist() == [False, True, False, True, False]
    counts = {"candidates": 5, "induce > 0": 3, "KL < limit": 2, "l < 0.8 L": 3, "all": 1,
              "all in layer_range": 1, "fails_most": "KL < limit"}
    assert count_conditions(scores, 10) == {"kl_limit": 0.1} | counts
    assert count_conditions(scores, 10, layers=range(4, 9)) == {"kl_limit": 0.1} | counts | {
        "all in layer_range": 0}
    # At several coefficients a candidate counts once, and meets all conditions only where it does at one of them.
    twice = pd.concat([scores.assign(coefficient=1), scores.assign(coefficient=2, induce=[3.0, -1.0, 1.0, -2.0, 1.0])])
    assert count_conditions(twice, 10, 0.5) == {
        "kl_limit": 0.5, "candidates": 5, "induce > 0": 5, "KL < limit": 4, "l < 0.8 L": 3, "all": 3,
        "all in layer_range": 3, "fails_most": "l < 0.8 L"}


def test_candidates_without_a_direction_are_an_error(llama):
    with pytest.raises(ValueError, match="all candidates are zero: at the template's tokens both sets"):
        score_candidates(llama, torch.zeros(4, 2, llama.d_model), HARMFUL, HARMLESS, [20])
