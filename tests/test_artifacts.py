import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from steerpaper import artifacts, manifests, outputs, paths, presets
from steerpaper.artifacts import (
    check_owner, finding, load_recorded, load_steering, load_table, load_tensors, on_record, save_steering, save_table,
    save_tensors,
)
from steerpaper.steering import Steering


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The preset "tiny" with its own model folder, artifacts and results, away from the repository."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"w": torch.arange(3.0)}, folder / "model.safetensors")
    monkeypatch.setitem(presets.PRESETS, "tiny", replace(presets.PRESETS["tiny"], model=str(folder)))
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    declared = {"tensors": ["vectors", "a", "shared", "dim", "ntp"],
                "tables": ["asr", "asr_again", "some", "copy", "other", "nothing", "unsteered",
                           "scorecard_claims"]}
    monkeypatch.setattr(outputs, "outputs", lambda: {"01_x": declared})
    return folder


TENSORS = {"dim": torch.tensor([1.0, -2.5]), "positions": torch.arange(6).reshape(2, 3).T}


def test_tensors_come_back_with_their_manifest(model):
    save_tensors("tiny", "vectors", TENSORS, {"layer": 5, "seed": 0})
    tensors, manifest = load_tensors("tiny", "vectors")
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    expected = {"layer": 5, "seed": 0, "preset": "tiny", "model": "model", "dtype": "float32"}
    assert expected.items() <= manifest.items()
    assert len(manifest["weights"]) == len(manifest["sha256"]) == 64
    assert manifest["libraries"]["torch"]


def test_tensors_are_saved_with_the_same_bytes_in_any_order(model):
    path = paths.artifacts("tiny") / "a.safetensors"
    save_tensors("tiny", "a", TENSORS, {"x": 1, "y": 2})
    first = path.read_bytes()
    save_tensors("tiny", "a", dict(reversed(TENSORS.items())), {"y": 2, "x": 1})
    assert path.read_bytes() == first


