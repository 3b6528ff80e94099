"""Pixels is the identity."""

import ast
from collections.abc import Iterator
from pathlib import Path

import torch

import ldm
from ldm.autoencoders import Pixels


def test_images_come_through_unchanged():
    images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    autoencoder = Pixels(3)
    eps = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    latents = autoencoder.encode(images).sample(eps)
    assert (latents - images).abs().max() < 3e-6
    assert torch.equal(autoencoder.decode(images), images)
    assert autoencoder.latent_shape(5, 7) == (3, 5, 7)


def test_nothing_is_trained_and_two_of_a_kind_are_one():
    assert list(Pixels().parameters()) == []
    assert Pixels(1).fingerprint() == Pixels(1).fingerprint() != Pixels(3).fingerprint()


def names(path: Path) -> Iterator[str]:
    """What a file's code speaks of: names, imports and texts that are one name; no prose."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.rpartition(".")[2]
        yield from (str(getattr(node, field)) for field in ("id", "attr", "name") if hasattr(node, field))


def test_no_other_file_knows_of_it():
    """Diffusion in pixels is a choice of a config: no code asks whether an autoencoder is this one."""
    root = Path(ldm.__file__).parent
    naming = {str(path.relative_to(root)) for path in root.rglob("*.py") if "Pixels" in names(path)}
    assert naming == {"autoencoders/__init__.py", "autoencoders/pixels.py"}
