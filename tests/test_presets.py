"""Presets by name and by folder; their numbers are checked where they are used."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from steerpaper import presets
from steerpaper.paper import paper_text
from steerpaper.presets import PRESETS, get_preset, slug

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def known(monkeypatch):
    """The presets, to be changed."""
    monkeypatch.setattr(presets, "PRESETS", dict(PRESETS))
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
    with pytest.raises(ValueError, match="'tiny' has layer 3 and position None"):
        replace(PRESETS["tiny"], layer=3)


@pytest.mark.parametrize("name", ["gemma-2-2b-it", "llama-3.2-3b-instruct"])
def test_the_papers_numbers(name):
    preset = PRESETS[name]
    assert (preset.n_train, preset.n_validation, preset.n_test, preset.max_new_tokens) == (128, 32, 100, 512)
    assert (preset.dtype, preset.refusal_tokens, preset.coefficients) == ("bfloat16", ("I",), (1.0,))
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
