"""Draw matplotlib's figures into a page: as SVG that takes the page's colours and fonts."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

# matplotlib knows colours, a page has variables for them: one that no figure has stands for each.
SERIES = 8
COLORS = {f"#f0000{place}": f"var(--series-{place})" for place in range(SERIES)}
COLORS |= {"#f00010": "var(--muted)", "#f00011": "var(--line)", "#f00012": "var(--alert)"}
MUTED, LINE, ALERT = list(COLORS)[SERIES:]

_FONT = re.compile(r"font-family: [^;]*;? ?")  # the page has its own
_REFERENCE = re.compile(r"#([\w-]+)")


def series_color(place: int) -> str:
    """Return the colour that stands for a series' own."""
    return list(COLORS)[place % SERIES]


def inline_svg(figure: Figure, label: str, *, salt: str) -> Markup:
    """Write a figure as an ``<svg>`` element without outside references.

    Args:
        figure: to write; it holds no text of a user's.
        label: what it shows, for who does not see it.
        salt: sets its ids apart from those of the page's other figures.
    """
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())
    _strip(root)
    used = {
        name for one in root.iter() for v in one.attrib.values() for name in _REFERENCE.findall(v)
    }
    for one in root.iter():
        if one.get("id") not in used:
            one.attrib.pop("id", None)
    box = root.attrib["viewBox"]
    root.attrib = {"viewBox": box, "role": "img", "aria-label": label}
    text = ElementTree.tostring(root, encoding="unicode")
    for color, variable in COLORS.items():
        text = text.replace(color, variable)
    return Markup(text)  # all of it is matplotlib's, or was escaped by ElementTree


def _strip(root: ElementTree.Element) -> None:
    """Drop namespaces, which HTML does without, and styles that would be the whole page's."""
    for parent in root.iter():
        parent.tag = _local(parent.tag)
        parent.attrib = {_local(name): _FONT.sub("", v) for name, v in parent.attrib.items()}
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)


def _local(name: str) -> str:
    return name.rpartition("}")[2]
