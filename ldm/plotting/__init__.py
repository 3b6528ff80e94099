"""Pictures of the mathematics: a path and its training, an image under noise, a sampler at work."""

from ldm.plotting.figure import save
from ldm.plotting.noising import draw_noising
from ldm.plotting.path import draw_path
from ldm.plotting.sampler import draw_sampler

__all__ = ["draw_noising", "draw_path", "draw_sampler", "save"]
