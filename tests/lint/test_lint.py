"""The lints themselves, each shown something wrong; and the repository, which has to be clean."""

import re
from pathlib import Path

import pytest
from support.rows import in_one_test

from tests.lint import circles, citations, paths, reading
from tests.lint.__main__ import ROOT, tracked

PAGE = """# A page
<a id="nx-1"></a>

## 1. First
1. one
2. two
<a id="nx-1.1"></a>

### 1.1 Deeper
| 7 | a row |
"""


@pytest.fixture(name="pages")
def _pages() -> dict[str, citations.Page]:
    page, wrong = citations.read_page(PAGE, "NX")
    assert wrong == []
    return dict.fromkeys(citations.PAGES, page)


@pytest.mark.parametrize(
    "text",
    [
        "(NX 1)",
        "NX 1.1, 1 and PR 1.1.",
        "SA 1 to 1.1",
        "NX 1 #2, #7",
        "NX 1.1 #7; PR 1 #1",
        "NX 1.1, 9 s later",
        "docs/propolis.md 9",
        "[propolis.md](propolis.md) 9",
    ],
)
def test_what_resolves_is_not_reported(text: str, pages: dict[str, citations.Page]) -> None:
    assert citations.problems_of("f.py", text, pages) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(NX 2)", "NX 2: docs/spec/nexus.md has no such section"),
        ("PR 1.2.", "PR 1.2: docs/spec/propolis.md has no such section"),
        ("NX 1, 1.3", "NX 1.3: docs/spec/nexus.md has no such section"),
        ("NX 1 to 3", "NX 3: docs/spec/nexus.md has no such section"),
        ("NX 1 #2, #9", "NX 1 #9: no such row there"),
        ("NX 1.1 #2", "NX 1.1 #2: no such row there"),
        ("NX 1, 1 #3", "NX 1 #3: no such row there"),
        ("exit codes (product.md 5)", "product.md is not in this repository"),
        ("as wanted (issue 4)", "issue 4 is not in this repository"),
        ("as nexus.md 1 has it", "cite as NX and the section, not by the page's file name"),
        ("(sled-agent-api.md\n1.1)", "cite as SA and the section, not by the page's file name"),
    ],
)
def test_what_does_not_resolve_is_reported_with_its_line(
    text: str, said: str, pages: dict[str, citations.Page]
) -> None:
    assert citations.problems_of("f.py", "\n" + text, pages) == [f"f.py:2: {said}"]


def test_a_page_whose_heading_has_no_anchor_or_another_ones_is_reported() -> None:
    assert citations.read_page("## 3 Bare", "PR")[1] == ['heading 3 has no anchor <a id="pr-3"></a> above it']
    assert citations.read_page('<a id="pr-4"></a>\n\n## 3 Other', "PR")[1] == [
        'heading 3 has no anchor <a id="pr-3"></a> above it'
    ]


def _modules(**lines: str) -> dict[str, str]:
    return {f"sim_sled/core/{name}.py": f'"""A module.\n\n{line}\n"""\n' for name, line in lines.items()}


def test_a_pair_that_both_sides_name_is_in_order() -> None:
    assert reading.order_of(_modules(a="Read next: core/b.py.", b="Read before: core/a.py.")).problems == ()


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (_modules(a="Read next: core/c.py.", b=""), "sim_sled/core/a.py: Read next: core/c.py is no other module"),
        (
            _modules(a="Read next: b.py.", b="Read before: core/a.py."),
            "sim_sled/core/a.py: Read next: b.py is no other module",
        ),
        (
            _modules(a="Read next: core/b.py.", b=""),
            "sim_sled/core/a.py says `Read next: core/b.py`, which does not name it before",
        ),
        (
            _modules(a="", b="Read before: core/a.py."),
            "sim_sled/core/b.py says `Read before: core/a.py`, which does not name it next",
        ),
        (
            _modules(a="Read next: core/b.py and core/c.py."),
            "sim_sled/core/a.py: the line on the reading order cannot be read",
        ),
        (
            _modules(
                a="Read before: core/b.py. Read next: core/b.py.", b="Read before: core/a.py. Read next: core/a.py."
            ),
            "the reading order goes in a circle: sim_sled/core/a.py -> sim_sled/core/b.py -> sim_sled/core/a.py",
        ),
    ],
)
def test_what_does_not_hold_together_is_reported(modules: dict[str, str], said: str) -> None:
    assert any(problem.startswith(said) for problem in reading.order_of(modules).problems)


