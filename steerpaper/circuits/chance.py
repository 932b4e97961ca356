"""Do two masks pick the same dimensions, or two circuits the same edges, more often than chance would (§7)?"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool
from scipy.stats import hypergeom
from torch import Tensor

Members = Bool[np.ndarray, "..."] | Bool[Tensor, "..."]  # a set: True at what belongs to it


@dataclass(frozen=True)
class Agreement:
    """How much two sets share, beside two sets of the same sizes drawn at random.

    Attributes:
        size_a, size_b, shared, total: members of either set, of both, and of the whole that they are drawn from.
        iou: intersection over union, shared / (size_a + size_b - shared).
        chance: expected iou at random.
        chance_low, chance_high: ends of a band that holds at least 95 % of the iou at random, at most 2.5 % beyond
            either end.
        p: probability of at least as many shared members at random, the hypergeometric tail.
    """

    size_a: int
    size_b: int
    shared: int
    total: int
    iou: float
    chance: float
    chance_low: float
    chance_high: float
    p: float


def agreement(one: Members, other: Members, among: Members | None = None) -> Agreement:
    """Intersection over union of two sets, with what chance gives (§7), from the exact hypergeometric distribution.

    Args:
        one, other: boolean arrays of one shape: masks of dimensions from `sparsify`, edges as `Circuit.mask`.
        among: what the sets may be drawn from, `Graph.mask` for edges; everything unless given.

    Raises:
        ValueError: arrays that are not boolean or differ in shape, members outside `among`, or two empty sets.
    """
    one, other = (np.asarray(members) for members in (one, other))
    among = np.ones_like(one, dtype=bool) if among is None else np.asarray(among)
    for members in (one, other, among):
        if members.dtype != bool or members.shape != one.shape:
            shapes = ", ".join(f"{array.dtype} {array.shape}" for array in (one, other, among))
            raise ValueError(f"the sets must be boolean arrays of one shape, these are {shapes}")
    if ((one | other) & ~among).any():
        raise ValueError("a set has members outside `among`: pass the mask of the graph that both circuits belong to")
    a, b, shared, total = (int(members.sum()) for members in (one, other, one & other, among))
    if not a + b:
        raise ValueError("two empty sets have no intersection over union: leave them out")
    drawn = hypergeom(total, a, b)
    # The overlap alone decides the iou, and it grows with it: quantiles carry over.
    overlaps = np.arange(max(0, a + b - total), min(a, b) + 1)
    low, high = drawn.ppf([0.025, 0.975])
    return Agreement(
        a, b, shared, total, iou=_iou(shared, a, b), chance=float(drawn.pmf(overlaps) @ _iou(overlaps, a, b)),
        chance_low=float(_iou(low, a, b)), chance_high=float(_iou(high, a, b)), p=float(drawn.sf(shared - 1)),
    )


def agreements(sets: Mapping[tuple[str, float], Members], pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """`agreement` of pairs of methods at every threshold at which neither set is empty.

    Args:
        sets: by method and threshold.

    Returns:
        Columns method_a, method_b, threshold, sparsity_a and sparsity_b (shares that are not in the sets), shared, iou,
        chance, chance_low, chance_high, p.
    """
    rows = []
    for a, b in pairs:
        for threshold in [threshold for name, threshold in sets if name == a]:
            one, other = sets[a, threshold], sets[b, threshold]
            if one.any() and other.any():
                found = dict(vars(agreement(one, other)))
                sizes = {f"sparsity_{end}": 1 - found.pop(f"size_{end}") / found["total"] for end in "ab"}
                rows.append({"method_a": a, "method_b": b, "threshold": threshold, **sizes, **found})
    columns = ["method_a", "method_b", "threshold", "sparsity_a", "sparsity_b", "shared", "iou", "chance", "chance_low",
               "chance_high", "p"]
    return pd.DataFrame(rows, columns=columns)


def _iou(shared, a: int, b: int):
    return shared / (a + b - shared)
