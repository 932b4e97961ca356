"""Activation addition, `h^l <- h^l + alpha s` at every position (§3.2), and what runs under it.

Every row of a batch has its own steering, so that candidates of all layers share their forward passes.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerpaper import arguments
from steerpaper.arguments import Prompt
from steerpaper.concepts import Concept
from steerpaper.finite import check_addition, check_finite
from steerpaper.freezing import Freeze
from steerpaper.models.batches import in_batches
from steerpaper.models.kept import Kept
from steerpaper.models.maps import wide
from steerpaper.models.model import Model
from steerpaper.models.responses import Response


@dataclass(frozen=True, eq=False)
class Steering:
    """A steering vector and where it acts: `coefficient * vector` is added to the stream entering `layer`.

    Checked against a model when it is used.

    Attributes:
        direct: what freezes of a direct path take out times the coefficient, instead of the vector: a random one of its
            length, say, to see what taking out anything of that size does.
    """

    vector: Float[Tensor, "d_model"]
    layer: int
    coefficient: float = 1.0
    direct: Float[Tensor, "d_model"] | None = None


def both_ways(steering: Steering, concept: Concept) -> dict[str, Steering]:
    """What steers each of a concept's prompt sets away from what the model does by itself: -alpha on the positive one,
    +alpha on the negative one.

    Raises:
        ValueError: no Steering, or a coefficient that is not positive, since the sign comes from the set.
    """
    alpha = arguments.number("the steering's coefficient", _steering(steering).coefficient)
    if not alpha > 0:
        raise ValueError(f"the steering's coefficient must be positive, {steering.coefficient} was given: "
                         f"{concept.positive} prompts are steered by its negative")
    return {name: replace(steering, coefficient=sign * alpha) for name, sign in concept.signs.items()}


def generate(
    model: Model, prompts: Sequence[Prompt], steering: Steering | Sequence[Steering | None] | None = None,
    frozen: str | None = None, frozen_layers: Collection[int] | None = None, *,
    max_new_tokens: int = 64, batch_size: int = 64,
) -> list[Response]:
    """Greedy responses under activation addition at every position, prompt and generated (§3.2).

    With `frozen`, part of the steered run does at every step what it does unsteered (§6, table 1):

    * "qk": the attention weights are those of the unsteered run on the same tokens; "q", "k": only the queries or
      the keys that they are made of.
    * "ov": the value vectors are the unsteered run's; "qk+ov": both.
    * "svv": alpha (s * gamma) / RMS(h), with h the steered run's own stream and gamma its norm's weight, is
      subtracted from the input of the value projection: the direct effect of s on the values only. (As a control of
      another vector, see `Steering.direct`.)
    * "mlp": the same for the MLP's input; "mlp-before-norm": alpha s is subtracted before the MLP's norm instead.
    * "mlp-total": the MLPs write what they write in the unsteered run; "residual-only": so does attention, and alpha s
      reaches the logits by the residual stream alone.

    Args:
        prompts: strings, put through the chat template, or lists of token ids, used as they are; of a table the
            column `prompt`.
        steering: None, one for all prompts, or one entry (None allowed) per prompt.
        frozen: what stays unsteered, see above.
        frozen_layers: where, from the steering layer on; all of these layers without it.
        max_new_tokens: tokens per response at most; a response ends with, and includes, the first end token.
        batch_size: prompts per forward pass; those of like length share a batch. A prompt is two rows where a
            freeze needs its unsteered run. Responses come in the given order.

    Raises:
        ValueError: no prompt or an empty one, a prompt whose response could outgrow the model's context, a steering
            that does not fit the model or the number of prompts, an unknown freeze, one without steering, frozen
            layers that are none or outside the steering layer to the last, or logits that are not finite.
        RuntimeError: freezing leaves the logits as steering makes them.
    """
    rows = tokenized(model, prompts)
    max_new_tokens = arguments.integer("max_new_tokens", max_new_tokens, 1)
    if (longest := max(map(len, rows))) + max_new_tokens > model.n_context:
        raise ValueError(f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the model's "
                         f"context of {model.n_context}: shorten the prompt or max_new_tokens")
    steerings = per_row(model, steering, len(rows))
    freeze = _freeze(model, frozen, frozen_layers, rows, steerings)
    completions = _completions(model, rows, steerings, freeze, max_new_tokens, batch_size)
    texts = [model.tokenizer.decode(completion, skip_special_tokens=True) for completion in completions]
    return [Response(*response) for response in zip(rows, completions, texts)]


def next_token_logits(
    model: Model, prompts: Sequence[Prompt], steering: Steering | Sequence[Steering | None] | None = None,
    ablation: Float[Tensor, "d_model"] | Float[Tensor, "prompt d_model"] | None = None, *,
    batch_size: int = 64,
) -> Float[Tensor, "prompt vocab"]:
    """Float32 logits after the last token of each prompt.

    Args:
        prompts, steering, batch_size: as for `generate`.
        ablation: directions of any length, one for all prompts or one each, removed from the residual stream
            everywhere, `h <- h - d d^T h` with d = direction / its norm (§3.2): from the stream entering each
            layer (after steering) and from every attention and MLP write.

    Raises:
        ValueError: as for `generate`, or directions that are zero, not finite or of the wrong shape.
    """
    rows = tokenized(model, prompts)
    steerings = per_row(model, steering, len(rows))
    directions = None if ablation is None else _directions(model, ablation, len(rows))
    logits = torch.empty(len(rows), model.n_vocab)

    def compute(batch: list[int]) -> Tensor:
        additions = _additions(model, [steerings[i] for i in batch])
        input_ids, mask = model.pad([rows[i] for i in batch])
        removed = None if directions is None else directions[batch, None]
        return _last_logits(model, input_ids, mask, additions, batch, removed=removed).float().cpu()

    for batch, own in in_batches([len(row) for row in rows], batch_size, "next token", compute):
        logits[batch] = own
    return logits


@dataclass(frozen=True, eq=False)
class Entering:
    """Prompts on their way through the unsteered model, about to enter a layer: steering there runs what lies below it
    once, however many vectors and coefficients are tried.

    Attributes:
        rows: token ids of every prompt.
        layer: l.
        stream: h^l, left-padded.
        batch_size: prompts per forward pass.
    """

    model: Model
    rows: list[list[int]]
    layer: int
    stream: Float[Tensor, "prompt pos d_model"]
    batch_size: int

    @classmethod
    def of(cls, model: Model, prompts: Sequence[Prompt], layer: int, *, batch_size: int = 64) -> "Entering":
        """Prompts (as for `generate`) about to enter `layer`."""
        rows = tokenized(model, prompts)
        shape = len(rows), max(map(len, rows)), model.d_model
        nowhere = torch.zeros(shape, dtype=model.dtype, device=model.device)
        return cls(model, rows, -1, nowhere, batch_size).at(layer)

    @torch.no_grad()
    def at(self, layer: int) -> "Entering":
        """The same prompts about to enter `layer`, from where they are on.

        Raises:
            ValueError: a layer below this one, or none of the model's.
        """
        layer = arguments.integer("layer", layer, max(self.layer, 0), self.model.n_layers - 1)
        stream = torch.zeros_like(self.stream)

        def compute(batch: list[int]) -> Tensor:
            ids, mask = self.model.pad([self.rows[i] for i in batch])
            with self.model.trace(ids, mask, logits_to_keep=1) as tracer:
                if self.layer >= 0:
                    self.model.start_at(self.layer, self.stream[batch, -ids.shape[1]:])
                entering = self.model.layer(layer).input.save()
                tracer.stop()
            return entering

        for batch, own in in_batches([len(row) for row in self.rows], self.batch_size, "next token", compute):
            stream[batch, -own.shape[1]:] = own
        return replace(self, layer=layer, stream=stream)

    @torch.no_grad()
    def next_token_logits(self, steering: Steering | Sequence[Steering]) -> Float[Tensor, "prompt vocab"]:
        """What the function of that name gives, for steering that enters `layer`: one for all prompts, or one each.

        Raises:
            ValueError: a steering that enters elsewhere, or as for that function.
        """
        steerings = per_row(self.model, steering, len(self.rows))
        if elsewhere := {entry and entry.layer for entry in steerings} - {self.layer}:
            raise ValueError(f"steering enters at {', '.join(map(str, elsewhere))}, the prompts are about to enter "
                             f"layer {self.layer}: steer there, or take them to another layer with `at`")
        logits = torch.empty(len(self.rows), self.model.n_vocab)

        def compute(batch: list[int]) -> Tensor:
            ids, mask = self.model.pad([self.rows[i] for i in batch])
            added = _additions(self.model, [steerings[i] for i in batch])[self.layer]
            with self.model.trace(ids, mask, logits_to_keep=1):
                self.model.start_at(self.layer, self.stream[batch, -ids.shape[1]:] + added)
                last = self.model.logits.save()
            check_finite(last[:, -1], "logits of prompts", batch)
            return last[:, -1].float().cpu()

        for batch, own in in_batches([len(row) for row in self.rows], self.batch_size, "next token", compute):
            logits[batch] = own
        return logits


@torch.no_grad()
def residual_stream(
    model: Model, prompts: Sequence[Prompt], positions: Sequence[int], *, batch_size: int = 64,
) -> Float[Tensor, "prompt layer position d_model"]:
    """The residual stream entering every layer, h^l, at `positions` of each prompt, in float32 on the CPU.

    Args:
        prompts, batch_size: as for `generate`.
        positions: counted from the end of the prompt, -1 the last token.

    Raises:
        ValueError: no prompt or an empty one, no position or one that some prompt does not have, or a stream that is
            not finite.
    """
    rows = tokenized(model, prompts)
    shortest, positions = min(map(len, rows)), arguments.listed("positions", positions)
    if not positions:
        raise ValueError("positions are empty: give at least one, -1 for the last token")
    if bad := [p for p in positions if not -shortest <= p <= -1]:
        raise ValueError(f"positions {bad} are outside -{shortest}..-1: they count from the end of the "
                         f"prompt, and the shortest prompt has {shortest} tokens")
    streams = torch.empty(len(rows), model.n_layers, len(positions), model.d_model)

    def compute(batch: list[int]) -> Tensor:
        input_ids, mask = model.pad([rows[i] for i in batch])
        with model.trace(input_ids, mask, logits_to_keep=1):
            entering = [model.layer(layer).input[:, positions] for layer in range(model.n_layers)]
            stacked = torch.stack(entering, dim=1).save()
        check_finite(stacked, "residual streams of prompts", batch)
        return stacked.float().cpu()

    for batch, own in in_batches([len(row) for row in rows], batch_size, "residual stream", compute):
        streams[batch] = own
    return streams


# -- one pass and one batch --------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Fork:
    """Where the rows of a batch part: below the first layer in which one of them is steered, equal prompts are run once,
    and unsteered twins with their rows.

    Attributes:
        layer: that layer.
        rows: which of the rows below it every row is from, all twins before all rows.
        twins: whether there are twins, which never reach the logits.
    """

    layer: int
    rows: Int[Tensor, "row"]
    twins: bool

    @classmethod
    def of(cls, model: Model, additions: dict[int, Tensor], freeze: Freeze | None, rows: Sequence[int]) -> "_Fork | None":
        """For a batch whose rows are these below the fork; None where nothing parts."""
        twins = freeze is not None and freeze.needs_twins
        if not additions or not twins and list(rows) == list(range(len(rows))):
            return None
        return cls(min(additions), torch.tensor([*rows, *rows] if twins else rows, device=model.device), twins)


@torch.no_grad()
def _last_logits(
    model, input_ids, mask, additions, prompts: Sequence[int], freeze=None, removed=None, fork=None, direct=None, **cache,
) -> Float[Tensor, "batch vocab"]:
    """One forward pass under steering (and a freeze, or ablation of `removed`, [batch, 1, d_model]), checked to be
    finite. `prompts` are the numbers of the rows' prompts; `direct` is what a freeze takes out, if not the additions."""
    with model.trace(input_ids, mask, logits_to_keep=1, **cache):
        _intervene(model, additions, direct or additions, freeze, removed, fork)
        logits = model.logits.save()
    check_finite(logits[:, -1], "logits of prompts", prompts)
    return logits[:, -1]


