"""Small sets of images to pack and to read."""

from pathlib import Path

import pytest
from data_pictures import class_folders

from ldm.data import pack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "source")


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    """15 images in shards of 4."""
    pack(str(folder), str(tmp_path / "packed"), shard_size=4)
    return tmp_path / "packed"


@pytest.fixture(scope="session")
def digits_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded digits as OUT/train and OUT/val, in shards of 100."""
    out = tmp_path_factory.mktemp("digits") / "set"
    pack("digits", str(out), shard_size=100, val_fraction=0.1)
    return out
