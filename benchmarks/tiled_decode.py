"""Peak memory, time and seams of tiled decoding: kl-f8, random weights, on the CPU.

    python benchmarks/tiled_decode.py [SIDE] [--tile PIXELS] [--whole] [--bfloat16]

The peak is the process's, with Python, PyTorch and the weights. --whole decodes without tiles, for comparison.
"""

import argparse
import resource
import time
from contextlib import nullcontext

import torch

from ldm.autoencoders import KLAutoencoder
from ldm.autoencoders.tiling import TILE, decode_tiled
from ldm.evaluation.seams import seam


def peak() -> float:
    """The most memory that the process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", nargs="?", type=int, default=2048, help="pixels a side (default: 2048)")
    parser.add_argument("--tile", type=int, default=TILE, help=f"pixels a side of a tile (default: {TILE})")
    parser.add_argument("--whole", action="store_true", help="decode without tiles")
    parser.add_argument("--bfloat16", action="store_true", help="under autocast")
    given = parser.parse_args()
    torch.manual_seed(0)
    autoencoder = KLAutoencoder().eval()
    inner, side = given.tile // autoencoder.downsample, given.side // autoencoder.downsample
    latents, precision = torch.randn(1, 4, side, side), torch.autocast("cpu", torch.bfloat16)
    print(f"before: peak {peak():.2f} GB")
    with precision if given.bfloat16 else nullcontext():
        start = time.perf_counter()
        images = autoencoder.decode(latents) if given.whole else decode_tiled(autoencoder, latents, given.tile)
        print(f"{tuple(images.shape)} in {time.perf_counter() - start:.0f} s: peak {peak():.2f} GB")
        pair = torch.randn(1, 4, inner, 2 * inner - inner // 4)  # two tiles that share the least
        print(f"seam {seam(autoencoder, pair, given.tile):.3f}/255, with tiles that do not overlap ", end="")
        print(f"{seam(autoencoder, pair[..., : 2 * inner - 1], given.tile, overlap=0):.3f}/255")


if __name__ == "__main__":
    main()
