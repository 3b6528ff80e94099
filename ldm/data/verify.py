"""Are the shards on the disk the ones that the manifest speaks of?"""

from pathlib import Path

from ldm.atomic import file_sha256
from ldm.data.manifest import Manifest
from ldm.errors import UserError


def check_sizes(folder: str | Path, manifest: Manifest) -> None:
    """Each shard is there with the manifest's size: cheap, done before every run.

    Raises:
        UserError: naming the first shard that is missing or of another size, or that the set is empty.
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


def verify(folder: str | Path) -> Manifest:
    """Read every shard and compare its sha256 with the manifest's.

    Raises:
        UserError: naming all shards whose content differs.
    """
    folder = Path(folder)
    manifest = Manifest.load(folder)
    check_sizes(folder, manifest)
    damaged = []
    for shard in manifest.shards:
        if file_sha256(folder / shard.name) != shard.sha256:
            damaged.append(shard.name)
    if damaged:
        raise UserError(f"{folder}: the content of {', '.join(damaged)} differs from the manifest: copy or pack again")
    return manifest
