"""Which way steering vectors point: their cosines."""

from collections.abc import Mapping
from itertools import combinations_with_replacement

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def cosine_table(
    vectors: Mapping[str, Float[Tensor, "d_model"]], by_seed: Mapping[str, Float[Tensor, "seed d_model"]],
) -> pd.DataFrame:
    """Cosines of every two methods' vectors, and of a learned method's vectors of different seeds (§3.2).

    Args:
        vectors: one of each method.
        by_seed: of methods that have several, those of all seeds.

    Returns:
        Columns method_a, method_b, cosine, low, high: the cosine of both `vectors`, and its range over all pairs of
        seeds. Of a method with itself: the mean over two different seeds, 1 where there is one.
    """
    units = {name: normalize(vector[None], dim=1) for name, vector in vectors.items()}
    seeds = units | {name: normalize(group, dim=1) for name, group in by_seed.items()}
    rows = []
    for a, b in combinations_with_replacement(vectors, 2):
        between = seeds[a] @ seeds[b].T
        if a == b and len(between) > 1:
            between = between[~torch.eye(len(between), dtype=torch.bool)]
        cosine = between.mean() if a == b else units[a][0] @ units[b][0]
        rows.append((a, b, *map(float, (cosine, between.min(), between.max()))))
    return pd.DataFrame(rows, columns=["method_a", "method_b", "cosine", "low", "high"])
