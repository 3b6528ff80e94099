"""Every config of configs/digits trained, sampled and measured: the table of docs/log.md.

    python benchmarks/digits.py [NAME ...]

Of each: the time of training; for samples at guidance scales 1 and 1.5 the share that an SVM, fitted on real training
digits, reads as the class asked for, and k-NN precision and recall (k = 3, raw pixels) against the held-out digits; and
the likelihood of held-out digits in bits per dimension, by the probability-flow ODE (a learned variance: by the
discrete bound). A run that is finished is not trained again, and keeps its time.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.svm import SVC

from ldm.evaluation import precision_recall
from ldm.quickstart import MEASURED, configs, digits, generated, pixels
from ldm.runs import trained_size

RUNS = Path("runs/digits")
SHARDS = RUNS / "shards"
# How a model is sampled and measured where DDIM's 50 steps and the ODE are not its own way. eps says little of x0 at
# the noisy end of the cosine path, so x0 is clipped to the range of pixels there.
OWN_SAMPLER = {
    "eps_cosine": ["--guidance", "clip"],
    "edm": ["--sampler", "heun", "--num-steps", "18"],
    "learned_variance": ["--sampler", "ddpm", "--num-steps", "250", "--guidance", "clip"],
    "cold_blur": ["--sampler", "cold"],
}
OWN_METHOD = {"learned_variance": ["--method", "discrete:variance=learnedrange"]}
NO_LIKELIHOOD = {"cold_blur"}  # it has no density


def ldm(words: list[str]) -> None:
    """An `ldm` command in a process of its own, as a user runs it."""
    subprocess.run([sys.executable, "-m", "ldm", *words], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(path.stem for path in (configs() / "digits").glob("*.yaml"))
    parser.add_argument("names", nargs="*", default=names, metavar="NAME", help=f"of {', '.join(names)}")
    if not (SHARDS / "train" / "manifest.json").is_file():
        ldm(["pack", "digits", str(SHARDS), "--val-fraction", "0.2"])
    rows = [measure(name) for name in parser.parse_args().names]
    print("\n| config | training | sampler | read as asked | precision | recall | bits/dim |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(row)


def measure(name: str) -> str:
    """One row of the table."""
    run = RUNS / name
    seconds = train(name, run)
    size = trained_size(run) or 8
    train_set, train_labels = digits(SHARDS / "train", size)
    held_out = pixels(digits(SHARDS / "val", size)[0])
    classifier = SVC(C=10).fit(pixels(train_set), train_labels)
    found = []
    for scale in ("1", "1.5"):
        samples, asked = draw(name, run, scale)
        agreement = 100 * classifier.score(samples, asked)
        found.append((f"{agreement:.1f} %", *(f"{x:.2f}" for x in precision_recall(held_out, samples))))
    agreements, precisions, recalls = (" / ".join(pair) for pair in zip(*found, strict=True))
    words = OWN_SAMPLER.get(name, [])
    sampler = " ".join(word for word in ([] if "--sampler" in words else ["ddim"]) + words if not word.startswith("--"))
    bits = likelihood(name, run)
    return f"| {name} | {seconds:.0f} s | {sampler} | {agreements} | {precisions} | {recalls} | {bits} |"


def train(name: str, run: Path) -> float:
    """Train the config unless that is done; seconds that it took."""
    record = run / "seconds.json"
    if not record.is_file():
        begun = time.monotonic()
        ldm(["fit", "-c", str(configs() / "digits" / f"{name}.yaml")])
        record.write_text(json.dumps(time.monotonic() - begun))
    return float(json.loads(record.read_text()))


def draw(name: str, run: Path, scale: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, D) of samples, as many of each class, and the classes asked for (N,)."""
    out = run / f"samples-{scale}"
    classes = [str(digit) for digit in range(10)]
    options = ["--num-images", str(MEASURED), "--batch-size", "100", "--seed", "1000", "--guidance-scale", scale]
    ldm(["sample", str(run), "--out", str(out), "--classes", *classes, *options, *OWN_SAMPLER.get(name, []), "--grid"])
    images, asked = generated(out)
    return pixels(images), asked


def likelihood(name: str, run: Path) -> str:
    """Bits per dimension of the held-out digits and its standard error."""
    if name in NO_LIKELIHOOD:
        return "-"
    out = run / "likelihood.json"
    ldm(
        ["likelihood", str(run), str(SHARDS / "val"), "--num-images", "0", "--out", str(out), *OWN_METHOD.get(name, [])]
    )
    found = json.loads(out.read_text())
    return f"{found['bits_per_dim']:.3f} +- {found['standard_error']:.3f}"


if __name__ == "__main__":
    main()
