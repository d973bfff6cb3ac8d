"""Small stand-ins, under the names that pages use, for what people have: photos, questions, clips, weights, runs.

Belongs here: making them. They lie as the pages take them to lie: a repository to type in, `shared/` beside it.
"""

import csv
import json
import random
import zlib
from pathlib import Path

import numpy as np
import torch
import torchvision
from classifier_helpers import write_photo
from PIL import Image
from safetensors.torch import save_file
from test_compare import write_run
from test_streaming import write_shards as write_tars
from video_helpers import write_clip, write_csv

ROOT = Path(__file__).resolve().parent.parent
DISHES = ("phở", "bún bò", "bánh xèo")
UCF = ("Basketball", "Diving", "GolfSwing", "Skiing")


def build_world(folder: Path) -> Path:
    """Fill a folder → the repository in it, where commands are typed."""
    here = folder / "hoianh"
    here.mkdir(parents=True)
    for name in ("scripts", "configs"):
        (here / name).symlink_to(ROOT / name)
    (here / "results" / "benchmark").mkdir(parents=True)
    (here / "docs").mkdir()
    (here / "docs" / "scaling.md").write_bytes((ROOT / "docs" / "scaling.md").read_bytes())
    write_questions(here / "FOLDER-questions")
    (here / "heldout.csv").write_text(
        (here / "FOLDER-questions" / "held.csv")
        .read_text(encoding="utf-8")
        .replace("images/", "FOLDER-questions/images/"),
        encoding="utf-8",
    )
    write_clips(here / "FOLDER-clips")
    write_clips(here / "FOLDER-held", held="validation")
    rows = [{"path": f"FOLDER-clips/clips/held{n}.avi", "label": "fight", "group": f"h{n}"} for n in range(2)]
    write_csv(here / "heldout-clips.csv", rows)
    write_photo(here / "photo.jpg", 1)
    write_clip(here / "clip.avi", seed=1)
    for place, name in enumerate(("PHOTOS", "photos", "HELDOUT")):
        write_classes(here / name, first=1000 * place, each=2 if name == "HELDOUT" else 9)
    (here / "FOLDER-photos").symlink_to("PHOTOS")
    for number, name in enumerate(("lion", "lion_2", "goldfish", "tabby")):
        write_photo(here / "FOLDER-named" / f"{name}.jpg", 90 + number, place=number % 3)
    names = [{"label": label, "name": name} for label, name in zip(("red", "green", "blue"), DISHES, strict=True)]
    write_csv(here / "names.csv", names)
    write_boxes(here)
    write_ucf(here / "UCF_DIR")
    (here / "FOLDER_OF_LISTS").symlink_to("UCF_DIR/ucfTrainTestlist")
    write_shards(here)
    shared = folder / "shared"
    for name in ("vifood_vqa", "viphoto_vqa", "viparts_vqa"):
        write_questions(shared / "data" / name, boxes=name == "viparts_vqa")
    write_vivqa(shared / "data" / "vivqa")
    write_clips(shared / "data" / "fight")
    write_clips(shared / "data" / "ucf101_clips")
    write_features(shared / "data" / "ucf101_vgg16")
    for split, first in (("train", 5000), ("validation", 6000)):
        write_classes(shared / "data" / "components" / split, first=first, each=4)
    write_weights(shared / "weights" / "mobilenet_v2-imagenet.safetensors", "mobilenet_v2")
    (here / "FILE.safetensors").symlink_to(shared / "weights" / "mobilenet_v2-imagenet.safetensors")
    write_features(here / "FILE-features")
    (here / "FILE").symlink_to("FILE.safetensors")
    for name in ("attention", "no-attention", *(f"{way}-seed{seed}" for way in "ab" for seed in range(7))):
        (here / "runs").mkdir(exist_ok=True)
        right = random.Random(name).choices("+-", k=12)
        write_run(
            here / "runs" / name,
            "".join(right),
            seed=int(name[-1]) if name[-1].isdigit() else 0,
            attention=name[0] == "a",
        )
    return here


