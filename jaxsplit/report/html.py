"""The parts of a self-contained page: no scripts, no external resources, light or dark by the reader's setting, printable."""

from __future__ import annotations

import html
import os
import pathlib
from collections.abc import Iterable, Sequence

from jaxsplit.errors import InputError
from jaxsplit.files import write_atomic

_LONG = 48  # Characters of a table's cell from which on it is read as a sentence, over several lines.
_STYLE = """
:root { --ink: #1c2126; --muted: #66707a; --rule: #d9dee3; --paper: #fdfefe; --soft: #f2f5f7; --accent: #00744f;
  color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --muted: #9aa5af; --rule: #333b43; --paper: #14181c; --soft: #1d2328; --accent: #3cc496; }
}
@media print {
  :root { --ink: #000; --muted: #444; --rule: #ccc; --paper: #fff; --soft: #f4f4f4; --accent: #005c3f; color-scheme: light; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  nav { display: none; } .scroll { overflow: visible; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 50rem; padding: 2.5rem 1.25rem 5rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .6rem; padding-top: .7rem; border-top: 1px solid var(--rule); break-after: avoid; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; break-after: avoid; }
p { margin: .6rem 0; }
.meta, figcaption { color: var(--muted); font-size: .875rem; }
.answer { font-size: 1.15rem; line-height: 1.5; margin: 1.3rem 0 1.5rem; padding: .9rem 1.1rem; background: var(--soft);
  border-left: 4px solid var(--accent); border-radius: 0 4px 4px 0; }
nav { font-size: .875rem; margin: 1.2rem 0; } nav a { margin-right: 1rem; white-space: nowrap; } a { color: var(--accent); }
figure { margin: 1.2rem 0 1.8rem; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif !important; }
figcaption { margin-top: .4rem; } figure.table { margin: .8rem 0; } figure.table figcaption { margin: 0 0 .4rem; break-after: avoid; }
.scroll { overflow-x: auto; background: linear-gradient(to right, var(--paper) 30%, transparent) left / 2.5rem 100%,
  linear-gradient(to left, var(--paper) 30%, transparent) right / 2.5rem 100%,
  linear-gradient(to right, var(--rule), transparent) left / .8rem 100%,
  linear-gradient(to left, var(--rule), transparent) right / .8rem 100%; background-repeat: no-repeat;
  background-attachment: local, local, scroll, scroll; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
thead { break-after: avoid; }
th, td { padding: .28rem .7rem .28rem 0; text-align: right; border-bottom: 1px solid var(--rule); vertical-align: top;
  white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; } tr { break-inside: avoid; }
tr.total td { font-weight: 600; border-bottom: none; border-top: 1.5px solid var(--muted); }
td.long { white-space: normal; text-align: left; min-width: 14rem; }
ul { padding-left: 1.2rem; } li { margin: .3rem 0; }
@media screen and (max-width: 40rem) {
  body { padding: 1.25rem .75rem 3rem; } h1 { font-size: 1.45rem; } .answer { font-size: 1.05rem; padding: .7rem .9rem; }
  .scroll th:first-child, .scroll td:first-child { position: sticky; left: 0; background: var(--paper); }
  .scroll td:first-child { white-space: normal; }
  table { font-size: .69rem; } th { font-size: .62rem; } th, td { padding-right: .2rem; } /* Seven columns fit into 400 pixels. */
}
.settings { columns: 2 21rem; column-gap: 2rem; } .settings section { break-inside: avoid; }
.settings h3 { margin-top: 0; } .settings td:last-child { white-space: normal; overflow-wrap: anywhere; }
.settings td:last-child { color: var(--muted); } .settings td.long { min-width: 0; text-align: right; }
"""


def page(title: str, *, meta: str, answer: str, notes: Iterable[str] = (),
         sections: Sequence[tuple[str, str, Sequence[str]]]) -> str:
  """A whole HTML document.

  Args:
    title, meta, answer: its head: what it is, where it comes from, and the one sentence to take away, if any.
    notes: paragraphs that belong before everything else.
    sections: (name, title, HTML parts), each reached by `#name`.
  """
  links = " ".join(f'<a href="#{text(name)}">{text(words)}</a>' for name, words, _ in sections)
  body = [f"<h1>{text(title)}</h1>", paragraph(meta, "meta"), *([paragraph(answer, "answer")] if answer else []), *map(paragraph, notes),
          f'<nav aria-label="chapters">{links}</nav>']
  for name, words, parts in sections:
    body += [f'<section id="{text(name)}">', f"<h2>{text(words)}</h2>", *parts, "</section>"]
  return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
          f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{text(title)}</title>\n'
          f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n")


def text(value: object) -> str:
  """Text with HTML's special characters escaped; a percent sign stays with its number."""
  return html.escape(str(value)).replace(" %", "\u00a0%")


def write(path: str | os.PathLike, content: str, named: str) -> pathlib.Path:
  """Writes a page to a file that a user has named, as `named` says it in an error.

  Raises:
    InputError: it cannot be written.
  """
  try:
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)
  except OSError as error:
    raise InputError(f"{named}: cannot be written ({error.strerror}); name a file that can be") from None
  return pathlib.Path(path)


def paragraph(words: str, kind: str = "") -> str:
  """A paragraph of plain text; `kind` is meta, answer or nothing."""
  return f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def figure(svg: str, caption: str) -> str:
  """An inline SVG with a caption, which is also its description for screen readers."""
  svg = svg.replace("<svg", f'<svg role="img" aria-label="{text(caption)}"', 1)
  return f"<figure>\n{_scrolled(svg, 'figure')}\n<figcaption>{text(caption)}</figcaption>\n</figure>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "", total: bool = False) -> str:
  """A table of plain texts, the first column left-aligned; `total` sets the last row apart."""
  words = lambda value: text(value).replace("_", "_<wbr>")  # A long name may go on in a second line, where the page is narrow.
  cell = lambda value: f'<td class="long">{words(value)}</td>' if len(str(value)) > _LONG else f"<td>{words(value)}</td>"
  lines = ["<tr>" + "".join(map(cell, row)) + "</tr>" for row in rows]
  if total and lines:
    lines[-1] = lines[-1].replace("<tr>", '<tr class="total">')
  head = "<thead><tr>" + "".join(f'<th scope="col">{text(name)}</th>' for name in header) + "</tr></thead>" if header else ""
  whole = _scrolled(f"<table>{head}<tbody>" + "\n".join(lines) + "</tbody></table>", f"table of {', '.join(header)}" if header else "table")
  return f'<figure class="table">{f"<figcaption>{text(caption)}</figcaption>" if caption else ""}{whole}</figure>'


def _scrolled(content: str, name: str) -> str:
  """Content that may be wider than the page, in a named region that scrolls, by the arrow keys too."""
  return f'<div class="scroll" role="region" tabindex="0" aria-label="{text(name)}">{content}</div>'


def bullets(items: Iterable[str]) -> str:
  """A list of plain texts."""
  return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"
