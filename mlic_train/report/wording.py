"""Numbers and lists as words, the same way in every sentence of a report."""

from collections.abc import Sequence


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `2,345 rows`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def share(part: float, whole: float) -> str:
    """`12.3 %`; `0 %` and `100 %` only where that is exact. The space before the sign does not break."""
    if not whole:
        return "0\u00a0%"
    percent = 100 * part / whole
    if percent in (0, 100):
        return f"{percent:.0f}\u00a0%"
    if percent < 0.1:
        return "under 0.1\u00a0%"
    return "over 99.9\u00a0%" if percent > 99.9 else f"{percent:.1f}\u00a0%"


def listing(parts: Sequence[str], most: int = 5) -> str:
    """`a, b and c`; of more than `most` parts the first, and how many there are besides."""
    shown = list(parts[:most])
    if len(parts) > most:
        shown.append(f"{len(parts) - most:,} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def shorten(text: str, most: int = 100) -> str:
    """The text, cut to `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def quoted(name: str) -> str:
    """A label's name or a caption inside a sentence."""
    return f"“{shorten(name, 80)}”"
