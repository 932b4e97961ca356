"""Checkpoints on disk or on the hub: where one lies, of what kind it is, and where its weights can go."""

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import constants, resolve_revision, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError,
    RevisionResolutionError,
)
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.utils import find_adapter_config_file

from steerpaper.choices import unknown
from steerpaper.models import folder, weights
from steerpaper.presets import PRESETS, Preset

# How to run a model, which a config may say too and this package chooses; and what is empty by then.
_DROPPED = ("attn_implementation", "_attn_implementation", "output_attentions", "output_hidden_states", "return_dict",
            "use_cache", "quantization_config")

_CHOICES = {"hidden_act": [*ACT2FN], "hidden_activation": [*ACT2FN], "rope_type": ["default", *ROPE_INIT_FUNCTIONS]}


def locate(name: str, preset: Preset | None) -> tuple[str, bool]:
    """Where a model lies: (folder, GGUF file or hub id, whether it is no hub id)."""
    source = preset.model if preset else name
    if os.path.isdir(source) or source in weights.listed() or source.endswith(".gguf") and os.path.isfile(source):
        return source, True
    if preset and os.path.isabs(source):
        raise FileNotFoundError(f"the checkpoint folder {source} of preset {name!r} is missing: "
                                "check the repository out completely, or train it with notebook 00")
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", source):
        return source, False
    raise unknown("model", name, PRESETS, ", or give an existing GGUF file or checkpoint folder, or a hub id of the form "
                  "owner/name")


def dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype by that name, for weights."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"no dtype {dtype!r} for weights: choose float32, bfloat16 or float16")
    return found


def device_of(device: str | torch.device | None) -> torch.device:
    """The device of that name, seen to hold a number; CUDA where there is one, else the CPU, if none is named."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except torch.OutOfMemoryError:  # there, and full
        raise
    except (RuntimeError, AssertionError, TypeError) as error:
        n = torch.cuda.device_count()
        here = ", ".join(["'cpu'", *(f"'cuda:{i}'" for i in range(n))])
        raise ValueError(f"no device {device!r} here: choose one of {here}, or leave it out for the best ({error})"
                         ) from error
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


def cached(source: str, commit: str | None) -> Path | None:
    """The folder of the hub's cache that holds a hub model's config, if it is there."""
    path = try_to_load_from_cache(source, "config.json", revision=commit)
    return Path(path).parent if isinstance(path, str) else None


def read_config(source: str, where: dict, supported: Collection[str]) -> PreTrainedConfig:
    """The config of a checkpoint that can be read here, before any of its weights is.

    Raises:
        FileNotFoundError: there is none.
        ValueError: an adapter, quantised weights, an architecture that is not supported, or the config of no model.
    """
    is_local = os.path.isdir(source)
    if is_local:
        folder.refuse_adapters(source, Path(source).glob("adapter_*"))
    asked = not is_local and cached(source, where["revision"]) is not None
    try:
        config, _ = PreTrainedConfig.get_config_dict(source, **where)
        if not isinstance(config, dict):
            raise OSError(f"it holds a JSON {type(config).__name__}, not an object")
        family = config["model_type"]  # a folder without a config gives an empty one
    except (OSError, KeyError) as error:
        raise FileNotFoundError(
            f"no readable config.json with a model_type for {source!r} (a mistyped folder is looked for on the hub; "
            f"what holds nothing but a LoRA adapter has no config): {error}") from error
    if not is_local and (found := find_adapter_config_file(source, **where | {"local_files_only": asked})):
        folder.refuse_adapters(source, [found])
    folder.refuse_quantised(source, config)
    if family not in supported:
        raise ValueError(f"{source} is of model_type {family!r}; supported: {', '.join(supported)}")
    if config.get("attention_bias"):
        raise ValueError(f"{source} has a bias in its attention output (attention_bias), which no head's write holds; "
                         "supported: attention_bias = false, and the biases of Qwen 2's queries, keys and values")
    return _config(source, {key: value for key, value in config.items() if key not in _DROPPED})


def _config(source: str, values: dict) -> PreTrainedConfig:
    """The config of these values, seen to describe a model."""
    where, n_vocab = f"{source}/config.json", values.get("vocab_size")
    if isinstance(n_vocab, int) and values.get("pad_token_id") not in range(n_vocab):
        values["pad_token_id"] = None  # padding is masked wherever it is read: no row of the embedding is needed
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    chosen = values | {"rope_type": rope.get("rope_type", rope.get("type")) if isinstance(rope, dict) else rope}
    for name, known in _CHOICES.items():
        if chosen.get(name) not in (None, *known):
            raise unknown(name, chosen[name], known, f" (in {where})")
    try:
        config = CONFIG_MAPPING[values["model_type"]].from_dict(values, name_or_path=source)
        if config.num_attention_heads % config.num_key_value_heads:
            raise ValueError(f"num_attention_heads ({config.num_attention_heads}) is not a multiple of "
                             f"num_key_value_heads ({config.num_key_value_heads})")
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config)
    except Exception as error:  # whatever transformers stumbles over
        raise ValueError(f"{where} describes no {values['model_type']} model ({type(error).__name__}: {error}): "
                         "restore the file") from error
    return config


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
