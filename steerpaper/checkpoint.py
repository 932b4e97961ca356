"""Checkpoints on disk or on the hub: where one lies, and that it is whole and of a supported kind."""

import hashlib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path

import torch
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


def check_architecture(source: str, where: dict, supported: Collection[str]) -> None:
    """Refuse a model type that is not supported, before its weights are read."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(source, **where)
        family = config["model_type"]  # a folder without a config gives an empty one
    except (OSError, KeyError) as error:
        raise FileNotFoundError(
            f"no readable config.json with a model_type for {source!r} (a mistyped folder is looked for on "
            f"the hub; a gated model needs `hf auth login`): {error}") from error
    if family not in supported:
        raise ValueError(f"{source} is of model_type {family!r}; supported: {', '.join(supported)}")
    if config.get("attention_bias"):
        raise ValueError(f"{source} has biases in its attention (attention_bias), which the per-head weight "
                         "views leave out; supported: attention_bias = false")


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
