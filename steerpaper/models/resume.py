"""Progress of long computations, kept on disk batch by batch, so that an interrupted run goes on where it stopped.

Off unless the environment variable STEERPAPER_RESUME names a folder; the workflow names one for every notebook, in the
git-ignored build folder, and removes it when the notebook has run to its end. Removing it is always safe.
"""

import hashlib
import json
import os
import warnings
from functools import cache
from importlib.metadata import version
from pathlib import Path
from weakref import WeakKeyDictionary

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from steerpaper.paths import write_bytes

_LIBRARIES = ("torch", "transformers", "nnsight")
_FINGERPRINTS: WeakKeyDictionary = WeakKeyDictionary()


class Progress:
    """How far one computation has come: what it has so far, and how many of its rows went into that.

    Kept under a digest of everything that the result depends on, so nothing is taken up that another model, input,
    library, device or version of this package has left.

    Attributes:
        state: tensors, to be changed or replaced by whoever computes; as given at first, or as last kept.
        done: the number of rows that are in `state`.

    Args:
        what: a plain name for the kind of computation.
        model: the Hugging Face model that computes.
        inputs: everything else that the result depends on: JSON, with tensors as values where needed.
        state: what to begin with; a kept state has these names, shapes and dtypes.
    """

    def __init__(self, what: str, model: torch.nn.Module, inputs: dict, state: dict[str, Tensor]):
        self.state, self.done, self._path = state, 0, None
        if folder := os.environ.get("STEERPAPER_RESUME"):
            self._key = _key(what, model, inputs)
            self._path = Path(folder) / f"{what}-{self._key[:32]}.safetensors"
            self._take_up()

    def keep(self, n: int) -> None:
        """`n` more rows are in `state`: written to disk, whole or not at all, if progress is to be kept."""
        self.done += n
        if self._path is not None:
            about = {"key": self._key, "done": self.done}
            content = safetensors.torch.save(self.state)
            about["sha256"] = hashlib.sha256(content + json.dumps(about).encode()).hexdigest()
            write_bytes(self._path, safetensors.torch.save(self.state, {"progress": json.dumps(about)}))

    def _take_up(self) -> None:
        """Go on from what is on disk, if it is whole."""
        if not self._path.exists():
            return
        try:
            with safetensors.safe_open(self._path, framework="pt") as file:
                about = json.loads(file.metadata()["progress"])
                state = {name: file.get_tensor(name) for name in file.keys()}
            content, found = safetensors.torch.save(state), about.pop("sha256")
            if hashlib.sha256(content + json.dumps(about).encode()).hexdigest() != found or about["key"] != self._key:
                raise ValueError("it does not match its digest")
            if _shapes(state) != _shapes(self.state):
                raise ValueError("it holds other tensors than expected")
        except (safetensors.SafetensorError, TypeError, KeyError, ValueError) as error:
            warnings.warn(f"damaged progress in {self._path.name} ({error}): computing it again", stacklevel=4)
            return
        self.state, self.done = state, about["done"]


def _shapes(state: dict[str, Tensor]) -> dict:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def _key(what: str, model: torch.nn.Module, inputs: dict) -> str:
    """Digest of everything that a result depends on."""
    device = next(model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    parts = [what, name, fingerprint(model), _code(), [version(library) for library in _LIBRARIES], inputs]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_described).encode()).hexdigest()


def _described(value) -> list:
    """A tensor (or what makes one) as JSON."""
    tensor = torch.as_tensor(value)
    return [str(tensor.dtype), list(tensor.shape), hashlib.sha256(_bytes(tensor)).hexdigest()]


def _bytes(tensor: Tensor):
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def fingerprint(model: torch.nn.Module) -> str:
    """Digest of a Hugging Face model's configuration and of the weights that it holds, computed once per model."""
    if model not in _FINGERPRINTS:
        digest = hashlib.sha256(model.config.to_json_string().encode())
        digest.update(str(model.config._attn_implementation).encode())
        for name, tensor in model.state_dict().items():
            digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            digest.update(_bytes(tensor))
        _FINGERPRINTS[model] = digest.hexdigest()
    return _FINGERPRINTS[model]


@cache
def _code() -> str:
    """Digest of this package's own source: a repaired line must not meet what the broken one computed."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
