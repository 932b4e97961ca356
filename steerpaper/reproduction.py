"""What was computed here beside what is on record: do they agree, within which tolerance, and where not?

`python -m steerpaper.reproduction compare PRESETS` says so. `record PRESETS` puts what was computed here on record, and
`restore PRESETS` takes what is on record for computed here: then any notebook runs without the hours of those before it.
"""

import argparse
import re
import reprlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import numpy as np
import pandas as pd
from matplotlib.image import imread
from matplotlib.testing.compare import calculate_rms
from pandas.api.types import is_float_dtype, is_numeric_dtype

from steerpaper import manifests, paths
from steerpaper.artifacts import finding, load_table, load_tensors, on_record
from steerpaper.outputs import writing
from steerpaper.paths import write_bytes
from steerpaper.presets import as_given, get_preset, get_presets

# Another processor adds up in another order. A measured number may differ by RELATIVE of itself, or by SMALL of the
# largest number of its kind: in its column, and where a table has several quantities in one column, of that quantity.
# Numbers within prose: their last digit. Pictures: RMS over all pixels, of 255. All else, settings included: nothing.
RELATIVE, SMALL, PICTURE = 1e-3, 1e-5, 1.5
# A generated word may turn, too, and with it one answer of the n of a rate: in one of RATES rates at most. Only then,
# what has an interval may differ by FOLLOWS of its width, and a picture by a whole answer's bar or point.
RATES, FOLLOWS, PICTURE_FOLLOWS = 400, 0.5, 5.0
TOLERANCE = (f"{RELATIVE:g} of a number, or {SMALL:g} of the largest of its kind; the last digit of numbers within prose; "
             f"{PICTURE:g} of 255 (RMS) in pictures; none in text, whole numbers and settings; one answer in one of {RATES} "
             f"rates at most, and then {FOLLOWS:g} of its interval for a number, {PICTURE_FOLLOWS:g} in pictures")
_SETTINGS = ("phi", "learning_rate")
_KIND = "quantity"
# Standing by themselves: the 3 of "llama-3.2-3b" or of a version is a name.
_NUMBER = re.compile(r"(?<![\w.-])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![.-]?\w)")


@dataclass(frozen=True)
class Difference:
    """Where a number, a text or a picture is another one than on record.

    Attributes:
        where: file, row and column.
        recorded, computed: both values.
        size: relative, of the number and of SMALL / RELATIVE of the largest of its kind together; infinite where no
            difference is allowed.
        within: whether it is within tolerance.
        answer: whether it is one answer of a rate's.
        follows: whether it is no larger than what may follow from one answer's turn.
    """

    where: str
    recorded: object
    computed: object
    size: float
    within: bool
    answer: bool = False
    follows: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.recorded} on record, {self.computed} here"


@dataclass
class Comparison:
    """All of one preset; `differences` has, of what is within tolerance, the largest of each table only."""

    preset: str
    tables: int = 0
    numbers: int = 0
    rates: int = 0
    pictures: int = 0
    differences: list[Difference] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)

    @property
    def turned(self) -> list[Difference]:
        """The rates in which one answer has turned, if they are as few as another processor turns."""
        turned = [difference for difference in self.differences if difference.answer]
        return turned if len(turned) * RATES <= self.rates else []

    @property
    def beyond(self) -> list[Difference]:
        """What is not within tolerance."""
        few = bool(self.turned)
        return [difference for difference in self.differences
                if not (difference.within or few and (difference.answer or difference.follows))]

    def __str__(self) -> str:
        own = f"{self.preset}: {self.tables} tables ({self.numbers:,} numbers) and {self.pictures} figures"
        verdicts = "; verdicts changed: " + "; ".join(self.verdicts) if self.verdicts else "; no verdict changed"
        if self.beyond:
            head = f"{own} compared, {len(self.beyond)} differences beyond tolerance{verdicts}"
            return "\n".join([head, *_lines(self.beyond)])
        close = [difference for difference in self.differences if difference.within]
        largest = max(close, key=lambda difference: difference.size, default=None)
        found = f"largest difference {largest.size:.1e}, {largest}" if largest and largest.size else "no difference"
        if not self.turned:
            return f"{own} are as on record, {found}{verdicts}"
        following = len(self.differences) - len(close) - len(self.turned)
        return "\n".join([f"{own} are as on record, but for one answer in {len(self.turned)} of {self.rates:,} rates and "
                          f"{following} numbers and pictures that follow; else {found}{verdicts}", *_lines(self.turned)])


