"""What a person gives to `import`: packed in any way, in each other, cut, garbled, without end; told, never fatal."""

import bz2
import contextlib
import gzip
import io
import os
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.command import CliRunner
from support.incident.writing import Log
from support.profile import by_profile
from support.rows import in_one_test

from sim_sled.cli.main import app
from sim_sled.incident import archives
from sim_sled.incident.archives import Shelf, sources
from sim_sled.incident.importing import NothingFound, import_logs

AGENT = "oxide-sled-agent:default.log"
PROPOLIS = "system-illumos-propolis-server:default.log"


def a_log():
    log = Log()
    log.register(1, "web")
    log.starts(2, "web")
    return log.text().encode()


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return out.getvalue()


def tarred(files, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return out.getvalue()


def read(*paths):
    """What is in each file that is found, by its name, and what is told of the others."""
    told = []
    with Shelf() as shelf:
        found = {}
        for each in sources([str(path) for path in paths], told.append, shelf):
            with each.open() as file:
                found[each.shown] = file.read()
    return found, told


ZONE_BUNDLE = {
    "metadata.toml": b'version = 0\ncause = "terminated_instance"\n',
    "ptree": b'Command: ["ptree"]\n',
    "pargs.6012": b'Command: ["pargs", "6012"]\n',
    PROPOLIS: b"new\n",
    f"{PROPOLIS}.1786999999": b"old\n",
    f"{PROPOLIS}.0": b"newer\n",
}


@in_one_test(
    "packed",
    [
        pytest.param(lambda log: log, id="plain"),
        pytest.param(gzip.compress, id="gzip"),
        pytest.param(lambda log: zipped({"rack/r/sled/s/logs/global/sled-agent/current/" + AGENT: log}), id="zip"),
        pytest.param(lambda log: zipped({"a.log.gz": gzip.compress(log), "b.json": b"{}"}), id="gzip in a zip"),
        pytest.param(lambda log: tarred({AGENT: log}, "w"), id="tar"),
        pytest.param(lambda log: tarred({AGENT: log}), id="tar.gz"),
        pytest.param(lambda log: tarred({AGENT + ".gz": gzip.compress(log)}), id="gzip in a tar.gz"),
        pytest.param(lambda log: zipped({"zone/1.tar.gz": tarred({AGENT: log})}), id="tar.gz in a zip"),
        pytest.param(lambda log: gzip.compress(zipped({AGENT: log})), id="a zip that was packed once more"),
        pytest.param(lambda log: tarred({"x.zip": zipped({AGENT: log})}), id="zip in a tar.gz"),
    ],
)
@in_one_test("way", ["a file", "standard input"])
def test_a_log_is_the_same_log_however_it_is_packed(tmp_path, monkeypatch, packed, way):
    path = tmp_path / "given"
    path.write_bytes(packed(a_log()))
    given_ = str(path)
    if way == "standard input":
        given_ = "-"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    imported = import_logs([given_], "x")
    assert 'hostname: "web"' in imported.text
    assert (imported.differences, imported.failed) == ((), ())


def test_of_a_zone_bundle_the_logs_are_read_oldest_first_and_nothing_else(tmp_path):
    (tmp_path / "bundle.tar.gz").write_bytes(tarred(ZONE_BUNDLE))
    found, told = read(tmp_path / "bundle.tar.gz")
    assert list(found.values()) == [b"old\n", b"newer\n", b"new\n"]
    assert told == []


def test_zone_bundles_of_two_zones_keep_their_logs_apart(tmp_path):
    for zone in "ab":
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "1.tar.gz").write_bytes(tarred({PROPOLIS: zone.encode(), f"{PROPOLIS}.0": b"old"}))
    found, _ = read(tmp_path)
    assert list(found.values()) == [b"old", b"a", b"old", b"b"]
    assert f"a/1.tar.gz!{PROPOLIS}" in found


