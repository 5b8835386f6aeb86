"""The page at ``/``: files of `gentext.data`, which are read once, when the server starts."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import gentext.data

PAGE_FOLDER = Path(gentext.data.__file__).parent / "page"
#: The first file of the page.
INDEX_FILE = "index.html"
#: The files of the folder that a browser gets, by how their names end; all others are no part of the page.
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: Tells the page's `engine.js` to ask this server; the folder of `gen export --web` has another file of this name.
ENGINE = b'{"engine": "server"}'
#: The page loads nothing from elsewhere, runs no script but its files, and stands in no frame.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a browser asks each time whether its copy is still right
}


def page_routes(folder: Path = PAGE_FOLDER) -> list[Route]:
    """Return a route for each file of the page. There is no other path, so none leads out of the folder."""
    routes = [Route("/engine.json", PageFile(ENGINE, "application/json").answer)]
    for path in sorted(folder.iterdir()):
        if path.suffix in CONTENT_TYPES:
            file = PageFile(path.read_bytes(), CONTENT_TYPES[path.suffix])
            routes.append(Route("/" if path.name == INDEX_FILE else f"/{path.name}", file.answer))
    return routes


class PageFile:
    """A file in memory."""

    def __init__(self, content: bytes, content_type: str) -> None:
        self._content, self._type = content, content_type
        self._etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'

    async def answer(self, request: Request) -> Response:
        """Return the file, or 304 where the browser has it."""
        headers = HEADERS | {"ETag": self._etag}
        if self._etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self._content, headers=headers | {"Content-Type": self._type})
