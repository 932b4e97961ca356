"""Checkpoints on disk or on the hub: where one lies, and that it is whole and of a supported kind."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import constants, resolve_revision
from huggingface_hub.errors import (
    GatedRepoError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError,
    RevisionResolutionError,
)
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig

from steerpaper.presets import PRESETS, Preset


def locate(name: str, preset: Preset | None) -> tuple[str, bool]:
    """Where a model lies: (folder or hub id, whether it is a folder)."""
    source = preset.model if preset else name
    if os.path.isdir(source):
        return source, True
    if preset and os.path.isabs(source):
        raise FileNotFoundError(f"the checkpoint folder {source} of preset {name!r} is missing: "
                                "check the repository out completely, or train it with notebook 00")
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", source):
        return source, False
    raise ValueError(f"no model {name!r}: it is neither a preset ({', '.join(PRESETS)}), nor an existing "
                     "checkpoint folder, nor a hub id of the form owner/name")


def dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype by that name, for weights."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"no dtype {dtype!r} for weights: choose float32, bfloat16 or float16")
    return found


def commit(source: str, revision: str | None, *, local_files_only: bool = False) -> str:
    """The commit behind a branch or tag of a hub model, or behind its default branch; a commit as it is, unasked.

    Without access to the hub, or with `local_files_only`, the commit that the hub's cache here last had.

    Raises:
        OSError: as for `clear_hub_errors`.
    """
    with clear_hub_errors(source, revision):
        return resolve_revision(source, revision=revision, local_files_only=local_files_only).resolved


@contextmanager
def clear_hub_errors(source: str, revision: str | None) -> Iterator[None]:
    """Within it, what the hub refuses says which model was asked for and what to do.

    Raises:
        PermissionError: a gated model without access.
        FileNotFoundError: no such model or revision.
        ConnectionError: the hub cannot be asked, and the files are not in its cache here.
    """
    try:
        yield
    except Exception as error:
        told = _hub_error(source, revision, error)
        if told is None:
            raise
        raise told from error


def _hub_error(source: str, revision: str | None, error: BaseException) -> OSError | None:
    """What to tell of an error that the hub's client raised, maybe within others; None for any other error."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)

    def found(*kinds: type) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    page, wanted = f"https://huggingface.co/{source}", f"{source} at {revision or 'its default branch'}"
    if found(GatedRepoError):
        return PermissionError(f"{source} is gated: accept its licence at {page} with your account, then run "
                               "`hf auth login` with a token of that account (or set HF_TOKEN)")
    if found(RepositoryNotFoundError):
        return FileNotFoundError(f"the hub has no model {source!r} that you may see: check the name; if it is private, "
                                 "run `hf auth login` with a token that may read it")
    if found(RevisionNotFoundError):
        return FileNotFoundError(f"{source} has no revision {revision!r}: choose a commit of {page}/commits/main")
    if found(LocalEntryNotFoundError, OfflineModeIsEnabled, RevisionResolutionError):
        why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "the hub cannot be reached"
        pinned = f" --revision {revision}" if revision else ""
        return ConnectionError(f"{wanted} is not complete in the hub's cache here, and {why}: run `hf download {source}"
                               f"{pinned}` with access to the hub, set HF_HOME to where it is cached, or give the path "
                               "of a checkpoint folder")
    return None


def check_architecture(source: str, where: dict, supported: Collection[str]) -> None:
    """Refuse an architecture that is not supported, before its weights are read."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(source, **where)
        family = config["model_type"]  # a folder without a config gives an empty one
    except (OSError, KeyError) as error:
        raise FileNotFoundError(
            f"no readable config.json with a model_type for {source!r} (a mistyped folder is looked for on "
            f"the hub): {error}") from error
    if family not in supported:
        raise ValueError(f"{source} is of model_type {family!r}; supported: {', '.join(supported)}")
    if config.get("attention_bias"):
        raise ValueError(f"{source} has a bias in its attention output (attention_bias), which no head's write holds; "
                         "supported: attention_bias = false, and the biases of Qwen 2's queries, keys and values")


def check_files(folder: Path) -> None:
    """Every weights file is there and whole, and every file in SHA256SUMS has its digest."""
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = set(json.loads(index.read_text())["weight_map"].values())
        files = [folder / shard for shard in sorted(shards)]
    missing = [str(file) for file in files if not file.exists()]
    if missing or not files:
        raise FileNotFoundError(f"no weights: {', '.join(missing) or f'{folder}/*.safetensors'} missing. "
                                "Only safetensors are read; restore the file or train the model again")
    sums = folder / "SHA256SUMS"
    for line in sums.read_text().splitlines() if sums.exists() else []:
        if not (entry := re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)):
            raise ValueError(f"{sums} has a line that is not '<sha256>  <file>': {line!r}")
        digest, path = entry[1], folder / entry[2]
        if not path.exists():
            raise FileNotFoundError(f"{path} is listed in SHA256SUMS but missing: restore it")
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise ValueError(f"{path} is not the file in SHA256SUMS (sha256 {found}, expected {digest}): "
                             "restore it")
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                continue
        except SafetensorError as error:
            raise ValueError(f"corrupt weights {file} ({error}): restore the file") from error


def check_weights(source: str, hf, info: dict) -> None:
    """No weight is missing, left over or not finite."""
    for what in ("missing_keys", "unexpected_keys"):
        if info[what]:
            names = ", ".join(sorted(info[what])[:5])
            raise ValueError(f"the weights in {source} do not fit its config.json: "
                             f"{what.replace('_', ' ')} {names}")
    for name, weight in hf.named_parameters():
        if not torch.isfinite(weight).all():
            raise ValueError(f"weight {name} of {source} has values that are not finite (NaN or inf): "
                             f"restore the file, or load in a wider dtype than {hf.dtype}")


def place(hf, source: str, device: str | torch.device, advice: str) -> None:
    """Move a model to a device.

    Raises:
        torch.OutOfMemoryError: its weights do not fit there; the message ends in the advice.
    """
    try:
        hf.to(device)
    except torch.OutOfMemoryError as error:
        size = sum(weight.numel() * weight.element_size() for weight in hf.parameters()) / 2**30
        raise torch.OutOfMemoryError(
            f"the weights of {source} are {size:.1f} GiB in {hf.dtype} and do not fit on {device}: {advice}, or free "
            f"the memory that other processes hold: {error}") from error