def test_of_a_support_bundle_that_was_unpacked_what_tells_of_vmms_is_read(tmp_path):
    logs = tmp_path / "rack" / "r" / "sled" / "s" / "logs"
    for name in (f"global/sled-agent/current/{AGENT}", f"oxz_ntp_1/ntp/current/{AGENT}"):
        (logs / name).parent.mkdir(parents=True)
        (logs / name).write_text("x\n")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "report.json").write_text("{}")
    found, told = read(tmp_path)
    assert list(found) == [AGENT]
    assert told == []


def test_one_file_by_several_names_is_read_once(tmp_path):
    (tmp_path / "a.log").write_text("x\n")
    (tmp_path / "b.log").symlink_to("a.log")
    os.link(tmp_path / "a.log", tmp_path / "c.log")
    found, _ = read(tmp_path / "a.log", tmp_path, tmp_path / "c.log")
    assert len(found) == 1


def test_links_in_a_circle_broken_ones_and_pipes_are_told(tmp_path):
    (tmp_path / "a.log").write_text("x\n")
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "nowhere.log").symlink_to("missing")
    os.mkfifo(tmp_path / "pipe.log")
    found, told = read(tmp_path)
    assert len(found) == 1
    for name, why in (
        ("round", "not followed"),
        ("itself", "too many levels"),
        ("nowhere.log", "no such file"),
        ("pipe.log", "not a regular file"),
    ):
        assert [each for each in told if name in each and why in each], told


def test_a_folder_that_nobody_may_look_into_is_told(tmp_path, monkeypatch):
    (tmp_path / "a.log").write_text("x\n")
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refused(path):  # who runs this may be allowed everything
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    found, told = read(tmp_path)
    assert len(found) == 1
    assert told == [f"{tmp_path}/closed: Permission denied"]


