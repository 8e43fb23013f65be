"""Fill in what the site shows and the repository does not hold: help texts and formulas."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from typing import Any

from latex2mathml.converter import convert

_HELP = re.compile(r"^<!-- help: (\w+) -->$", re.M)
_FORMULA = re.compile(r'<(span|div) class="arithmatex">(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])</\1>', re.S)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the output of a command's ``--help`` where a page asks for it."""
    return _HELP.sub(lambda found: f"```text\n{_help(found[1])}\n```", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Write formulas as MathML, which browsers draw without a script."""
    return _FORMULA.sub(_mathml, content)


def _help(command: str) -> str:
    # 95 columns fit on a page; `dumb` keeps colours out of it.
    environment = os.environ | {"COLUMNS": "95", "TERM": "dumb", "NO_COLOR": "1"}
    words = [sys.executable, "-m", f"entprop_fast.{command}", "--help"]
    run = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found[1] == "div" else "inline"
    return convert(html.unescape(found[2]), display=display)
