"""What the notebooks build upon and write: `notebooks/outputs.toml`, the one place that says so."""

import tomllib
from functools import cache

from steerpaper import paths
from steerpaper.choices import unknown
from steerpaper.presets import get_preset
from steerpaper.vectors.methods import METHODS

KINDS = ("figures", "tables", "tensors")


@cache
def outputs() -> dict[str, dict[str, list[str] | str]]:
    """What each notebook of the workflow builds upon (`after`) and writes (`KINDS`), in reading order; and of those that
    have them `only`, the field of a preset without which it ends with that and writes nothing, and `reads`, the files
    that no other notebook reads.

    A name with `{method}` stands for one name per method, one with `{baseline}` for one per baseline.
    """
    methods = {"{baseline}": [method.name for method in METHODS.values() if method.baseline],
               "{method}": [method.name for method in METHODS.values() if not method.baseline]}

    def spelt_out(name: str) -> list[str]:
        place = next((place for place in methods if place in name), None)
        return [name.replace(place, method) for method in methods[place]] if place else [name]

    declared = tomllib.loads((paths.NOTEBOOKS / "outputs.toml").read_text("utf-8"))
    return {notebook: {key: names if key == "only" else [one for name in names for one in spelt_out(name)]
                       for key, names in about.items()} for notebook, about in declared.items()}


def needed(preset: str) -> list[str]:
    """The notebooks that the workflow runs for a preset: all, or its goal and those that it builds upon.

    Raises:
        ValueError: an unknown preset, or one with a goal that is no notebook.
    """
    if (goal := get_preset(preset).goal) is None:
        return list(outputs())
    if goal not in outputs():
        raise unknown(f"goal of preset {preset!r}", goal, outputs())
    return [*outputs()[goal]["after"], goal]


def writing(preset: str) -> dict[str, dict[str, list[str] | str]]:
    """Those that it needs and that write something for it: it has the field for which they are, if they are for one.

    Raises:
        ValueError: as for `needed`.
    """
    record, run = get_preset(preset), needed(preset)
    return {notebook: about for notebook, about in outputs().items() if notebook in run
            and ("only" not in about or getattr(record, about["only"]) is not None)}


def writer(kind: str, name: str) -> str:
    """The notebook that writes an output; `kind` is one of `KINDS`.

    Raises:
        ValueError: no notebook is declared to write it.
    """
    written = {output: notebook for notebook, about in outputs().items() for output in about[kind]}
    if name not in written:
        raise unknown(f"name of {kind}", name, written, ", or declare it in notebooks/outputs.toml")
    return written[name]
