"""One HTML page with everything inside: no script, no font, no image is fetched from anywhere.

Every function returns a piece of HTML; `document` puts pieces into a page. Text is escaped here and only here.
"""

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from research.report.terminal import cell_text


def document(title: str, lead: str, sections: Sequence[str], *, footer: str = "") -> str:
    """A whole page: title, one leading paragraph, a list of the sections, the sections, a footer."""
    style = files("research.report").joinpath("page.css").read_text(encoding="utf-8")
    links = re.findall(r'<section id="([^"]*)"><h2>(.*?)</h2>', "".join(sections))
    contents = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in links)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p><nav>{contents}</nav></header>\n'
        f"<main>\n{chr(10).join(sections)}\n</main>\n<footer>{escape(footer)}</footer>\n</body>\n</html>\n"
    )


def section(title: str, *blocks: str, lead: str = "") -> str:
    """A titled part of the page, reachable from the list at its top."""
    anchor = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    opening = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>{opening}{"".join(blocks)}</section>'


def text(paragraph: str) -> str:
    """A paragraph."""
    return f"<p>{escape(paragraph)}</p>"


def note(paragraph: str, *, good: bool | None = None) -> str:
    """A set-off remark; `good` colours it as an aim that was met or missed."""
    kind = {None: "note", True: "note good", False: "note bad"}[good]
    return f'<p class="{kind}">{escape(paragraph)}</p>'


def cards(items: Iterable[tuple[str, object, str]]) -> str:
    """Headline numbers: (name, value, remark) each."""
    inner = "".join(
        f'<div class="card"><span>{escape(name)}</span><strong>{escape(cell_text(value))}</strong>'
        f"<small>{escape(remark)}</small></div>"
        for name, value, remark in items
    )
    return f'<div class="cards">{inner}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, strong: Sequence[int] = ()) -> str:
    """A table; numbers stand to the right, rows whose index is in `strong` are emphasized.

    Raises ValueError when a row has not as many cells as the header.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = []
    for index, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"the table has {len(header)} columns {list(header)}, but row {index} has {list(row)}")
        emphasis = ' class="strong"' if index in strong else ""
        body.append(f"<tr{emphasis}>{''.join(map(_cell, row))}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def figure(drawing: str, caption: str) -> str:
    """A drawing (an `<svg>` element from `plots.svg`) with its caption."""
    if not drawing.lstrip().startswith("<svg"):
        raise ValueError(f"a figure is an <svg> element, as report.svg makes it; got {drawing[:40]!r}")
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def columns(*blocks: str) -> str:
    """Blocks side by side where the window is wide enough, below each other where it is not."""
    return f'<div class="columns">{"".join(f"<div>{block}</div>" for block in blocks)}</div>'


def details(summary: str, *blocks: str) -> str:
    """Blocks that open when their one-line summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(blocks)}</details>"


def tokens(pieces: Sequence[str], logprobs: Sequence[float], *, prompt: str = "", title: str = "") -> str:
    """Generated text, each token coloured by the probability that the model gave it; the prompt stays grey.

    `logprobs` [n] are natural logarithms; hovering over a token shows its probability. Raises ValueError for
    unequal lengths or a logarithm above zero.
    """
    if len(pieces) != len(logprobs):
        raise ValueError(f"{len(pieces)} tokens need as many log-probabilities; got {len(logprobs)}")
    spans = []
    for piece, logprob in zip(pieces, logprobs, strict=True):
        if not logprob <= 1e-4:
            raise ValueError(f"a log-probability lies at or below 0; token {piece!r} has {logprob}")
        p = math.exp(min(logprob, 0.0))
        spans.append(f'<span class="t" style="--p:{p:.3f}" title="p = {p:.3f}">{escape(piece)}</span>')
    heading = f"<h4>{escape(title)}</h4>" if title else ""
    grey = f'<span class="prompt">{escape(prompt)}</span>' if prompt else ""
    return f'<div class="tokens">{heading}<pre>{grey}{"".join(spans)}</pre></div>'


def _cell(cell: object) -> str:
    shown = escape(cell_text(cell))
    is_number = isinstance(cell, int | float) or bool(re.match(r"^[-+−]?\d", str(cell)))
    return f'<td class="number">{shown}</td>' if is_number else f"<td>{shown}</td>"
