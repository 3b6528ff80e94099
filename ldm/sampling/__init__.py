"""From a trained model, seeds and wishes to images."""

from ldm.sampling.checks import check_request, option, reader
from ldm.sampling.draw import ImageNoise, contrast, sample_images, sample_steps
from ldm.sampling.request import Edit, Request, Wish

__all__ = [
    "Edit",
    "ImageNoise",
    "Request",
    "Wish",
    "check_request",
    "contrast",
    "option",
    "reader",
    "sample_images",
    "sample_steps",
]
