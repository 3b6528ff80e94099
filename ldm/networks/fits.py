"""Do the data and what a conditioner gives fit a network? Each check says what to change where not."""

from ldm.networks.base import Conditioning


def check_shape(asked: tuple[int, int, int], given: tuple[int, int, int]) -> None:
    """`asked` (C, H, W) of the network against `given` of the data."""
    if given != asked:
        raise ValueError(
            f"The network takes samples of {asked} and the data gives {given}: set the net's "
            f"in_channels to {given[0]} and its input_size to {list(given[1:])}."
        )


def check_vector(width: int, cond: Conditioning) -> None:
    """The vector is added to the embedding of the noise level, `width` wide."""
    if cond.vector is not None and cond.vector.shape[1] != width:
        raise ValueError(
            f"The conditioner's width is {cond.vector.shape[1]} and the network's {width}: make them equal."
        )


def check_tokens(context_width: int | None, cond: Conditioning, hearer: str, of_block: bool = True) -> None:
    """`hearer` names what hears tokens `context_width` wide, or none where that is None.

    `of_block` says whether `context_width` is an argument of the network's block or of the network itself.
    """
    some, none = "choose a block with a context_width of", "choose a block without a context_width"
    if not of_block:
        some, none = "set its context_width to", "leave its context_width out"
    if context_width is None:
        if cond.tokens is not None:
            raise ValueError(
                f"{hearer} hears no tokens, and the conditioner gives some: {some} {cond.tokens.shape[2]}, "
                "use another net, or take the embedder of tokens away."
            )
    elif cond.tokens is None:
        raise ValueError(
            f"{hearer} attends to tokens {context_width} wide, and the conditioner gives none: add an embedder that "
            f"gives tokens (of text, say), or {none}."
        )
    elif cond.tokens.shape[2] != context_width:
        raise ValueError(
            f"The conditioner's tokens are {cond.tokens.shape[2]} wide and the context_width of {hearer} is "
            f"{context_width}: make them equal."
        )


def check_concat(concat_channels: int, cond: Conditioning, sample_shape: tuple[int, int, int]) -> None:
    """`concat_channels` channels beside x_t of `sample_shape`."""
    given = 0 if cond.concat is None else cond.concat.shape[1]
    if given != concat_channels:
        raise ValueError(
            f"The conditioner gives {given} channels beside x_t and the net's concat_channels is {concat_channels}: "
            f"set concat_channels to {given}" + ("." if given else ", or add an embedder that gives an image.")
        )
    if cond.concat is not None and cond.concat.shape[2:] != sample_shape[1:]:
        raise ValueError(
            f"The conditioner's images are {list(cond.concat.shape[2:])} and x_t is {list(sample_shape[1:])}: they are "
            "joined channel by channel, so give the embedder the size of x_t."
        )
