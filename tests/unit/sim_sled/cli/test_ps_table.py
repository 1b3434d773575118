"""The table of `ps` on terminals of different widths: whole columns, and the most important ones."""

from rich.console import Console
from support.rows import in_one_test

from sim_sled.cli.control_client import ps_table

ROWS = [
    ["v1", "web", "running", "sled-1", "18:30:00", "running", "-", "running", "-", "1", "6041" + "0" * 32],
    ["v2", "stuck-1", "stopping", "sled-2", "18:30:21", "stopped", "injected-1", "running", "12", "3", "92eb" * 9],
]  # fmt: skip


def lines(width, rows=ROWS):
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(ps_table(rows, width))
    return captured.get().splitlines()


def test_a_terminal_of_80_columns_says_who_where_and_why_and_cuts_nothing():
    head, *rows = lines(80)
    assert head.split() == ["VMM", "host", "name", "state", "sled", "since", "asked", "rule", "unacked", "starts"]
    assert [row.split() for row in rows] == [[*row[:7], *row[8:10]] for row in ROWS]
    assert max(map(len, (head, *rows))) <= 80


def test_a_wide_terminal_has_every_column():
    assert [row.split() for row in lines(160)[1:]] == ROWS


def test_a_name_of_any_length_takes_no_room_from_the_states():
    long = [
        "v3",
        "customer-database-" * 4,
        "running",
        "sled-1",
        "18:30:00",
        "running",
        "rule-" * 9,
        "running",
        "-",
        "1",
        "x",
    ]
    shown = lines(80, [*ROWS, long])[-1].split()
    assert [shown[0], *shown[2:6]] == ["v3", "running", "sled-1", "18:30:00", "running"]
    assert shown[1].startswith("customer-")
    assert shown[6].startswith("rule-")


@in_one_test("width", [40, 60, 79, 80, 100, 120])
def test_nothing_is_wrapped_on_any_terminal(width):
    said = lines(width)
    assert len(said) == 3
    assert all(len(line) <= width for line in said)
