"""What a figure is worth, given how many samples it was scored on.

Belongs here: intervals and tests over arrays, on scipy. Does not belong here: reading saved predictions
(`common/predictions.py`), what is concluded from these (`common/evidence.py`), means over seeds and tables.

Shapes: n samples, G groups (photos, source videos), k seeds. A difference of a sample is the first model's rightness
minus the second's: −1, 0 or 1, or between these where it is a mean over seeds.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, bootstrap, norm, permutation_test, t

ALPHA = 0.05  # two-sided
POWER = 0.8
_RESAMPLES = 9999
_EXACT = 16  # so many values have 65,536 ways to set their signs: all are tried; of more, a random part
_NUMBERS = 2_000_000  # that a batch of resamples holds: 16 MB


def wilson(accuracy: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy (0–1) measured on `n` samples, or of the mean over seeds of one.

    As if the samples were independent: with several of one photo or source video the truth is wider.
    """
    interval = binomtest(round(accuracy * n), n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test: how many samples only the first model has right, or the second.

    Under the null hypothesis each of these is equally likely (McNemar, Psychometrika 1947); as if the samples were
    independent. 1 if there is none.
    """
    discordant = int(only_first + only_second)
    return float(binomtest(int(only_first), discordant).pvalue) if discordant else 1.0


def sign_flip(differences: Sequence[int] | np.ndarray, *, seed: int = 0) -> float:
    """Two-sided p-value of paired differences, one per seed or per group (summed): could their signs be chance?

    Exact up to 16 that are not zero: every way to set the signs is tried. Of more, 9,999 random ones (`seed`). Give
    whole numbers, such as counts of samples, where there are: sums of fractions hide ties. 1 if all are zero.
    """
    values = np.asarray(differences)
    values = values[values != 0]  # whatever sign these get, no sum changes
    if len(values) < 2:
        return 1.0  # turning a single one round is as far from zero as it is
    test = permutation_test(
        (values,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**_EXACT if len(values) <= _EXACT else _RESAMPLES,
        batch=max(1, _NUMBERS // len(values)),
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def smallest_p(seeds: int) -> float:
    """The smallest p-value that a two-sided sign-flip test of so many seeds can reach: 2 of 2^k ways, 1 for none."""
    return min(1.0, 2 / 2**seeds)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of a family of tests, in the order given (Holm, Scandinavian J. of Statistics 1979).

    The i-th smallest of m is multiplied by m − i + 1, and none is smaller than the one before it.
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")
    steps = np.arange(len(values), 0, -1) * values[order]
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def group_sums(differences: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Differences `(n,)` and the groups they are of → their sums `(G,)` and counts `(G,)`, a group each."""
    _, place = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    sums = np.zeros(place.max() + 1, dtype=np.asarray(differences).dtype)
    np.add.at(sums, place, differences)
    return sums, np.bincount(place)


def group_bootstrap(
    differences: np.ndarray, groups: Sequence[str], *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Interval of the mean of paired differences `(n,)`, from resampling whole groups: BCa, 9,999 resamples.

    A resample draws G groups and divides the sum of all their differences by the count (bias-corrected and accelerated:
    Efron, JASA 1987). None where resampling tells nothing: fewer than two groups, or the same mean in every group.
    """
    sums, counts = group_sums(differences, groups)
    if len(sums) < 2 or np.ptp(sums / counts) < 1e-12:
        return None
    found = bootstrap(
        (sums, counts),
        lambda sums, counts, axis=-1: sums.sum(axis) / counts.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=max(1, _NUMBERS // len(sums)),
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def smallest_difference(
    differences: np.ndarray, groups: Sequence[str], *, alpha: float = ALPHA, power: float = POWER
) -> float | None:
    """The smallest true difference of accuracy (0–1) that a paired test of these samples would find with that power.

    It solves Connor's equation for McNemar's test (Biometrics 1987), δ √n = z(1 − α/2) √ψ + z(power) √(ψ − δ²), where ψ
    is the share of samples that one model alone has right; of means over seeds, the mean of their squares. A difference
    beyond what they disagree in needs more such samples: ψ grows with it. Samples that share a group count for less: n
    is divided by the design effect, how much larger the variance of the mean is between groups than between rows, if it
    is larger (Kish, Survey Sampling, 1965). None if the models never disagree, or nothing could be found.
    """
    differences = np.asarray(differences, dtype=float)
    n, mean, share = len(differences), differences.mean(), np.square(differences).mean()
    if share == 0:
        return None
    disagree = np.abs(differences).mean()
    sums, counts = group_sums(differences, groups)
    by_rows = (share - mean**2) / n
    if len(sums) > 1 and by_rows > 0:
        by_groups = np.square(sums - mean * counts).sum() / n**2 * len(sums) / (len(sums) - 1)
        n /= max(1.0, by_groups / by_rows)
    reject, find = norm.ppf(1 - alpha / 2), norm.ppf(power)

    def above(delta: float) -> float:
        discordant = share * max(1, delta / disagree)
        return delta * math.sqrt(n) - reject * math.sqrt(discordant) - find * math.sqrt(max(0.0, discordant - delta**2))

    return float(brentq(above, 0, 1)) if above(1) > 0 else None


def smallest_difference_of_seeds(
    by_seed: Sequence[float], *, alpha: float = ALPHA, power: float = POWER
) -> float | None:
    """The smallest true mean difference that a sign-flip test of so many seeds would find, as they scatter.

    (t(1 − α/2) + t(power)) s / √k, with k − 1 degrees of freedom (Bloom, Evaluation Review 1995): the t-test's, which
    the sign-flip test comes near to. With so few seeds that it only rejects when all signs are equal, not less than the
    difference at which that happens with this power. None if so many seeds can never reach `alpha`.
    """
    k = len(by_seed)
    if k < 2 or smallest_p(k) > alpha:
        return None
    deviation = float(np.std(by_seed, ddof=1))
    found = deviation * (t.ppf(1 - alpha / 2, k - 1) + t.ppf(power, k - 1)) / math.sqrt(k)
    only_all_equal = 2 * smallest_p(k) > alpha
    return float(max(found, deviation * norm.ppf(power ** (1 / k)))) if only_all_equal else float(found)
