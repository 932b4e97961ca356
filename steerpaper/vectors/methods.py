"""The table of methods: how each finds its vector, and what figures call and colour it. A new one is one entry."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import pandas as pd
from jaxtyping import Float
from matplotlib.colors import is_color_like
from torch import Tensor

from steerpaper.choices import unknown
from steerpaper.models.model import Model
from steerpaper.presets import Preset
from steerpaper.steering import Steering
from steerpaper.vectors.extraction import (
    LearnedVector, next_token_vector, preference_vector, principal_component, random_vector,
)
from steerpaper.vectors.pairs import ContrastPairs


@dataclass(frozen=True, eq=False)
class Ingredients:
    """What a method may make its vector of.

    Attributes:
        model: that is to be steered.
        positive, negative: training prompts that bring the behaviour out, and that do not: tables as of
            `load_prompts`, or lists.
        dim: difference in means at the chosen layer and coefficient; every vector is for its layer.
        position: of the template at which DIM was read, -1 the last.
        pairs, validation: contrastive pairs of training and of validation prompts.
        settings: the preset, with batch sizes and the grid of learned vectors.
        seed: of what is random.
    """

    model: Model
    positive: pd.DataFrame | Sequence[str]
    negative: pd.DataFrame | Sequence[str]
    dim: Steering
    position: int
    pairs: ContrastPairs
    validation: ContrastPairs
    settings: Preset
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Extracted:
    """A method's vector.

    Attributes:
        vector: added at alpha = +1 it brings the behaviour out.
        about: how it was made, for the manifest of `save_steering`.
        learned: the grid of trainings that it was chosen from, if it was learned.
    """

    vector: Float[Tensor, "d_model"]
    about: dict
    learned: LearnedVector | None = None


@dataclass(frozen=True)
class Method:
    """One way to find a steering vector.

    Attributes:
        name: what tables, files and `load_steering` call it.
        label, colour: in figures.
        extract: finds the vector.
        learned: by training, on a grid of settings.
        baseline: none of the methods that are studied, but what they are compared with; no attribution of it is kept.
        control: a baseline that knows nothing of the behaviour and so has DIM's coefficient.

    Raises:
        ValueError: a name that is no plain one, no label, a colour that is none, or no function.
    """

    name: str
    label: str
    colour: str
    extract: Callable[[Ingredients], Extracted]
    learned: bool = False
    baseline: bool = False
    control: bool = False

    def __post_init__(self):
        if not self.name.isidentifier() or not self.label:
            raise ValueError(f"a method has the name {self.name!r} and the label {self.label!r}: give a name of "
                             "letters, digits and _, since files are called so, and a label")
        if not is_color_like(self.colour) or not callable(self.extract):
            raise ValueError(f"method {self.name!r} has the colour {self.colour!r} and finds its vector by "
                             f"{self.extract!r}: give a colour that matplotlib knows, and a function of Ingredients")


def _dim(given: Ingredients) -> Extracted:
    return Extracted(given.dim.vector, {"position": given.position, "seed": given.seed})


def _ntp(given: Ingredients) -> Extracted:
    return _chosen(next_token_vector(given.model, given.pairs, given.validation, given.dim, **_grid(given.settings)))


def _po(given: Ingredients) -> Extracted:
    grid = _grid(given.settings) | {"phis": given.settings.phis}
    return _chosen(preference_vector(given.model, given.pairs, given.validation, given.dim, **grid))


def _pca(given: Ingredients) -> Extracted:
    vector = principal_component(given.model, given.positive, given.negative, given.dim.layer, given.position,
                                 batch_size=given.settings.batch_size)
    return Extracted(vector, {"position": given.position, "seed": given.seed})


def _random(given: Ingredients) -> Extracted:
    return Extracted(random_vector(given.dim.vector, given.seed), {"seed": given.seed})


def _grid(settings: Preset) -> dict:
    """The preset's grid and training of learned vectors (table 4)."""
    return dict(
        batch_sizes=settings.pair_batch_sizes, learning_rates=settings.learning_rates, seeds=settings.training_seeds,
        more_seeds=settings.more_seeds, norm=settings.learned_norm, epochs=settings.epochs,
        coefficients=settings.training_coefficients, n_tokens=settings.training_tokens,
    )


def _chosen(learned: LearnedVector) -> Extracted:
    about = {name: value for name, value in asdict(learned.setting).items() if name != "method" and value is not None}
    return Extracted(learned.vector, about, learned)


METHODS: dict[str, Method] = {method.name: method for method in (
    Method("dim", "DIM", "#E69F00", _dim),
    Method("ntp", "NTP", "#56B4E9", _ntp, learned=True),
    Method("po", "PO", "#882255", _po, learned=True),
    Method("pca", "PCA", "#009E73", _pca, baseline=True),
    Method("random", "random", "#999999", _random, baseline=True, control=True),
)}


def get_method(name: str) -> Method:
    """The method called so.

    Raises:
        ValueError: there is none; the message lists them, and the nearest.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]
