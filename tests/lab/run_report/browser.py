"""Look at a report as a reader does, in Chromium; `main` refreshes the picture in the docs.

python -m tests.lab.run_report.browser RUN/report.html docs/images/report.png
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")
PHONE, DESKTOP = (375, 812), (1280, 900)
SCREENSHOT = (1120, 1500)  # of the picture in the docs


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Start Chromium, and end it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield started
        finally:
            started.close()


@contextlib.contextmanager
def opened(
    started: Any, file: Path, size: tuple[int, int], scheme: str = "light"
) -> Iterator[tuple[Any, list[str]]]:
    """Open a file in a window; give the page, and everything that went wrong in it so far."""
    width, height = size
    context = started.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    wrong: list[str] = []
    page = context.new_page()
    address = file.resolve().as_uri()

    def asked(request: Any) -> None:
        if request.url != address and not request.url.startswith("data:"):
            wrong.append(f"asked for {request.url}")

    page.on("request", asked)
    page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url[:80]}"))
    page.on("console", lambda said: wrong.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    try:
        yield page, wrong
    finally:
        context.close()


def screenshot(
    started: Any, file: Path, picture: Path, size: tuple[int, int] = SCREENSHOT, **more: Any
) -> list[str]:
    """Take a picture of the window; return what went wrong."""
    with opened(started, file, size, more.pop("scheme", "light")) as (page, wrong):
        page.screenshot(path=str(picture), **more)
        return wrong


def main(report: str, picture: str) -> None:
    """Write the picture of a report."""
    with browser() as started:
        wrong = screenshot(started, Path(report), Path(picture))
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main(*sys.argv[1:])
