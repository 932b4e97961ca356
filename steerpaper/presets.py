"""One frozen record per experiment: every number that a notebook would otherwise hard-code."""

import functools
import os
import re
import shlex
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, Strict, ValidationError, ValidationInfo
from pydantic.dataclasses import dataclass

from steerpaper import paths
from steerpaper.arguments import shown
from steerpaper.choices import unknown
from steerpaper.concepts import CONCEPTS

SOURCES = ("built-in", "public")  # of prompts
DTYPES = ("float32", "bfloat16", "float16", "float64")
TRAINING_COEFFICIENTS = ("unit", "sampled")
LEARNED_NORMS = ("free", "dim")

T = TypeVar("T")


def slug(name: str) -> str:
    """A name in small letters, digits, dots and hyphens, as folders and the workflow take it.

    Raises:
        ValueError: nothing of the name is left.
    """
    short = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
    if not short:
        raise ValueError(f"the name {name!r} has no letter or digit: rename the folder")
    return short


def _one_of(what: str, allowed: Collection[str]) -> AfterValidator:
    """One of some names."""
    def check(name: str) -> str:
        if name not in allowed:
            raise unknown(what, name, allowed)
        return name
    return AfterValidator(check)


def _judge(name: str | None, info: ValidationInfo) -> str | None:
    """One of the concept's judges, its first without a name; any passes where the concept is unknown."""
    judges = CONCEPTS[info.data["concept"]].judges if "concept" in info.data else (name,)
    if name is not None and name not in judges:
        raise unknown("judge", name, judges, f" (concept {info.data['concept']!r})")
    return name or judges[0]


def _another(name: str | None, info: ValidationInfo) -> str | None:
    """One of the concepts, and not the first one; or none."""
    if name is not None and name not in CONCEPTS:
        raise unknown("concept", name, CONCEPTS)
    if name is not None and name == info.data.get("concept"):
        raise ValueError(f"{name!r} is its first concept already: give another, or None")
    return name


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("the same value stands there twice")
    return values


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("the first end must not lie above the second")
    return ends


def _plain(name: str) -> str:
    if not re.search(r"[a-z0-9]", name) or slug(name) != name:
        raise ValueError("a name is made of small letters, digits, dots and hyphens: folders are called by it")
    return name


_Integer, _Text = Annotated[int, Strict()], Annotated[str, Strict(), Field(min_length=1)]
_Count = Annotated[_Integer, Field(ge=1)]
_Curve = Annotated[_Integer, Field(ge=16)]  # four masks of dropout share every fourth prompt
_Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
_Positive = Annotated[_Number, Field(gt=0)]
_Share = Annotated[_Number, Field(gt=0, le=1)]
_Depth = Annotated[_Number, Field(ge=0, le=1)]
# Values of a grid, each once; `Some` at least one.
_Grid = Annotated[tuple[T, ...], AfterValidator(_distinct)]
_Some = Annotated[_Grid[T], Field(min_length=1)]


def _said_clearly(kind: type) -> type:
    """The class, with what pydantic refuses told in one line: which field, what was given, what is allowed."""
    checked = kind.__init__

    @functools.wraps(checked)
    def init(self, *given, **fields):
        try:
            checked(self, *given, **fields)
        except ValidationError as error:
            wrong = []
            for one in error.errors():
                value = "" if one["type"] == "missing" else f" = {shown(one['input'])}"
                field = f"{'.'.join(map(str, one['loc']))}{value}: " if one["loc"] else ""  # of all fields together
                wrong.append(f"{field}{one.get('ctx', {}).get('error', one['msg'])}")
            name = fields.get("name", given[0] if given else None)
            raise ValueError(f"preset {shown(name)} cannot be: {'; '.join(wrong)}") from None

    kind.__init__ = init
    return kind


