"""XML files of annotations, without what XML can do to a reader: no DTD, no entities, no endless depth."""

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from mlic_runtime.annotations.source.files import read_bytes
from mlic_runtime.errors import DataError
from mlic_runtime.limits import MAX_ANNOTATIONS_BYTES, MAX_XML_DEPTH


class XmlError(ValueError):
    """Text that is not XML, or XML that no annotation needs."""


def load_xml(file: Path) -> Element:
    """Return the root element of an XML file.

    Raises:
        DataError: it cannot be read, is too large, is not XML, is nested too deeply, or has a document type (which
            attacks with entities need).
    """
    if file.is_file() and (size := file.stat().st_size) > MAX_ANNOTATIONS_BYTES:
        raise DataError(f"{file}: found {size} bytes; expected at most {MAX_ANNOTATIONS_BYTES}: divide it")
    try:
        return parse_xml(read_bytes(file))
    except XmlError as error:
        raise DataError(f"{file}: {error}; expected an XML file of annotations") from None


def parse_xml(content: bytes) -> Element:
    """Return the root element of an XML document.

    Raises:
        XmlError: see `load_xml`.
    """
    builder, depth = TreeBuilder(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_XML_DEPTH:
            raise XmlError(f"found more than {MAX_XML_DEPTH} elements inside one another")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise XmlError("found a document type (<!DOCTYPE ...>), which is not read because of its entities")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, LookupError, AssertionError) as error:
        raise XmlError(f"not XML ({error})") from None
