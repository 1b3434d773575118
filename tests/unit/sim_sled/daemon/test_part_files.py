"""The parts of a recording on a disk that takes no more, and in a folder that somebody else has taken."""

import errno
import os

import pytest

from sim_sled.daemon.part_files import CannotRecord, PartFiles


class FullDisk:
    """A file that takes so many bytes more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.file.write(bytes(data)[: self.room])
        self.room -= taken
        return taken

    def close(self):
        self.file.close()


@pytest.mark.parametrize("part_bytes", [1 << 20, 4_000, 30], ids=["in one part", "in several", "a line has a part"])
def test_blocks_are_written_as_if_each_had_come_alone(tmp_path, part_bytes):
    blocks = [b"[%d]\n" % number * 3 for number in range(1_150 if part_bytes > 100 else 120)]
    both = [PartFiles(tmp_path / name, part_bytes) for name in ("all", "each")]
    for files in both:
        files.of = "x"
        files.begin()
        for at in range(0, len(blocks), 1_100):  # more than a kernel takes, if a part does, and fewer
            some = blocks[at : at + 1_100]
            if files is both[0]:
                files.write_all(some)
            else:
                for block in some:
                    files.write(block)
        files.write_all([])
        files.close()
    assert both[0].bytes == both[1].bytes
    texts = [[part.read_bytes() for part in sorted(files.folder.iterdir())] for files in both]
    assert texts[0] == texts[1]
    assert (len(texts[0]) > 1) == (part_bytes < 10_000)


def test_what_a_kernel_does_not_take_at_once_is_written_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "writev", lambda file, blocks: os.write(file, b"".join(blocks)[:5]))
    files = PartFiles(tmp_path / "r")
    files.begin()
    files.write_all([b"[1]\n", b"[2]\n", b"[3]\n"])
    files.close()
    assert (tmp_path / "r" / "part-00001.jsonl").read_bytes() == b"[1]\n[2]\n[3]\n"
    assert files.bytes == 12


@pytest.mark.parametrize("room", range(0, 24, 5))
def test_on_a_full_disk_the_last_line_says_why_and_all_before_it_are_whole(tmp_path, room):
    files = PartFiles(tmp_path / "r")
    files.begin()
    files.write(b"[1]\n" * 10)
    files._file = FullDisk(files._file, room)
    with pytest.raises(OSError, match="No space"):
        files.write(b'["a longer line"]\n' * 10)
    size = (tmp_path / "r" / "part-00001.jsonl").stat().st_size
    files.end(b'{"end":1}\n')
    files.close()
    text = (tmp_path / "r" / "part-00001.jsonl").read_bytes()
    assert len(text) <= size, "it needs no more room than there was"
    *before, last = text.splitlines()
    assert last == b'{"end":1}'
    assert set(before) <= {b"[1]", b'["a longer line"]'}
    assert len(before) >= 7


def test_the_first_line_stays_whatever_the_disk_does(tmp_path):
    files = PartFiles(tmp_path / "r")
    files.begin()
    files.write(b'{"recording":3}\n[1')
    files.end(b'{"end":"a long reason"}\n')
    files.close()
    assert (tmp_path / "r" / "part-00001.jsonl").read_bytes() == b'{"recording":3}\n[1'


@pytest.mark.parametrize("room", [None, 0, 5], ids=["no file", "an empty one", "half a line"])
def test_a_recording_whose_next_part_cannot_begin_says_so_at_the_end_of_the_one_before(tmp_path, monkeypatch, room):
    files = PartFiles(tmp_path / "r", part_bytes=40)
    files.begin()
    files.write(b"[1]\n" * 10)
    begin = files.begin

    def begins():
        if room is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        begin()
        files._file = FullDisk(files._file, room)

    monkeypatch.setattr(files, "begin", begins)
    with pytest.raises(OSError, match="No space"):
        files.write(b'["a longer line"]\n' * 3)
    files.end(b'{"end":1}\n')
    files.close()
    [only] = (tmp_path / "r").iterdir()
    assert only.read_bytes() == b"[1]\n" * 7 + b'{"end":1}\n'


def test_two_recordings_that_begin_at_once_in_one_folder_are_told_apart(tmp_path):
    one, other = PartFiles(tmp_path / "r"), PartFiles(tmp_path / "r")
    with one.usable():
        one.begin()
    with pytest.raises(CannotRecord, match="is not empty: another recording has just begun in it"), other.usable():
        other.begin()
    one.close()
