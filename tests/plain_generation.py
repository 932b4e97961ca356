"""Frozen generation (§6) as the paper says it, for comparison: ordinary hooks on Hugging Face's model, no cache.

Every step runs the whole sequence twice, without and with steering. Frozen attention weights really are the
unsteered run's, multiplied by hand with the values; direct terms are left out where the package subtracts them.
"""

from contextlib import ExitStack

import torch


def plain_completion(hf, row, steering, n, kind=None, layers=None):
    """Greedy tokens after `row`. `hf` has eager attention, `steering` (or None) vector, layer and coefficient."""
    tokens = list(row)
    for _ in range(n):
        tokens.append(int(plain_logits(hf, tokens, steering, kind, layers).argmax()))
        if tokens[-1] == hf.config.eos_token_id:
            break
    return tokens[len(row):]


@torch.no_grad()
def plain_logits(hf, tokens, steering, kind=None, layers=None):
    """Logits after the last token, under steering and a freeze in `layers` (all from the steering layer on)."""
    if steering is None:
        return hf(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
    layers = range(steering.layer, len(hf.model.layers)) if layers is None else layers
    unsteered = unsteered_run(hf, tokens)
    addition = steering.coefficient * steering.vector
    direct = addition if steering.direct is None else steering.coefficient * steering.direct
    with ExitStack() as hooks:
        enters = hf.model.layers[steering.layer].register_forward_pre_hook(
            lambda module, args: (args[0] + addition, *args[1:]))
        hooks.callback(enters.remove)
        for i in layers if kind is not None else ():
            for hook in freezing_hooks(hf, i, kind, direct, unsteered):
                hooks.callback(hook.remove)
        return hf(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]


def unsteered_run(hf, tokens):
    """Outputs of all projections and writes by (layer, name), attention weights [head, pos, key] by (layer, "weights").
    """
    seen = {}
    with ExitStack() as hooks:
        for i, layer in enumerate(hf.model.layers):
            for name in ("q_proj", "k_proj", "v_proj"):
                hooks.callback(reading(getattr(layer.self_attn, name), seen, (i, name)).remove)
            for name, module in writes(hf, layer).items():
                hooks.callback(reading(module, seen, (i, name)).remove)
        out = hf(input_ids=torch.tensor([tokens]), use_cache=False, output_attentions=True)
    return seen | {(i, "weights"): weights[0] for i, weights in enumerate(out.attentions)}


def writes(hf, layer):
    """The modules whose outputs a layer adds to the residual stream."""
    if hf.config.model_type == "gemma2":
        return {"attention": layer.post_attention_layernorm, "mlp": layer.post_feedforward_layernorm}
    return {"attention": layer.self_attn.o_proj, "mlp": layer.mlp}


def freezing_hooks(hf, i, kind, addition, unsteered):
    """Hooks that freeze layer i; steering is in place already, so that they come after it."""
    layer, config, seen = hf.model.layers[i], hf.config, {}
    attention, gemma2 = layer.self_attn, config.model_type == "gemma2"
    mlp_norm = layer.pre_feedforward_layernorm if gemma2 else layer.post_attention_layernorm

    def normed_without_direct_term(norm, h):
        rms = (h.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps).sqrt()
        return (h - addition) / rms * (1 + norm.weight if gemma2 else norm.weight)

    def heads(module, args):
        values = unsteered[i, "v_proj"] if kind == "qk+ov" else seen["values"]
        values = values[0].unflatten(-1, (config.num_key_value_heads, attention.head_dim)).transpose(0, 1)
        values = values.repeat_interleave(config.num_attention_heads // config.num_key_value_heads, dim=0)
        return ((unsteered[i, "weights"] @ values).transpose(0, 1).flatten(1)[None],)

    if kind in ("qk", "qk+ov"):
        return [reading(attention.v_proj, seen, "values"), attention.o_proj.register_forward_pre_hook(heads)]
    if kind in ("q", "k", "ov"):
        name = {"q": "q_proj", "k": "k_proj", "ov": "v_proj"}[kind]
        return [getattr(attention, name).register_forward_hook(lambda module, args, out: unsteered[i, name])]
    if kind in ("mlp-total", "residual-only"):
        held = {"mlp-total": ("mlp",), "residual-only": ("attention", "mlp")}[kind]
        return [writes(hf, layer)[name].register_forward_hook(lambda module, args, out, name=name: unsteered[i, name])
                for name in held]
    if kind == "svv-before-norm":
        return [layer.input_layernorm.register_forward_pre_hook(lambda module, args: seen.update(h=args[0])),
                attention.v_proj.register_forward_pre_hook(
                    lambda module, args: (layer.input_layernorm.forward(seen["h"] - addition),))]
    if kind == "mlp-before-norm":
        return [mlp_norm.register_forward_pre_hook(lambda module, args: (args[0] - addition,))]
    reader, norm = {"svv": (attention.v_proj, layer.input_layernorm), "mlp": (layer.mlp, mlp_norm)}[kind]

    def enters_norm(module, args):
        seen["h"] = args[0]

    def enters_reader(module, args):
        return (normed_without_direct_term(norm, seen["h"]),)
    return [norm.register_forward_pre_hook(enters_norm), reader.register_forward_pre_hook(enters_reader)]


def reading(module, seen, key):
    """A hook that keeps a module's output."""
    def keep(module, args, out):
        seen[key] = out
    return module.register_forward_hook(keep)
