"""The page at `/`: the files of `web/`, which use the server, or a folder such as `mlic-export --layout web` writes."""

import mimetypes
from pathlib import Path, PurePosixPath
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from mlic_runtime.base.page_files import PLACES, read_page_files

# The browser holds to these and to the stricter of each in the page's own policy.
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob: mediastream:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# With these two, the page may run the model in several threads.
_SITE_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Content-Security-Policy": "frame-ancestors 'none'",  # the page has the rest itself
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".png": "image/png",
    ".wasm": "application/wasm",
}


def page_application(folder: Path | None) -> ASGIApp:
    """Return the application that answers what is no route.

    Args:
        folder: static files; None for the page that comes with this package. If the folder is a site of `mlic-export`,
            its page can use the server too.

    Raises:
        MlicError: the page that comes with this package is not complete.
    """
    if folder is None:
        files = {**read_page_files(), PLACES: _places("server")}
        return _Files({"": files["index.html"], **files}, HEADERS)
    for ending, kind in _TYPES.items():
        mimetypes.add_type(kind, ending)  # a system may have others, with which no browser runs them
    static = StaticFiles(directory=folder, html=True)
    if not (folder / PLACES).is_file():
        return static
    return _Site(static, _Files({PLACES: _places("server", "browser")}, _SITE_HEADERS))


def _places(*names: str) -> bytes:
    return f"export default [{', '.join(map(repr, names))}];\n".encode()


class _Files:
    """Files in memory."""

    def __init__(self, files: dict[str, bytes], headers: dict[str, str]) -> None:
        self.files = files
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        name = _name(scope)
        if name not in self.files:
            raise HTTPException(404)
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        kind = _TYPES[PurePosixPath(name or "index.html").suffix]
        await Response(self.files[name], media_type=kind, headers=self._headers)(scope, receive, send)


class _Site:
    """An exported site, whose page is told that there is a server."""

    def __init__(self, static: StaticFiles, places: _Files) -> None:
        self._static, self._places = static, places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if _name(scope) in self._places.files:
            await self._places(scope, receive, send)
            return
        response = await self._static.get_response(self._static.get_path(scope), scope)
        response.headers.update(_SITE_HEADERS)
        await response(scope, receive, send)


def _name(scope: Scope) -> str:
    """Return the path of a request below the page."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")).lstrip("/")