def encrypted():
    content = bytearray(zipped({"a.log": b"x" * 100}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def packed_as(method):
    content = bytearray(zipped({"a.log": b"x" * 100}))
    struct.pack_into("<H", content, 8, method)
    struct.pack_into("<H", content, content.index(b"PK\x01\x02") + 10, method)
    return bytes(content)


def with_a_name_without_end():
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 8 * 1024**3
    return gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + b"x" * 100_000)


@in_one_test(
    ("content", "why"),
    [
        pytest.param(zipped({}), "no file in it looks like a log", id="an empty zip"),
        pytest.param(gzip.compress(tarred({}, "w")), "", id="an empty tar: zeros"),
        pytest.param(zipped({"zfs.json.err": b""}), "no file in it looks like a log", id="a zip without logs"),
        pytest.param(b"PK\x03\x04 and nothing more", "not a zip", id="a zip that was cut"),
        pytest.param(zipped({"a.log": a_log()})[:-30], "not a zip", id="a zip without its end"),
        pytest.param(gzip.compress(a_log())[:5], "ended before", id="a gzip that was cut in its head"),
        pytest.param(b"\x1f\x8bnonsense", "", id="what only begins as gzip"),
        pytest.param(encrypted(), "encrypted", id="a zip with a password"),
        pytest.param(packed_as(93), "compression", id="zstd in a zip"),
        pytest.param(bz2.compress(a_log()), "bzip2, which is not read; unpack it", id="bzip2"),
        pytest.param(b"\x28\xb5\x2f\xfd....", "zstd, which is not read", id="zstd"),
        pytest.param(a_log().decode().encode("utf-16"), "UTF-16, which is not read; convert it", id="UTF-16"),
        pytest.param(a_log().decode().encode("utf-16-be"), "UTF-16, which is not read", id="UTF-16 without a mark"),
        pytest.param(with_a_name_without_end(), "has no end", id="a tar with a name of 8 GiB"),
        pytest.param(b"", "", id="nothing"),
        pytest.param(b"\0" * 10_000, "", id="zeros"),
        pytest.param(bytes(range(256)) * 64, "", id="no text"),
    ],
)
@in_one_test("way", ["a file", "standard input"])
def test_what_cannot_be_read_is_told_with_its_reason(tmp_path, monkeypatch, content, why, way):
    path = tmp_path / "given.log"
    path.write_bytes(content)
    given_ = str(path) if way == "a file" else "-"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(NothingFound, match=f"(?is){why}"):
        import_logs([given_], "x")


def test_what_is_packed_deeper_than_anybody_packs_is_told_and_the_rest_is_read(tmp_path):
    deep = a_log()
    for _ in range(9):
        deep = zipped({"x.zip" if deep[:2] == b"PK" else "x.log": deep})
    path = tmp_path / "mixed.zip"
    path.write_bytes(zipped({"a.log": a_log(), "deep.zip": deep}))
    found, told = read(path)
    assert list(found) == ["mixed.zip!a.log"]
    assert "not looked into" in "".join(told)


def test_a_tar_with_more_than_may_be_unpacked_gives_what_came_before(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "UNPACKED_MAX", 200_000)
    path = tmp_path / "big.tar.gz"
    path.write_bytes(tarred({"a.log": b"x\n", "b.log": b"\0" * 10_000_000, "c.log": b"y\n"}))
    found, told = read(path)
    assert list(found.values()) == [b"x\n"]
    assert "big.tar.gz: " in told[0]


def test_more_files_than_anybody_has_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FILES_MAX", 3)
    for n in range(5):
        (tmp_path / f"{n}.log").write_text("x\n")
    finder = archives._Finder
    monkeypatch.setattr(archives, "_Finder", lambda tell, shelf: finder(tell, shelf, left=3))
    found, told = read(tmp_path)
    assert (len(found), len(told)) == (3, 1)
    path = tmp_path / "many.zip"
    path.write_bytes(zipped({f"{n}.log": b"x" for n in range(5)}))
    found, told = read(path)
    assert (found, len(told)) == ({}, 1), "its table of contents is not even read"


def test_names_in_archives_move_no_cursor(tmp_path):
    path = tmp_path / "evil.tar"
    path.write_bytes(tarred({"a\x1b[31m\nb.log": a_log(), "../../up.log": a_log(), "/abs.log": a_log()}, "w"))
    found, _ = read(path)
    assert len(found) == 3
    assert all(name.isprintable() for name in found)


def test_members_that_are_no_files_are_passed_over(tmp_path):
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as file:
        for name, kind in (("a.log", tarfile.SYMTYPE), ("b.log", tarfile.LNKTYPE), ("c.log", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            file.addfile(member)
        member = tarfile.TarInfo("d.log")
        member.size = 2
        file.addfile(member, io.BytesIO(b"x\n"))
    found, _ = read(path)
    assert list(found.values()) == [b"x\n"]


PACKED = [
    zipped({"a.log": a_log(), "b/c.log.gz": gzip.compress(a_log()), "d.tar.gz": tarred(ZONE_BUNDLE)}),
    tarred({AGENT: a_log(), "x.zip": zipped({AGENT: a_log()})}),
    tarred({AGENT: a_log()}, "w"),
    gzip.compress(a_log()),
]


@pytest.mark.nightly
@settings(deadline=None, max_examples=by_profile(20, nightly=600))
@given(st.data())
def test_whatever_is_garbled_in_an_archive_is_told_and_never_fatal(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from(PACKED)))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
        content = content or bytearray(b"x")
    path: Path = tmp_path_factory.mktemp("garbled") / "x"
    path.write_bytes(bytes(content))
    with contextlib.suppress(NothingFound):
        import_logs([str(path)], "x")


def test_the_command_takes_a_bundle_from_a_pipe(tmp_path, monkeypatch):
    bundle = zipped({f"rack/r/sled/s/logs/global/sled-agent/current/{AGENT}": a_log(), "meta/report.json": b"{}"})
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["import", "-", "--verify", "--out", "x.yaml"], input=bundle)
    assert done.exit_code == 0, done.stderr
    assert f"# {AGENT}:1  registered" in (tmp_path / "x.yaml").read_text(), "quoted by the member's name"
