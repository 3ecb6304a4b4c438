"""What a picture may be called in the pictures folder, where annotations give an address or a path for it."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from mlic_runtime.annotations.problems import Problem

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_UPLOAD = re.compile(r"/data/upload/(?:[0-9]+/)?")  # Label Studio: uploads of a project
_HASH = re.compile(r"[0-9a-f]{8}-(?=.)")  # that Label Studio puts before the names of uploads
_LOCAL_FILES = "/data/local-files/"  # Label Studio: its local storage


@dataclass(frozen=True, slots=True)
class PictureNames:
    """The names that a picture may have.

    Attributes:
        names: relative to the pictures folder, best first; empty where the address has no path.
        address: True if the source gives an address or an absolute path, so that only its end is looked for.
    """

    names: tuple[str, ...]
    address: bool


def names_of(place: str) -> PictureNames:
    """Return the names that a picture may have in the pictures folder.

    Args:
        place: a relative name; an absolute path; an address such as gs://bucket/a/1.jpg; or a path on a server of Label
            Studio: `/data/local-files/?d=a/1.jpg`, `/data/upload/7/0af3b2c1-1.jpg` (a hash, then the file's own name,
            which is tried last).
    """
    place = place.strip()
    if _SCHEME.match(place):
        try:
            parts = urlsplit(place)
        except ValueError:
            return PictureNames((place,), True)
        if parts.path.startswith((_LOCAL_FILES, "/data/upload/")):  # the server's address stands before them
            return names_of(parts.path + (f"?{parts.query}" if parts.query else ""))
        raw = parts.path.lstrip("/")
        plain = (raw,) if parts.scheme in ("http", "https", "file") else (place.partition("://")[2].partition("/")[2],)
        return PictureNames(_distinct((*map(unquote, plain), *plain)), True)
    if place.startswith(_LOCAL_FILES):
        inside = parse_qs(urlsplit(place).query).get("d", [""])[0]
        return PictureNames((inside.lstrip("/"),) if inside.strip("/") else (), True)
    if upload := _UPLOAD.match(place):
        name = unquote(place[upload.end() :].partition("?")[0])
        own = _HASH.sub("", name, count=1) if _HASH.match(name) else name
        return PictureNames(_distinct((name, own)), True)
    if place.startswith("/") or _DRIVE.match(place):
        return PictureNames((re.sub(r"^([A-Za-z]:)?[\\/]+", "", place),), True)
    return PictureNames((place,) if place else (), False)


def with_tails(found: Iterable[PictureNames]) -> list[tuple[str, ...]]:
    """Return the names of each picture, then those names without leading folders: "a/b/1.jpg", "b/1.jpg", "1.jpg".

    So a picture is found although only some of its folders were kept. What two pictures of the source would have in
    common ("1.jpg" of "a/1.jpg" and "b/1.jpg") is left out.
    """
    pictures = list(found)
    owners = Counter(
        tail for names in {picture.names for picture in pictures} for tail in {t for n in names for t in _tails(n)}
    )
    shared = {tail for tail, count in owners.items() if count > 1}
    return [
        _distinct((*picture.names, *(tail for name in picture.names for tail in _tails(name) if tail not in shared)))
        for picture in pictures
    ]


def address_notes(file: Path, pictures: Sequence[PictureNames]) -> Iterator[Problem]:
    """Yield what is to be said about the pictures of a source that are given by addresses: nothing where none is."""
    addresses = [picture for picture in pictures if picture.address]
    if addresses:
        hashed = any(_HASH.match(picture.names[0]) and len(picture.names) > 1 for picture in addresses if picture.names)
        without = " (without the hash that Label Studio puts before it where only that file is there)" * hashed
        message = (
            f"{len(addresses)} of {len(pictures)} pictures are addresses, which are not fetched: they are looked for "
            f"by name in the pictures folder{without}"
        )
        yield Problem(file, None, "interpreted", message, "warning")


def _tails(name: str) -> list[str]:
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    return ["/".join(parts[start:]) for start in range(1, len(parts))][-16:]


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, names)))
