"""(k) Nexus away for long while very many VMMs have something to tell: what that costs, and what comes afterwards.

A whole daemon in a process of its own (tests/campaign/crowd_outage.py), which fails if anything is lost.
"""

import json
import subprocess
import sys

import attrs

from nexus_client.senders import PROBE_S

BACK_OFF_S = 180.0
"""The original's own longest pause: half of all are acknowledged within it."""
BYTES = 300.0
"""Per VMM that waits."""


@attrs.frozen
class Size:
    vmms: int
    away_s: float


def bench(size: Size) -> list[tuple]:
    """The fields of each row: name, ours, floor, ratio, unit, aim, whether that is the most. Floors are the aims."""
    options = ["--vmms", str(size.vmms), "--away", str(size.away_s)]
    command = [sys.executable, "-m", "tests.campaign.crowd_outage", *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # why it fails is seen
    found = json.loads(done.stdout)
    rows = (
        ("cpu_s", "processor time of the outage; floor: its length", size.away_s, None, "s"),
        ("connects_tried", "connects tried; floor: VMMs that wait", float(size.vmms), None, "tries"),
        ("bytes_per_waiting", "memory per VMM that waits; floor: aim", BYTES, 1.0, "bytes"),
        ("first_s", "until the first is acknowledged; floor: a probe", PROBE_S, 1.0, "s"),
        ("half_s", "until half are; floor: the longest back-off", BACK_OFF_S, 1.0, "s"),
        ("all_s", "until all are; floor: twice that", 2 * BACK_OFF_S, 1.0, "s"),
    )
    names = [f"(k) {size.vmms:,} wait {size.away_s:g} s: {rows[0][1]}", *(f"    {row[1]}" for row in rows[1:])]
    return [
        (name, found[key], aim, found[key] / aim, unit, most, True)
        for name, (key, _, aim, most, unit) in zip(names, rows, strict=True)
    ]
