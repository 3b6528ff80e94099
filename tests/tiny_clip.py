"""A tiny text tower with weights on disk, under a name of its own, as open_clip lets a user add one."""

import json
from contextlib import contextmanager

import open_clip
import torch
from open_clip.factory import _MODEL_CONFIGS

WIDTH, CONTEXT = 8, 12
TEXT_CFG = {"context_length": CONTEXT, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 2}
VISION_CFG = {"image_size": 8, "layers": 1, "width": 8, "patch_size": 8, "head_width": 4}
CONFIG = {"embed_dim": 6, "vision_cfg": VISION_CFG, "text_cfg": TEXT_CFG}


@contextmanager
def tiny_clip(folder, name="tiny-kept"):
    """Within the block open_clip knows the model; gives the path of random weights of its."""
    (folder / f"{name}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(0)
    torch.save(open_clip.create_model(name, pretrained=None).state_dict(), folder / "clip.pt")
    yield folder / "clip.pt"
    _MODEL_CONFIGS.pop(name, None)


def text_conditioner(weights, **encoder):
    """The block of a config: one FrozenText over the tower."""
    made = {"class_path": "ldm.conditioners.encoders.OpenCLIPText"}
    made["init_args"] = {"model": "tiny-kept", "weights": str(weights), **encoder}
    embedder = {"class_path": "ldm.conditioners.FrozenText", "init_args": {"encoder": made, "dropout": 0.3}}
    return {"class_path": "ldm.conditioners.Conditioner", "init_args": {"embedders": [embedder]}}
