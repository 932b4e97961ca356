"""Long computations, kept on disk batch by batch: an interrupted run goes on where it stopped, and what nothing has
changed is not computed again.

Off unless the environment variable STEERPAPER_KEPT names a folder; the workflow names one for every preset, in the
git-ignored build folder. Removing it is always safe.
"""

import ast
import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from weakref import WeakKeyDictionary

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from steerpaper.paths import write_bytes

_ROOT = Path(__file__).parents[2]
_LIBRARIES = ("torch", "transformers", "nnsight")
# Modules whose work is done before a computation begins: what they decide are its inputs and its model, which are
# digested themselves. A new preset, prompt set or judge computes nothing again. (The log odds of first tokens are among
# the scores that are kept, so `behaviour.first_tokens` is none of these.)
_BEFORE = tuple(f"steerpaper.{name}" for name in (
    "presets", "concepts", "prompts", "outputs", "artifacts", "manifests",
    "behaviour.judges", "behaviour.judging", "behaviour.effects",
    "models.checkpoint", "models.folder", "models.template", "models.weights", "models.gguf"))
# What else picks the processor's routines, and so the rounding of sums.
_ROUTINES = ("MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "NPY_DISABLE_CPU_FEATURES")
_FINGERPRINTS: WeakKeyDictionary = WeakKeyDictionary()


class Kept:
    """How far one computation has come: what it has so far, and how many of its rows went into that.

    Kept under a digest of everything that the result depends on, so nothing is taken up that another model, input,
    library, device or version of the modules that compute has left.

    Attributes:
        state: tensors, to be changed or replaced by whoever computes; as given at first, or as last kept.
        done: the number of rows that are in `state`.

    Args:
        what: a plain name for the kind of computation.
        module: name of the module that computes. It counts with all of this package's that it imports, directly or not.
        model: the Hugging Face model that computes.
        inputs: everything else that the result depends on: JSON, with tensors as values where needed.
        state: what to begin with; a kept state has these names, shapes and dtypes.
    """

    def __init__(self, what: str, module: str, model: torch.nn.Module, inputs: dict, state: dict[str, Tensor]):
        self.state, self.done, self._path = state, 0, None
        if folder := os.environ.get("STEERPAPER_KEPT"):
            self._key = _key(what, module, model, inputs)
            self._path = Path(folder) / f"{what}-{self._key[:32]}.safetensors"
            self._take_up()

    def keep(self, n: int) -> None:
        """`n` more rows are in `state`: written to disk, whole or not at all, if anything is to be kept."""
        self.done += n
        if self._path is not None:
            about = {"key": self._key, "done": self.done}
            content = safetensors.torch.save(self.state)
            about["sha256"] = hashlib.sha256(content + json.dumps(about).encode()).hexdigest()
            write_bytes(self._path, safetensors.torch.save(self.state, {"kept": json.dumps(about)}))

    def _take_up(self) -> None:
        """Go on from what is on disk, if it is whole."""
        if not self._path.exists():
            return
        try:
            with safetensors.safe_open(self._path, framework="pt") as file:
                about = json.loads(file.metadata()["kept"])
                state = {name: file.get_tensor(name) for name in file.keys()}
            content, found = safetensors.torch.save(state), about.pop("sha256")
            if hashlib.sha256(content + json.dumps(about).encode()).hexdigest() != found or about["key"] != self._key:
                raise ValueError("it does not match its digest")
            if _shapes(state) != _shapes(self.state):
                raise ValueError("it holds other tensors than expected")
        except (safetensors.SafetensorError, TypeError, KeyError, ValueError) as error:
            warnings.warn(f"{self._path.name} is damaged ({error}): computing it again", stacklevel=4)
            return
        self.state, self.done = state, about["done"]


def _shapes(state: dict[str, Tensor]) -> dict:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def _key(what: str, module: str, model: torch.nn.Module, inputs: dict) -> str:
    """Digest of everything that a result depends on."""
    libraries = [version(library) for library in _LIBRARIES]
    parts = [what, _processor(model), fingerprint(model), code(module), libraries, inputs]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_described).encode()).hexdigest()


def _described(value) -> list:
    """A tensor (or what makes one) as JSON."""
    tensor = torch.as_tensor(value)
    return [str(tensor.dtype), list(tensor.shape), hashlib.sha256(_bytes(tensor)).hexdigest()]


def _bytes(tensor: Tensor):
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def fingerprint(model: torch.nn.Module) -> str:
    """Digest of a Hugging Face model's configuration and of the weights that it holds, computed once for as long as these
    stay. (A change of `.data` goes unnoticed by torch, and here.)"""
    weights = model.state_dict()
    now = [(tensor.data_ptr(), tensor._version) for tensor in weights.values()]
    known, found = _FINGERPRINTS.get(model, (None, ""))
    if known != now:
        digest = hashlib.sha256(model.config.to_json_string().encode())
        digest.update(str(model.config._attn_implementation).encode())
        for name, tensor in weights.items():
            digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            digest.update(_bytes(tensor))
        _FINGERPRINTS[model] = now, (found := digest.hexdigest())
    return found


def _processor(model: torch.nn.Module) -> list:
    """What computes, and by which routines."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        return [torch.cuda.get_device_name(device)]
    routines = [os.environ.get(name) for name in _ROUTINES]
    return [device.type, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), *routines]


@cache
def code(module: str) -> str:
    """Digest of the source of a module and of all that it imports from this package, but for `_BEFORE`: a repaired line
    must not meet what the broken one computed."""
    pending, sources = [module], {}
    while pending:
        if (name := pending.pop()) not in sources:
            sources[name] = _file(name).read_bytes()
            pending += [other for other in _imported(sources[name]) if not other.startswith(_BEFORE)]
    return hashlib.sha256(b"".join(sources[name] for name in sorted(sources))).hexdigest()


def _imported(source: bytes) -> Iterator[str]:
    """The modules of this package from which a module imports anything."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "steerpaper":
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                yield name if _file(name).is_file() else node.module


def _file(module: str) -> Path:
    path = _ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
