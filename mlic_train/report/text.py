"""Shares and shortened texts, in the same form in every table and plot."""


def share(part: float, whole: float) -> str:
    """Return a part in percent, such as `12.3 %`; `0 %` and `100 %` only where that is exact.

    The space before the sign does not break.
    """
    percent = 100 * part / whole if whole else 0
    if percent in (0, 100):
        return f"{percent:.0f}\u00a0%"
    if percent < 0.1:
        return "under 0.1\u00a0%"
    return "over 99.9\u00a0%" if percent > 99.9 else f"{percent:.1f}\u00a0%"


def shorten(text: str, most: int = 100) -> str:
    """Return the text, cut to `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
