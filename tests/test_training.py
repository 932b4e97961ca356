"""Losses and training of learned vectors against a plain reference: one sequence and one run at a time."""

import math
import random

import pandas as pd
import plain_training as reference
import pytest
import torch
from conftest import save_checkpoint, tiny_model

from steerpaper.models.model import load_model
from steerpaper.models.responses import Response
from steerpaper.steering import generate
from steerpaper.vectors import training
from steerpaper.vectors.losses import Continuations, preference_loss, preference_weight
from steerpaper.vectors.pairs import ContrastPairs
from steerpaper.vectors.training import Setting, train

LAYER = 1
COUNTS = pd.DataFrame({"prompts": ["harmful", "harmless"], "asked": [3, 3], "kept": [3, 3]})


def made_up_pairs(model, n: int, seed: int) -> ContrastPairs:
    """Random tokens of unequal lengths, both signs."""
    rng = random.Random(seed)

    def draw(low, high):
        return [rng.randrange(8, model.n_vocab) for _ in range(rng.randint(low, high))]

    prompts = [draw(3, 9) for _ in range(n)]
    winners, losers = ([Response(prompt, draw(2, 7)) for prompt in prompts] for _ in range(2))
    return ContrastPairs(winners, losers, [1 if i % 2 else -1 for i in range(n)], COUNTS)


def plainly(pairs: ContrastPairs) -> list[reference.Pair]:
    return [(w.prompt, w.completion, x.completion, sign) for w, x, sign in zip(pairs.winners, pairs.losers, pairs.signs)]


@pytest.fixture(scope="module")
def pairs(model):
    return made_up_pairs(model, 5, seed=3)


@pytest.fixture(scope="module")
def validation(model):
    return made_up_pairs(model, 4, seed=7)


def start_of(model, pairs, seed: int) -> torch.Tensor:
    """The initial vector of a seed: training at a learning rate of nothing returns it."""
    return train(model, pairs, pairs, LAYER, [Setting("ntp", 50, 1e-30, seed)], epochs=1).vectors[0]


# -- losses ----------------------------------------------------------------------------------------------------

def test_preference_weight_and_loss_by_hand():
    winner, loser = torch.tensor([-10.0, -90.0, -3.0]), torch.tensor([-4.0, -10.0, -8.0])
    weight = preference_weight(winner, loser, torch.tensor([0.1, 0.05, 0.5]))
    assert weight.tolist() == pytest.approx([1.0, 4.0, 1.0])  # 0.6 and -2.5 are raised to 1
    # 4 / 9 * -9 - 1 / 5 * -10 = -2, and -log sigma(-2) = log(1 + e^2)
    steered = torch.tensor([-9.0]), torch.tensor([-10.0])
    loss = preference_loss(*steered, torch.tensor([9]), torch.tensor([5]), torch.tensor([4.0]))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(2)), rel=1e-6)


@pytest.mark.parametrize("phi", [None, 0.0, 0.7])
@pytest.mark.parametrize("layer", [0, 2])
def test_losses_are_the_plain_ones(model, plain, pairs, phi, layer):
    data = Continuations.of(model, pairs, "ntp" if phi is None else "po", layer, n_tokens=64, batch_size=3)
    vectors = 0.5 * torch.randn(5, model.d_model, generator=torch.Generator().manual_seed(0))
    items = torch.tensor([4, 0, 3, 1, 2])
    found = data.losses(items, vectors, torch.full((5,), phi or 0.0))
    with torch.no_grad():
        expected = [
            float(reference.loss_of(plain, plainly(pairs)[i], layer, v, phi)) for i, v in zip(items.tolist(), vectors)
        ]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("phi", [None, 0.0, 0.7])
def test_gradients_are_finite_differences(model, pairs, phi):
    data = Continuations.of(model, pairs, "ntp" if phi is None else "po", LAYER, n_tokens=64, batch_size=3)
    items, phis, step = torch.arange(5), torch.full((5,), phi or 0.0), 0.01
    generator = torch.Generator().manual_seed(1)
    vectors = (0.5 * torch.randn(5, model.d_model, generator=generator)).requires_grad_()
    (gradient,) = torch.autograd.grad(data.losses(items, vectors, phis).sum(), vectors)
    for _ in range(3):
        direction = torch.randn(5, model.d_model, generator=generator)
        with torch.no_grad():
            up, down = (data.losses(items, vectors + sign * step * direction, phis) for sign in (1, -1))
        torch.testing.assert_close((up - down) / (2 * step), (gradient * direction).sum(-1), rtol=0.02, atol=2e-3)


def test_preference_weights_differ_from_one_in_these_pairs(model, pairs):
    """Else the tests with phi above would not see it."""
    data = Continuations.of(model, pairs, "po", LAYER, n_tokens=64, batch_size=8)
    weight = preference_weight(*data.base.view(2, -1), 0.7)
    assert (weight > 1.1).any() and (weight == 1).any()


