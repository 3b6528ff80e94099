"""From the pixels of an image to the grid of its latents, by learned convolutions."""

from torch import nn


def downsampler(width: int, channels: int, factor: int) -> nn.Sequential:
    """(B, width, H, W) -> (B, channels, H / factor, W / factor): a convolution of stride 2 for each power of two."""
    layers: list[nn.Module] = []
    while factor > 1:
        layers += [nn.SiLU(), nn.Conv2d(width, width, 3, stride=2, padding=1)]
        factor //= 2
    return nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1))


def check_grid(grid: int, factor: int) -> None:
    """Raise a ValueError unless images of `grid` x `factor` pixels can be brought to the grid by halving."""
    if grid < 1:
        raise ValueError(f"grid is {grid}: give the height and width of x_t, such as 32.")
    if factor < 1 or factor & (factor - 1):
        raise ValueError(f"factor is {factor}: it must be a power of two, such as 8.")
