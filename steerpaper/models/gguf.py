"""GGUF files: dequantised once, by transformers' reader, into a folder that is read like any other checkpoint.

What a file states and the reader would leave out is put right here or refused: a wrong rotation or a lost bias shows in
no error message.
"""

import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock
from gguf import MODEL_ARCH_NAMES, GGUFReader, LlamaFileType, get_tensor_name_map
from jaxtyping import Float
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import (
    CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedConfig, PreTrainedModel,
)
from transformers.integrations.gguf import read_gguf_metadata
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.utils import logging as transformers_logging

from steerpaper import paths
from steerpaper.models import folder, weights

SUFFIX = ".gguf"
FAMILIES = ("llama", "gemma2", "qwen2", "qwen3")
_MANIFEST = "manifest.json"
_LIBRARIES = ("gguf", "transformers", "tokenizers")
# What transformers' reader takes from a file of these families, or `_stated` does.
_READ = {"context_length", "block_count", "feed_forward_length", "embedding_length", "vocab_size", "rope.freq_base",
         "rope.dimension_count", "attention.head_count", "attention.head_count_kv", "attention.key_length",
         "attention.value_length", "attention.layer_norm_rms_epsilon"}
_GEMMA2 = {"attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping"}
_LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 8192}
# How SmolLM splits text, which transformers' reader does not know.
_SMOLLM = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False)])


def described(source: str) -> str:
    """What results say that they are of: the file and how its weights are stored, from its first bytes alone."""
    known = weights.listed().get(source)
    stored = known.quantisation if known else _quantisation(_metadata(Path(source)))
    return f"{Path(source).name}: {stored} weights, dequantised"


def dequantised(source: str, dtype: torch.dtype) -> Path:
    """The checkpoint folder with a GGUF file's weights in a dtype, made at the first call.

    It lies in `data/models`, which git ignores, under the file's name and digest; `manifest.json` in it says what it
    was made of. It is there whole or not at all, and one process makes it.

    Args:
        source: the path of a file, or the name of a listed one (see `weights`), which is fetched if need be.

    Raises:
        ValueError: no GGUF file; an adapter, one piece of several, another family, or a model that states something
            which is not understood here; and what `weights.fetch` raises.
        OSError: the disk is full.
    """
    name, sha256 = Path(source).stem, weights.digest(source)
    place = paths.MODELS / f"{name}-{sha256[:16]}-{str(dtype).removeprefix('torch.')}"
    made = {"sha256": sha256, "dtype": str(dtype), "libraries": {name: version(name) for name in _LIBRARIES}}
    if _is_whole(place, made):
        return place
    path = weights.fetch(source)
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f".{place.name}.lock")):
        if _is_whole(place, made):  # by another process, just now
            return place
        for left in place.parent.glob(f".{place.name}.draft-*"):  # of a process that was killed
            shutil.rmtree(left)
        draft = place.with_name(f".{place.name}.draft-{os.getpid()}")
        draft.mkdir()
        try:
            _write(path, dtype, draft, made)
            if place.exists():
                shutil.rmtree(place)
            draft.rename(place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return place


def _is_whole(place: Path, made: dict) -> bool:
    """Whether a folder holds what it was made with, by its manifest."""
    if not place.exists():
        return False
    try:
        manifest = json.loads((place / _MANIFEST).read_bytes())
        sizes = {name: (place / name).stat().st_size for name in manifest["files"]}
        if manifest | made == manifest and sizes == manifest["files"]:
            return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    warnings.warn(f"{place} is damaged, or other versions of libraries made it: making it again", stacklevel=4)
    return False


def _write(path: Path, dtype: torch.dtype, draft: Path, made: dict) -> None:
    """A checkpoint folder and its manifest."""
    metadata, where = _metadata(path), {"gguf_file": path.name, "local_files_only": True}
    with _readable(path):
        reader = GGUFReader(path)
        values, _ = PreTrainedConfig.get_config_dict(str(path.parent), **where)
    values |= _stated(path, metadata, reader)
    with _readable(path):
        config = CONFIG_MAPPING[values["model_type"]].from_dict(values)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **where)
        with torch.device("meta"):
            plain = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if metadata.get("tokenizer.ggml.pre") == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = _SMOLLM
    _check_tensors(path, plain, reader)
    with _readable(path):
        hf, info = AutoModelForCausalLM.from_pretrained(
            path.parent, config=config, dtype=dtype, output_loading_info=True, **where)
    folder.check_weights(str(path), hf, info)
    plain.load_state_dict(hf.state_dict(), assign=True)  # a model from a GGUF file refuses to be saved
    plain.tie_weights()
    with weights.full_disk_said(draft.parent, plain.get_memory_footprint()):
        plain.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        files = {file.name: file.stat().st_size for file in sorted(draft.iterdir())}
        types = Counter(tensor.tensor_type.name for tensor in reader.tensors)
        about = {"source": path.name, "weights": f"{_quantisation(metadata)}, dequantised", "tensors": types}
        (draft / _MANIFEST).write_text(json.dumps(about | made | {"files": files}, indent=1, sort_keys=True))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Within it, what a reader stumbles over says which file it was."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # of whatever kind
        raise ValueError(f"{path} cannot be read as a GGUF file ({type(error).__name__}: {error}): get it again, whole"
                         ) from error
    finally:
        transformers_logging.set_verbosity(before)


