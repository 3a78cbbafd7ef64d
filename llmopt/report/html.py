"""A report as one HTML file: both languages, light and dark, charts that need no network, a table beside each.

Language and theme are switched by style sheet alone; scripts only draw. The packed plotly in the page is the one that
its Python package ships, and the page's own policy forbids it, and everything else, any access to the network.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from llmopt.messages import LANGUAGES, t
from llmopt.report.document import Block, Cell, Chart, Code, Document, Panel, Table, Text

__all__ = ["html"]

NAMES = {"ko": "한국어", "en": "English"}
THEMES = ("auto", "light", "dark")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"


def html(documents: Mapping[str, Document], *, language: str) -> str:
    """The whole page from one document a language; ``language`` is the one it opens with."""
    page = _Page()
    articles = [page.article(document, lang) for lang, document in documents.items()]
    charts = json.dumps(page.charts, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    scripts = ""
    if page.charts:
        scripts = (
            f'<script type="application/json" id="charts">{charts}</script>'
            f'<script type="text/plain" id="plotly">{_packed_plotly()}</script><script>{_part("page.js")}</script>'
        )
    return (
        f'<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(documents[language].title)}</title><style>\n{_part('page.css')}</style></head><body>\n"
        f"<header>{_switches(language)}</header>\n<main>{''.join(articles)}</main>\n{scripts}</body></html>\n"
    )


def _switches(language: str) -> str:
    """Radio buttons that the style sheet reads."""

    def buttons(name: str, legend: str, options: Sequence[tuple[str, str]], chosen: str) -> str:
        inputs = "".join(
            f'<label lang="{value if name == "lang" else language}"><input type="radio" name="{name}" '
            f'id="{name}-{value}" value="{value}"{" checked" if value == chosen else ""}> {escape(text)}</label>'
            for value, text in options
        )
        return f"<fieldset><legend>{escape(legend)}</legend>{inputs}</fieldset>"

    themes = [(theme, t(f"report.theme_{theme}", lang=language)) for theme in THEMES]
    return buttons("lang", "언어 · Language", [(lang, NAMES[lang]) for lang in LANGUAGES], language) + buttons(
        "theme", t("report.theme", lang=language), themes, "auto"
    )


class _Page:
    """Articles, and the charts found on the way."""

    def __init__(self) -> None:
        self.charts: dict[str, Any] = {}
        self._language = ""

    def article(self, document: Document, language: str) -> str:
        """One document."""
        self._language = language
        claims = "".join(f"<p>{escape(claim)}</p>" for claim in document.claims)
        links = "".join(
            f'<li><a href="#{language}-{place}">{escape(section.title)}</a></li>'
            for place, section in enumerate(document.sections)
        )
        sections = "".join(
            f'<section class="block" aria-labelledby="{language}-{place}">'
            f'<h2 id="{language}-{place}">{escape(section.title)}</h2>'
            f"{''.join(part for block in section.blocks for part in self._block(block))}</section>"
            for place, section in enumerate(document.sections)
        )
        return (
            f'<article lang="{language}"><h1>{escape(document.title)}</h1><div class="claims">{claims}</div>'
            f'<nav aria-label="{escape(t("report.contents", lang=language))}"><ul class="contents">{links}</ul></nav>'
            f"{sections}<footer>{escape(document.footer)}</footer></article>"
        )

    def _block(self, block: Block) -> Iterator[str]:
        if isinstance(block, Text):
            if block.text:
                yield f"<p>{escape(block.text)}</p>"
        elif isinstance(block, Code):
            yield f"<pre>{escape(block.text)}</pre>"
        elif isinstance(block, Chart):
            yield f'<div class="charts">{"".join(map(self._panel, block.panels))}</div>'
            yield from self._table(block.table)
        else:
            yield from self._table(block)

    def _panel(self, panel: Panel) -> str:
        key = f"{self._language}-{len(self.charts)}"
        self.charts[key] = {"traces": panel.traces, "x": panel.x, "y": panel.y, "bands": panel.bands}
        return (
            f"<figure><figcaption>{escape(panel.title)}</figcaption>"
            f'<div class="plot" data-chart="{key}" role="img" aria-label="{escape(panel.alt)}"></div></figure>'
        )

    def _table(self, table: Table) -> Iterator[str]:
        if table.alike:
            text = t("report.hide_alike", lang=self._language, count=len(table.alike))
            yield f'<p><label><input type="checkbox" class="hide-alike"> {escape(text)}</label></p>'
        head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in table.headings)
        body = "".join(
            ('<tr class="alike">' if place in table.alike else "<tr>") + _row(row) + "</tr>"
            for place, row in enumerate(table.rows)
        )
        kind = ' class="answers"' if table.long else ""
        yield (
            f'<div class="wide" tabindex="0" role="region" aria-label="{escape(table.caption)}"><table{kind}>'
            f"<caption>{escape(table.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )


def _row(cells: Sequence[Cell]) -> str:
    first, *rest = cells
    return f'<th scope="row">{_cell(first)}</th>' + "".join(f"<td>{_cell(cell)}</td>" for cell in rest)


def _cell(cell: Cell) -> str:
    """No text of a model is ever markup; what it lost and gained is."""
    if isinstance(cell, str):
        return escape(cell)
    tags = {"same": "{}", "gone": "<del>{}</del>", "new": "<ins>{}</ins>"}
    return "".join(tags[kind].replace("{}", escape(text)) for text, kind in cell.spans)


@cache
def _packed_plotly() -> str:
    """A third of its size; every browser since 2023 unpacks it by itself, in any other the tables remain."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - megabytes, only to write a report

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), compresslevel=9, mtime=0)).decode()


def _part(name: str) -> str:
    return files("llmopt.report").joinpath(name).read_text(encoding="utf-8")
