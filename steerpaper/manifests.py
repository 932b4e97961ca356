"""The manifest of a folder of tables: the model that they are of, and what each held when its notebook wrote it."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pandas as pd
from filelock import FileLock
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from steerpaper.paths import write_bytes

NAME = "manifest.json"


def table(content: bytes) -> pd.DataFrame:
    """The table in a CSV file's content; only empty fields are missing values."""
    return pd.read_csv(BytesIO(content), keep_default_na=False, na_values=[""])


def entry(content: bytes) -> dict:
    """What a manifest says of a table: digest, number of rows, and for each column of numbers its range."""
    rows = table(content)
    numbers = [name for name in rows if is_numeric_dtype(rows[name]) and not is_bool_dtype(rows[name])]
    ranges = {name: [f"{end:g}" for end in (rows[name].min(), rows[name].max())] for name in numbers}
    return {"sha256": hashlib.sha256(content).hexdigest(), "rows": len(rows), "columns": list(rows), "ranges": ranges}


def read(folder: Path) -> dict:
    """The manifest of a folder: `model` (None where there is no manifest yet) and `tables`, an `entry` by name.

    Raises:
        ValueError: a manifest that cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return {"model": None, "tables": {}}
    try:
        found = json.loads(path.read_bytes())
        return {"model": dict(found["model"]), "tables": dict(found["tables"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no manifest of tables ({error!r}): restore it, or remove the folder and run the "
                         "notebooks again") from error


def write(folder: Path, manifest: dict) -> None:
    """Write a folder's manifest, whole or not at all."""
    write_bytes(folder / NAME, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())


@contextmanager
def entries(folder: Path, model: dict) -> Iterator[dict]:
    """Within it, the entries of a folder's tables, to be changed; one process at a time.

    Args:
        model: what the tables are of, see `artifacts`. New weights at the same place, or another dtype, start a new
            manifest.

    Raises:
        ValueError: the folder holds results of another model at another place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{NAME}.lock"):
        found = read(folder)
        if owner := found["model"]:
            check_owner(folder, owner, model)
        if owner and any(owner.get(key) != model.get(key) for key in ("weights", "dtype")):
            found["tables"] = {}
        yield found["tables"]
        write(folder, {"model": model, "tables": found["tables"]})


def check_owner(folder: Path, owner: dict, model: dict) -> None:
    """Check that a folder's tables, which are of `owner`, are of this model, at whatever place, or of what was at its place.

    Raises:
        ValueError: they are of another model at another place.
    """
    if owner["weights"] != model["weights"] and owner["model"] != model["model"]:
        raise ValueError(f"{folder} holds results of another model, {owner['model']}; those of {model['model']} would "
                         f"overwrite them: rename one of the two model folders, or remove {folder}")


def difference(folder: Path, name: str, content: bytes) -> str:
    """How a table's content differs from what the manifest of its folder says; "" if it does not."""
    known = read(folder)["tables"].get(name)
    if known is None:
        return f"{NAME} beside it does not list it"
    if hashlib.sha256(content).hexdigest() == known["sha256"]:
        return ""
    try:
        found = entry(content)
    except ValueError as error:  # of pandas' parser, or of text that is none
        return f"not a table: {error}"
    if found["columns"] != known["columns"]:
        return f"columns {', '.join(found['columns'])}, not {', '.join(known['columns'])}"
    if found["rows"] != known["rows"]:
        return f"{found['rows']} rows, not {known['rows']}"
    for column, ends in known["ranges"].items():
        if (now := found["ranges"].get(column)) != ends:
            return f"{column} from {' to '.join(ends)}, now " + (f"from {' to '.join(now)}" if now else "no numbers")
    return "other values or text"
