"""The tab of a study: its tables, its curves and its pictures, as they are on the disk when they are looked at.

Belongs here: what is shown of a study's folder. Figures, tables and pictures are made by `common/study_tables.py` and
its neighbours; a study that still runs is shown as far as its tables have come.
"""

import functools
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from common.demo import Tab, answering
from common.demo_html import block, chart, folded, heading, note, problem, said, table
from common.demo_options import DemoOptions
from common.errors import UserError
from common.files import read_object
from common.study_curves import draw_runs
from common.study_evidence import findings
from common.study_pictures import as_data
from common.study_tables import main_rows
from common.study_values import read_history

_MOST_PICTURES = 12
_DRAWING = threading.Lock()  # matplotlib's figures are not for several threads

PHRASES = {
    "title": {"vi": "Nghiên cứu", "en": "Study"},
    "refresh": {"vi": "Đọc lại", "en": "Read again"},
    "notes": {"vi": "Cần biết khi đọc bảng này (tiếng Anh)", "en": "What to know when reading this table"},
    "table": {"vi": "Đã công bố và đo được", "en": "Reported and measured"},
    "differences": {"vi": "Khác biệt", "en": "Differences"},
    "bars": {"vi": "Độ chính xác", "en": "Accuracy"},
    "curves": {"vi": "Đường cong học", "en": "Curves"},
    "confusion": {"vi": "Nhầm gì với gì", "en": "What was taken for what"},
    "no_curves": {
        "vi": "Chưa có đường cong: chưa lần chạy nào ghi lại từng epoch.",
        "en": "No curves: no run has left figures of its epochs yet.",
    },
    "report": {"vi": "Toàn bộ báo cáo, một trang", "en": "The whole report, as one page"},
    "none": {
        "vi": "Nghiên cứu này chưa có bảng nào; bảng được viết khi run_study.py chạy xong một lượt.",
        "en": "This study has no table yet; run_study.py writes it when it has been through its runs.",
    },
    "damaged": {"vi": "Không đọc được nghiên cứu này.", "en": "This study cannot be read."},
}
TITLES = {  # of columns, where they are not shown as they are
    "vi": {
        "model": "mô hình",
        "weights": "trọng số",
        "reported accuracy": "độ chính xác đã công bố",
        "reported loss": "loss đã công bố",
        "measured accuracy": "độ chính xác đo được",
        "measured loss": "loss đo được",
        "measured validation accuracy": "độ chính xác đo được trên validation",
        "reported validation accuracy": "độ chính xác đã công bố trên validation",
        "measured train accuracy": "độ chính xác đo được trên train",
        "seeds": "số seed",
        "seconds": "giây",
        "parameters": "tham số",
        "test seconds": "giây khi test",
        "reported test seconds": "giây khi test đã công bố",
        "reported seconds": "giây đã công bố",
        "reported parameters": "tham số đã công bố",
        "split": "tập",
    },
    "en": {},
}


def study_tab(options: DemoOptions) -> Tab | None:
    """The tab of `--study`. Raises `UserError` for what is no folder."""
    if options.study is None:
        return None
    folder = Path(options.study)
    if not folder.is_dir():
        raise UserError(f"--study {folder}: no such folder; name the one that scripts/run_study.py wrote")
    if not (folder / "table.json").is_file() and not (folder / "runs").is_dir():
        raise UserError(f"--study {folder}: is not a study's folder (it has neither table.json nor runs)")
    report = {"/study.html": folder / "report.html"} if (folder / "report.html").is_file() else {}

    def build(language: str, served: Path) -> None:
        words = said(PHRASES, language)

        @answering(language)
        def show() -> str:
            return study_page(folder, language, served, linked=bool(report))

        again = gr.Button(words["refresh"], size="sm", elem_id="refresh")
        found = gr.HTML(show, elem_id="study")
        again.click(show, outputs=found, api_visibility="private")

    return Tab(title=PHRASES["title"], build=build, files=report)


def study_page(folder: Path, language: str, served: Path, *, linked: bool = False) -> str:
    """All that is shown of a study; in words, if it cannot be read or has no table. `served` is for drawn pictures."""
    words = said(PHRASES, language)
    if not (folder / "table.json").is_file():
        return problem(words["none"])
    try:
        found = read_object(folder / "table.json")
        entries = found["cells"]
        parts = [heading(str(found["title"]))]
        if linked:
            parts += [Markup('<p><a href="/study.html" target="_blank">{}</a></p>').format(words["report"])]
        parts += [heading(words["table"]), table(main_rows(entries), TITLES[language])]
        parts += [folded(words["notes"], map(str, found["notes"]))]
        if found.get("differences"):
            parts += [heading(words["differences"]), *map(note, findings(found["differences"]))]
        parts += _pictures(folder, served, found, words)
    except UserError as error:
        return problem(words["damaged"], str(error).replace(str(folder), folder.name))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return problem(words["damaged"], f"{folder.name}/table.json")
    return block(*parts)


def _pictures(folder: Path, served: Path, found: Mapping[str, Any], words: Mapping[str, str]) -> list[Markup]:
    parts = _picture(folder / "accuracy.png", words["bars"])
    kept = folder / "curves.png"
    curves = kept if kept.is_file() else _draw_curves(folder, served, found)
    parts += _picture(curves, words["curves"]) if curves else [heading(words["curves"]), note(words["no_curves"])]
    for number, path in enumerate(sorted(folder.glob("confusion-*.png"))[:_MOST_PICTURES]):
        parts += [heading(words["confusion"])] * (number == 0)
        parts += [note(path.stem.removeprefix("confusion-")), *_picture(path)]
    return parts


def _picture(path: Path, title: str = "") -> list[Markup]:
    if not path.is_file():
        return []
    source = _source(path, path.stat().st_mtime_ns)
    return [*([heading(title)] if title else []), chart(source, alt=title or path.stem, wide=True)]


@functools.lru_cache(maxsize=32)
def _source(path: Path, _changed: int) -> str:
    return as_data(path)[0]


def _draw_curves(folder: Path, served: Path, found: Mapping[str, Any]) -> Path | None:
    """Curves of the runs that have finished, drawn here, for a study that has left none; nothing is written to it."""
    histories: dict[str, list[list[dict[str, Any]]]] = {}
    for entry in found["cells"]:
        for run in entry.get("runs", {}).values():
            path = os.path.realpath(folder / str(run))
            if path.startswith(os.path.realpath(folder) + os.sep):
                histories.setdefault(entry["name"], []).append(read_history(Path(path)))
    out = served / "curves.png"
    with _DRAWING:
        return out if draw_runs(histories, out, title=str(found["title"])) else None
