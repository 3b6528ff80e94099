"""An image on its way into the noise."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ldm.diffusion.paths import NoisePath, Path
from ldm.plotting.figure import new_figure
from ldm.plotting.times import even_times

COLUMNS = 5


def draw_noising(path: Path, image: Tensor, eps: Tensor, num_times: int, whiten: bool, title: str) -> Figure:
    """An image (C, H, W) in [-1, 1] and what the path makes of it at `num_times` times.

    Shown is what a network sees (`net_input`), at the brightness of the image. With `whiten` the image is spoiled at
    mean 0 and standard deviation 1, and brought back to be shown.
    """
    mean, std = (image.mean(), image.std().clamp(min=1e-3)) if whiten else (0.0, 1.0)
    t = even_times(path, num_times).to(image.dtype)
    x0 = ((image - mean) / std).expand(len(t), *image.shape)
    with torch.no_grad():
        x_t = path.net_input(path.corrupt(x0, eps.expand_as(x0), t), t) / path.net_input(torch.ones(1), t[0])
    shown = [image, *(x_t * std + mean)]
    labels = ["the image"] + [about(path, time) for time in t]
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(2.1 * columns, 2.5 * rows + 0.5)
    figure.suptitle(title, fontsize=11)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, picture, label in zip(figure.axes, shown, labels, strict=False):
        pixels = ((picture.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).squeeze(-1)
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(label, fontsize=9)
    return figure


def about(path: Path, t: Tensor) -> str:
    """What stands above a picture: its time and, of a noise path, its noise level."""
    if not isinstance(path, NoisePath):
        return f"t = {float(t):.3g}"
    with torch.no_grad():
        return f"t = {float(t):.3g}\nlog-SNR {float(path.logsnr(t)):.1f}"
