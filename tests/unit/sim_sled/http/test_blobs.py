"""Stored bytes: what is only lent, what outlives the daemon, hashes of pieces (SR 4.1, 4.2)."""

import errno
import hashlib
import os
import tempfile

import pytest

from sim_sled.http.blobs import BUFFER, MEMORY_MAX, Blobs


async def pieces(*data):
    for each in data:
        yield each


async def stored(blobs, key, *data):
    async with blobs.incoming() as incoming:
        await incoming.receive(pieces(*data))
        await incoming.keep(key)


@pytest.mark.parametrize("size", [0, 1, BUFFER, 3 * BUFFER + 1])
async def test_what_outlives_the_daemon_is_on_the_disk_before_it_counts(size, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    kept, lent = Blobs(tmp_path), Blobs()
    for blobs in (kept, lent):
        await stored(blobs, "a/b", b"x" * size)
        with blobs.open("a/b") as file:
            assert file.read() == b"x" * size
    assert len(synced) == 1, "the one of the state directory, and only that"
    lent.close()


async def test_where_nothing_can_be_written_is_a_matter_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.setattr("sim_sled.http.blobs.MEMORY_MAX", 1)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(OSError, match="No usable temporary directory") as found:
        await stored(Blobs(), "a", b"x" * (BUFFER + 1))
    assert found.value.errno == errno.EROFS


async def test_little_is_kept_in_memory_until_there_is_no_more_room(monkeypatch):
    monkeypatch.setattr("sim_sled.http.blobs.MEMORY_MAX", 10)
    assert MEMORY_MAX > BUFFER
    blobs = Blobs()
    assert blobs.keep_small("a", b"x" * 6)
    assert not blobs.keep_small("b", b"x" * 5)
    assert blobs.keep_small("c", b"x" * 4), "to the last byte"
    blobs.drop("a")
    assert blobs.keep_small("b", b"x" * 6), "what is dropped is room again"
    assert not Blobs(root=blobs.path("folder").parent).keep_small("a", b"")
    blobs.close()


async def test_dropping_a_folder_drops_what_is_below_it_and_nothing_else():
    blobs = Blobs()
    for key in ("one/a", "one/b", "two/a", "one"[:2]):
        assert blobs.keep_small(key, key.encode())
    await blobs.write_at("one/file", 0, pieces(b"z"))
    blobs.drop("one/")
    assert [blobs.has(key) for key in ("one/a", "one/b", "one/file", "two/a", "on")] == [False] * 3 + [True] * 2
    blobs.close()


@pytest.mark.parametrize(
    "writes",
    [
        [(0, b"ab"), (2, b"cd")],
        [(2, b"cd"), (0, b"ab")],
        [(0, b"abcd"), (0, b"xy")],
        [(0, b"ab"), (4, b"ef")],
        [(0, b"ab"), (6, b"")],
        [(0, b"ab"), (1, b"")],
        [(0, b"abcd"), (2, b"zz")],
    ],
    ids=["in order", "backwards", "over the first", "a gap", "an empty one behind", "an empty one within", "within"],
)
async def test_the_hash_is_of_what_is_there_however_it_was_written(writes, tmp_path):
    blobs, whole = Blobs(tmp_path), bytearray()
    for offset, data in writes:
        assert await blobs.write_at("piece", offset, pieces(data)) == len(data)
        whole.extend(bytes(max(0, offset + len(data) - len(whole))))
        whole[offset : offset + len(data)] = data
        assert await blobs.sha256("piece") == hashlib.sha256(whole).hexdigest()
    with blobs.open("piece") as file:
        assert file.read() == bytes(whole)


async def test_a_blob_that_is_renamed_keeps_its_bytes_and_a_new_one_of_its_name_begins_anew(tmp_path):
    blobs = Blobs(tmp_path)
    await blobs.write_at("new", 0, pieces(b"old bytes"))
    blobs.rename("new", "done")
    assert (blobs.has("new"), blobs.has("done")) == (False, True)
    await blobs.write_at("new", 0, pieces(b"b"))
    assert await blobs.sha256("new") == hashlib.sha256(b"b").hexdigest()
    blobs.rename("nobody", "empty")
    assert await blobs.sha256("empty") == hashlib.sha256().hexdigest()