def test_only_the_first_tokens_count(model, pairs):
    cut = ContrastPairs(
        [Response(w.prompt, w.completion[:2]) for w in pairs.winners],
        [Response(x.prompt, x.completion[:2]) for x in pairs.losers], pairs.signs, COUNTS,
    )
    settings = [Setting("po", 3, 0.1, phi=0.5)]
    found, expected = (train(model, p, p, LAYER, settings, epochs=1, n_tokens=2) for p in (pairs, cut))
    torch.testing.assert_close(found.vectors, expected.vectors)
    pd.testing.assert_frame_equal(found.grid, expected.grid)


# -- training --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("method", "phi"), [("ntp", None), ("po", 0.7)])
def test_training_is_the_plain_one(model, plain, pairs, validation, method, phi):
    found = train(model, pairs, validation, LAYER, [Setting(method, 50, 0.1, 42, phi)], epochs=4, batch_size=4)
    start, everything = start_of(model, pairs, 42), list(range(len(pairs)))
    vector, losses = reference.trained(plain, plainly(pairs), LAYER, start, [everything] * 4, 0.1, phi)
    torch.testing.assert_close(found.vectors[0], vector, rtol=1e-3, atol=1e-4)
    assert found.curves.training_loss.tolist()[1:] == pytest.approx(losses, rel=1e-4)
    for row, v in ((0, start), (-1, vector)):
        with torch.no_grad():
            expected = [float(reference.loss_of(plain, pair, LAYER, v, phi)) for pair in plainly(validation)]
        assert found.curves.validation_loss.iloc[row] == pytest.approx(sum(expected) / 4, rel=1e-4)
    assert found.grid.match_score[0] == reference.match_score(plain, plainly(validation), LAYER, found.vectors[0])
    assert found.curves.validation_loss.iloc[-1] == found.grid.validation_loss[0]


@pytest.mark.parametrize(("method", "phi"), [("ntp", None), ("po", 0.3)])
def test_batches_and_sampled_coefficients_are_the_plain_ones(model, plain, pairs, monkeypatch, method, phi):
    orders = [[[3, 1], [0, 4], [2]], [[2, 0], [1, 3], [4]]]
    alphas = [4.0, 2.0, 20.0, 2.0, 6.0, 10.0]
    epochs, steps = iter(orders), iter(alphas)
    monkeypatch.setattr(training._Run, "shuffled", lambda self, n: tuple(map(torch.tensor, next(epochs))))
    monkeypatch.setattr(training._Run, "alpha", lambda self: next(steps))
    found = train(model, pairs, pairs, LAYER, [Setting(method, 2, 0.05, 7, phi)], epochs=2, coefficients="sampled")
    monkeypatch.undo()
    plan = [step for order in orders for step in order]
    start = start_of(model, pairs, 7)
    vector, losses = reference.trained(plain, plainly(pairs), LAYER, start, plan, 0.05, phi, alphas)
    torch.testing.assert_close(found.vectors[0], vector, rtol=1e-3, atol=1e-4)
    assert found.curves.training_loss.tolist()[1:] == pytest.approx(
        [sum(losses[:3]) / 3, sum(losses[3:]) / 3], rel=1e-4
    )
    assert found.curves.step.tolist() == [0, 3, 6]


@pytest.mark.parametrize("coefficients", ["unit", "sampled"])
def test_a_run_among_others_is_the_run_alone(model, pairs, validation, coefficients):
    settings = [
        Setting("po", 2, 0.05, 42, 0.4), Setting("po", 3, 0.1, 42, 0.4), Setting("po", 2, 0.2, 5, 0.0),
        Setting("po", 2, 0.05, 5, 0.4),
    ]
    how = dict(epochs=2, coefficients=coefficients, batch_size=6)
    together = train(model, pairs, validation, LAYER, settings, **how)
    for i, setting in enumerate(settings):
        alone = train(model, pairs, validation, LAYER, [setting], **how)
        torch.testing.assert_close(together.vectors[i], alone.vectors[0], rtol=1e-3, atol=1e-4)
        own = together.curves[3 * i:3 * i + 3].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, alone.curves, rtol=1e-4)
    assert not torch.allclose(together.vectors[0], together.vectors[3], atol=1e-2)  # the seed matters


def test_training_twice_gives_the_same_bits(model, pairs, validation):
    settings = [Setting("ntp", 2, 0.05, 42), Setting("ntp", 3, 0.05, 42)]
    first, again = (train(model, pairs, validation, LAYER, settings, epochs=2) for _ in range(2))
    assert torch.equal(first.vectors, again.vectors)
    pd.testing.assert_frame_equal(first.curves, again.curves, check_exact=True)


def test_pairs_are_shuffled_anew_and_all_used_in_every_epoch(model, pairs):
    data = Continuations.of(model, pairs, "ntp", LAYER, 64, 8)
    run = training._Run(Setting("ntp", 2), data, training.COEFFICIENTS["sampled"], None, epochs=2)
    epochs = [run.shuffled(20) for _ in range(2)]
    for epoch in epochs:
        assert [len(step) for step in epoch] == [2] * 10
        assert torch.cat(epoch).sort().values.tolist() == list(range(20))
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    assert {run.alpha() for _ in range(200)} == {2, 4, 6, 8, 10, 12, 14, 16, 18, 20}


