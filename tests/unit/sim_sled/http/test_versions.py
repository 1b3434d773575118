"""The api-version header (SA 1.2)."""

from __future__ import annotations

import pytest

from sim_sled.http.versions import NEWEST, BadVersion, level_of


@pytest.mark.parametrize(
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
    ],
)
def test_accepted_versions(header, level):
    assert level_of(header) == level


@pytest.mark.parametrize(
    ("header", "message"),
    [
        pytest.param(None, 'missing expected header "api-version"', id="missing"),
        pytest.param("48.0.0é", 'bad value for header "api-version": not ASCII', id="not ASCII"),
        *(
            pytest.param(text, f'bad value for header "api-version": not a semantic version: {text}', id=f"{text!r}")
            for text in ("", "48", "48.0", "v48.0.0", "48.0.0.0", "48.0.0-", "048.0.0", " 48.0.0", "48.0.0-01", "x",
                         "9" * 20 + ".0.0", "٤.0.0".encode("ascii", "replace").decode())
        ),
    ],
)  # fmt: skip
def test_refused_versions(header, message):
    with pytest.raises(BadVersion) as caught:
        level_of(header)
    assert caught.value.message == message
    assert not caught.value.newer


@pytest.mark.parametrize("header", ["49.0.0", "48.0.1", "48.1.0", "1000.0.0", "49.0.0-rc1", "48.0.0+x", "48.0.1-rc1"])
def test_newer_versions_are_refused_and_named_so(header):
    with pytest.raises(BadVersion) as caught:
        level_of(header)
    assert caught.value.message == f"server does not support this API version: {header}"
    assert caught.value.newer


def test_every_published_version_is_its_own_level():
    assert [level_of(f"{major}.0.0") for major in range(1, NEWEST + 1)] == list(range(1, NEWEST + 1))
