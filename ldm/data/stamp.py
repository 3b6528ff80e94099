"""The contract of latents in the head of their shard, so that a shard that is moved into another folder still tells it.

It is the comment of a pax global header, which every reader of tars passes over.
"""

import json
import tarfile
from dataclasses import asdict
from pathlib import Path

from ldm.data.manifest import LatentContract

PREFIX = "ldm latents "


def stamp(contract: LatentContract) -> str:
    """The comment for the head of a shard."""
    return PREFIX + json.dumps(asdict(contract), sort_keys=True)


def read_stamp(shard: Path) -> LatentContract | None:
    """The contract that a shard was written under, by one short read; None where its head says none, as older ones."""
    try:
        with tarfile.open(shard, mode="r:") as tar:
            comment = tar.pax_headers.get("comment", "")
        return LatentContract.parse(json.loads(comment.removeprefix(PREFIX))) if comment.startswith(PREFIX) else None
    except (tarfile.TarError, EOFError, ValueError, TypeError, KeyError):
        return None
