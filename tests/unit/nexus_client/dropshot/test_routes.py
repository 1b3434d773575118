"""How a path finds its place (SA 1.1, 1.3), for the servers whose operations have no versions."""

import pytest
from support.rows import in_one_test

from nexus_client.dropshot.answers import Refused
from nexus_client.dropshot.routes import Paths, names, segment, split_target


@pytest.fixture
def paths():
    made = Paths()
    rows = (
        ("GET", "/"),
        ("GET", "/a"),
        ("PUT", "/a"),
        ("GET", "/a/{x}"),
        ("GET", "/a/b"),
        ("PUT", "/a/{x}/c/{y}"),
    )
    for method, template in rows:
        made.add(method, template, f"{method} {template}")
    return made


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/", ("GET /", ())),
        ("GET", "//a//", ("GET /a", ())),
        ("GET", "/a/b", ("GET /a/b", ())),
        ("GET", "/a/z%20%2F", ("GET /a/{x}", ("z /",))),
        ("PUT", "/a/1/c/2/", ("PUT /a/{x}/c/{y}", ("1", "2"))),
    ],
)
def test_what_is_found(paths, method, path, found):
    assert paths.find(method, path) == found


@in_one_test(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/b", 404, ()),
        ("GET", "/a/b/c", 404, ()),
        ("GET", "/a/1/c", 404, ()),
        ("DELETE", "/a", 405, ("GET", "PUT")),
        ("PUT", "/a/b", 405, ("GET",)),
        ("GET", "/a/..", 400, ()),
        ("GET", "/a/.", 400, ()),
        ("GET", "/./a", 400, ()),
        ("GET", "/%ff", 400, ()),
        ("GET", "/ä", 400, ()),
    ],
)
def test_what_is_refused(paths, method, path, status, allow):
    with pytest.raises(Refused) as refused:
        paths.find(method, path)
    assert (refused.value.status, refused.value.allow) == (status, allow)


def test_two_operations_in_one_place_are_a_bug(paths):
    with pytest.raises(AssertionError, match="two rows"):
        paths.add("GET", "/a/{other}", None)


@in_one_test(
    ("target", "parts"),
    [
        ("/a?b=c", ("/a", "b=c")),
        ("http://x:1/a/b?c", ("/a/b", "c")),
        ("/a?b?c", ("/a", "b?c")),
        ("/a//b", ("/a//b", "")),
    ],
)
def test_a_target_is_split(target, parts):
    assert split_target(target) == parts


def test_names_of_variables():
    assert names("/a/{x}/c/{y}") == ("x", "y")


@in_one_test("text", ["..", ".", "a/b", "a?b#c", "%2e%2e", "ä b", "a.b"])
def test_any_text_is_one_part_of_a_path(paths, text):
    assert paths.find("GET", f"/a/{segment(text)}") == ("GET /a/{x}", (text,))
