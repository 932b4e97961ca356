"""Numbers that overflow: what is added to a stream, and what leaves a model, has to be finite.

Beyond the reach of the dtype everything that follows is NaN; and beyond the root of float32's reach, in which the norms
square, they divide by infinity, and what follows is zero. Neither shows in a text: its tokens are 0, and it does not
refuse.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_REMEDY = "use a smaller coefficient or a wider dtype"


def check_addition(vector: Float[Tensor, "d_model"], coefficient: float, dtype: torch.dtype) -> None:
    """Raise ValueError where alpha s, or the square of its norm, is not finite in a model's dtype."""
    added = (coefficient * vector.detach().float()).to(dtype)
    if not added.float().square().sum().isfinite():
        what = "its square, which the norms take in float32," if added.isfinite().all() else "it"
        raise ValueError(f"coefficient {coefficient:g} times a vector whose largest value is {vector.abs().max():.3g} "
                         f"is too large for a model in {dtype}: {what} is not finite; {_REMEDY}")


def check_finite(values: Float[Tensor, "row *rest"], what: str, rows: Sequence[int]) -> None:
    """Raise ValueError where values that a model put out are not finite.

    Args:
        values: one row per entry of `rows`, or several times as many: unsteered twins come first.
        what: the values and the kind of row ("logits of prompts").
        rows: their numbers in what was given.
    """
    finite = values.isfinite()
    if not finite.all():
        wrong = sorted({rows[i % len(rows)] for i in (~finite.flatten(1).all(1)).nonzero().flatten().tolist()})
        raise ValueError(f"the {what} {wrong[:5]} are not finite (NaN or inf): {_REMEDY}")
