"""A reader's browser: Chromium opens the page, clicks through it, at the size of a phone, too."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.lab.run_report.browser import CHROMIUM, DESKTOP, PHONE, browser, opened, screenshot

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None,
        reason="playwright is not installed: pip install playwright",
    ),
    pytest.mark.skipif(
        not CHROMIUM.exists(), reason=f"no {CHROMIUM}: apt-get install chromium (Debian)"
    ),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


# Everything that reaches beyond the window's right edge, outside of boxes that scroll.
OVERFLOWING = """
[...document.querySelectorAll('body *')].filter(one => {
  if (one.closest('.scroll > *, svg, .skip')) return false;
  return one.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5;
}).map(one => one.outerHTML.slice(0, 80))
"""
# Texts too faint to be read: contrast below 4.5 by WCAG 2, of the page's plain colours.
FAINT = """
(() => {
  const luminance = ([r, g, b]) => {
    const part = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const parse = color => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const behind = one => {
    for (; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color[3]) return color;
    }
  };
  return [...document.querySelectorAll('p, a, li, td, th, h1, h2, h3, dt, dd, summary, text')]
    .filter(one => one.textContent.trim()).map(one => {
      const style = getComputedStyle(one);
      const ink = parse(one.tagName === 'text' ? style.fill : style.color);
      const [a, b] = [luminance(ink), luminance(behind(one))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), one.outerHTML.slice(0, 80)];
    }).filter(([ratio]) => ratio < 4.5);
})()
"""


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "light"), (DESKTOP, "dark")])
def test_every_section_opens_and_fits(
    chromium: Any, written: Path, size: tuple[int, int], scheme: str
) -> None:
    with opened(chromium, written, size, scheme) as (page, wrong):
        summaries = page.locator("summary")
        assert summaries.count() >= 10
        for at in range(summaries.count()):
            inside = page.locator("details").nth(at)
            before = inside.evaluate("one => one.open")
            summaries.nth(at).click()
            assert inside.evaluate("one => one.open") != before
            if before:
                summaries.nth(at).press("Enter")  # the keyboard does it, too
            assert inside.evaluate("one => one.open")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.evaluate(OVERFLOWING) == []
        assert page.evaluate(FAINT) == []
        for image in page.locator("img").all():
            assert image.evaluate("one => one.complete && one.naturalWidth > 0")
        boxes = page.locator(".scroll")
        wide = boxes.evaluate_all("all => all.filter(one => one.scrollWidth > one.clientWidth)")
        assert len(wide) > 0 or size == DESKTOP  # the tables scroll by themselves
        assert wrong == []


def test_links_lead_to_their_sections(chromium: Any, written: Path) -> None:
    with opened(chromium, written, DESKTOP) as (page, wrong):
        for link in page.locator("nav a").all():
            link.click()
            target = page.locator(str(link.get_attribute("href")))
            assert target.evaluate("one => one.getBoundingClientRect().top") < DESKTOP[1]
        page.keyboard.press("Control+Home")
        assert wrong == []


def test_a_print_shows_closed_sections(chromium: Any, written: Path) -> None:
    with opened(chromium, written, DESKTOP) as (page, _):
        shown = "document.querySelector('#environment td').checkVisibility()"
        assert not page.evaluate(shown)
        page.emulate_media(media="print")
        assert page.evaluate(shown)


def test_the_picture_of_the_docs(chromium: Any, written: Path, tmp_path: Path) -> None:
    """The same function writes docs/images/report.png."""
    picture = tmp_path / "report.png"
    assert screenshot(chromium, written, picture) == []
    shown = Image.open(picture)
    assert shown.size == Image.open("docs/images/report.png").size
    assert len(set(shown.convert("L").resize((64, 64)).tobytes())) > 20  # it is no empty page


def test_what_goes_wrong_in_a_page_is_seen(chromium: Any, tmp_path: Path) -> None:
    """The tests above would notice: a missing file, a script's error."""
    page = tmp_path / "page.html"
    page.write_text("<img src='gone.png'><script>nowhere()</script>")
    with opened(chromium, page, PHONE) as (_, wrong):
        assert any("gone.png" in one for one in wrong) and any("nowhere" in one for one in wrong)
