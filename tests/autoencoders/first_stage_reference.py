"""CompVis' first stages, written down anew: their lists of keys from a ddconfig, and what weights by those keys do.

Nothing of `ldm` is used here. The functions walk the keys and know no class.
"""

import torch
import torch.nn.functional as F

GROUPS = 32
CONFIG = {"resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "num_res_blocks": 2, "attn_resolutions": []}
VQ_F8 = {"z_channels": 4, "ch_mult": [1, 2, 2, 4], "attn_resolutions": [32]}
PUBLISHED = {  # ddconfig, number of codes
    "kl-f4": ({"z_channels": 3, "ch_mult": [1, 2, 4]}, None),
    "kl-f8": ({"z_channels": 4, "ch_mult": [1, 2, 4, 4]}, None),
    "kl-f16": ({"z_channels": 16, "ch_mult": [1, 1, 2, 2, 4], "attn_resolutions": [16]}, None),
    "kl-f32": ({"z_channels": 64, "ch_mult": [1, 1, 2, 2, 4, 4], "attn_resolutions": [16, 8]}, None),
    "vq-f4": ({"z_channels": 3, "ch_mult": [1, 2, 4]}, 8192),
    "vq-f4-noattn": ({"z_channels": 3, "ch_mult": [1, 2, 4], "attn_type": "none"}, 8192),
    "vq-f8": (VQ_F8, 16384),
    "vq-f8-n256": (VQ_F8, 256),
    "vq-f16": ({"z_channels": 8, "ch_mult": [1, 1, 2, 2, 4], "attn_resolutions": [16]}, 16384),
}


def shapes(ddconfig, num_codes=None):
    """Key -> shape of every weight of the first stage; embed_dim is z_channels, as in all published ones."""
    config = {**CONFIG, **ddconfig}
    z, widths = config["z_channels"], [config["ch"] * factor for factor in config["ch_mult"]]
    moments = z if num_codes else 2 * z
    found = half_shapes("encoder", config, config["in_channels"], moments)
    found |= half_shapes("decoder", config, z, config["out_ch"])
    for level in range(1, len(widths)):
        found |= module(f"encoder.down.{level - 1}.downsample.conv", (widths[level - 1],) * 2 + (3, 3))
        found |= module(f"decoder.up.{level}.upsample.conv", (widths[level],) * 2 + (3, 3))
    found |= module("quant_conv", (moments, moments, 1, 1)) | module("post_quant_conv", (z, z, 1, 1))
    return found | ({"quantize.embedding.weight": (num_codes, z)} if num_codes else {})


def half_shapes(half, config, enters, leaves):
    widths, attention = [config["ch"] * factor for factor in config["ch_mult"]], config.get("attn_type") != "none"
    last = len(widths) - 1
    if half == "encoder":
        first, way, final, extra, prefix = config["ch"], range(last + 1), widths[-1], 0, "down"
    else:
        first, way, final, extra, prefix = widths[-1], range(last, -1, -1), widths[0], 1, "up"
    found = module(f"{half}.conv_in", (first, enters, 3, 3)) | module(f"{half}.conv_out", (leaves, final, 3, 3))
    found |= module(f"{half}.norm_out", (final,))
    found |= residual(f"{half}.mid.block_1", widths[-1], widths[-1]) | residual(
        f"{half}.mid.block_2", widths[-1], widths[-1]
    )
    found |= attend_shapes(f"{half}.mid.attn_1", widths[-1]) if attention else {}
    width = first
    for level in way:
        for block in range(config["num_res_blocks"] + extra):
            found |= residual(f"{half}.{prefix}.{level}.block.{block}", width, widths[level])
            width = widths[level]
            if attention and config["resolution"] // 2**level in config["attn_resolutions"]:
                found |= attend_shapes(f"{half}.{prefix}.{level}.attn.{block}", width)
    return found


def module(name, shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def residual(name, enters, leaves):
    found = module(f"{name}.norm1", (enters,)) | module(f"{name}.norm2", (leaves,))
    found |= module(f"{name}.conv1", (leaves, enters, 3, 3)) | module(f"{name}.conv2", (leaves, leaves, 3, 3))
    return found | (module(f"{name}.nin_shortcut", (leaves, enters, 1, 1)) if enters != leaves else {})


def attend_shapes(name, width):
    found = module(f"{name}.norm", (width,))
    for part in ("q", "k", "v", "proj_out"):
        found |= module(f"{name}.{part}", (width, width, 1, 1))
    return found


def drawn(ddconfig, num_codes=None, seed=0):
    """Weights of those shapes: norms near 1, kernels of a size that keeps signals alive, codes of unit variance."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes(ddconfig, num_codes).items():
        noise = torch.randn(shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            found[name] = 1 + 0.2 * noise
        elif len(shape) == 4:
            found[name] = noise / (shape[1] * shape[2] * shape[3]) ** 0.5
        else:
            found[name] = noise if "embedding" in name else 0.2 * noise
    return found


def encode(weights, images):
    """Moments, or the latents before they are quantised."""
    h = conv(weights, "encoder.conv_in", images)
    for level in range(count(weights, "encoder.down")):
        h = blocks(weights, f"encoder.down.{level}", h)
        if f"encoder.down.{level}.downsample.conv.weight" in weights:
            name = f"encoder.down.{level}.downsample.conv"
            h = F.conv2d(F.pad(h, (0, 1, 0, 1)), weights[f"{name}.weight"], weights[f"{name}.bias"], stride=2)
    h = middle(weights, "encoder", h)
    return conv(weights, "quant_conv", conv(weights, "encoder.conv_out", F.silu(norm(weights, "encoder.norm_out", h))))


def decode(weights, z):
    """Images, by way of the nearest codes where there is a codebook."""
    if "quantize.embedding.weight" in weights:
        codes = weights["quantize.embedding.weight"]
        distances = (z[:, None] - codes[None, :, :, None, None]).square().sum(2)  # (B, K, h, w)
        z = codes[distances.argmin(1)].movedim(3, 1)
    h = middle(weights, "decoder", conv(weights, "decoder.conv_in", conv(weights, "post_quant_conv", z)))
    for level in reversed(range(count(weights, "decoder.up"))):
        h = blocks(weights, f"decoder.up.{level}", h)
        if f"decoder.up.{level}.upsample.conv.weight" in weights:
            h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
            h = conv(weights, f"decoder.up.{level}.upsample.conv", h)
    return conv(weights, "decoder.conv_out", F.silu(norm(weights, "decoder.norm_out", h)))


def blocks(weights, level, h):
    for block in range(count(weights, f"{level}.block")):
        h = resnet(weights, f"{level}.block.{block}", h)
        if f"{level}.attn.{block}.q.weight" in weights:
            h = attend(weights, f"{level}.attn.{block}", h)
    return h


def middle(weights, half, h):
    h = resnet(weights, f"{half}.mid.block_1", h)
    h = attend(weights, f"{half}.mid.attn_1", h) if f"{half}.mid.attn_1.q.weight" in weights else h
    return resnet(weights, f"{half}.mid.block_2", h)


def resnet(weights, name, x):
    h = conv(weights, f"{name}.conv1", F.silu(norm(weights, f"{name}.norm1", x)))
    h = conv(weights, f"{name}.conv2", F.silu(norm(weights, f"{name}.norm2", h)))
    return h + (conv(weights, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in weights else x)


def attend(weights, name, x):
    normed = norm(weights, f"{name}.norm", x)
    q, k, v = (conv(weights, f"{name}.{part}", normed).flatten(2) for part in "qkv")  # (B, C, H*W)
    shares = (torch.einsum("bci,bcj->bij", q, k) / q.shape[1] ** 0.5).softmax(2)
    return x + conv(weights, f"{name}.proj_out", torch.einsum("bij,bcj->bci", shares, v).view_as(x))


def count(weights, start):
    number = len(start.split("."))
    return len({key.split(".")[number] for key in weights if key.startswith(f"{start}.")})


def conv(weights, name, h):
    kernel = weights[f"{name}.weight"]
    return F.conv2d(h, kernel, weights[f"{name}.bias"], padding=kernel.shape[2] // 2)


def norm(weights, name, h):
    return F.group_norm(h, GROUPS, weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)
