"""The pages name commands and options that are there, and README leads to every page."""

import re
from pathlib import Path

from support.command import everybody
from support.rows import in_one_test

ROOT = Path(__file__).parents[4]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
OPTIONS = {
    " ".join([name, *path]): {"--help"}
    | {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    for name, path, command in everybody()
}
CALL = re.compile(
    r"(?<![\w/.@-])(sim-sled|propolis-stub) ([a-z]+(?:\|[a-z]+)*)(?: (list|show|copy|schema|reference))?([^`#;&\n]*)"
)


def code_of(text):
    """Fenced blocks and what stands between backticks."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    yield from re.findall(r"^    (.*)$", text, re.MULTILINE)


def wrong_in(text):
    for code in code_of(text):
        for program, named, group, rest in CALL.findall(code):
            for one in named.split("|"):
                command = " ".join(filter(None, (program, one, group if one == "scenario" else "")))
                if command not in OPTIONS:
                    yield f"there is no {command}"
                    continue
                given = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest.partition("$(")[0]))
                yield from (f"{command} has no {option}" for option in sorted(given - OPTIONS[command]))


@in_one_test("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_commands_and_options_that_are_there(page):
    assert list(wrong_in(page.read_text())) == []


def test_a_page_that_promises_too_much_is_noticed():
    text = "See `sim-sled serve|up --junit F`.\n\n```sh\nsim-sled await web\nsim-sled ps --wtach   # no\n```\n"
    assert list(wrong_in(text)) == ["there is no sim-sled await", "sim-sled ps has no --wtach"]


def test_readme_leads_to_every_page():
    readme = (ROOT / "README.md").read_text()
    pages = [page.relative_to(ROOT).as_posix() for page in PAGES if page.name != "README.md"]
    assert [page for page in pages if f"({page})" not in readme] == []
