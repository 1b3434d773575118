"""The table of `ps`: on a terminal nothing is cut that a reader needs, in a pipe nothing at all."""

import io

import pytest
from rich.console import Console

from sim_sled.cli import control_client
from sim_sled.cli.control_client import _PS, _ps_rows, _ps_table

ROW = {
    "ordinal": "v100", "hostname": "web-12345", "in": "destroyed", "sled": "sled-100",
    "since": "2026-11-28T19:03:12.000Z",
    "asked": "running", "rule": "holds-running", "acked": "destroyed", "unacknowledged": 12, "restarts": 3,
    "propolis_id": "60416744-305a-51f5-a9c8-4fe59210c300",
}  # fmt: skip


def drawn(width, row, monkeypatch):
    monkeypatch.setattr(control_client, "Console", lambda: Console(width=width))
    out = io.StringIO()
    Console(file=out, width=width).print(_ps_table(_ps_rows([row])))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(("width", "without"), [(80, {"acked", "id"}), (100, {"id"}), (140, set())])
def test_a_terminal_shows_whole_what_it_shows(width, without, monkeypatch):
    names, line = drawn(width, ROW, monkeypatch)
    assert max(map(len, (names, line))) <= width
    shown = dict(zip(_PS, _ps_rows([ROW])[0], strict=True))
    for name in _PS:
        assert (f" {name} " in f" {names} ") == (name not in without), names
        if name not in without | {"host name", "rule"}:
            assert shown[name] in line.split(), line


def test_long_names_are_cut_before_anything_else(monkeypatch):
    _, line = drawn(80, ROW | {"hostname": "h" * 63, "rule": "r" * 63}, monkeypatch)
    assert len(line) <= 80
    assert line.count("…") == 2
    assert {"v100", "destroyed", "sled-100", "19:03:12", "running", "12", "4"} <= set(line.split())
