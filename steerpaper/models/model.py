"""The model: the only module that knows nnsight and the module names of Hugging Face.

`h^l`, the residual stream entering layer l (l in 0..n_layers-1), is `model.layer(l).input`. What the other
modules edit or read inside `with model.trace(...)` they reach through the handles of `Model`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from nnsight.intervention.envoy import Envoy
from nnsight.modeling.transformers import TransformersModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils import logging as transformers_logging

from steerpaper.models import checkpoint, folder, gguf
from steerpaper.models.template import ChatTemplate
from steerpaper.presets import Preset, known_preset

# Its bar for weights that are already on disk is a widget in notebooks, with another id in every run. The bars of
# downloads are the hub's own and stay.
transformers_logging.disable_progress_bar()


@dataclass(frozen=True)
class _Family:
    """Where an architecture differs from Llama in names and norms; docs/extending.md says what it has to share."""

    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    attention_post_norm: str | None = None
    mlp_post_norm: str | None = None
    gamma_offset: float = 0.0  # Gemma's RMSNorm multiplies by 1 + weight
    implementation: str = "sdpa"  # of attention, whatever a config asks for; Gemma's soft-cap needs scores spelt out


_FAMILIES = {
    "llama": _Family(),
    "gemma2": _Family(
        mlp_norm="pre_feedforward_layernorm", attention_post_norm="post_attention_layernorm",
        mlp_post_norm="post_feedforward_layernorm", gamma_offset=1.0, implementation="eager"),
    "qwen2": _Family(),
    "qwen3": _Family(),
}


# What a decoder layer is given for every row, beside the stream.
_OF_ROWS = ("attention_mask", "position_ids", "position_embeddings")


def _rows(given, rows: Tensor):
    if isinstance(given, tuple):
        return tuple(_rows(each, rows) for each in given)
    return given if given is None else given[rows]


class Model:
    """A frozen causal language model and its tokenizer. Made by `load_model`.

    Attributes:
        nn: the nnsight model; `hf` the Hugging Face model in it; `tokenizer`.
        preset: the `Preset` it was loaded by, or None.
        commit: of the hub that the weights come from; None for a local folder.
        family: one of `_FAMILIES`.
        n_layers, n_heads, n_kv_heads, d_model, d_head, n_vocab, n_context: sizes.
        norm_eps: the epsilon of every RMSNorm.
        has_post_norms: whether attention and MLP writes pass a norm of their own (Gemma 2).
        end_tokens: ids that end a response: those that the checkpoint names, and the one that closes an answer in its
            chat template; `pad_token` the id that fills rows.
        dtype, device: of the weights.
    """

    def __init__(self, hf, tokenizer, preset: Preset | None = None, commit: str | None = None):
        config = hf.config
        hf.eval().requires_grad_(False)
        self.hf, self.tokenizer, self.preset, self.commit = hf, tokenizer, preset, commit
        self.family = config.model_type
        self.nn = TransformersModel(hf, tokenizer=tokenizer)
        self._names = _FAMILIES[config.model_type]
        self.n_layers, self.n_heads = config.num_hidden_layers, config.num_attention_heads
        self.n_kv_heads, self.d_model = config.num_key_value_heads, config.hidden_size
        self.d_head, self.n_vocab = hf.model.layers[0].self_attn.head_dim, config.vocab_size
        self.n_context, self.norm_eps = config.max_position_embeddings, config.rms_norm_eps
        self.has_post_norms = self._names.attention_post_norm is not None
        self.dtype, self.device = hf.dtype, hf.device
        ends = hf.generation_config.eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        self.template = ChatTemplate(tokenizer)
        self.end_tokens = sorted({*ends, tokenizer.eos_token_id, self.template.closing_token()} - {None})
        # Padding is masked wherever it is read, so any id serves where the tokenizer's own is none of the embedding's.
        self.pad_token = tokenizer.pad_token_id if tokenizer.pad_token_id in range(self.n_vocab) else 0

    # -- tokens ---------------------------------------------------------------------------------------------

    def tokenize(self, prompt: str) -> list[int]:
        """Token ids of one user turn in the chat template, ready for the answer.

        Behind a BOS if the template writes one or, where it leaves that to the tokenizer, the tokenizer does.

        Raises:
            ValueError: the tokenizer has no chat template, or the prompt spells out a control token.
        """
        return self.template.tokenize(prompt)

    @cached_property
    def post_instruction_tokens(self) -> list[int]:
        """Ids of the template after the user's instruction: the positions -n..-1 of DIM (§3.2)."""
        rows = [self.tokenize(instruction)[::-1] for instruction in ("Who are you?", "Name 7", "Write it")]
        n = next(i for i, column in enumerate(zip(*rows)) if len(set(column)) > 1)
        return rows[0][:n][::-1]

    def pad(self, rows: list[list[int]]) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
        """Left-pad rows of token ids to one length: (input ids, attention mask), on the model's device."""
        width = max(map(len, rows))
        ids = [[self.pad_token] * (width - len(row)) + row for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)

    # -- running --------------------------------------------------------------------------------------------

    def trace(self, input_ids: Int[Tensor, "batch pos"], attention_mask: Int[Tensor, "batch key"], **kwargs):
        """nnsight's trace of one forward pass; positions are counted from each row's first real token.

        The mask may be longer than the ids when `past_key_values` (see `new_cache`) holds the tokens before.
        Other arguments go to the forward. Within the trace read modules in execution order.
        """
        positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, -input_ids.shape[1]:]
        kwargs.setdefault("use_cache", "past_key_values" in kwargs)
        return self.nn.trace(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=positions, **kwargs)

    def start_at(self, layer: int, stream: Float[Tensor, "batch pos d_model"]) -> None:
        """Enter `layer` with `stream` as h^l, computing nothing below it. Only within a trace, first of all.

        `layer` may be n_layers: then `stream` goes into the final norm.
        """
        for below in range(layer):
            self.layer(below).skip(stream)
        if layer == 0:  # nothing below hands the stream over
            self.layer(0).input = stream

    def fork(self, layer: int, rows: Int[Tensor, "row"], *, stream: bool) -> None:
        """Let `layer` run `rows` of the batch, some of them several times: in what it is given beside h^l and, with
        `stream`, in h^l. Only within a trace: at some layer with `stream`, and at all layers above it without."""
        given, named = self.layer(layer).inputs
        named = named | {name: _rows(named[name], rows) for name in _OF_ROWS if name in named}
        self.layer(layer).inputs = ((_rows(given[0], rows), *given[1:]) if stream else given), named

    @contextmanager
    def eager_attention(self) -> Iterator[None]:
        """Within it attention spells out its weights, as `attention_weights` needs; slower, equal up to rounding."""
        before = self.hf.config._attn_implementation
        self.hf.set_attn_implementation("eager")
        try:
            yield
        finally:
            self.hf.set_attn_implementation(before)

    def new_cache(self) -> DynamicCache:
        """An empty key-value cache for `trace(..., past_key_values=cache)`."""
        return DynamicCache(config=self.hf.config)

    def select_rows(self, cache: DynamicCache, rows: Int[Tensor, "row"], layers: range) -> None:
        """Leave in a cache, for some layers, only `rows` of what they have, in this order."""
        for layer in layers:
            cache.layers[layer].batch_select_indices(rows)

    @property
    def logits(self) -> Float[Tensor, "batch pos vocab"]:
        """The logits, soft-capped where the model does so. Only within a trace."""
        return self.nn.output.logits

    def layer(self, layer: int) -> Envoy:
        """The decoder layer; `.input` is h^l, the residual stream entering it."""
        return self.nn.model.layers[layer]

    def q_proj(self, layer: int) -> Envoy:
        """Query projection; `.output` is [batch, pos, n_heads * d_head], before rotation."""
        return self.layer(layer).self_attn.q_proj

    def k_proj(self, layer: int) -> Envoy:
        """Key projection; `.output` is [batch, pos, n_kv_heads * d_head], before rotation."""
        return self.layer(layer).self_attn.k_proj

    def v_proj(self, layer: int) -> Envoy:
        """Value projection; `.output` is [batch, pos, n_kv_heads * d_head]."""
        return self.layer(layer).self_attn.v_proj

    def o_proj(self, layer: int) -> Envoy:
        """Output projection; `.input` is the head outputs side by side, [batch, pos, n_heads * d_head]."""
        return self.layer(layer).self_attn.o_proj

    def attention_weights(self, layer: int) -> Float[Tensor, "batch head pos key"]:
        """Attention weights, each row summing to 1. Only within a trace within `eager_attention`."""
        return self.layer(layer).self_attn.output[1]

    def mlp(self, layer: int) -> Envoy:
        """The MLP; `.input` is the normed residual stream."""
        return self.layer(layer).mlp

    def mlp_norm(self, layer: int) -> Envoy:
        """The norm before the MLP; `.input` is the residual stream between attention and MLP."""
        return getattr(self.layer(layer), self._names.mlp_norm)

    def attention_write(self, layer: int) -> Envoy:
        """Its `.output` is what attention adds to the residual stream: the post-norm, else `o_proj`."""
        name = self._names.attention_post_norm
        return self.o_proj(layer) if name is None else getattr(self.layer(layer), name)

    def mlp_write(self, layer: int) -> Envoy:
        """Its `.output` is what the MLP adds to the residual stream: the post-norm, else the MLP."""
        name = self._names.mlp_post_norm
        return self.mlp(layer) if name is None else getattr(self.layer(layer), name)

    def mlp_on(
        self, layer: int, stream: Float[Tensor, "batch pos d_model"],
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the MLP adds to a residual stream that enters its norm. Outside traces; differentiable."""
        write = self.mlp(layer)._module(self.mlp_norm(layer)._module(stream))
        return self.mlp_write(layer)._module(write) if self._names.mlp_post_norm else write

    @property
    def final_norm(self) -> Envoy:
        """The final norm; `.input` is the residual stream leaving the last layer."""
        return self.nn.model.norm

    # -- weights --------------------------------------------------------------------------------------------

    def _gamma(self, norm: Envoy) -> Float[Tensor, "d_model"]:
        """In at least float32, as the norms compute: in bfloat16 most of Gemma's weight is lost beside the 1."""
        weight = norm._module.weight
        return self._names.gamma_offset + weight.to(torch.promote_types(weight.dtype, torch.float32))

    def attention_gamma(self, layer: int) -> Float[Tensor, "d_model"]:
        """What the norm before attention multiplies by (Gemma 2: 1 + weight)."""
        return self._gamma(getattr(self.layer(layer), self._names.attention_norm))

    def mlp_gamma(self, layer: int) -> Float[Tensor, "d_model"]:
        """What the norm before the MLP multiplies by."""
        return self._gamma(self.mlp_norm(layer))

    def attention_post_gamma(self, layer: int) -> Float[Tensor, "d_model"] | None:
        """What the norm after attention multiplies by; None without post-norms."""
        return self._gamma(self.attention_write(layer)) if self.has_post_norms else None

    @property
    def final_gamma(self) -> Float[Tensor, "d_model"]:
        """What the final norm multiplies by."""
        return self._gamma(self.final_norm)

    def W_Q(self, layer: int) -> Float[Tensor, "head d_model d_head"]:
        """Query weights per query head (a view): x @ W_Q[h] is what `q_proj` makes of x for head h, less `bias`."""
        return self.q_proj(layer)._module.weight.view(self.n_heads, self.d_head, self.d_model).mT

    def W_K(self, layer: int) -> Float[Tensor, "kv_head d_model d_head"]:
        """Key weights per key-value head (a view): x @ W_K[k] is what `k_proj` makes of x for head k, less `bias`."""
        return self.k_proj(layer)._module.weight.view(self.n_kv_heads, self.d_head, self.d_model).mT

    def W_V(self, layer: int) -> Float[Tensor, "kv_head d_model d_head"]:
        """Value weights per key-value head (a view): x @ W_V[k] is what `v_proj` makes of x for head k, less `bias`."""
        return self.v_proj(layer)._module.weight.view(self.n_kv_heads, self.d_head, self.d_model).mT

    def bias(self, layer: int, kind: str) -> Float[Tensor, "head*d_head"] | None:
        """What the "q", "k" or "v" projection adds to its product (Qwen 2); None where it adds nothing."""
        return getattr(self, f"{kind}_proj")(layer)._module.bias

    def W_O(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """Output weights per query head (a view): z @ W_O[h] is what `o_proj` makes of head h's output z."""
        weight = self.o_proj(layer)._module.weight
        return weight.view(self.d_model, self.n_heads, self.d_head).permute(1, 2, 0)

    @property
    def W_U(self) -> Float[Tensor, "d_model vocab"]:
        """The unembedding (a view), to be applied after the final norm."""
        return self.nn.lm_head._module.weight.mT


@torch.inference_mode(False)  # weights made in that mode could never be differentiated through
def load_model(name: str | Path, *, dtype: str | torch.dtype | None = None,
               device: str | torch.device | None = None) -> Model:
    """Load, freeze and check a model of the Llama, Gemma 2, Qwen 2 or Qwen 3 family.

    Args:
        name: a preset, a local checkpoint folder, a GGUF file, or a hub id `owner/name`. A folder never touches the
            network; the files named in its SHA256SUMS, if it has one, are verified. A GGUF file is dequantised once,
            see `gguf`; the listed ones, by name, are fetched first, see `weights`.
        dtype: of the weights; the preset's, else float32.
        device: CUDA where there is one, else the CPU.

    Raises:
        ValueError: an unknown name or dtype, a device that is not there, an architecture not supported, quantised
            weights in another format than GGUF, a GGUF file that is not understood or not the listed one, an adapter,
            weights that are corrupt, do not fit the config, or hold or make values that are not finite, or a
            chat template that leaves the prompt out.
        FileNotFoundError: a folder, weights, config or tokenizer that is not there, or no such model or revision on
            the hub.
        PermissionError: a gated hub model without access.
        ConnectionError: the hub cannot be asked for a model that is not in its cache here, or no source of a listed
            file can be reached.
        OSError: the disk is full.
        RuntimeError: the check at load failed (see `check_access`).
        torch.OutOfMemoryError: the weights do not fit on the device.

    Warns:
        UserWarning: answers without an end, or a chat template that opens a chain of thought.
    """
    preset = known_preset(str(name))
    source, is_local = checkpoint.locate(str(name), preset)
    dtype = checkpoint.dtype_of(dtype or (preset.dtype if preset else "float32"))
    device = checkpoint.device_of(device)
    if source.endswith(gguf.SUFFIX):
        source = str(gguf.dequantised(source, dtype))
    revision = preset.revision if preset else None
    commit = None if is_local else checkpoint.commit(source, revision)
    with nullcontext() if is_local else checkpoint.clear_hub_errors(source, revision):
        hf, tokenizer = _read(source, dtype, {"local_files_only": is_local, "revision": commit})
    checkpoint.place(hf, source, device, "load them with dtype='bfloat16', take a smaller model")
    model = Model(hf, tokenizer, preset, commit)
    check_finite(model)
    check_access(model)
    for concern in model.template.concerns(model.end_tokens):
        warnings.warn(f"{source}: {concern}", stacklevel=2)
    return model


def _read(source: str, dtype: torch.dtype, where: dict):
    """The checked Hugging Face model, and the tokenizer with its checked template."""
    config = checkpoint.read_config(source, where, _FAMILIES)
    if where["local_files_only"]:
        folder.check_files(Path(source))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, config=config, trust_remote_code=False, **where)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"no readable tokenizer in {source}: restore its tokenizer.json") from error
    except Exception as error:  # a file of another kind: transformers and tokenizers raise anything
        raise ValueError(f"the tokenizer files in {source} (tokenizer.json, tokenizer_config.json) describe no "
                         f"tokenizer ({type(error).__name__}: {error}): restore them") from error
    ChatTemplate(tokenizer).check(config.vocab_size)
    with _quiet():
        hf, info = AutoModelForCausalLM.from_pretrained(
            source, config=config, dtype=dtype, attn_implementation=_FAMILIES[config.model_type].implementation,
            use_safetensors=True, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True,
            **where)
    if not where["local_files_only"]:
        cached = checkpoint.cached(source, where["revision"])
        folder.check_stored(cached.glob("*.safetensors") if cached else [])
    folder.check_weights(source, hf, info)
    return hf, tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it transformers logs nothing below an error: the checks here say it, once."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


