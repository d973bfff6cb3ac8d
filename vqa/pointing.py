"""Where attention looks: the pointing game, and the share of its mass inside the boxes of what is asked about.

Belongs here: these figures for one question, for a split, and from a run to files. The geometry of boxes is
`vqa/boxes.py`'s, loading a run `vqa/scoring.py`'s, drawing `common/plots.py`'s.

Pointing (Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016): a hit if the centre of the
strongest cell lies in a box, with no tolerance around it; of equally strong cells, the share that would be hits. Mass:
the sum of the weights, each by the part of its cell that boxes cover. Both are 0–1 and both grow with the boxes, which
is why uniform attention's, 1/N on the same real cells, stands beside each: in the pointing game that is the chance of
a cell drawn at random.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm

from common.batches import evaluation_batches
from common.errors import UserError
from common.images import read_image, shown_box, valid_cells
from common.pretrained import needed
from common.runs import refuse_existing, typed_command, write_csv, write_json, write_text
from common.tables import markdown
from common.terminal import say_result
from vqa.boxes import centres_inside, covered, on_square, read_boxes
from vqa.examples import PHOTO_SIDE, typical
from vqa.model import VqaConfig
from vqa.pointing_options import EvaluateAttentionOptions
from vqa.predict import Answerer
from vqa.scoring import Opened, open_run_to_score, scored_batches
from vqa.text import normalise

UNIFORM, MEAN, GROUNDING = "uniform", "mean of glimpses", "grounding"
TIMES = "times uniform's"


def point(weights: np.ndarray, share: np.ndarray, centre: np.ndarray) -> tuple[float, float]:
    """Pointing and mass of one map: `weights (h, w)` that sum to 1, `share (h, w)` the part of each cell that boxes
    cover, `centre (h, w)` whether its centre lies in one."""
    return float(centre[weights == weights.max()].mean()), float((weights * share).sum())


def maps_of(attention: torch.Tensor, config: VqaConfig) -> dict[str, torch.Tensor]:
    """A model's `grid_attention (B, G, h, w)` → name → `(B, h, w)`: each glimpse, their mean if there are several, and
    that of the net which says where, if it has one."""
    glimpses = attention[:, : config.glimpses]
    maps = {f"glimpse {number + 1}": glimpses[:, number] for number in range(config.glimpses)}
    if config.glimpses > 1:
        maps[MEAN] = glimpses.mean(dim=1)
    return maps | ({GROUNDING: attention[:, -1]} if config.grounds else {})


def evaluate_attention(options: EvaluateAttentionOptions) -> dict[str, Any]:
    """`scripts/evaluate_attention.py`: score where a run looks, print the table, and write what was asked for.

    Returns the figures as they are written (see `summary`), by the split's name or the stem of the file. Raises
    `UserError` for a run without attention over the grid, and for data without boxes or with bad ones.
    """
    outputs = [str(Path(options.output).with_suffix(suffix)) for suffix in (".json", ".md", ".csv") if options.output]
    for path in outputs:
        refuse_existing(path, overwrite=options.overwrite)
    for name in ("predictions", "picture"):
        refuse_existing(getattr(options, name), overwrite=options.overwrite, option=f"--{name}")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("where a run looks is scored by one process: start it with python, without a launcher")
    opened = open_run_to_score(options, boxes=True)
    config = opened.answerer.model.config
    if "grid" not in config.attends:
        raise UserError(f"{options.run}: was trained without attention over the grid, so there is nowhere it looks")
    if "boxes" not in opened.rows.column_names:
        raise UserError(f"{opened.where}: has no column 'boxes'; if one of its columns is it, add --columns boxes=NAME")
    boxed = [place for place, text in enumerate(opened.rows["boxes"][:]) if len(read_boxes(text))]
    if not boxed:
        raise UserError(f"{opened.where}: not one of its {len(opened.rows):,} questions has a box")
    left_out = {"without boxes": len(opened.rows) - len(boxed)}
    questions = where_it_looked(opened, opened.rows.select(boxed))
    left_out["out of view"] = len(boxed) - len(questions)
    if not questions:
        raise UserError(f"{opened.where}: all boxes lie in what {options.run} crops away")
    names = [name.removeprefix("mass ") for name in questions[0] if name.startswith("mass ")]
    figures = {"n": len(questions), "left_out": left_out} | summary(questions, names)
    rows = table_rows(figures)
    run = Path(options.run).resolve().name
    scored = f"scored: {run}, checkpoints/{opened.checkpoint.name}, attention over: {config.looks}"
    notes = [scored, *_notes(figures), *opened.notes]
    table = markdown([row | {TIMES: f"{row[TIMES]:.2f}"} for row in rows])
    if options.output:
        as_json, as_md, as_csv = map(Path, outputs)
        write_json(as_json, {opened.key: figures})
        write_csv(as_csv, rows)
        lines = [f"# Where attention looks: {run}, {opened.key}", "", "```", typed_command(), "```", ""]
        write_text(as_md, "\n".join([*lines, *[f"- {note}" for note in notes], "", table]) + "\n")
    if options.predictions:
        write_csv(Path(options.predictions), questions)
    if options.picture:
        shown = next(name for name in reversed(names) if name != UNIFORM)
        _draw(opened, questions, shown, options, title=f"{run}, {opened.key}: where {shown} looked")
    print("\n".join([table, "", *notes]), flush=True)
    say_result(run=options.run, checkpoint=opened.checkpoint, attention={opened.key: figures})
    return {opened.key: figures}


# --- figures ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def where_it_looked(opened: Opened, rows: datasets.Dataset) -> list[dict[str, Any]]:
    """For each question with boxes that the model can see: `pointing NAME` and `mass NAME` of uniform attention and of
    each of its maps, beside id, group, type, question and image. Maps are of the photo as it is, not of its mirror
    images, over which `test_augment` averages answers."""
    answerer, trained, accelerator = opened.answerer, opened.options, opened.accelerator
    model, preprocessing = answerer.model.to(accelerator.device).eval(), answerer.processor.preprocessing
    source = scored_batches(model, [rows], answerer.processor, opened.cache, trained, accelerator)[0]
    columns = {name: rows[name][:] for name in ("id", "group", "type", "question")}
    columns["image"] = [Path(path).name for path in rows["image"][:]]
    boxes = list(map(read_boxes, rows["boxes"][:]))
    assert preprocessing is not None  # it attends over photos
    if preprocessing.resize != "squash":  # else the square is the photo, whatever its size
        sizes = {path: read_image(path).size for path in tqdm(dict.fromkeys(rows["image"][:]), disable=None)}
        paths = rows["image"][:]
        boxes = [on_square(some, sizes[path], preprocessing) for some, path in zip(boxes, paths, strict=True)]
    batches = evaluation_batches(
        source, batch_size=trained.batch_size, rank=0, world=1, workers=0 if source.store else trained.workers
    )
    found: dict[int, dict[str, Any]] = {}
    for (batch,) in batches:
        inputs = {name: tensor.to(accelerator.device) for name, tensor in batch["inputs"].items()}
        with accelerator.autocast():
            attention = model(**inputs, return_attention=True).grid_attention.float().cpu()
        h, w = attention.shape[-2:]
        maps = {name: map_.numpy() for name, map_ in maps_of(attention, model.config).items()}
        real = valid_cells(batch["inputs"]["valid"], h, w)[batch["inputs"]["image_index"]].numpy().reshape(-1, h, w)
        for place, row in enumerate(batch["index"].tolist()):
            share, centre = covered(boxes[row], h, w) * real[place], centres_inside(boxes[row], h, w) & real[place]
            if not share.any():
                continue
            looked = {UNIFORM: real[place] / real[place].sum()} | {name: map_[place] for name, map_ in maps.items()}
            figures = {name: point(weights, share, centre) for name, weights in looked.items()}
            found[row] = {name: values[row] for name, values in columns.items()}
            found[row] |= {f"pointing {name}": pointing for name, (pointing, _) in figures.items()}
            found[row] |= {f"mass {name}": mass for name, (_, mass) in figures.items()}
            found[row] |= {f"strongest {name}": float(looked[name].max()) for name in maps}
            found[row]["reachable"] = bool(centre.any())
    return [found[row] for row in sorted(found)]


def summary(questions: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Means over the questions, and over those of each type: `maps` holds pointing, mass and `times_uniform` (the ratio
    of the mean masses) of each map; `reachable` is the part of the questions that the pointing game can be won on."""

    def means(some: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        maps = {
            name: {figure: float(np.mean([row[f"{figure} {name}"] for row in some])) for figure in ("pointing", "mass")}
            for name in names
        }
        for figures in maps.values():
            figures["times_uniform"] = figures["mass"] / maps[UNIFORM]["mass"]
        return {"reachable": float(np.mean([row["reachable"] for row in some])), "maps": maps}

    types: dict[str, list[Mapping[str, Any]]] = {}
    for row in questions:
        types.setdefault(row["type"], []).append(row)
    return means(questions) | {
        "by_type": {name: {"n": len(types[name])} | means(types[name]) for name in sorted(types)}
    }


def table_rows(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each type, and for all, and each map, uniform attention's figures beside its own."""
    rows = []
    for type_, part in [*figures["by_type"].items(), ("all", figures)]:
        uniform = part["maps"][UNIFORM]
        rows += [
            {
                "type": type_,
                "n": part["n"],
                "map": name,
                "pointing": found["pointing"],
                "uniform's pointing": uniform["pointing"],
                "mass in the boxes": found["mass"],
                "uniform's mass": uniform["mass"],
                TIMES: found["times_uniform"],
            }
            for name, found in part["maps"].items()
            if name != UNIFORM
        ]
    return rows


def _notes(figures: Mapping[str, Any]) -> list[str]:
    left_out = figures["left_out"]
    notes = [f"{figures['n']:,} questions; left out: {left_out['without boxes']:,} without boxes"]
    if left_out["out of view"]:
        notes[0] += f", {left_out['out of view']:,} whose boxes are cropped away"
    if figures["reachable"] < 1:
        notes.append(
            f"{1 - figures['reachable']:.1%} have boxes so small that no cell's centre lies in one: never a hit"
        )
    return [*notes, "pointing: the strongest cell's centre lies in a box; uniform's: a cell drawn at random"]


# --- pictures ---------------------------------------------------------------------------------------------------------


def _draw(
    opened: Opened, questions: Sequence[dict[str, Any]], name: str, options: EvaluateAttentionOptions, *, title: str
) -> None:
    """A sheet of typical hits and misses of the map `name`, in the order of how sure it was of its strongest cell."""
    from common.plots import ShownRow, draw_answers

    columns = {key: opened.rows[key][:] for key in ("id", "image", "answer", "boxes")}
    there = {id_: rest for id_, *rest in zip(*columns.values(), strict=True)}
    chosen = typical(
        questions,
        options.per_type,
        right=lambda row: row[f"pointing {name}"] > 0.5,
        by=f"strongest {name}",
    )
    rows = []
    for part in chosen:
        for hit, some in ((True, part.right), (False, part.wrong)):
            count = part.n_right if hit else part.n - part.n_right
            heading = f"{part.type}: {'hit' if hit else 'miss'}, {count:,} of {part.n:,} ({count / part.n:.1%})"
            shown = [_shown(opened.answerer, row, there[row["id"]], name) for row in some]
            rows.append(ShownRow(heading=heading, right=hit, answers=shown))
    assert options.picture is not None  # or nobody would call
    draw_answers(rows, Path(options.picture), title=f"{title} (clear, in the line), and what was asked about (boxes)")


def _shown(answerer: Answerer, row: Mapping[str, Any], there: Sequence[str], name: str) -> Any:
    from common.plots import Shown

    path, gold, boxes = there
    preprocessing = answerer.processor.preprocessing
    assert preprocessing is not None  # it attends over photos
    photo = read_image(path)
    size = photo.size
    probabilities, output = answerer([photo], [row["question"]], return_attention=True)
    best = answerer.best(probabilities[0], 1)[0]
    weights = maps_of(needed(output.grid_attention, "attention").float().cpu(), answerer.model.config)[name][0].numpy()
    photo.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    return Shown(
        photo=photo,
        size=size,
        weights=weights,
        box=shown_box(size, preprocessing),
        boxes=[tuple(box) for box in read_boxes(boxes) * np.array(size * 2)],
        caption=row["question"],
        gold=normalise(gold),
        predicted=best["answer"],
        probability=best["probability"],
    )
