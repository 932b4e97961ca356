"""What was computed here beside what is on record: do they agree, within which tolerance, and where not?

`python -m steerpaper.reproduction compare PRESETS` says so, and puts what has no record yet on record;
`python -m steerpaper.reproduction record PRESETS` puts everything on record that was computed here.
"""

import argparse
import re
import shutil
import sys
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.image import imread
from matplotlib.testing.compare import calculate_rms
from pandas.api.types import is_float_dtype, is_string_dtype

from steerpaper import manifests, paths
from steerpaper.artifacts import load_table
from steerpaper.presets import get_presets

# Another processor adds up in another order. Measured numbers: this share of the number plus a tenth of the largest in
# its column. Text and whole numbers: none; numbers within text: their last digit. Pictures: RMS over all pixels, of 255.
RELATIVE, PICTURE = 1e-3, 3.0
TOLERANCE = (f"{RELATIVE:g} of a number plus a tenth of the largest in its column, none for text and whole numbers, the "
             f"last digit for numbers within text, {PICTURE:g} of 255 (RMS) for pictures")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Difference:
    """Where a number, a text or a picture is another one than on record.

    Attributes:
        where: file, row and column.
        recorded, computed: both values.
        size: in shares of a number plus a tenth of the largest in its column, as RELATIVE; infinite where none is
            allowed; 0 for a picture within tolerance.
        within: whether it is within tolerance.
    """

    where: str
    recorded: object
    computed: object
    size: float
    within: bool

    def __str__(self) -> str:
        return f"{self.where}: {self.recorded} on record, {self.computed} here"


@dataclass
class Comparison:
    """All of one preset; `differences` has, of what is within tolerance, the largest of each table only."""

    preset: str
    tables: int = 0
    numbers: int = 0
    pictures: int = 0
    differences: list[Difference] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)

    @property
    def beyond(self) -> list[Difference]:
        """What is not within tolerance."""
        return [difference for difference in self.differences if not difference.within]

    def __str__(self) -> str:
        own = f"{self.preset}: {self.tables} tables ({self.numbers:,} numbers) and {self.pictures} figures"
        verdicts = "; verdicts changed: " + "; ".join(self.verdicts) if self.verdicts else "; no verdict changed"
        if self.beyond:
            lines = [f"  {difference}" for difference in self.beyond[:20]]
            if len(self.beyond) > 20:
                lines.append(f"  and {len(self.beyond) - 20} more")
            return "\n".join([f"{own} compared, {len(self.beyond)} differences beyond tolerance{verdicts}", *lines])
        largest = max((d for d in self.differences), key=lambda d: d.size, default=None)
        found = f"largest difference {largest.size:.1e}, {largest}" if largest and largest.size else "no difference"
        return f"{own} are as on record, {found}{verdicts}"


@cache
def outputs() -> dict[str, dict[str, list[str]]]:
    """What each notebook of the workflow builds upon and writes: `notebooks/outputs.toml`, in reading order."""
    return tomllib.loads((paths.NOTEBOOKS / "outputs.toml").read_text("utf-8"))


def compare(preset: str) -> Comparison:
    """The tables and figures of one preset that were computed here, beside those on record.

    Raises:
        FileNotFoundError: a table or figure that was not computed, or is not on record.
        ValueError: a table that is not what its notebook wrote.
    """
    found = Comparison(preset)
    for notebook, written in outputs().items():
        for name in written["tables"]:
            tables = [load_table(preset, name, made_by=notebook, recorded=recorded) for recorded in (True, False)]
            found.tables, found.numbers = found.tables + 1, found.numbers + tables[0].notna().sum().sum()
            found.differences += compare_tables(f"{name}.csv", *tables)
            if name == "scorecard_claims":
                found.verdicts = _verdicts(*tables)
        for name in written["figures"]:
            files = [folder(preset) / f"{name}.png" for folder in (paths.recorded_figures, paths.figures)]
            found.pictures += 1
            found.differences += compare_pictures(f"{name}.png", *files)
    return found


def compare_tables(name: str, recorded: pd.DataFrame, computed: pd.DataFrame) -> list[Difference]:
    """Every difference beyond tolerance between two tables, and the largest one within it.

    Rows are told apart by their text and whole numbers where these are unique; then their order does not count.
    """
    for what, *both in (("columns", list(recorded), list(computed)), ("rows", len(recorded), len(computed))):
        if both[0] != both[1]:
            return [Difference(f"{name}, {what}", *both, np.inf, False)]
    floats = [c for c in recorded if is_float_dtype(recorded[c]) or is_float_dtype(computed[c])]
    labels = [c for c in recorded if c not in floats]
    sides = _alike(recorded, computed, labels)
    rows = [", ".join(f"{c} {v}" for c, v in zip(labels, values)) for values in sides[0][labels].to_numpy()]
    within, beyond = [], []
    for column in recorded:
        old, new = (side[column] for side in sides)
        sizes = _distances(old, new) if column in floats else _unequal(old, new)
        for i in np.flatnonzero(sizes > 0):
            where = f"{name}, {rows[i] or f'row {i}'}, {column}"
            difference = Difference(where, old.iloc[i], new.iloc[i], float(sizes[i]), bool(sizes[i] <= RELATIVE))
            (within if difference.within else beyond).append(difference)
    return beyond + sorted(within, key=lambda difference: difference.size)[-1:]