def _intervene(
    model, additions: dict[int, Tensor], direct: dict[int, Tensor], freeze: Freeze | None, removed: Tensor | None,
    fork: _Fork | None,
) -> None:
    """Within a trace, layer by layer in execution order: add the steering, freeze, remove the directions."""
    frozen = () if freeze is None else freeze.layers
    twins = fork is not None and fork.twins
    every_layer = removed is not None or fork is not None
    taken = None  # what a freeze takes out, of the layers so far
    for layer in range(model.n_layers) if every_layer else sorted({*additions, *frozen}):
        stream = model.layer(layer)
        if fork is not None and layer >= fork.layer:
            model.fork(layer, fork.rows, stream=layer == fork.layer)
        if layer in additions:
            own = additions[layer], direct[layer]
            if twins:
                own = [torch.cat([torch.zeros_like(each), each]) for each in own]
            stream.input = stream.input + own[0]
            taken = own[1] if taken is None else taken + own[1]
        if layer in frozen and taken is not None:
            freeze.intervene(model, layer, taken)
        if removed is not None:
            stream.input = _remove(stream.input, removed)
            for write in (model.attention_write(layer), model.mlp_write(layer)):
                write.output = _remove(write.output, removed)
    if twins:
        both = model.final_norm.input
        model.final_norm.input = both[len(both) // 2:]


def _remove(h: Float[Tensor, "batch pos d_model"], d: Float[Tensor, "batch 1 d_model"]) -> Tensor:
    """h - d d^T h, in the dtype of d and back in that of h."""
    own = h.to(d.dtype)
    return (own - (own * d).sum(-1, keepdim=True) * d).to(h.dtype)


def _completions(
    model: Model, rows: list[list[int]], steerings, freeze: Freeze | None, n: int, batch_size: int,
) -> list[list[int]]:
    """Greedy completions of all rows, batch by batch, gone on with where an interrupted run stopped."""
    inputs = {
        "rows": rows, "n": n, "ends": model.end_tokens, "batch_size": batch_size, "freeze": freeze and asdict(freeze),
        "steerings": [s and (s.layer, s.coefficient, s.vector, s.direct) for s in steerings],
    }
    kept = Kept("generate", __name__, model.hf, inputs, {"tokens": torch.full((len(rows), n), -1, dtype=torch.int32)})

    def compute(batch: list[int]) -> list[list[int]]:
        return _decode(model, [rows[i] for i in batch], [steerings[i] for i in batch], freeze, n, batch)

    what = "generate" if freeze is None else f"generate, {freeze.kind} frozen"
    for batch, completions in in_batches([len(row) for row in rows], batch_size, what, compute, kept.done):
        for i, completion in zip(batch, completions):
            kept.state["tokens"][i, :len(completion)] = torch.tensor(completion)
        kept.keep(len(batch))
    return [row[row >= 0].tolist() for row in kept.state["tokens"]]


def _decode(
    model, rows: list[list[int]], steerings, freeze: Freeze | None, n: int, prompts: list[int],
) -> list[list[int]]:
    """Greedy completions of one batch, up to and including the first end token; `prompts` are its prompts' numbers.

    A plain loop over a key-value cache, one trace per step: Hugging Face's `generate` would suppress the end
    token where nnsight needs the number of steps fixed, and apply a generation config's penalties. Unsteered twins
    are given the tokens of their steered rows.
    """
    additions, cache = _additions(model, steerings), model.new_cache()
    direct = _additions(model, steerings, direct=True)
    completions, decoded, ended = [[] for _ in rows], list(range(len(rows))), set()
    distinct, own = _distinct(rows) if additions else (rows, decoded)
    tokens, mask = model.pad(distinct)
    fork = _Fork.of(model, additions, freeze, own)
    for step in range(n):
        numbers = [prompts[i] for i in decoded]
        logits = _last_logits(model, tokens, mask, additions, numbers, freeze, fork=fork, direct=direct,
                              past_key_values=cache)
        if step == 0 and fork is not None:  # from now on rows have tokens of their own
            mask = mask[own]
            model.select_rows(cache, torch.tensor(own, device=model.device), range(fork.layer))
        chosen = logits.argmax(-1)
        for i, token in zip(decoded, chosen.tolist()):
            if i not in ended:
                completions[i].append(token)
                if token in model.end_tokens:
                    ended.add(i)
        going = [place for place, i in enumerate(decoded) if i not in ended]
        if not going:
            break
        tokens, mask = chosen[:, None], torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        if len(going) < 0.75 * len(decoded):  # for fewer, moving the cache is not worth it
            kept = torch.tensor(going, device=model.device)
            tokens, mask = tokens[kept], mask[kept]
            additions, direct = ({at: each[kept] for at, each in own.items()} for own in (additions, direct))
            parted = fork.layer if fork is not None and fork.twins else model.n_layers
            model.select_rows(cache, kept, range(parted))
            model.select_rows(cache, torch.cat([kept, kept + len(decoded)]), range(parted, model.n_layers))
            decoded = [decoded[place] for place in going]
        fork = _Fork.of(model, additions, freeze, range(len(decoded)))
    return completions


def _distinct(rows: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """Every row once, and which of these each row is."""
    place = {}
    own = [place.setdefault(tuple(row), len(place)) for row in rows]
    return list(map(list, place)), own


# -- arguments ---------------------------------------------------------------------------------------------

def tokenized(model: Model, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of every prompt, checked."""
    if not isinstance(model, Model):
        raise ValueError(f"{arguments.shown(model)} of type {type(model).__name__} is no model: give a Model, as load_model "
                         "returns it")
    rows = [model.tokenize(p) if isinstance(p, str) else p for p in arguments.prompts(prompts)]
    for i, row in enumerate(rows):
        arguments.check_vocabulary(f"prompt {i}", row, model.n_vocab)
        if len(row) > model.n_context:
            raise ValueError(f"prompt {i} has {len(row)} tokens, the model's context {model.n_context}")
    return rows


def per_row(model: Model, steering, n: int) -> list[Steering | None]:
    """One checked entry per prompt."""
    if steering is None or isinstance(steering, Steering):
        steering = [steering] * n
    steering = arguments.listed("steering", steering)
    if len(steering) != n:
        raise ValueError(f"{len(steering)} steerings for {n} prompts: give one for all or one (or None) each")
    given = {id(entry): entry for entry in steering if entry is not None}
    checked = {key: _checked(model, entry) for key, entry in given.items()}
    return [checked.get(id(entry)) for entry in steering]


def _checked(model: Model, steering: Steering) -> Steering:
    """The same with tensors and Python's numbers; ValueError where it does not fit the model."""
    layer = arguments.integer("steering layer", _steering(steering).layer, 0, model.n_layers - 1)
    coefficient = arguments.number("the steering coefficient", steering.coefficient)
    vectors = {"steering": steering.vector} | ({} if steering.direct is None else {"direct": steering.direct})
    for what, given in vectors.items():
        vectors[what] = vector = arguments.vector(f"{what} vector", given).detach()
        if tuple(vector.shape) != (model.d_model,):
            raise ValueError(f"a {what} vector must have shape ({model.d_model},), not {tuple(vector.shape)}")
        check_addition(vector, coefficient, model.dtype)
    return Steering(vectors["steering"], layer, coefficient, vectors.get("direct"))


def _steering(given: object) -> Steering:
    if not isinstance(given, Steering):
        raise ValueError(f"steering is {arguments.shown(given)} of type {type(given).__name__}: give a Steering, which "
                         "says the vector, the layer and the coefficient")
    return given


def _freeze(model: Model, frozen: str | None, layers: Collection[int] | None, rows, steerings) -> Freeze | None:
    """What `generate` is to freeze, checked on up to four prompts to have an effect."""
    if frozen is None:
        if layers is not None:
            raise ValueError("frozen_layers without frozen: say what to freeze in these layers, e.g. frozen='qk'")
        return None
    steered = {i: entry for i, entry in enumerate(steerings) if entry is not None}
    freeze = Freeze.of(model, frozen, layers, [entry.layer for entry in steered.values()])
    # One token, alone or repeated, is no test: its values are all equal, and so is any weighted mean of them.
    tested = [i for i, entry in steered.items() if entry.coefficient and len(set(rows[i])) > 1][:4]

    def check(batch: list[int]) -> None:
        own = [tested[i] for i in batch]
        ids, mask = model.pad([rows[i] for i in own])
        moved, direct = (_additions(model, [steered[i] for i in own], direct=flag) for flag in (False, True))
        base, nowhere = {at: torch.zeros_like(added) for at, added in moved.items()}, replace(freeze, layers=())
        fork = _Fork.of(model, moved, freeze, range(len(own)))
        logits = [_last_logits(model, ids, mask, added, own, nowhere, fork=fork) for added in (base, moved)]
        freeze.check_effect(*logits, lambda part: _last_logits(
            model, ids, mask, moved, own, part, fork=fork, direct=direct))

    next(in_batches([len(rows[i]) for i in tested], 4, "check of the freeze", check), None)  # fewer prompts do, too
    return freeze


def _additions(
    model: Model, steerings: Sequence[Steering | None], *, direct: bool = False,
) -> dict[int, Float[Tensor, "batch 1 d_model"]]:
    """What to add to the stream entering each steered layer: alpha s in the rows steered there, else zero. With
    `direct` what freezes take out of it."""
    zero = torch.zeros(len(steerings), 1, model.d_model, dtype=model.dtype, device=model.device)
    additions: dict[int, Tensor] = {}
    for row, steering in enumerate(steerings):
        if steering is not None:
            addition = additions.setdefault(steering.layer, zero.clone())
            vector = steering.vector if steering.direct is None or not direct else steering.direct
            addition[row, 0] = steering.coefficient * vector.float()
    return additions


def _directions(model: Model, ablation: Tensor, n: int) -> Float[Tensor, "prompt d_model"]:
    """Unit directions, one per prompt, in at least float32: rounded to bfloat16 they would not be of length 1."""
    ablation = arguments.real("ablation", ablation).detach()
    if tuple(ablation.shape) not in {(model.d_model,), (n, model.d_model)}:
        raise ValueError(f"ablation must have shape ({model.d_model},) or ({n}, {model.d_model}), "
                         f"{tuple(ablation.shape)} was given")
    norms = ablation.float().norm(dim=-1, keepdim=True)
    if not (norms.isfinite() & (norms > 0)).all():
        raise ValueError("an ablation direction is zero or not finite")
    return (ablation.float() / norms).to(model.device, wide(model)).expand(n, model.d_model)
