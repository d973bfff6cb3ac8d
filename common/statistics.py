"""What a figure is worth, given how many samples it was scored on.

Belongs here: intervals and tests over saved predictions, on scipy. Does not belong here: means over seeds and tables
(`common/study_tables.py`).
"""

from scipy.stats import binomtest


def wilson(accuracy: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy (0–1) measured on `n` samples, or of the mean over seeds of one.

    As if the samples were independent: with several of one photo or source video the truth is wider.
    """
    interval = binomtest(round(accuracy * n), n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
