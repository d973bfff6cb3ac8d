"""Intervals and tests: worked by hand, and against scipy and statsmodels where these have them."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import bootstrap
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from common.statistics import (
    group_bootstrap,
    holm,
    mcnemar,
    sign_flip,
    smallest_difference,
    smallest_difference_of_seeds,
    smallest_p,
    wilson,
)


@pytest.mark.parametrize(("right", "n"), [(41, 60), (0, 10), (10, 10), (4000, 5000)])
def test_wilsons_interval_solves_its_equation(right, n):
    """Its ends p are where (share − p)² = z² p (1 − p) / n (Wilson, JASA 1927)."""
    low, high = wilson(right / n, n)
    assert 0 <= low <= right / n <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert (right / n - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / n, rel=1e-4)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.8 * 0.2 / n), rel=0.01) or n < 5000


def test_mcnemar_by_hand_and_as_statsmodels_has_it():
    assert mcnemar(5, 1) == mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)  # 0 or 1 of 6 coins, twice
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1
    # Agresti, Categorical Data Analysis: approval of a prime minister, two surveys of the same 1,600 people
    approval = [[794, 150], [86, 570]]
    assert mcnemar(150, 86) == pytest.approx(reference_mcnemar(approval, exact=True).pvalue)
    assert mcnemar(150, 86) == pytest.approx(3.7e-5, rel=0.05)


def test_sign_flips_of_three_seeds_by_hand():
    assert sign_flip([0.01, 0.02, 0.03]) == 0.25  # of 8 ways to set the signs two are as far from zero: +++ and −−−
    assert sign_flip([3, -1, 2]) == 0.5  # |±3 ±1 ±2| is at least 4 in 4 of 8 ways
    assert sign_flip([1, 2, 3, 0]) == 0.25  # a zero has no sign
    assert sign_flip([0, 0]) == sign_flip([0.5]) == sign_flip([1, -1]) == 1
    assert [smallest_p(seeds) for seeds in (0, 1, 3, 6, 7)] == [1, 1, 0.25, 0.03125, 0.015625]


def test_sign_flips_against_every_way_there_is():
    values = np.random.default_rng(0).integers(-9, 12, 9)
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((-1, 1), repeat=9)]
    assert sign_flip(values) == pytest.approx(np.mean(np.array(sums) >= abs(values.sum())))
    # Where all are ±1 it is McNemar's test: exactly of few, nearly of many, whose signs are set at random.
    assert sign_flip([1] * 9 + [-1] * 3) == pytest.approx(mcnemar(9, 3))
    assert sign_flip([1] * 30 + [-1] * 18) == pytest.approx(mcnemar(30, 18), abs=0.02)


def test_holm_by_hand_and_as_statsmodels_has_it():
    # 0.005 × 4, 0.01 × 3, 0.03 × 2, and 0.04 × 1, which is not to be below the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1] and holm([0.03]) == [0.03] and holm([]) == []
    values = np.random.default_rng(0).random(20) ** 3
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1])


def rows_of_groups(groups: int, size: int) -> tuple[np.ndarray, list[str]]:
    """Differences of which all rows of a group have the same."""
    each = np.random.default_rng(0).choice([-1, 0, 1], groups, p=[0.1, 0.6, 0.3])
    return np.repeat(each, size), [f"photo {place}" for place in range(groups) for _ in range(size)]


def test_the_bootstrap_resamples_groups():
    """Four questions with one answer to each of 100 photos are worth 100 samples, not 400."""
    differences, groups = rows_of_groups(100, 4)
    low, high = group_bootstrap(differences, groups)
    by_rows = group_bootstrap(differences, list(map(str, range(400))))
    assert low < by_rows[0] < differences.mean() < by_rows[1] < high
    assert (high - low) / (by_rows[1] - by_rows[0]) == pytest.approx(2, rel=0.1)  # √4
    alone = bootstrap((differences[::4],), np.mean, rng=np.random.default_rng(0)).confidence_interval
    assert (low, high) == pytest.approx(tuple(alone), abs=0.011)  # one of 100 steps
    order = np.random.default_rng(0).permutation(400)
    assert group_bootstrap(differences[order], [groups[place] for place in order]) == (low, high)


def test_groups_of_several_sizes_weigh_what_they_hold():
    differences = np.array([1, 1, 1, 1, 0, 0, -1])
    low, high = group_bootstrap(differences, list("aaaabcd"))
    assert -1 <= low < 3 / 7 < high <= 1


@pytest.mark.parametrize(
    ("differences", "groups"),
    [([0, 0, 0], "abc"), ([1, 1, 1], "abc"), ([1, 0, 1], "aaa"), ([1, 0, 0, 1], "aabb"), ([0.1, 0.2, 0.3], "aaa")],
)
def test_no_interval_where_resampling_tells_nothing(differences, groups):
    assert group_bootstrap(np.array(differences), list(groups)) is None


def test_smallest_difference_by_hand():
    """Connor: ψ = 0.3, δ = 0.1 need (1.95996 √0.3 + 0.84162 √0.29)² / 0.01 = 233.1 samples."""
    differences = np.zeros(2331)
    differences[:350], differences[350:699] = 1, -1
    assert smallest_difference(differences, list(map(str, range(2331)))) == pytest.approx(0.1 / math.sqrt(10), rel=0.01)
    fewer = np.concatenate([differences[:35], differences[350:385], differences[699:862]])  # 70 of 233
    assert smallest_difference(fewer, list(map(str, range(233)))) == pytest.approx(0.1, rel=0.01)
    four, groups = rows_of_groups(100, 4)
    one = smallest_difference(four[::4], groups[::4])
    assert smallest_difference(four, groups) == pytest.approx(one, rel=0.02)
    assert smallest_difference(four, list(map(str, range(400)))) == pytest.approx(one / 2, rel=0.1)
    assert smallest_difference(np.zeros(9), list("abcdefghi")) is None  # they never disagree
    assert smallest_difference(np.array([1, 0, 0]), list("abc")) is None  # three samples can show nothing
    rare = np.zeros(100)
    rare[0] = 1
    assert smallest_difference(rare, list(map(str, range(100)))) > 0.05  # more than they disagree in now


@pytest.mark.parametrize(("seeds", "alpha"), [(6, 0.05), (7, 0.025), (8, 0.05)])
def test_seeds_find_their_smallest_difference_four_times_in_five(seeds, alpha):
    differences = np.resize([1.0, -1.0], seeds)
    smallest = smallest_difference_of_seeds(differences, alpha=alpha) / differences.std(ddof=1)
    drawn = np.random.default_rng(0).normal(smallest, 1, (4000, seeds))
    ways = np.abs(drawn @ np.array(list(itertools.product((-1, 1), repeat=seeds))).T)
    p = np.mean(ways >= np.abs(drawn.sum(axis=1, keepdims=True)) - 1e-9, axis=1)
    assert np.mean(p <= alpha) == pytest.approx(0.8, abs=0.04)


def test_too_few_seeds_find_nothing():
    assert smallest_difference_of_seeds([0.1, 0.2, 0.3]) is None and smallest_difference_of_seeds([0.1]) is None
    assert smallest_difference_of_seeds([0.1, 0.2, 0.3], alpha=0.25) > 0
