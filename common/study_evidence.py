"""What a study's comparisons are worth: intervals, tests and the sentence that they allow, from the runs' predictions.

Belongs here: which comparisons are tested, Holm's family, and their rows. The differences themselves are in
`common/study_compare.py`, intervals and tests in `common/evidence.py`, writing in `common/study_tables.py`.

Only comparisons that the study file names `primary: true` get p-values: Holm's over all of these, whether they could be
tested or not, because the family was named beforehand. The others get intervals.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.evidence import Evidence, few_groups, over_seeds, p_text, shown, weigh
from common.predictions import Aligned, DifferentSamples, Scored, align, read_scored
from common.statistics import holm
from common.study import Comparison, first_few
from common.study_values import as_text, signed

_Runs = Mapping[tuple[str, int], Path]  # (cell's name, seed) → run directory


def add_evidence(found: Sequence[dict[str, Any]], compare: Sequence[Comparison], runs: _Runs) -> None:
    """Add to each difference, as `table.json` holds it, its interval, its test and what may be said (`finding`).

    Where the predictions of a run are gone, or of other samples, the finding says so instead.
    """
    primary = [comparison.name for comparison in compare if comparison.primary]
    saved: dict[Path, Scored] = {}
    weighed: dict[str, Evidence] = {}
    for difference in found:
        difference |= {"primary": difference["name"] in primary, "interval": None, "groups": None}
        difference |= {"p": None, "p_holm": None, "smallest_difference": None}
        aligned = _aligned(difference, runs, saved)
        if isinstance(aligned, str):
            difference["finding"] = f"{aligned}; no interval{' and no test' * difference['primary']}"
            continue
        seeds = len(difference["by_seed"])
        family = max(1, len(primary))
        evidence = weigh(aligned.right[:seeds], aligned.right[seeds:], aligned.groups, family=family)
        weighed[difference["name"]] = evidence
        difference |= {"interval": evidence.interval, "groups": evidence.groups}
        difference["finding"] = f"{shown(evidence)}; not a primary comparison: not tested"
    values = [weighed[name].p_seeds if name in weighed else 1.0 for name in primary]
    adjusted = dict(zip(primary, holm(values), strict=True))
    for difference in found:
        name = difference["name"]
        if name in weighed and name in primary:
            evidence = weighed[name]
            difference |= {"p": evidence.p_seeds, "p_holm": adjusted[name], "smallest_difference": evidence.smallest}
            first, second = (f"'{cell}'" for cell in difference["cells"])
            difference["finding"] = over_seeds(evidence, (first, second), adjusted[name])
        few = few_groups(difference["groups"]) if difference["interval"] else None
        difference["finding"] += f" ({few})" if few else ""


def evidence_columns(difference: Mapping[str, Any], *, tested: bool) -> dict[str, str]:
    """The columns of a difference's row: the interval, and the p-value if some comparison is `tested`."""
    interval = difference["interval"]
    columns = {"95 % interval": "–" if interval is None else f"[{', '.join(map(signed, interval))}]"}
    p = difference["p_holm"]
    return columns | ({"p (Holm)": "–" if p is None else p_text(p).removeprefix("p = ")} if tested else {})


def about_differences(found: Sequence[Mapping[str, Any]], compare: Sequence[Comparison]) -> str:
    """What stands above their table."""
    sentences = ["Differences of accuracy, seed by seed: mean ± sample standard deviation."]
    if any(difference["interval"] for difference in found):
        sentences.append(
            "95 % interval: of the mean over the seeds, by resampling whole groups of samples (BCa bootstrap), so that "
            "it tells of other samples, not of other seeds."
        )
    if primary := sum(comparison.primary for comparison in compare):
        what = "the comparison" if primary == 1 else f"the {primary} comparisons"
        sentences.append(
            f"p: exact sign-flip test over the seeds of {what} that the study's file names primary, by Holm."
        )
    if any(len(difference["n"]) > 1 for difference in found):
        sentences.append("Two n: of different samples, and what was trained on differs, too.")
    return " ".join(sentences)


def findings(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each comparison; those of which the same is to be said share one."""
    names: dict[str, list[str]] = {}
    for difference in found:
        names.setdefault(difference["finding"], []).append(difference["name"])
    return [f"{first_few(its)}: {finding}" for finding, its in names.items()]


def difference_csv_rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The differences for programs: unrounded numbers, empty if missing."""
    rows = []
    for difference in found:
        low, high = difference["interval"] or (None, None)
        first, second = difference["cells"]
        row = {"comparison": difference["name"], "first": first, "second": second}
        row |= {"primary": difference["primary"], "difference": difference["mean"], "std": difference["std"]}
        row |= {"interval low": low, "interval high": high, "seeds": len(difference["by_seed"])}
        row |= {"n": " / ".join(as_text("n", n) for n in difference["n"]), "groups": difference["groups"]}
        row |= {name.replace("_", " "): difference[name] for name in ("p", "p_holm", "smallest_difference")}
        rows.append(row | {"finding": difference["finding"]})
    return rows


def _aligned(difference: Mapping[str, Any], runs: _Runs, saved: dict[Path, Scored]) -> Aligned | str:
    """The predictions of both cells' runs, first all seeds of the first cell; or why there are none to compare."""
    if not difference["by_seed"]:
        other = len(difference["splits"]) > 1
        return f"scored on {' and '.join(difference['splits'])}" if other else "no seed that both have finished"
    pairs = [(name, int(seed)) for name in difference["cells"] for seed in difference["by_seed"]]
    scored = []
    for run in (runs[pair] for pair in pairs):
        try:
            if run not in saved:
                saved[run] = read_scored(run, *difference["splits"])
        except UserError as error:
            return str(error).replace(str(run), run.name)
        scored.append(saved[run])
    try:
        return align(scored)
    except DifferentSamples:
        pass
    try:
        for pair in zip(scored[: len(scored) // 2], scored[len(scored) // 2 :], strict=True):
            align(pair)
    except DifferentSamples:
        return "scored on different samples, so that nothing is paired"
    return "every seed was scored on samples of its own (folds), over which no mean can be taken"
