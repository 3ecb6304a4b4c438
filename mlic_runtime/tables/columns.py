"""Names in sources of rows: of columns, of picture files, of standard input.

Training and inference find the columns of a table by the same names, see `find_columns`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlic_runtime.errors import InputError
from mlic_runtime.picture.signatures import PICTURE_SUFFIXES as PICTURE_SUFFIXES

# Names of columns and keys, the best first. Upper and lower case, spaces, hyphens and underscores do not matter:
# "Image ID" is image_id. The exact name ImageID is our own and comes first; in other spellings it is often a number
# beside a better column, such as COCO's file_name. German, French and Spanish names follow the English ones, with and
# without their accents.
IMAGE_COLUMNS = (
    "ImageID",
    "image",
    "images",
    "file_name",
    "image_path",
    "image_file",
    "image_filename",
    "image_file_name",
    "file_path",
    "path",
    "image_name",
    "img_path",
    "img_name",
    "img_file",
    "file",
    "img",
    "picture",
    "photo",
    "poster",
    "image_index",
    "image_id",
    "img_id",
    *("Bild", "Bilder", "Bilddatei", "Bildname", "Dateiname", "Foto", "Fotos"),
    *("fichier", "nom_fichier", "nom_du_fichier"),
    *("imagen", "imágenes", "imagenes", "archivo", "nombre_archivo", "nombre_de_archivo"),
)
ID_COLUMNS = ("id",)  # names a picture only where nothing better does, see `find_columns`
CAPTION_COLUMNS = (
    *("Caption", "captions", "text", "sentence", "sentences", "prompt"),
    *("Beschriftung", "Bildbeschriftung", "Bildunterschrift", "Bildbeschreibung", "Texte"),
    *("légende", "legende", "leyenda", "pie_de_foto", "texto"),
)
WEAK_CAPTION_COLUMNS = (
    *("description", "title", "Beschreibung", "Titel", "titre"),
    *("descripción", "descripcion", "título", "titulo"),
)  # what things are called: a caption, but not instead of pictures

# Folders beside a table that its pictures are looked for in, in lower case, the best first.
PICTURE_FOLDERS = ("images", "image", "imgs", "img", "pictures", "photos", "posters", "bilder", "fotos", "imagenes")

STDIN = "-"  # on the command line

EXPECTED_COLUMNS = (
    "a column for pictures (ImageID, image, file_name, path, ...), for captions (Caption, text, ...), or both"
)

_NUMBERED = re.compile(r"(.*?)[\W_]*[0-9]+")


def plain_name(name: str) -> str:
    """Return a column's name in the form in which names are compared: letters and digits, in lower case."""
    return "".join(character for character in name.casefold() if character.isalnum())


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a table hold the picture and the captions.

    Attributes:
        image: the column of the picture; None without one.
        captions: the columns of the captions: one, or several that are numbered, such as caption_1 and caption_2.
        others: columns with such names that were passed over for better ones.
    """

    image: str | None
    captions: tuple[str, ...]
    others: tuple[str, ...] = ()


def find_columns(names: Sequence[str], image: str | None = None, caption: str | None = None) -> Columns:
    """Find the columns of the picture and of the captions by their names.

    Of several names for the same, the first in the lists above is taken. A column `id` names the picture only where no
    other column does, and no column is sure to hold captions: in a table of texts it is the number of the text.

    Args:
        names: of all columns.
        image: the column of the picture, if the user names it.
        caption: the column of the captions, if the user names it.

    Raises:
        InputError: a named column is not there, two columns have the same name, or a table has neither column.
    """
    for given in (image, caption):
        if given is not None:
            require_column(names, given)
    captions, other_captions = ((caption,), ()) if caption is not None else _find_captions(names)
    found = [image] if image is not None else ranked(names, IMAGE_COLUMNS)
    if not found and not (ranked(captions, CAPTION_COLUMNS) or numbered(captions, CAPTION_COLUMNS)):
        found = ranked(names, ID_COLUMNS)
    found = [name for name in found if name not in captions]
    columns = Columns(found[0] if found else None, captions, (*found[1:], *other_captions))
    taken = [*([] if columns.image is None else [columns.image]), *columns.captions]
    if not taken:
        shown = " ".join(", ".join(names).split())[:200] or "nothing"
        raise InputError(f"found {shown}; expected {EXPECTED_COLUMNS}: name it with --image-column or --caption-column")
    for name in taken:
        require_once(names, name)
    return columns


def ranked(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return those names that are in a list of known ones, in its order.

    Raises:
        InputError: two of them are the same name in other spellings.
    """
    exact = {name: rank for rank, name in enumerate(known)}
    plain = {plain_name(name): rank for rank, name in enumerate(known)}
    by_rank: dict[int, str] = {}
    for name in names:
        rank = exact.get(name, plain.get(plain_name(name)))
        if rank is None:
            continue
        if rank in by_rank:
            raise InputError(f"found the columns {by_rank[rank]} and {name}, which are the same; expected one of them")
        by_rank[rank] = name
    return [by_rank[rank] for rank in sorted(by_rank)]


def numbered(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return those names that are a known one with a number after it, such as tag_1 and tag_2, in their order."""
    plain = {plain_name(name) for name in known}
    found = [(name, _NUMBERED.fullmatch(name.strip())) for name in names]
    return [name for name, match in found if match is not None and plain_name(match[1]) in plain]


def require_column(names: Sequence[str], name: str) -> None:
    """Refuse a column that the user names and that is not there, or is there twice.

    Raises:
        InputError: so it is.
    """
    if name not in names:
        shown = ", ".join(map(repr, names))
        raise InputError(f"found no column {name!r}; expected one of: {' '.join(shown.split())[:500]}")
    require_once(names, name)


def require_once(names: Sequence[str], name: str) -> None:
    """Refuse a column whose name is there twice.

    Raises:
        InputError: so it is.
    """
    if names.count(name) > 1:
        raise InputError(f"found a column twice: {name!r}; expected each once")


def _find_captions(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns of captions, and those that were passed over."""
    found = ranked(names, (*CAPTION_COLUMNS, *WEAK_CAPTION_COLUMNS))
    more = numbered(names, CAPTION_COLUMNS)
    if not found or (more and plain_name(found[0]) not in map(plain_name, CAPTION_COLUMNS)):
        return tuple(more), tuple(found)
    return (found[0], *more), tuple(found[1:])
