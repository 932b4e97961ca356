"""What one notebook hands to the next: tensors with a manifest, and tidy tables that people read too."""

import hashlib
import json
import shlex
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from steerpaper import manifests, paths
from steerpaper.behaviour.unsteered import nothing_to_steer
from steerpaper.concepts import get_concept
from steerpaper.models import checkpoint, gguf, weights
from steerpaper.outputs import writer, writing
from steerpaper.paths import write_bytes
from steerpaper.presets import PRESETS, REFERENCE, as_given, get_preset
from steerpaper.steering import Steering
from steerpaper.vectors.methods import get_method

_SUFFIXES = {"tensors": ".safetensors", "tables": ".csv"}
_VERDICTS = "scorecard_claims"  # the table that all of the argument's notebooks come before
_LIBRARIES = ("torch", "transformers", "tokenizers", "nnsight", "numpy")


def save_tensors(preset: str, name: str, tensors: dict[str, Tensor], manifest: dict) -> None:
    """Save tensors of one preset as `<name>.safetensors` with how they were made.

    `manifest` is whatever JSON holds (seed, layer, …). The name, preset, model, hub commit or digest of the local
    weights, dtype, library versions and a digest over all of it are added.

    Raises:
        ValueError: an unknown preset, a name that no notebook is declared to write, or results that another model has
            left under the preset's name.
        FileNotFoundError: the model's folder holds no weights.
    """
    path, _ = _path("tensors", paths.artifacts, preset, name)
    # Copies of their own: safetensors refuses tensors that share memory, such as a row beside its matrix.
    tensors = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()
    }
    libraries = {library: version(library) for library in _LIBRARIES}
    model = _model(preset)
    manifest = {**manifest, **model, "name": name, "libraries": libraries}
    manifest["sha256"] = _digest(tensors, manifest)
    # One metadata entry: safetensors writes several in an order that changes from run to run.
    metadata = {"manifest": json.dumps(manifest, sort_keys=True)}
    with manifests.entries(paths.results(model["preset"]), model):  # refuses another model's
        write_bytes(path, safetensors.torch.save(tensors, metadata))


def check_owner(preset: str) -> None:
    """Check that what was computed here under a preset's name is of its model, before anything is written over it.

    Raises:
        ValueError: it is of another model, whose folder or file has the same name.
    """
    folder = paths.results(get_preset(preset).name)
    if owner := manifests.read(folder)["model"]:
        manifests.check_owner(folder, owner, _model(preset))


