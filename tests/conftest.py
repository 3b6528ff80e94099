"""What many tests share: the embedded digits as shards. Tiny models and fits are in tiny_models.py."""

from pathlib import Path

import pytest
import torch

from ldm.data import pack
from ldm.data.embedded import digits

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def packed_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 1,797 digits (8 x 8 grey) as OUT/train and OUT/val."""
    out = tmp_path_factory.mktemp("packed") / "digits"
    pack("digits", str(out), shard_size=512, val_fraction=0.1)
    return out


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven of each digit: 60 in OUT/train (in 4 shards), 10 in OUT/val."""
    root = tmp_path_factory.mktemp("few")
    images, labels, names = digits()
    for label, name in enumerate(names):
        folder = root / "images" / name
        folder.mkdir(parents=True)
        chosen = [image for image, y in zip(images, labels, strict=True) if y == label][:7]
        for i, image in enumerate(chosen):
            (folder / f"{i}.png").write_bytes(image)
    pack(str(root / "images"), str(root / "packed"), shard_size=16, val_fraction=1 / 7)
    return root / "packed"
