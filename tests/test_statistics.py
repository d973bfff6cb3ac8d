"""Intervals of accuracies."""

import math

import pytest

from common.statistics import wilson


@pytest.mark.parametrize(("right", "n"), [(41, 60), (0, 10), (10, 10), (4000, 5000)])
def test_wilsons_interval_solves_its_equation(right, n):
    """Its ends p are where (share − p)² = z² p (1 − p) / n (Wilson, JASA 1927)."""
    low, high = wilson(right / n, n)
    assert 0 <= low <= right / n <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert (right / n - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / n, rel=1e-4)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.8 * 0.2 / n), rel=0.01) or n < 5000