def write_shards(here: Path) -> None:
    """WebDataset shards of questions and of clips that no split has."""
    members = [
        {
            "jpg": write_noise(here / "streamed" / f"{n}.jpg", 7000 + n, n % 3).read_bytes(),
            "json": json.dumps({"question": "món này là món gì", "answer": DISHES[n % 3]}).encode(),
        }
        for n in range(12)
    ]
    write_tars(here / "shards-questions", members)
    clips = [write_clip(here / "streamed" / f"{n}.avi", seed=7000 + n, brightness=60 + 90 * (n % 2)) for n in range(12)]
    labels = ("fight", "noFight")
    members = [
        {"avi": path.read_bytes(), "json": json.dumps({"label": labels[n % 2]}).encode()}
        for n, path in enumerate(clips)
    ]
    write_tars(here / "shards-clips", members)


def write_weights(path: Path, encoder: str) -> Path:
    """Random weights of the whole network, in torchvision's names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    more = {"init_weights": False} if encoder == "googlenet" else {}
    torch.manual_seed(0)
    save_file(torchvision.models.get_model(encoder, weights=None, **more).state_dict(), path)
    return path


def write_classes(folder: Path, *, first: int, each: int) -> None:
    """A folder per class, photos that differ much more than near-duplicates do."""
    for place, label in enumerate(("red", "green", "blue")):
        for number in range(each):
            write_noise(folder / label / f"{number}.jpg", first + 100 * place + number, place)


def write_noise(path: Path, seed: int, place: int) -> Path:
    """A photo of coarse squares, most of them of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    squares = np.random.default_rng(seed).integers(0, 120, (7, 7, 3), dtype=np.uint8)
    squares[..., place] += 130
    Image.fromarray(squares).resize((48, 48), Image.Resampling.NEAREST).save(path, quality=95)
    return path


def write_questions(folder: Path, *, boxes: bool = True) -> None:
    """Splits of photos whose dish is their colour, each with four questions; with boxes, of yes and of where it is."""
    for first, (split, count) in enumerate({"train": 9, "validation": 3, "test": 3, "held": 2}.items()):
        rows = []
        for number in range(count):
            place = number % 3
            name = f"{split}{number}.jpg"
            write_noise(folder / "images" / name, zlib.crc32(f"{folder.name}{name}".encode()), place)
            asked = (
                ("món này là món gì", DISHES[place], "dish"),
                ("đây có phải là phở không", "có" if place == 0 else "không", "yes/no"),
                ("món này có bún không", "có" if place == 1 else "không", "yes/no"),
                ("màu chủ đạo của món ăn là gì", ("đỏ", "xanh lá", "xanh dương")[place], "color"),
            )
            for question, answer, kind in asked:
                row = {"image": f"images/{name}", "group": f"g{first}{number}", "question": question}
                box = json.dumps([[0.1, 0.1, 0.6, 0.7]]) if answer == "có" else ""
                rows.append(row | {"answer": answer, "type": kind} | ({"boxes": box} if boxes else {}))
            if boxes:  # whose box is where the answer says
                answer, left = (("bên trái", 0.1), ("bên phải", 0.6))[number % 2]
                box = json.dumps([[left, 0.3, left + 0.3, 0.7]])
                row = {"image": f"images/{name}", "group": f"g{first}{number}", "question": f"{DISHES[place]} ở đâu"}
                rows.append(row | {"answer": answer, "type": "place", "boxes": box})
        write_csv(folder / f"{split}.csv", rows)


def write_vivqa(folder: Path) -> None:
    """ViVQA's own columns, no photos, and as in ViVQA's own split photos that are in train and in test."""
    folder.mkdir(parents=True)
    for split, count in (("train", 24), ("test", 8)):
        rows = [
            {
                "": n,
                "question": f"màu của chiếc {n % 5} là gì",
                "answer": ("đỏ", "xanh lá")[n % 2],
                "img_id": n,
                "type": 2,
            }
            for n in range(count)
        ]
        write_csv(folder / f"{split}.csv", rows)


def write_clips(folder: Path, *, held: str | None = None) -> None:
    """Fight or not, which is the brightness; two clips of each source video. `held`: the split that two more are."""
    number = 0
    for split, count in {"train": 24, "test": 8, "held": 4}.items():
        rows = []
        for place in range(count):
            label = place // 2 % 2
            path = write_clip(
                folder / "clips" / f"{split}{place}.avi", seed=number, brightness=60 + 90 * label, size=32
            )
            rows.append(
                {"path": f"clips/{path.name}", "label": ("fight", "noFight")[label], "group": f"{split}{place // 2}"}
            )
            number += 1
        if split != "held" or held:
            write_csv(folder / f"{held if split == 'held' else split}.csv", rows)


