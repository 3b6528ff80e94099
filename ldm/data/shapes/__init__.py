"""The embedded set `shapes`: drawn scenes of one to three coloured shapes, with captions that say what is where."""

from ldm.data.shapes.captions import captions, weighted_captions
from ldm.data.shapes.demand import Demand, Wanted, parse
from ldm.data.shapes.drawing import coverage, draw
from ldm.data.shapes.scenes import COLOURS, HELD_OUT, PLACES, SHAPES, SIZES, SPLITS, Scene, Thing, scene
from ldm.data.shapes.words import RELATIONS

__all__ = [
    "COLOURS",
    "HELD_OUT",
    "PLACES",
    "RELATIONS",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "Demand",
    "Scene",
    "Thing",
    "Wanted",
    "captions",
    "coverage",
    "draw",
    "parse",
    "scene",
    "weighted_captions",
]
