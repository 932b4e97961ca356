"""The files of a checkpoint: whole, in full precision, without an adapter, and with the weights of their config."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_OBJECTS = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", _INDEX)
_FULL_PRECISION = ("F64", "F32", "BF16", "F16")
# How to write a full-precision copy, by method; transformers has no way back from the others.
_DEQUANTISE = {
    "bitsandbytes": "AutoModelForCausalLM.from_pretrained({0!r}).dequantize().save_pretrained(copy)",
    "MLX": "mlx_lm.convert --hf-path {0!r} --mlx-path copy --dequantize",
    "fp8": "AutoModelForCausalLM.from_pretrained({0!r}, quantization_config=FineGrainedFP8Config(dequantize=True))"
           ".save_pretrained(copy)",
}


def refuse_adapters(source: str, found: Iterable[str | Path]) -> None:
    """Raise ValueError if a checkpoint has these files of an adapter, which change what its weights do."""
    if found := sorted(map(str, found)):
        raise ValueError(f"{source} holds a LoRA adapter ({found[0]}), which is not part of the weights: merge "
                         f"it first, with peft model = AutoPeftModelForCausalLM.from_pretrained({source!r})"
                         ".merge_and_unload(), save model and tokenizer with save_pretrained(folder), and give that "
                         "folder")


def refuse_quantised(source: str, config: dict) -> None:
    """Raise ValueError if a config says that the weights are quantised: their values alone are then not the weights."""
    found = config.get("quantization_config") or config.get("quantization") or config.get("compression_config")
    if not found:
        return
    settings = found if isinstance(found, dict) else {}
    bits = "int8" if settings.get("load_in_8bit") else settings.get("bnb_4bit_quant_type", "4-bit")
    of_bitsandbytes = settings.get("load_in_8bit") or settings.get("load_in_4bit")
    method = f"bitsandbytes {bits}" if of_bitsandbytes else str(settings.get("quant_method") or "MLX")
    how = next((how.format(source) for known, how in _DEQUANTISE.items() if known in method), None)
    copy = f", or a full-precision copy of this one, made where the method's packages run: {how}" if how else ""
    raise ValueError(f"{source}/config.json says that the weights are quantised ({method}): steering, gradients and "
                     f"head weights need them in full precision. Give the model that was quantised{copy}")


def check_files(folder: Path) -> None:
    """Every weights file is there and whole, every file in SHA256SUMS has its digest, and the rest is JSON."""
    objects = {name: _json_object(folder / name) for name in _OBJECTS if (folder / name).exists()}
    files = [folder / _SINGLE] if (folder / _SINGLE).exists() else []
    if _INDEX in objects:
        files += [folder / shard for shard in _shards(folder / _INDEX, objects[_INDEX])]
    elif not files and (others := sorted(file.name for file in folder.glob("*.safetensors"))):
        raise FileNotFoundError(f"no weights: {folder} holds {', '.join(others)}, but neither {_SINGLE} nor the "
                                f"{_INDEX} that says which weights are in which of them: restore it")
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
    check_stored(files)


def _json_object(file: Path) -> dict:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}): restore the file") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a JSON {type(content).__name__}, not an object: restore the file")
    return content


def _shards(file: Path, index: dict) -> list[str]:
    """The weights files that an index names."""
    weights = index.get("weight_map")
    if not isinstance(weights, dict) or not weights or not all(isinstance(shard, str) for shard in weights.values()):
        raise ValueError(f"{file} has no weight_map that names the file of every weight: restore the file")
    return sorted(set(weights.values()))


def check_stored(files: Iterable[Path]) -> None:
    """Every weights file can be read, and holds floating-point numbers of full precision: others need scales."""
    for file in files:
        try:
            with safe_open(file, framework="pt") as weights:
                stored = {name: weights.get_slice(name).get_dtype() for name in weights.keys()}
        except SafetensorError as error:
            raise ValueError(f"corrupt weights {file} ({error}): restore the file") from error
        if name := next((name for name, dtype in stored.items() if dtype not in _FULL_PRECISION), None):
            raise ValueError(f"{file} stores {name} as {stored[name]}: quantised weights, which are nothing without "
                             f"their scales. Weights must be stored as {', '.join(_FULL_PRECISION)}: give the model "
                             "that was quantised")


def check_weights(source: str, hf, info: dict) -> None:
    """No weight is missing, left over, of another shape than the config's, or not finite."""
    for what in ("missing_keys", "unexpected_keys"):
        if info[what]:
            names = ", ".join(sorted(info[what])[:5])
            raise ValueError(f"the weights in {source} do not fit its config.json: "
                             f"{what.replace('_', ' ')} {names}")
    for name, found, wanted in sorted(info["mismatched_keys"])[:1]:
        raise ValueError(f"the weights in {source} do not fit its config.json: {name} has shape {tuple(found)}, by the "
                         f"config {tuple(wanted)}")
    for name, weight in hf.named_parameters():
        if not torch.isfinite(weight).all():
            raise ValueError(f"weight {name} of {source} has values that are not finite (NaN or inf): "
                             f"restore the file, or load in a wider dtype than {hf.dtype}")
