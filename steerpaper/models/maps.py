"""The linear maps between the residual stream and the heads, with the norms before and after them (§4, A; §5)."""

import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper.models.model import Model


def scaled_heads(model: Model, layer: int) -> Float[Tensor, "batch pos head d_head"]:
    """Within a trace: outputs of the heads; with a post-norm, divided by the RMS of what they sum to."""
    heads = model.o_proj(layer).input.unflatten(-1, (model.n_heads, model.d_head))
    if not model.has_post_norms:
        return heads
    return heads / rms(model.o_proj(layer).output.to(wide(model)), model.norm_eps)[..., None]


def head_writes(
    model: Model, layer: int, heads: Float[Tensor, "batch pos head d_head"],
) -> Float[Tensor, "head batch pos d_model"]:
    """What the heads add to the residual stream, given their (scaled) outputs; linear in them."""
    weight = model.W_O(layer).to(heads.dtype)
    if model.has_post_norms:
        weight = weight * model.attention_post_gamma(layer).to(heads.dtype)
    writes = torch.bmm(heads.flatten(0, 1).transpose(0, 1), weight)
    return writes.unflatten(1, heads.shape[:2])


def projected(
    x: Float[Tensor, "target batch pos d_model"], weight: Float[Tensor, "target d_model width"],
    gamma: Float[Tensor, "d_model"], eps: float,
) -> Float[Tensor, "batch pos target*width"]:
    """A projection's output, less its bias, when every target reads its own stream through the norm before it."""
    weight = (weight * gamma[:, None]).to(x.dtype)
    outputs = torch.bmm(x.flatten(1, 2), weight) / rms(x, eps).flatten(1, 2)
    return outputs.unflatten(1, x.shape[1:3]).permute(1, 2, 0, 3).flatten(2)


def with_bias(
    outputs: Float[Tensor, "batch pos width"], bias: Float[Tensor, "width"] | None,
) -> Float[Tensor, "batch pos width"]:
    """A projection's output with what it adds; None where it adds nothing."""
    return outputs if bias is None else outputs + bias.to(outputs.dtype)


def rms(x: Float[Tensor, "*rows d_model"], eps: float) -> Float[Tensor, "*rows 1"]:
    """Root mean square, with the norms' epsilon."""
    return (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1] + eps).sqrt()


def wide(model: Model) -> torch.dtype:
    """The dtype to compute in outside the model: its own, but at least float32."""
    return torch.promote_types(model.dtype, torch.float32)
