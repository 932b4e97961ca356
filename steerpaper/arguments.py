"""What people pass: numbers, collections, vectors, token ids and prompts, taken as they are meant, or refused with what
was given and what is allowed."""

import math
import operator
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Integral, Real

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

Prompt = str | Sequence[int]


def whole(value: object) -> int | None:
    """A whole number as Python's own; None if it is none."""
    boolean = isinstance(value, (bool, np.bool_)) or isinstance(value, Tensor) and value.dtype == torch.bool
    try:
        return None if boolean else operator.index(value)
    except TypeError:
        return None


def integer(what: str, value: object, low: int, high: int | None = None) -> int:
    """A whole number from `low` to `high`, both included; booleans, strings and floats are none.

    Raises:
        ValueError: anything else.
    """
    found = whole(value)
    if found is not None and low <= found <= (found if high is None else high):
        return found
    why = "" if found is not None else f"; it must be an integer, this is of type {type(value).__name__}"
    if high is None:
        raise ValueError(f"{what} must be at least {low}, {shown(value)} was given{why}")
    raise ValueError(f"{what} {shown(value)} is outside {low}..{high}{why}")


def number(what: str, value: object) -> float:
    """A finite real number; booleans and strings are none.

    Raises:
        ValueError: anything else.
    """
    scalar = value.item() if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0 else value
    if isinstance(scalar, (bool, np.bool_)) or not isinstance(scalar, Real):
        raise ValueError(f"{what} must be a number, {shown(value)} of type {type(value).__name__} was given")
    try:
        finite = math.isfinite(scalar)
    except OverflowError:  # an integer beyond all floats
        finite = False
    if not finite:
        raise ValueError(f"{what} must be finite, {shown(scalar)} was given")
    return float(scalar)


def listed(what: str, value: object) -> list:
    """The members of a collection, in order; one string, a mapping or a table is not meant by its letters, keys or
    columns.

    Raises:
        ValueError: these, or what is no collection.
    """
    if isinstance(value, (str, bytes, Mapping, pd.DataFrame)) or not isinstance(value, Iterable):
        raise ValueError(f"{what} must be a list, {shown(value)} of type {type(value).__name__} was given: put one "
                         "alone into brackets")
    return list(value)


def strings(what: str, value: object) -> list[str]:
    """At least one string, and none empty.

    Raises:
        ValueError: one string by itself, no strings, an empty one, or what is none.
    """
    found = listed(what, value)
    if wrong := [one for one in found if not isinstance(one, str) or not one]:
        raise ValueError(f"{what} must be strings of at least one character, {shown(wrong[0])} is none")
    if not found:
        raise ValueError(f"{what} are empty: give at least one string")
    return found


def real(what: str, value: object) -> Float[Tensor, "*shape"]:
    """A tensor of real numbers, as it was given; lists and arrays become tensors.

    Raises:
        ValueError: complex numbers, booleans or strings.
    """
    try:
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the {what} is {shown(value)}: give a tensor of real numbers") from error
    if found.is_complex() or found.dtype == torch.bool:
        raise ValueError(f"the {what} is of {found.dtype}: give a tensor of real numbers")
    return found


def vector(what: str, value: object) -> Float[Tensor, "d_model"]:
    """As `real`, every value finite.

    Raises:
        ValueError: as `real`, or values that are not finite.
    """
    found = real(what, value)
    if not found.isfinite().all():
        raise ValueError(f"the {what} has values that are not finite (NaN or inf)")
    return found


def token_ids(what: str, ids: object) -> list[int]:
    """Token ids as a list of Python's integers; those of numpy and torch become such.

    Raises:
        ValueError: booleans, floats, text, or anything else that is no id.
    """
    if type(ids) is list and set(map(type, ids)) <= {int}:
        return ids
    values = listed(what, ids.tolist() if isinstance(ids, (Tensor, np.ndarray)) else ids)
    found = [whole(value) for value in values]
    if None in found:
        wrong = values[found.index(None)]
        raise ValueError(f"{what} holds {shown(wrong)} of type {type(wrong).__name__}: token ids are integers")
    return found


