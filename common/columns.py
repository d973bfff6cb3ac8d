"""Our names for the columns of other people's tables.

Belongs here: the option --columns OURS=THEIRS, and which column of a file is which of ours. Does not belong here: what
is in the columns (`common/classifier_rows.py`, `vqa/data.py`, `video/data.py`), nor how files are opened
(`common/records.py`).
"""

from collections.abc import Mapping, Sequence

from common.errors import UserError


def check_columns(pairs: Sequence[str], example: str) -> None:
    """Refuse (`UserError`) what is not OURS=THEIRS. `example`: one pair that would do."""
    for pair in pairs:
        if pair.count("=") != 1 or not all(pair.split("=")):
            raise UserError(f"--columns {pair!r}: write OURS=THEIRS, for example {example}")


def columns_from(pairs: Sequence[str]) -> dict[str, str]:
    """("question=cau_hoi", …), as the option has them → ours → theirs."""
    return dict(pair.split("=") for pair in pairs)


def map_columns(
    names: Sequence[str], given: Mapping[str, str], ours: Sequence[str], where: str, *, needed: Sequence[str]
) -> dict[str, str]:
    """Ours → theirs, of the columns that a table has.

    names: the table's own. given: --columns. ours: all that we know. where: the file, for messages. Raises `UserError`
    for a name on either side that is not there, and for a needed one that is missing.
    """
    for name, theirs in given.items():
        if name not in ours:
            raise UserError(f"--columns {name}={theirs}: '{name}' is no column of ours; these are {', '.join(ours)}")
        if theirs not in names:
            raise UserError(f"{where}: no column '{theirs}' (--columns {name}={theirs}); it has: {_listed(names)}")
    found = {name: name for name in ours if name in names} | dict(given)
    need_columns(found, needed, names, where)
    return found


def need_columns(found: Mapping[str, str], needed: Sequence[str], names: Sequence[str], where: str) -> None:
    """Raises `UserError` for the first of `needed` that is not among `found` (ours → theirs)."""
    for name in needed:
        if name not in found:
            raise UserError(
                f"{where}: no column '{name}'; it has: {_listed(names)}. If one of these is it, add "
                f"--columns {name}=NAME"
            )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or "(unnamed)" for name in names[:20])
