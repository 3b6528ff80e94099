"""A small decoder of another autoencoder's latents, for previews."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.gaussian import DiagonalGaussian
from ldm.errors import UserError
from ldm.nn.precision import without_autocast
from ldm.nn.resample import Upsample
from ldm.seeding import Draws

BOUND = 3.0  # standard deviations of a latent, beyond which the network hears less and less


class TinyDecoder(Autoencoder):
    """Encodes as its teacher does, and decodes with a small network that learns to draw what the teacher would.

    The latents are the teacher's, with its statistics and its fingerprint: whatever was trained on those can be shown
    by this decoder. The network has no norms and no attention, so an image's region depends on its own latents only.
    After the idea of TAESD (Ollin Boer Bohan 2023, github.com/madebyollin/taesd).

    A run folder of it keeps the small network alone, and refuses another teacher than the one that it learned from.

    Args:
        teacher: The trained autoencoder; usually class_path ldm.runs.load_autoencoder with init_args {run: FOLDER}.
        channels: Width of the network, at all resolutions.
        num_res_blocks: Residual blocks at each resolution.
        imitate: Learn from what the teacher decodes; false: from the images themselves, which saves running its
            decoder.
    """

    has_spread = False  # nothing here widens or narrows the teacher's posterior
    borrowed = ("teacher",)

    taught_by: Tensor

    def __init__(self, teacher: Autoencoder, channels: int = 64, num_res_blocks: int = 3, imitate: bool = True) -> None:
        doublings = teacher.downsample.bit_length() - 1
        if 2**doublings != teacher.downsample:
            raise ValueError(
                f"The teacher makes one latent of {teacher.downsample} pixels a side, and a TinyDecoder doubles: it "
                "needs a teacher whose factor is a power of 2."
            )
        if channels < 1 or num_res_blocks < 1:
            raise ValueError("channels and num_res_blocks must be at least 1.")
        super().__init__(teacher.in_channels, teacher.latent_channels, teacher.downsample)
        self.teacher = teacher.requires_grad_(False).eval()
        self.imitate = imitate
        parts: list[nn.Module] = [nn.Conv2d(teacher.latent_channels, channels, 3, padding=1), nn.ReLU()]
        for level in range(doublings + 1):
            parts += [PlainBlock(channels) for _ in range(num_res_blocks)]
            parts += [Upsample(channels)] if level < doublings else []
        self.network = nn.Sequential(*parts)
        self.conv_out = nn.Conv2d(channels, teacher.in_channels, 3, padding=1)
        self.register_buffer("taught_by", torch.empty(32, dtype=torch.uint8))
        self._follow_teacher()
        self.register_load_state_dict_post_hook(_check_teacher)

    def _follow_teacher(self) -> None:
        """Take over the teacher's statistics, and note who it is."""
        for name in ("latent_mean", "latent_std", "latent_samples"):
            getattr(self, name).copy_(getattr(self.teacher, name))
        self.taught_by.copy_(_as_bytes(self.fingerprint()))

    @property
    def last_weight(self) -> Tensor:
        return self.conv_out.weight

    def train(self, mode: bool = True) -> "TinyDecoder":
        super().train(mode)
        self.teacher.eval()
        return self

    def set_statistics(
        self, mean: Tensor | Sequence[float] | float, std: Tensor | Sequence[float] | float, num_samples: int | None
    ) -> None:
        """The teacher's, and with them its fingerprint."""
        self.teacher.set_statistics(mean, std, num_samples)
        self._follow_teacher()

    def fingerprint(self) -> str:
        """The teacher's: latents of both may be mixed."""
        return self.teacher.fingerprint()

    def posterior(self, images: Tensor) -> DiagonalGaussian:
        return self.teacher.posterior(images)

    def reconstruct(self, z: Tensor) -> Tensor:
        latents = (z - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]
        h = self.network(BOUND * (latents / BOUND).tanh())  #  (B, channels, H, W)
        with without_autocast(h.device):
            images: Tensor = self.conv_out(h.to(self.conv_out.weight.dtype))
        return images

    def autoencode(self, images: Tensor, draws: Draws) -> Autoencoded:
        """As every autoencoder's, but that the images to be met are, where `imitate` says so, those of the teacher."""
        posterior = self.posterior(images)
        z = posterior.sample(draws.normal(*posterior.mean.shape[1:]))
        if self.imitate:
            with torch.no_grad():
                images = self.teacher.reconstruct(z).float()
        return Autoencoded(self, images, self.reconstruct(z), posterior, draws=draws)


class PlainBlock(nn.Module):
    """relu(x + conv(relu(conv(x)))), 3x3, without a norm.

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.relu(x + self.conv2(F.relu(self.conv1(x))))
        return out


def _as_bytes(fingerprint: str) -> Tensor:
    """(32,) uint8 of a SHA-256 in hex."""
    return torch.tensor(list(bytes.fromhex(fingerprint)), dtype=torch.uint8)


def _check_teacher(module: nn.Module, incompatible_keys: object) -> None:
    """Runs when weights have been loaded: they have to be of this teacher's pupil."""
    assert isinstance(module, TinyDecoder)
    given = module.fingerprint()
    if not torch.equal(module.taught_by.cpu(), _as_bytes(given)):
        learned = bytes(module.taught_by.tolist()).hex()
        raise UserError(
            f"The TinyDecoder learned from autoencoder {learned[:12]}, and its teacher is now {given[:12]}, of which "
            "it can draw nothing: give the run that it learned from, or train it again."
        )
