"""A function's signature is its command line."""

from typing import Literal

import pytest

from ldm.cli.signature import call
from ldm.errors import UserError


def command(
    source: str,
    count: int,
    rate: float = 0.5,
    names: list[str] | None = None,
    limit: int | None = None,
    kind: Literal["a", "b"] = "a",
    bits: Literal[16, 32] = 16,
    force: bool = False,
):
    """Do it at 100 %.

    Args:
        source: where from, 50 % of it.
        count: how many.
        rate: how fast.
        names: which ones.
        limit: at most.
        kind: of which kind.
        bits: how precisely.
        force: whatever there is.
    """
    seen.update(locals())


seen = {}


def called(*argv):
    seen.clear()
    call(command, list(argv), "command")
    return dict(seen)


def test_arguments_and_options_have_their_types():
    plain = {"rate": 0.5, "names": None, "limit": None, "kind": "a", "bits": 16, "force": False}
    assert called("x", "3") == {"source": "x", "count": 3, **plain}
    options = ["--rate", "2", "--names", "p", "q", "--limit", "7", "--kind", "b", "--bits", "32", "--force"]
    full = {"rate": 2.0, "names": ["p", "q"], "limit": 7, "kind": "b", "bits": 32, "force": True}
    assert called("x", "3", *options) == {"source": "x", "count": 3, **full}
    assert called("x", "3", "--names", "p", "--names", "q", "r")["names"] == ["p", "q", "r"]


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["x"], "COUNT"),
        (["x", "many"], "COUNT: invalid int value: 'many'"),
        (["x", "3", "--kind", "c"], "--kind"),
        (["x", "3", "--rate", "fast"], "--rate: invalid float value"),
        (["x", "3", "--nope"], "--nope"),
        (["x", "3", "y"], "unrecognized arguments: y"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(argv, named):
    with pytest.raises(UserError) as caught:
        called(*argv)
    assert named in str(caught.value)
    assert "ldm command --help" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_help_prints_percent_signs(capsys):
    with pytest.raises(SystemExit) as ended:
        called("--help")
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "50 % of it" in told
    assert "how fast. (default: 0.5)" in told
