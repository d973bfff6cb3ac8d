"""Top-k errors of a pretrained ImageNet classifier on photos that someone labelled by name (report R3).

Belongs here: the command `scripts/evaluate_encoder.py`, from its options to a folder with the table, the top five of
each photo and the pictures. Does not belong here: the networks (`common/heads.py`), what a label means
(`common/imagenet.py`), where photos come from (`common/classifier_rows.py`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from common.classifier_rows import label_names, read_photos
from common.columns import columns_from
from common.encoder_scoring_options import EvaluateEncoderOptions
from common.heads import build_imagenet
from common.imagenet import class_names, exact, nearest, starting
from common.images import Preprocessing, normalise, read_image, to_tensor
from common.runs import (
    cache_directory,
    choose_output,
    open_run,
    release,
    typed_command,
    write_csv,
    write_json,
    write_text,
)
from common.splits import Rows
from common.tables import markdown
from common.terminal import say_result

RULES: dict[str, Callable[[str, Sequence[str]], list[int]]] = {"starts with": starting, "exact": exact}
_TOP = 5
_LISTED = 30  # photos or labels that a note names


def evaluate_encoder(options: EvaluateEncoderOptions) -> Path:
    """Score, print and write everything; returns the folder. Raises `UserError` for anything wrong with the input."""
    output = choose_output(options, f"imagenet-{options.encoder}-{Path(options.data).resolve().stem}")
    names = class_names(options.encoder)
    network = _network(options.encoder, options.weights)
    second = None if options.second_encoder is None else _network(options.second_encoder, options.second_weights)
    rows, notes = read_photos(
        options.data,
        images=options.images,
        columns=columns_from(options.columns),
        skip=options.on_bad_image == "skip",
        cache=cache_directory(options.cache),
    )
    photos = judge(rows, network(_paths(rows), options), names)
    figures = top_k_figures(photos)
    notes += _label_notes(photos, names)
    again: list[dict[str, Any]] = []
    best, worst = _chosen(photos, options.show)
    if second is not None and options.second_encoder is not None:
        chosen = [rows[photo["row"]] for photo in worst]
        again = judge(chosen, second(_paths(chosen), options), class_names(options.second_encoder))

    open_run(output, options, task="encoder", command=typed_command())
    title = f"{options.encoder} on {Path(options.data).name}: top-k error"
    table = markdown(_table(figures))
    _draw(output, options, best, worst, again)
    sections = [f"# {title}", "", "```", typed_command(), "```", "", table, "", *[f"- {note}" for note in notes], ""]
    sections += ["![best and worst classified](best-and-worst.png)", ""] if best else []
    if again:
        compared = _compared(worst, again, options)
        sections += ["## the worst, judged again", "", markdown(compared), "", "![judged again](judged-again.png)", ""]
        write_csv(output / "judged-again.csv", compared)
    write_csv(output / "predictions.csv", [_csv_row(photo) for photo in photos])
    write_text(output / "table.md", "\n".join(sections))
    found = {"encoder": options.encoder, "weights": Path(options.weights).name, "rules": figures, "notes": notes}
    if again:
        found["judged_again"] = {"encoder": options.second_encoder, "photos": compared}
    write_json(output / "table.json", found)
    release(output)
    print("\n".join([table, "", *notes, f"everything is in {output}"]), flush=True)
    say_result(output=output, **found)
    return output


# --- networks ---------------------------------------------------------------------------------------------------------


class _Photos(Dataset):
    def __init__(self, paths: Sequence[str], preprocessing: Preprocessing) -> None:
        self.paths, self.preprocessing = paths, preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> torch.Tensor:
        return to_tensor(read_image(self.paths[place]), self.preprocessing)[0]


def _network(name: str, weights: str) -> Callable[[Sequence[str], EvaluateEncoderOptions], torch.Tensor]:
    """→ a function from photos to probabilities `(N, 1000)`; loaded now, so that bad weights are refused at once."""
    encoder, head = build_imagenet(name, weights=weights)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder, head = encoder.to(device), head.to(device)

    @torch.inference_mode()
    def ask(paths: Sequence[str], options: EvaluateEncoderOptions) -> torch.Tensor:
        loader = DataLoader(
            _Photos(paths, encoder.preprocessing),
            batch_size=options.batch_size,
            num_workers=min(options.workers, len(paths)),
        )
        found = []
        for pixels in tqdm(loader, desc=name, unit="batch", disable=None, leave=False):
            logits = head(encoder(normalise(pixels.to(device), encoder.preprocessing)))
            found.append(logits.double().softmax(dim=-1).cpu() if device == "cpu" else logits.softmax(dim=-1).cpu())
        return torch.cat(found)

    return ask


def _paths(rows: Rows) -> list[str]:
    return [row["image"] for row in rows]


# --- judging ----------------------------------------------------------------------------------------------------------


def judge(rows: Rows, probabilities: torch.Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """What `probabilities (N, classes)` of these photos say, a dictionary for each.

    `row` its place, `id`, `image`, `label`; `rules`: by each rule the `accepted` classes, the `rank` of the most
    probable of them from 1 (None if there is none) and its `probability`; `top`: names and probabilities of the first
    five.
    """
    found = []
    for place, (row, mine) in enumerate(zip(rows, probabilities, strict=True)):
        # Of a file named type_2.jpg the label is "type_2" if some class is called so, else "type".
        label = next((name for name in label_names(row) if starting(name, names)), label_names(row)[-1])
        order = mine.argsort(descending=True, stable=True).tolist()
        rules = {}
        for rule, accepts in RULES.items():
            accepted = accepts(label, names)
            rank = next((number for number, kind in enumerate(order, start=1) if kind in accepted), None)
            probability = None if rank is None else float(mine[order[rank - 1]])
            rules[rule] = {"accepted": [names[kind] for kind in accepted], "rank": rank, "probability": probability}
        top = [(names[kind], float(mine[kind])) for kind in order[:_TOP]]
        about = {"row": place, "id": row["id"], "image": row["image"], "label": label}
        found.append(about | {"rules": rules, "top": top})
    return found


def top_k_figures(photos: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By rule: `n` photos whose label is the name of some class and their `top1_error` and `top5_error`, 0–1 (NaN of
    none); `n_no_class` others, and the errors over all `n_all` photos with those counted as wrong."""
    figures = {}
    for rule in RULES:
        ranks = [photo["rules"][rule]["rank"] for photo in photos]
        known = [rank for rank in ranks if rank is not None]
        row: dict[str, Any] = {"n": len(known), "n_no_class": len(ranks) - len(known), "n_all": len(ranks)}
        for k in (1, _TOP):
            right = sum(rank <= k for rank in known)
            row[f"top{k}_error"] = 1 - right / len(known) if known else math.nan
            row[f"top{k}_error_all"] = 1 - right / len(ranks)
        figures[rule] = row
    return figures