def compare_pictures(name: str, recorded: Path, computed: Path) -> list[Difference]:
    """The difference between two pictures if it is beyond tolerance."""
    pixels = [255 * imread(path)[..., :3] for path in (recorded, computed)]
    if pixels[0].shape != pixels[1].shape:
        sizes = (f"{width} x {height} pixels" for height, width, _ in (one.shape for one in pixels))
        return [Difference(name, *sizes, np.inf, False)]
    rms = calculate_rms(*pixels)
    return [Difference(name, "the picture", f"one with RMS {rms:.1f} from it", np.inf, False)] if rms > PICTURE else []


def record(preset: str) -> None:
    """Put the tables and figures of one preset that were computed here on record, in place of what was there.

    Raises:
        FileNotFoundError: one that was not computed.
    """
    tables = [name for written in outputs().values() for name in written["tables"]]
    figures = [name for written in outputs().values() for name in written["figures"]]
    manifest = manifests.read(paths.results(preset))
    manifest["tables"] = {name: manifest["tables"][name] for name in sorted(tables)}
    _copy([f"{name}.csv" for name in tables], paths.results(preset), paths.recorded_results(preset))
    manifests.write(paths.recorded_results(preset), manifest)
    drawn = [f"{name}.{kind}" for name in figures for kind in ("svg", "png")]
    _copy(drawn, paths.figures(preset), paths.recorded_figures(preset))


def is_recorded(preset: str) -> bool:
    """Whether anything of a preset is on record."""
    return any(paths.recorded_results(preset).glob("*.csv"))


def main(command: str, presets: str) -> int:
    """Compare or record presets; 1 if something is beyond tolerance."""
    failed = False
    for preset in (preset.name for preset in get_presets(presets).values()):
        try:
            if command == "record" or not is_recorded(preset):
                record(preset)
                print(f"{preset}: now on record in data/results/{preset} and figures/{preset}")
            else:
                found = compare(preset)
                print(found)
                failed |= bool(found.beyond)
        except (FileNotFoundError, ValueError) as error:  # the next preset may have all that it needs
            print(f"{preset}: {error}")
            failed = True
    if command == "compare":
        print(f"(tolerance: {TOLERANCE})")
    if failed:
        print(f"What was computed is in {paths.BUILD}/<preset>; `make record PRESETS=...` puts it on record instead.")
    return int(failed)


def _copy(names: list[str], source: Path, target: Path) -> None:
    """Make `target` hold these files of `source` and no other."""
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.name not in names:
            path.unlink()
    for name in names:
        shutil.copyfile(source / name, target / name)


def _alike(recorded: pd.DataFrame, computed: pd.DataFrame, labels: list[str]) -> list[pd.DataFrame]:
    """Both tables with their rows in one order: that of their labels, where both have the same, each once."""
    tables = [table.reset_index(drop=True) for table in (recorded, computed)]
    if not labels or recorded.duplicated(labels).any():
        return tables
    ordered = [table.sort_values(labels, key=lambda column: column.map(str), ignore_index=True) for table in tables]
    return ordered if ordered[0][labels].map(str).equals(ordered[1][labels].map(str)) else tables


def _distances(recorded: pd.Series, computed: pd.Series) -> np.ndarray:
    """Distances of numbers in shares of the recorded one plus a tenth of the column's largest."""
    old, new = (pd.to_numeric(column, errors="coerce").to_numpy(dtype=float) for column in (recorded, computed))
    finite = np.abs(old[np.isfinite(old)])
    scale = np.abs(old) + 0.1 * (finite.max() if len(finite) else 0.0)
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    with np.errstate(invalid="ignore", divide="ignore"):
        sizes = np.where(same, 0.0, np.abs(new - old) / scale)
    return np.where(np.isnan(sizes), np.inf, sizes)  # a number on one side alone


def _unequal(recorded: pd.Series, computed: pd.Series) -> np.ndarray:
    """Infinite where texts or whole numbers differ, by more than the last digit of numbers within a text."""
    pairs = zip(recorded.fillna(""), computed.fillna(""))
    if is_string_dtype(recorded) and is_string_dtype(computed):
        return np.array([0.0 if _same_text(str(old), str(new)) else np.inf for old, new in pairs])
    return np.array([0.0 if old == new else np.inf for old, new in pairs])


def _same_text(old: str, new: str) -> bool:
    """Whether two texts are the same, up to the last digit of the numbers in them."""
    if old == new:
        return True
    if _NUMBER.sub("#", old) != _NUMBER.sub("#", new):
        return False
    for before, after in zip(_NUMBER.findall(old), _NUMBER.findall(new)):
        mantissa, _, exponent = before.partition("e")
        digit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        if before != after and ("." not in mantissa or not np.isclose(
                float(after), float(before), rtol=RELATIVE, atol=1.01 * digit)):
            return False
    return True


def _verdicts(recorded: pd.DataFrame, computed: pd.DataFrame) -> list[str]:
    """Which claims have another verdict than on record."""
    both = recorded.merge(computed, on="claim", how="outer", suffixes=("", "_here"))
    changed = both[both.verdict.fillna("none") != both.verdict_here.fillna("none")]
    return [f"{row.claim} from {row.verdict} to {row.verdict_here}" for row in changed.itertuples()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["compare", "record"])
    parser.add_argument("presets")
    arguments = parser.parse_args()
    sys.exit(main(arguments.command, arguments.presets))