def compare(preset: str) -> Comparison:
    """The tables and figures of one preset that were computed here, beside those on record.

    Raises:
        FileNotFoundError: a table or figure that was not computed, or is not on record.
        ValueError: a table that is not what its notebook wrote.
    """
    found = Comparison(preset)
    for written in on_record(preset).values():
        for name in written["tables"]:
            tables = [load_table(preset, name, recorded=recorded) for recorded in (True, False)]
            found.tables += 1
            found.numbers += int(tables[0].select_dtypes("number").count().sum())
            found.rates += sum(int(tables[0][column].count()) for column in tables[0] if _is_rate(tables[0], column))
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
    measured = [c for c in recorded if c not in _SETTINGS and all(map(is_numeric_dtype, (recorded[c], computed[c])))
                and any(map(is_float_dtype, (recorded[c], computed[c])))]
    labels = [c for c in recorded if c not in measured]
    old, new = _alike(recorded, computed, labels)
    within, beyond = [], []
    for column in recorded:
        sizes = _distances(old, new, column) if column in measured else _unequal(old[column], new[column])
        for i in np.flatnonzero(sizes > 0):
            where = f"{name}, {_row(old, labels, i)}, {column}"
            difference = Difference(where, old[column][i], new[column][i], float(sizes[i]), bool(sizes[i] <= RELATIVE),
                                    **_turn(old, new, column, i))
            (within if difference.within else beyond).append(difference)
    return beyond + sorted(within, key=lambda difference: difference.size)[-1:]


def compare_pictures(name: str, recorded: Path, computed: Path) -> list[Difference]:
    """The difference between two pictures if it is beyond tolerance."""
    pixels = [255 * imread(path)[..., :3] for path in (recorded, computed)]
    if pixels[0].shape != pixels[1].shape:
        sizes = (f"{width} x {height} pixels" for height, width, _ in (one.shape for one in pixels))
        return [Difference(name, *sizes, np.inf, False)]
    rms = calculate_rms(*pixels)
    return [Difference(name, "the picture", f"one with RMS {rms:.1f} from it", np.inf, False,
                       follows=rms <= PICTURE_FOLLOWS)] if rms > PICTURE else []


def record(preset: str) -> list[str]:
    """Put what the notebooks have written here for one preset on record, in place of what was there: tables, figures and
    tensors; of a preset with a goal, of that notebook alone.

    Returns:
        The notebooks that have not run here, and are not on record.

    Raises:
        FileNotFoundError: something that was not computed, of a notebook that has run here or is on record; then the
            record stays as it was. (One that has run, and ended with what it found, loses what it had on record.)
        ValueError: a table or tensor that is not what its notebook wrote; likewise.
    """
    tables, tensors, figures, missing, recorded = {}, {}, {}, [], on_record(preset)
    goal = get_preset(preset).goal
    for notebook, written in writing(preset).items():
        if goal not in (None, notebook):
            continue
        here = any((paths.results(preset) / f"{name}.csv").exists() for name in written["tables"])
        ended = "only" in written and (paths.BUILD / preset / f"{notebook}.ipynb").exists()
        if not here and (ended or notebook not in recorded):
            missing += [notebook] if written["tables"] else []
            continue
        for name in written["tables"]:
            load_table(preset, name)  # what is there, and whole
            tables[f"{name}.csv"] = (paths.results(preset) / f"{name}.csv").read_bytes()
        for name in written["tensors"]:
            load_tensors(preset, name)
            tensors[f"{name}.safetensors"] = (paths.artifacts(preset) / f"{name}.safetensors").read_bytes()
        for file in (f"{name}.{kind}" for name in written["figures"] for kind in ("svg", "png")):
            figures[file] = (paths.figures(preset) / file).read_bytes()
    manifest = manifests.read(paths.results(preset))
    manifest["tables"] = {Path(file).stem: manifest["tables"][Path(file).stem] for file in tables}
    _write(tables | tensors, paths.recorded_results(preset))
    manifests.write(paths.recorded_results(preset), manifest)
    _write(figures, paths.recorded_figures(preset))
    return missing


