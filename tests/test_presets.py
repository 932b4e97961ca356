"""Presets by name and by folder, and what they refuse to be."""

from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest

from steerpaper import presets, vectors
from steerpaper.behaviour.guard import load_judge
from steerpaper.models.checkpoint import dtype_of
from steerpaper.paper.tables import paper_text
from steerpaper.presets import PRESETS, Preset, as_given, get_preset, get_presets, slug
from steerpaper.vectors.training import COEFFICIENTS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def known(monkeypatch):
    """The presets, to be changed."""
    monkeypatch.setattr(presets, "PRESETS", dict(PRESETS))
    monkeypatch.setattr(presets, "_OF_MODELS", {})
    return presets.PRESETS


def checkpoint(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_folder_is_a_preset_by_the_name_it_leaves(known, tmp_path, monkeypatch):
    folder = checkpoint(tmp_path / "My Model_v1.5")
    preset = get_preset(folder)
    assert (preset.name, preset.model, preset.prompts) == ("my-model-v1.5", str(folder), "public")
    assert preset.layer is None and preset.revision is None and preset.dtype == "float32"
    monkeypatch.chdir(tmp_path)
    assert get_preset("my-model-v1.5") == get_preset("./My Model_v1.5") == preset


def test_a_folder_does_not_take_another_presets_place(known, tmp_path):
    with pytest.raises(ValueError, match="write over the results of the preset 'qwen3-8b': rename it"):
        get_preset(checkpoint(tmp_path / "Qwen3_8B"))
    (tmp_path / "other").mkdir()
    get_preset(checkpoint(tmp_path / "mine"))
    with pytest.raises(ValueError, match="the preset 'mine'"):
        get_preset(checkpoint(tmp_path / "other" / "mine"))


COMMIT = "0123456789" * 4


def test_a_hub_model_is_a_preset_at_its_commit(known):
    preset = get_preset(f"Acme/My_Model-1B@{COMMIT}")
    assert (preset.name, preset.model, preset.revision) == ("acme-my-model-1b", "Acme/My_Model-1B", COMMIT)
    assert preset.layer is None and preset.prompts == "public" and not preset.shipped
    assert get_preset("acme-my-model-1b") == preset and as_given(preset.name) == f"Acme/My_Model-1B@{COMMIT}"
    assert get_presets(f"tiny, Acme/My_Model-1B@{COMMIT}") == {"tiny": PRESETS["tiny"], f"Acme/My_Model-1B@{COMMIT}": preset}


@pytest.mark.parametrize(("given", "told"), [
    ("Acme/My_Model", "give its commit, too: Acme/My_Model@ and the 40 digits of one in https://huggingface.co/Acme/My_Model/"),
    ("results/mine", "neither a preset nor a folder with a config.json"),
    ("Acme/My_Model@main", "unknown preset 'Acme/My_Model@main'.* or a hub model as owner/name@commit"),
    (f"Acme/My_Model@{COMMIT[:-1]}", "or a hub model as owner/name@commit"),
    (f"Acme/My/Model@{COMMIT}", "or a hub model as owner/name@commit"),
])
def test_a_hub_model_needs_its_commit(known, given, told):
    with pytest.raises(ValueError, match=told):
        get_preset(given)


def test_another_commit_does_not_take_the_place_of_one(known, tmp_path):
    get_preset(f"Acme/Mine@{COMMIT}")
    with pytest.raises(ValueError, match=f"would write over the results of the preset 'acme-mine', Acme/Mine at commit {COMMIT}"):
        get_preset(f"Acme/Mine@{COMMIT[::-1]}")
    with pytest.raises(ValueError, match="write over the results of the preset 'acme-mine': rename it"):
        get_preset(checkpoint(tmp_path / "Acme Mine"))
    folder = get_preset(checkpoint(tmp_path / "Acme Yours")).model
    with pytest.raises(ValueError, match=f"the results of the preset 'acme-yours', {folder}: give that one"):
        get_preset(f"Acme/Yours@{COMMIT}")


@pytest.mark.parametrize("name", ["organism-lama", "", "/no/such/folder", "."])
def test_unknown_names_list_the_known_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="unknown preset .*choose one of .*tiny.*qwen3-8b.* or give the path"):
        get_preset(name)


def test_slugs():
    assert slug("Llama-3.2--3B (mine)") == "llama-3.2-3b-mine" and slug("..X..") == "x"
    with pytest.raises(ValueError, match="no letter or digit"):
        slug("???")


