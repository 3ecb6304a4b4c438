"""XML of annotation tools, read without what makes XML dangerous."""

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

_MAX_DEPTH = 64  # elements inside one another; annotations have about six


def parse_xml(content: bytes) -> Element:
    """Return the root element of a document.

    Document types are refused, and with them all entities: neither can a text grow without bounds, nor is another file
    read.

    Args:
        content: a whole document, in UTF-8 or in the encoding that it names.

    Raises:
        ValueError: it is not well-formed, has a document type, or is nested too deeply; the message says which.
    """
    builder = TreeBuilder()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"elements nested more than {_MAX_DEPTH} deep; expected an annotation")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: object) -> None:
        raise ValueError("a document type (<!DOCTYPE ...>), which is not read; expected plain elements")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(f"what is not XML ({error}); expected an annotation") from None
    except LookupError as error:
        raise ValueError(f"an encoding that is not known ({error}); expected UTF-8") from None
    return builder.close()
