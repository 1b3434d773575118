"""The files of the page, and all of them in one: plain HTML, CSS and ES modules that no build step has touched.

Served, each is a file of its own under a policy that runs nothing else. Of a finished run everything is in one file:
the modules in the order of their imports as one script, the run as JSON beside it, and a policy with the hashes of
script and style, so that nothing which came in with the run can ever be a script.

Read before: page/looks.py. Read next: daemon/page.py, daemon/page_api.py, page/recording.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from sim_sled.page.looks import words_json

INDEX: Final = "index.html"
MAIN: Final = "main.js"
STYLE: Final = "page.css"
ICON: Final = "icon.svg"

TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Nothing from elsewhere, nothing inline, no text that becomes HTML, and nobody frames the page's buttons."""

_IMPORT: Final = re.compile(r'^import \{[^}]*\} from "\./([a-z]+\.js)";\n', re.MULTILINE)
_EXPORT: Final = re.compile(r"^export ", re.MULTILINE)
_HEAD: Final = re.compile(r"<!-- head -->.*<!-- /head -->", re.DOTALL)


@cache
def static() -> Mapping[str, bytes]:
    """Every file of the page by its name."""
    folder = files("sim_sled.page").joinpath("static")
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.name.endswith(tuple(TYPES))}


def type_of(name: str) -> str:
    """The media type of a file of the page; all are UTF-8."""
    return TYPES[name[name.rindex(".") :]]


def in_one_file(recording: Mapping[str, Any]) -> str:
    """The page with a finished run in it."""
    script, style = one_script(), static()[STYLE].decode()
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    icon = "data:image/svg+xml;base64," + base64.b64encode(static()[ICON]).decode()
    head = (
        f'<meta http-equiv="content-security-policy" content="{policy}">\n'
        f'<link rel="icon" href="{icon}">\n<style>{style}</style>\n'
        f'<script type="application/json" id="recording">{_inert({"words": words_json(), **recording})}</script>\n'
        f'<script type="module">{script}</script>'
    )
    return _HEAD.sub(lambda _: head, static()[INDEX].decode(), count=1)


def one_script() -> str:
    """The modules as one: each after those it imports. Their names at top level differ, which a test holds."""
    done: dict[str, str] = {}

    def take(name: str) -> None:
        if name in done:
            return
        text = static()[name].decode()
        done[name] = ""  # a circle of imports ends here
        for needed in _IMPORT.findall(text):
            take(needed)
        del done[name]
        done[name] = _EXPORT.sub("", _IMPORT.sub("", text))

    take(MAIN)
    return "".join(done.values())


def _inert(value: Any) -> str:
    """JSON in which no HTML can begin: `</script>` of a host name stays text."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
