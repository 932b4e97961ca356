"""The table of methods: each entry does what its function does by hand; palette and outputs follow it."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from test_training import made_up_pairs

from steerpaper import outputs
from steerpaper.figures import PALETTE
from steerpaper.presets import PRESETS
from steerpaper.steering import Steering
from steerpaper.vectors.extraction import (
    difference_in_means, next_token_vector, preference_vector, principal_component, random_vector,
)
from steerpaper.vectors.methods import METHODS, Ingredients, Method, get_method

POSITIVE, NEGATIVE = ["hack it", "rob a bank"], ["bake a pie", "sing"]
GRID = dict(batch_sizes=(2, 3), learning_rates=(0.01, 0.1), seeds=(4,), more_seeds=(1,), norm="dim", epochs=2,
            coefficients="sampled", n_tokens=3)
SETTINGS = replace(
    PRESETS["tiny"], pair_batch_sizes=(2, 3), learning_rates=(0.01, 0.1), training_seeds=(4,), more_seeds=(1,),
    learned_norm="dim", epochs=2, training_coefficients="sampled", training_tokens=3, phis=(0.5, 0.01))


@pytest.fixture(scope="module")
def given(llama):
    dim = Steering(difference_in_means(llama, POSITIVE, NEGATIVE)[1, -2], 1, 0.9)
    pairs = made_up_pairs(llama, 5, seed=3), made_up_pairs(llama, 4, seed=7)
    return Ingredients(llama, POSITIVE, NEGATIVE, dim, -2, *pairs, SETTINGS, seed=6)


def test_the_table_is_in_the_order_of_figures():
    assert list(METHODS) == ["dim", "ntp", "po", "pca", "random"] == [method.name for method in METHODS.values()]
    assert [method.label for method in METHODS.values()] == ["DIM", "NTP", "PO", "PCA", "random"]
    assert [name for name, method in METHODS.items() if method.learned] == ["ntp", "po"]
    assert [name for name, method in METHODS.items() if not method.baseline] == ["dim", "ntp", "po"]
    assert [name for name, method in METHODS.items() if method.control] == ["random"]
    assert all(PALETTE[name] == method.colour for name, method in METHODS.items())


def test_learned_methods_train_on_the_preset_s_grid(given):
    data = given.model, given.pairs, given.validation, given.dim
    for name, expected in (("ntp", next_token_vector(*data, **GRID)),
                           ("po", preference_vector(*data, phis=(0.5, 0.01), **GRID))):
        found = METHODS[name].extract(given)
        assert torch.equal(found.vector, expected.vector) and found.learned.setting == expected.setting
        assert found.learned.grid.equals(expected.grid) and found.learned.by_seed.keys() == {4, 1}
        setting = expected.setting
        phi = {"phi": setting.phi} if name == "po" else {}
        assert found.about == {"batch_size": setting.batch_size, "learning_rate": setting.learning_rate, "seed": 4, **phi}


def test_the_others_are_read_off_or_drawn(given):
    found = {name: METHODS[name].extract(given) for name in ("dim", "pca", "random")}
    assert found["dim"].vector is given.dim.vector
    assert torch.equal(found["pca"].vector, principal_component(given.model, POSITIVE, NEGATIVE, 1, -2))
    assert torch.equal(found["random"].vector, random_vector(given.dim.vector, 6))
    assert [found[name].about for name in found] == [{"position": -2, "seed": 6}] * 2 + [{"seed": 6}]
    assert all(one.learned is None for one in found.values())


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match=r"unknown method 'pac' \(did you mean 'pca'\?\): choose one of dim, ntp, po, pca"):
        get_method("pac")


def test_a_new_entry_is_a_new_output(monkeypatch):
    monkeypatch.setattr(outputs, "METHODS", METHODS | {"new": Method("new", "new", "red", print),
                                                       "noise": Method("noise", "noise", "red", print, True, True, True)})
    declared = outputs.outputs.__wrapped__()
    assert declared["01_extract_vectors"]["tensors"] == ["dim", "ntp", "po", "new", "pca", "random", "noise"]
    attributed = ["dim", "ntp", "po", "new"]
    assert declared["02_patching_circuits"]["tensors"] == [f"{name}_attribution" for name in attributed]


def test_rooms_are_found_from_the_top():
    code = ("import steerpaper as sp; sp.heads.logit_lens, sp.circuits.attribute, sp.vectors.METHODS, sp.paper.scorecard, "
            "sp.models.Model, sp.prompts.SETS, sp.behaviour.Judge; [getattr(sp, name) for name in sp.__all__]")
    subprocess.run([sys.executable, "-c", code], check=True)
