"""Captions by the text tower of a CLIP model."""

import difflib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ldm.conditioners.captions import clip_ids, clip_tokenizer
from ldm.conditioners.encoders.base import Precision, TextEncoder, name_of
from ldm.conditioners.encoders.clip_weights import check_activation, check_keys, read_tower
from ldm.conditioners.encoders.folder_words import folder_ids, with_transformers
from ldm.text import Text


class OpenCLIPText(TextEncoder):
    """The text tower of any model that open_clip knows, with weights from a local file; the image tower is not built.

    What the field's models hear: Stable Diffusion 1 "ViT-L-14-quickgelu", layer last, padding end, attend_padding;
    Stable Diffusion 2 "ViT-H-14", layer penultimate, attend_padding; SDXL, side by side, "ViT-L-14-quickgelu"
    (padding end) and "ViT-bigG-14", both layer penultimate, final_norm false, attend_padding.

    Args:
        model: the model's name in open_clip, for example ViT-L-14-quickgelu. Weights of OpenAI want -quickgelu.
        weights: a local checkpoint, .safetensors or one that torch.save wrote: of open_clip, of transformers'
            CLIPTextModel, or a larger one that holds one such tower.
        layer: take the tokens from the last block or from the one before it.
        final_norm: apply the tower's last norm to them.
        projection: the pooled vector is projected as in CLIP; false for weights without a text_projection.
        padding: what stands after a caption's end, zero (open_clip) or end, more ends (OpenAI's in transformers).
        attend_padding: let the network see the padding too, as Stable Diffusion does.
        precision: of the weights and inside the tower.
        tokenizer: folder of a transformers tokenizer, for the models whose words are not CLIP's own.
    """

    file_arguments = ("weights", "tokenizer")

    def __init__(
        self,
        model: str,
        weights: str,
        layer: Literal["last", "penultimate"] = "last",
        final_norm: bool = True,
        projection: bool = True,
        padding: Literal["zero", "end"] = "zero",
        attend_padding: bool = False,
        precision: Precision = "float32",
        tokenizer: str | None = None,
    ) -> None:
        self.config = read_config(model)
        text = self.config["text_cfg"]
        if text.get("hf_tokenizer_name") and tokenizer is None:
            raise ValueError(
                f"The words of {model} are those of {text['hf_tokenizer_name']}, which does not come with open_clip: "
                "give the folder of that tokenizer as tokenizer, or choose a model with CLIP's own words."
            )
        if tokenizer is not None and (not text.get("hf_tokenizer_name") or padding != "zero"):
            raise ValueError(f"The words or padding of {model} are settled: leave out tokenizer and padding.")
        self.model, self.weights, self.layer, self.final_norm = model, weights, layer, final_norm
        self.projection, self.padding, self.attend_padding = projection, padding, attend_padding
        self.precision, self.tokenizer = precision, tokenizer
        self.name = name_of(model, layer)
        self.token_width = text.get("width", 512)
        self.pooled_width = self.config["embed_dim"] if self.projects else self.token_width
        self.context_length = text.get("context_length", 77)

    @property
    def projects(self) -> bool:
        return self.projection and self.config["text_cfg"].get("proj_type") != "none"

    def settings(self) -> dict[str, Any]:
        names = ("layer", "final_norm", "projection", "padding", "attend_padding", "precision")
        return {"model": self.config, **{name: getattr(self, name) for name in names}}

    def load(self) -> torch.nn.Module:
        path = Path(self.weights).expanduser()
        check_activation(path, self.model, self.config.get("quick_gelu", False))
        tower = build_tower(self.config, self.projects)
        state = read_tower(path)
        if not self.projects:
            state = {name: value for name, value in state.items() if not name.startswith("text_projection")}
        check_keys(tower, state, path, self.model)
        tower.load_state_dict(state)
        return tower.to(getattr(torch, self.precision))

    def run(self, model: Any, captions: Sequence[str], device: torch.device) -> Text:
        ids, mask = (x.to(device) for x in self.ids(captions))
        depth = 1 if self.layer == "last" else 2
        out = model.forward_intermediates(ids, indices=depth, normalize_intermediates=self.final_norm, output_fmt="NLC")
        return Text(out["text_intermediates"][0], mask | self.attend_padding, out["text_features"])

    def ids(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Word numbers and mask (B, L), True where they are not padding."""
        if self.tokenizer is not None:
            ids, mask = folder_ids(self.folder_words.tokenizer, self.clean(captions), self.context_length)
            if self.folder_words.strip_sep_token:
                ids = ids.masked_fill(ids == self.folder_words.tokenizer.sep_token_id, 0)
            return ids, mask
        ids, mask = clip_ids(captions, self.context_length)
        return (ids.masked_fill(~mask, clip_tokenizer().eot_token_id) if self.padding == "end" else ids), mask

    def clean(self, captions: Sequence[str]) -> list[str]:
        """The captions as a model with other words than CLIP's wants them: without capitals and stops, say."""
        return [self.folder_words.clean_fn(caption) for caption in captions]

    @cached_property
    def folder_words(self) -> Any:
        """open_clip's wrapping of the folder's tokenizer."""
        with_transformers()
        from open_clip.tokenizer import HFTokenizer

        kwargs = self.config["text_cfg"].get("tokenizer_kwargs") or {}
        return HFTokenizer(str(Path(str(self.tokenizer)).expanduser()), self.context_length, **kwargs)


def read_config(model: str) -> dict[str, Any]:
    """open_clip's description of a model, refused where its text tower would have to be downloaded."""
    config = model_config(model)
    if config["text_cfg"].get("hf_model_name"):
        raise ValueError(f"The text tower of {model} is not open_clip's own: choose another model, or T5Text for a T5.")
    return config


def model_config(model: str) -> dict[str, Any]:
    """open_clip's description of a model."""
    import open_clip

    known = open_clip.list_models()
    if model not in known:
        lower = {name.lower(): name for name in known}
        near = [lower[name] for name in difflib.get_close_matches(model.lower(), lower, n=5, cutoff=0.4)]
        raise ValueError(
            f"open_clip knows no model {model!r}: choose {', '.join(near)}, or another of open_clip.list_models()."
        )
    return dict(open_clip.get_model_config(model))


def build_tower(config: dict[str, Any], projects: bool) -> torch.nn.Module:
    """The text tower alone, with random weights. (`create_model` would build the image tower too.)"""
    from open_clip.model import CLIPTextCfg, _build_text_tower

    text = CLIPTextCfg(**config["text_cfg"] if projects else {**config["text_cfg"], "proj_type": "none"})
    return _build_text_tower(config["embed_dim"], text, config.get("quick_gelu", False))
