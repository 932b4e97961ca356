"""An interrupted computation goes on where it stopped, ends with the same bits, and never takes up another's."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from steerpaper import steering
from steerpaper.circuits import attribution
from steerpaper.circuits.attribution import attribute
from steerpaper.models import resume
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.models.resume import Progress, fingerprint
from steerpaper.steering import Steering, generate

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
    monkeypatch.setenv("STEERPAPER_RESUME", str(tmp_path / "resume"))
    return tmp_path / "resume"


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


@pytest.mark.parametrize("compute, batches", [(generated, 3), (attributed, 5)])
@pytest.mark.parametrize("before", [1, 2])
def test_only_missing_batches_are_computed_and_the_end_is_the_same(tiny, folder, calls, monkeypatch, compute, batches,
                                                                   before):
    with monkeypatch.context() as off:
        off.delenv("STEERPAPER_RESUME")
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
                            (attributed, {"metric": "kl"}), (attributed, {"norm_jacobian": False})):
        calls.update(n=0)
        compute(tiny, **change)
        assert calls["n"] > 1, change


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


def test_another_version_of_the_package_takes_up_nothing(tiny, folder, calls, monkeypatch):
    generated(tiny)
    calls.update(n=0)
    monkeypatch.setattr(resume, "_code", lambda: "other lines")
    generated(tiny)
    assert calls["n"] == 3


def test_every_room_s_lines_count(tmp_path, monkeypatch):
    """The version is a digest of the whole package, wherever in it a line is repaired."""
    for name in ("models/resume.py", "circuits/graph.py", "paths.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("right = False")
    monkeypatch.setattr(resume, "__file__", str(tmp_path / "models" / "resume.py"))
    versions = {resume._code.__wrapped__()}
    for name in ("models/resume.py", "circuits/graph.py", "paths.py"):
        (tmp_path / name).write_text("right = True")
        versions.add(resume._code.__wrapped__())
    assert len(versions) == 4


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
    with pytest.warns(UserWarning, match="damaged progress in generate-.*computing it again"):
        assert generated(tiny) == whole
    assert calls["n"] == 3


def test_renamed_progress_is_not_taken_up(tiny, folder):
    generated(tiny)
    (file,) = folder.iterdir()
    kept = file.read_bytes()
    generated(tiny, coefficient=-1.0)
    (other,) = set(folder.iterdir()) - {file}
    other.write_bytes(kept)
    with pytest.warns(UserWarning, match="damaged progress"):
        generated(tiny, coefficient=-1.0)


def test_no_unmasked_position_is_the_same_error_after_an_interruption(tiny, folder, calls):
    for _ in range(2):
        with pytest.raises(ValueError, match="none of the 5 responses has a position left"):
            attributed(tiny, coefficient=0.0)


def test_any_module_may_keep_progress(folder, tiny):
    """As a judge does, with a model of its own."""
    inputs = {"rows": PROMPTS, "threshold": 0.5, "note": None}
    first = Progress("judge", tiny.hf, inputs, {"verdicts": torch.full((5,), -1)})
    first.state["verdicts"][[1, 3]] = torch.tensor([0, 1])
    first.keep(2)
    again = Progress("judge", tiny.hf, inputs, {"verdicts": torch.full((5,), -1)})
    assert again.done == 2
    assert again.state["verdicts"].tolist() == [-1, 0, -1, 1, -1]
    assert Progress("judge", tiny.hf, inputs | {"note": 1}, {"verdicts": torch.full((5,), -1)}).done == 0
    with pytest.warns(UserWarning, match="other tensors"):
        assert Progress("judge", tiny.hf, inputs, {"verdicts": torch.zeros(5)}).done == 0


# -- a kill ------------------------------------------------------------------------------------------------

WRITER = """
import itertools, sys
from pathlib import Path
from steerpaper.paths import write_bytes
for i in itertools.count():
    write_bytes(Path(sys.argv[1]), bytes([i % 251]) * 2_000_000)
"""


def test_kill_while_writing_leaves_a_whole_file(tmp_path):
    """SIGKILL gives no chance to clean up: what is there under the name is one version, whole."""
    path = tmp_path / "table.csv"
    environment = os.environ | {"PYTHONPATH": str(Path(resume.__file__).parents[2])}
    for moment in np.random.default_rng(0).uniform(0, 0.05, size=4):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], env=environment)
        while not path.exists():
            assert writer.poll() is None
            time.sleep(0.001)
        time.sleep(moment)
        writer.kill()
        writer.wait()
        content = path.read_bytes()
        assert len(content) == 2_000_000 and len(set(content)) == 1
