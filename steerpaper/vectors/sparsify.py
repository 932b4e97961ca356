"""Sparse steering vectors (§7, G): which dimensions are kept, and the vector that they leave."""

import math
import zlib
from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerpaper import arguments
from steerpaper.choices import unknown

SPARSIFIERS = ("gradient", "indirect_effect", "bottom_k", "dropout")
RULES = ("absolute", "text", "normalised")


def sparsify(
    vector: Float[Tensor, "d_model"], method: str = "gradient", *, gradient: Float[Tensor, "d_model"] | None = None,
    threshold: float | None = None, sparsity: float | None = None, rule: str = "absolute", seed: int = 0,
) -> Bool[Tensor, "d_model"]:
    """The dimensions of a steering vector that one of the paper's four sparsifiers keeps (§7).

    With s the vector and g the gradient, the effect of a dimension is IE = s g, and r = IE / s = g. Each method
    drops the k dimensions that rank lowest:

    - "gradient": by r, under `rule`;
    - "indirect_effect": by |IE|;
    - "bottom_k": by |s|;
    - "dropout": in a random order, the same for every k of one seed.

    k is the number of dimensions with r below `threshold`, for every method (so that "gradient" drops just
    these), or a `sparsity` of all dimensions. Ties go by the dimension's number.

    Args:
        gradient: mean integrated gradient at the steering node with the sign of alpha, `Attribution.gradient`. Not
            needed for "bottom_k" and "dropout" by sparsity.
        threshold: tau, in the units of r: those of the metric per unit of the vector, or none where normalised.
        sparsity: share of the dimensions to drop at least, instead of a threshold.
        rule: of `effect_ratio`, which is compared with the threshold.
        seed: of "dropout".

    Returns:
        True at the dimensions that are kept, on the vector's device.

    Raises:
        ValueError: an unknown method or rule; a vector or gradient that is not finite or does not fit the other; no
            gradient where one is needed, or one that `effect_ratio` refuses; not just one of threshold and sparsity; a
            threshold that is negative or not finite, a sparsity outside [0, 1].
    """
    for name, value, allowed in (("method", method, SPARSIFIERS), ("rule", rule, RULES)):
        if value not in allowed:
            raise unknown(name, value, allowed)
    if (threshold is None) == (sparsity is None):
        raise ValueError(f"threshold {threshold} and sparsity {sparsity} were given: give one of the two")
    s = _checked("vector", vector)
    if gradient is None and (threshold is not None or method in ("gradient", "indirect_effect")):
        raise ValueError(f"method {method!r} with threshold {threshold} needs the gradient of an attribution: pass "
                         "gradient=att.gradient, or drop by |s| or at random with sparsity=")
    g = None if gradient is None else _checked("gradient", gradient, s.shape)
    k = _n_dropped(s, g, threshold, sparsity, rule)
    if method == "gradient":
        rank = effect_ratio(s, g, rule)
    elif method == "dropout":
        rank = torch.randperm(len(s), generator=torch.Generator().manual_seed(zlib.crc32(f"{seed} dropout".encode())))
    else:
        rank = (s if method == "bottom_k" else s * g).abs()
    kept = torch.ones(len(s), dtype=torch.bool)
    kept[rank.argsort(stable=True)[:k]] = False
    return kept.to(vector.device)


def effect_ratio(
    vector: Float[Tensor, "d_model"], gradient: Float[Tensor, "d_model"], rule: str,
) -> Float[Tensor, "d_model"]:
    """r = IE / s per dimension, which §7 compares with the threshold, in float64 on the processor.

    Args:
        rule: "absolute": |r|, which the paper's sparsities imply; "text": r with its sign, as §7 prints it;
            "normalised": (|IE| / norm of IE) / (|s| / norm of s), as the authors' code does, so that thresholds carry
            over between models.

    Raises:
        ValueError: an unknown rule; a vector or gradient that is not finite or does not fit the other; under
            "normalised" a gradient without effect on the vector's dimensions.
    """
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    s = _checked("vector", vector)
    g = _checked("gradient", gradient, s.shape)
    if rule != "normalised":
        return g if rule == "text" else g.abs()
    effect = (s * g).norm()
    if not effect > 0:
        raise ValueError("no dimension of the vector has an effect (vector * gradient is zero everywhere), so there is "
                         "nothing to normalise by: take rule='absolute', or another gradient")
    # |s g| / |s| is |g|; written so, it is defined where s is zero too.
    return g.abs() * (s.norm() / effect)


def apply_mask(
    vector: Float[Tensor, "d_model"], mask: Bool[Tensor, "d_model"], *, rescale: bool = False
) -> Float[Tensor, "d_model"]:
    """The vector with the dimensions outside the mask at zero.

    Args:
        mask: as from `sparsify`.
        rescale: to the norm of the whole vector, as the authors' code does; the text does not say so.

    Raises:
        ValueError: a mask that is not boolean or of another shape; with `rescale` one that leaves only zeros.
    """
    if mask.dtype != torch.bool or mask.shape != vector.shape:
        raise ValueError(f"a mask of shape {tuple(mask.shape)} and {mask.dtype} was given: it must be boolean and of "
                         f"the vector's shape {tuple(vector.shape)}")
    sparse = torch.where(mask, vector, 0)
    if not rescale:
        return sparse
    if not sparse.any():
        raise ValueError("the mask leaves nothing of the vector, which cannot be rescaled to a norm: take a lower "
                         "threshold or sparsity, or rescale=False for the zero vector")
    return sparse * (vector.norm() / sparse.norm())


