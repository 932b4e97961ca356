"""What a notebook is asked to run with, checked before it writes anything."""

import ast

from IPython import get_ipython

from steerpaper.choices import unknown
from steerpaper.presets import get_preset

# papermill puts the parameters that it is given into a cell that begins so.
_INJECTED = "# Parameters"
_MOST = 2**32 - 1  # of numpy's seeds


def check_parameters(**parameters: object) -> None:
    """Stop a notebook whose parameters it does not have, or that are of another kind than it needs.

    papermill only logs a warning where a name is none of the notebook's, and the default wins: so the cell that it
    has put in is looked up in the session's history. Outside a notebook there is none.

    Args:
        parameters: all parameters of the notebook by name: preset, seed or seeds, with their values.

    Raises:
        ValueError: an injected name that is none of these, an unknown preset, a seed that is no whole number from 0
            to 2³² − 1, seeds that are no list of such, or an empty one.
    """
    for name in _injected():
        if name not in parameters:
            raise unknown("parameter", name, parameters)
    for name, value in parameters.items():
        if name not in _CHECKS:
            raise unknown("parameter", name, _CHECKS)
        _CHECKS[name](name, value)


def _injected() -> list[str]:
    """The names that papermill's cell assigns to, in its order; of several such cells the last. None outside IPython."""
    shell = get_ipython()
    history = shell.user_ns.get("In", []) if shell else []
    cell = next((cell for cell in reversed(history) if cell.lstrip().startswith(_INJECTED)), "")
    assigned = [statement for statement in ast.parse(cell).body if isinstance(statement, ast.Assign)]
    return [target.id for statement in assigned for target in statement.targets if isinstance(target, ast.Name)]


def _preset(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(f"parameter {name!r} is {value!r}: give the name of a preset, or the path of a checkpoint "
                         "folder, as text")
    get_preset(value)


def _seed(name: str, value: object) -> None:
    if not _is_seed(value):
        raise ValueError(f"parameter {name!r} is {value!r}: give a whole number from 0 to {_MOST}")


def _seeds(name: str, value: object) -> None:
    if not isinstance(value, list) or not value or not all(map(_is_seed, value)):
        raise ValueError(f"parameter {name!r} is {value!r}: give a list of whole numbers from 0 to {_MOST}, such as "
                         "[0, 1]")


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


_CHECKS = {"preset": _preset, "seed": _seed, "seeds": _seeds}