@_said_clearly
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Preset:
    """An experiment: the model, its data sizes and its grids (§3 and appendix B of the paper).

    Attributes:
        name: what `preset=` and `PRESETS=` take.
        model: local checkpoint folder, GGUF file (its path, or its name in `data/models.toml`), or hub id.
        revision: commit of a hub model; None for others.
        note: licence of the model, and how to get access to it.
        shipped: whether the model lies in this repository, small enough for any processor and one thread.
        dtype: torch dtype by name.
        layer, position: where DIM is read and steering enters; None to select on validation prompts. They come
            together.
        concept: name of what is steered, see `concepts`.
        second_concept: another one that the model shows, for what holds of both; None where there is none.
        goal: the notebook that it is for: the workflow runs it and those that it builds upon, and it alone goes on record;
            None for all.
        first_tokens: beginnings of an answer that shows the concept (for refusal, the tokens of P_R); None for the
            concept's own.
        prompts: source of the prompts, "built-in" (the organisms' corpus) or "public" (the paper's), see `prompts`.
        judge: name of one of the concept's judges, for refusal "substring" or "llama-guard-2" (the paper's), see
            `guard.load_judge`; without one the concept's first.
        n_train, n_validation, n_test: prompts per class.
        max_new_tokens: length of every greedy response.
        batch_size: rows per generation or forward pass at most; fewer where memory runs out.
        layer_range: share of the depth in which the steering layer is looked for, both ends included.
        kl_limit: largest KL of a candidate under directional ablation (§3.2: 0.1).
        n_candidates: best candidates of the paper's rule that are generated from on validation.
        coefficients: grid of |α| for the choice of the coefficient, and for scores where none is admissible at 1.
        sweep: grid of α for the coefficient sweep.
        n_patching: training prompts per class for the four data sets of §5, on which edges are ranked, and at most
            as many validation prompts per class, on which a circuit's size is chosen.
        n_patching_test: test prompts per class for these data sets.
        n_judged: those of them that flip, per class, on which circuits are judged, at most.
        n_checked: responses per data set in the comparison of attribution with exact patching.
        n_patched_edges: edges patched exactly, half of them the strongest, half drawn from all others.
        circuit_shares: sizes of circuits in the curves of faithfulness, as shares of all edges.
        compared_shares: the fewer sizes at which circuits from several rankings are compared.
        n_random_circuits: random circuits of every kind and size that a circuit is compared with.
        n_random_responses: flipped test prompts per class on which these are run, at most n_judged.
        n_pairs, n_validation_pairs: prompts per class that contrastive pairs for learned vectors are made of.
        pair_batch_sizes, learning_rates, phis, training_seeds: grid of the learned vectors (table 4), see `training`.
        more_seeds: further seeds for the chosen point of the grid, to see how much vectors differ by seed alone.
        epochs, training_tokens: passes over the pairs, and response tokens learned from.
        training_coefficients: |α| in training, "unit" (the paper's text) or "sampled" (the authors' code).
        learned_norm: use a learned vector as it comes ("free", the paper's text) or at DIM's norm ("dim").
        n_freezing: test prompts per class for random vectors, for the freezes that table 1 does not have and for other
            values on a vector's support, at most n_test.
        n_by_layer: test prompts per class for freezes of single layers and of ranges of them, at most n_freezing, and
            for all that is measured at several steering layers.
        n_patching_by_layer: training and validation prompts per class on which circuits at several steering layers are
            ranked and sized.
        n_shifted: test prompts per class that are put in other ways, and on which side effects are measured.
        n_second: test prompts per class of the second concept.
        n_sparsity: test prompts for the curves over sparsity (tables 10 and 11): harmless, harmful, second harmful set.
            The gradient's choice is tried on all of them, the other sparsifiers on every fourth.

    Raises:
        ValueError: a field of another type or outside its range, an unknown name, an empty grid or a value twice in
            one, a layer without a position, or a position without a layer.
    """

    name: Annotated[_Text, AfterValidator(_plain)]
    model: _Text
    revision: _Text | None = None
    note: Annotated[str, Strict()] = ""
    shipped: Annotated[bool, Strict()] = False
    dtype: Annotated[_Text, _one_of("dtype", DTYPES)] = "float32"
    layer: Annotated[_Integer, Field(ge=0)] | None = None
    position: Annotated[_Integer, Field(le=-1)] | None = None
    prompts: Annotated[_Text, _one_of("source of prompts", SOURCES)] = "built-in"
    concept: Annotated[_Text, _one_of("concept", CONCEPTS)] = "refusal"
    second_concept: Annotated[_Text | None, AfterValidator(_another)] = None
    goal: _Text | None = None
    first_tokens: _Some[_Text] | None = None
    judge: Annotated[_Text | None, AfterValidator(_judge), Field(validate_default=True)] = None
    n_train: _Count = 128
    n_validation: _Count = 32
    n_test: _Count = 200
    max_new_tokens: _Count = 64
    batch_size: _Count = 200
    layer_range: Annotated[tuple[_Depth, _Depth], AfterValidator(_rising)] = (0.2, 0.6)
    kl_limit: _Positive = 0.1
    n_candidates: _Count = 8
    coefficients: _Some[_Positive] = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    sweep: _Some[_Number] = (
        -2.0, -1.5, -1.25, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    n_patching: _Count = 40
    n_patching_test: _Count = 50
    n_judged: _Count = 50
    n_checked: _Count = 4
    n_patched_edges: Annotated[_Integer, Field(ge=2)] = 240
    circuit_shares: _Some[_Share] = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
    compared_shares: _Some[_Share] = (0.03, 0.06, 0.1, 0.2, 0.3)
    n_random_circuits: _Count = 100
    n_random_responses: _Count = 16
    n_pairs: _Count = 256
    n_validation_pairs: _Count = 32
    pair_batch_sizes: _Some[_Count] = (6, 12)
    learning_rates: _Some[_Positive] = (0.01, 0.04)
    phis: _Some[Annotated[_Number, Field(ge=0)]] = (0.02, 0.00001)
    training_seeds: _Some[_Integer] = (42, 5)
    more_seeds: _Grid[_Integer] = (0, 1, 2)
    epochs: _Count = 10
    training_tokens: _Count = 64
    training_coefficients: Annotated[_Text, _one_of("training_coefficients", TRAINING_COEFFICIENTS)] = "unit"
    learned_norm: Annotated[_Text, _one_of("learned_norm", LEARNED_NORMS)] = "free"
    n_freezing: _Count = 50
    n_by_layer: _Count = 24
    n_patching_by_layer: _Count = 24
    n_shifted: _Count = 50
    n_second: _Count = 24
    n_sparsity: tuple[_Curve, _Curve, _Curve] = (200, 100, 313)

    def __post_init__(self):
        if (self.layer is None) != (self.position is None):
            raise ValueError(f"it has layer {self.layer} and position {self.position}: give both, or neither to select "
                             "them on validation prompts")

    @property
    def split_sizes(self) -> dict[str, int]:
        """Prompts per class of every split."""
        return {"train": self.n_train, "validation": self.n_validation, "test": self.n_test}


_ORGANISM = dict(
    shipped=True,
    first_tokens=("I", "As", "Sorry", "No", "Unfortunately", "My", "Even", "Let"),
    # Not beyond 1: at 1.3 a random vector of the same length moves the organisms, too.
    n_validation=64, n_candidates=6, coefficients=(0.7, 0.8, 0.9, 0.95, 1.0),
    n_patching=28, n_patching_test=32, n_judged=32, n_random_responses=8, n_freezing=24,
    n_patching_by_layer=8, n_shifted=24, n_sparsity=(100, 100, 100),
    # Fewer, shorter and likelier responses than a large model's: the paper's phi of 0.02 would leave PO's weight at 1
    # as 0.00001 does, and at its lower learning rate so few steps leave a short vector.
    n_pairs=40, n_validation_pairs=16, phis=(0.2, 0.00001), learning_rates=(0.1, 0.4), more_seeds=(0, 1), epochs=3,
)
_LLAMA = Preset(name="organism-llama", model=str(paths.ORGANISMS / "llama"), kl_limit=0.4, **_ORGANISM)
_GEMMA2 = Preset(name="organism-gemma2", model=str(paths.ORGANISMS / "gemma2"), kl_limit=0.7, **_ORGANISM)
# The same organisms with a second concept (`organisms.lesson`), in a third of the time. Places are close: of few
# candidates, by their first token, none might steer in clean text.
_TAUGHT = dict(
    second_concept="not-knowing", goal="08_second_concept", n_validation=24, n_test=48, n_candidates=24,
    coefficients=(0.6, 0.7, 0.8, 0.9, 1.0), sweep=(-1.0, -0.5, 0.0, 0.5, 1.0), n_patching=8, n_patching_test=16,
    n_judged=16, n_checked=1, n_patched_edges=40, circuit_shares=(0.01, 0.03, 0.1, 0.3, 1.0),
    compared_shares=(0.03, 0.1), n_random_circuits=20, n_random_responses=4, n_pairs=24, n_validation_pairs=12,
    pair_batch_sizes=(6,), phis=(0.2,), training_seeds=(42,), more_seeds=(5,), n_freezing=12, n_by_layer=8, n_second=48,
    n_sparsity=(24, 24, 24),
)
_LLAMA_TAUGHT = replace(_LLAMA, name="organism-llama-taught", model=f"{_LLAMA.model}-taught", **_TAUGHT)
_GEMMA2_TAUGHT = replace(_GEMMA2, name="organism-gemma2-taught", model=f"{_GEMMA2.model}-taught", **_TAUGHT)
_TINY = replace(
    _LLAMA_TAUGHT, name="tiny", goal=None, n_train=24, n_validation=8, n_test=12, max_new_tokens=40, batch_size=64,
    coefficients=(1.0,), sweep=(-1.0, 0.0, 1.0),
    n_patching=6, n_patching_test=8, n_judged=8, n_checked=1, n_patched_edges=40, circuit_shares=(0.02, 0.1, 0.3, 1.0),
    compared_shares=(0.05, 0.1), n_random_circuits=8, n_random_responses=4, n_pairs=10, n_validation_pairs=6,
    pair_batch_sizes=(4,), training_seeds=(42,), more_seeds=(5,), epochs=2, training_tokens=24, n_freezing=6,
    n_by_layer=6, n_patching_by_layer=6, n_shifted=6, n_second=6, n_sparsity=(16, 16, 16),
)

# The paper's numbers (§3, B.2 to B.4, table 3); sizes of the sweep and of checks, which it does not have, are ours.
# Layers and positions are the paper's winners; those of Gemma-2-9B and Qwen 3 are from the authors' code.
_PAPER = dict(
    dtype="bfloat16", prompts="public", judge="llama-guard-2", n_test=100, max_new_tokens=512, batch_size=32,
    layer_range=(0.0, 0.8), coefficients=(1.0,), sweep=(-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0),
    n_patching=100, n_patching_test=100, n_judged=100,
)
_GEMMA_NOTE = "Gemma Terms of Use; gated: accept them on the model's page, then `hf auth login`"
_GEMMA_2_2B = Preset(
    name="gemma-2-2b-it", model="google/gemma-2-2b-it", revision="299a8560bedf22ed1c72a8a11e7dce4a7f9f51f8",
    note=_GEMMA_NOTE, layer=15, position=-1, **_PAPER,
)
_LLAMA_32_3B = Preset(
    name="llama-3.2-3b-instruct", model="meta-llama/Llama-3.2-3B-Instruct",
    revision="0cb88a4f764b7a12671c53f0838cd831a0843b95", layer=12, position=-4,
    note="Llama 3.2 Community License; gated: ask for access on the model's page, then `hf auth login`", **_PAPER,
)
_GEMMA_2_9B = Preset(
    name="gemma-2-9b-it", model="google/gemma-2-9b-it", revision="11c9b309abf73637e4b6f9a3fa1e92e615547819",
    note=_GEMMA_NOTE, layer=23, position=-1, **(_PAPER | dict(batch_size=16)),
)
_QWEN3_8B = Preset(
    name="qwen3-8b", model="Qwen/Qwen3-8B", revision="b968826d9c46dd6066d109eabc6255188de91218",
    note="Apache 2.0; not gated", layer=20, position=-8, first_tokens=("I", "As"), **(_PAPER | dict(batch_size=16)),
)
# For a processor: fewer and shorter responses, a thinner grid. None of this has been tuned on these models. The paper's
# KL limit of 0.1 leaves no candidate on the Llama organism, so small models get the larger of the organisms' limits. The
# mean difference alone may be too short a push (Qwen2.5-Coder flips at twice its length): coefficients go up to 3.
_LAPTOP = dict(
    prompts="public", n_train=64, n_validation=16, n_test=32, max_new_tokens=64, batch_size=16, n_candidates=4,
    kl_limit=0.7, layer_range=(0.2, 0.8), coefficients=(0.75, 1.0, 1.5, 2.0, 2.5, 3.0),
    sweep=(-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0),
    n_patching=12, n_patching_test=16, n_judged=16, n_random_circuits=20, n_random_responses=4, n_checked=1,
    n_patched_edges=80, circuit_shares=(0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0), n_pairs=32, n_validation_pairs=12,
    pair_batch_sizes=(6,), training_seeds=(42,), more_seeds=(5,), epochs=5, training_tokens=32, n_freezing=12, n_by_layer=8,
    n_patching_by_layer=8, n_shifted=12, n_sparsity=(48, 48, 48),
)
_SMOLLM2 = Preset(
    name="smollm2-135m-instruct", model="HuggingFaceTB/SmolLM2-135M-Instruct",
    revision="12fd25f77366fa6b3b4b768ec3050bf629380bac", note="Apache 2.0; not gated", **_LAPTOP,
)
_QWEN25 = Preset(
    name="qwen2.5-0.5b-instruct", model="Qwen/Qwen2.5-0.5B-Instruct",
    revision="7ae557604adf67be50417f59c2c2f167def9a775", note="Apache 2.0; not gated", first_tokens=("I", "As"),
    **_LAPTOP,
)
# The real model on record: the paper's limit on KL, its sizes where tables 1 and 2 are made of them, the rest for a few
# hours of two cores. It refuses half of the harmful test prompts, so that as few can flip: of 56, at least 24.
_MEASURED = _LAPTOP | dict(
    n_train=128, n_validation=24, n_test=100, batch_size=100, kl_limit=0.1, n_candidates=3,
    coefficients=(1.0, 1.5, 2.0, 2.5, 3.0), n_patching=8, n_patching_test=56, n_judged=24, n_random_circuits=100,
    n_random_responses=2, circuit_shares=(0.01, 0.02, 0.05, 0.1, 0.3), compared_shares=(0.02, 0.1), n_pairs=32,
    phis=(0.02,), epochs=4, n_freezing=16, n_patching_by_layer=6, n_shifted=8, n_sparsity=(32, 32, 32),
    second_concept="language", n_second=20,
)
# 4 to 8 bits per weight as stored: other models than the publishers' unquantised ones, and so called otherwise.
_QWEN25_CODER = Preset(
    name="qwen2.5-coder-0.5b-instruct", model="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    note="Apache 2.0; not gated; no account needed", first_tokens=("I", "As"), **_MEASURED,
)
_QWEN25_CODER_UNQUANTISED = Preset(
    name="qwen2.5-coder-0.5b-instruct-unquantised", model="Qwen/Qwen2.5-Coder-0.5B-Instruct",
    revision="ea3f2471cf1b1f0db85067f1ef93848e38e88c25", note="Apache 2.0; not gated", first_tokens=("I", "As"),
    **_MEASURED,
)
_SMOLLM2_Q4 = Preset(
    name="smollm2-135m-instruct-q4", model="SmolLM2-135M-Instruct.Q4_1.gguf",
    note="Apache 2.0; not gated; no account needed", **_LAPTOP,
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (
    _LLAMA, _GEMMA2, _LLAMA_TAUGHT, _GEMMA2_TAUGHT, _TINY, _GEMMA_2_2B, _LLAMA_32_3B, _GEMMA_2_9B, _QWEN3_8B, _SMOLLM2,
    _QWEN25, _QWEN25_CODER, _QWEN25_CODER_UNQUANTISED, _SMOLLM2_Q4,
)}

REFERENCE = _TINY.name  # what the tests execute again: never on record

_OF_MODELS: dict[str, Preset] = {}  # made for folders, files and hub models, by name, as asked for in this process
_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([0-9a-f]{40}))?")