def restore(preset: str) -> tuple[list[str], list[str]]:
    """Put what is on record of one preset where the notebooks of this machine read and write.

    Returns:
        The notebooks that are on record, and those of them whose tensors are not.

    Raises:
        FileNotFoundError: nothing is on record.
        ValueError: results of another model, or a table that is not as its notebook wrote it.
    """
    if not (found := on_record(preset)):
        raise FileNotFoundError(f"nothing is on record: `make figures PRESETS={quote(as_given(preset))}` computes it")
    recorded = paths.recorded_results(preset)
    tables = [name for written in found.values() for name in written["tables"]]
    for name in tables:
        load_table(preset, name, recorded=True)  # what is there, and whole
    manifest = manifests.read(recorded)
    with manifests.entries(paths.results(preset), manifest["model"]) as entries:
        for name in tables:
            write_bytes(paths.results(preset) / f"{name}.csv", (recorded / f"{name}.csv").read_bytes())
            entries[name] = manifest["tables"][name]
    for folder, files in ((paths.artifacts(preset), recorded.glob("*.safetensors")),
                          (paths.figures(preset), paths.recorded_figures(preset).glob("*.*"))):
        for file in files:
            write_bytes(folder / file.name, file.read_bytes())
    lacking = [notebook for notebook, written in found.items()
               if not all((recorded / f"{name}.safetensors").exists() for name in written["tensors"])]
    return list(found), lacking


def main(command: str, presets: str) -> int:
    """Compare, record or restore presets; 1 if something is beyond tolerance, missing or damaged."""
    beyond = failed = False
    for preset in (preset.name for preset in get_presets(presets).values()):
        try:
            if command == "record":
                missing = record(preset)
                print(f"{preset}: now on record in data/results/{preset} and figures/{preset}"
                      + f"; not run here: {', '.join(missing)}" * bool(missing))
            elif command == "restore":
                restored, lacking = restore(preset)
                first = f"; their tensors are not on record, so run {', '.join(lacking)} before what builds upon them"
                print(f"{preset}: {', '.join(restored)} as on record, in {paths.BUILD / preset}{first * bool(lacking)}")
            elif any(paths.recorded_results(preset).glob("*.csv")):
                found = compare(preset)
                print(found)
                beyond |= bool(found.beyond)
            elif why := finding(preset):
                print(f"{preset}: {why}; so notebook 01 ends there, and no other runs")
            else:
                print(f"{preset}: computed, in {paths.BUILD / preset}; nothing is on record to compare it with")
        except (FileNotFoundError, ValueError) as error:  # the next preset may have all that it needs
            print(f"{preset}: {error}")
            failed = True
    if command == "compare":
        print(f"(tolerance: {TOLERANCE})")
    if beyond:
        print(f"What was computed is in {paths.BUILD}/<preset>; `make record PRESETS=...` puts it on record instead.")
    return int(beyond or failed)


def _write(files: dict[str, bytes], folder: Path) -> None:
    """Make a folder hold these files and no other."""
    for name, content in files.items():
        write_bytes(folder / name, content)
    for path in folder.glob("*"):  # none where nothing was written
        if path.name not in (*files, manifests.NAME):
            path.unlink()


def _alike(recorded: pd.DataFrame, computed: pd.DataFrame, labels: list[str]) -> list[pd.DataFrame]:
    """Both tables with their rows in one order: that of their labels, where both have the same, each once."""
    tables = [table.reset_index(drop=True) for table in (recorded, computed)]
    if not labels or recorded.duplicated(labels).any():
        return tables
    ordered = [table.sort_values(labels, key=lambda column: column.map(str), ignore_index=True) for table in tables]
    return ordered if ordered[0][labels].map(str).equals(ordered[1][labels].map(str)) else tables


def _row(table: pd.DataFrame, labels: list[str], i: int) -> str:
    """The first labels that tell a row from all others, cut to a length that a message bears."""
    n = next((n for n in range(1, len(labels)) if not table.duplicated(labels[:n]).any()), len(labels))
    values = ((label, table[label][i]) for label in labels[:n])
    told = [f"{label} {reprlib.repr(value) if isinstance(value, str) else value}" for label, value in values]
    return ", ".join(told) or f"row {i}"


