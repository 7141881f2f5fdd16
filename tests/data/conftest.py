"""A small prepared set of real photos."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from idgen.data.assign import AssignOptions
from idgen.data.prepare import PrepareOptions, prepare


@pytest.fixture(scope="session")
def lfw_photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 80 photos of LFW as folders, one a person."""
    folder = tmp_path_factory.mktemp("lfw")
    with tarfile.open(shared / "data" / "lfw" / "lfw-000.tar") as tar:
        for member in tar.getmembers()[:80]:
            tar.extract(member, folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def lfw_set(lfw_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same, prepared: four shards, everybody in the training split."""
    output = str(tmp_path_factory.mktemp("shards"))
    prepare(PrepareOptions(photos=str(lfw_photos), output=output, shard_size=20, people=AssignOptions(shares={})))
    return output
