"""Every block kind and switch of DiT trained on digits side by side: class agreement and step time.

    python benchmarks/dit_digits.py [--steps 800] [--quick] [NAME ...]

All nets (width 128, depth 4, 16 tokens; MM-DiT of half the depth, as it has two streams) learn the rectified flow of
scikit-learn's digits at 8 pixels from the same noise. They take turns of a few steps, so that all see the same machine;
the time of a step is the median, and its ratio is to the plain adaLN-Zero net of the same run. Then each draws 50 of
each digit (DDIM, 25 steps, guidance 1.5, averaged weights), and an SVM that was fitted on real training digits says how
many it reads as the class asked for. The table of docs/log.md.
"""

import argparse
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor

from ldm.autoencoders import Pixels
from ldm.conditioners import Conditioner, Label
from ldm.diffusion import Diffusion
from ldm.diffusion.guidance import ClassifierFree
from ldm.diffusion.paths import RectifiedFlow
from ldm.diffusion.predictions import Velocity
from ldm.diffusion.samplers import DDIM
from ldm.diffusion.timesteps import LogitNormal
from ldm.networks import DiT, MMDiT
from ldm.networks.blocks import AdaLN, AdaLNSingle, AdaLNZeroCross, CrossAttention, InContext
from ldm.networks.positions import Fractional, Learned, NoPositions
from ldm.nn.ema import WeightAverage
from ldm.sampling import Request, sample_images
from ldm.tasks import DiffusionTask
from ldm.tasks.base import BatchNoise

WIDTH, DEPTH, BATCH, TURN, LEARNING_RATE = 128, 4, 64, 20, 2e-3
SIZES = {"input_size": 8, "in_channels": 1, "patch_size": 2, "width": WIDTH, "depth": DEPTH, "num_heads": 4}
PLAIN = "plain (adaLN-Zero)"
VECTOR: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "adaLN": {"block": AdaLN()},
    "in-context": {"block": InContext()},
    "cross-attention": {"block": CrossAttention()},
    "adaLN-single": {"block": AdaLNSingle()},
    "rope": {"rope": True},
    "rope alone": {"rope": True, "positions": NoPositions()},
    "SwiGLU": {"swiglu": True},
    "RMSNorm": {"rms_norm": True},
    "QK-norm": {"qk_norm": True},
    "learned positions": {"positions": Learned()},
    "fractional positions": {"positions": Fractional(4)},
    "4 registers": {"registers": 4},
    "long skips": {"long_skips": True},
    "rope, SwiGLU, RMSNorm, QK-norm": {"rope": True, "swiglu": True, "rms_norm": True, "qk_norm": True},
}
TOKEN: dict[str, dict[str, Any]] = {
    "adaLN-Zero, class by cross-attention": {"block": AdaLNZeroCross(WIDTH)},
    "adaLN-single, class by cross-attention": {"block": AdaLNSingle(WIDTH)},
    "in-context, class as a token": {"block": InContext(WIDTH)},
    "MM-DiT, class as a token": {},
}


@dataclass
class Contestant:
    """One net on its way, with the seconds of its steps."""

    task: DiffusionTask
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    average: WeightAverage
    seconds: list[float] = field(default_factory=list)

    def step(self, images: Tensor, labels: Tensor, number: int) -> None:
        task, noise = self.task, BatchNoise(0, number, torch.arange(BATCH), BATCH)
        begun = time.perf_counter()
        cond = task.conditioner({"labels": labels}, task.conditioner.drops(noise), noise)
        t = task.diffusion.times(noise.uniform())
        losses = task.diffusion.loss(task.net, images, t, noise.normal(*images.shape[1:]), cond)
        self.optimizer.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.average.update(task.trained_parameters())
        self.seconds.append(time.perf_counter() - begun)


def contestant(name: str, steps: int) -> Contestant:
    torch.manual_seed(0)
    if name.startswith("MM-DiT"):
        net = MMDiT(**{**SIZES, "context_width": WIDTH, "depth": DEPTH // 2})
    else:
        net = DiT(**SIZES, **(VECTOR | TOKEN)[name])
    label = Label(10, WIDTH, as_token=name in TOKEN)
    diffusion = Diffusion(RectifiedFlow(), Velocity(), timesteps=LogitNormal())
    task = DiffusionTask(net, diffusion, Pixels(1), Conditioner([label]))
    parameters = task.trained_parameters()
    optimizer = torch.optim.AdamW(parameters.values(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps, pct_start=0.1, cycle_momentum=False)
    return Contestant(task, optimizer, schedule, WeightAverage(parameters, 0.99))


def agreement(runner: Contestant, classifier: SVC, each: int) -> float:
    """The share of samples that the classifier reads as the class asked for."""
    labels = [i % 10 for i in range(10 * each)]
    request = Request(range(1000, 1000 + len(labels)), {"labels": labels}, [ClassifierFree(1.5)])
    runner.task.eval()
    with runner.average.swapped(runner.task.trained_parameters()):
        images = torch.cat([sample_images(runner.task, part, DDIM(25)) for part in request.split(250)])
    return float(classifier.score(images.flatten(1).numpy(), labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="contestants; left out, all of them")
    parser.add_argument("--steps", type=int, default=800, help="training steps of each (default: 800)")
    parser.add_argument("--quick", action="store_true", help="two turns and few samples: does it run?")
    options = parser.parse_args()
    steps, each = (2 * TURN, 2) if options.quick else (options.steps, 50)
    data = load_digits()
    images = torch.from_numpy(np.rint(data.images * 255 / 16)).float()[:, None] / 127.5 - 1
    labels = torch.from_numpy(data.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train = order[len(order) // 5 :]
    classifier = SVC(C=10).fit(images[train].flatten(1).numpy(), labels[train].numpy())
    names = list(dict.fromkeys([PLAIN, *(options.names or [*VECTOR, *TOKEN])]))
    runners = {name: contestant(name, steps) for name in names}
    for first in range(0, steps, TURN):
        for runner in runners.values():
            for number in range(first, min(first + TURN, steps)):
                rows = train[torch.randint(len(train), (BATCH,), generator=torch.Generator().manual_seed(number))]
                runner.step(images[rows], labels[rows], number)
    plain = statistics.median(runners[PLAIN].seconds)
    print(f"\n{steps} steps of {BATCH}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| net | weights | step | ratio to plain | read as asked |\n|---|---|---|---|---|")
    for name, runner in runners.items():
        seconds, weights = statistics.median(runner.seconds), sum(p.numel() for p in runner.task.net.parameters())
        share = 100 * agreement(runner, classifier, each)
        print(f"| {name} | {weights:,} | {1000 * seconds:.1f} ms | {seconds / plain:.2f} | {share:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
