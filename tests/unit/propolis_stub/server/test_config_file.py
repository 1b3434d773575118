"""The configuration file of `propolis-stub serve`: every problem at once, nothing started."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus_client.dropshot.bearer import require_token
from nexus_client.dropshot.text import SocketAddress
from propolis_stub.server.config_file import BadConfig, Config, load
from propolis_stub.vm import Hazard
from propolis_stub.waiting import Pace, Point


def test_a_file_sets_paces_hazards_and_token(tmp_path: Path) -> None:
    path = tmp_path / "stub.toml"
    path.write_text(
        'hazards = ["migrate_in_start", "reconfigure_at_halt"]\ntoken = "secret"\n'
        '[pace.backends]\nafter_us = "for ever"\n[pace.create]\nfail = true\ntimes = 1\n'
    )
    assert load(path) == Config(
        Hazard.MIGRATE_IN_START | Hazard.RECONFIGURE_AT_HALT,
        "secret",
        {Point.BACKENDS: (Pace(None), None), Point.CREATE: (Pace(0, fail=True), 1)},
    )


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "stub.toml"
    path.write_text('colour = 1\nhazards = ["fire"]\ntoken = 7\n[pace.lunch]\n[pace.halt]\nafter_us = -1\n')
    with pytest.raises(BadConfig) as bad:
        load(path)
    assert [problem.split(":")[0] for problem in bad.value.problems] == [
        "colour",
        "hazards",
        "token",
        "pace.lunch",
        "pace.halt",
    ]
    path.write_text("not toml at all")
    with pytest.raises(BadConfig):
        load(path)


def test_control_beyond_loopback_needs_a_token() -> None:
    require_token(SocketAddress.parse("[::1]:0"), None)
    require_token(SocketAddress.parse("[::]:0"), "secret")
    with pytest.raises(ValueError, match="needs a token"):
        require_token(SocketAddress.parse("[::]:0"), None)