def _lines(differences: list[Difference]) -> list[str]:
    """The first of them, one in a line."""
    more = [f"  and {len(differences) - 20} more"] if len(differences) > 20 else []
    return [*(f"  {difference}" for difference in differences[:20]), *more]


def _is_rate(table: pd.DataFrame, column: str) -> bool:
    """Whether a column has shares of the n answers of its row."""
    return {"n", f"{column}_low", f"{column}_high"} <= set(table)


def _turn(recorded: pd.DataFrame, computed: pd.DataFrame, column: str, i: int) -> dict[str, bool]:
    """Whether a number differs by one answer of its row's n, and whether by no more than may follow from one: FOLLOWS of
    the width of its interval, which is that of an interval's ends, too."""
    apart = abs(_lone(computed[column][i]) - _lone(recorded[column][i]))
    columns = list(recorded)
    ends = ("low", "high") if column in ("low", "high") or columns[columns.index(column) + 1:][:1] == ["low"] else tuple(
        f"{re.sub('_(low|high)$', '', column)}_{end}" for end in ("low", "high"))
    width = recorded[ends[1]][i] - recorded[ends[0]][i] if set(ends) <= set(columns) else 0.0
    return {"answer": _is_rate(recorded, column) and bool(np.isclose(apart * recorded["n"][i], 1, atol=0.01)),
            "follows": bool(apart <= FOLLOWS * width)}


def _lone(value) -> float:
    """A number, also one that stands in a column of text; NaN for what is none."""
    return float(value) if not isinstance(value, str) or _NUMBER.fullmatch(value) else np.nan


def _distances(recorded: pd.DataFrame, computed: pd.DataFrame, column: str) -> np.ndarray:
    """Relative distances of measured numbers, in which small ones count as SMALL / RELATIVE of the largest of their
    kind: at most RELATIVE just where `numpy.isclose` says so with rtol=RELATIVE and atol=SMALL times the largest."""
    old, new = (table[column].to_numpy(dtype=float, na_value=np.nan) for table in (recorded, computed))
    sizes = pd.Series(np.where(np.isfinite(old), np.abs(old), 0.0))
    kinds = recorded[_KIND] if _KIND in recorded else np.zeros(len(old))
    scale = np.abs(old) + SMALL / RELATIVE * sizes.groupby(kinds).transform("max").to_numpy()
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    with np.errstate(invalid="ignore", divide="ignore"):
        distances = np.where(same, 0.0, np.abs(new - old) / scale)
    return np.where(np.isnan(distances), np.inf, distances)  # a number on one side alone


def _unequal(recorded: pd.Series, computed: pd.Series) -> np.ndarray:
    """Infinite where texts or whole numbers differ, by more than the last digit of numbers within prose."""
    pairs = zip(recorded.astype(object).where(recorded.notna(), ""), computed.astype(object).where(computed.notna(), ""))
    return np.array([0.0 if old == new or isinstance(old, str) and isinstance(new, str) and _same_text(old, new)
                     else np.inf for old, new in pairs])


def _same_text(old: str, new: str) -> bool:
    """Whether two texts are the same, up to the last digit of decimal numbers in them, or RELATIVE of a lone number."""
    if _NUMBER.sub("#", old) != _NUMBER.sub("#", new):
        return False
    lone = _NUMBER.fullmatch(old) is not None
    for before, after in zip(_NUMBER.findall(old), _NUMBER.findall(new)):
        mantissa, _, exponent = before.partition("e")
        digit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])) if "." in mantissa else 0.0
        relative = RELATIVE if lone and digit else 0.0
        if not np.isclose(float(after), float(before), rtol=relative, atol=1.01 * digit):
            return False
    return True


def _verdicts(recorded: pd.DataFrame, computed: pd.DataFrame) -> list[str]:
    """Which claims have another verdict than on record."""
    both = recorded.merge(computed, on="claim", how="outer", suffixes=("", "_here"))
    changed = both[both.verdict.fillna("none") != both.verdict_here.fillna("none")]
    return [f"{row.claim} from {row.verdict} to {row.verdict_here}" for row in changed.itertuples()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["compare", "record", "restore"])
    parser.add_argument("presets")
    arguments = parser.parse_args()
    sys.exit(main(arguments.command, arguments.presets))
