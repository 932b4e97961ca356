"""Names to choose from: what to say of one that is not there."""

import difflib
from collections.abc import Iterable


def unknown(what: str, given: object, allowed: Iterable[str], more: str = "") -> ValueError:
    """The error for a name that is none of those allowed; it names the nearest one and all of them.

    Args:
        what: the kind of name ("prompt set").
        more: what else may be given, or where the names belong, put behind the list.
    """
    allowed = list(allowed)
    near = difflib.get_close_matches(str(given).lower(), [name.lower() for name in allowed], n=1)
    hint = next((f" (did you mean {name!r}?)" for name in allowed if near and name.lower() == near[0]), "")
    return ValueError(f"unknown {what} {given!r}{hint}: choose one of {', '.join(allowed)}{more}")
