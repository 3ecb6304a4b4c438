"""The corpus of hostile inputs: pictures as bytes, and captions, made by code, the same every time."""

from . import captions as _captions
from . import gifs_bmps, jpegs, others, pngs, tiffs_webps
from .cases import Caption, Picture
from .heavy import heavy_pictures

__all__ = ["Caption", "Picture", "captions", "heavy_pictures", "pictures"]


def pictures() -> list[Picture]:
    """Every picture, each under a name of its own."""
    return [
        *jpegs.pictures(),
        *pngs.pictures(),
        *gifs_bmps.gifs(),
        *gifs_bmps.bmps(),
        *tiffs_webps.tiffs(),
        *tiffs_webps.webps(),
        *others.pictures(),
    ]


def captions() -> list[Caption]:
    """Every caption, each under a name of its own."""
    return _captions.captions()
