"""Paths and the table of routes (SA 1.1, 1.3, 3)."""

from __future__ import annotations

from collections import Counter

import pytest
from support.rows import in_one_test

from nexus_client.dropshot.answers import Refused
from nexus_client.dropshot.json import Json
from nexus_client.dropshot.routes import segments
from sim_sled.http.operations import ROUTER
from sim_sled.http.routes import NEWEST, Later, LaterJson, Route, Router

ID = "d31bd461-9749-4a5c-8d40-887bf363708b"


@in_one_test(
    ("path", "parts"),
    [
        pytest.param("/v2p", ["v2p"], id="plain"),
        pytest.param("/v2p/", ["v2p"], id="a trailing slash does not count"),
        pytest.param("//v2p", ["v2p"], id="nor does a double one"),
        pytest.param("/", [], id="root"),
        pytest.param("", [], id="nothing at all"),
        pytest.param("/a%2Fb/c", ["a/b", "c"], id="decoded after the split: an encoded slash is no separator"),
        pytest.param("/v%32p", ["v2p"], id="any character may be encoded"),
        pytest.param("/%zz", ["%zz"], id="a percent sign that starts no escape stands for itself"),
        pytest.param("/%2e", ["."], id="an encoded dot is a text"),
        pytest.param("/%C3%A9", ["é"], id="UTF-8"),
    ],
)
def test_segments_of_a_path(path, parts):
    assert segments(path) == parts


@in_one_test("path", ["/%ff", "/v2p/%C3", "/.", "/v2p/..", "/é"])
def test_bad_encodings_are_refused(path):
    with pytest.raises(Refused) as caught:
        segments(path)
    assert (caught.value.status, caught.value.message) == (400, "invalid path encoding")


def refusal(method, path, level):
    with pytest.raises(Refused) as caught:
        ROUTER.find(method, path, level)
    return caught.value.status, caught.value.message, caught.value.allow


@in_one_test(
    ("method", "path", "level", "expected"),
    [
        pytest.param("GET", "/nope", 48, (404, "Not Found", ()), id="no such path"),
        pytest.param("GET", "/", 48, (404, "Not Found", ()), id="the root is no path"),
        pytest.param("GET", f"/vmms/{ID}/state/x", 48, (404, "Not Found", ()), id="a path too long"),
        pytest.param("GET", "/vmms", 48, (404, "Not Found", ()), id="a path too short"),
        pytest.param("GET", "/sled-role", 8, (404, "Not Found", ()), id="no method of it left at this version"),
        pytest.param("PUT", f"/disks/{ID}", 21, (404, "Not Found", ()), id="PUT /disks is gone since 21"),
        pytest.param("POST", "/switch-ports", 45, (404, "Not Found", ()), id="POST /switch-ports is gone since 45"),
        pytest.param("PUT", f"/vmms/{ID}/multicast-group", 6, (404, "Not Found", ()), id="multicast comes with 7"),
        pytest.param("POST", "/v2p", 48, (405, "Method Not Allowed", ("DELETE", "GET", "PUT")), id="another method"),
        pytest.param("HEAD", "/inventory", 48, (405, "Method Not Allowed", ("GET",)), id="HEAD is not GET"),
        pytest.param(
            "GET", "/network-bootstore-config", 23, (405, "Method Not Allowed", ("GET", "PUT")),
            id="Allow names the methods of every version",
        ),
        pytest.param(
            "GET", "/chicken-switch/destroy-orphaned-datasets", 2, (405, "Method Not Allowed", ("GET", "PUT")),
            id="GET went one version before PUT",
        ),
        pytest.param(
            "GET", f"/vmms/{ID}/poke", 1, (405, "Method Not Allowed", ("POST",)), id="the simulators' own endpoints"
        ),
    ],
)  # fmt: skip
def test_paths_and_methods_that_are_not_there(method, path, level, expected):
    assert refusal(method, path, level) == expected


@in_one_test(
    ("method", "path", "first", "last"),
    [
        ("PUT", f"/vmms/{ID}", 0, 48),
        ("PUT", f"/vmms/{ID}/multicast-group", 7, 48),
        ("POST", f"/vmms/{ID}/attached-subnets", 18, 48),
        ("PUT", "/probes", 6, 48),
        ("GET", "/sled-role", 0, 7),
        ("PUT", f"/disks/{ID}", 0, 20),
        ("GET", "/network-bootstore-config", 0, 22),
        ("POST", "/switch-ports", 0, 44),
        ("POST", f"/local-storage/{ID}/{ID}", 9, 16),
        ("POST", "/local-storage", 17, 48),
        ("POST", f"/vmms/{ID}/poke", 0, 48),
        ("POST", f"/vmms/{ID}/poke-single-step", 0, 48),
        ("POST", f"/vmms/{ID}/sim-migration-source", 0, 48),
    ],
)
def test_versions_in_which_an_operation_is_there(method, path, first, last):
    """Both sides of both boundaries."""
    there = []
    for level in range(NEWEST + 1):
        try:
            ROUTER.find(method, path, level)
        except Refused:
            continue
        there.append(level)
    assert there == list(range(first, last + 1))


def test_all_82_operations_and_3_of_simulators_exist_at_the_newest_version():
    newest = [route for route in ROUTER.routes if route.until > NEWEST]
    operations = {(route.method, route.template) for route in newest}
    assert Counter(route.op is None for route in newest)[True] == 3
    assert len(operations) == 82 + 3


def test_there_are_90_operations_over_all_versions():
    """SR 1: as (operation, method, path); a body that has several shapes has several rows."""
    operations = {(route.op, route.method, route.template) for route in ROUTER.routes if route.op is not None}
    assert len(operations) == 90


@in_one_test("route", ROUTER.routes, ids=lambda route: f"{route.op}-{route.since}")
def test_what_is_imported_later_is_there(route):
    """A row names its handler and its body type by text: nothing else notices that one is misspelt."""
    if isinstance(route.handler, Later):
        assert callable(route.handler.handler)
    if isinstance(route.body, LaterJson):
        assert isinstance(route.body.json, Json)


async def nothing(call):
    raise AssertionError("nobody calls this")


def test_two_rows_for_the_same_versions_are_a_bug():
    row = Route("GET", "/a", nothing)
    with pytest.raises(AssertionError, match="two rows"):
        Router([row, row])


def test_a_variable_without_parser_is_a_bug():
    with pytest.raises(AssertionError, match="no parser"):
        Route("GET", "/a/{unheard_of}", nothing)


@in_one_test(
    ("template", "raw", "message"),
    [
        ("/vmms/{propolis_id}", "web-01", "bad parameter in URL path: UUID parsing failed"),
        ("/artifacts/{sha256}", "cafe", "bad parameter in URL path: expected 32 bytes as hexadecimal digits"),
        ("/x/{subnet}", "10.0.0.0", "bad parameter in URL path: invalid network"),
        ("/rot/{rot}/attest", "other", "bad parameter in URL path: unknown variant `other`, expected `oxide`"),
    ],
)
def test_path_parameters_are_checked(template, raw, message):
    with pytest.raises(Refused) as caught:
        Route("GET", template, nothing).parse_path((raw,))
    assert caught.value.status == 400
    assert caught.value.message.startswith(message)
