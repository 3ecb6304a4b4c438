"""An `Explanation` as HTML: a page that needs no other file, and a part for notebooks."""

import base64
import hashlib
import html
import io

from PIL import Image

from mlic_runtime.base.text import printable

from .colours import TICKS, display_size, heat_map, on_white, picture, signed, strength
from .explanation import Explanation, LabelEvidence, LabelScore, sides

MARK = "MLIC explanation"  # near the start of each file that is written, so that it may be replaced
SHOWN_SCORES = 6  # labels whose bars are seen at once; predicted ones always are
MAX_SCORES = 200
_SIDE, _SMALL_SIDE = 288, 120  # pixels of the longer side of a picture on the page and in a notebook
_LEVELS = 10  # shades of a word, a class of the style sheet each
_NOTEBOOK_LABELS = 3
_BAR = 200  # width of a bar


def to_page(explanation: Explanation) -> str:
    """Return a whole HTML page, without scripts and without anything from another place.

    Its content security policy allows pictures inside the page and its own style sheet, nothing else.
    """
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    predicted = ", ".join(score.name for score in explanation.scores if score.predicted) or "no label"
    parts = [
        f'<!doctype html>\n<html lang="en">\n<!-- {MARK} -->\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>{_escape(predicted)}: {_escape(explanation.model)}</title>",
        f"<style>{style}</style>\n</head>\n<body>\n<main>",
        f"<h1>Predicted: {_escape(predicted)}</h1>",
        _facts(explanation),
        _scores(explanation.scores),
        *_pictures(explanation),
        *_words(explanation),
        '<h2>What the numbers mean</h2>\n<p class="note">' + _escape(explanation.meaning) + "</p>",
        '<p class="note">A logit of 0 is a probability of 0.50 for the model, 1 is 0.73, and -1 is 0.27.</p>',
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def to_fragment(explanation: Explanation) -> str:
    """Return a small HTML part for a notebook, which drops style sheets: heat maps and words of few labels."""
    blocks = []
    picture_scale, word_scale = explanation.picture_scale(), explanation.word_scale()
    for each in explanation.evidence[:_NOTEBOOK_LABELS]:
        lines = [f"<b>{_escape(explanation.title_of(each.name))}</b>"]
        if explanation.pixels is not None and each.picture is not None:
            size = display_size(explanation.pixels, _SMALL_SIDE)
            shown = heat_map(explanation.pixels, each.picture, picture_scale, size)
            lines.append(_image(shown, _describe(each)))
        if each.words is not None:
            parts = strength(each.words, word_scale)
            words = (
                _escape(text)
                if number is None
                else f'<span style="color:#000;background:rgb{on_white(float(parts[number]))}" '
                f'title="{signed(each.words[number])}"><bdi>{_escape(text)}</bdi></span>'
                for text, number in explanation.pieces()
            )
            lines.append(f'<span style="overflow-wrap:anywhere">{"".join(words)}</span>')
        blocks.append(f'<div style="max-width:320px;margin:4px 12px 4px 0">{"<br>".join(lines)}</div>')
    scales = [
        f"{what} to ±{scale:.2g}" for what, scale in (("places", picture_scale), ("words", word_scale)) if scale > 0
    ]
    note = f"{explanation.method_text}; orange for, blue against, in logits{': ' if scales else ''}{', '.join(scales)}"
    blocks_html = f'<div style="display:flex;flex-wrap:wrap">{"".join(blocks)}</div>'
    return f"<div>{blocks_html}<small>{_escape(note)}</small></div>"


def _facts(explanation: Explanation) -> str:
    facts = [
        ("Picture", explanation.image or ("from memory" if explanation.pixels is not None else "none")),
        ("Caption", explanation.caption if explanation.caption and explanation.caption.strip() else "none"),
        ("Model", explanation.model),
        ("Method", explanation.method_text),
    ]
    return f"<dl>{''.join(f'<dt>{name}</dt><dd><bdi>{_escape(value)}</bdi></dd>' for name, value in facts)}</dl>"


def _scores(scores: tuple[LabelScore, ...]) -> str:
    scores, hidden = scores[:MAX_SCORES], len(scores) - MAX_SCORES
    first = max(SHOWN_SCORES, sum(score.predicted for score in scores))
    parts = [_table(scores[:first])]
    if scores[first:]:
        parts.append(f"<details><summary>{len(scores) - first} less probable labels</summary>{_table(scores[first:])}")
        parts.append("</details>")
    if hidden > 0:
        parts.append(f'<p class="note">{hidden} less probable labels are not shown.</p>')
    return "".join(parts)


def _table(scores: tuple[LabelScore, ...]) -> str:
    rows = [
        f'<tr{" class=yes" if score.predicted else ""}><th scope="row"><bdi>{_escape(score.name)}</bdi></th>'
        f"<td>{_bar(score)}</td><td class=number>{_number(score.probability)}</td>"
        f"<td class=number>{_number(score.threshold)}</td><td>{'yes' if score.predicted else ''}</td></tr>"
        for score in scores
    ]
    head = (
        '<tr><th scope="col">Label</th><td></td><th scope="col">Probability</th>'
        '<th scope="col">Threshold</th><th scope="col">Predicted</th></tr>'
    )
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _bar(score: LabelScore) -> str:
    """Return a bar as SVG, whose attributes need no style; a line marks the threshold."""
    if score.probability is None:
        return ""
    bar = f'<rect class=fill width="{_BAR * score.probability:.1f}" height="12"/>'
    at = None if score.threshold is None else min(max(_BAR * score.threshold, 1), _BAR - 1)
    mark = "" if at is None else f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="12"/>'
    track = f'<rect class=track width="{_BAR}" height="12"/>'
    return (
        f'<svg viewBox="0 0 {_BAR} 12" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f"{track}{bar}{mark}</svg>"
    )


def _pictures(explanation: Explanation) -> list[str]:
    if explanation.pixels is None:
        return []
    pixels, scale = explanation.pixels, explanation.picture_scale()
    size = display_size(pixels, _SIDE)
    original = _image(picture(pixels, size), explanation.view)
    figures = [f"<figure>{original}<figcaption>{_escape(explanation.view.capitalize())}.</figcaption></figure>"]
    for each in explanation.evidence:
        if each.picture is not None:
            high, low = sides(each.picture)
            shown = _image(heat_map(pixels, each.picture, scale, size), _describe(each))
            figures.append(
                f"<figure>{shown}<figcaption><b><bdi>{_escape(explanation.title_of(each.name))}</bdi></b><br>"
                f"for {signed(high)}, against {signed(low)}{_rest(each)}</figcaption></figure>"
            )
    return [
        "<h2>Where in the picture</h2>",
        _more(explanation),
        f"<div class=figures>{''.join(figures)}</div>",
        _legend(scale, "a place of the picture"),
    ]


def _words(explanation: Explanation) -> list[str]:
    if not explanation.spans:
        return []
    scale = explanation.word_scale()
    blocks = []
    for each in explanation.evidence:
        if each.words is None:
            continue
        parts = strength(each.words, scale)
        shown = []
        for text, number in explanation.pieces():
            if number is None:
                between = " ".join(text.split()) or " "
                shown.append(f" <span class=unread>{_escape(between)}</span> " if between.strip() else " ")
            else:
                shown.append(
                    f"<span class={_level(float(parts[number]))}><bdi>{_escape(text)}</bdi>"
                    f"<small>{signed(each.words[number])}</small></span>"
                )
        high, low = sides(each.words)
        blocks.append(
            f"<h3><bdi>{_escape(explanation.title_of(each.name))}</bdi></h3>\n<p class=words>{''.join(shown)}</p>\n"
            f'<p class="note">for {signed(high)}, against {signed(low)}{_rest(each)}</p>'
        )
    unread = any(number is None and text.strip() for text, number in explanation.pieces())
    note = '<p class="note">The model did not read what is in grey.</p>' if unread else ""
    return [
        "<h2>Which words</h2>",
        "" if explanation.pixels is not None else _more(explanation),
        *blocks,
        note,
        _legend(scale, "a word"),
    ]


def _more(explanation: Explanation) -> str:
    if not explanation.unexplained:
        return ""
    return f'<p class="note">{explanation.unexplained} more predicted labels are in the table only.</p>'


def _rest(each: LabelEvidence) -> str:
    return "" if each.rest is None else f", rest of the logit {signed(each.rest)}"


def _legend(scale: float, what: str) -> str:
    if scale <= 0:
        return f'<p class="note">Nothing speaks for or against these labels: every number of {what} is 0.</p>'
    cells = "".join(
        f"<span class={_level((-1 if tick < 0 else 1) * abs(tick) ** 0.5)}>{scale * tick:+.2g}</span>"
        if tick
        else "<span class=n0>0</span>"
        for tick in TICKS
    )
    return (
        f"<div class=legend><span>against</span>{cells}<span>for the label</span></div>\n"
        f'<p class="note">Logits of {what}. The shade follows the square root, so that weak ones are seen.</p>'
    )


def _describe(each: LabelEvidence) -> str:
    """Return a heat map in words, for people who do not see it."""
    if each.picture is None:
        return each.name
    high, low = sides(each.picture)
    rows, columns = each.picture.shape
    row, column = divmod(int(each.picture.argmax()), columns)
    best = "" if high <= 0 else f"; most in row {row + 1} of {rows}, column {column + 1} of {columns}"
    return f"Heat map of {each.name}: {signed(high)} for, {signed(low)} against{best}"


def _level(part: float) -> str:
    level = round(_LEVELS * abs(part))
    return f"{'p' if part > 0 and level else 'n'}{level}"


def _image(image: Image.Image, text: str) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    return (
        f'<img src="data:image/png;base64,{data}" width="{image.width}" height="{image.height}" alt="{_escape(text)}">'
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _escape(text: str) -> str:
    """Escape a text for HTML; what does not print is shown, so that no text can turn the order of others around."""
    return html.escape(printable(text))


def _style() -> str:
    shades = []
    for level in range(_LEVELS + 1):
        for name, sign in (("p", 1), ("n", -1)):
            red, green, blue = on_white(sign * level / _LEVELS)
            shades.append(f".{name}{level}{{background:#{red:02x}{green:02x}{blue:02x}}}")
    return _CSS + "".join(shades)


_CSS = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:#1a1a1a;font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1040px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 12px;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:32px 0 8px}
h3{font-size:1rem;margin:16px 0 4px;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:2px 16px;margin:0 0 20px}
dt{color:#595959}dd{margin:0;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;max-width:640px;table-layout:fixed}
th:nth-child(1){width:26%}th:nth-child(3),th:nth-child(4),th:nth-child(5){width:17%}
summary{color:#595959;font-size:.9rem;margin:6px 0;cursor:pointer}
th,td{padding:2px 10px 2px 0;text-align:left;font-weight:400;overflow-wrap:anywhere}
thead th{color:#595959;font-size:.85rem;overflow-wrap:normal}
.yes th,.yes td{font-weight:600}.number{font-variant-numeric:tabular-nums}
svg{display:block;width:100%;min-width:60px;max-width:200px;height:12px}
.track{fill:#ececec}.fill{fill:#a3a3a3}line{stroke:#1a1a1a;stroke-width:2}
.figures{display:flex;flex-wrap:wrap;gap:16px}
figure{margin:0;width:288px;max-width:100%}
figure img{display:block;width:100%;height:auto;border:1px solid #d9d9d9}
figcaption{font-size:.9rem;margin-top:4px;overflow-wrap:anywhere}
.words{line-height:2.6;margin:0;overflow-wrap:anywhere}
.words>span:not(.unread){display:inline-block;padding:0 4px;border-radius:3px;line-height:1.25;vertical-align:top;
text-align:center;max-width:100%;margin:2px 1px}
.words small{display:block;font-size:.7rem;color:#1a1a1a;font-variant-numeric:tabular-nums}
.unread{color:#767676}
.note{color:#595959;font-size:.9rem;max-width:70ch;margin:4px 0}
.legend{display:flex;flex-wrap:wrap;gap:2px;align-items:center;font-size:.85rem;margin:12px 0 4px}
.legend span{padding:2px 8px;font-variant-numeric:tabular-nums}
.legend span:first-child{padding-left:0}
@media (max-width:560px){main{padding:16px 12px 32px}th,td{padding-right:6px;font-size:.9rem}
thead th{font-size:.66rem}svg{min-width:40px}figure{width:100%}}
@media print{figure,h3{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
