"""Text-to-image on the set `shapes`, measured: do pictures show what their prompts ask for?

    python benchmarks/shapes.py prompts --objects 1 --count 200 one.txt    # captions of held-out combinations
    ldm sample RUN --prompts one.txt --guidance-scale 1.5 --out samples/one
    python benchmarks/shapes.py judge samples/one

    python benchmarks/shapes.py checker --count 2000                       # how often the judge itself is right

`judge` reads the prompt of each PNG from its text entry "prompt" and prints the share of pictures that are right, as a
whole and aspect by aspect, by the number of objects asked for. Right: exactly the objects asked for, each with its
colour and shape, where the prompt wants them.
"""

import argparse
import io
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from ldm.data.shapes import SPLITS, captions, draw, parse, scene
from ldm.errors import UserError
from ldm.evaluation.shapes import ASPECTS, Verdict, judge, judge_found
from ldm.evaluation.shapes_reader import read

FRESH = 10_000_000  # the first scene that `checker` draws: far behind what is packed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("prompts", help="write canonical captions, one a line")
    command.add_argument("out", type=Path)
    command.add_argument("--objects", type=int, choices=(1, 2, 3), help="so many in each; left out: mixed")
    command.add_argument("--count", type=int, default=200)
    command.add_argument("--split", choices=SPLITS, default="heldout")
    command.set_defaults(run=lambda asked: prompts(asked.out, asked.objects, asked.count, asked.split))
    command = commands.add_parser("judge", help="judge a folder of PNGs by the prompts that they carry")
    command.add_argument("folder", type=Path)
    command.add_argument("--wrong", action="store_true", help="list the pictures that are wrong, and what is in them")
    command.set_defaults(run=lambda asked: judge_folder(asked.folder, asked.wrong))
    command = commands.add_parser("checker", help="judge fresh drawings by their own captions")
    command.add_argument("--count", type=int, default=2000)
    command.set_defaults(run=lambda asked: checker(asked.count))
    asked = parser.parse_args()
    try:
        asked.run(asked)
    except UserError as error:
        sys.exit(f"error: {error}")


def prompts(out: Path, objects: int | None, count: int, split: str) -> None:
    lines = [captions(scene(i, split, objects=objects))[0] for i in range(count)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def judge_folder(folder: Path, wrong: bool) -> None:
    verdicts: dict[int, list[Verdict]] = defaultdict(list)
    without = 0
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            prompt = image.info.get("prompt")
            if prompt is None:
                without += 1
                continue
            try:
                verdict = judge(prompt, image)
            except (UserError, ValueError) as error:
                raise UserError(f"{path}: {error}") from error
        verdicts[len(parse(prompt).objects)].append(verdict)
        if wrong and not verdict.right:
            seen = [f"{thing.size} {thing.colour} {thing.shape}, {thing.place}" for thing in verdict.found]
            print(f"{path.name}: {prompt!r} shows {'; '.join(seen) or 'nothing'}")
    if not verdicts:
        raise UserError(f"{folder} holds no PNG with an entry 'prompt': give a folder that ldm sample wrote")
    if without:
        print(f"{without} PNGs without a prompt passed over")
    print_table(verdicts)


def print_table(verdicts: dict[int, list[Verdict]]) -> None:
    columns = {f"{n} object{'s' * (n > 1)}": verdicts[n] for n in sorted(verdicts)}
    if len(columns) > 1:
        columns["all"] = [verdict for some in verdicts.values() for verdict in some]
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    print(f"| pictures | {' | '.join(str(len(some)) for some in columns.values())} |")
    print(f"| **right** | {' | '.join(share([one.right for one in some]) for some in columns.values())} |")
    for name in ASPECTS:
        cells = [share([one.aspects[name] for one in some if name in one.aspects]) for some in columns.values()]
        print(f"| {name} | {' | '.join(cells)} |")


def share(rights: list[bool]) -> str:
    return f"{100 * sum(rights) / len(rights):.1f} %" if rights else "-"


def checker(count: int) -> None:
    """Of `count` fresh drawings, half held-out, the share where every aspect of every caption is judged right."""
    print("| drawings | read exactly | all captions right in all aspects |\n|---|---|---|")
    for name, spoil in SPOILT.items():
        exact, right = [], []
        for i in range(count):
            drawn = scene(FRESH + i, SPLITS[i % 2])
            found = read(spoil(draw(drawn), i))
            there = sorted((thing.shape, thing.colour, thing.size, thing.place) for thing in drawn.things)
            exact.append(there == sorted((str(f.shape), str(f.colour), f.size, f.place) for f in found))
            verdicts = [judge_found(parse(caption), found) for caption in captions(drawn)]
            right.append(all(verdict.right and all(verdict.aspects.values()) for verdict in verdicts))
        print(f"| {name} | {100 * np.mean(exact):.2f} % | {100 * np.mean(right):.2f} % |", flush=True)


def image_of(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(levels).clip(0, 255).astype(np.uint8))


def blurred(image: Image.Image, sigma: float) -> np.ndarray:
    return gaussian_filter(np.asarray(image, dtype=np.float32), (sigma, sigma, 0))


def noise(i: int) -> np.ndarray:
    return np.random.default_rng(i).normal(0, 0.03 * 255, (64, 64, 3))


def as_jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(file)


SPOILT = {
    "as drawn": lambda image, i: image,
    "blurred, sigma 0.7 pixels": lambda image, i: image_of(blurred(image, 0.7)),
    "blurred, sigma 1 pixel": lambda image, i: image_of(blurred(image, 1.0)),
    "noise, std 0.03 of the range": lambda image, i: image_of(np.asarray(image) + noise(i)),
    "blurred, sigma 0.7, and noise": lambda image, i: image_of(blurred(image, 0.7) + noise(i)),
    "JPEG, quality 75": lambda image, i: as_jpeg(image),
}

if __name__ == "__main__":
    main()
