"""Exercises of the notebooks: is what a reader has put into a gap the package's number, and if not, how is it off?"""

import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper import arguments


def check_answer(answer: object, expected: Float[Tensor, "*shape"] | float, tolerance: float = 1e-3) -> str:
    """What to tell a reader about an answer: that it is right, or that the gap, `...`, is still open.

    Args:
        answer: a tensor or number; `...` where nothing has been filled in.
        expected: the package's, not all zero.
        tolerance: largest norm of the difference, as a share of the norm of what is expected.

    Raises:
        AssertionError: a wrong answer; the message says what is off: shape, sign, length, or how far it is.
        ValueError: an answer that is no tensor of finite real numbers.
    """
    if answer is ...:
        return "not filled in yet: replace the ... and run this cell again"
    given, wanted = (arguments.vector(what, value).detach().cpu().double()
                     for what, value in (("answer", answer), ("expected answer", expected)))
    if given.shape != wanted.shape:
        raise AssertionError(f"not yet: the answer has shape {tuple(given.shape)}, {tuple(wanted.shape)} is expected")
    if (distance := ((given - wanted).norm() / wanted.norm()).item()) <= tolerance:
        return "right: the package's number"
    raise AssertionError(f"not yet: {_off(given.flatten(), wanted.flatten(), tolerance)} (distance {distance:.2g} of "
                         "what is expected)")


def _off(given: Float[Tensor, "n"], wanted: Float[Tensor, "n"], tolerance: float) -> str:
    """How a wrong answer is wrong."""
    if not given.any():
        return "the answer is zero"
    factor = (given @ wanted / (wanted @ wanted)).item()
    if (given - factor * wanted).norm() <= tolerance * given.norm():
        if abs(factor + 1) <= tolerance:
            return "the answer has the wrong sign"
        return f"the answer is {factor:.4g} times what is expected"
    cosine = torch.nn.functional.cosine_similarity(given, wanted, dim=0).item()
    return f"the answer is another one, its cosine with what is expected is {cosine:.3f}"
