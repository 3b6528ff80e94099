"""Data: images packed into shards, read back in an order that is a function of (seed, position)."""

from ldm.data.dataset import ShardDataset
from ldm.data.index import ShardIndex, load_index
from ldm.data.latents import from_npy, to_npy
from ldm.data.loader import ShardLoader
from ldm.data.manifest import LatentContract, Manifest, ShardInfo
from ldm.data.module import ShardData
from ldm.data.order import Order, permutation
from ldm.data.pack import PackReport, pack
from ldm.data.reader import ShardReader
from ldm.data.shards import ShardWriter, shard_info
from ldm.data.stream import StreamDataset, StreamLoader
from ldm.data.transform import ImageTransform
from ldm.data.verify import verify

__all__ = [
    "ImageTransform",
    "LatentContract",
    "Manifest",
    "Order",
    "PackReport",
    "ShardData",
    "ShardDataset",
    "ShardIndex",
    "ShardInfo",
    "ShardLoader",
    "ShardReader",
    "ShardWriter",
    "StreamDataset",
    "StreamLoader",
    "from_npy",
    "load_index",
    "pack",
    "permutation",
    "shard_info",
    "to_npy",
    "verify",
]
