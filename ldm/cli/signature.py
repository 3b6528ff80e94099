"""A function's signature as a command line: arguments without a default are positional, the others are options."""

import argparse
import inspect
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import docstring_parser

from ldm.errors import UserError

SINGULAR = {"classes": "class", "images": "image"}  # of options that take several


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong command line is a UserError like any other: one sentence, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see {self.prog} --help.")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """argparse's, but an option that takes several values is shown with one, and dots."""

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return f"{action.metavar} ..." if action.nargs == "+" else super()._format_args(action, default_metavar)


def call(
    function: Callable[..., Any],
    argv: list[str],
    command: str,
    signature_of: Callable[..., Any] | None = None,
    skip: Sequence[str] = (),
    epilog: Callable[[], str] | None = None,
) -> None:
    """Parse `argv` for the signature of `signature_of` (left out, of `function`) and call `function`.

    The help texts are the function's docstring; `epilog` says what the help ends with.

    Raises:
        UserError: a wrong command line.
    """
    described = signature_of or function
    parser = build_parser(described, command, skip)
    if epilog is not None and {"-h", "--help"} & set(argv):
        parser.epilog = epilog().replace("%", "%%")
    function(**vars(parser.parse_args(argv)))


def build_parser(function: Callable[..., Any], command: str, skip: Sequence[str] = ()) -> argparse.ArgumentParser:
    """An argparse parser for the parameters of `function`, explained by its Google-style docstring."""
    doc = docstring_parser.parse(function.__doc__ or "")
    helps = {param.arg_name: " ".join((param.description or "").split()) for param in doc.params}
    about = "\n\n".join(text for text in (doc.short_description, doc.long_description) if text)
    script = Path(sys.argv[0]).name
    prog = script if script == f"{command}.py" else f"ldm {command}"
    parser = Parser(prog=prog, description=about, formatter_class=HelpFormatter)
    parameters = inspect.signature(function).parameters
    needed = [name.upper() for name, p in parameters.items() if p.default is inspect.Parameter.empty]
    parser.usage = " ".join(["%(prog)s", *needed, "[options]"])  # each option stands below
    for name, parameter in parameters.items():
        if name not in skip:
            add_argument(parser, name, parameter, helps.get(name, "").replace("%", "%%"))
    return parser


def add_argument(parser: argparse.ArgumentParser, name: str, parameter: inspect.Parameter, text: str) -> None:
    kind, options = interpret(parameter.annotation)
    if parameter.default is inspect.Parameter.empty:
        parser.add_argument(name, metavar=name.upper(), help=text, **options)
        return
    flag = "--" + name.replace("_", "-")
    if kind is bool:
        parser.add_argument(flag, dest=name, action="store_true", help=text)
        return
    shown = parameter.default not in (None, "") and "default" not in text
    text += f" (default: {parameter.default})" if shown else ""
    if "choices" not in options:
        noun = name.split("_")[-1]
        options["metavar"] = (SINGULAR.get(noun, noun) if kind is list else noun).upper()
    parser.add_argument(flag, dest=name, default=parameter.default, help=text, **options)


def interpret(annotation: Any) -> tuple[Any, dict[str, Any]]:
    """The plain type behind an annotation, and what argparse has to know of it."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        return type(choices[0]), {"choices": choices, "type": type(choices[0])}
    if get_origin(annotation) is list:
        return list, {"nargs": "+", "action": "extend", "type": get_args(annotation)[0]}
    return annotation, {} if annotation is bool else {"type": annotation}
