"""What the steering value vectors of the heads that matter say, beside random vectors sent through the same heads."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerpaper.circuits.attribution import Attribution
from steerpaper.heads.lens import lens_logits, lens_preference
from steerpaper.heads.ov import steering_value_vectors
from steerpaper.models.model import Model

_ENDS = (0.025, 0.975)


def strongest_writes(
    model: Model, vectors: Mapping[str, Float[Tensor, "d_model"]], rankings: Mapping[str, Attribution], layer: int,
    n: int = 5,
) -> tuple[dict[str, dict[str, Float[Tensor, "d_model"]]], pd.Series]:
    """A steering vector (SV), the steering value vectors of the `n` heads of largest |node IE| and the sum of all
    (SUM), per method (§6, figure 5).

    Returns:
        Vectors by method and name ("L4H0"); those of heads that work against the steering are flipped, as in the paper.
        And the sign of each, -1 where flipped, by method and name.
    """
    shown, signs = {}, {}
    for method, ranking in rankings.items():
        svv = steering_value_vectors(model, vectors[method], layer).flatten(0, 1)
        names = [f"L{i}H{head}" for i in range(layer, model.n_layers) for head in range(model.n_heads)]
        effect = ranking.nodes[ranking.nodes.node.str.startswith("a")].score.set_axis(names)  # in the same order
        top = effect.abs().nlargest(n).index
        found = {"SV": vectors[method]}
        for name in (name for name in names if name in top):
            signs[method, name] = float(np.sign(effect[name]))
            found[name] = signs[method, name] * svv[names.index(name)]
        shown[method] = found | {"SUM": svv.sum(0)}
    return shown, pd.Series({(method, name): signs.get((method, name), 1.0)
                             for method, own in shown.items() for name in own})


def preferences(
    model: Model, shown: Mapping[str, Mapping[str, Float[Tensor, "d_model"]]],
    typical: Mapping[str, Int[Tensor, "vocab"]], layer: int, *, draws: int = 200, seed: int = 0,
) -> pd.DataFrame:
    """How far each of these vectors prefers one kind of words, beside what random vectors do on the same way.

    Args:
        shown: as of `strongest_writes`.
        typical: `typical_tokens` by the name of their scale.
        layer: at which steering enters.
        draws: number of random vectors.

    Returns:
        Columns scale, method, vector, preference (see `lens_preference`), chance_low and chance_high, between which
        95 % of the random vectors lie.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.nn.functional.normalize(torch.randn(draws, model.d_model, generator=generator), dim=-1)
    through = torch.stack([steering_value_vectors(model, one, layer) for one in drawn])
    luck = {"SV": drawn, "SUM": through.sum((1, 2))}
    luck |= {f"L{layer + i}H{head}": through[:, i, head]
             for i in range(through.shape[1]) for head in range(through.shape[2])}
    chance, rows = {}, []
    for name in dict.fromkeys(name for own in shown.values() for name in own):
        logits = lens_logits(model, luck[name])
        for scale, kinds in typical.items():
            chance[scale, name] = lens_preference(logits, kinds).quantile(torch.tensor(_ENDS)).tolist()
    for scale, kinds in typical.items():
        for method, own in shown.items():
            found = lens_preference(lens_logits(model, torch.stack(list(own.values()))), kinds).tolist()
            rows += [(scale, method, name, value, *chance[scale, name]) for name, value in zip(own, found)]
    return pd.DataFrame(rows, columns=["scale", "method", "vector", "preference", "chance_low", "chance_high"])