def test_initial_values(model, pairs):
    starts = torch.stack([start_of(model, pairs, seed) for seed in range(8)])
    assert float(starts.std()) == pytest.approx(0.01, rel=0.15)
    assert abs(float(starts.mean())) < 0.002


def test_a_given_norm_rescales_what_was_learned(model, pairs, validation):
    setting = [Setting("ntp", 2, 0.1)]
    free, scaled = (train(model, pairs, validation, LAYER, setting, epochs=1, norm=norm) for norm in (None, 3.0))
    assert scaled.grid.norm[0] == pytest.approx(3.0, rel=1e-5)
    assert scaled.grid.free_norm[0] == free.grid.free_norm[0] == free.grid.norm[0] != pytest.approx(3.0, rel=0.1)
    torch.testing.assert_close(scaled.vectors[0], free.vectors[0] * 3 / free.vectors[0].norm())
    assert free.curves.training_loss[1] == scaled.curves.training_loss[1]
    assert free.grid.validation_loss[0] != scaled.grid.validation_loss[0]  # of the vector that is used


# -- errors ----------------------------------------------------------------------------------------------------

def test_divergence_names_the_run_and_the_step(model, pairs, monkeypatch):
    monkeypatch.setattr(training._Run, "alpha", lambda self: 20.0)
    settings = [Setting("ntp", 2, 0.1), Setting("ntp", 2, 3e37)]  # times 20 it is no float32
    message = r"loss is nan at step 2 of 3 of Setting\(method='ntp', batch_size=2, learning_rate=3e\+37"
    with pytest.raises(FloatingPointError, match=message):
        train(model, pairs, pairs, LAYER, settings, epochs=1)


def test_a_run_that_diverges_to_a_finite_loss_is_stopped(tmp_path):
    """The last norm keeps logits finite however long the vector becomes. The model is sure of its own responses."""
    sure = tiny_model("llama")
    with torch.no_grad():
        sure.lm_head.weight *= 4
    model = load_model(save_checkpoint(tmp_path, sure), device="cpu")
    own = generate(model, ["rob it", "sing a song", "bake"], max_new_tokens=6)
    pairs = ContrastPairs(own, own, [1, -1, 1], COUNTS)
    fine, wild = (Setting("ntp", 2, rate, 42) for rate in (0.04, 10.0))
    train(model, pairs, pairs, LAYER, [fine], epochs=3)
    message = r"the epoch's mean loss is [\d.]+ at step [246] of 6 of Setting\(method='ntp', batch_size=2, " \
        r"learning_rate=10.0, .*, that of the pairs without .* [\d.]+, and at most 3 times .* Lower the learning rate"
    with pytest.raises(FloatingPointError, match=message):
        train(model, pairs, pairs, LAYER, [fine, wild], epochs=3)


def test_divergence_is_measured_against_no_steering(model, plain, pairs, monkeypatch):
    """The bound is the plain loss of the pairs without steering."""
    given = []
    monkeypatch.setattr(training._Run, "check", lambda self, loss, step, unsteered=None: given.append(unsteered))
    train(model, pairs, pairs, LAYER, [Setting("po", 2, 0.2, 42, 0.7)], epochs=1)
    nothing = torch.zeros(model.d_model)
    with torch.no_grad():
        alone = [float(reference.loss_of(plain, pair, LAYER, nothing, 0.7)) for pair in plainly(pairs)]
    assert [value for value in given if value is not None] == [pytest.approx(sum(alone) / len(alone), rel=1e-4)]


@pytest.mark.parametrize(("arguments", "message"), [
    (("dpo",), r"unknown method 'dpo' \(did you mean 'po'\?\): choose one of ntp, po"),
    (("ntp", 0), "must be positive, not 0 and 0.01"),
    (("ntp", 6, 0.0), "must be positive, not 6 and 0.0"),
    (("po",), "phi None was given for 'po': PO takes a number of at least 0"),
    (("po", 6, 0.1, 1, -0.5), "phi -0.5 was given for 'po'"),
    (("ntp", 6, 0.1, 1, 0.5), "phi 0.5 was given for 'ntp'"),
])
def test_impossible_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        Setting(*arguments)


@pytest.mark.parametrize(("changes", "message"), [
    (dict(settings=[]), r"settings of the methods \[\] were given"),
    (dict(settings=[Setting("ntp"), Setting("po", phi=0.1)]), r"methods \['ntp', 'po'\] were given: pass at least one"),
    (dict(layer=4), r"layer 4 is outside 0\.\.3"),
    (dict(coefficients="drawn"), "unknown coefficients 'drawn': choose one of unit, sampled"),
    (dict(epochs=0), "must be positive, not 0, 64, 16 and None"),
    (dict(norm=0.0), "must be positive, not 10, 64, 16 and 0.0"),
])
def test_impossible_training(model, pairs, changes, message):
    arguments = {"layer": LAYER, "settings": [Setting("ntp")]} | changes
    with pytest.raises(ValueError, match=message):
        train(model, pairs, pairs, **arguments)
