"""Public prompt sets: what `data/sources.toml` lists, from a folder of yours or from their homes, digest-checked.

None of their rows is in this repository. Set `STEERPAPER_DATA` to a folder that holds the files under the names in
`data/sources.toml` to work offline; without it they are downloaded once into `data/public`.
"""

import hashlib
import http.client
import io
import json
import os
import tomllib
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from steerpaper import paths
from steerpaper.choices import unknown

FOLDER = "STEERPAPER_DATA"
_SECONDS = 60  # without an answer, until a download is given up


@dataclass(frozen=True)
class SourceFile:
    """One file of a public set.

    Attributes:
        name: in the cache or in the offline folder.
        url: of its home, a pinned revision.
        sha256: the accepted digests.
        rows: before any are dropped.
        made_from: name of the file behind `url`, where this one is made from it (see `without_input`).
    """

    name: str
    url: str
    sha256: tuple[str, ...]
    rows: int
    made_from: str = ""


@dataclass(frozen=True)
class Source:
    """A public set: `title`, `licence`, `home` and `files`; `column` holds the prompts ("" in a plain list), and
    `drop` maps columns to a part of their text that takes a row out."""

    title: str
    licence: str
    home: str
    column: str
    files: tuple[SourceFile, ...]
    drop: dict[str, str]


def sources() -> dict[str, Source]:
    """The public sets of `data/sources.toml` by name."""
    found = {}
    for name, entry in tomllib.loads((paths.DATA / "sources.toml").read_text("utf-8")).items():
        files = tuple(SourceFile(**file | {"sha256": tuple(file["sha256"])}) for file in entry["files"])
        found[name] = Source(**{"drop": {}} | entry | {"files": files})
    return found


def public_prompts(name: str) -> list[str]:
    """The prompts of a public set in the order of its files, rows that `drop` names left out.

    Raises:
        ValueError: an unknown set, or a file that is not the listed one.
        FileNotFoundError: a file that is not in the offline folder.
        ConnectionError: a download that fails.
    """
    known = sources()
    if name not in known:
        raise unknown("public prompt set", name, known)
    source = known[name]
    return [prompt for file in source.files for prompt in _prompts(file, source)]


def without_input(content: bytes) -> bytes:
    """Alpaca's instructions that need no input, in their order, from the content of `alpaca_data.json`.

    Written as `json.dumps` writes a list of {"instruction": …, "category": null} with an indent of 4, all else at
    its defaults (ASCII, no newline at the end): the bytes that the digest in `data/sources.toml` is of.
    """
    rows = [row for row in json.loads(content) if not row["input"].strip()]
    return json.dumps([{"instruction": row["instruction"], "category": None} for row in rows], indent=4).encode()


def _prompts(file: SourceFile, source: Source) -> list[str]:
    content = _content(file)
    if file.name.endswith(".txt"):
        rows = pd.DataFrame({"": content.decode().splitlines()})
    elif file.name.endswith(".json"):
        rows = json.loads(content)
        rows = pd.DataFrame(rows if source.column else {"": rows})
    else:
        rows = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    for column, part in source.drop.items():
        rows = rows[~rows[column].str.contains(part, regex=False)]
    return rows[source.column].str.strip().tolist()


def _content(file: SourceFile) -> bytes:
    """The checked bytes of a file: from the offline folder if there is one, else from the cache or its home."""
    if folder := os.environ.get(FOLDER):
        return _offline(file, Path(folder))
    if (path := paths.PUBLIC / file.name).is_file():
        return _checked(path.read_bytes(), file, path, "delete it, and it is downloaded again")
    remedy = f"get the listed file elsewhere, and set {FOLDER} to the folder it is in"
    content = _checked(_download(file), file, file.url, remedy)
    paths.write_bytes(path, content)
    return content


def _offline(file: SourceFile, folder: Path) -> bytes:
    names = [file.name, *filter(None, [file.made_from])]
    for name in names:
        if (path := folder / name).is_file():
            return _checked(path.read_bytes(), file, path, f"replace it by the file from {file.url}")
    raise FileNotFoundError(f"{' or '.join(names)} is missing in {folder}, the folder that {FOLDER} names: put the "
                            f"file from {file.url} there, or unset {FOLDER} to have it downloaded")


def _download(file: SourceFile) -> bytes:
    try:
        with urllib.request.urlopen(file.url, timeout=_SECONDS) as answer:
            return answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(
            f"cannot download {file.url} ({error}). Try again with a network, or put the file as "
            f"{file.made_from or file.name} into a folder and set {FOLDER} to that folder") from error


def _checked(content: bytes, file: SourceFile, where: Path | str, remedy: str) -> bytes:
    """What was read there, or is made from it, if it is what `data/sources.toml` lists."""
    made = ""
    if file.made_from and str(where).endswith(file.made_from):
        made = f", of which {file.name} is made,"
        try:
            content = without_input(content)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{where} is no list of instructions with inputs ({error!r}): get it again") from error
    found = hashlib.sha256(content).hexdigest()
    if found not in file.sha256:
        raise ValueError(f"{where}{made} is not what data/sources.toml lists: sha256 {found}, expected "
                         f"{' or '.join(file.sha256)}; {remedy}")
    return content
