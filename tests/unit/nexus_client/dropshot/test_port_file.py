"""The file in which a server tells where it listens."""

import os

import pytest

from nexus_client.dropshot.port_file import told_in


def names(folder):
    return [each.name for each in folder.iterdir()]


def test_the_file_is_there_as_long_as_the_server(tmp_path):
    path = tmp_path / "p.json"
    path.write_text("of one that is gone")
    with told_in(path, "here"):
        assert path.read_text() == "here"
        assert names(tmp_path) == ["p.json"]
    assert not path.exists()


def test_the_file_follows_a_server_whose_addresses_change(tmp_path):
    path = tmp_path / "p.json"
    with told_in(path, "one") as tell:
        tell("two")
        assert path.read_text() == "two"
        assert names(tmp_path) == ["p.json"]
    assert not path.exists()
    with told_in(path, "one") as tell:
        path.write_text("another server's")
        tell("two")
        assert path.read_text() == "another server's"
    assert path.exists()


def test_what_another_server_has_written_meanwhile_is_left_alone(tmp_path):
    path = tmp_path / "p.json"
    with told_in(path, "here"):
        path.write_text("another")
    assert path.read_text() == "another"


def test_a_pipe_or_a_folder_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"), told_in(tmp_path / "pipe", "here"):
        pytest.fail("nothing starts")
    with pytest.raises(OSError, match="it is a folder"), told_in(tmp_path, "here"):
        pytest.fail("nothing starts")
    assert names(tmp_path) == ["pipe"]


def test_half_a_file_is_not_left_behind(tmp_path, monkeypatch):
    def full(self, text, **_):
        with self.open("w") as file:
            file.write(text[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"), told_in(tmp_path / "p.json", "here"):
        pytest.fail("nothing starts")
    assert names(tmp_path) == []


def test_nobody_asked_for_a_file():
    with told_in(None, "here"):
        pass