def load_tensors(preset: str, name: str) -> tuple[dict[str, Tensor], dict]:
    """Tensors and manifest as saved by `save_tensors`.

    Raises:
        FileNotFoundError: not there yet; the message says which notebook to run.
        ValueError: a name that no notebook writes, damaged, or made with another model than the preset's present one.
    """
    path, notebook = _existing("tensors", paths.artifacts, preset, name)
    remedy = f"run notebook {notebook} with preset {as_given(preset)!r} again"
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            manifest = json.loads(file.metadata()["manifest"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (safetensors.SafetensorError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{_shown(path)} cannot be read ({error}): {remedy}") from error
    if manifest.get("sha256") != _digest(tensors, manifest):
        raise ValueError(f"{_shown(path)} does not match its own digest: {remedy}")
    if manifest.get("name") != name:
        raise ValueError(f"{_shown(path)} holds {manifest.get('name')!r}, not {name!r}: {remedy}")
    now = _model(preset)
    changed = [f"{key} {manifest.get(key)!r}, now {value!r}" for key, value in now.items()
               if manifest.get(key) != value]
    if changed:
        raise ValueError(f"{_shown(path)} was made with another model ({'; '.join(changed)}): {remedy}")
    return tensors, manifest


def save_steering(preset: str, method: str, steering: Steering, manifest: dict) -> None:
    """Save the vector that a method found, where it enters and how strongly, as `save_tensors` does.

    Args:
        manifest: how it was made, such as `Extracted.about`; method, layer and coefficient are added.

    Raises:
        ValueError: an unknown method, or as for `save_tensors`.
    """
    about = {"method": get_method(method).name, "layer": steering.layer, "coefficient": steering.coefficient}
    save_tensors(preset, method, {"vector": steering.vector}, manifest | about)


def load_steering(preset: str, method: str) -> Steering:
    """The steering that notebook 01 saved for a method, with its positive coefficient.

    Raises:
        ValueError: an unknown method, or as for `load_tensors`.
        FileNotFoundError: not there yet; the message says which notebook to run.
    """
    tensors, about = load_tensors(preset, get_method(method).name)
    return Steering(tensors["vector"], about["layer"], about["coefficient"])


def save_table(preset: str, name: str, table: pd.DataFrame) -> None:
    """Save a tidy table as `<name>.csv`, with 6 significant digits and without its index, and enter it in the manifest.

    Raises:
        ValueError: an unknown preset, a name that no notebook is declared to write, an index or columns of several
            levels, or results that another model has left under the preset's name.
    """
    path, _ = _path("tables", paths.results, preset, name)
    if table.index.names != [None] or table.columns.nlevels > 1:
        raise ValueError(f"table {name!r} holds data in its index or column levels: call .reset_index()")
    content = table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()
    with manifests.entries(path.parent, _model(preset)) as tables:
        write_bytes(path, content)
        tables[name] = manifests.entry(content)


def load_table(preset: str, name: str, *, recorded: bool = False) -> pd.DataFrame:
    """A table as saved by `save_table`; only empty fields are missing values.

    Args:
        recorded: the one on record, in `data/results`, instead of the one that was computed here.

    Raises:
        FileNotFoundError: not there yet; the message says which notebook to run.
        ValueError: a name that no notebook writes, or not what its notebook wrote, by the manifest beside it.
    """
    path, notebook = _existing("tables", paths.recorded_results if recorded else paths.results, preset, name)
    content = path.read_bytes()
    if wrong := manifests.difference(path.parent, name, content):
        remedy = "restore it with git, or run `make record`" if recorded else "run it again"
        raise ValueError(f"{_shown(path)} is not what notebook {notebook} wrote ({wrong}): {remedy}")
    return manifests.table(content)


def load_recorded(name: str) -> pd.DataFrame:
    """A table of every preset that has it on record, one below the other; the first column, `preset`, says whose.

    Presets count from when their verdicts are on record. The tests' preset, whose folder git ignores, never does.

    Raises:
        FileNotFoundError: no preset has it.
        ValueError: as for `load_table`.
    """
    writer("tables", name)  # no other name is looked for
    listed = {preset: _tables_on_record(preset) for preset in PRESETS if preset != REFERENCE}
    kept = [preset for preset, names in listed.items() if {name, _VERDICTS} <= names]
    if not kept:
        raise FileNotFoundError(f"no preset has a table {name!r} on record: run `make record`")
    tables = {preset: load_table(preset, name, recorded=True) for preset in kept}
    return pd.concat(tables, names=["preset"]).reset_index("preset").reset_index(drop=True)


def on_record(preset: str) -> dict[str, dict[str, list[str] | str]]:
    """The notebooks on record of this preset, as of `writing`: those with a table in the manifest of
    `data/results/<preset>`, and those that write no table once its verdicts are there."""
    listed = _tables_on_record(preset)
    return {name: about for name, about in writing(preset).items()
            if listed & set(about["tables"]) or not about["tables"] and _VERDICTS in listed}


def _tables_on_record(preset: str) -> set[str]:
    return set(manifests.read(paths.recorded_results(preset))["tables"])


def finding(preset: str) -> str:
    """Why notebook 01 ended early on a preset, as `nothing_to_steer` says it; "" where it did not, or has not run."""
    record = get_preset(preset)
    path = paths.results(record.name) / "unsteered.csv"
    return nothing_to_steer(manifests.table(path.read_bytes()), get_concept(record.concept)) if path.is_file() else ""


def _model(preset: str) -> dict:
    """Which model stands behind a preset: the commit of a hub model, or the digest of a GGUF file or of a folder's
    weights."""
    record = get_preset(preset)
    model, folder = record.model, Path(record.model)
    if model.endswith(gguf.SUFFIX):
        digest = weights.digest(model)
        model = gguf.described(model)
    elif folder.is_absolute():
        files = sorted(folder.glob("*.safetensors"))
        model = _shown(folder)
        if not files:
            raise FileNotFoundError(f"{model} of preset {preset!r} holds no weights: restore them (an organism's: run "
                                    "00_model_organisms)")
        digest = _digest_of_files(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))
    else:  # the commit that was loaded here; asking the hub again could give a newer one
        digest = checkpoint.commit(model, record.revision, local_files_only=True)
    return {"preset": record.name, "model": model, "weights": digest, "dtype": record.dtype}


@lru_cache
def _digest_of_files(files: tuple[tuple[Path, int, int], ...]) -> str:
    """sha256 of files one behind the other, read once for as long as their sizes and times stay."""
    digest = hashlib.sha256()
    for file, *_ in files:
        with open(file, "rb") as content:
            while block := content.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def _digest(tensors: dict[str, Tensor], manifest: dict) -> str:
    rest = json.dumps({key: manifest[key] for key in manifest if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(rest.encode() + safetensors.torch.save(tensors)).hexdigest()


def _path(kind: str, folder: Callable[[str], Path], preset: str, name: str) -> tuple[Path, str]:
    """Where an output is, and which notebook writes it."""
    return folder(get_preset(preset).name) / f"{name}{_SUFFIXES[kind]}", writer(kind, name)


def _existing(kind: str, folder: Callable[[str], Path], preset: str, name: str) -> tuple[Path, str]:
    path, notebook = _path(kind, folder, preset, name)
    if not path.is_file():
        if folder is not paths.recorded_results and (why := finding(preset)):
            raise FileNotFoundError(f"{_shown(path)} is not made: notebook 01 ends with what it found: {why}")
        given = as_given(preset)
        raise FileNotFoundError(f"{_shown(path)} is missing: run notebook {notebook} with preset {given!r}, "
                                f"or all of them with `make figures PRESETS={shlex.quote(given)}`")
    return path, notebook


def _shown(path: Path) -> str:
    """A path as people see it in the repository, free of where the repository lies."""
    return str(path.relative_to(paths.ROOT)) if path.is_relative_to(paths.ROOT) else str(path)
