"""Guidance by the gradient of a classifier of noised images."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.guidance.base import Contrast, Guidance, check_scale
from ldm.diffusion.shapes import per_sample

# (x_t (B, C, ...), t (B,)) -> logits (B, classes), differentiable in x_t.
Classifier = Callable[[Tensor, Tensor], Tensor]


class ClassifierGuidance(Guidance):
    """Towards a class by a classifier of noised images; for models that were trained without classes.

    x0 + scale sigma^2 / alpha grad log p(label | x_t, t), which is scale times that gradient on the score: Dhariwal and
    Nichol 2021, arXiv 2105.05233, section 4.2 and algorithm 2, after Sohl-Dickstein et al. 2015, arXiv 1503.03585. At
    scale 1 an exact classifier makes an unconditional model the conditional one. Where alpha is 0, x_t tells nothing of
    the class, and nothing is added.

    Args:
        classifier: (x_t (B, C, ...), t (B,)) to logits (B, classes), trained on the same path; a model's `labels` are
            its classes.
        scale: 0 is off and asks no classifier; 1 to 10 is usual.
    """

    needs_noise = True
    needs_labels = True

    def __init__(self, classifier: Classifier | None = None, scale: float = 1.0) -> None:
        check_scale(scale)
        self.classifier = classifier
        self.scale = scale

    def guide(self, inner: Denoise, contrast: Contrast) -> Denoise:
        if self.scale == 0:
            return inner
        classifier, labels, path = self.classifier, contrast.labels, contrast.path
        if classifier is None:
            raise ValueError(
                "ClassifierGuidance has no classifier: give it one that was trained on noised images, or use "
                "ClassifierFree, which needs none."
            )
        if labels is None:
            raise ValueError("ClassifierGuidance has no labels to guide towards: ask for classes, or leave it out.")

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            guided, alpha = inner(x_t, t), path.alpha(t)
            factor = torch.where(alpha > 0, self.scale * path.sigma(t) ** 2 / alpha, 0)
            slope = gradient(classifier, x_t, t, labels)
            return replace(guided, x0=guided.x0 + per_sample(factor, x_t) * slope)

        return denoise


def gradient(classifier: Classifier, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """grad_x log p(label | x_t, t), (B, C, ...); it works under inference mode, which sampling runs in."""
    with torch.inference_mode(False), torch.enable_grad():
        x = x_t.detach().clone().requires_grad_()  # clones, as tensors of inference mode cannot be differentiated
        times = t.to(x).expand(len(x)).clone()
        logits = classifier(x, times)
        if logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] <= int(labels.max()):
            raise ValueError(
                f"The classifier returned {tuple(logits.shape)} for {len(x)} images and the class {int(labels.max())}: "
                f"it has to give logits (B, classes) with at least {int(labels.max()) + 1} classes."
            )
        chosen = logits.log_softmax(1).gather(1, labels.to(x.device).clone()[:, None])
        return torch.autograd.grad(chosen.sum(), x)[0]
