"""What a sampler costs besides the network: milliseconds per step, ours beside diffusers' schedulers.

    pip install -e '.[bench]' && python benchmarks/sampler_overhead.py

Both walk the same noise schedule from the same noise with a network that returns a tensor made beforehand, so that
nothing but the samplers is timed: what turns the network's output into x0 and x0 into the next state. The two take
turns; a line gives the median time of each and the median of the ratios turn by turn, which holds where the machine's
speed drifts. `set_timesteps` of diffusers is not timed; our grid is in our time, its coefficients after the first run
are kept.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from ldm.diffusion import Diffusion
from ldm.diffusion.paths import ScaledLinear
from ldm.diffusion.predictions import Eps
from ldm.diffusion.samplers import DDIM, DPMSolverPP, Euler, Sampler

STABLE_DIFFUSION = {"beta_start": 8.5e-4, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PAIRS = {
    "DDIM": (DDIM, DDIMScheduler),
    "DPM-Solver++ 2M": (DPMSolverPP, DPMSolverMultistepScheduler),
    "Euler": (Euler, EulerDiscreteScheduler),
}


def ours(kind: type[Sampler], num_steps: int, eps: Tensor, output: Tensor) -> Callable[[], object]:
    """One whole run of our sampler; the process keeps what it knows of the path, as over the batches of a run."""
    diffusion = Diffusion(ScaledLinear(), Eps())
    denoise = diffusion.denoiser(lambda x_t, heard, cond: output, None)
    sampler = kind(num_steps=num_steps)
    return lambda: sampler.sample(denoise, diffusion.path, eps, lambda: eps)


def theirs(kind: type, num_steps: int, eps: Tensor, output: Tensor) -> Callable[[], object]:
    """One whole run of a scheduler of diffusers, in the loop that its documentation gives."""
    scheduler = kind(**STABLE_DIFFUSION)

    def walk() -> Tensor:
        x = eps * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            scheduler.scale_model_input(x, t)
            x = scheduler.step(output, t, x).prev_sample
        return x

    def run() -> float:
        scheduler.set_timesteps(num_steps, device=eps.device)  # it counts its steps from here
        begun = time.perf_counter()
        walk()
        return time.perf_counter() - begun

    return run


def seconds(run: Callable[[], object]) -> float:
    """Time of a run; a run that returns a number has measured itself."""
    begun = time.perf_counter()
    measured = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return measured if isinstance(measured, float) else time.perf_counter() - begun


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--size", type=int, default=32, help="side of the latents")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    eps = torch.randn(options.batch_size, 4, options.size, options.size, device=options.device)
    print(f"{tuple(eps.shape)} on {eps.device}, {options.num_steps} steps, {options.rounds} rounds of each in turn")
    print(f"{'':<18}{'ldm ms/step':>12}{'diffusers':>12}{'ratio':>8}{'(min, max)':>16}")
    for name, (our_kind, their_kind) in PAIRS.items():
        pair = [
            ours(our_kind, options.num_steps, eps, torch.randn_like(eps)),
            theirs(their_kind, options.num_steps, eps, torch.randn_like(eps)),
        ]
        for run in pair:
            run()
        times = [[seconds(run) for run in pair] for _ in range(options.rounds)]
        per_step = [1000 * statistics.median(column) / options.num_steps for column in zip(*times, strict=True)]
        ratios = [one / other for one, other in times]
        spread = f"({min(ratios):.2f}, {max(ratios):.2f})"
        print(f"{name:<18}{per_step[0]:>12.4f}{per_step[1]:>12.4f}{statistics.median(ratios):>8.2f}{spread:>16}")


if __name__ == "__main__":
    main()