def _table(figures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "the class's name …": {"starts with": "starts with the label (R3)", "exact": "is the label"}[rule],
            "photos": row["n"],
            "top-1 error": row["top1_error"],
            "top-5 error": row["top5_error"],
            "label of no class": row["n_no_class"],
            "top-1 error of all": row["top1_error_all"],
            "top-5 error of all": row["top5_error_all"],
        }
        for rule, row in figures.items()
    ]


def _label_notes(photos: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """The labels that mean no class, by name: nothing is left out silently; and those that the rules differ in."""
    by_prefix = {photo["label"]: photo["rules"]["starts with"]["accepted"] for photo in photos}
    by_name = {photo["label"]: photo["rules"]["exact"]["accepted"] for photo in photos}
    without = [
        f"'{photo['label']}' ({photo['id']}{_meant(photo['label'], names)})"
        for photo in photos
        if not by_prefix[photo["label"]]
    ]
    begins = [_accepts(label, found) for label, found in by_prefix.items() if found and not by_name[label]]
    wider = [_accepts(label, found) for label, found in by_prefix.items() if len(found) > len(by_name[label]) > 0]
    notes = {
        f"label of no class, {len(without)} photo(s), counted apart: ": without,
        "labels that only begin the name of a class: ": begins,
        "labels that begin other names than their class's, too: ": wider,
    }
    return [start + ", ".join(listed[:_LISTED]) + _more(listed) for start, listed in notes.items() if listed]


def _meant(label: str, names: Sequence[str]) -> str:
    close = nearest(label, names)
    return "" if close is None else f"; did you mean '{close}'?"


def _accepts(label: str, names: Sequence[str]) -> str:
    return f"'{label}' accepts {' | '.join(names[:5])}{_more(names, 5)}"


def _more(listed: Sequence[str], shown: int = _LISTED) -> str:
    return f" and {len(listed) - shown} more" if len(listed) > shown else ""


# --- what is shown ----------------------------------------------------------------------------------------------------


def _chosen(photos: Sequence[Mapping[str, Any]], count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The best- and the worst-classified of the photos whose label means a class, by R3's rule."""
    from common.pictures import best_and_worst  # draws, with matplotlib, which is slow to load

    rows = [
        {**photo, "gold_probability": rule["probability"], "gold_rank": rule["rank"]}
        for photo in photos
        if (rule := photo["rules"]["starts with"])["rank"] is not None
    ]
    return best_and_worst(rows, count)


def _draw(
    output: Path,
    options: EvaluateEncoderOptions,
    best: Sequence[Mapping[str, Any]],
    worst: Sequence[Mapping[str, Any]],
    again: Sequence[Mapping[str, Any]],
) -> None:
    from common.photo_sheets import Guess, Ranked, draw_ranked, thumbnail

    def guesses(photo: Mapping[str, Any]) -> list[Guess]:
        accepted = photo["rules"]["starts with"]["accepted"]
        return [Guess(name=name, probability=value, right=name in accepted) for name, value in photo["top"]]

    def ranked(*judgements: Mapping[str, Any]) -> Ranked:
        photo = thumbnail(read_image(judgements[0]["image"]))
        return Ranked(photo=photo, title=judgements[0]["label"], guesses=[guesses(said) for said in judgements])

    rows = [("best classified", [ranked(photo) for photo in best])]
    rows += [("worst classified", [ranked(photo) for photo in worst])]
    if best:
        draw_ranked(rows, output / "best-and-worst.png", title=options.encoder)
    if again and options.second_encoder is not None:
        both = [ranked(first, second) for first, second in zip(worst, again, strict=True)]
        title = f"the worst of {options.encoder}, judged again by {options.second_encoder}"
        networks = (options.encoder, options.second_encoder)
        draw_ranked([("worst classified", both)], output / "judged-again.png", title=title, networks=networks)


def _compared(
    worst: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]], options: EvaluateEncoderOptions
) -> list[dict[str, Any]]:
    rows = []
    names = (options.encoder, options.second_encoder)
    if names[0] == names[1]:
        names = (f"{names[0]} (first)", f"{names[1]} (second)")
    for first, second in zip(worst, again, strict=True):
        row = {"photo": first["id"], "label": first["label"]}
        for name, said in zip(names, (first, second), strict=True):
            gold = said["rules"]["starts with"]
            row |= {f"{name}: says": said["top"][0][0], f"{name}: p": round(said["top"][0][1], 6)}
            row |= {
                f"{name}: rank of the label": gold["rank"],
                f"{name}: p of the label": round(gold["probability"], 6),
            }
        rows.append(row)
    return rows


def _csv_row(photo: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": photo["id"], "label": photo["label"]}
    for rule, found in photo["rules"].items():
        name = rule.replace(" ", "_")
        row |= {f"{name}_accepts": "; ".join(found["accepted"]), f"{name}_rank": found["rank"]}
        row |= {f"{name}_probability": None if found["probability"] is None else round(found["probability"], 6)}
    for place, (name, probability) in enumerate(photo["top"], start=1):
        row |= {f"class_{place}": name, f"probability_{place}": round(probability, 6)}
    return row
