"""`sim-sled nexus migrate-records`: rows of before omicron#5854 as they are after it (NX 1.4)."""

import asyncio
import json

from support.daemon.process import sim_sled

OLD = {
    "instances": [
        {"id": "i1", "state": "stopped", "active_propolis_id": None},
        {"id": "i2", "state": "running", "active_propolis_id": "v2"},
        {"id": "i3", "state": "failed", "active_propolis_id": None},
    ],
    "vmms": [{"id": "v2", "state": "running"}],
}


async def test_rows_in_a_file_are_printed_as_they_are_after_it(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(OLD))
    process = await sim_sled("nexus", "migrate-records", str(file))
    out, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, errors.decode()
    after = json.loads(out)
    assert [row["state"] for row in after["instances"]] == ["no_vmm", "vmm", "failed"]
    assert after["vmms"] == OLD["vmms"]


async def test_every_bad_row_is_named_and_nothing_is_printed(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"instances": [{"id": "i1", "state": "paused"}], "vmms": [{"id": "v", "state": "x"}]}))
    process = await sim_sled("nexus", "migrate-records", str(file))
    out, errors = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (2, b"")
    assert [line.partition(": ")[2].partition(": ")[0] for line in errors.decode().splitlines()] == [str(file)] * 2


async def test_rows_without_the_command_are_refused():
    process = await sim_sled("nexus", "[::1]:0", "rows.json")
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert b"migrate-records" in errors
