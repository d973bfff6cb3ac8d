"""What stands before the page: which requests reach Gradio at all, and what a browser is told not to load.

Belongs here: hosts, origins, paths, sizes and headers of HTTP requests. Gradio serves much more than one page needs (an
API, its documentation, a proxy, downloads of addresses that a request names): what is not on the list here is refused.
"""

import json
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

# As seen from a language's page: files of Gradio's own, then what its page calls.
_READ = re.compile(
    r"/(assets/.*|static/.*|svelte/.*|theme\.css|favicon\.ico|manifest\.json|robots\.txt)?|"
    r"/gradio_api/(file=(?!https?:).*|queue/data|upload_progress|heartbeat/\w+|startup-events|app_id)"
)
_WRITE = re.compile(r"/gradio_api/(queue/join|run/predict|upload|cancel|reset|heartbeat/\w+)/?")
_ASKS = re.compile(r"/gradio_api/(queue/join|run/predict)/?")  # run: what needs no queue, as taking an example does
_MOST_ASKED = 100_000  # bytes of a request that is no upload
_ROUND = 100_000  # bytes of an upload's envelope
_ADDRESS = re.compile(r"\s*(https?|ftp|file|data):", re.IGNORECASE)

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Sent with every answer: the page loads nothing from elsewhere, and no other page shows it in a frame."""


class Gate:
    """ASGI middleware. `hosts` are the names by which the page may be called (None: any), so that no name that an
    outsider points at this machine reaches it; `languages` are the pages; `own` are further paths to be read; at most
    `most_stored` bytes are kept in `folder`, of uploads of `most_bytes` each.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        *,
        hosts: Collection[str] | None,
        languages: Collection[str],
        own: Collection[str],
        folder: Path,
        most_bytes: int,
        most_stored: int,
    ) -> None:
        self.app, self.hosts, self.own = app, hosts, {"/", *own}
        self.pages = re.compile(f"/(?:{'|'.join(map(re.escape, languages))})(/.*)")
        self.folder, self.most_bytes, self.most_stored = folder, most_bytes, most_stored

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the page needs none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refused(scope)
        found = self.pages.fullmatch(scope["path"])
        if refused is None and found is not None and _ASKS.fullmatch(found.group(1)):
            receive, refused = await _read_asked(receive)
        if refused is not None:
            await PlainTextResponse(refused[1], status_code=refused[0])(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason, if this request is not to be answered."""
        headers, method = Headers(scope=scope), scope["method"]
        host = headers.get("host", "")
        if self.hosts is not None and host_name(host) not in self.hosts:
            return 421, "this page is not at that address"
        found = self.pages.fullmatch(scope["path"])
        path = found.group(1) if found else ""
        if method in ("GET", "HEAD"):
            known = scope["path"] in self.own or (found is not None and _READ.fullmatch(path) is not None)
            return None if known else (404, "there is nothing here")
        if method != "POST" or not _WRITE.fullmatch(path):
            return 404, "there is nothing here"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "another page may not ask this one"
        length = headers.get("content-length", "")
        upload = path.rstrip("/").endswith("/upload")
        if not length.isdecimal():
            return 411, "say how long it is"
        if int(length) > (self.most_bytes + _ROUND if upload else _MOST_ASKED):
            return 413, f"too large; at most {self.most_bytes / 2**20:g} MB are taken"
        if upload and _stored(self.folder) + int(length) > self.most_stored:
            return 507, "too many files are kept already; try again later"
        return None


def host_name(host: str) -> str:
    """The name in a Host header, without its port; IPv6 addresses keep their brackets."""
    return re.sub(r":\d+$", "", host).lower()


async def _read_asked(receive: Receive) -> tuple[Receive, tuple[int, str] | None]:
    """The body of a request for an answer, to be read again; refused if it names an address in a file's place.

    Gradio would fetch what it names.
    """
    body, more = b"", True
    while more and len(body) <= _MOST_ASKED:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    refused = None
    try:
        if more or _names_address(json.loads(body)):
            refused = (403, "only uploaded files are asked about")
    except (ValueError, RecursionError):
        refused = (400, "this is no JSON")
    given = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def again() -> Any:
        return next(given, None) or await receive()

    return again, refused


def _names_address(value: Any) -> bool:
    if isinstance(value, dict):
        path = value.get("path")
        return (isinstance(path, str) and _ADDRESS.match(path) is not None) or any(map(_names_address, value.values()))
    return isinstance(value, list) and any(map(_names_address, value))


def _stored(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:  # deleted meanwhile
            continue
    return total
