"""Are the shards on the disk the ones that the manifest speaks of?"""

from pathlib import Path

from ldm.atomic import file_sha256
from ldm.data.manifest import LatentContract, Manifest
from ldm.data.stamp import read_stamp
from ldm.errors import UserError


def check_shards(folder: str | Path, manifest: Manifest) -> None:
    """Each shard is there with the manifest's size and, of latents, the manifest's contract; done before every run.

    It reads the head of each latent shard, and not the rest: `verify` does that.

    Raises:
        UserError: naming the first shard that is missing or another, or that the set is empty.
    """
    if manifest.num_samples == 0:
        raise UserError(f"{folder} holds no samples: pack it again from a source with images")
    for shard in manifest.shards:
        path = Path(folder) / shard.name
        if not path.is_file():
            raise UserError(f"shard {path} is missing: copy it back, or pack the set again")
        size = path.stat().st_size
        if size != shard.bytes:
            raise UserError(
                f"shard {path} has {size} bytes, but its manifest says {shard.bytes}: "
                "copy it again, or pack the set again"
            )
    if manifest.latents is not None:
        check_contract(Path(folder), manifest, manifest.latents)


def check_contract(folder: Path, manifest: Manifest, contract: LatentContract) -> None:
    """Each shard was written under the contract of its manifest.

    No shard of an older set says under which it was written. Each then counts if its content, read whole, is the
    manifest's. Where the manifest says that they are stamped, or some are, all have to be.

    Raises:
        UserError: naming the first shard that is not of this set, and what differs.
    """
    stamps = {folder / shard.name: read_stamp(folder / shard.name) for shard in manifest.shards}
    for path, made_under in stamps.items():
        if made_under is not None and (differing := contract.differences(made_under)):
            raise UserError(
                f"shard {path} is not of its folder: {told(made_under, contract, differing)}. Latents of two "
                "autoencoders or two settings cannot be mixed: put the shards of one set back, or run `ldm encode` "
                "again with --force"
            )
    stamped = manifest.stamped or any(stamps.values())
    for shard, (path, made_under) in zip(manifest.shards, stamps.items(), strict=True):
        if made_under is None and stamped:
            raise UserError(
                f"shard {path} says nothing of the autoencoder of its latents, as the others of its set do: copy the "
                "one that `ldm encode` wrote back, or run the same `ldm encode` again, which replaces it"
            )
        if made_under is None and file_sha256(path) != shard.sha256:
            raise UserError(
                f"shard {path} says nothing of the autoencoder of its latents, and is not the one of its manifest "
                "(sha256 differs): copy that one back, or run `ldm encode` again with --force"
            )


def told(found: LatentContract, said: LatentContract, differing: list[str]) -> str:
    """The first difference between a shard and its manifest, in words."""
    name = differing[0]
    one, other = getattr(found, name), getattr(said, name)
    if name == "autoencoder":
        return f"its latents were made by autoencoder {one[:12]}, and the manifest says {other[:12]}"
    return f"its latents were made with {name} {one}, and the manifest says {other}"


def verify(folder: str | Path) -> Manifest:
    """Read every shard and compare its sha256 with the manifest's.

    Raises:
        UserError: naming all shards whose content differs.
    """
    folder = Path(folder)
    manifest = Manifest.load(folder)
    check_shards(folder, manifest)
    damaged = []
    for shard in manifest.shards:
        if file_sha256(folder / shard.name) != shard.sha256:
            damaged.append(shard.name)
    if damaged:
        raise UserError(f"{folder}: the content of {', '.join(damaged)} differs from the manifest: copy or pack again")
    return manifest
