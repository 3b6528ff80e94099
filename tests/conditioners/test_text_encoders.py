"""Frozen text encoders against the libraries whose weights they read."""

import copy
import json
import pickle
import shutil
import sys

import open_clip
import pytest
import torch
from open_clip.factory import _MODEL_CONFIGS
from safetensors.torch import save_file
from torch import nn

from ldm.conditioners import captions
from ldm.conditioners.captions import clip_ids
from ldm.conditioners.encoders import OpenCLIPText, SideBySide, T5Text, Text, TextEncoder
from ldm.errors import UserError

CPU = torch.device("cpu")
TEXTS = ["a red circle left of a blue square", "", "two!"]
TEXT_CFG = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3}
VISION_CFG = {"image_size": 8, "layers": 1, "width": 8, "patch_size": 8, "head_width": 4}
CONFIG = {"embed_dim": 10, "vision_cfg": VISION_CFG, "text_cfg": TEXT_CFG}


@pytest.fixture(scope="module", autouse=True)
def tiny_models(tmp_path_factory):
    """Small models under names of their own, as open_clip lets a user add them."""
    folder = tmp_path_factory.mktemp("models")
    variants = {"tiny": {}, "tiny-quickgelu": {"quick_gelu": True}, "tiny-custom": {"custom_text": True}}
    for name, extra in variants.items():
        (folder / f"{name}.json").write_text(json.dumps(CONFIG | extra))
    open_clip.add_model_config(folder)
    yield
    for name in variants:
        _MODEL_CONFIGS.pop(name, None)


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return open_clip.create_model("tiny", pretrained=None).eval()


