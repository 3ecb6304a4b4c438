"""An `Explanation` as one picture: heat maps side by side, words below."""

import io

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from mlic_runtime.base.text import printable

from .colours import TICKS, display_size, heat_map, on_white, picture, signed, strength
from .explanation import Explanation, sides
from .page import MARK

_SIDE = 256  # pixels of the longer side of each picture
_COLUMNS = 4
_MARGIN, _GAP = 20, 16
_TEXT, _SMALL, _TITLE = 14, 11, 18  # sizes in pixels
_INK, _FAINT = (26, 26, 26), (89, 89, 89)

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def to_png(explanation: Explanation) -> bytes:
    """Return the content of a PNG file. Its letters are Pillow's own, which are Latin: others become boxes."""
    canvas = _Canvas(_MARGIN * 2 + _COLUMNS * _SIDE + (_COLUMNS - 1) * _GAP)
    predicted = ", ".join(score.name for score in explanation.scores if score.predicted) or "no label"
    canvas.line(f"Predicted: {predicted}", _TITLE)
    canvas.line(f"{explanation.model}; method: {explanation.method_text}", _TEXT, _FAINT)
    if explanation.pixels is not None:
        _draw_pictures(canvas, explanation)
    if explanation.spans:
        _draw_words(canvas, explanation)
    if explanation.unexplained:
        canvas.line(f"{explanation.unexplained} more predicted labels are not shown", _TEXT, _FAINT)
    canvas.paragraph(explanation.meaning, _TEXT, _FAINT)
    marks = PngInfo()
    marks.add_text("Software", MARK)
    stream = io.BytesIO()
    canvas.finish().save(stream, "PNG", pnginfo=marks, optimize=True)
    return stream.getvalue()


class _Canvas:
    """A white sheet of fixed width that grows downwards; `y` is where the next thing goes."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.y = _MARGIN
        self._image = Image.new("RGB", (width, 512), "white")

    def room(self, height: int) -> ImageDraw.ImageDraw:
        """Return what draws, with at least `height` pixels below `y`."""
        needed = self.y + height + _MARGIN
        if needed > self._image.height:
            larger = Image.new("RGB", (self.width, needed + 512), "white")
            larger.paste(self._image)
            self._image = larger
        return ImageDraw.Draw(self._image)

    def paste(self, image: Image.Image, x: int) -> None:
        """Put an image at `y`."""
        self.room(image.height)
        self._image.paste(image, (x, self.y))

    def line(self, text: str, size: int, colour: tuple[int, int, int] = _INK) -> None:
        """Write one line, cut to the width."""
        shown = _fit(text, self.width - 2 * _MARGIN, size)
        self.room(2 * size).text((_MARGIN, self.y), shown, fill=colour, font=_font(size))
        self.y += round(1.6 * size)

    def paragraph(self, text: str, size: int, colour: tuple[int, int, int] = _INK) -> None:
        """Write a text over as many lines as it needs."""
        current = ""
        for word in text.split():
            longer = f"{current} {word}".strip()
            if current and _width(longer, size) > self.width - 2 * _MARGIN:
                self.line(current, size, colour)
                longer = word
            current = longer
        self.line(current, size, colour)

    def finish(self) -> Image.Image:
        """Return the sheet without what was not used."""
        return self._image.crop((0, 0, self.width, self.y + _MARGIN))


def _draw_pictures(canvas: _Canvas, explanation: Explanation) -> None:
    pixels, scale = explanation.pixels, explanation.picture_scale()
    if pixels is None:
        return
    size = display_size(pixels, _SIDE)
    panels = [(picture(pixels, size), "the picture as the model saw it", "")]
    for each in explanation.evidence:
        if each.picture is not None:
            high, low = sides(each.picture)
            shown = heat_map(pixels, each.picture, scale, size)
            panels.append((shown, explanation.title_of(each.name), f"for {signed(high)}, against {signed(low)}"))
    canvas.y += _GAP // 2
    for start in range(0, len(panels), _COLUMNS):
        draw = canvas.room(size[1] + 3 * _TEXT)
        for column, (image, title, note) in enumerate(panels[start : start + _COLUMNS]):
            x = _MARGIN + column * (_SIDE + _GAP)
            canvas.paste(image, x)
            y = canvas.y + size[1] + 4
            draw.text((x, y), _fit(title, _SIDE, _TEXT), fill=_INK, font=_font(_TEXT))
            draw.text((x, y + round(1.3 * _TEXT)), note, fill=_FAINT, font=_font(_TEXT))
        canvas.y += size[1] + 4 + 3 * _TEXT + _GAP // 2
    _draw_legend(canvas, scale, "a place")


def _draw_words(canvas: _Canvas, explanation: Explanation) -> None:
    scale = explanation.word_scale()
    canvas.y += _GAP // 2
    for each in explanation.evidence:
        if each.words is None:
            continue
        canvas.line(explanation.title_of(each.name), _TEXT)
        parts = strength(each.words, scale)
        x, height = _MARGIN, _TEXT + _SMALL + 12
        for text, number in explanation.pieces():
            text = " ".join(text.split())
            if not text:
                x += 4
                continue
            text = _fit(text, canvas.width - 2 * _MARGIN - 8, _TEXT)
            value = "" if number is None else signed(each.words[number])
            width = max(_width(text, _TEXT), _width(value, _SMALL)) + 8
            if x + width > canvas.width - _MARGIN and x > _MARGIN:
                x, canvas.y = _MARGIN, canvas.y + height + 4
            draw = canvas.room(height)
            if number is not None:
                colour = on_white(float(parts[number]))
                draw.rectangle((x, canvas.y, x + width - 1, canvas.y + height - 1), fill=colour)
            ink = _FAINT if number is None else _INK
            draw.text((x + 4, canvas.y + 2), text, fill=ink, font=_font(_TEXT))
            draw.text((x + 4, canvas.y + _TEXT + 6), value, fill=_INK, font=_font(_SMALL))
            x += width + 2
        canvas.y += height + _GAP // 2
    _draw_legend(canvas, scale, "a word")


def _draw_legend(canvas: _Canvas, scale: float, what: str) -> None:
    if scale <= 0:
        canvas.line(f"Nothing speaks for or against these labels: every number of {what} is 0.", _TEXT, _FAINT)
        return
    draw, x, size = canvas.room(2 * _TEXT), _MARGIN, _font(_TEXT)
    draw.text((x, canvas.y), "against", fill=_FAINT, font=size)
    x += _width("against", _TEXT) + 8
    for tick in TICKS:
        text = f"{scale * tick:+.2g}" if tick else "0"
        width = _width(text, _TEXT) + 16
        shade = on_white((-1 if tick < 0 else 1) * abs(tick) ** 0.5)
        draw.rectangle((x, canvas.y - 2, x + width - 1, canvas.y + _TEXT + 5), fill=shade)
        draw.text((x + 8, canvas.y), text, fill=_INK, font=size)
        x += width
    draw.text((x + 8, canvas.y), f"for the label; logits of {what}", fill=_FAINT, font=size)
    canvas.y += 2 * _TEXT


def _fit(text: str, width: int, size: int) -> str:
    text = printable(text)
    if _width(text, size) <= width:
        return text
    # By halves: a caption may have many thousands of characters.
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _width(text[:middle] + "...", size) <= width else (low, middle - 1)
    return text[:low] + "..."


def _width(text: str, size: int) -> int:
    return round(_font(size).getlength(text))


def _font(size: int) -> _Font:
    return ImageFont.load_default(size)
