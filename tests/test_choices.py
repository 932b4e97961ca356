"""Unknown names, wherever one is asked for, get the nearest."""

import pytest
import torch

from steerpaper import organisms
from steerpaper.choices import unknown
from steerpaper.presets import get_preset
from steerpaper.prompts import corpus, public
from steerpaper.prompts.sets import load_prompts, vocabulary
from steerpaper.steering import Steering, generate
from steerpaper.vectors.extraction import next_token_vector
from steerpaper.vectors.sparsify import sparsify
from steerpaper.vectors.training import Setting, train

NAMES = ["organism-llama", "organism-gemma2", "tiny"]


@pytest.mark.parametrize("given, near", [
    ("tny", "tiny"), ("Organism-Llama", "organism-llama"), ("organism-gema2", "organism-gemma2"),
])
def test_the_nearest_name_is_suggested(given, near):
    error = unknown("preset", given, NAMES, ", or a folder")
    assert isinstance(error, ValueError)
    assert str(error) == (
        f"unknown preset {given!r} (did you mean {near!r}?): choose one of organism-llama, organism-gemma2, tiny, or a "
        "folder")


@pytest.mark.parametrize("given", ["", "qwerty", 7, None])
def test_nothing_is_suggested_where_nothing_is_near(given):
    assert "did you mean" not in str(unknown("preset", given, NAMES))


@pytest.mark.parametrize("call, message", [
    (lambda model, one: get_preset("tny"), r"preset 'tny' \(did you mean 'tiny'\?\)"),
    (lambda model, one: load_prompts("harmfull", "test"),
     r"prompt set 'harmfull' \(did you mean 'harmful'\?\).*second_harmful"),
    (lambda model, one: load_prompts("harmful", "tests"), r"split 'tests' \(did you mean 'test'\?\)"),
    (lambda model, one: load_prompts("harmful", "test", source="builtin"),
     r"source of prompts 'builtin' .*'built-in'\?"),
    (lambda model, one: vocabulary("pulbic"), r"source of prompts 'pulbic' \(did you mean 'public'\?\)"),
    (lambda model, one: public.public_prompts("advbunch"),
     r"public prompt set 'advbunch' \(did you mean 'advbench'\?\)"),
    (lambda model, one: generate(model, ["Hi"], one, "mpl"), r"freeze 'mpl' \(did you mean 'mlp'\?\): choose one of qk"),
    (lambda model, one: generate(model, ["Hi"], one, ["qk"]), r"freeze \['qk'\]"),
    (lambda model, one: sparsify(torch.ones(3), "gradeint"), r"method 'gradeint' \(did you mean 'gradient'\?\)"),
    (lambda model, one: sparsify(torch.ones(3), rule="normalized"),
     r"rule 'normalized' \(did you mean 'normalised'\?\)"),
    (lambda model, one: Setting("nttp"), r"method 'nttp' \(did you mean 'ntp'\?\)"),
    (lambda model, one: train(model, None, None, 1, [Setting("ntp")], coefficients="units"),
     r"coefficients 'units' .*'unit'\?"),
    (lambda model, one: next_token_vector(model, None, None, one, norm="dmi"), r"norm 'dmi' \(did you mean 'dim'\?\)"),
    (lambda model, one: corpus.draw(None, "train", "harmfull"), r"kind 'harmfull' \(did you mean 'harmful'\?\)"),
    (lambda model, one: organisms.build_model("lama", model.tokenizer, 0),
     r"organism family 'lama' \(did you mean 'llama'\?\)"),
])
def test_every_unknown_name_of_the_package_gets_the_nearest(llama, call, message):
    with pytest.raises(ValueError, match=f"unknown {message}"):
        call(llama, Steering(torch.ones(32), 1))