@pytest.fixture(scope="module")
def weights(clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.save(clip.state_dict(), path)
    return str(path)


@pytest.fixture(autouse=True)
def unwarned(monkeypatch):
    monkeypatch.setattr(captions, "warned", set())


@torch.no_grad()
def states(clip, ids):
    """What goes out of each block of an open_clip model, (B, L, D)."""
    seen = []
    hooks = [block.register_forward_hook(lambda m, i, out: seen.append(out)) for block in clip.transformer.resblocks]
    pooled = clip.encode_text(ids)
    for hook in hooks:
        hook.remove()
    return seen, pooled


def same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", ["last", "penultimate"])
@pytest.mark.parametrize("final_norm", [True, False])
def test_tokens_and_pooled_vector_are_open_clips_own(clip, weights, layer, final_norm):
    encoder = OpenCLIPText("tiny", weights, layer, final_norm)
    text = encoder.encode(TEXTS, CPU)
    seen, pooled = states(clip, open_clip.get_tokenizer("tiny")(TEXTS))
    tokens = seen[-1 if layer == "last" else -2]
    same(text.tokens, clip.ln_final(tokens) if final_norm else tokens)
    same(text.pooled, pooled)
    assert text.mask.sum(1).tolist() == [10, 2, 4]
    assert text.tokens.shape == (3, encoder.context_length, encoder.token_width)
    assert text.pooled.shape[1] == encoder.pooled_width
    assert not text.tokens.requires_grad


def test_padding_with_ends_and_attending_to_it(clip, weights):
    text = OpenCLIPText("tiny", weights, padding="end", attend_padding=True).encode(TEXTS, CPU)
    ids, mask = clip_ids(TEXTS, 12)
    seen, pooled = states(clip, ids.masked_fill(~mask, 49407))
    same(text.tokens, clip.ln_final(seen[-1]))
    same(text.pooled, pooled)
    assert text.mask.all()


def as_transformers(state, prefix):
    """A tower under the names of transformers' CLIPTextModelWithProjection."""
    found = {
        f"{prefix}embeddings.token_embedding.weight": state["token_embedding.weight"],
        f"{prefix}embeddings.position_embedding.weight": state["positional_embedding"],
        f"{prefix}embeddings.position_ids": torch.arange(12)[None],
        f"{prefix}final_layer_norm.weight": state["ln_final.weight"],
        f"{prefix}final_layer_norm.bias": state["ln_final.bias"],
        f"{prefix.removesuffix('text_model.')}text_projection.weight": state["text_projection"].T.contiguous(),
        "vision_model.post_layernorm.bias": torch.zeros(1),
    }
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    names |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for i in range(3):
        old, new = f"transformer.resblocks.{i}.", f"{prefix}encoder.layers.{i}."
        for kind in ("weight", "bias"):
            found |= {f"{new}{there}.{kind}": state[f"{old}{here}.{kind}"] for here, there in names.items()}
            parts = state[f"{old}attn.in_proj_{kind}"].chunk(3)
            found |= {f"{new}self_attn.{p}_proj.{kind}": x.contiguous() for p, x in zip("qkv", parts, strict=True)}
    return found


LAYOUTS = {
    "lightning": lambda state: {"state_dict": state},
    "parallel": lambda state: {f"module.{k}": v for k, v in state.items()},
    "stable-diffusion-2": lambda state: {f"cond_stage_model.model.{k}": v for k, v in state.items()},
    "transformers-5": lambda state: as_transformers(state, ""),
    "transformers": lambda state: as_transformers(state, "text_model."),
    "stable-diffusion-1": lambda state: as_transformers(state, "cond_stage_model.transformer.text_model."),
    "half": lambda state: {k: v.half() for k, v in state.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts_of_the_same_weights_give_the_same(clip, weights, layout, tmp_path):
    given = LAYOUTS[layout](dict(clip.state_dict()))
    path = tmp_path / ("weights.pt" if layout == "lightning" else "weights.safetensors")
    torch.save(given, path) if layout == "lightning" else save_file(given, path)
    text, own = (OpenCLIPText("tiny", str(file)).encode(TEXTS, CPU) for file in (path, weights))
    tolerance = 2e-2 if layout == "half" else 1e-6
    torch.testing.assert_close(text.tokens, own.tokens, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(text.pooled, own.pooled, rtol=tolerance, atol=tolerance)


def test_a_model_with_a_text_tower_of_its_own_name_loads_too(clip, weights, tmp_path):
    custom = open_clip.create_model("tiny-custom", pretrained=None)
    assert any(name.startswith("text.") for name in custom.state_dict())
    save_file(custom.state_dict(), tmp_path / "custom.safetensors")
    text = OpenCLIPText("tiny-custom", str(tmp_path / "custom.safetensors")).encode(TEXTS, CPU)
    same(text.pooled, custom.eval().encode_text(open_clip.get_tokenizer("tiny")(TEXTS)).detach())


def test_weights_without_a_projection(clip, weights, tmp_path):
    state = as_transformers(clip.state_dict(), "text_model.")
    state.pop("text_projection.weight")
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    with pytest.raises(UserError, match="set projection to false"):
        OpenCLIPText("tiny", str(path)).encode(TEXTS, CPU)
    for file in (path, weights):
        encoder = OpenCLIPText("tiny", str(file), projection=False)
        text = encoder.encode(TEXTS, CPU)
        assert text.pooled.shape == (3, encoder.pooled_width) == (3, 16)
        same(text.pooled, text.tokens[torch.arange(3), text.mask.sum(1) - 1])


def test_weights_that_do_not_fit_name_the_first_keys(clip, weights, tmp_path):
    broken = {k: v for k, v in clip.state_dict().items() if k != "ln_final.bias"} | {"transformer.more": torch.ones(1)}
    broken["positional_embedding"] = torch.zeros(7, 16)
    torch.save(broken, tmp_path / "broken.pt")
    with pytest.raises(UserError) as said:
        OpenCLIPText("tiny", str(tmp_path / "broken.pt")).encode(TEXTS, CPU)
    assert "ln_final.bias is absent in the file and (16,) in the model" in str(said.value)
    assert "positional_embedding is (7, 16) in the file and (12, 16)" in str(said.value)
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="no text tower"):
        OpenCLIPText("tiny", str(tmp_path / "other.pt")).encode(TEXTS, CPU)
    torch.save(nn.Linear(1, 1), tmp_path / "pickle.pt")
    with pytest.raises(UserError, match="without running code"):
        OpenCLIPText("tiny", str(tmp_path / "pickle.pt")).encode(TEXTS, CPU)
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"torn\.safetensors cannot be read"):
        OpenCLIPText("tiny", str(tmp_path / "torn.safetensors")).encode(TEXTS, CPU)


def test_the_other_activation_is_refused_where_the_weights_say_theirs(clip, tmp_path):
    save_file(dict(clip.state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_act": "quick_gelu"}))
    with pytest.raises(UserError, match="set model to tiny-quickgelu"):
        OpenCLIPText("tiny", str(tmp_path / "model.safetensors")).encode(TEXTS, CPU)
    OpenCLIPText("tiny-quickgelu", str(tmp_path / "model.safetensors")).encode(TEXTS, CPU)


def test_names_that_open_clip_does_not_know_or_cannot_read_offline():
    with pytest.raises(ValueError, match="ViT-L-14"):
        OpenCLIPText("vit_l-14", "w.pt")
    with pytest.raises(ValueError, match="not open_clip's own"):
        OpenCLIPText("roberta-ViT-B-32", "w.pt")
    with pytest.raises(ValueError, match="give the folder of that tokenizer"):
        OpenCLIPText("ViT-B-16-SigLIP", "w.pt")


def test_a_missing_file_is_named_with_its_option():
    encoder = OpenCLIPText("tiny", "nowhere/clip.pt")
    assert not encoder.is_there()
    for ask in (encoder.check, encoder.fingerprint, lambda: encoder.encode([""], CPU)):
        with pytest.raises(UserError, match=r"weights from nowhere/clip\.pt"):
            ask()


def test_nothing_is_read_before_it_is_asked_for_and_copies_share_it(weights):
    encoder = OpenCLIPText("tiny", weights)
    assert encoder._model is None
    with torch.inference_mode():
        text = encoder.encode(TEXTS, CPU)
    assert not text.tokens.is_inference()  # or training could not use them
    assert copy.deepcopy([encoder])[0] is encoder
    packed = pickle.loads(pickle.dumps(encoder))
    assert packed._model is None
    assert torch.equal(packed.encode(TEXTS, CPU).tokens, text.tokens)
    assert [str(path) for path in encoder.files()] == [weights]


def test_the_fingerprint_is_of_weights_and_settings(clip, weights, tmp_path):
    moved = tmp_path / "elsewhere.pt"
    shutil.copy(weights, moved)
    own = OpenCLIPText("tiny", weights).fingerprint()
    assert own == OpenCLIPText("tiny", str(moved)).fingerprint()
    others = [{"layer": "penultimate"}, {"final_norm": False}, {"padding": "end"}, {"precision": "bfloat16"}]
    found = {OpenCLIPText("tiny", weights, **other).fingerprint() for other in others}
    torch.save({k: v + 1 for k, v in clip.state_dict().items()}, moved)
    found |= {OpenCLIPText("tiny", str(moved)).fingerprint(), OpenCLIPText("tiny-quickgelu", weights).fingerprint()}
    assert len({own, *found}) == 7


def test_precision_and_autocast(weights):
    exact, rough = (OpenCLIPText("tiny", weights, precision=p).encode(TEXTS, CPU) for p in ("float32", "bfloat16"))
    assert rough.tokens.dtype == rough.pooled.dtype == torch.float32
    torch.testing.assert_close(rough.tokens, exact.tokens, rtol=0.1, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(OpenCLIPText("tiny", weights).encode(TEXTS, CPU).tokens, exact.tokens)


def test_what_is_cut_is_said(weights):
    with pytest.warns(UserWarning, match="'l m n'"):
        OpenCLIPText("tiny", weights).encode(["b c d e f g h i j k l m n"], CPU)


def test_two_encoders_side_by_side(weights):
    one, two = OpenCLIPText("tiny", weights, "penultimate"), OpenCLIPText("tiny", weights, final_norm=False)
    first, second = one.encode(TEXTS, CPU), two.encode(TEXTS, CPU)
    for pooled, vector in (("last", second.pooled), ("joined", torch.cat([first.pooled, second.pooled], dim=1))):
        both = SideBySide([one, two], pooled)
        text = both.encode(TEXTS, CPU)
        assert torch.equal(text.tokens, torch.cat([first.tokens, second.tokens], dim=2))
        assert torch.equal(text.mask, first.mask)
        assert torch.equal(text.pooled, vector)
        assert (both.token_width, both.pooled_width, both.context_length) == (32, vector.shape[1], 12)
    assert both.name == "tiny-penultimate+tiny-last"
    assert both.files() == one.files() + two.files()
    assert both.fingerprint() not in (one.fingerprint(), SideBySide([two, one], "joined").fingerprint())


class Constant(TextEncoder):
    """One number for every caption."""

    name, token_width, pooled_width = "constant", 2, None

    def __init__(self, context_length):
        self.context_length = context_length

    def settings(self):
        return {}

    def load(self):
        return nn.Identity()

    def run(self, model, captions, device):
        shape = (len(captions), self.context_length)
        return Text(torch.zeros(*shape, 2, device=device), torch.ones(shape, dtype=torch.bool, device=device))


def test_what_cannot_stand_side_by_side(weights):
    clip = OpenCLIPText("tiny", weights)
    with pytest.raises(ValueError, match="two or more"):
        SideBySide([clip])
    with pytest.raises(ValueError, match=r"\[12, 3\]"):
        SideBySide([clip, Constant(3)])
    joined = SideBySide([clip, Constant(12)], "joined")
    assert joined.pooled_width == 10
    assert joined.encode(TEXTS, CPU).pooled.shape == (3, 10)
    last = SideBySide([clip, Constant(12)])
    assert last.pooled_width is None
    assert last.encode(TEXTS, CPU).pooled is None


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory):
    """A T5 with random weights and a tokenizer of single letters, as transformers writes them."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{letter: i + 3 for i, letter in enumerate("abcdefgh")}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(" "), "removed")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = tmp_path_factory.mktemp("t5")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    transformers.T5EncoderModel(transformers.T5Config(vocab_size=16, **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.slow  # the import of transformers alone takes seconds
def test_t5_gives_what_transformers_gives(t5_folder):
    import transformers

    encoder = T5Text(str(t5_folder), context_length=6)
    text = encoder.encode(["a b c", "d", ""], CPU)
    assert text.tokens.shape == (3, 6, encoder.token_width) == (3, 6, 8)
    assert text.mask.sum(1).tolist() == [4, 2, 1]
    assert text.pooled is None
    model = transformers.T5EncoderModel.from_pretrained(t5_folder).eval()
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([[3, 4, 5, 1]])).last_hidden_state
    same(text.tokens[:1, :4], alone)
    with pytest.warns(UserWarning, match="Lost is: 'f g h'"):
        encoder.encode(["a b c d e f g h"], CPU)


@pytest.mark.slow
def test_t5s_fingerprint_and_faults(t5_folder, tmp_path):
    folder = tmp_path / "t5"
    shutil.copytree(t5_folder, folder)
    (folder / "README.md").write_text("no part of it")
    own = T5Text(str(t5_folder)).fingerprint()
    assert T5Text(str(folder)).fingerprint() == own
    assert T5Text(str(folder), context_length=7).fingerprint() != own
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_layers": 3}))
    assert T5Text(str(folder)).fingerprint() != own
    with pytest.raises(UserError, match=r"they lack encoder\.block\.2"):
        T5Text(str(folder)).encode([""], CPU)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        T5Text(str(t5_folder), tokenizer=str(folder)).encode([""], CPU)


@pytest.mark.slow
def test_a_model_with_words_of_another_tokenizer_reads_them_from_a_folder(t5_folder, clip, weights, tmp_path):
    text_cfg = {**TEXT_CFG, "hf_tokenizer_name": "letters", "pool_type": "last", "no_causal_mask": True}
    (tmp_path / "tiny-letters.json").write_text(json.dumps(CONFIG | {"text_cfg": text_cfg}))
    open_clip.add_model_config(tmp_path / "tiny-letters.json")
    try:
        text = OpenCLIPText("tiny-letters", weights, tokenizer=str(t5_folder)).encode(["a b c", ""], CPU)
        assert text.mask.sum(1).tolist() == [4, 1]
        model = open_clip.create_model("tiny-letters", pretrained=None).eval()
        model.load_state_dict(clip.state_dict())
        with torch.no_grad():
            same(text.pooled[:1], model.encode_text(torch.tensor([[3, 4, 5, 1, *[0] * 8]])))
    finally:
        _MODEL_CONFIGS.pop("tiny-letters", None)


def test_t5_without_its_folder_or_its_package(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="folder from nowhere/t5"):
        T5Text("nowhere/t5").check()
    with pytest.raises(UserError, match="does not describe a T5"):
        _ = T5Text(str(tmp_path)).token_width
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 8}))
    assert T5Text(str(tmp_path)).token_width == 8
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'ldm\[t5\]'"):
        T5Text(str(tmp_path)).encode([""], CPU)


def test_a_t5_of_which_only_the_config_is_there_tells_its_width_and_cannot_encode(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 8}))
    encoder = T5Text(str(tmp_path))
    assert encoder.token_width == 8
    assert not encoder.is_there()
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert encoder.is_there()
    assert not T5Text(str(tmp_path / "nowhere")).is_there()
