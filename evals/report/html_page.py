"""The page around a report: its policy, style and script. Nothing is loaded from anywhere."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
"""What the page may do: nothing but its own style and script."""
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def page(title: str, body: Iterable[str]) -> str:
    """A whole HTML document that may load nothing and talks to nobody."""
    parts = files("evals") / "report"
    style, script = (parts / "page.css").read_text("utf-8"), (parts / "page.js").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{text(title)}</title><style>{style}</style></head><body>\n"
        + "\n".join(body)
        + f"\n<script>{script}</script></body></html>\n"
    )


def text(value: object, most: int = 0) -> str:
    """
    *value* where HTML may read it only as text; control and direction characters are shown as `\ufffd`.

    Args:
        most: cut to so many characters; 0 keeps all.

    >>> text('</script><img onerror="x">')
    '&lt;/script&gt;&lt;img onerror=&quot;x&quot;&gt;'
    """
    plain = str(value)
    if most and len(plain) > most:
        plain = plain[: most - 1] + "…"
    return html.escape(_UNSEEN.sub("\ufffd", plain))


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: frozenset[int] = frozenset()
) -> str:
    """
    A table of cells that are HTML already.

    Args:
        numbers: columns that are aligned right.
    """
    kinds = [' class="n"' if column in numbers else "" for column in range(len(headings))]
    head = "".join(
        f'<th scope="col"{kind}>{text(name)}</th>' for name, kind in zip(headings, kinds, strict=True)
    )
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def tag(verdict: str, word: str = "") -> str:
    """A coloured word; the word itself says what the colour means."""
    return f'<span class="tag {text(verdict)}">{text(word or verdict)}</span>'


def filter_box(kinds: Sequence[tuple[str, str]]) -> str:
    """The box that filters cases by words and by kind, as (kind, words for people)."""
    options = "".join(f'<option value="{text(kind)}">{text(words)}</option>' for kind, words in kinds)
    return (
        '<div class="find"><input id="find" type="search" placeholder="filter cases: any words ( / )" '
        'aria-label="filter cases"><select id="kind" aria-label="kind of case">'
        f'<option value="">all kinds</option>{options}</select>'
        '<span id="told" class="dim" role="status"></span></div>'
    )
