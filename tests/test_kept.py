"""An interrupted computation goes on where it stopped, ends with the same bits, and never takes up another's."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from steerpaper import paths, steering
from steerpaper.circuits import attribution, flipped
from steerpaper.circuits.attribution import attribute
from steerpaper.models import kept
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.models.kept import Kept, fingerprint
from steerpaper.steering import Steering, generate
from steerpaper.vectors import training
from steerpaper.vectors.pairs import ContrastPairs
from steerpaper.vectors.training import Setting

PROMPTS = [[1, 20, 31, 45, 60], [1, 50, 51], [1, 9, 80, 81, 82, 83], [1, 66, 41, 19], [1, 14, 15, 16, 17, 18, 92]]
RESPONSES = [Response(row[:2], row[2:] + [40 + i, 70, 33]) for i, row in enumerate(PROMPTS)]


class Interrupted(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def tiny():
    """A tiny Llama of this module's own."""
    return Model(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where progress is kept."""
    monkeypatch.setenv("STEERPAPER_KEPT", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def calls(monkeypatch):
    """How often a batch was computed, and a limit after which the next one is interrupted."""
    counted = {"n": 0, "limit": None}

    def watch(module, name):
        whole = getattr(module, name)

        def computed(*args, **kwargs):
            if counted["n"] == counted["limit"]:
                raise Interrupted
            counted["n"] += 1
            return whole(*args, **kwargs)
        monkeypatch.setattr(module, name, computed)

    watch(steering, "_decode")
    watch(attribution, "integrate")
    watch(flipped, "_counts")
    monkeypatch.setattr(flipped, "_AT_ONCE", 2)
    return counted


def vector(seed=1):
    return torch.randn(32, generator=torch.Generator().manual_seed(seed))


def generated(model, coefficient=1.0, seed=1, **changes):
    how = {"max_new_tokens": 6, "batch_size": 2} | changes
    return [r.completion for r in generate(model, PROMPTS, Steering(vector(seed), 1, coefficient), "qk", **how)]


def attributed(model, coefficient=1.0, seed=1, **changes):
    how = {"steps": 2, "batch_size": 1} | changes
    result = attribute(model, RESPONSES, Steering(vector(seed), 1, coefficient), **how)
    return [result.scores.tobytes(), result.nodes.score.to_numpy().tobytes(), result.gradient.numpy().tobytes(),
            result.positions]


def counted(model, coefficient=1.0, seed=1):
    return flipped._unmasked(model, RESPONSES, [Steering(vector(seed), 1, coefficient)] * len(RESPONSES))


@pytest.mark.parametrize("compute, batches", [(generated, 3), (attributed, 5), (counted, 3)])
@pytest.mark.parametrize("before", [1, 2])
def test_only_missing_batches_are_computed_and_the_end_is_the_same(tiny, folder, calls, monkeypatch, compute, batches,
                                                                   before):
    with monkeypatch.context() as off:
        off.delenv("STEERPAPER_KEPT")
        whole = compute(tiny)
    assert not folder.exists(), "off unless it is asked for"
    assert calls["n"] == batches
    calls.update(n=0, limit=before)
    with pytest.raises(Interrupted):
        compute(tiny)
    calls.update(n=0, limit=None)
    assert compute(tiny) == whole
    assert calls["n"] == batches - before
    assert compute(tiny) == whole and calls["n"] == batches - before, "nothing is left to compute"


@pytest.mark.parametrize("compute", [generated, attributed])
@pytest.mark.parametrize("change", [{"coefficient": -1.0}, {"seed": 2}, {"batch_size": 3}])
def test_other_inputs_take_up_nothing(tiny, folder, calls, compute, change):
    compute(tiny)
    calls.update(n=0)
    compute(tiny, **change)
    assert calls["n"] > 1


def test_another_length_metric_or_number_of_steps_takes_up_nothing(tiny, folder, calls):
    generated(tiny)
    attributed(tiny)
    for compute, change in ((generated, {"max_new_tokens": 5}), (attributed, {"steps": 3}),
                            (attributed, {"metric": "kl"})):
        calls.update(n=0)
        compute(tiny, **change)
        assert calls["n"] > 1, change


def test_scores_by_the_other_gradient_are_kept_with_those_by_one(tiny, folder, calls, monkeypatch):
    with monkeypatch.context() as off:
        off.delenv("STEERPAPER_KEPT")
        alone = attributed(tiny, norm_jacobian=False)
    exact = attributed(tiny)
    calls.update(n=0)
    assert attributed(tiny, norm_jacobian=False) == alone != exact and calls["n"] == 0


def test_other_weights_dtypes_and_settings_take_up_nothing(tiny, folder, calls):
    generated(tiny)
    one_weight, of_config = tiny_model("llama"), tiny_model("llama")
    with torch.no_grad():
        one_weight.model.layers[3].mlp.down_proj.weight[5, 7] += 1e-6
    of_config.config.rms_norm_eps *= 2
    others = (one_weight, of_config, tiny_model("llama").bfloat16())
    assert len({fingerprint(model) for model in (tiny.hf, *others)}) == 4
    assert fingerprint(tiny_model("llama")) == fingerprint(tiny.hf)
    for other in others:
        calls.update(n=0)
        generated(Model(other, tiny_tokenizer()))
        assert calls["n"] == 3


def test_weights_changed_in_place_take_up_nothing(folder, calls):
    model = Model(tiny_model("llama"), tiny_tokenizer())
    generated(model)
    for change in (lambda weight: weight.mul_(-1), lambda weight: weight[3].zero_()):
        with torch.no_grad():
            change(model.hf.model.layers[1].mlp.down_proj.weight)
        calls.update(n=0)
        generated(model)
        generated(model)
        assert calls["n"] == 3
    model.hf.lm_head.weight = torch.nn.Parameter(model.hf.lm_head.weight.detach() / 2)
    generated(model)
    assert calls["n"] == 6


def test_what_computes_kept_scores_counts_though_judges_do_not():
    """Of selection, which uses parts of `behaviour` of both kinds."""
    def digest(edited):
        read = Path.read_bytes
        kept.code.cache_clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * path.as_posix().endswith(edited))
            found = kept.code("steerpaper.vectors.selection")
        kept.code.cache_clear()
        return found
    parts = ("first_tokens", "judges", "judging", "effects")
    assert [digest(f"behaviour/{name}.py") == digest("no file") for name in parts] == [False, True, True, True]


def test_other_intervals_of_what_was_computed_take_up_everything(monkeypatch):
    """No module that keeps computations has statistics in it or imports any: with a large model that would be hours."""
    read, files = Path.read_bytes, {path: path.read_text() for path in paths.ROOT.glob("steerpaper/**/*.py")}
    statistics = {path for path, text in files.items() if "from scipy.stats import" in text}
    keeping = [path.relative_to(paths.ROOT) for path, text in files.items() if " Kept(" in text]
    assert paths.ROOT / "steerpaper/circuits/recovery.py" in statistics and Path("steerpaper/circuits/runs.py") in keeping
    for path in keeping:
        digested = set()
        monkeypatch.setattr(Path, "read_bytes", lambda path, digested=digested: digested.add(path) or read(path))
        kept.code.cache_clear()
        kept.code(".".join(path.with_suffix("").parts))
        assert paths.ROOT / path in digested and not digested & statistics, path


def test_other_lines_of_what_computes_take_up_nothing(tiny, folder, calls, monkeypatch):
    """And what computes is the module with all that it imports: drawing, tables, presets and prompts are none of it."""
    generated(tiny)
    attributed(tiny)
    read = Path.read_bytes
    for changed, again in (
        ("figures/circuits.py", 0), ("paper/claims.py", 0), ("presets.py", 0), ("prompts/sets.py", 0),
        ("circuits/attribution.py", 5), ("circuits/graph.py", 5), ("circuits/metrics.py", 5),
        ("steering.py", 8), ("freezing.py", 8), ("models/model.py", 8), ("arguments.py", 8),
    ):
        def edited(path, name=changed):
            return read(path) + b"# a repaired line" * path.as_posix().endswith(f"steerpaper/{name}")
        monkeypatch.setattr(Path, "read_bytes", edited)
        kept.code.cache_clear()
        calls.update(n=0)
        generated(tiny)
        attributed(tiny)
        assert calls["n"] == again, changed
    monkeypatch.undo()
    kept.code.cache_clear()


def test_trained_grids_are_kept_whole(tiny, folder, monkeypatch):
    """What is read back is what was trained, to the last bit; other settings, pairs or epochs are trained anew."""
    counts = pd.DataFrame({"asked": [len(RESPONSES)]})
    losers = [Response(r.prompt, r.completion[::-1]) for r in RESPONSES]
    pairs = ContrastPairs(RESPONSES, losers, [1, -1, 1, -1, 1], counts)
    grid = [Setting("po", 2, 0.05, seed, 0.1) for seed in (0, 1)]
    trained = []
    monkeypatch.setattr(training, "_trained", lambda *args, whole=training._trained, **how: (
        trained.append(args), whole(*args, **how))[1])

    def outcome(settings=grid, pairs=pairs, **how):
        found = training.train(tiny, pairs, pairs, 1, settings, **{"epochs": 2, "n_tokens": 3} | how)
        return found.vectors.numpy().tobytes(), found.curves.to_csv(), found.grid.to_csv()

    first = outcome()
    assert outcome() == first and len(trained) == 1
    with monkeypatch.context() as off:
        off.delenv("STEERPAPER_KEPT")
        assert outcome() == first
    turned = ContrastPairs(losers, RESPONSES, pairs.signs, counts)
    for n, change in enumerate((dict(settings=grid[:1]), dict(pairs=turned), dict(epochs=1), dict(n_tokens=2),
                                dict(norm=1.0), dict(coefficients="sampled")), start=3):
        assert outcome(**change) != first and len(trained) == n, change


@pytest.mark.parametrize("name, value", [("MKL_ENABLE_INSTRUCTIONS", "SSE4_2"), ("NPY_DISABLE_CPU_FEATURES", "X86_V3")])
def test_another_processor_s_rounding_is_not_taken_up(tiny, folder, calls, monkeypatch, name, value):
    generated(tiny)
    monkeypatch.setenv(name, value)
    calls.update(n=0)
    generated(tiny)
    assert calls["n"] == 3


@pytest.mark.parametrize("damage", [
    lambda content: content[:-9], lambda content: b"", lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    lambda content: content.replace(b'done\\": 5', b'done\\": 4'),
])
def test_damaged_progress_is_reported_and_computed_again(tiny, folder, calls, damage):
    whole = generated(tiny)
    (file,) = folder.iterdir()
    damaged = damage(file.read_bytes())
    assert damaged != file.read_bytes()
    file.write_bytes(damaged)
    calls.update(n=0)
    with pytest.warns(UserWarning, match="generate-.* is damaged .*computing it again"):
        assert generated(tiny) == whole
    assert calls["n"] == 3


def test_renamed_progress_is_not_taken_up(tiny, folder):
    generated(tiny)
    (file,) = folder.iterdir()
    kept = file.read_bytes()
    generated(tiny, coefficient=-1.0)
    (other,) = set(folder.iterdir()) - {file}
    other.write_bytes(kept)
    with pytest.warns(UserWarning, match="is damaged"):
        generated(tiny, coefficient=-1.0)


def test_no_unmasked_position_is_the_same_error_after_an_interruption(tiny, folder, calls):
    for _ in range(2):
        with pytest.raises(ValueError, match="none of the 5 responses has a position left"):
            attributed(tiny, coefficient=0.0)


def test_any_module_may_keep_progress(folder, tiny):
    """As a judge does, with a model of its own."""
    inputs = {"rows": PROMPTS, "threshold": 0.5, "note": None}
    first = Kept("judge", "steerpaper.steering", tiny.hf, inputs, {"verdicts": torch.full((5,), -1)})
    first.state["verdicts"][[1, 3]] = torch.tensor([0, 1])
    first.keep(2)
    again = Kept("judge", "steerpaper.steering", tiny.hf, inputs, {"verdicts": torch.full((5,), -1)})
    assert again.done == 2
    assert again.state["verdicts"].tolist() == [-1, 0, -1, 1, -1]
    assert Kept("judge", "steerpaper.steering", tiny.hf, inputs | {"note": 1}, {"verdicts": torch.full((5,), -1)}).done == 0
    with pytest.warns(UserWarning, match="other tensors"):
        assert Kept("judge", "steerpaper.steering", tiny.hf, inputs, {"verdicts": torch.zeros(5)}).done == 0


# -- a kill ------------------------------------------------------------------------------------------------

WRITER = """
import itertools, runpy, sys
from pathlib import Path
write_bytes = runpy.run_path(sys.argv[2])["write_bytes"]  # not the package, which takes seconds to import
for i in itertools.count():
    write_bytes(Path(sys.argv[1]), bytes([i % 251]) * 2_000_000)
"""


def test_kill_while_writing_leaves_a_whole_file(tmp_path):
    """SIGKILL gives no chance to clean up: what is there under the name is one version, whole."""
    path = tmp_path / "table.csv"
    for moment in np.random.default_rng(0).uniform(0, 0.05, size=16):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), paths.__file__])
        while not path.exists():
            assert writer.poll() is None
            time.sleep(0.001)
        time.sleep(moment)
        writer.kill()
        writer.wait()
        content = path.read_bytes()
        assert len(content) == 2_000_000 and len(set(content)) == 1
