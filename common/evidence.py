"""Two models on the same samples: by how much they differ, and whether the data can tell.

Belongs here: which intervals and tests a comparison gets, and the sentence that they allow. The tests themselves are in
`common/statistics.py`; who compares what is in `common/compare.py` (runs) and `common/study_evidence.py` (studies).

There are two kinds of chance. Other samples: the interval, from resampling groups, and a sign-flip test of whole
groups. Other seeds: the sign-flip test of the differences seed by seed. A difference counts as told apart only if all
that there are agree: a bootstrap interval alone leaves out zero as soon as three groups differ, all in one direction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.statistics import (
    ALPHA,
    group_bootstrap,
    group_sums,
    mcnemar,
    sign_flip,
    smallest_difference,
    smallest_difference_of_seeds,
    smallest_p,
)

_FEW = (
    20  # groups: of fewer, bootstrap intervals are too narrow (Cameron et al., Rev. of Economics and Statistics 2008)
)


@dataclass(kw_only=True)
class Evidence:
    """The first model minus the second, over k seeds that both have. Accuracies and differences are 0–1."""

    n: int
    groups: int
    family: int  # comparisons that are tested together
    accuracies: tuple[float, float]  # means over the seeds
    difference: float
    by_seed: list[float]
    only_first: list[int]  # of each seed, how many samples only the first has right
    only_second: list[int]
    interval: tuple[float, float] | None  # of the mean over the seeds, as samples vary
    p_seeds: float  # sign-flip over the seeds
    sums: np.ndarray  # (G,) each group's differences, summed over samples and seeds
    smallest_of_samples: float | None
    smallest_of_seeds: float | None

    @cached_property
    def p_samples(self) -> float:
        """Sign-flip of whole groups: of one seed, McNemar's test where every sample is a group of its own."""
        return sign_flip(self.sums)

    @property
    def p_mcnemar(self) -> list[float]:
        """McNemar's exact test of each seed."""
        return [mcnemar(*counts) for counts in zip(self.only_first, self.only_second, strict=True)]

    @property
    def smallest(self) -> float | None:
        """The smallest difference that every test made here would find with 80 % power, or None."""
        if len(self.by_seed) == 1:
            return self.smallest_of_samples
        if self.smallest_of_samples is None or self.smallest_of_seeds is None:
            return None
        return max(self.smallest_of_samples, self.smallest_of_seeds)

    @property
    def samples_tell(self) -> bool:
        """Whether other samples would hardly turn the difference round: by the interval and by the test of groups."""
        leaves_out_zero = self.interval is None or self.interval[0] > 0 or self.interval[1] < 0
        return leaves_out_zero and self.p_samples <= ALPHA  # no interval: all groups differ alike, or there is but one


def weigh(first: np.ndarray, second: np.ndarray, groups: Sequence[str], *, family: int = 1) -> Evidence:
    """Compare what two models have right: `(k, n)` of bool each, row by row the same seed.

    `groups` names the group of each of the n samples. With a `family` of tests over seeds, the smallest difference is
    that which the strictest of them (the first of Holm's steps) would find.
    """
    seeds, n = first.shape
    differences = (first.astype(int) - second.astype(int)).sum(axis=0)  # (n,), over the seeds: whole numbers stay exact
    sums, counts = group_sums(differences, groups)
    by_seed = (first.sum(axis=1) - second.sum(axis=1)).tolist()  # samples
    return Evidence(
        n=n,
        groups=len(counts),
        family=family,
        accuracies=(float(first.mean()), float(second.mean())),
        difference=float(differences.sum() / (n * seeds)),
        by_seed=[samples / n for samples in by_seed],
        only_first=(first & ~second).sum(axis=1).tolist(),
        only_second=(second & ~first).sum(axis=1).tolist(),
        interval=group_bootstrap(differences / seeds, groups),
        p_seeds=sign_flip(by_seed),
        sums=sums,
        smallest_of_samples=smallest_difference(differences / seeds, groups),
        smallest_of_seeds=smallest_difference_of_seeds([samples / n for samples in by_seed], alpha=ALPHA / family),
    )


def over_seeds(found: Evidence, names: tuple[str, str], p: float | None = None) -> str:
    """What may be said about two ways of training, in one sentence; `p` is Holm's, if there is a family."""
    seeds, p = len(found.by_seed), found.p_seeds if p is None else p
    least = min(1.0, smallest_p(seeds) * found.family)
    holm = f"Holm over {found.family}" if found.family > 1 else f"sign-flip of {seeds} seeds"
    if least > ALPHA:
        reach = f"{seeds} seed{'s'[: seeds > 1]} can reach no p below {least:.3g}"
        beside = f" (Holm over {found.family})" if found.family > 1 else ""
        return f"{shown(found)}; cannot be told from zero: {reach}{beside}, whatever the difference"
    return _sentence(found, names, p, f"{p_text(p)} ({holm})")


def over_samples(found: Evidence, names: tuple[str, str]) -> str:
    """What may be said about two trained networks, in one sentence."""
    return _sentence(found, names, found.p_samples, f"{p_text(found.p_samples)} (sign-flip of {found.groups:,} groups)")


def shown(found: Evidence, *, sign: int = 1) -> str:
    """The difference and its interval in points, such as "+0.8 points [0.1, 1.5]"; `sign` −1 turns it round."""
    text = f"{round(100 * sign * found.difference, 1) + 0.0:+.1f} points"  # no "-0.0"
    if found.interval is None:
        why = "one group alone" if found.groups == 1 else "the same difference in every group"
        return f"{text} (no interval: {why})"
    low, high = sorted(round(100 * sign * end, 1) + 0.0 for end in found.interval)
    return f"{text} [{low:.1f}, {high:.1f}]"


def p_text(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def few_groups(groups: int) -> str | None:
    """What to know about an interval from few groups, or None."""
    return f"{groups} groups are few: the interval is rather too narrow" if 1 < groups < _FEW else None


def _sentence(found: Evidence, names: tuple[str, str], p: float, tested: str) -> str:
    if p <= ALPHA and found.samples_tell:
        better, worse = names if found.difference > 0 else names[::-1]
        return f"{better} is better than {worse} by {shown(found, sign=1 if found.difference > 0 else -1)}, {tested}"
    if not any(found.only_first + found.only_second):
        return f"{names[0]} and {names[1]} are right on the same samples"
    lead = f"cannot be told from zero: {shown(found)}, {tested}"
    if p <= ALPHA:
        return f"{lead}: the test alone rejects, but other samples could turn the difference round"
    if found.smallest is None:
        return f"{lead}; no difference could have been"
    return f"{lead}; a difference of about {100 * found.smallest:.1f} points could have been"