def test_a_tensor_file_under_another_name_is_refused(model):
    save_tensors("tiny", "ntp", TENSORS, {})
    path = paths.artifacts("tiny") / "ntp.safetensors"
    path.with_name("dim.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="dim.safetensors holds 'ntp', not 'dim': run notebook 01_x"):
        load_tensors("tiny", "dim")


def test_damaged_tensors_are_refused(model):
    save_tensors("tiny", "vectors", TENSORS, {})
    path = paths.artifacts("tiny") / "vectors.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="its own digest: run notebook 01_x with preset 'tiny'"):
        load_tensors("tiny", "vectors")
    path.write_bytes(content.replace(b'float32', b'float16'))
    with pytest.raises(ValueError, match="digest"):
        load_tensors("tiny", "vectors")
    path.write_bytes(content[:20])
    with pytest.raises(ValueError, match="cannot be read"):
        load_tensors("tiny", "vectors")
    save_file(TENSORS | {"positions": torch.arange(2)}, path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_tensors("tiny", "vectors")


def test_tensors_of_other_weights_are_refused(model):
    save_tensors("tiny", "vectors", TENSORS, {})
    save_file({"w": torch.zeros(3)}, model / "model.safetensors")
    with pytest.raises(ValueError, match="another model .weights .*, now .*run notebook 01_x"):
        load_tensors("tiny", "vectors")


def test_a_hub_model_is_known_by_its_revision(model, monkeypatch):
    hub = replace(presets.PRESETS["tiny"], model="owner/name", revision=40 * "c")
    monkeypatch.setitem(presets.PRESETS, "tiny", hub)
    save_tensors("tiny", "vectors", TENSORS, {})
    assert load_tensors("tiny", "vectors")[1]["weights"] == 40 * "c"


def test_a_hub_model_without_a_revision_is_known_by_the_commit_in_the_cache(model, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    refs = tmp_path / "models--owner--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(40 * "a")
    monkeypatch.setitem(presets.PRESETS, "tiny", replace(presets.PRESETS["tiny"], model="owner/name"))
    save_tensors("tiny", "vectors", TENSORS, {})
    assert load_tensors("tiny", "vectors")[1]["weights"] == 40 * "a"
    (refs / "main").write_text(40 * "b")
    with pytest.raises(ValueError, match="made with another model .weights 'a+', now 'b+'"):
        load_tensors("tiny", "vectors")


def test_a_folder_stands_for_its_preset(model, tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "PRESETS", dict(presets.PRESETS))
    folder = model.rename(tmp_path / "My_Model")
    (folder / "config.json").write_text("{}")
    save_tensors(str(folder), "vectors", TENSORS, {})
    save_table(str(folder), "asr", pd.DataFrame({"n": [1]}))
    assert (paths.results("my-model") / "asr.csv").is_file()
    assert load_tensors("my-model", "vectors")[1]["preset"] == "my-model"
    assert load_table(str(folder), "asr").n.tolist() == [1]


def test_a_model_without_weights_is_an_error(model):
    (model / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="00_model_organisms"):
        save_tensors("tiny", "vectors", TENSORS, {})


def test_missing_inputs_name_the_notebook_to_run(model):
    for load in (lambda: load_tensors("tiny", "vectors"), lambda: load_table("tiny", "nothing")):
        with pytest.raises(FileNotFoundError, match="run notebook 01_x with preset 'tiny'.*PRESETS=tiny"):
            load()


def test_missing_inputs_of_a_model_with_nothing_to_steer_say_so(model):
    rates = pd.DataFrame({"prompts": ["harmful", "harmless"], "n": 16, "expressed": [1, 0], "share": [0.0625, 0.0],
                          "share_low": [0.011, 0.0], "share_high": [0.283, 0.194]})
    assert finding("tiny") == ""
    save_table("tiny", "unsteered", rates.assign(expressed=[9, 0], share=[0.56, 0.0]))
    assert finding("tiny") == ""
    save_table("tiny", "unsteered", rates)
    for load in (lambda: load_tensors("tiny", "vectors"), lambda: load_table("tiny", "nothing")):
        with pytest.raises(FileNotFoundError, match=r"is not made: notebook 01 ends with what it found: unsteered, the "
                                                    r"model is judged to refuse 1 of 16 harmful prompts \(95 % interval"):
            load()
    with pytest.raises(FileNotFoundError, match="is missing: run notebook"):
        load_table("tiny", "nothing", recorded=True)


def test_tables_come_back_and_are_plain_text(model):
    table = pd.DataFrame({"set": ["NA", "b, \u03b1"], "n": [3, 4], "x": [1 / 3, np.nan], "on": [True, False]})
    save_table("tiny", "asr", table)
    path = paths.results("tiny") / "asr.csv"
    assert path.read_bytes() == 'set,n,x,on\nNA,3,0.333333,True\n"b, α",4,,False\n'.encode()
    again = load_table("tiny", "asr")
    assert again.set.tolist() == table.set.tolist()
    assert again.dtypes.n == int and again.dtypes.on == bool and again.x.isna().tolist() == [False, True]
    save_table("tiny", "asr_again", again)
    assert path.with_name("asr_again.csv").read_bytes() == path.read_bytes()


def test_a_table_that_no_notebook_writes_is_on_no_record():
    with pytest.raises(ValueError, match="unknown name of tables 'unsteerd' .did you mean"):
        load_recorded("unsteerd")


def test_what_is_missing_of_a_folder_is_made_by_its_path(model, tmp_path, monkeypatch):
    folder = tmp_path / "my models" / "Mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    in_another_process(monkeypatch, folder)
    name = presets.get_preset(folder).name
    with pytest.raises(FileNotFoundError, match=rf"with preset '{folder}'.*`make figures PRESETS='{folder}'`"):
        load_table(name, "asr")


def test_on_record_is_what_a_manifest_lists_and_never_the_tests_preset(model, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "recorded_results", lambda preset: tmp_path / "record" / preset)
    with pytest.raises(FileNotFoundError, match="no preset has a table 'asr' on record: run `make record`"):
        load_recorded("asr")
    for name in ("asr", "scorecard_claims"):
        save_table("tiny", name, pd.DataFrame({"n": [3]}))
    for preset in ("organism-llama", "organism-gemma2", "tiny"):
        shutil.copytree(paths.results("tiny"), paths.recorded_results(preset))
    (paths.recorded_results("organism-gemma2") / "manifest.json").unlink()  # a table that lies about
    assert load_recorded("asr").to_dict("list") == {"preset": ["organism-llama"], "n": [3]}


def test_a_preset_counts_once_its_verdicts_are_on_record(model, tmp_path, monkeypatch):
    written = {"01_x": {"tables": ["asr"]}, "02_y": {"tables": ["scorecard_claims"]}, "03_z": {"tables": ["some"]},
               "04_w": {"tables": []}}
    monkeypatch.setattr(outputs, "outputs", lambda: {
        name: {"tensors": [], "figures": []} | about for name, about in written.items()})
    monkeypatch.setattr(paths, "recorded_results", lambda preset: tmp_path / "record" / preset)
    save_table("tiny", "asr", pd.DataFrame({"n": [3]}))
    shutil.copytree(paths.results("tiny"), paths.recorded_results("organism-gemma2"))
    assert list(on_record("organism-gemma2")) == ["01_x"]
    with pytest.raises(FileNotFoundError, match="no preset has a table 'asr' on record"):
        load_recorded("asr")
    save_table("tiny", "scorecard_claims", pd.DataFrame({"n": [4]}))
    shutil.copytree(paths.results("tiny"), paths.recorded_results("organism-llama"))
    assert list(on_record("organism-llama")) == ["01_x", "02_y", "04_w"]
    assert load_recorded("asr").preset.tolist() == ["organism-llama"]


def test_rows_picked_from_a_table_can_be_saved_but_no_index_with_data(model):
    table = pd.DataFrame({"set": ["a", "b"], "n": [3, 4]})
    save_table("tiny", "some", table[table.n > 3])
    assert (paths.results("tiny") / "some.csv").read_text() == "set,n\nb,4\n"
    with pytest.raises(ValueError, match="reset_index"):
        save_table("tiny", "some", table.set_index("set"))
    with pytest.raises(ValueError, match="reset_index"):
        save_table("tiny", "some", table.pivot_table(index="set", aggfunc=["sum"]).reset_index())


@pytest.mark.parametrize("name", ["", "a/b", "../a", "asr.csv", "vectors"])
def test_only_what_is_declared_is_saved_and_looked_for(model, name):
    message = f"unknown name of tables {name!r}.*: choose one of asr, .*, or declare it in notebooks/outputs.toml"
    for act in (lambda: save_table("tiny", name, pd.DataFrame({"n": [1]})), lambda: load_table("tiny", name)):
        with pytest.raises(ValueError, match=message):
            act()
    for act in (lambda: save_tensors("tiny", "dims", TENSORS, {}), lambda: load_tensors("tiny", "dims")):
        with pytest.raises(ValueError, match=r"unknown name of tensors 'dims' \(did you mean 'dim'\?\)"):
            act()
    assert not paths.BUILD.exists()


def test_a_steering_comes_back_with_how_it_was_made(model):
    given = Steering(torch.tensor([1.0, -2.5]), 5, 0.95)
    save_steering("tiny", "ntp", given, {"learning_rate": 0.1, "seed": 42})
    again = load_steering("tiny", "ntp")
    assert torch.equal(again.vector, given.vector) and (again.layer, again.coefficient) == (5, 0.95)
    about = load_tensors("tiny", "ntp")[1]
    assert {"method": "ntp", "layer": 5, "coefficient": 0.95, "learning_rate": 0.1, "seed": 42}.items() <= about.items()
    for act in (lambda: load_steering("tiny", "npt"), lambda: save_steering("tiny", "npt", given, {})):
        with pytest.raises(ValueError, match=r"unknown method 'npt' \(did you mean 'ntp'\?\): choose one of dim, ntp"):
            act()
    with pytest.raises(FileNotFoundError, match="dim.safetensors is missing: run notebook 01_x"):
        load_steering("tiny", "dim")


def test_unknown_presets_are_refused():
    for act in (lambda: save_table("x", "a", pd.DataFrame()), lambda: load_tensors("x", "a")):
        with pytest.raises(ValueError, match="unknown preset 'x': choose one of"):
            act()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(model, monkeypatch):
    save_table("tiny", "asr", pd.DataFrame({"n": [1]}))
    path = paths.results("tiny") / "asr.csv"

    def disk_full(self, content):
        with open(self, "wb") as file:
            file.write(content[:1])
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", disk_full)
        with pytest.raises(OSError, match="disk full"):
            save_table("tiny", "asr", pd.DataFrame({"n": [2]}))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no")))
        with pytest.raises(OSError, match="no"):
            artifacts.write_bytes(path, b"n\n3\n")
    assert path.read_text() == "n\n1\n"
    assert [file for file in path.parent.glob("[!.]*") if file.name != manifests.NAME] == [path]
    assert load_table("tiny", "asr").n.tolist() == [1]


def test_a_row_is_saved_beside_its_matrix(model):
    matrix = torch.arange(6.0).reshape(2, 3)
    save_tensors("tiny", "shared", {"matrix": matrix, "row": matrix[1]}, {})
    tensors, _ = load_tensors("tiny", "shared")
    assert torch.equal(tensors["row"], matrix[1])


# -- what is not as it was written -------------------------------------------------------------------------

ASR = pd.DataFrame({"set": ["a", "b", "c"], "n": [3, 4, 5], "asr": [0.25, 0.5, 1.0]})


@pytest.mark.parametrize("content, said", [
    (b"set,n,asr\na,3,0.25\n", "1 rows, not 3"),
    (b"set,n,asr\na,3,0.25\na,3,0.25\nb,4,0.5\nc,5,1\n", "4 rows, not 3"),
    (b"set,n,asr\na,3,0.25\nb,4,7.5\nc,5,1\n", "asr from 0.25 to 1, now from 0.25 to 7.5"),
    (b"set,n,asr\na,3,0.25\nb,4,much\nc,5,1\n", "asr from 0.25 to 1, now no numbers"),
    (b"set,n,asr\na,3,0.25\nb,4,0.75\nc,5,1\n", "other values or text"),
    (b"set,n,asr\r\na,3,0.25\r\nb,4,0.5\r\nc,5,1\r\n", "other values or text"),
    (b"set,n\na,3\nb,4\nc,5\n", "columns set, n, not set, n, asr"),
    (b"", "not a table: No columns to parse"), (b"\x00\xff\x81\x00\n", "not a table|columns"),
])
def test_a_table_that_is_not_what_was_written_is_refused_by_name(model, content, said):
    save_table("tiny", "asr", ASR)
    assert load_table("tiny", "asr").asr.tolist() == [0.25, 0.5, 1.0]
    (paths.results("tiny") / "asr.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"asr.csv is not what notebook 01_x wrote .({said}).*: run it again"):
        load_table("tiny", "asr")


def test_a_table_that_no_notebook_entered_is_refused(model):
    save_table("tiny", "asr", ASR)
    path = paths.results("tiny") / "asr.csv"
    path.with_name("copy.csv").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="copy.csv is not what .* wrote .*manifest.json beside it does not list it"):
        load_table("tiny", "copy")
    path.with_name(manifests.NAME).write_text("{")
    with pytest.raises(ValueError, match="manifest.json is no manifest"):
        load_table("tiny", "asr")


def test_a_table_on_record_is_another_one(model):
    save_table("tiny", "asr", ASR)
    with pytest.raises(FileNotFoundError, match="data/results/tiny/asr.csv is missing"):
        load_table("tiny", "asr", recorded=True)


def test_new_weights_at_the_same_place_leave_no_table_of_the_old(model):
    save_table("tiny", "asr", ASR)
    save_file({"w": torch.zeros(3)}, model / "model.safetensors")
    save_table("tiny", "other", ASR)
    with pytest.raises(ValueError, match="does not list it"):
        load_table("tiny", "asr")


def test_another_dtype_leaves_no_table_of_the_other(model, monkeypatch):
    save_table("tiny", "asr", ASR)
    monkeypatch.setitem(presets.PRESETS, "tiny", replace(presets.PRESETS["tiny"], dtype="bfloat16"))
    save_table("tiny", "other", ASR)
    with pytest.raises(ValueError, match="does not list it"):
        load_table("tiny", "asr")


def in_another_process(monkeypatch, folder: Path):
    """As if only this checkpoint folder had ever been used."""
    monkeypatch.setattr(presets, "_OF_MODELS", {})
    return str(folder)


def test_two_folders_of_one_name_do_not_share_results(model, tmp_path, monkeypatch):
    """In two processes, which know nothing of each other but what lies on disk."""
    folders = [tmp_path / parent / "checkpoint-500" for parent in "ab"]
    for i, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        save_file({"w": torch.full((3,), float(i))}, folder / "model.safetensors")
    first = in_another_process(monkeypatch, folders[0])
    save_tensors(first, "dim", TENSORS, {})
    save_table(first, "asr", ASR)
    second = in_another_process(monkeypatch, folders[1])
    for save in (lambda: save_table(second, "asr", ASR), lambda: save_tensors(second, "dim", TENSORS, {})):
        with pytest.raises(ValueError, match="holds results of another model, a/checkpoint-500; .*rename"):
            save()
    first = in_another_process(monkeypatch, folders[0])
    assert load_table(first, "asr").asr.tolist() == [0.25, 0.5, 1.0]
    assert torch.equal(load_tensors(first, "dim")[0]["dim"], TENSORS["dim"])
    with pytest.raises(ValueError, match="holds results of another model, a/checkpoint-500"):
        check_owner(in_another_process(monkeypatch, folders[1]))
    check_owner(in_another_process(monkeypatch, folders[0]))
    folders[0].rename(tmp_path / "checkpoint-500")  # the same weights elsewhere may go on
    check_owner(in_another_process(monkeypatch, tmp_path / "checkpoint-500"))
    save_table(in_another_process(monkeypatch, tmp_path / "checkpoint-500"), "asr", ASR[:2])
