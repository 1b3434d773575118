"""Artifacts and support bundles over sockets: large bodies, ranges, broken connections, restarts (SR 4.1, 4.2)."""

import asyncio
import errno
import hashlib
import io
import resource
import tempfile
import zipfile
from pathlib import Path

import pytest
from support.daemon.driving import running_daemon
from support.daemon.running import SLED, running
from support.nexus.fake_nexus import FakeNexus
from support.rack.driving import SLED_A, V1
from support.rack.estate import POOLS, an_id, config, dataset
from support.rows import in_one_test

from sim_sled.companions.servers import Ports
from sim_sled.core.config import Hardware, SledConfig
from sim_sled.core.estate import Area
from sim_sled.core.storage.local import LocalStorage
from sim_sled.daemon import state_dir
from sim_sled.daemon.daemon import Daemon, Options
from sim_sled.daemon.state_dir import BadStateDir
from sim_sled.daemon.taking_up import KEPT_AREAS
from sim_sled.http.blobs import BUFFER, MEMORY_MAX
from sim_sled.language.check import parse_scenario
from sim_sled.play.fleet import engine_for

MIB = 1024 * 1024
HARDWARE = Hardware(zpools=POOLS)
CONFIG = config(2, datasets=[dataset(1, "debug")]).wire
BUNDLES = f"/support-bundles/{POOLS[0].id}/{an_id(0xA01)}"
BUNDLE = f"{BUNDLES}/{an_id(0xB1)}"


def sha(data):
    return hashlib.sha256(data).hexdigest()


async def put_artifact(sled, data, *, generation=1):
    return await sled.ask("PUT", f"/artifacts/{sha(data)}?generation={generation}", data=data)


async def wanted(sled, *blobs, generation=1):
    await sled.json(
        "PUT", "/artifacts-config", {"generation": generation, "artifacts": [sha(each) for each in blobs]}
    )


def folders():
    """Temporary folders of daemons."""
    return {each for each in Path(tempfile.gettempdir()).glob("sim-sled-*") if each.is_dir()}


