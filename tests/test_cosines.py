import pytest
import torch

from steerpaper.vectors.cosines import cosine_table


def test_cosines_by_hand():
    vectors = {"dim": torch.tensor([2.0, 0.0]), "ntp": torch.tensor([3.0, 3.0])}
    table = cosine_table(vectors, {"ntp": torch.tensor([[3.0, 3.0], [0.0, 1.0]])})
    rows = {(row.method_a, row.method_b): (row.cosine, row.low, row.high) for row in table.itertuples()}
    half = 0.5 ** 0.5
    assert rows["dim", "dim"] == pytest.approx((1, 1, 1))
    assert rows["dim", "ntp"] == pytest.approx((half, 0, half))  # of the chosen one, and over both seeds
    assert rows["ntp", "ntp"] == pytest.approx((half, half, half))  # a seed with itself does not count
    assert len(rows) == 3
