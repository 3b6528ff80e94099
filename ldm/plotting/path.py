"""A noise path and what is trained along it."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ldm.diffusion import Diffusion
from ldm.diffusion.timesteps import Stratified, Timesteps
from ldm.plotting.figure import BLUE, GREY, ORANGE, new_figure, tidy
from ldm.plotting.times import even_times

POINTS = 1001
TIME = "t   (0: data, 1: noise)"


def draw_path(diffusion: Diffusion, title: str) -> Figure:
    """alpha and sigma, log-SNR and the training density over t; the effective weight over log-SNR."""
    path = diffusion.path
    t = even_times(path, POINTS)
    with torch.no_grad():
        alpha, sigma, logsnr = path.alpha(t), path.sigma(t), path.logsnr(t)
        density = diffusion.timesteps.density(t, path)
        weight = effective_weight(diffusion, t)
    figure = new_figure(10, 7.2)
    figure.suptitle(title, fontsize=11)
    (levels, snr), (times, weights) = figure.subplots(2, 2)
    levels.plot(t, alpha, color=BLUE, label="alpha (data)")
    levels.plot(t, sigma, color=ORANGE, label="sigma (noise)")
    if float(sigma.max()) > 20:
        levels.set_yscale("log")
    levels.legend(frameon=False)
    learned = ", before it has learned" if isinstance(path, nn.Module) else ""
    tidy(levels, f"{type(path).__name__}{learned}: x_t = alpha x0 + sigma eps", TIME, "alpha, sigma")
    finite = logsnr.isfinite()
    snr.plot(t[finite], logsnr[finite], color=BLUE)
    snr.axhline(0, color=GREY, linewidth=0.8)
    tidy(snr, "Signal to noise", TIME, "log-SNR = 2 log(alpha / sigma)")
    times.plot(t, density, color=BLUE)
    times.set_ylim(0, 1.1 * float(density.max()))
    tidy(times, f"Trained times: {law_name(diffusion.timesteps)}", TIME, "density, uniform times = 1")
    drawn = weight.isfinite() & finite
    weights.plot(logsnr[drawn], weight[drawn] / weight[drawn].max(), color=BLUE)
    weights.set_ylim(0, 1.1)
    weights.invert_xaxis()
    if path.rho > 1:  # most happens at small t
        for axes in (levels, snr, times):
            axes.set_xscale("log")
    tidy(
        weights,
        f"Effective weight: {weighting_name(diffusion)}",
        "log-SNR   (left: data, right: noise)",
        "weight of the eps error x density\nper unit of log-SNR, largest = 1",
    )
    return figure


def effective_weight(diffusion: Diffusion, t: Tensor) -> Tensor:
    """w(logsnr) such that training makes small the integral of w ||eps error||^2 dlogsnr, up to a factor.

    Kingma and Gao 2023 (arXiv 2303.00848) compare methods by it: 1 throughout is the bound on the likelihood. Times
    that are drawn more often count more, unless the loss is divided by their density.
    """
    path, prediction = diffusion.path, diffusion.prediction
    if diffusion.objective.is_bound:
        return torch.ones_like(t)
    on_x0 = diffusion.weighting(t, path, prediction) * prediction.error_ratio(t, path)
    if not diffusion.timesteps.corrected:
        on_x0 = on_x0 * diffusion.timesteps.density(t, path)
    # / snr gives the weight on eps, / -dlogsnr/dt its share of a unit of logsnr; their product stays finite
    alpha, sigma = path.alpha(t), path.sigma(t)
    growth = alpha * path.sigma_dot(t) - sigma * path.alpha_dot(t)
    return on_x0 * sigma**3 / (2 * alpha * growth)


def law_name(timesteps: Timesteps) -> str:
    if isinstance(timesteps, Stratified):
        return f"stratified {law_name(timesteps.timesteps)}"
    return f"{type(timesteps).__name__}{', before it has learned' if timesteps.learns else ''}"


def weighting_name(diffusion: Diffusion) -> str:
    objective, prediction = type(diffusion.objective).__name__, type(diffusion.prediction).__name__
    if diffusion.objective.is_bound:
        return f"{objective} of {prediction}, a bound"
    besides = "" if objective == "Simple" else f",\nin {objective}"
    return f"{type(diffusion.weighting).__name__} on {prediction}{besides}"
