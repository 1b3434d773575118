"""The parts of a recording on a disk that takes no more, and in a folder that somebody else has taken."""

import errno

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


def test_two_recordings_that_begin_at_once_in_one_folder_are_told_apart(tmp_path):
    one, other = PartFiles(tmp_path / "r"), PartFiles(tmp_path / "r")
    with one.usable():
        one.begin()
    with pytest.raises(CannotRecord, match="is not empty: another recording has just begun in it"), other.usable():
        other.begin()
    one.close()
