"""The text tower in a checkpoint file, under open_clip's names whatever its own are."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ldm.errors import UserError
from ldm.weight_files import read_tensors

OWN = ("positional_embedding", "token_embedding.", "transformer.", "ln_final.", "text_projection", "cls_emb")
TABLE = "token_embedding.weight"  # every layout has it
LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
LAYERS = {  # of transformers' CLIPTextModel: open_clip's
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
REST = {
    "embeddings.token_embedding.weight": TABLE,
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def read_tower(path: Path) -> dict[str, Tensor]:
    """The text tower of a checkpoint file, float32, by its names in open_clip's TextTransformer.

    Raises:
        UserError: the file cannot be read without running its code, or holds no text tower, or several.
    """
    state = read_tensors(path, is_textual)
    prefixes = sorted(name.removesuffix(TABLE) for name in state if name.endswith(TABLE))
    if len(prefixes) != 1:
        found = f"{len(prefixes)} text towers ({', '.join(prefixes)})" if prefixes else "no text tower"
        raise UserError(
            f"The weights {path} hold {found}, of which one is wanted, with its {TABLE}; they begin with "
            f"{', '.join(sorted(state)[:3])}: give the file of one CLIP model."
        )
    prefix = prefixes[0]
    if prefix.endswith("embeddings."):
        return from_transformers(state, prefix.removesuffix("embeddings."))
    own = {name.removeprefix(prefix): value.float() for name, value in state.items() if name.startswith(prefix)}
    return {name: value for name, value in own.items() if name.startswith(OWN)}


def is_textual(name: str) -> bool:
    return not is_visual(name)


def is_visual(name: str) -> bool:
    return name.removeprefix("module.").startswith(("visual.", "vision_model.", "visual_projection."))


def from_transformers(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tower of transformers' CLIPTextModel, whose names begin with `prefix`, under open_clip's names."""
    found: dict[str, Tensor] = {}
    attention: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        own, value = name.removeprefix(prefix), value.float() if value.is_floating_point() else value
        if name == prefix.removesuffix("text_model.") + "text_projection.weight":
            found["text_projection"] = value.T.contiguous()
        elif not name.startswith(prefix) or own == "embeddings.position_ids":
            continue
        elif (layer := LAYER.fullmatch(own)) is None:
            found[REST.get(own, own)] = value
        else:
            number, part, kind = layer.groups()
            block = f"transformer.resblocks.{number}"
            if part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
                attention.setdefault(f"{block}.attn.in_proj_{kind}", {})[part[10]] = value
            else:
                found[f"{block}.{LAYERS.get(part, part)}.{kind}"] = value
    for name, parts in attention.items():
        found[name] = torch.cat([parts[which] for which in "qkv" if which in parts])
    return found


def check_keys(tower: nn.Module, state: Mapping[str, Tensor], path: Path, model: str, part: str = "text tower") -> None:
    """Raise a UserError that names the first keys in which weights differ from a tower."""
    own = tower.state_dict()
    differ = []
    for name in sorted(own.keys() | state.keys()):
        here, there = (tuple(side[name].shape) if name in side else "absent" for side in (own, state))
        if here != there:
            differ.append(f"{name} is {there} in the file and {here} in the model")
    if not differ:
        return
    if differ == [line for line in differ if line.startswith("text_projection is absent in the file")]:
        raise UserError(f"The weights {path} have no text_projection: set projection to false, or give others.")
    more = f", and {len(differ) - 3} more" if len(differ) > 3 else ""
    raise UserError(
        f"The weights {path} are not of {model}'s {part}: {'; '.join(differ[:3])}{more}: give the weights of that "
        "model, or the model of those weights."
    )


def check_activation(path: Path, model: str, quick: bool) -> None:
    """Raise a UserError where a config.json beside the weights says that they want the other kind of GELU."""
    try:
        described = json.loads((path.parent / "config.json").read_text())
        wants = described.get("text_config", described).get("hidden_act")
    except (OSError, ValueError, AttributeError):
        return
    if wants in ("quick_gelu", "gelu") and (wants == "quick_gelu") != quick:
        other = model.removesuffix("-quickgelu") if quick else f"{model}-quickgelu"
        raise UserError(
            f"{path.parent / 'config.json'} says that the weights beside it were trained with {wants}, and {model} is "
            f"the other kind: set model to {other}."
        )
