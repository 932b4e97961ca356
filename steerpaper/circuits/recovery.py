"""How much of the steering a circuit carries when only it runs steered: its faithfulness (§6)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from steerpaper import arguments
from steerpaper.circuits.cases import Cases
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.metrics import Metric
from steerpaper.circuits.runs import M_OF_RUNS, m_of_runs
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """How much of the steering's effect a circuit carries.

    Attributes:
        table: one row per unmasked position: response (index), position (in its tokens), m_base, m_circuit,
            m_steered.

    Raises:
        ValueError: where it is undefined: m of the base and the steered run is equal on the whole, or an m not finite.
    """

    table: pd.DataFrame

    def __post_init__(self):
        _check_defined(self._sums)

    @property
    def _sums(self) -> np.ndarray:
        return self.table[M_OF_RUNS].sum(skipna=False).to_numpy()

    @property
    def value(self) -> float:
        """(m(C) - m(base)) / (m(steered) - m(base)): 0 for the base run, 1 for the steered one, not confined to these.

        Each m is averaged over the unmasked positions of all responses first: position by position the ratio has
        denominators near 0.
        """
        return float(_ratio(*self._sums))

    def interval(self, level: float = 0.95, n_resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Percentile bootstrap interval of `value`, responses resampled whole.

        Raises:
            ValueError: fewer than two responses, or a level outside (0, 1).
        """
        sums = self.table.groupby("response")[M_OF_RUNS].sum().to_numpy().T
        if sums.shape[1] < 2 or not 0 < arguments.number("level", level) < 1:
            raise ValueError(f"{sums.shape[1]} responses and level {level} were given: a bootstrap needs at "
                             "least two responses, and a level between 0 and 1")
        how = dict(paired=True, vectorized=True, method="percentile", rng=np.random.default_rng(seed))
        found = bootstrap(sums, lambda *m, axis: _ratio(*(part.sum(axis) for part in m)), n_resamples=n_resamples,
                          confidence_level=level, **how).confidence_interval
        return float(found.low), float(found.high)

    def by(self, labels: pd.Series | pd.DataFrame, together: str | None = None, *, seed: int = 0) -> pd.DataFrame:
        """Faithfulness of groups of responses, each by itself.

        Args:
            labels: what tells the groups apart, in one or several columns; indexed by response.
            together: a label for all responses together, which get a row of their own, the first.
            seed: of the intervals.

        Returns:
            One row per group, sorted: the labels' columns, faithfulness, low, high (the `interval`; NaN for a single
            response) and responses, the number of those with an unmasked position.

        Raises:
            ValueError: labels that some response lacks, or a group in which faithfulness is undefined.
        """
        own = pd.DataFrame(labels).reindex(self.table.response)
        if (lacking := own.isna().any(axis=1)).any():
            raise ValueError(f"responses {own.index[lacking].unique().tolist()[:5]} have no label: the labels need a "
                             "row for every response, indexed by its number")
        keys = [own[name].to_numpy() for name in own]
        groups = [(key, Faithfulness(table)) for key, table in self.table.groupby(keys)]
        if together is not None:
            groups.insert(0, ((together,) * own.shape[1], self))
        rows = []
        for key, part in groups:
            n = part.table.response.nunique()
            rows.append((*key, part.value, *(part.interval(seed=seed) if n > 1 else (np.nan, np.nan)), n))
        return pd.DataFrame(rows, columns=[*own, "faithfulness", "low", "high", "responses"])


def _ratio(base, circuit, steered):
    """Faithfulness from the sums of m_base, m_circuit and m_steered."""
    _check_defined(np.stack((base, circuit, steered)))
    return (circuit - base) / (steered - base)


def _check_defined(sums: np.ndarray) -> None:
    base, _, steered = sums
    if not (np.isfinite(sums).all() and np.all(steered != base)):
        raise ValueError("m of the base and the steered run is equal or not finite: faithfulness is "
                         "undefined. Pass responses that the steering changes")


def faithfulness(
    model: Model, circuit: Circuit, responses: Sequence[Response], steering: Steering | Sequence[Steering], *,
    metric: str | Metric = "logit_difference", batch_size: int = 8,
) -> Faithfulness:
    """Faithfulness of a circuit (§6): the steered model with all edges outside it at their base activations.

    Args:
        responses, steering, metric: as for `attribute`; the paper uses steered responses.
        batch_size: responses per pass.

    Raises:
        ValueError: as for `attribute`, a circuit of another graph than the model's at the steering layer, or
            faithfulness that is undefined.
    """
    return faithfulness_of(model, [circuit], responses, steering, metric=metric, batch_size=batch_size)[0]


def faithfulness_of(
    model: Model, circuits: Sequence[Circuit], responses: Sequence[Response],
    steering: Steering | Sequence[Steering], *, metric: str | Metric = "logit_difference", batch_size: int = 8,
) -> list[Faithfulness]:
    """As `faithfulness`, of many circuits that share the base and the steered runs.

    Raises:
        ValueError: as for `faithfulness`.
    """
    cases, circuits = Cases.of(model, responses, steering), arguments.listed("circuits", circuits)
    return [Faithfulness(table) for table in m_of_runs(model, circuits, cases, metric, batch_size)]
