"""What `ldm import` does, for weights of any kind."""

from pathlib import Path
from typing import Any, Literal

from ldm.errors import UserError
from ldm.exports import check_replaceable
from ldm.importing.autoencoders import import_autoencoder
from ldm.importing.networks import import_network


def import_weights(
    kind: Literal["dit", "unet", "autoencoder"],
    file: str,
    out: str,
    autoencoder: str | None = None,
    text_weights: str | None = None,
    text_model: str | None = None,
    input_size: int | None = None,
    num_heads: int | None = None,
    path: str | None = None,
    prediction: Literal["eps", "v", "x0"] | None = None,
    classes: str | None = None,
    scale: str | None = None,
    shift: str | None = None,
    size: int | None = None,
    force: bool = False,
    trust_code: bool = False,
) -> Path:
    """Make an export of a weight file of another code base.

    The layout is told by the keys of FILE: the official DiT; a U-Net, or an autoencoder (KL or VQ), by CompVis' or
    diffusers' names. The structure is read from the shapes; what they cannot tell is an option. OUT of a network can
    then be sampled from, and training can start from it; OUT of an autoencoder encodes, and is what networks name.
    Examples: ldm import autoencoder vae.safetensors runs/sd_vae --scale 0.18215, and then
    ldm import dit DiT-XL-2-256x256.pt runs/dit_xl_2 --autoencoder runs/sd_vae

    Args:
        kind: dit, unet or autoencoder.
        file: the weights, .safetensors, or .pt and .ckpt, of which nothing is run; of an autoencoder also a folder of
            diffusers, config.json and weights, or of a pipeline with vae/ in it.
        out: the folder to make.
        autoencoder: run folder or export of the autoencoder whose latents a dit or unet knows; must be given.
        text_weights: of a unet, the file of its text encoder; a file of the whole model, such as FILE may be, will do.
        text_model: name of the text encoder in open_clip; left out, that of Stable Diffusion 1 or 2.
        input_size: side of the latents; left out, that of a DiT's positions, and 64 for a unet.
        num_heads: attention heads; left out, as published: 16 in DiT-XL, else 64 channels each; 8 in Stable Diffusion.
        path: the noise path; left out, linear for a dit and scaledlinear for a unet.
        prediction: what the network says: eps, v or x0; left out, eps.
        classes: a text file with the names of a dit's classes, one a line in their order.
        scale: of an autoencoder, the published factor s of (z - m) s, or one per latent channel with commas between;
            left out, that of diffusers' config.json, and 1 for a VQ model.
        shift: of an autoencoder, the published m of (z - m) s, likewise; left out, that of config.json, or 0. Write
            --shift=-0.1,0.2 if it begins with a minus.
        size: of an autoencoder, side in pixels of the images that it was trained on; left out, that of config.json,
            or 256.
        force: replace OUT if it holds an older export.
        trust_code: allow the autoencoder's config to name classes from outside ldm, which runs their code.

    Returns:
        `out`.
    """
    of_networks: dict[str, Any] = {
        "autoencoder": autoencoder,
        "text_weights": text_weights,
        "text_model": text_model,
        "input_size": input_size,
        "num_heads": num_heads,
        "path": path,
        "prediction": prediction,
        "classes": classes,
    }
    of_autoencoders: dict[str, Any] = {"scale": scale, "shift": shift, "size": size}
    check_replaceable(Path(out), force)
    if kind == "autoencoder":
        refuse(of_networks, "a dit or unet")
        import_autoencoder(Path(file), Path(out), **of_autoencoders)
    else:
        refuse(of_autoencoders, "an autoencoder")
        import_network(kind, Path(file), Path(out), **of_networks, trust_code=trust_code)
    return Path(out)


def refuse(options: dict[str, Any], whose: str) -> None:
    """Raise a UserError if any of the options is given."""
    for name, value in options.items():
        if value is not None:
            raise UserError(f"--{name.replace('_', '-')} is an option of {whose}: leave it out.")
