"""How long the notebooks took: wall time in the last run on record that computed everything."""

from collections.abc import Iterable
from datetime import datetime

import nbformat
import pandas as pd

from steerpaper import paths
from steerpaper.outputs import outputs, writing
from steerpaper.paths import write_bytes
from steerpaper.presets import get_preset


def running_times() -> pd.DataFrame:
    """What is on record: columns preset, notebook, and seconds from the notebook's start to its end."""
    return pd.read_csv(paths.DATA / "running_times.csv")


def record_running_times(presets: Iterable[str]) -> None:
    """Put on record how long the executed notebooks of the shipped models took, of a run that computed everything.

    Others' depend on their GPU. What an earlier run has kept makes notebooks faster: then the record stays as it was.
    """
    table = running_times()
    for preset in (preset for preset in presets if get_preset(preset).shipped):
        ran = {name: _ran(preset, name) for name in writing(preset)}
        if others := _kept_by_others(preset, *ran.values()):
            print(f"{preset}: {others} computations are of another run, so no running times of this one go on record")
            continue
        new = [(preset, name, round((end - start).total_seconds())) for name, (start, end) in ran.items()]
        table = pd.DataFrame([*table[table.preset != preset].to_numpy(), *new], columns=table.columns)
    content = table.sort_values(["preset", "notebook"]).to_csv(index=False)
    write_bytes(paths.DATA / "running_times.csv", content.encode())


def running_times_table() -> pd.DataFrame:
    """Minutes by notebook and preset, and of all notebooks together, as text."""
    table = running_times()
    minutes = table.pivot(index="notebook", columns="preset", values="seconds").astype(float) / 60
    minutes = minutes.reindex(index=[name for name in outputs() if name in minutes.index])
    minutes.loc["all"] = minutes.sum()
    return minutes.map("{:.1f}".format, na_action="ignore").reset_index()


def _ran(preset: str, name: str) -> tuple[datetime, datetime]:
    """When an executed notebook began and ended, as papermill says."""
    about = nbformat.read(paths.BUILD / preset / f"{name}.ipynb", as_version=4).metadata.papermill
    return datetime.fromisoformat(about.start_time), datetime.fromisoformat(about.end_time)


def _kept_by_others(preset: str, *ran: tuple[datetime, datetime]) -> int:
    """How many kept computations of a preset were not written from the first notebook's start to the last one's end."""
    start, end = min(start for start, _ in ran), max(end for _, end in ran)
    written = [path.stat().st_mtime for path in (paths.BUILD / preset / "kept").glob("*")]
    return sum(not start.timestamp() <= time <= end.timestamp() for time in written)
