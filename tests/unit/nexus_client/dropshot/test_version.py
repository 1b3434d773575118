"""The api-version header (SA 1.2, DS 2); texts are those of the semver library."""

from __future__ import annotations

import pytest
from support.rows import in_one_test

from nexus_client.dropshot.version import BadVersion, level_of
from sim_sled.http.routes import NEWEST


@in_one_test(
    ("header", "level"),
    [
        pytest.param("48.0.0", 48, id="the newest"),
        pytest.param("1.0.0", 1, id="the oldest"),
        pytest.param("0.9.0", 0, id="below everything published"),
        pytest.param("12.3.4", 12, id="between two published ones: the lower one holds"),
        pytest.param("48.0.0-rc1", 47, id="a pre-release of the newest is below it"),
        pytest.param("44.0.0-rc.1", 43, id="a pre-release is served by the version before"),
        pytest.param("44.0.1-rc.1", 44, id="a pre-release of a patch is above the release"),
        pytest.param("0.0.0-0", 0, id="nothing is below zero"),
        pytest.param("47.0.0+build.5", 47, id="build metadata"),
        pytest.param("48.0.0-rc1+build", 47, id="both"),
        pytest.param("1.0.0-0a", 0, id="a leading zero beside a letter"),
        pytest.param("1.0.0+01", 1, id="a leading zero in build metadata"),
    ],
)
def test_accepted_versions(header, level):
    assert level_of(header, NEWEST) == level


@in_one_test(
    ("header", "message"),
    [
        pytest.param(None, 'missing expected header "api-version"', id="missing"),
        pytest.param("48.0.0é", 'bad value for header "api-version": not ASCII', id="not ASCII"),
        *(
            pytest.param(text, f'bad value for header "api-version": {why}: {text}', id=f"{text[:30]!r}")
            for text, why in {
                "": "empty string, expected a semver version",
                "48": "unexpected end of input while parsing major version number",
                "48.": "unexpected end of input while parsing minor version number",
                "48.0": "unexpected end of input while parsing minor version number",
                "48.0.": "unexpected end of input while parsing patch version number",
                "v48.0.0": "unexpected character 'v' while parsing major version number",
                "x": "unexpected character 'x' while parsing major version number",
                " 48.0.0": "unexpected character ' ' while parsing major version number",
                "48x.0.0": "unexpected character 'x' after major version number",
                "48.0.0.0": "unexpected character '.' after patch version number",
                "48.0.0 ": "unexpected character ' ' after patch version number",
                "48.0.0-": "empty identifier segment in pre-release identifier",
                "48.0.0-a..b": "empty identifier segment in pre-release identifier",
                "48.0.0+": "empty identifier segment in build metadata",
                "48.0.0-a_b": "unexpected character '_' after pre-release identifier",
                "048.0.0": "invalid leading zero in major version number",
                "1.0.0-01": "invalid leading zero in pre-release identifier",
                "1.0.0-a.007": "invalid leading zero in pre-release identifier",
                "18446744073709551616.0.0": "value of major version number exceeds u64::MAX",
                "9" * 5000 + ".0.0": "value of major version number exceeds u64::MAX",
            }.items()
        ),
    ],
)  # fmt: skip
def test_refused_versions(header, message):
    with pytest.raises(BadVersion) as caught:
        level_of(header, NEWEST)
    assert caught.value.message == message
    assert not caught.value.newer


@in_one_test(
    "header",
    ["49.0.0", "48.0.1", "48.1.0", "1000.0.0", "49.0.0-rc1", "48.0.0+x", "48.0.1-rc1", "18446744073709551615.0.0"],
)
def test_newer_versions_are_refused_and_named_so(header):
    with pytest.raises(BadVersion) as caught:
        level_of(header, NEWEST)
    assert caught.value.message == f"server does not support this API version: {header}"
    assert caught.value.newer


def test_every_published_version_is_its_own_level():
    assert [level_of(f"{major}.0.0", NEWEST) for major in range(1, NEWEST + 1)] == list(range(1, NEWEST + 1))