def _metadata(path: Path) -> dict:
    """What the file states before its tensors, seen to be of a whole model of a supported family.

    Raises:
        ValueError: it is not.
    """
    with _readable(path):
        metadata, _ = read_gguf_metadata(path)
    kind, family = metadata.get("general.type", "model"), metadata["general.architecture"]
    if kind == "adapter":
        raise ValueError(f"{path} holds a LoRA adapter, which changes the weights of a model and is none: give a GGUF "
                         "file that it has been merged into")
    if kind != "model" or metadata.get("split.count", 1) > 1:
        what = f"a {kind}" if kind != "model" else f"one of {metadata['split.count']} pieces of a model"
        raise ValueError(f"{path} holds {what}, not a model: give one file with the whole (pieces are joined by "
                         "llama-gguf-split --merge)")
    if family not in FAMILIES:
        raise ValueError(f"{path} is of architecture {family!r}; supported: {', '.join(FAMILIES)}")
    return metadata


def _quantisation(metadata: dict) -> str:
    """The name of how most weights are stored, e.g. "Q4_K_M"."""
    stated = metadata.get("general.file_type")
    known = {int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType}
    return known.get(stated, "unnamed quantised")


def _stated(path: Path, metadata: dict, reader: GGUFReader) -> dict:
    """Values of the config that the file states and transformers' reader leaves out.

    Raises:
        ValueError: it states what is known neither there nor here.
    """
    family = metadata["general.architecture"]
    own = {key.removeprefix(f"{family}."): value for key, value in metadata.items() if key.startswith(f"{family}.")}
    head_dim = own.get("attention.key_length", own["embedding_length"] // own["attention.head_count"])
    odd = [f"{key} = {value}" for key, value in own.items()
           if key not in _READ | (_GEMMA2 if family == "gemma2" else set()) and value not in (0, "none")
           or key in ("rope.dimension_count", "attention.value_length") and value != head_dim]
    splits = metadata.get("tokenizer.ggml.pre")
    if metadata.get("tokenizer.ggml.model") == "gpt2" and splits not in (*GGUF_PRE_TOKENIZER_SPLITS, "gpt-2", "smollm"):
        odd.append(f"tokenizer.ggml.pre = {splits}")
    if odd:
        raise ValueError(f"{path} states what is not understood here ({', '.join(odd)}), and without it the model "
                         "would be another: give a checkpoint folder of the same model")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    theta = own.get("rope.freq_base", 10000.0)
    stated = {"head_dim": head_dim, "vocab_size": int(tensors["token_embd.weight"].shape[1]),
              "rope_parameters": {"rope_type": "default", "rope_theta": theta}}
    if (frequencies := tensors.get("rope_freqs.weight")) is not None:
        stated["rope_parameters"] = _llama3_rope(path, torch.tensor(frequencies.data), theta)
    if family == "gemma2":
        of_27b = own["block_count"] == 46  # the only size whose queries are scaled by another number
        stated |= {"attn_logit_softcapping": own.get("attn_logit_softcapping", 50.0),
                   "final_logit_softcapping": own.get("final_logit_softcapping", 30.0),
                   "query_pre_attn_scalar": (own["embedding_length"] // own["attention.head_count"] if of_27b else
                                             head_dim)}
    return stated


def _llama3_rope(path: Path, divisors: Float[Tensor, "frequency"], theta: float) -> dict:
    """Llama 3's scaling of the rotary embedding, of which a GGUF file states the result alone.

    Raises:
        ValueError: the frequencies are divided by other numbers than these.
    """
    found = {**_LLAMA3, "factor": divisors.max().item(), "rope_theta": theta}
    config = LlamaConfig(head_dim=2 * len(divisors), max_position_embeddings=131072, rope_parameters=found)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = theta ** -(torch.arange(len(divisors)) / len(divisors))
    if not torch.allclose(plain / scaled, divisors, rtol=1e-3):
        raise ValueError(f"{path} scales the rotary embedding in another way than Llama 3.1 to 3.3: give a checkpoint "
                         "folder of the same model")
    return found


def _check_tensors(path: Path, plain: PreTrainedModel, reader: GGUFReader) -> None:
    """Every tensor of the file has its place in the model, and the other way round: the reader drops what has none."""
    kinds = {name: kind for kind, name in MODEL_ARCH_NAMES.items()}
    names = get_tensor_name_map(kinds[plain.config.model_type], plain.config.num_hidden_layers)
    wanted = {names.get_name(name, (".weight", ".bias")) for name, _ in plain.named_parameters()}
    found = {tensor.name for tensor in reader.tensors} - {"rope_freqs.weight"}
    for what, odd in (("holds tensors that have no place in", found - wanted), ("lacks tensors of", wanted - found)):
        if odd:
            names = ", ".join(sorted(map(str, odd))[:5])
            raise ValueError(f"{path} {what} a {plain.config.model_type} model: {names}; give a checkpoint folder of the "
                             "same model")