@torch.no_grad()
def check_finite(model: Model) -> None:
    """Check that the logits on a few tokens, and on those of the chat template, are finite.

    Raises:
        ValueError: they are not: a stream outgrows the dtype.
    """
    templated = [] if model.tokenizer.chat_template is None else [model.tokenize("Hi")]
    for row in [[1, 2, 3, 4, 5], *templated]:
        logits = model.hf(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits
        if not logits.isfinite().all():
            raise ValueError(f"logits of {model.tokenizer.name_or_path} are not finite (NaN or inf) on the tokens "
                             f"{row} in {model.dtype}: load the model in a wider dtype (float16 < bfloat16 < float32)")


@torch.no_grad()
def check_access(model: Model) -> None:
    """Check on a few tokens that the handles do what they say.

    Traced logits equal those of the plain Hugging Face forward; negating the query, key or value outputs, the
    head outputs or the residual stream of a middle layer changes them; and there attention and MLP read the stream
    through the norms before them, and what both write is what is added to it.

    Raises:
        RuntimeError: which of these failed.
    """
    ids, mask = model.pad([[1, 2, 3, 4, 5]])
    plain = model.hf(input_ids=ids, attention_mask=mask, use_cache=False).logits
    rounding = torch.finfo(model.dtype).eps * plain.abs().max()
    with model.trace(ids, mask):
        traced = model.logits.save()
    if not torch.allclose(traced, plain, rtol=0, atol=30 * rounding):
        raise RuntimeError("traced logits differ from the plain forward by "
                           f"{(traced - plain).abs().max():.3g}: this nnsight does not fit this model")
    middle = model.n_layers // 2
    handles = {
        "residual stream": (model.layer(middle), "input"), "queries": (model.q_proj(middle), "output"),
        "keys": (model.k_proj(middle), "output"), "values": (model.v_proj(middle), "output"),
        "head outputs": (model.o_proj(middle), "input"),
    }
    for what, (module, side) in handles.items():
        with model.trace(ids, mask):
            setattr(module, side, -getattr(module, side))
            edited = model.logits.save()
        if torch.allclose(edited, plain, rtol=0, atol=rounding):
            raise RuntimeError(f"editing the {what} of layer {middle} leaves the logits as they were: "
                               "interventions do not reach this model, or its weights there are zero")
    _check_stream(model, middle, ids, mask)


def _check_stream(model: Model, layer: int, ids: Tensor, mask: Tensor) -> None:
    """What layer `layer` reads from the residual stream and adds to it, by the handles and gammas of `_FAMILIES`."""
    following = model.final_norm if layer + 1 == model.n_layers else model.layer(layer + 1)
    with model.trace(ids, mask):
        before, to_attention = model.layer(layer).input.save(), model.q_proj(layer).input.save()
        attention, between = model.attention_write(layer).output.save(), model.mlp_norm(layer).input.save()
        to_mlp, mlp, after = model.mlp(layer).input.save(), model.mlp_write(layer).output.save(), following.input.save()

    def normed(stream: Tensor, gamma: Tensor) -> Tensor:
        return torch.nn.functional.rms_norm(stream.to(gamma.dtype), gamma.shape, gamma, model.norm_eps)

    same = {
        "attention reads": (to_attention, normed(before, model.attention_gamma(layer))),
        "attention adds": (between, before + attention), "the MLP adds": (after, between + mlp),
        "the MLP reads": (to_mlp, normed(between, model.mlp_gamma(layer))),
    }
    rounding = max(torch.finfo(model.dtype).eps, torch.finfo(torch.float32).eps)  # in which norms are computed
    for what, (found, expected) in same.items():
        if not (found - expected).abs().max() <= 30 * rounding * expected.abs().max():
            raise RuntimeError(f"what {what} in layer {layer} is off by {(found - expected).abs().max():.3g}: a model "
                               f"of type {model.family!r} is not built as its entry in _FAMILIES says")
