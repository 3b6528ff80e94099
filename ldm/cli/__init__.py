"""The `ldm` command: one small door for each thing that can be done."""

import os
import sys
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentError

from ldm.cli.quiet import short_warnings
from ldm.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    """Run one `ldm` command; what a user got wrong ends as one sentence and exit code 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # Before torch is imported: threads that spin while they wait make a busy machine many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    short_warnings()
    try:
        dispatch(argv)
    except (UserError, ArgumentError) as error:
        if os.environ.get("LDM_DEBUG"):
            raise
        print(f"ldm: error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None or os.environ.get("LDM_DEBUG"):
            raise
        print(f"ldm: error: {error.filename}: {error.strerror}.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("ldm: interrupted; the same command goes on where it was.", file=sys.stderr)
        sys.exit(130)


def dispatch(argv: list[str]) -> None:
    """Hand the arguments to the command that the first one names."""
    commands = all_commands()
    if not argv or argv[0] in ("-h", "--help"):
        print(overview(commands))
    elif argv[0] == "--version":
        from ldm import __version__

        print(f"ldm {__version__}")
    elif argv[0] in commands:
        commands[argv[0]](argv[1:])
    else:
        raise UserError(f"There is no command {argv[0]!r}: choose one of {', '.join(commands)} (see ldm --help).")


def all_commands() -> dict[str, Callable[[list[str]], None]]:
    """The commands by name, in the order in which a project uses them. Each imports what it needs when it runs.

    Their functions bear an underscore because a module of this package may bear the command's own name.
    """
    return {
        "quickstart": _quickstart,
        "pack": _pack,
        "fit": _fit,
        "validate": _validate,
        "encode": _encode,
        "sample": _sample,
        "likelihood": _likelihood,
        "export": _export,
        "import": _import,
        "inspect": _inspect,
        "compare-latents": _compare_latents,
        "plot": _plot,
    }


def overview(commands: dict[str, Callable[[list[str]], None]]) -> str:
    """What `ldm --help` prints."""
    lines = [f"  {name:<17}{(command.__doc__ or '').splitlines()[0]}" for name, command in commands.items()]
    return "\n".join(
        [
            "usage: ldm COMMAND [options]",
            "",
            "Latent diffusion models, from a folder of images to samples.",
            "",
            "commands:",
            *lines,
            "",
            "ldm COMMAND --help explains every option. The usual order for images of your own:",
            "  ldm pack IMAGES SHARDS  ->  ldm fit -c (autoencoder config)  ->  ldm encode RUN SHARDS LATENTS",
            "  ->  ldm fit -c (diffusion config)  ->  ldm sample RUN",
            "Set LDM_DEBUG=1 to see the traceback behind an error message.",
        ]
    )


def _quickstart(argv: list[str]) -> None:
    """The guided tour: pack, train, encode, train, sample and measure, on scanned digits, in minutes."""
    from ldm.cli.signature import call
    from ldm.quickstart import quickstart as tour

    call(lambda **options: tour(main, **options), argv, "quickstart", signature_of=tour, skip=("run_command",))


def _pack(argv: list[str]) -> None:
    """Images (a folder, a torchvision data set, an embedded set) -> shards and their manifest."""
    from ldm.cli.signature import call
    from ldm.data import pack as pack_images

    call(pack_images, argv, "pack")


def _fit(argv: list[str]) -> None:
    """Train an autoencoder or a diffusion model from a config; the same command again resumes."""
    from ldm.cli.training import train

    train(["fit", *argv])


def _validate(argv: list[str]) -> None:
    """Run the validation of a config on its run folder's newest checkpoint."""
    from ldm.cli.training import train

    train(["validate", *argv])


def _encode(argv: list[str]) -> None:
    """Shards -> latent shards, with a trained autoencoder; resumable, on many processes."""
    from ldm.cli.signature import call
    from ldm.encoding import encode as encode_shards

    call(encode_shards, argv, "encode")


def _sample(argv: list[str]) -> None:
    """A trained model -> images: PNGs, a grid, a film of the denoising."""
    from ldm.cli.sample import choices
    from ldm.cli.sample import sample as sample_run
    from ldm.cli.signature import call

    call(sample_run, argv, "sample", epilog=choices)


def _likelihood(argv: list[str]) -> None:
    """How probable a diffusion model holds images: bits per dimension, by a bound or exactly."""
    from ldm.cli.likelihood import likelihood as likelihood_of_run
    from ldm.cli.signature import call

    call(likelihood_of_run, argv, "likelihood")


def _export(argv: list[str]) -> None:
    """A run folder -> model.safetensors and config.yaml, all included; an autoencoder also for other code."""
    from ldm.cli.signature import call
    from ldm.exporting import export as export_run

    call(export_run, argv, "export")


def _import(argv: list[str]) -> None:
    """Weights of another code base (official DiT, Stable Diffusion's U-Net, autoencoders) -> an export."""
    from ldm.cli.signature import call
    from ldm.importing import import_weights

    call(import_weights, argv, "import")


def _inspect(argv: list[str]) -> None:
    """What a path holds: shards, a run, an export or a weight file, with the contract of its latents."""
    from ldm.cli.inspection import inspect
    from ldm.cli.signature import call

    call(inspect, argv, "inspect")


def _compare_latents(argv: list[str]) -> None:
    """Whether two sets of latents may be mixed and, if not, how far apart they are."""
    from ldm.cli.comparison import compare_latents
    from ldm.cli.signature import call

    call(compare_latents, argv, "compare-latents")


def _plot(argv: list[str]) -> None:
    """Pictures: a config's path and training, an image under its noise, a sampler's trajectories."""
    from ldm.cli.plot import plot as plot_picture

    plot_picture(argv)