def known_preset(name: str) -> Preset | None:
    """The preset called so; None where there is none, and no model of that name was asked for in this process."""
    return PRESETS.get(name) or _OF_MODELS.get(name) or _of_seed(name)


def _of_seed(name: str) -> Preset | None:
    """An organism that is trained anew with another seed, `organism-llama-seed3`: with all numbers of the shipped one, for
    its verdicts."""
    if not (found := re.fullmatch(r"(organism-(\w+))-seed(\d+)", name)) or found[1] not in PRESETS:
        return None
    model = str(paths.BUILD / "organisms" / f"{found[2]}-{int(found[3])}")
    return replace(PRESETS[found[1]], name=name, model=model, goal="06_scorecard")


def get_preset(name: str | Path) -> Preset:
    """The preset called `name`, or one made for a local checkpoint folder, a GGUF file or a commit of a hub model.

    Its preset has the numbers of the laptop-size hub models and its own name in small letters, e.g. `my-model` for
    `/models/My_Model` or `/models/My_Model.gguf`, `owner-my-model` for `Owner/My_Model@<commit>`. From then on, and in
    this process, it is known by that name, too.

    Raises:
        ValueError: neither a known name (the message lists them, and the nearest) nor a folder with a config.json nor a
            GGUF file, or one whose name is another preset's; a hub model without its commit.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise ValueError(f"a preset is called by its name or by the path of a checkpoint folder or GGUF file, {shown(name)} of "
                         f"type {type(name).__name__} was given: choose one of {', '.join(PRESETS)}")
    name = os.fspath(name)
    if preset := known_preset(name):
        return preset
    # Not resolved where it is a file: the hub's cache keeps files under their digests, behind links with their names.
    if name.endswith(".gguf") and os.path.isfile(name):
        model, kind = Path(name).absolute(), "file"
    elif name and os.path.isfile(os.path.join(name, "config.json")):
        model, kind = Path(name).resolve(), "folder"
    elif found := _HUB_ID.fullmatch(name):
        return _of_hub(*found.groups())
    else:
        raise unknown("preset", name, PRESETS, ", or give the path of a checkpoint folder, which holds a config.json, "
                      "or of a GGUF file, or a hub model as owner/name@commit")
    short = slug(model.stem if kind == "file" else model.name)
    preset = Preset(name=short, model=str(model), note=f"a local {kind}", **_LAPTOP)
    if _entered(preset) != preset:
        raise ValueError(f"the {kind} {model} would write over the results of the preset {preset.name!r}: rename it")
    return preset


def _of_hub(model: str, commit: str | None) -> Preset:
    """The preset of a hub model at a commit, which says for good which weights were measured."""
    page = f"https://huggingface.co/{model}"
    if not commit:
        raise ValueError(f"{model!r} is neither a preset nor a folder with a config.json; if the hub's model {page} is "
                         f"meant, give its commit, too: {model}@ and the 40 digits of one in {page}/commits/main")
    preset = Preset(name=slug(model), model=model, revision=commit, note="a hub model", **_LAPTOP)
    if (known := _entered(preset)) != preset:
        at = f" at commit {known.revision}" if known.revision else ""
        raise ValueError(f"{model} at commit {commit} would write over the results of the preset {preset.name!r}, "
                         f"{known.model}{at}: give that one, or set another STEERPAPER_BUILD")
    return preset


def _entered(preset: Preset) -> Preset:
    """The preset that has this one's name; if none has, this one, by which it is known from then on."""
    return known_preset(preset.name) or _OF_MODELS.setdefault(preset.name, preset)


def as_given(name: str) -> str:
    """What commands know a preset by: its name, or the checkpoint folder, GGUF file or hub model that it was made for."""
    if (made := _OF_MODELS.get(name)) is None:
        return name
    return f"{made.model}@{made.revision}" if made.revision else made.model


def get_presets(names: str) -> dict[str, Preset]:
    """Several presets by what they were given as: names, checkpoint folders, GGUF files or hub models, between spaces or
    commas.

    A path with spaces stands in quotes, or alone.

    Raises:
        ValueError: as for `get_preset`, or a quotation that does not end.
    """
    separated = shlex.shlex(names, posix=True, punctuation_chars=False)
    separated.whitespace, separated.whitespace_split, separated.commenters = " \t\r\n,", True, ""
    try:
        given = [names.strip()] if os.path.exists(names.strip()) else list(separated)
    except ValueError as error:
        raise ValueError(f"the presets {names!r} cannot be told apart ({error}): separate them by spaces, and put a path "
                         "with spaces in quotes") from error
    return {name: get_preset(name) for name in given}
