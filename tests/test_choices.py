import pytest

from steerpaper.choices import unknown

NAMES = ["organism-llama", "organism-gemma2", "tiny"]


@pytest.mark.parametrize("given, near", [
    ("tny", "tiny"), ("Organism-Llama", "organism-llama"), ("organism-gema2", "organism-gemma2"),
])
def test_the_nearest_name_is_suggested(given, near):
    error = unknown("preset", given, NAMES, ", or a folder")
    assert isinstance(error, ValueError)
    assert str(error) == (
        f"unknown preset {given!r} (did you mean {near!r}?): choose one of organism-llama, organism-gemma2, tiny, or a "
        "folder")


@pytest.mark.parametrize("given", ["", "qwerty", 7, None])
def test_nothing_is_suggested_where_nothing_is_near(given):
    assert "did you mean" not in str(unknown("preset", given, NAMES))
