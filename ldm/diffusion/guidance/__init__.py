"""Guidance: rules that turn one Denoise into another."""

from ldm.diffusion.guidance.apg import APG
from ldm.diffusion.guidance.autoguidance import Autoguidance
from ldm.diffusion.guidance.base import Contrast, Guidance, check_contrast, check_rules, guide
from ldm.diffusion.guidance.cfg_plus_plus import CFGPlusPlus
from ldm.diffusion.guidance.cfg_zero_star import CFGZeroStar
from ldm.diffusion.guidance.channels import Channels
from ldm.diffusion.guidance.classifier import ClassifierGuidance
from ldm.diffusion.guidance.classifier_free import ClassifierFree
from ldm.diffusion.guidance.interval import Interval
from ldm.diffusion.guidance.rescale import Rescale
from ldm.diffusion.guidance.thresholds import Clip, DynamicThreshold

__all__ = [
    "APG",
    "Autoguidance",
    "CFGPlusPlus",
    "CFGZeroStar",
    "Channels",
    "ClassifierFree",
    "ClassifierGuidance",
    "Clip",
    "Contrast",
    "DynamicThreshold",
    "Guidance",
    "Interval",
    "Rescale",
    "check_contrast",
    "check_rules",
    "guide",
]
