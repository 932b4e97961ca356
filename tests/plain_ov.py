"""Heads and MLPs under steering written out plainly, for `steerpaper.heads.ov` to agree with.

One sequence at a time in float64, without padding: a Hugging Face Llama or Gemma 2 model, in eager attention, runs
with hooks that note down what its layers read and write. Loops over heads and positions; meant to be read.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Noted(NamedTuple):
    """What one layer read and wrote, [pos, ...], and its attention weights, [head, pos, key]."""

    stream: Tensor
    head_outputs: Tensor
    attention_sum: Tensor
    mlp_input: Tensor
    attention: Tensor


def is_gemma2(hf) -> bool:
    return hf.config.model_type == "gemma2"


def gain(hf, norm) -> Tensor:
    """The gamma of a norm; Gemma stores it less one."""
    return norm.weight + 1 if is_gemma2(hf) else norm.weight


def root_mean_square(hf, x: Tensor) -> Tensor:
    return (x.pow(2).mean(-1) + hf.config.rms_norm_eps).sqrt()


def mlp_norm(hf, layer: int):
    block = hf.model.layers[layer]
    return block.pre_feedforward_layernorm if is_gemma2(hf) else block.post_attention_layernorm


@torch.no_grad()
def run(hf, tokens, layer: int, addition: Tensor | None = None) -> list[Noted]:
    """One forward, steered by `addition` at `layer`; one entry per layer of the model."""
    notes: list[dict] = [{} for _ in hf.model.layers]
    hooks = []

    def note(i, name, module):
        def hook(_, arguments, kwargs):
            notes[i][name] = (arguments[0] if arguments else kwargs["hidden_states"])[0].clone()
        hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def steer(_, arguments, kwargs):
        hidden = arguments[0] if arguments else kwargs.pop("hidden_states")
        return (hidden + addition, *arguments[1:]), kwargs

    if addition is not None:
        hooks.append(hf.model.layers[layer].register_forward_pre_hook(steer, with_kwargs=True))
    for i, block in enumerate(hf.model.layers):
        note(i, "stream", block)
        note(i, "head_outputs", block.self_attn.o_proj)
        note(i, "mlp_input", mlp_norm(hf, i))
        hooks.append(block.self_attn.o_proj.register_forward_hook(
            lambda _, arguments, output, i=i: notes[i].update(attention_sum=output[0].clone())))
    attentions = hf(torch.tensor([tokens]), output_attentions=True, use_cache=False).attentions
    for hook in hooks:
        hook.remove()
    return [Noted(**note, attention=attention[0]) for note, attention in zip(notes, attentions)]


def head_weights(hf, layer: int, head: int) -> tuple[Tensor, Tensor]:
    """W_V and W_O of one query head, [d_model, d_head] and [d_head, d_model]."""
    attention, width = hf.model.layers[layer].self_attn, hf.model.layers[layer].self_attn.head_dim
    kv_head = head // (hf.config.num_attention_heads // hf.config.num_key_value_heads)
    values = attention.v_proj.weight[kv_head * width:(kv_head + 1) * width]
    return values.T, attention.o_proj.weight[:, head * width:(head + 1) * width].T


def head_write(hf, noted: Noted, layer: int, head: int, position: int) -> Tensor:
    """What one head adds to the residual stream at one position."""
    width = hf.model.layers[layer].self_attn.head_dim
    _, weight = head_weights(hf, layer, head)
    write = noted.head_outputs[position, head * width:(head + 1) * width] @ weight
    if is_gemma2(hf):
        scale = root_mean_square(hf, noted.attention_sum[position])
        write = write / scale * gain(hf, hf.model.layers[layer].post_attention_layernorm)
    return write


def steering_value_vector(hf, vector: Tensor, layer: int, head: int) -> Tensor:
    block = hf.model.layers[layer]
    values, outputs = head_weights(hf, layer, head)
    written = (vector * gain(hf, block.input_layernorm)) @ values @ outputs
    return written * gain(hf, block.post_attention_layernorm) if is_gemma2(hf) else written


def coefficient(hf, noted: Noted, head: int, position: int) -> float:
    """What alpha svv is multiplied by at one position."""
    total = 0.0
    for key in range(position + 1):
        total += float(noted.attention[head, position, key] / root_mean_square(hf, noted.stream[key]))
    if is_gemma2(hf):
        total /= float(root_mean_square(hf, noted.attention_sum[position]))
    return total


def mlp_write(hf, layer: int, stream: Tensor) -> Tensor:
    """What the MLP adds to a stream [d_model]."""
    block = hf.model.layers[layer]
    write = block.mlp(stream / root_mean_square(hf, stream) * gain(hf, mlp_norm(hf, layer)))
    if is_gemma2(hf):
        write = write / root_mean_square(hf, write) * gain(hf, block.post_feedforward_layernorm)
    return write