def test_the_fixer_adds_the_missing_half_of_a_pair() -> None:
    modules = _modules(a="Read next: core/b.py.", b="", c="Read before: core/a.py.")
    modules |= reading.fixed(modules)
    assert reading.order_of(modules).problems == ()
    assert "Read next: core/b.py, core/c.py." in modules["sim_sled/core/a.py"]


def test_the_fixer_spells_a_neighbours_name_as_a_path() -> None:
    modules = _modules(a="Read next: b.py.", b="")
    modules |= reading.fixed(modules)
    assert reading.order_of(modules).problems == ()
    assert "Read next: core/b.py." in modules["sim_sled/core/a.py"]


def test_code_that_speaks_of_a_file_that_is_not_there_is_reported() -> None:
    files = ["sim_sled/core/rack.py", "nexus_client/outbox.py"]
    good = '"""See rack.py, core/rack.py and nexus_client/outbox.py."""'
    assert paths.modules_of("sim_sled/core/rack.py", good, files) == []
    bad = '"""See\nedge.py, and core/outbox.py."""'
    assert paths.modules_of("sim_sled/core/rack.py", bad, files) == [
        "sim_sled/core/rack.py:2: edge.py is not there",
        "sim_sled/core/rack.py:2: core/outbox.py is not there",
    ]


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Path:
    for name in ("docs/a.md", "sim_sled/core/rack.py", "nexus_client/outbox.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "`sim_sled/core/rack.py`, `core/rack.py`, `core/`",
        "`docs/a.md` and [a](a.md#part), [there](https://example.org/x.md), [up](../sim_sled/core/rack.py)",
        "`etc/passwd.md`, `a/b`, `core/*.py`, `core/NAME.py`, `PUT /vmms/x.py`",
    ],
)
def test_paths_that_lead_somewhere_are_not_reported(text: str, tree: Path) -> None:
    assert paths.problems_of("docs/a.md", text, tree, frozenset({"docs", "sim_sled"})) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("`sim_sled/core/rock.py`", "`sim_sled/core/rock.py` is not there"),
        ("see `core/rock.py`.", "`core/rock.py` is not there"),
        ("`sim_sled/kern/`", "`sim_sled/kern/` is not there"),
        ("[b](b.md)", "the link to b.md leads nowhere"),
        ("[b](../docs/b.md#x)", "the link to ../docs/b.md leads nowhere"),
    ],
)
def test_a_path_that_leads_nowhere_is_reported_with_its_line(text: str, said: str, tree: Path) -> None:
    assert paths.problems_of("docs/a.md", f"\n{text}", tree, frozenset({"docs", "sim_sled"})) == [
        f"docs/a.md:2: {said}"
    ]


@pytest.mark.long
def test_every_file_that_a_page_names_is_there() -> None:
    assert paths.problems(ROOT, tracked()) == []


@pytest.mark.long
def test_every_citation_of_the_repository_resolves() -> None:
    assert citations.problems(ROOT, tracked()) == []


@pytest.mark.long
def test_the_reading_order_of_the_repository_holds_together() -> None:
    assert reading.order_of(reading.sources_of(ROOT, tracked())).problems == ()


def test_no_two_differences_have_one_number() -> None:
    numbers = re.findall(r"^\| (D\d+) \|", (ROOT / "docs" / "fidelity.md").read_text(), re.MULTILINE)
    assert sorted(number for number in set(numbers) if numbers.count(number) > 1) == []


@in_one_test("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_what_a_page_names_is_there(page: str) -> None:
    """Files in backticks, from the top of the repository, and links to other pages."""
    text = (ROOT / "docs" / page).read_text()
    named = re.findall(r"`((?:nexus_client|propolis_stub|sim_sled|tests|docs|scenarios)/[\w./-]+\.\w+)`", text)
    linked = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s:]+)\)", text)]
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [link for link in linked if link and not (ROOT / "docs" / link).exists()]
    assert missing == []


def test_imports_that_go_in_a_circle_are_named_and_others_are_not():
    around = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert re.fullmatch(r"imports go in a circle: (\w) -> \w -> \w -> \1", *circles.problems(around))
    assert circles.problems(around | {"c": set()}) == []


def test_imports_in_functions_and_for_types_count():
    graph = circles.imports()
    assert "sim_sled.daemon.handing_over" in graph["sim_sled.daemon.serve"], "in a function"
    assert "sim_sled.core.vmm" in graph["sim_sled.core.estate"], "under TYPE_CHECKING"
    assert circles.problems(graph) == []
