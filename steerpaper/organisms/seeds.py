"""Verdicts over training seeds: the notebooks on organisms that differ in nothing but the seed they were trained with.

`make seeds` trains and runs them, and then puts on record what was computed: `python -m steerpaper.organisms.seeds "1 2"`.
What claims read of every seed stays on record in `data/seeds`, so that other rules cost seconds: `make seeds SEEDS=0`.
"""

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from steerpaper import manifests, paths
from steerpaper.artifacts import load_table
from steerpaper.behaviour.unsteered import nothing_to_steer
from steerpaper.models.weights import digest
from steerpaper.organisms.training import FAMILIES, digest_of
from steerpaper.paper.claims import claims
from steerpaper.paper.compared import compared
from steerpaper.paper.markdown import markdown_table
from steerpaper.paper.verdicts import alike, judged
from steerpaper.paths import write_bytes
from steerpaper.presets import get_preset

TABLES, RECORD, PAGE = paths.DATA / "seeds", paths.DATA / "seeds.csv", paths.ROOT / "docs" / "seeds.md"
_NONE = "no scorecard"
_INTRODUCTION = """# Verdicts over training seeds

Generated, as `data/seeds.csv`, by `make seeds`: both organisms trained anew, with the recipe, the corpus and all settings
of those that ship, and another seed; then notebooks 01 to 06. How often does each claim get which verdict? One that
changes with the seed is about a training run, and not about steering. Seed 0 is the training that ships, chosen for
its behaviour ([notebook 00](../notebooks/00_model_organisms.ipynb)); the others are as they come. How well they can be
steered at all, with text that stays clean, says the first claim: where few of its cases meet their limits, what the
others tell is about broken text."""
_MET = """## Cases that meet their limits, of all

By organism and seed; with one seed a claim may have fewer cases than with another, where something does not exist."""


def put_on_record(organism: str, seed: int) -> None:
    """Copy what claims read of one training, computed here, to `data/seeds`, in place of what was there of it.

    Raises:
        FileNotFoundError: the notebooks have not run on it.
    """
    preset, read = f"{organism}-seed{seed}", {}

    def load(name: str) -> pd.DataFrame:
        table = load_table(preset, name)  # checked
        read[name] = (paths.results(preset) / f"{name}.csv").read_bytes()
        return table

    _card(load)  # reads just what it judges by
    folder, weights = TABLES / preset, digest(f"{get_preset(preset).model}/model.safetensors")
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in read.items():
        write_bytes(folder / f"{name}.csv", content)
    model = {"organism": organism, "seed": seed, "weights": weights, "recipe": _recipe(organism)}
    manifests.write(folder, {"model": model, "tables": {name: manifests.entry(read[name]) for name in read}})


def all_verdicts() -> pd.DataFrame:
    """The verdicts on both organisms as they ship, and of every seed on record that was trained by the same recipe on the
    same corpus, by the rules of now.

    Returns:
        One row per claim: organism, seed, weights (the SHA-256 of its safetensors), claim, verdict, met, cases. Where
        notebook 01 found nothing to steer, every verdict is "no scorecard".

    Raises:
        ValueError: a table that is not what was put on record.
    """
    shipped = [(f"organism-{family}", 0, digest(f"{paths.ORGANISMS}/{family}/model.safetensors"),
                partial(load_table, f"organism-{family}", recorded=True)) for family in FAMILIES]
    found = []
    for folder in sorted(path.parent for path in TABLES.glob(f"*/{manifests.NAME}")):
        about = manifests.read(folder)["model"]
        if about["recipe"] == _recipe(about["organism"]):
            found.append((about["organism"], about["seed"], about["weights"], partial(_recorded, folder)))
    rows = [_card(load).assign(organism=organism, seed=seed, weights=weights)
            for organism, seed, weights, load in [*shipped, *found]]
    columns = ["organism", "seed", "weights", "claim", "verdict", "met", "cases"]
    return pd.concat(rows)[columns].sort_values(["organism", "seed"], kind="stable", ignore_index=True)


def _recipe(organism: str) -> str:
    """The digest of how an organism is trained and on what, without the seed."""
    return digest_of(organism.removeprefix("organism-"), 0)


def _recorded(folder: Path, name: str) -> pd.DataFrame:
    """A table of `data/seeds`; a claim that reads another one is not measured."""
    if name not in manifests.read(folder)["tables"]:
        raise KeyError(name)
    content = (folder / f"{name}.csv").read_bytes()
    if wrong := manifests.difference(folder, name, content):
        raise ValueError(f"{folder.name}/{name}.csv in data/seeds is not what was put on record ({wrong}): restore it")
    return manifests.table(content)


def _card(load: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    """Columns claim, verdict, met and cases."""
    if nothing_to_steer(load("unsteered")):
        return pd.DataFrame({"claim": [claim.id for claim in claims()], "verdict": _NONE, "met": 0, "cases": 0})
    return judged(partial(compared, load))[0][["claim", "verdict", "met", "cases"]]


def frequencies(verdicts: pd.DataFrame) -> pd.DataFrame:
    """How often each claim gets which verdict, in words, the most frequent first: columns claim (its title) and every
    organism."""
    return _by_title(verdicts.groupby(["claim", "organism"]).verdict.agg(_counted).unstack())


def cases_met(verdicts: pd.DataFrame) -> pd.DataFrame:
    """How many cases of each claim meet their limits, of how many: columns claim (its title) and every organism and seed.
    Empty where a seed has none on record."""
    told = verdicts.assign(told=verdicts.met.astype(str) + "/" + verdicts.cases.astype(str))
    table = told.pivot(index="claim", columns=["organism", "seed"], values="told").fillna("")
    table.columns = [f"{organism}, {seed}" for organism, seed in table.columns]
    return _by_title(table)


def _by_title(table: pd.DataFrame) -> pd.DataFrame:
    """A table by the claims' ids as one in the claims' order, with the column claim for their titles."""
    titles = {claim.id: claim.title for claim in claims()}
    return table.reindex([name for name in titles if name in table.index]).rename(titles).reset_index()


def _counted(verdicts: pd.Series) -> str:
    counts = verdicts.sort_values().value_counts(sort=False).sort_values(ascending=False, kind="stable")
    return ", ".join(f"{verdict} {n}" for verdict, n in counts.items())


def seeds_page(verdicts: pd.DataFrame) -> str:
    """docs/seeds.md, from what is on record."""
    weights = verdicts.drop_duplicates(["organism", "seed"])[["organism", "seed", "weights"]]
    return "\n\n".join([
        _INTRODUCTION, f"Claims with one and the same verdict for every seed:\n{alike(verdicts)}.",
        markdown_table(frequencies(verdicts)), _MET, markdown_table(cases_met(verdicts)), "## Which weights",
        "Their digests, which may be others where a processor rounds otherwise; the weights themselves are not part of the "
        "repository, but for seed 0.",
        markdown_table(weights)]) + "\n"


def main(seeds: str) -> None:
    """Put both organisms, trained with these seeds, on record beside those of other seeds, and judge all anew."""
    for seed in sorted({*map(int, seeds.split())} - {0}):  # 0 ships, and is on record as itself
        for family in FAMILIES:
            put_on_record(f"organism-{family}", seed)
    table = all_verdicts()
    write_bytes(RECORD, table.to_csv(index=False).encode())
    write_bytes(PAGE, seeds_page(table).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
