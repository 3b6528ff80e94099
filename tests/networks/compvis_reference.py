"""The U-Net of latent diffusion as a function of weights by CompVis' names: it walks the keys, knows no class."""

import math

import torch
import torch.nn.functional as F


def answer(weights, x, t, tokens, num_heads):
    """x (B, C, H, W), t (B,), tokens (B, L, D) -> (B, C', H, W)."""
    first = weights["time_embed.0.weight"]
    half = first.shape[1] // 2
    angles = t[:, None] * torch.exp(-math.log(10_000) * torch.arange(half) / half)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1) @ first.T + weights["time_embed.0.bias"]
    embedding = F.silu(embedding) @ weights["time_embed.2.weight"].T + weights["time_embed.2.bias"]

    def place(prefix, h):
        for module in sorted({key.split(".")[2] for key in weights if key.startswith(f"{prefix}.")}):
            name = f"{prefix}.{module}"
            if f"{name}.transformer_blocks.0.norm1.weight" in weights:
                h = transformer(weights, name, h, tokens, num_heads)
            elif f"{name}.in_layers.0.weight" in weights:
                h = residual(weights, name, h, embedding, resampling(weights, prefix, module, h))
            elif f"{name}.op.weight" in weights:
                h = F.conv2d(h, weights[f"{name}.op.weight"], weights[f"{name}.op.bias"], stride=2, padding=1)
            elif f"{name}.conv.weight" in weights:
                h = conv(weights, f"{name}.conv", h.repeat_interleave(2, 2).repeat_interleave(2, 3))
            else:
                h = conv(weights, name, h)
        return h

    kept = []
    h = x
    for i in range(count(weights, "input_blocks")):
        h = place(f"input_blocks.{i}", h)
        kept.append(h)
    h = residual(weights, "middle_block.0", h, embedding)
    h = transformer(weights, "middle_block.1", h, tokens, num_heads)
    h = residual(weights, "middle_block.2", h, embedding)
    for i in range(count(weights, "output_blocks")):
        h = place(f"output_blocks.{i}", torch.cat([h, kept.pop()], dim=1))
    return conv(weights, "out.2", F.silu(norm(weights, "out.0", h, 1e-5)))


def count(weights, start):
    return len({key.split(".")[1] for key in weights if key.startswith(f"{start}.")})


def conv(weights, name, h):
    kernel = weights[f"{name}.weight"]
    return F.conv2d(h, kernel, weights[f"{name}.bias"], padding=kernel.shape[2] // 2)


def norm(weights, name, h, eps):
    return F.group_norm(h, 32, weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def linear(weights, name, h):
    out = h @ weights[f"{name}.weight"].T
    return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out


def resampling(weights, prefix, module, h):
    """With residual resampling (two blocks a level): a second block in a place doubles, every third place halves."""
    if any(key.endswith(".op.weight") for key in weights):
        return None
    if module != "0":
        return "up"
    where, number = prefix.split(".")
    return "down" if where == "input_blocks" and int(number) % 3 == 0 else None


def residual(weights, name, x, embedding, way=None):
    h = F.silu(norm(weights, f"{name}.in_layers.0", x, 1e-5))
    if way == "down":
        h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
    if way == "up":
        h, x = (tensor.repeat_interleave(2, 2).repeat_interleave(2, 3) for tensor in (h, x))
    h = conv(weights, f"{name}.in_layers.2", h)
    told = linear(weights, f"{name}.emb_layers.1", F.silu(embedding))[..., None, None]
    if told.shape[1] == 2 * h.shape[1]:
        h = norm(weights, f"{name}.out_layers.0", h, 1e-5) * (1 + told[:, : h.shape[1]]) + told[:, h.shape[1] :]
    else:
        h = norm(weights, f"{name}.out_layers.0", h + told, 1e-5)
    h = conv(weights, f"{name}.out_layers.3", F.silu(h))
    return h + (conv(weights, f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in weights else x)


def transformer(weights, name, x, tokens, num_heads):
    def layer_norm(which, h):
        return F.layer_norm(h, h.shape[-1:], weights[f"{which}.weight"], weights[f"{which}.bias"])

    def attention(which, h, source):
        q, k, v = (
            linear(weights, f"{which}.to_{part}", given).unflatten(2, (num_heads, -1)).transpose(1, 2)
            for part, given in (("q", h), ("k", source), ("v", source))
        )
        shares = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)
        return linear(weights, f"{which}.to_out.0", (shares @ v).transpose(1, 2).flatten(2))

    def project(which, h):  # (B, N, C), by a linear layer or a 1x1 convolution
        kernel = weights[f"{which}.weight"]
        return h @ kernel.reshape(kernel.shape[:2]).T + weights[f"{which}.bias"]

    h = project(f"{name}.proj_in", norm(weights, f"{name}.norm", x, 1e-6).flatten(2).transpose(1, 2))
    for i in range(len({key for key in weights if key.startswith(name) and key.endswith(".norm1.weight")})):
        block = f"{name}.transformer_blocks.{i}"
        normed = layer_norm(f"{block}.norm1", h)
        h = h + attention(f"{block}.attn1", normed, normed)
        h = h + attention(f"{block}.attn2", layer_norm(f"{block}.norm2", h), tokens)
        value, gate = linear(weights, f"{block}.ff.net.0.proj", layer_norm(f"{block}.norm3", h)).chunk(2, dim=-1)
        h = h + linear(weights, f"{block}.ff.net.2", value * F.gelu(gate))
    return x + project(f"{name}.proj_out", h).transpose(1, 2).unflatten(2, x.shape[2:])