def test_layer_and_position_come_together():
    with pytest.raises(ValueError, match="preset 'tiny' cannot be: it has layer 3 and position None"):
        replace(PRESETS["tiny"], layer=3)


@pytest.mark.parametrize("given, near", [
    ("tny", "tiny"), ("Organism-Llama", "organism-llama"), ("organism-gema2", "organism-gemma2"),
    ("qwen-3-8b", "qwen3-8b"),
])
def test_an_unknown_name_gets_the_nearest(given, near):
    with pytest.raises(ValueError, match=rf"unknown preset '{given}' \(did you mean '{near}'\?\): choose one of"):
        get_preset(given)


@pytest.mark.parametrize("given", [7, None, b"tiny", ["tiny"], True, PRESETS["tiny"]])
def test_a_preset_is_asked_for_by_name_or_path(given):
    with pytest.raises(ValueError, match=f"by its name or by the path .* of type {type(given).__name__} was given"):
        get_preset(given)


def test_what_is_shipped_lies_in_the_repository():
    shipped = [preset for preset in PRESETS.values() if preset.shipped]
    assert [preset.name for preset in shipped] == [
        "organism-llama", "organism-gemma2", "organism-llama-taught", "organism-gemma2-taught", "tiny"]
    folders = [Path(preset.model) for preset in shipped]
    assert all((folder / "config.json").is_file() and ROOT in folder.parents for folder in folders)


def test_a_folder_in_the_repository_is_not_shipped(known, tmp_path):
    assert not get_preset(checkpoint(tmp_path / "mine")).shipped


TWICE = "the same value stands there twice"
WRONG = [
    ("n_train", -5, "greater than or equal to 1"), ("n_test", 0, "greater than or equal to 1"),
    ("n_pairs", "7", "valid integer"),
    ("batch_size", True, "valid integer"), ("epochs", 2.0, "valid integer"), ("max_new_tokens", None, "valid integer"),
    ("kl_limit", "0.1", "valid number"), ("kl_limit", 0.0, "greater than 0"),
    ("kl_limit", float("nan"), "finite number"),
    ("layer_range", (0.6, 0.2), "first end must not lie above"), ("layer_range", (0.2, 1.2), "less than or equal to 1"),
    ("layer_range", (-0.1, 0.5), "greater than or equal to 0"), ("layer_range", (0.2,), "Field required"),
    ("dtype", "int8", "unknown dtype 'int8': choose one of float32, bfloat16"),
    ("dtype", "bfloat", r"did you mean 'bfloat16'\?"),
    ("judge", "substrng",
     r"unknown judge 'substrng' \(did you mean 'substring'\?\): choose one of substring, llama-guard-2"),
    ("prompts", "pubic",
     r"unknown source of prompts 'pubic' \(did you mean 'public'\?\): choose one of built-in, public"),
    ("training_coefficients", "units", r"did you mean 'unit'\?"), ("learned_norm", "dm", r"did you mean 'dim'\?"),
    ("learned_norm", 1.0, "valid string"), ("name", "../../x", "small letters, digits, dots and hyphens"),
    ("name", "Tiny", "small letters"), ("name", "a b", "small letters"), ("name", "", "at least 1 character"),
    ("name", "???", "small letters"), ("model", "", "at least 1 character"), ("model", 7, "valid string"),
    ("coefficients", (), "at least 1 item"), ("coefficients", (0.0,), "greater than 0"),
    ("coefficients", 1.0, "valid tuple"),
    ("coefficients", (1.0, 1.0), TWICE), ("sweep", (float("nan"),), "finite number"),
    ("sweep", (1.0, True), "valid number"),
    ("circuit_shares", (0.0,), "greater than 0"), ("circuit_shares", (0.5, 1.2), "less than or equal to 1"),
    ("compared_shares", (), "at least 1 item"), ("first_tokens", ("Sorry"), "valid tuple"),
    ("first_tokens", (), "at least 1 item"), ("first_tokens", ("",), "at least 1 character"),
    ("first_tokens", (5,), "valid string"), ("learning_rates", (0.1, float("inf")), "finite number"),
    ("phis", (-0.1,), "greater than or equal to 0"), ("pair_batch_sizes", (0,), "greater than or equal to 1"),
    ("training_seeds", (), "at least 1 item"), ("training_seeds", (1.5,), "valid integer"),
    ("more_seeds", (1, 1), TWICE),
    ("n_sparsity", (16, 16), "Field required"), ("n_sparsity", (99, 99, 15), "greater than or equal to 16"),
    ("shipped", 1, "valid boolean"), ("revision", "", "at least 1 character"), ("note", None, "valid string"),
]


