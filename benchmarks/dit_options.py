"""What each block kind and switch of DiT costs: milliseconds of a training step beside the plain DiT's.

    python benchmarks/dit_options.py [--quick]

A step is forward, backward and nothing else. The plain net (adaLN-Zero, no switch) and the option take turns, so that
both see the same machine; a line gives the median time of each, the median of the ratios turn by turn and their
quartiles. The first line is the plain net against another of itself: how far apart two equal nets are measured here.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ldm.networks import Conditioning, DiT, MMDiT, Network
from ldm.networks.blocks import AdaLN, AdaLNSingle, AdaLNZeroCross, CrossAttention, InContext
from ldm.networks.positions import Fractional, Learned, NoPositions

TEXT_LENGTH, TEXT_WIDTH = 32, 128
OPTIONS: dict[str, dict] = {
    "plain, again": {},
    "AdaLN": {"block": AdaLN()},
    "AdaLNSingle": {"block": AdaLNSingle()},
    "InContext": {"block": InContext()},
    "CrossAttention": {"block": CrossAttention()},
    "InContext, text": {"block": InContext(TEXT_WIDTH)},
    "CrossAttention, text": {"block": CrossAttention(TEXT_WIDTH)},
    "AdaLNZeroCross, text": {"block": AdaLNZeroCross(TEXT_WIDTH)},
    "AdaLNSingle, text": {"block": AdaLNSingle(TEXT_WIDTH)},
    "rope": {"rope": True},
    "swiglu": {"swiglu": True},
    "rms_norm": {"rms_norm": True},
    "qk_norm": {"qk_norm": True},
    "learned positions": {"positions": Learned()},
    "fractional positions": {"positions": Fractional()},
    "no positions": {"positions": NoPositions()},
    "4 registers": {"registers": 4},
    "long_skips": {"long_skips": True},
    "4 concat_channels": {"concat_channels": 4},
}


def step(net: Network, x: Tensor, cond: Conditioning) -> Callable[[], None]:
    """One forward and backward pass."""
    t = torch.full((len(x),), 0.5, device=x.device)

    def run() -> None:
        net.zero_grad(set_to_none=True)
        net(x, t, cond).square().mean().backward()

    return run


def conditioning(net: Network, x: Tensor, width: int) -> Conditioning:
    """Random, of what the net hears."""
    reads = net.context_width if isinstance(net, MMDiT) else net.block.context_width
    vector = torch.randn(len(x), width, device=x.device)
    tokens = torch.randn(len(x), TEXT_LENGTH, TEXT_WIDTH, device=x.device) if reads else None
    concat = torch.randn(len(x), net.concat_channels, *x.shape[2:], device=x.device) if net.concat_channels else None
    return Conditioning(vector, tokens, None, concat)


def seconds(run: Callable[[], None]) -> float:
    begun = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def compare(name: str, plain: Callable[[], None], other: Callable[[], None], rounds: int) -> None:
    """Print a line of the table."""
    for run in (plain, other):
        run()
    pairs = [(seconds(plain), seconds(other)) for _ in range(rounds)]
    ours, theirs = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
    low, middle, high = statistics.quantiles([other / plain for plain, other in pairs], n=4)
    print(f"{name:<22}{ours:>10.1f}{theirs:>10.1f}{middle:>8.3f}   ({low:.3f}, {high:.3f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small net and few rounds")
    parser.add_argument("--rounds", type=int, default=None, help="default 40, with --quick 15")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    rounds = options.rounds or (15 if options.quick else 40)
    torch.set_num_threads(options.threads)
    sizes = {"width": 128, "depth": 4, "num_heads": 4} if options.quick else {"width": 384, "depth": 12, "num_heads": 6}
    sizes = {"input_size": 16, "in_channels": 4, "patch_size": 2, **sizes}
    x = torch.randn(8, 4, 16, 16, device=options.device)

    def made(kind: type[Network], **further: object) -> Callable[[], None]:
        net = kind(**{**sizes, **further}).to(options.device)
        return step(net, x, conditioning(net, x, sizes["width"]))

    plain = made(DiT)
    print(f"x_t {tuple(x.shape)} on {x.device}, {sizes}, {rounds} rounds of each in turn")
    print(f"{'':<22}{'plain ms':>10}{'option ms':>10}{'ratio':>8}   (quartiles)")
    for name, further in OPTIONS.items():
        compare(name, plain, made(DiT, **further), rounds)
    compare("MMDiT, text", plain, made(MMDiT, context_width=TEXT_WIDTH), rounds)


if __name__ == "__main__":
    main()
