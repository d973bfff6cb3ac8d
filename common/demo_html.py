"""Pieces of the page: bars, pictures, tables, messages, as HTML in which nothing of the data becomes markup.

Belongs here: how a result looks. What is shown is the tabs' business, attention over a photo `common/looks.py`'s.
Pictures stand in the page itself, as data: nothing of a result is left on the disk.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup
from PIL import Image

_QUALITY = 85

CSS = """
.gradio-container { min-width: 0; max-width: min(72rem, 100%) !important; margin: 0 auto !important; }
footer { display: none !important; }
.hoianh { --soft: #545b64; }
.hoianh-head { --soft: #545b64; }
.dark .hoianh { --soft: #b3bac2; }
.dark .hoianh-head { --soft: #b3bac2; }
.hoianh-head { display: flex; flex-wrap: wrap; align-items: baseline; gap: .1rem 1rem; }
.hoianh-head h1 { font-size: 1.6rem; margin: 0; }
.hoianh-head p { margin: 0; color: var(--soft); flex: 1 1 12rem; }
.hoianh-head nav { display: flex; gap: .8rem; }
.hoianh-head nav a, .hoianh a { color: #0072b2; text-decoration: underline; }
.dark .hoianh-head nav a, .dark .hoianh a { color: #6cb9ec; }
.hoianh-head nav b { font-weight: 600; }
.hoianh { font-size: 1rem; line-height: 1.45; color: var(--body-text-color); overflow-wrap: break-word; }
.hoianh h2 { font-size: 1.1rem; margin: 1.1rem 0 .4rem; }
.hoianh h2:first-child { margin-top: 0; }
.hoianh .soft { color: var(--soft); font-size: .9rem; margin: .3rem 0; }
.hoianh .first { font-size: 1.35rem; font-weight: 600; margin: .1rem 0 .6rem; }
.hoianh .warn { border-left: .3rem solid #d55e00; padding: .4rem .8rem; margin: .4rem 0; }
.hoianh dl.bars { display: grid; grid-template-columns: minmax(5rem, max-content) 1fr max-content; gap: .35rem .6rem;
  margin: .4rem 0; align-items: center; }
.hoianh .bars dt { grid-column: 1; max-width: 12rem; }
.hoianh .bars dd { display: contents; }
.hoianh .bars .bar { background: var(--border-color-primary); height: 1rem; border-radius: .2rem; overflow: hidden; }
.hoianh .bars .bar i { display: block; height: 100%; background: #0072b2; }
.hoianh .bars .figure { text-align: right; font-variant-numeric: tabular-nums; }
.hoianh .grid { display: grid; gap: .7rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9rem), 1fr)); }
.hoianh .grid.small { grid-template-columns: repeat(auto-fill, minmax(max(4.4rem, 21%), 1fr)); gap: .45rem; }
.hoianh figure { margin: 0; }
.hoianh figure img { display: block; width: 100%; height: auto; border-radius: .25rem; background: #fff; }
.hoianh figcaption { font-size: .9rem; margin-top: .2rem; }
.hoianh .small figcaption { font-size: .8rem; font-variant-numeric: tabular-nums; }
.hoianh .small .bar { background: var(--border-color-primary); height: .45rem; margin-top: .2rem; }
.hoianh .small .bar i { display: block; height: 100%; background: #009e73; }
.hoianh .chart img { max-width: 36rem; }
.hoianh .wide { overflow-x: auto; }
.hoianh .wide img { max-width: none; width: max(100%, 40rem); }
.hoianh summary { cursor: pointer; margin: .6rem 0; }
.hoianh .words span { display: inline-block; padding: .1rem .35rem; margin: .1rem; border-radius: .2rem; }
.hoianh .scroll { overflow-x: auto; max-width: 100%; }
.hoianh table { border: 0 !important; border-collapse: collapse; font-size: .85rem;
  font-variant-numeric: tabular-nums; }
#photos table { width: 100%; }
#photos th, #photos td { white-space: normal !important; overflow-wrap: anywhere; }
#photos .table-wrap { max-width: 100%; overflow-x: auto; }
#photos td { min-width: 0 !important; max-width: 60vw; }
.hoianh th, .hoianh td { padding: .3rem .45rem !important; text-align: right; white-space: normal;
  border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important; }
.hoianh thead th { vertical-align: bottom; min-width: 3.8rem; }
.hoianh thead, .hoianh tbody, .hoianh tr { border: 0 !important; }
.hoianh td.text { text-align: left; overflow-wrap: anywhere; min-width: 6rem; }
.hoianh tbody th { font-weight: 400; }
.hoianh th:first-child { text-align: left; min-width: 8rem; }
"""


def said(phrases: Mapping[str, Mapping[str, str]], language: str) -> dict[str, str]:
    """Phrases `{name: {language: text}}` in one language."""
    return {name: texts[language] for name, texts in phrases.items()}


def percent(share: float, language: str) -> str:
    """A share as people of that language write it: 73,2 % or 73.2%."""
    text = f"{100 * share:.1f}"
    return text.replace(".", ",") + " %" if language == "vi" else text + "%"


def block(*parts: str) -> Markup:
    """A result: its parts one below the other."""
    return Markup('<div class="hoianh">{}</div>').format(Markup("").join(parts))


def heading(text: str) -> Markup:
    return Markup("<h2>{}</h2>").format(text)


def note(text: str) -> Markup:
    """A line beside the result."""
    return Markup('<p class="soft">{}</p>').format(text)


def problem(text: str, detail: str = "") -> Markup:
    """What went wrong, for the one who reads; `detail` for whoever wants to know more."""
    more = note(detail) if detail else Markup("")
    return block(Markup('<div class="warn" role="alert"><p>{}</p>{}</div>').format(text, more))


def bars(rows: Iterable[tuple[str, float]], language: str) -> Markup:
    """Names with their probabilities, each with a bar as long as it is probable."""
    lines = Markup("").join(
        Markup(
            '<dt>{}</dt><dd><span class="bar"><i style="width:{:.2f}%"></i></span><span class="figure">{}</span></dd>'
        ).format(name, 100 * share, percent(share, language))
        for name, share in rows
    )
    return Markup('<dl class="bars">{}</dl>').format(lines)


def words(pieces: Sequence[tuple[str, float]], language: str) -> Markup:
    """Words of a question, the stronger coloured the more weight they have."""
    most = max((weight for _, weight in pieces), default=1) or 1
    spans = Markup(" ").join(
        Markup('<span style="background:rgba(0,158,115,{:.2f})">{} <small>{}</small></span>').format(
            0.55 * weight / most, word, percent(weight, language)
        )
        for word, weight in pieces
    )
    return Markup('<p class="words">{}</p>').format(spans)


def pictures(figures: Sequence[Markup], kind: str = "") -> Markup:
    """Figures side by side, as many as there is room for; `kind` "small" for frames of a clip."""
    return Markup('<div class="grid {}">{}</div>').format(kind, Markup("").join(figures))


def figure(picture: Image.Image, caption: str, *, alt: str, weight: float | None = None) -> Markup:
    """A picture over its caption, and between them a bar of `weight` (0–1), if there is one."""
    bar = Markup("")
    if weight is not None:
        bar = Markup('<div class="bar"><i style="width:{:.1f}%"></i></div>').format(100 * weight)
    return Markup(
        '<figure><img src="{}" width="{}" height="{}" alt="{}">{}<figcaption>{}</figcaption></figure>'
    ).format(as_source(picture), picture.width, picture.height, alt, bar, caption)


def chart(source: str, *, alt: str, wide: bool = False) -> Markup:
    """A drawn picture, by its data URI; a `wide` one is as wide as the page, and on a phone wider."""
    kind = "wide" if wide else "chart"
    return Markup('<figure class="{}"><img src="{}" alt="{}"></figure>').format(kind, source, alt)


def folded(title: str, lines: Iterable[str]) -> Markup:
    """Lines that are shown when their title is clicked."""
    return Markup("<details><summary>{}</summary>{}</details>").format(title, Markup("").join(map(note, lines)))


def as_source(picture: Image.Image, kind: str = "JPEG") -> str:
    """A picture as a data URI."""
    data = io.BytesIO()
    picture.save(data, kind, quality=_QUALITY)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"


def table(rows: Sequence[Mapping[str, object]], titles: Mapping[str, str]) -> Markup:
    """Rows under the names of the first one's columns, of which `titles` shows some otherwise. A figure and what it
    varies by may stand below each other: a study has many columns."""
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(titles.get(name, name)) for name in rows[0])
    body = Markup("")
    for row in rows:
        first, *others = row.values()
        cells = Markup("").join(
            Markup('<td class="{}">{}</td>').format("text" if text[:1].isalpha() else "", text.replace("± ", "±\u00a0"))
            for text in map(str, others)
        )
        body += Markup('<tr><th scope="row">{}</th>{}</tr>').format(first, cells)
    return Markup(
        '<div class="scroll" tabindex="0"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(head, body)
