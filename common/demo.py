"""The page in the browser: its frame, its two languages, and serving it so that it can be left running.

Belongs here: what all tabs share, from an uploaded file to the server. What a tab shows is the tasks' (`vqa/demo.py`,
`video/demo.py`) and `common/demo_study.py`'s; which requests are answered is `common/demo_gate.py`'s.

There is a page for each language, `/vi/` and `/en/`, so that every word of it, Gradio's own too, is in one language.
Gradio's `launch` is not used: it looks for addresses of its own, and can open tunnels.
"""

import functools
import os
import socket
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError, reason

try:
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI
    from starlette.responses import FileResponse, RedirectResponse
except ImportError as error:
    raise UserError(f'the page needs Gradio ({reason(error)}): pip install -e ".[demo]"') from None

from markupsafe import Markup

from common.demo_gate import Gate
from common.demo_html import CSS, problem, said
from common.demo_options import ServeOptions
from common.demo_words import GRADIO, script
from common.interruption import terminated_like_interrupted
from common.study_values import read_measured

LANGUAGES = {"vi": "Tiếng Việt", "en": "English"}
LOCAL = ("127.0.0.1", "localhost", "::1")
_KEPT = 20  # uploads of the largest size that are on the disk at once

PHRASES = {
    "about": {
        "vi": "Hỏi một bức ảnh, xem mô hình nhìn vào đâu.",
        "en": "Ask a picture, and see where the model looks.",
    },
    "language": {"vi": "Ngôn ngữ", "en": "Language"},
    "defect": {
        "vi": "Lỗi của trang này, không phải của bạn; nó được ghi ở nơi trang đang chạy.",
        "en": "A defect of this page, not a mistake of yours; it is told where the page runs.",
    },
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is read of uploads."""

    most_bytes: int
    most_pixels: int
    most_frames: int

    @classmethod
    def of(cls, options: ServeOptions) -> "Limits":
        return cls(
            most_bytes=round(options.max_upload_mb * 2**20),
            most_pixels=round(options.max_megapixels * 1e6),
            most_frames=options.max_frames,
        )


@dataclass(frozen=True, kw_only=True)
class Tab:
    """A part of the page."""

    title: Mapping[str, str]
    """in each language"""
    build: Callable[[str, Path], None]
    """given a language and a folder for files that the browser may read: put its components on the page being made"""
    files: Mapping[str, Path] | None = None
    """paths of the site → files on the disk that are served there, as they are at that moment"""


def uploaded(payload: Any) -> Path | None:
    """The file of a component, as the browser named it (an event with `preprocess=False`); None if there is none.

    Gradio's own way to it would open a photo with whatever decoder its bytes ask for. Here it stays a path, which lies
    in the folder of uploads, or it is none.
    """
    path = payload.get("path") if isinstance(payload, dict) else None
    if not isinstance(path, str) or "\0" in path:
        return None
    folder, path = os.path.realpath(os.environ["GRADIO_TEMP_DIR"]), os.path.realpath(path)
    return Path(path) if path.startswith(folder + os.sep) and os.path.isfile(path) else None


def upload_name(payload: Any) -> str:
    """What an uploaded file was called where it came from."""
    name = payload.get("orig_name") if isinstance(payload, dict) else None
    return os.path.basename(name) if isinstance(name, str) else ""


def named(error: UserError, path: Path, payload: Any) -> str:
    """What is wrong with an upload, with the name that the file has for the one who sent it."""
    return str(error).replace(str(path), upload_name(payload) or path.name)


def scored_on(run: Path) -> tuple[str, float, int] | None:
    """Split, accuracy and number of samples that a run was scored on; a checkpoint by itself was on none."""
    if not (run / "metrics.json").is_file():
        return None
    found = read_measured(run)
    return found.split, found.figures["accuracy"], int(found.figures["n"])


def into_sight(place: str) -> str:
    """For the browser: what a selector finds comes into sight if it is below the screen, as results on a phone are."""
    return f"""() => {{
  const found = document.querySelector("{place}");
  if (found.getBoundingClientRect().top > innerHeight / 3) found.scrollIntoView({{ behavior: "smooth" }});
}}"""


def answering(language: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """For what answers an event: a defect of ours is told in words, and its traceback where the page was started."""

    def wrap(function: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(function)
        def wrapped(*given: Any) -> str:
            try:
                return function(*given)
            except Exception:
                traceback.print_exc()
                return problem(PHRASES["defect"][language])

        return wrapped

    return wrap


def page(tabs: Sequence[Tab], language: str, options: ServeOptions, folder: Path) -> gr.Blocks:
    """The page in one language, with a queue: one question is answered at a time."""
    with gr.Blocks(
        title="Hỏi Ảnh",
        analytics_enabled=False,
        delete_cache=(min(60, max(1, round(20 * options.keep_minutes))), max(1, round(60 * options.keep_minutes))),
    ) as blocks:
        gr.HTML(_header(language))
        if len(tabs) == 1:
            tabs[0].build(language, folder)
        else:
            with gr.Tabs():
                for tab in tabs:
                    with gr.Tab(tab.title[language]):
                        tab.build(language, folder)
    blocks.queue(max_size=options.queue, default_concurrency_limit=1, api_open=False)
    blocks.i18n_instance = gr.I18n(**GRADIO)  # type: ignore[arg-type]  # it takes nested texts, as its docstring says
    return blocks


def _header(language: str) -> str:
    words = said(PHRASES, language)
    links = [
        Markup("<b>{}</b>").format(name)
        if code == language
        else Markup('<a href="../{0}/" hreflang="{0}" lang="{0}">{1}</a>').format(code, name)
        for code, name in LANGUAGES.items()
    ]
    return Markup('<div class="hoianh-head"><h1>Hỏi Ảnh</h1><p>{}</p><nav aria-label="{}">{}</nav></div>').format(
        words["about"], words["language"], Markup(" ").join(links)
    )


def make_app(tabs: Sequence[Tab], options: ServeOptions, folder: Path) -> Gate:
    """The pages of all languages as one application, behind the gate; `folder` is where uploads lie."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    def choose() -> RedirectResponse:
        return RedirectResponse(f"/{options.language}/")

    @app.get("/favicon.ico")
    def icon() -> RedirectResponse:
        return RedirectResponse(f"/{options.language}/favicon.ico")

    files = {path: file for tab in tabs for path, file in (tab.files or {}).items()}
    for path, file in files.items():
        app.get(path)(_sender(file))
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif"]
    for language in LANGUAGES:
        gr.mount_gradio_app(
            app,
            page(tabs, language, options, folder),
            path=f"/{language}",
            root_path=f"/{language}",
            footer_links=[],
            run_history=False,
            show_error=False,
            max_file_size=Limits.of(options).most_bytes,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            pwa=False,
            # Names alone: Gradio fetches a font that it is given as an object.
            theme=gr.themes.Default(primary_hue="blue", font=fonts, font_mono=["ui-monospace", "monospace"]),
            css=CSS,
            js=script(language),
            app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        )
    most = Limits.of(options).most_bytes
    return Gate(
        app,
        hosts={"127.0.0.1", "localhost", "[::1]"} if options.host in LOCAL else None,
        languages=tuple(LANGUAGES),
        own=("/favicon.ico", *files),
        folder=folder,
        most_bytes=most,
        most_stored=_KEPT * most,
    )


def _sender(file: Path) -> Callable[[], FileResponse]:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"

    def send() -> FileResponse:
        return FileResponse(file, headers={"Content-Security-Policy": policy})

    return send


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder of this process alone for what is uploaded, gone at the end; Gradio is told of it."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="hoianh-demo-", ignore_cleanup_errors=True) as name:
        os.environ["GRADIO_TEMP_DIR"] = os.path.realpath(name)
        try:
            yield Path(name).resolve()
        finally:
            os.environ.pop("GRADIO_TEMP_DIR")
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before


def serve(options: ServeOptions, tabs: Sequence[Tab | None]) -> None:
    """`scripts/demo.py`: serve the page until Ctrl-C. Raises `UserError` for an address that cannot be had."""
    with own_folder() as folder, _listening(options.host, options.port) as listening:
        app = make_app([tab for tab in tabs if tab is not None], options, folder)
        shown = f"[{options.host}]" if ":" in options.host else options.host
        lines = [f"Hỏi Ảnh: http://{shown}:{listening.getsockname()[1]}/ (Ctrl-C ends it)"]
        if options.host not in LOCAL:
            lines.append(f"--host {options.host}: whoever reaches this machine may ask, without a password")
        config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=2)
        try:
            with terminated_like_interrupted():
                _Server(config, lines).run(sockets=[listening])
        except KeyboardInterrupt:  # which is how it ends
            print("ended; what was uploaded is deleted", flush=True)


class _Server(uvicorn.Server):
    """A server that says where it is when it answers, and hears Ctrl-C: before, one could be lost in an import."""

    def __init__(self, config: uvicorn.Config, lines: Sequence[str]) -> None:
        super().__init__(config)
        self._lines = lines

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            print(*self._lines, sep="\n", flush=True)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError, OverflowError) as error:
        raise UserError(
            f"--host {host} --port {port}: cannot listen there ({reason(error)}); take another port, or --port 0 for "
            "any free one"
        ) from None