def check_vocabulary(what: str, ids: Sequence[int], n_vocab: int) -> None:
    """Raise ValueError where there is a token id that the model does not have."""
    if ids and not 0 <= min(ids) <= max(ids) < n_vocab:
        raise ValueError(f"{what} has token ids outside 0..{n_vocab - 1}")


def prompts(given: object) -> list[str | list[int]]:
    """Prompts, each a text or a list of token ids; of a table, as `load_prompts` gives it, the column `prompt`.

    Raises:
        ValueError: no prompts, a single one by itself, a table without that column, or a prompt that is empty, missing
            or neither text nor token ids; the message names it.
    """
    if isinstance(given, pd.DataFrame):
        given = column(given, "prompt")
    scalar = isinstance(given, (Tensor, np.ndarray)) and given.ndim == 0
    one_alone = scalar or isinstance(given, (str, bytes, Mapping, Set)) or not isinstance(given, Iterable)
    found = [] if one_alone else given.tolist() if isinstance(given, (Tensor, np.ndarray)) else list(given)
    if not found:
        raise ValueError(f"prompts must be a list of at least one prompt, {shown(given)} was given")
    found = [one.item() if isinstance(one, (Tensor, np.ndarray)) and one.ndim == 0 else one for one in found]
    if empty := [i for i, one in enumerate(found) if hasattr(one, "__len__") and not len(one)]:
        raise ValueError(f"prompts {empty} are empty: give text or at least one token id")
    return [_prompt(i, one) for i, one in enumerate(found)]


def table(given: object) -> pd.DataFrame:
    """Prompts as a table: one as it is; a list as the column `prompt`, with topics that are not known ("")."""
    return given if isinstance(given, pd.DataFrame) else pd.DataFrame({"prompt": prompts(given), "topic": ""})


def texts(given: object) -> list[str]:
    """As `prompts`, where every one has to be text."""
    found = prompts(given)
    if ids := [i for i, one in enumerate(found) if not isinstance(one, str)]:
        raise ValueError(f"prompts {ids[:5]} are token ids: text is needed here")
    return found


def column(table: object, *names: str) -> pd.Series:
    """The first of some columns of a table that has to have all of them.

    Raises:
        ValueError: no table, or one that lacks a column.
    """
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"prompts must be a table with the columns {', '.join(names)}, as load_prompts gives it; "
                         f"{shown(table)} of type {type(table).__name__} was given")
    if missing := [name for name in names if name not in table]:
        raise ValueError(f"a table of prompts needs the column {missing[0]!r}; this one has "
                         f"{', '.join(map(str, table)) or 'none'}")
    return table[names[0]]


def shown(value: object) -> str:
    """What was given, cut to a length that a message bears, on one line."""
    return " ".join(reprlib.repr(value).split())


def _prompt(i: int, given: object) -> str | list[int]:
    allowed = "a prompt is text or a list of token ids"
    if isinstance(given, str):
        if broken := re.search("[\ud800-\udfff]", given):
            raise ValueError(f"prompt {i} has {broken[0]!r} at character {broken.start()}, half of a surrogate pair "
                             "and no text by itself: repair the encoding, or take it out")
        return given
    if isinstance(given, Mapping) or isinstance(given, (list, tuple)) and isinstance(given[0], Mapping):
        raise ValueError(f"prompt {i} is a chat message, {shown(given)}: {allowed}; give the message's text, which "
                         "is put into the chat template as the user's turn")
    if isinstance(given, (bytes, bytearray)):
        raise ValueError(f"prompt {i} is bytes, {shown(given)}: {allowed}; decode it first")
    if isinstance(given, Integral) and not isinstance(given, bool):
        raise ValueError(f"prompt {i} is the number {given}: {allowed}, and one list of ids is one prompt; put it into "
                         "brackets")
    if pd.api.types.is_scalar(given) and pd.isna(given):
        raise ValueError(f"prompt {i} is missing ({given}): {allowed}; leave the row out (dropna)")
    if not isinstance(given, (Sequence, Tensor, np.ndarray, pd.Series)):
        raise ValueError(f"prompt {i} is {shown(given)} of type {type(given).__name__}: {allowed}")
    return token_ids(f"prompt {i}", given)