# ---- artifacts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, BUFFER - 1, BUFFER, 3 * BUFFER + 1], ids=str)
async def test_an_artifact_of_any_size_is_stored_and_read_back(size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with running() as sled:
        await wanted(sled, data)
        got = await put_artifact(sled, data)
        assert got.json == {"datasets": 2, "successful_writes": 2}
        assert await sled.json("GET", "/artifacts") == {"generation": 1, "list": {sha(data): 2}}
        with sled.daemon.blobs(SLED).open(f"artifacts/{sha(data)}") as stored:
            assert stored.read() == data


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path, monkeypatch):
    """Other tests at the same time have daemons too."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


async def test_a_wrong_digest_leaves_nothing_behind():
    before = folders()
    good, bad = b"g" * (2 * MIB), b"b" * (2 * MIB)
    async with running() as sled:
        await wanted(sled, good)
        got = await sled.ask("PUT", f"/artifacts/{sha(good)}?generation=1", data=bad)
        assert got.json["message"].startswith(f"Digest mismatch: expected {sha(good)}")
        assert (await sled.json("GET", "/artifacts"))["list"] == {}
        assert [each for folder in folders() - before for each in folder.rglob("*") if each.is_file()] == []
    assert folders() == before


async def test_a_client_that_breaks_off_leaves_nothing_behind():
    before = folders()
    data = b"x" * (8 * MIB)
    async with running() as sled:
        await wanted(sled, data)
        host, _, port = sled.daemon.addresses[SLED].rpartition(":")
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        head = f"PUT /artifacts/{sha(data)}?generation=1 HTTP/1.1\r\nhost: x\r\napi-version: 48.0.0\r\n"
        writer.write(head.encode() + f"content-length: {len(data)}\r\n\r\n".encode() + data[: 5 * MIB])
        await writer.drain()
        writer.transport.abort()
        assert (await sled.json("GET", "/artifacts"))["list"] == {}
        assert (await put_artifact(sled, data)).status == 200, "the next one is served"

        def names():
            return [each.name for folder in folders() - before for each in folder.rglob("*") if each.is_file()]

        async with asyncio.timeout(60):
            while names() != [sha(data)]:  # the end of the connection may be noticed late
                await sled.json("GET", "/artifacts")
    assert folders() == before


async def test_memory_stays_bounded_while_a_large_artifact_comes():
    """A body of more than is allowed in memory; the peak of the process grows by a few buffers."""
    piece, count = bytes(MIB), 3 * MEMORY_MAX // 2 // MIB
    whole = hashlib.sha256()
    for _ in range(count):
        whole.update(piece)

    async def body():
        for _ in range(count):
            yield piece

    async with running() as sled:
        await sled.json("PUT", "/artifacts-config", {"generation": 1, "artifacts": [whole.hexdigest()]})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        got = await sled.ask("PUT", f"/artifacts/{whole.hexdigest()}?generation=1", data=body())
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert got.status == 200
        assert grown_kib < 32 * 1024


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_refused(announced, monkeypatch):
    monkeypatch.setattr("sim_sled.http.uploads.pieces_of.__defaults__", (2 * MIB,))
    data = b"x" * (3 * MIB)

    async def pieces():
        yield data

    async with running() as sled:
        await wanted(sled, data)
        body = data if announced else pieces()
        got = await sled.ask("PUT", f"/artifacts/{sha(data)}?generation=1", data=body)
        assert (got.status, got.json["message"]) == (400, f"request body exceeded maximum size of {2 * MIB} bytes")
        assert {name.lower(): value for name, value in got.headers.items()}["connection"] == "close", "not read on"
        assert (await sled.json("GET", "/artifacts"))["list"] == {}


async def test_artifacts_are_copied_from_the_depot_of_another_sled():
    """A depot is who answers `GET /artifact/sha256/HASH`; a body that is not what its name says is dropped."""
    good, bad = b"good" * MIB, b"bad"
    served = {sha(good): good, sha(b"else"): bad}

    async def depot(reader, writer):
        line = await reader.readline()
        versions = [each async for each in _lines(reader) if each.lower().startswith(b"api-version:")]
        data = served.get(line.split()[1].decode().rpartition("/")[2])
        status = b"200 OK" if data is not None and versions == [b"api-version: 1.0.0"] else b"404 Not Found"
        writer.write(b"HTTP/1.1 " + status + b"\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n")
        if data:
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(depot, "::1", 0)
    base = f"http://[::1]:{server.sockets[0].getsockname()[1]}"
    async with running() as sled:
        await wanted(sled, good, b"else", b"absent")
        for data, status in ((good, 202), (b"else", 202), (b"absent", 500)):
            path = f"/artifacts/{sha(data)}/copy-from-depot?generation=1"
            got = await sled.ask("POST", path, {"depot_base_url": base})
            assert got.status == status
        while sled.daemon._background:
            await asyncio.sleep(0)
        assert (await sled.json("GET", "/artifacts"))["list"] == {sha(good): 2}
        for base_url in ("http://[::1]:9", "nonsense", "ftp://x", ""):
            got = await sled.ask(
                "POST", f"/artifacts/{sha(good)}/copy-from-depot?generation=1", {"depot_base_url": base_url}
            )
            assert (got.status, got.json["error_code"]) == (500, "Internal")
    server.close()
    await server.wait_closed()


async def _lines(reader):
    while line := (await reader.readline()).strip():
        yield line


# ---- bundles -------------------------------------------------------------------------------------------------------


def archive():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("bundle_id.txt", an_id(0xB1))
        zipped.writestr("logs/", b"")
        zipped.writestr("logs/a b.log", b"line\n" * 200_000)
    return packed.getvalue()


ARCHIVE = archive()


async def upload(sled, *, data=ARCHIVE, pieces=3):
    await sled.json("PUT", "/omicron-config", CONFIG)
    await sled.json("POST", BUNDLE)
    step = -(-len(data) // pieces)
    for at in range(0, len(data), step):
        got = await sled.ask("PUT", f"{BUNDLE}/transfer?offset={at}", data=data[at : at + step])
        assert (got.status, got.json["state"]) == (201, "incomplete")


async def finalize(sled, data=ARCHIVE):
    got = await sled.ask("POST", f"{BUNDLE}/finalize?hash={sha(data)}")
    assert (got.status, got.json) == (201, {"support_bundle_id": an_id(0xB1), "state": "complete"})


async def test_a_bundle_from_start_to_download():
    async with running(hardware=HARDWARE) as sled:
        await upload(sled)
        await finalize(sled)
        got = await sled.ask("GET", f"{BUNDLE}/download")
        assert (got.status, got.body) == (200, ARCHIVE)
        assert (got.headers["content-type"], got.headers["accept-ranges"]) == ("application/zip", "bytes")
        got = await sled.ask("GET", f"{BUNDLE}/index")
        assert (got.headers["content-type"], got.body) == ("text/plain", b"bundle_id.txt\nlogs/\nlogs/a b.log")
        got = await sled.ask("GET", f"{BUNDLE}/download/bundle_id.txt")
        assert (got.headers["content-type"], got.body.decode()) == ("application/octet-stream", an_id(0xB1))
        await finalize(sled)  # a repeated one is no error


async def test_pieces_may_come_in_any_order_and_with_gaps():
    data = bytes(3 * MIB) + b"end"
    async with running(hardware=HARDWARE) as sled:
        await sled.json("PUT", "/omicron-config", CONFIG)
        await sled.json("POST", BUNDLE)
        assert (await sled.ask("PUT", f"{BUNDLE}/transfer?offset={3 * MIB}", data=b"end")).status == 201
        assert (await sled.ask("PUT", f"{BUNDLE}/transfer?offset=0", data=b"\0" * 10)).status == 201
        await finalize(sled, data)


async def test_an_empty_piece_reaches_to_its_offset():
    async with running(hardware=HARDWARE) as sled:
        await sled.json("PUT", "/omicron-config", CONFIG)
        await sled.json("POST", BUNDLE)
        assert (await sled.ask("PUT", f"{BUNDLE}/transfer?offset=5", data=b"")).status == 201
        await finalize(sled, bytes(5))


async def test_a_piece_sent_twice_counts_once():
    async with running(hardware=HARDWARE) as sled:
        await upload(sled)
        third = -(-len(ARCHIVE) // 3)
        assert (await sled.ask("PUT", f"{BUNDLE}/transfer?offset=0", data=ARCHIVE[:third])).status == 201
        await finalize(sled)


async def test_starting_again_forgets_the_pieces():
    async with running(hardware=HARDWARE) as sled:
        await upload(sled)
        await sled.json("POST", BUNDLE)
        got = await sled.ask("POST", f"{BUNDLE}/finalize?hash={sha(ARCHIVE)}")
        assert (got.status, got.json["message"]) == (400, "Hash mismatch")
        await finalize(sled, b"")


async def test_an_offset_beyond_the_quota_is_refused():
    async with running(hardware=HARDWARE) as sled:
        await upload(sled)
        for offset in (2**63, 101 * 2**30):
            assert (await sled.ask("PUT", f"{BUNDLE}/transfer?offset={offset}", data=b"x")).status == 500
            await sled.json("POST", BUNDLE)


async def test_a_transfer_that_breaks_off_deletes_what_was_transferred():
    async with running(hardware=HARDWARE) as sled:
        await upload(sled)
        host, _, port = sled.daemon.addresses[SLED].rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        head = f"PUT {BUNDLE}/transfer?offset=0 HTTP/1.1\r\nhost: x\r\napi-version: 48.0.0\r\n"
        writer.write(head.encode() + b"content-length: 1000\r\n\r\n" + b"x" * 10)
        writer.write_eof()
        await reader.read()
        got = await sled.ask("POST", f"{BUNDLE}/finalize?hash={sha(ARCHIVE)}")
        assert got.status == 500
        assert not sled.daemon.blobs(SLED).has(f"bundles/{an_id(0xA01)}/{an_id(0xB1)}.zip.tmp")
        writer.close()


LENGTH = len(ARCHIVE)


@pytest.fixture
async def stored():
    """A sled that has the bundle."""
    async with running(hardware=HARDWARE) as sled:
        await upload(sled)
        await finalize(sled)
        yield sled


@in_one_test(
    ("asked", "first", "last"),
    [
        pytest.param("bytes=0-99", 0, 99, id="the beginning"),
        pytest.param("bytes=100-", 100, LENGTH - 1, id="from somewhere on"),
        pytest.param("bytes=-7", LENGTH - 7, LENGTH - 1, id="the end"),
        pytest.param(f"bytes=5-{LENGTH + 99}", 5, LENGTH - 1, id="an end beyond the end is clipped"),
        pytest.param("bytes=0-0", 0, 0, id="one byte"),
        pytest.param(f"bytes=-{LENGTH * 2}", 0, LENGTH - 1, id="more than all from the end"),
    ],
)
async def test_one_range_is_answered(stored, asked, first, last):
    got = await stored.ask("GET", f"{BUNDLE}/download", headers={"range": asked})
    assert (got.status, got.body) == (206, ARCHIVE[first : last + 1])
    assert got.headers["content-range"] == f"bytes {first}-{last}/{LENGTH}"
    assert got.headers["content-length"] == str(last - first + 1)


@in_one_test(
    "asked",
    ["bytes=0-1,5-6", f"bytes={LENGTH}-", "bytes=9-5", "bytes=x-y", "bytes=-", "lines=0-1", "", "bytes=-0", "bytes"],
)
async def test_any_other_range_is_refused_without_a_word(stored, asked):
    for path in ("download", "index", "download/bundle_id.txt"):
        got = await stored.ask("GET", f"{BUNDLE}/{path}", headers={"range": asked})
        assert (got.status, got.body) == (400, b"")
        assert "content-type" not in got.headers


async def test_head_tells_the_length_and_does_not_care_for_ranges():
    async with running(hardware=HARDWARE) as sled:
        await upload(sled)
        await finalize(sled)
        index = len((await sled.ask("GET", f"{BUNDLE}/index")).body)
        for path, length in (("download", LENGTH), ("index", index), ("download/bundle_id.txt", 36)):
            for headers in ({}, {"range": "bytes=0-1"}):
                got = await sled.ask("HEAD", f"{BUNDLE}/{path}", headers=headers)
                assert (got.status, got.headers["content-length"], got.body) == (200, str(length), b"")
        got = await sled.ask("HEAD", f"{BUNDLE}/download/bundle_id.txt", headers={"range": "bytes=9-5"})
        assert got.status == 400, "a bad one is refused all the same"
        assert (await sled.ask("HEAD", f"{BUNDLE}/download", headers={"range": "bytes=9-5"})).status == 200


async def test_members_are_read_by_their_names_and_by_ranges():
    from yarl import URL

    async with running(hardware=HARDWARE) as sled:
        await upload(sled)
        await finalize(sled)

        async def member(name, **headers):
            url = URL(f"{sled.base}{BUNDLE}/download/{name}", encoded=True)
            asked = {"api-version": "48.0.0"} | headers
            async with sled.session.get(url, headers=asked) as answer:
                return answer.status, await answer.read()

        assert await member("logs%2Fa%20b.log") == (200, b"line\n" * 200_000)
        assert await member("logs%2Fa%20b.log", range="bytes=500000-500009") == (206, b"line\nline\n")
        assert (await member("logs%2F"))[0] == 400, "a folder is no file"
        assert (await member("logs%2Fnone.log"))[0] == 404
        assert (await member("bundle_id.txt", range=f"bytes={36}-"))[0] == 400


async def test_a_bundle_that_is_no_archive_can_be_downloaded_but_not_looked_into():
    async with running(hardware=HARDWARE) as sled:
        await upload(sled, data=b"no archive", pieces=1)
        await finalize(sled, b"no archive")
        assert (await sled.ask("GET", f"{BUNDLE}/download")).body == b"no archive"
        for path in ("index", "download/x"):
            got = await sled.ask("GET", f"{BUNDLE}/{path}")
            assert (got.status, got.json["error_code"]) == (500, "Internal")


async def test_bundles_go_with_their_dataset_and_with_a_delete():
    async with running(hardware=HARDWARE) as sled:
        await upload(sled)
        await finalize(sled)
        stored = sled.daemon.blobs(SLED)
        assert stored.has(f"bundles/{an_id(0xA01)}/{an_id(0xB1)}.zip")
        await sled.json("PUT", "/omicron-config", config(3).wire)
        assert (await sled.ask("GET", f"{BUNDLE}/download")).status == 404
        assert not stored.has(f"bundles/{an_id(0xA01)}/{an_id(0xB1)}.zip")


# ---- restarts ------------------------------------------------------------------------------------------------------


async def test_what_was_acknowledged_is_there_after_a_restart(tmp_path):
    data = b"artifact" * MIB
    async with running(hardware=HARDWARE, state_dir=tmp_path) as sled:
        await upload(sled)
        await finalize(sled)
        await wanted(sled, data)
        await put_artifact(sled, data)
        before = await sled.json("GET", "/inventory")
    async with running(hardware=HARDWARE, state_dir=tmp_path) as sled:
        after = await sled.json("GET", "/inventory")
        for changing in ("sled_agent_address", "reconciler_status"):
            before.pop(changing), after.pop(changing)
        assert after == before
        assert (await sled.ask("GET", f"{BUNDLE}/download")).body == ARCHIVE
        assert await sled.json("GET", "/artifacts") == {"generation": 1, "list": {sha(data): 2}}
        with sled.daemon.blobs(SLED).open(f"artifacts/{sha(data)}") as stored:
            assert stored.read() == data


async def test_a_daemon_that_died_before_it_named_a_bundle_has_it_all_the_same(tmp_path):
    async with running(hardware=HARDWARE, state_dir=tmp_path) as sled:
        await upload(sled)
        await finalize(sled)
        path = sled.daemon.blobs(SLED).path(f"bundles/{an_id(0xA01)}/{an_id(0xB1)}.zip")
    path.replace(path.with_suffix(".zip.tmp"))
    async with running(hardware=HARDWARE, state_dir=tmp_path) as sled:
        assert (await sled.ask("GET", f"{BUNDLE}/download")).body == ARCHIVE


async def test_a_transfer_goes_on_after_a_restart(tmp_path):
    third = -(-len(ARCHIVE) // 3)
    async with running(hardware=HARDWARE, state_dir=tmp_path) as sled:
        await sled.json("PUT", "/omicron-config", CONFIG)
        await sled.json("POST", BUNDLE)
        await sled.ask("PUT", f"{BUNDLE}/transfer?offset=0", data=ARCHIVE[:third])
    async with running(hardware=HARDWARE, state_dir=tmp_path) as sled:
        await sled.ask("PUT", f"{BUNDLE}/transfer?offset={third}", data=ARCHIVE[third:])
        await finalize(sled)


async def test_two_daemons_do_not_share_a_state_directory(tmp_path):
    async with running(state_dir=tmp_path):
        with pytest.raises(BadStateDir, match="another daemon uses it"):
            async with running(state_dir=tmp_path):
                pass


@in_one_test("kind", KEPT_AREAS, ids=lambda kind: kind.kept_as)
@in_one_test("text", ["", "{", "3", '"x"', "[[]]", '{"ledgered": 3}', '{"a": [1]}', "[" * 100_000])
def test_a_state_directory_that_nobody_can_read_is_refused(kind, text, tmp_path):
    """Whatever area it is of: one that was only looked at with the first request for it was a 500 then, and its file
    was written over by the next change.
    """
    place = Path(tempfile.mkdtemp(dir=tmp_path))
    folder = place / str(SLED) / "facts"
    folder.mkdir(parents=True)
    (folder / f"{kind.kept_as}.json").write_text(text)
    daemon = Daemon([SledConfig(SLED)], Options(nexus="[::1]:9", state_dir=place, register=False, companions=Ports()))
    with pytest.raises(BadStateDir):
        daemon._take_up(place)
    daemon._state_dir.close()
    assert (folder / f"{kind.kept_as}.json").read_text() == text


def test_the_areas_that_keep_anything_are_all_tried():
    """Of those that exist; a new one has to be in the list of the daemon."""
    below = [Area]
    for kind in below:
        below += kind.__subclasses__()
    assert {kind for kind in below if kind.kept_as is not None} == set(KEPT_AREAS)


def test_what_an_area_keeps_is_there_again_or_the_area_is_not():
    """Half an area would be taken for all of it, and kept instead."""
    estate = Daemon([SledConfig(SLED)], Options(nexus="[::1]:9", register=False)).rack.sleds[SLED].estate
    estate.kept["local-storage"] = [1]
    for _ in range(2):
        with pytest.raises(TypeError):
            estate.of(LocalStorage)
        assert estate.kept == {"local-storage": [1]}
        assert LocalStorage not in estate.made


def no_room(_path, _value):
    raise OSError(errno.ENOSPC, "No space left on device")


NO_ARTIFACTS = {"generation": 1, "artifacts": []}


async def test_what_a_full_disk_does_not_take_is_refused_each_time_and_reads_go_on(tmp_path, monkeypatch):
    async with running(hardware=HARDWARE, state_dir=tmp_path) as sled:
        with monkeypatch.context() as full:
            full.setattr(state_dir, "_write", no_room)
            for path, body in (("/omicron-config", CONFIG), ("/artifacts-config", NO_ARTIFACTS)):
                for _ in range(2):
                    got = await sled.ask("PUT", path, body)
                    assert (got.status, got.json["error_code"]) == (500, "Internal")
            for path in ("/inventory", "/artifacts-config", "/zones", "/v2p"):
                assert (await sled.ask("GET", path)).status == 200
        assert (await sled.ask("PUT", "/omicron-config", CONFIG)).status == 204
    async with running(hardware=HARDWARE, state_dir=tmp_path) as sled:
        assert (await sled.json("GET", "/inventory"))["ledgered_sled_config"]["generation"] == CONFIG["generation"]
        assert (await sled.json("GET", "/artifacts-config"))["generation"] == 1, "all that was behind is written"


RULES = """version: 1
fleet: {sleds: 1}
rules: [{name: never, for: {hostname: nobody}, when: {edge: starting -> running}, do: {note: seen}}]
"""


@pytest.mark.parametrize("rules", [None, RULES], ids=["without rules", "with rules"])
async def test_reports_are_told_while_the_disk_is_full(rules, tmp_path, monkeypatch):
    """What the core decides about VMMs has nothing to do with what is kept, and must not be lost with it."""
    engine = None if rules is None else engine_for(parse_scenario(rules)[0], 0, [SLED_A])
    async with FakeNexus() as nexus, running_daemon(nexus, state_dir=tmp_path, engine=engine) as client:
        monkeypatch.setattr(state_dir, "_write", no_room)
        assert (await client.ask("PUT", "/omicron-config", CONFIG))[0] == 500
        assert (await client.register())[0] == 200
        assert (await client.put_state("running"))[0] == 200
        await nexus.heard(V1, "running")
        assert (await client.ask("PUT", "/omicron-config", CONFIG))[0] == 500
