"""Racks found by name: whoever looks is never in the way of one that begins."""

import threading
from types import SimpleNamespace

import msgspec
import pytest

from sim_sled.cli.control_client import where
from sim_sled.cli.racks import called
from sim_sled.cli.up import addresses_of
from sim_sled.daemon import racks
from sim_sled.daemon.small_rack import FLEET_MAX, handle_of

LOOKS_S = 0.3
"""Within that a look is over that nothing keeps; one that waits for the rack needs no more of it."""


@pytest.fixture(name="_home", autouse=True)
def _a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_a_rack_that_begins_while_somebody_looks_has_its_name_and_is_found(monkeypatch):
    """Looking takes dead racks away: one that just begins must not be taken for dead, nor its name for taken."""
    lock = racks.fcntl.flock
    looker = threading.Thread(target=racks.running)

    def at_the_worst_moment(file, how):
        if how & racks.fcntl.LOCK_NB and not looker.ident:
            looker.start()
            looker.join(LOOKS_S)
        lock(file, how)

    monkeypatch.setattr(racks.fcntl, "flock", at_the_worst_moment)
    with racks.claimed("demo") as file:
        racks.publish(file, {"pid": 1})
        looker.join()
        assert racks.running() == {"demo": {"pid": 1}}
    assert racks.running() == {}
    assert list(racks.folder().iterdir()) == [], "nothing is left behind"


def test_a_name_that_is_taken_is_taken_until_it_is_given_back():
    with racks.claimed("demo"):
        with pytest.raises(racks.NameTaken), racks.claimed("demo"):
            pass
        with racks.claimed("other"):
            pass
    with racks.claimed("demo"):
        pass


def test_the_port_file_of_the_largest_fleet_is_read_again(tmp_path):
    name = "r" * 63
    handles = [handle_of(name, n, f"[::1]:{n}", f"sled-{n}") for n in range(1, FLEET_MAX + 1)]
    rack = SimpleNamespace(name=name, handles=handles, nexus="[::1]:12221", server=None)
    file = tmp_path / "p.json"
    file.write_text(msgspec.json.format(msgspec.json.encode(addresses_of(rack, "127.0.0.1:1")).decode()))
    assert where(None, file) == "127.0.0.1:1"
    with racks.claimed(name) as published:
        published.write_bytes(file.read_bytes())
        assert len(racks.find(name)[1]["sleds"]) == FLEET_MAX


def test_a_rack_to_which_nobody_gave_a_name_is_the_rack():
    assert (called("rack"), called("demo")) == ("the rack", "rack demo")
