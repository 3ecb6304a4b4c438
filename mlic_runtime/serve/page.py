"""The plain page at `/`: a form that needs no script."""

import html
from collections.abc import Sequence

from mlic_runtime.errors import InputError
from mlic_runtime.predict.prediction import Prediction

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{model}</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.4 }}
body {{ max-width: 40rem; margin: 2rem auto; padding: 0 1rem }}
label, output {{ display: block; margin: 1rem 0 }}
input[type=text] {{ width: 100%; box-sizing: border-box; font: inherit; padding: .3rem }}
button {{ font: inherit; padding: .4rem 1.2rem }}
</style>
</head>
<body>
<h1>{model}</h1>
<form method="post" enctype="multipart/form-data">
<label>Picture <input type="file" name="image" accept="image/*"></label>
{caption}<label><input type="checkbox" name="evidence" value="on"> Show where the labels come from</label>
<button>Predict</button>
</form>
{results}</body>
</html>
"""
_CAPTION = '<label>Caption <input type="text" name="caption" autocomplete="off"></label>\n'


def plain_page(model: str, *, reads_caption: bool, results: Sequence[Prediction | InputError] = ()) -> str:
    """Return the page, with results below the form."""
    shown = "".join(f"<output>{_result(result)}</output>\n" for result in results)
    return _PAGE.format(model=html.escape(model), caption=_CAPTION if reads_caption else "", results=shown)


def _result(result: Prediction | InputError) -> str:
    if isinstance(result, InputError):
        return f'<strong role="alert">{html.escape(str(result))}</strong>'
    return result._repr_html_()
