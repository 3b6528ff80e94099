"""What README and docs tell people to type: the example runs, each command is parsed, the five commands work."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_sample_image

from ldm.cli import main, signature
from ldm.cli.training import TrainingCLI

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = {"train.py": [], "sample.py": ["sample"]}


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of `ldm` in each command of the page's code blocks, however it is started."""
    blocks = re.findall(r"^(?: {4}.*\n)+|^```bash\n.*?^```", text, re.MULTILINE | re.DOTALL)
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        if not re.search(r"(^|&& |srun )\s*(ldm|python (train|sample)\.py) |^\s*torchrun ", line + " "):
            continue
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            for i, word in enumerate(words):
                if word == "ldm" or word in SCRIPTS:
                    yield SCRIPTS.get(word, []) + words[i + 1 :]
                    break


COMMANDS = [(page.stem, words) for page in PAGES for words in commands(page.read_text())]


def test_the_commands_are_found() -> None:
    found = [words[0] for _, words in COMMANDS]
    assert set(found) >= {"quickstart", "pack", "fit", "encode", "sample"}
    assert len([page for page, _ in COMMANDS if page == "cluster"]) >= 6


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60]
)
def test_a_command_of_the_docs_is_parsed(page: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Any] = []

    def parse_only(
        function: Any, argv: list[str], command: str, signature_of: Any = None, skip: Any = (), epilog: Any = None
    ) -> None:
        parser: argparse.ArgumentParser = signature.build_parser(signature_of or function, command, skip)
        parsed.append(parser.parse_args(argv))

    monkeypatch.setattr(signature, "call", parse_only)
    monkeypatch.setattr(TrainingCLI, "instantiate_classes", lambda self: parsed.append(self.config))
    monkeypatch.setattr(TrainingCLI, "_run_subcommand", lambda self, subcommand: None)
    monkeypatch.chdir(ROOT)
    main(words)
    assert len(parsed) == 1


def test_the_example_of_the_readme_runs() -> None:
    example = re.search(r"^```python\n(.*?)^```", PAGES[0].read_text(), re.MULTILINE | re.DOTALL)
    assert example is not None
    names: dict[str, Any] = {}
    exec(example[1], names)
    assert names["samples"].shape == (16, 1, 8, 8)
    assert names["losses"].mean() < 1.2  # 2.0 at the start
    assert names["samples"].std() > 0.4  # digits are black and white, not grey


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A working folder with my_images/: tiles of 64 pixels, cut from two photographs."""
    for name in ("china", "flower"):
        photograph = load_sample_image(f"{name}.jpg")  # (427, 640, 3)
        folder = tmp_path / "my_images" / name
        folder.mkdir(parents=True)
        for top in range(0, 427 - 63, 64):
            for left in range(0, 640 - 63, 64):
                tile = Image.fromarray(photograph[top : top + 64, left : left + 64])
                tile.save(folder / f"{top}-{left}.jpg", quality=95)
    Image.fromarray(photograph).save(tmp_path / "photo.jpg")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    mask.save(tmp_path / "mask.png")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


def made_tiny(words: list[str]) -> list[str]:
    """A `fit` command with the tiny overlay, but on the data and in the run folder of its own config."""
    config = yaml.safe_load(Path(words[2]).read_text())
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    options = ["--run", config["run"], "--data.init_args.shards", data["shards"]]
    options += ["--data.init_args.val_shards", data["val_shards"] or "null"]
    if "net" in model:
        options += ["--model.init_args.autoencoder.init_args.run", model["autoencoder"]["init_args"]["run"]]
    overlay = "tiny_dit" if "net" in model else "tiny_autoencoder"
    return [*words, "-c", f"configs/parts/{overlay}.yaml", *options]


def test_five_commands_lead_from_photographs_to_samples(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = PAGES[0].read_text().split("## Your own images in five commands")[1]
    five = list(commands(section))[:5]
    assert [words[0] for words in five] == ["pack", "fit", "encode", "fit", "sample"]
    monkeypatch.chdir(photographs)
    for words in five:
        main(made_tiny(words) if words[0] == "fit" else [*words, *({"sample": ["--num-steps", "3"]}.get(words[0], []))])
    pictures = sorted(Path("samples").glob("0*.png"))
    assert len(pictures) == 16
    with Image.open(pictures[1]) as picture:
        assert (picture.size, picture.mode, picture.info["class"]) == ((64, 64), "RGB", "1")
    assert Path("samples/grid.png").is_file()
    assert Path("samples/film.gif").is_file()
    for words in list(commands(section))[5:11]:  # what more can be asked of the model
        few = {"sample": ["--num-steps", "2", "--num-images", "2"], "likelihood": ["--num-steps", "2"]}
        main([*words, *few.get(words[0], [])])
    assert len(list(Path("samples").glob("0*.png"))) == 2
    assert Path("path.png").is_file()
