"""`sim-sled docs`: the pages, which travel with the program.

In a checkout they are README.md and the folder `docs/`; a wheel carries the same files as package data
(`sim_sled/docs/`). Texts that lead to a page say `sim-sled docs NAME`, which is right in both.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import ClassVar, Final

from sim_sled.cli.surface import fail, say
from sim_sled.language.words import nearest_two

START: Final = "README"
"""The page to begin with."""
_LINK: Final = re.compile(r"\[([^]\n]+)\]\((?:\.\./|docs/)*([\w/-]+\.md)(?:#[\w-]*)?\)")
_PACKAGE: Final = Path(__file__).resolve().parents[1]
_PACKED: Final = _PACKAGE / "docs"


def files() -> dict[str, Path]:
    """The file of each page, by the name a person types: `README` first, then `campaigns`, ..., `spec/nexus`, ..."""
    in_wheel = _PACKED.is_dir()
    folder = _PACKED if in_wheel else _PACKAGE.parent / "docs"
    pages = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.glob("**/*.md"))}
    start = (folder if in_wheel else folder.parent) / f"{START}.md"
    return {START: start} | dict(sorted(pages.items(), key=lambda page: ("/" in page[0], page[0])))


def print_docs(name: str | None, *, as_json: bool) -> None:
    """The list of pages, or one of them: for a terminal laid out and through its pager, in a pipe as it is written.

    A name that no page has ends the command with exit 2.
    """
    pages = files()
    if name is None:
        sys.stdout.write(_listed(pages, as_json=as_json))
        return
    found = _meant(name, pages)
    if found is None:
        near = " or ".join(f"'{each}'" for each in nearest_two(name.casefold(), pages))
        fail(f"there is no page '{name}'" + (f" (did you mean {near}?)" if near else " (the list: sim-sled docs)"))
    text = pages[found].read_text(encoding="utf-8")
    if as_json:
        about = {"page": found, "about": _title(text), "file": str(pages[found]), "text": text}
        sys.stdout.write(json.dumps(about, indent=1) + "\n")
    else:
        show(text)


def show(text: str) -> None:
    """A page, or a part of one: for a terminal laid out and through its pager, in a pipe as it is written."""
    if sys.stdout.isatty():
        _page_through(text)
    else:
        sys.stdout.write(text)


def _meant(name: str, pages: dict[str, Path]) -> str | None:
    """Also as links and texts write it: `docs/scale.md`, `readme`."""
    plain = name.casefold().removeprefix("docs/").removesuffix(".md")
    plain = f"{plain}/readme" if plain == "spec" else plain
    return next((page for page in pages if page.casefold() == plain), None)


def _listed(pages: dict[str, Path], *, as_json: bool) -> str:
    about = {page: _title(path.read_text(encoding="utf-8")) for page, path in pages.items()}
    if as_json:
        rows = [{"page": page, "about": said, "file": str(pages[page])} for page, said in about.items()]
        return json.dumps(rows, indent=1) + "\n"
    if not sys.stdout.isatty():
        return "".join(f"{page}\t{said}\n" for page, said in about.items())
    names = max(map(len, pages)) + 2
    width = max(shutil.get_terminal_size().columns, names + 20)
    return "".join(
        textwrap.fill(f"{page:{names}}{said}", width, subsequent_indent=" " * names) + "\n"
        for page, said in about.items()
    )


def _title(text: str) -> str:
    return next((line[2:] for line in text.splitlines() if line.startswith("# ")), "").replace("`", "")


def _page_through(text: str) -> None:
    """Paragraphs and tables as wide as the terminal; what can be pasted stays whole, as everywhere."""
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.markdown import CodeBlock, Markdown
    from rich.text import Text
    from rich.theme import Theme

    class Whole(CodeBlock):
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            for line in str(self.text).rstrip("\n").splitlines():
                yield Text(f"    {line}", no_wrap=True, overflow="ignore")

    class Laid(Markdown):
        elements: ClassVar = {**Markdown.elements, "fence": Whole, "code_block": Whole}

    os.environ.setdefault("LESS", "-FRX")  # colours; and no pager for what fits the screen
    console = Console(theme=Theme({"markdown.code": "cyan"}))  # its own is black behind, whatever the terminal is
    laid = Laid(_LINK.sub(_named, text), hyperlinks=False)
    if (missing := _missing_pager()) is not None:
        console.print(laid, crop=False)
        say(f"there is no pager '{missing}'")
        return
    with console.pager(styles=True):
        console.print(laid, crop=False)


def _missing_pager() -> str | None:
    """What is asked for and is no program that is there: a shell would fail, or do nothing, and the page be gone."""
    import subprocess

    wanted = os.environ.get("MANPAGER") or os.environ.get("PAGER")  # as pydoc has it, whom rich asks
    if not wanted:
        return None
    program = next((word for word in wanted.split() if "=" not in word), wanted)
    if shutil.which(program) is None:
        return program
    reads = ["sh", "-n", "-c", wanted]
    read = subprocess.run(reads, stderr=subprocess.DEVNULL, check=False)  # noqa: S603 -- it is read, not run
    return wanted if read.returncode else None


def _named(link: re.Match[str]) -> str:
    """What a link to a page says on paper: its text, and the page where that does not say it."""
    said, page = link.groups()
    return said if said.endswith(page) else f"{said} ({page})"
