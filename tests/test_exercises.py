"""Exercises: the check says what is right, what is missing and what is off; notebook 09's solutions are right, common
mistakes are not, and its slider answers."""

import re

import jupytext
import pytest
import torch

import steerpaper as sp
from steerpaper import paths
from steerpaper.presets import REFERENCE as TINY

GAP = re.compile(r"^(\w+) = \.\.\.\n", re.MULTILINE)
EXPECTED = torch.tensor([3.0, 0.0, -4.0])


@pytest.mark.parametrize("answer", [EXPECTED, EXPECTED + 0.002, EXPECTED.tolist(), EXPECTED.double().requires_grad_()])
def test_right_within_tolerance(answer):
    assert sp.check_answer(answer, EXPECTED).startswith("right")  # 0.002 * 3 ** 0.5 is 0.0007 of a norm of 5
    with pytest.raises(AssertionError, match="cosine with what is expected is 1.000"):
        sp.check_answer(EXPECTED + torch.tensor([0.0, 0.006, 0.0]), EXPECTED)


def test_an_open_gap_is_told_and_does_not_stop_the_notebook():
    assert sp.check_answer(..., EXPECTED).startswith("not filled in yet")


@pytest.mark.parametrize("answer, said", [
    (-EXPECTED, "wrong sign .distance 2 of"),
    (3 * EXPECTED, "3 times what is expected"),
    (EXPECTED / -2, "-0.5 times what is expected"),
    (0 * EXPECTED, "the answer is zero"),
    (torch.tensor([4.0, 0.0, 3.0]), "another one, its cosine with what is expected is 0.000"),
    (EXPECTED[None], r"has shape \(1, 3\), \(3,\) is expected"),
])
def test_a_wrong_answer_fails_and_is_told_how(answer, said):
    with pytest.raises(AssertionError, match=f"^not yet: .*{said}"):
        sp.check_answer(answer, EXPECTED)


def test_numbers_are_answers_too():
    assert sp.check_answer(torch.tensor(2.0), 2.0).startswith("right") and sp.check_answer(2, 2.0).startswith("right")
    with pytest.raises(AssertionError, match="48 times"):
        sp.check_answer(96.0, 2.0)


@pytest.mark.parametrize("answer", ["three", None, EXPECTED > 0, EXPECTED * torch.inf])
def test_what_is_no_number_is_refused(answer):
    with pytest.raises(ValueError, match="^the answer"):
        sp.check_answer(answer, EXPECTED)


# -- notebook 09 -------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def notebook():
    return jupytext.read(paths.NOTEBOOKS / "09_your_own_prompt.py")


@pytest.fixture(scope="module")
def unsolved(notebook, tmp_path_factory):
    """All that the notebook holds once it has run with its gaps open, on a vector of this test's own."""
    settings, model = sp.get_preset(TINY), sp.load_model(TINY)
    prompts = sp.concept_prompts(sp.REFUSAL, "train", settings.n_train, settings.prompts)
    vector = sp.difference_in_means(model, *prompts.values())[3, -1]
    held, folder = {}, tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "BUILD", folder)
        sp.save_steering(TINY, "dim", sp.Steering(vector, 3, 0.95), {"position": -1})
        for number, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                file = folder / f"cell_{number}.py"  # nnsight reads the source of its traces
                file.write_text(cell.source)
                exec(compile(cell.source, file, "exec"), held)
                if "parameters" in cell.metadata.get("tags", []):
                    held["preset"] = TINY
    return held


@pytest.fixture(scope="module")
def checks(notebook):
    """The code behind each gap, by the name to fill in."""
    return {gap[1]: GAP.sub("", cell.source) for cell in notebook.cells
            if cell.cell_type == "code" and (gap := GAP.search(cell.source))}


def test_every_solution_is_folded_and_right(notebook, unsolved, checks, capsys):
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    folded = re.findall(r"<details><summary>Solution</summary>\n\n```python\n(.*?)```\n.*?\n</details>", text, re.DOTALL)
    assert len(folded) == len(checks) == 3
    for solution, (name, check) in zip(folded, checks.items()):
        assert re.search(rf"^{name} = ", solution, re.MULTILINE)
        exec(solution + check, dict(unsolved))
        assert capsys.readouterr().out == "right: the package's number\n"


@pytest.mark.parametrize("name, wrong, said", [
    ("vector", "negative.mean(0) - positive.mean(0)", "wrong sign"),
    ("vector", "positive.mean(0)", "another one"),
    ("vector", "positive.sum(0) - negative.sum(0)", "24 times"),
    ("vector", "positive - negative", "has shape"),
    ("frozen", "A_steered @ v_steered", "another one"),
    ("frozen", "A_steered @ v_unsteered", "another one"),
    ("frozen", "A_unsteered @ v_unsteered", "another one"),
    ("frozen", "A_unsteered.T @ v_steered", "another one"),
    ("score", "((write_unsteered - write_steered) * gradients.mean(0)).sum() / n_unmasked", "wrong sign"),
    ("score", "((write_steered - write_unsteered) * gradients.mean(0)).sum()", "times what is expected"),
    ("score", "((write_steered - write_unsteered) * gradients[0]).sum() / n_unmasked", "times what is expected"),
    ("score", "(write_steered - write_unsteered) * gradients.mean(0) / n_unmasked", "has shape"),
])
def test_a_common_mistake_is_told(unsolved, checks, name, wrong, said):
    held = unsolved | {name: eval(wrong, unsolved)}
    with pytest.raises(AssertionError, match=said):
        exec(checks[name], held)


def test_the_slider_answers_as_generate_does(unsolved):
    shown = unsolved["slider"].widget
    prompt, alpha, _ = shown.children
    for text, place in (("How do I bake an apple pie?", -1.0), ("How do I repair a bicycle?", 0.95)):
        prompt.value, alpha.value = text, place
        steering = sp.Steering(unsolved["steering"].vector, 3, place)
        answered = sp.generate(unsolved["model"], [text], steering, max_new_tokens=unsolved["n"])
        assert shown.result == answered[0].text
    assert "cannot" in shown.result
    assert not prompt.continuous_update and not alpha.continuous_update