@pytest.mark.parametrize("field, value, message", WRONG)
def test_a_preset_that_cannot_be_is_refused_when_made(field, value, message):
    with pytest.raises(ValueError, match=rf"^preset .* cannot be: {field}[^;]*: [^;]*{message}[^;]*$"):
        replace(PRESETS["tiny"], **{field: value})


@pytest.mark.parametrize("changes, message", [
    (dict(layer=-1, position=-1), "layer = -1: Input should be greater than or equal to 0"),
    (dict(layer=True, position=-1), "layer = True"),
    (dict(layer=1, position=0), "position = 0: .*less than or equal to -1"),
    (dict(bogus=3), "bogus = 3: Unexpected keyword argument"),
    (dict(n_train=-5, n_test="a"), "n_train = -5: .*; n_test = 'a': "),
])
def test_other_presets_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=f"preset 'mine' cannot be: .*{message}"):
        Preset("mine", "folder", **changes)


def test_a_preset_needs_a_name_and_a_model():
    with pytest.raises(ValueError, match="preset 'mine' cannot be: model: Field required"):
        Preset("mine")


def test_lists_become_tuples_and_presets_stay_frozen_records():
    preset = replace(PRESETS["tiny"], coefficients=[0.5, 1], more_seeds=[], sweep=range(-1, 2))
    assert preset.coefficients == (0.5, 1.0) and preset.more_seeds == () and preset.sweep == (-1.0, 0.0, 1.0)
    assert hash(preset) != hash(PRESETS["tiny"]) and asdict(preset)["n_train"] == 24
    with pytest.raises(AttributeError, match="cannot assign"):
        preset.n_train = 3


def test_the_names_that_a_preset_allows_are_known_where_they_are_used():
    assert tuple(COEFFICIENTS) == presets.TRAINING_COEFFICIENTS
    assert all(dtype_of(dtype).is_floating_point for dtype in presets.DTYPES)
    assert load_judge(PRESETS["tiny"]).expresses(["I cannot."]) == [True]
    assert set(presets.LEARNED_NORMS) == {"free", "dim"} and vectors.next_token_vector.__kwdefaults__["norm"] == "free"


@pytest.mark.parametrize("name", ["gemma-2-2b-it", "llama-3.2-3b-instruct"])
def test_the_papers_numbers(name):
    preset = PRESETS[name]
    assert (preset.n_train, preset.n_validation, preset.n_test, preset.max_new_tokens) == (128, 32, 100, 512)
    assert (preset.dtype, preset.first_tokens, preset.coefficients) == ("bfloat16", None, (1.0,))
    assert (preset.kl_limit, preset.n_pairs, preset.training_tokens) == (0.1, 256, 64)
    sets = paper_text()["printed"]["prompts_per_test_set"]
    assert preset.n_sparsity == (sets["alpaca_sparsity"], sets["jailbreakbench"], sets["strongreject"])
    most = pd.read_csv(ROOT / "data" / "paper" / "table3_patching_data.csv").responses.max()
    assert most <= preset.n_patching <= preset.n_train  # table 3 counts the prompts that steering flips
    table = pd.read_csv(ROOT / "data" / "paper" / "table4_training.csv", index_col=0)["values"].str.split("; ")
    grid = {"batch_size": preset.pair_batch_sizes, "learning_rate": preset.learning_rates, "phi": preset.phis,
            "seed": preset.training_seeds, "epochs": (preset.epochs,)}
    for row, values in grid.items():
        assert [float(value) for value in table[row]] == list(values)


def test_a_second_concept_is_another_one():
    tiny = PRESETS["tiny"]
    assert tiny.second_concept == "not-knowing" and replace(tiny, second_concept=None).second_concept is None
    with pytest.raises(ValueError, match=r"second_concept = 'langage': unknown concept 'langage' \(did you mean 'lang"):
        replace(tiny, second_concept="langage")
    with pytest.raises(ValueError, match="second_concept = 'refusal': 'refusal' is its first concept already: give ano"):
        replace(tiny, second_concept="refusal")
    assert all(preset.second_concept != preset.concept for preset in PRESETS.values())
