"""Recordings that are made once."""

import asyncio
import shutil
from pathlib import Path

import pytest
from support.daemon.recorded import lived


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """The folder of a recording, made once."""
    folder = tmp_path_factory.mktemp("recorded") / "r"
    asyncio.run(lived(folder, part_bytes=30_000))
    return folder


@pytest.fixture
def folder(recorded, tmp_path):
    """One's own, to be spoilt."""
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


@pytest.fixture(scope="session")
def with_checkpoints(tmp_path_factory):
    return asyncio.run(lived(tmp_path_factory.mktemp("c") / "r", part_bytes=40_000, total_bytes=400_000))