def with_values(
    vector: Float[Tensor, "d_model"], mask: Bool[Tensor, "d_model"], values: Float[Tensor, "d_model"],
) -> Float[Tensor, "d_model"]:
    """Other values in the dimensions that a mask keeps of a vector, zero elsewhere, at the vector's norm: is it what a
    sparse vector holds there that matters, or only where?

    Args:
        mask: as from `sparsify`.
        values: one per dimension; those outside the mask do not count, nor does their common scale.

    Raises:
        ValueError: as for `apply_mask`, or values of another shape than the vector.
    """
    if values.shape != vector.shape:
        raise ValueError(f"values of shape {tuple(values.shape)} were given for a vector of {tuple(vector.shape)}: give "
                         "one per dimension")
    found = apply_mask(values.to(vector), mask, rescale=True)
    return found * (vector.norm() / found.norm())


def sparse_vectors(
    vectors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], thresholds: Sequence[float],
    sparsities: Sequence[float] = (), *, draws: int = 1, seed: int = 0,
) -> pd.DataFrame:
    """Vectors under every sparsifier at every threshold, the normalised rule, rescaled to the dense norm and not.

    Args:
        vectors: by method.
        gradients: of the same methods, as for `sparsify`.
        sparsities: more points: the thresholds, one per method, that drop these shares of the dimensions.
        draws: seeds of "dropout", from `seed` on; the other sparsifiers give the same vector for each.

    Returns:
        Columns draw, method, sparsifier, rescaled, threshold, sparsity and vector. First, with sparsifier "none", no
        vector at all (method "none", zeros) and the dense ones. Those of which nothing is left are not listed.

    Raises:
        ValueError: no methods, neither thresholds nor sparsities, or as for `sparsify`.
    """
    points = list(product(gradients, thresholds))
    for name, share in product(gradients, sparsities):
        s, g = vectors[name].double(), gradients[name].double()
        k = _n_dropped(s, None, None, share, "normalised")
        ratios = effect_ratio(s, g, "normalised").sort().values
        ratios = torch.cat([ratios.new_zeros(1), ratios, 2 * ratios[-1:]])  # below and above all of them
        points.append((name, ratios[k:k + 2].mean().item()))
    if not points:
        raise ValueError(f"{len(gradients)} methods, no thresholds and no sparsities were given: pass at least one method, "
                         "and a threshold or a sparsity")
    whole = {"none": torch.zeros_like(vectors[points[0][0]])} | {name: vectors[name] for name in gradients}
    rows = [(draw, name, "none", False, 0.0, 0.0, whole[name]) for name in whole for draw in range(draws)]
    for (name, tau), sparsifier, draw in product(points, SPARSIFIERS, range(draws)):
        mask = sparsify(vectors[name], sparsifier, gradient=gradients[name], threshold=tau, rule="normalised",
                        seed=seed + draw)
        rows += [(draw, name, sparsifier, rescaled, tau, 1 - mask.double().mean().item(),
                  apply_mask(vectors[name], mask, rescale=rescaled)) for rescaled in (True, False) if mask.any()]
    columns = ["draw", "method", "sparsifier", "rescaled", "threshold", "sparsity", "vector"]
    return pd.DataFrame(rows, columns=columns)


def _checked(name: str, values: Tensor, shape: torch.Size | None = None) -> Float[Tensor, "d_model"]:
    """In float64, where products and comparisons are not rounded."""
    values = arguments.real(name, values).detach().cpu()
    if values.ndim != 1 or not len(values) or (shape is not None and values.shape != shape):
        wanted = "(d_model,)" if shape is None else f"{tuple(shape)}, as the vector has"
        raise ValueError(f"the {name} has shape {tuple(values.shape)}: it must have shape {wanted}")
    if not values.isfinite().all():
        raise ValueError(f"the {name} has values that are not finite (NaN or inf)")
    return values.double()


def _n_dropped(s: Tensor, g: Tensor | None, threshold: float | None, sparsity: float | None, rule: str) -> int:
    if sparsity is not None:
        if not 0 <= arguments.number("sparsity", sparsity) <= 1:
            raise ValueError(f"sparsity must be a share of the dimensions in [0, 1], {sparsity} was given")
        return math.ceil(sparsity * len(s) - 1e-9)  # 0.29 * 100 is 29 and not 30
    if not arguments.number("threshold", threshold) >= 0:
        raise ValueError(f"threshold must be finite and not negative, {threshold} was given")
    return int((effect_ratio(s, g, rule) < threshold).sum())
