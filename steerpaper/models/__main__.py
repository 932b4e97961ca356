"""Make sure that the weights of presets are here, those of GGUF files dequantised, and say of each what they are.

    python -m steerpaper.models PRESET...
"""

import sys
from pathlib import Path

from huggingface_hub import snapshot_download

from steerpaper.models import checkpoint, gguf
from steerpaper.presets import Preset, get_presets


def ensure(preset: Preset) -> str:
    """What the weights of a preset are and where they lie, once they are there."""
    if preset.model.endswith(gguf.SUFFIX):
        place = gguf.dequantised(preset.model, checkpoint.dtype_of(preset.dtype))
        return f"{gguf.described(preset.model)}; {place}"
    if Path(preset.model).is_absolute():
        return f"a checkpoint folder; {preset.model}"
    with checkpoint.clear_hub_errors(preset.model, preset.revision):
        place = snapshot_download(preset.model, revision=preset.revision, ignore_patterns=["original/*"],
                                  allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"])
    return f"{preset.model} at commit {preset.revision}; {place}"


if __name__ == "__main__":
    try:
        presets = get_presets(" ".join(sys.argv[1:]))
        for name, found in presets.items():
            print(f"{name}: {ensure(found)}")
    except (OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if not presets:
        sys.exit("no preset: make weights MODEL=... takes the name of one, or the path of a GGUF file")