def write_ucf(folder: Path) -> None:
    """UCF101 as it comes, of four classes: a folder per class, and the official lists beside."""
    lists = folder / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    train, test, number = [], [], 0
    for place, label in enumerate(UCF, start=1):
        for group in (1, 2, 8, 9, 10, 11):
            for clip in (1, 2):
                name = f"{label}/v_{label}_g{group:02d}_c{clip:02d}.avi"
                write_clip(folder / "UCF-101" / name, seed=number, brightness=40 * place, count=4, size=32)
                number += 1
                (test.append(name) if group < 8 else train.append(f"{name} {place}"))
    index = [f"{place} {label}" for place, label in enumerate(UCF, start=1)]
    for split in (1, 2, 3):
        for name, lines in ((f"trainlist0{split}", train), (f"testlist0{split}", test), ("classInd", index)):
            (lists / f"{name}.txt").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")


def write_features(folder: Path) -> None:
    """Stored features in 8 bits, as those of UCF101 are: 40 clips of ten classes, 9 frames, 16 numbers."""
    folder.mkdir(parents=True)
    noise = torch.randint(0, 255, (40, 9, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    save_file({"features": noise, "scale": torch.ones(16)}, folder / "features.safetensors")
    write_csv(
        folder / "index.csv",
        [
            {"path": f"c{n}.avi", "label": f"class{n % 10}", "group": f"g{n}", "split": "test" if n >= 30 else "train"}
            for n in range(40)
        ],
    )


def write_boxes(here: Path) -> None:
    """The same boxes on `PHOTOS` and `photos` as COCO's JSON and as a table, and folders of YOLO and of Pascal VOC."""
    generator = random.Random(0)
    found = []
    for path in sorted((here / "PHOTOS").rglob("*.jpg")):
        for _ in range(generator.randint(1, 3)):
            x, y = generator.randint(0, 28), generator.randint(0, 28)
            found.append((path.relative_to(here / "PHOTOS"), generator.randint(0, 2), x, y))
    paths = list(dict.fromkeys(row[0] for row in found))
    labels = ("red", "green", "blue")
    coco = {
        "images": [{"id": n, "file_name": str(p), "width": 48, "height": 48} for n, p in enumerate(paths)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(labels)],
        "annotations": [
            {
                "id": n,
                "image_id": paths.index(path),
                "category_id": kind,
                "bbox": [x, y, 18, 18],
                "area": 324,
                "iscrowd": 0,
            }
            for n, (path, kind, x, y) in enumerate(found)
        ],
    }
    (here / "instances.json").write_text(json.dumps(coco), encoding="utf-8")
    with open(here / "boxes.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "label", "x0", "y0", "x1", "y1"))
        table.writerows((f"PHOTOS/{path}", labels[kind], x, y, x + 18, y + 18) for path, kind, x, y in found)
    yolo, voc = here / "export.yolov8", here / "annotated"
    for part in ("images", "labels"):
        (yolo / "train" / part).mkdir(parents=True)
    voc.mkdir()
    (yolo / "data.yaml").write_text(f"names: [{', '.join(labels)}]\n", encoding="utf-8")
    for number, path in enumerate(paths):
        photo = (here / "PHOTOS" / path).read_bytes()
        (yolo / "train" / "images" / f"{number}.jpg").write_bytes(photo)
        (voc / f"{number}.jpg").write_bytes(photo)
        mine = [row for row in found if row[0] == path]
        lines = [f"{kind} {(x + 9) / 48} {(y + 9) / 48} {18 / 48} {18 / 48}" for _, kind, x, y in mine]
        (yolo / "train" / "labels" / f"{number}.txt").write_text("\n".join(lines), encoding="utf-8")
        objects = "".join(
            f"<object><name>{labels[kind]}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + 18}</xmax>"
            f"<ymax>{y + 18}</ymax></bndbox></object>"
            for _, kind, x, y in mine
        )
        size = "<size><width>48</width><height>48</height><depth>3</depth></size>"
        text = f"<annotation><filename>{number}.jpg</filename>{size}{objects}</annotation>"
        (voc / f"{number}.xml").write_text(text, encoding="utf-8")
