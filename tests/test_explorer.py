"""The explorer's pages: circuits of any size are those that are measured, and a page is one file with all it needs."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

for package in ("altair", "vl_convert"):
    pytest.importorskip(package, reason="make site installs what it needs")

from steerpaper import manifests, paths  # noqa: E402
from steerpaper.circuits.attribution import Attribution  # noqa: E402
from steerpaper.circuits.circuit import Circuit  # noqa: E402
from steerpaper.circuits.graph import Graph  # noqa: E402
from steerpaper.paper.explorer import explored, explorer_page, graph_of, strongest_edges  # noqa: E402
from steerpaper.presets import PRESETS  # noqa: E402

GRAPH = Graph(5, 4, 2, 1)
RECORD = ("fig3_faithfulness", "random_circuits", "svv_tokens")


def scored(graph, *methods):
    """Scores with a few large ones and ties."""
    generator = np.random.default_rng(0)
    return graph.edges.assign(**{name: generator.standard_cauchy(graph.n_edges).round(1) for name in methods})


def record(folder, preset, tables):
    """Put tables on record in a folder."""
    (folder / "results" / preset).mkdir(parents=True)
    entries = {}
    for name, table in tables.items():
        content = table.to_csv(index=False).encode()
        (folder / "results" / preset / f"{name}.csv").write_bytes(content)
        entries[name] = manifests.entry(content)
    manifests.write(folder / "results" / preset, {"model": {}, "tables": entries})


@pytest.fixture
def on_record(tmp_path, monkeypatch):
    """What the organism has on record, but for scores of a graph of its size by all methods."""
    folder = paths.recorded_results("organism-llama")
    tables = {name: manifests.table((folder / f"{name}.csv").read_bytes()) for name in RECORD}
    tables["edge_scores"] = scored(Graph(10, 8, 4, 3), "dim", "ntp", "po")
    monkeypatch.setattr(paths, "DATA", tmp_path)
    record(tmp_path, "organism-llama", tables)
    return tables


def test_a_graph_is_known_by_its_edges():
    assert graph_of(GRAPH.edges) == GRAPH
    with pytest.raises(ValueError, match="not the"):
        graph_of(GRAPH.edges[:-1])


@pytest.mark.parametrize("size", [1, 7, 40, 150])
def test_circuits_are_those_that_are_measured(size):
    scores = scored(GRAPH, "dim", "po")
    found = strongest_edges(GRAPH, scores)
    for name in ("dim", "po"):
        matrix = np.full(GRAPH.mask.shape, np.nan)
        matrix[GRAPH.mask] = scores[name]
        circuit = Circuit.top(Attribution(GRAPH, matrix, None, None, 1), size)
        shown = found[found[f"from_{name}"] <= circuit.n_edges]
        assert np.array_equal(Circuit.of(GRAPH, shown).mask, circuit.mask)


def test_of_a_large_graph_only_the_strongest_are_kept():
    graph = Graph(14, 14, 2, 1)
    found = strongest_edges(graph, scored(graph, "dim", "po"))
    assert 900 < len(found) <= 2000 < graph.n_edges
    assert all(900 < (found[f"from_{name}"] <= 1000).sum() <= 1000 for name in ("dim", "po"))


def test_a_page_has_all_it_needs(on_record):
    page = explorer_page("organism-llama")
    assert not re.findall(r"""(?:src|href)=["'](?!data:|\.\./docs/explorer\.html)""", page.partition("<script>")[0])
    assert len(page) < 5_000_000 and "$" + "charts" not in page and "concept <select" not in page
    charts = json.loads(re.search(r"^const charts = (.*);$", page, re.MULTILINE)[1])
    assert list(charts) == ["circuit", "harmful", "harmless"]
    menus = {param["name"]: param.get("bind", {}).get("options") for param in charts["circuit"]["params"]}
    assert menus["method"] == ["dim", "ntp", "po"] and menus["other"] == ["none", "dim", "ntp", "po"]
    rows = [row for data in charts["circuit"]["datasets"].values() for row in data]
    assert any("“harmless”" in str(row.get("tokens_dim")) for row in rows if row.get("node") == "a4.h0")


def test_tokens_do_not_end_the_script(on_record, tmp_path):
    tokens = on_record["svv_tokens"].assign(token="</script>")
    record(tmp_path / "other", "organism-llama", on_record | {"svv_tokens": tokens})
    paths.DATA = tmp_path / "other"  # put back by the fixture's monkeypatch
    page = explorer_page("organism-llama")
    assert page.count("</script>") == page.count("<script>")


def test_concepts_of_a_model_are_in_a_menu(on_record, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], model=PRESETS["organism-llama"].model))
    page = explorer_page("organism-llama", ["organism-llama", "organism-gemma2", "tiny"])
    assert re.findall(r"<option value='([\w-]+)\.html'( selected)?>refusal</option>", page) == [
        ("organism-llama", " selected"), ("tiny", "")]


def test_what_lacks_a_table_has_no_page(on_record, tmp_path):
    old = pd.DataFrame({"source": ["steer"], "target": ["m3"], "score": [1.0]})
    record(tmp_path, "organism-gemma2", on_record | {"edge_scores": old})
    record(tmp_path, "tiny", {name: on_record[name] for name in ("edge_scores", "svv_tokens")})
    assert explored(["organism-gemma2", "organism-llama", "tiny", "qwen3-8b"]) == ["organism-llama"]
