"""`ldm sample` by prompts, class names and further conditions; sweeps over prompts, seeds and guidance scales."""

import functools
import json
from pathlib import Path

import pytest
import torch
from made_runs import autoencoder_run, diffusion_run, text_run
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from ldm import runs
from ldm.cli import main
from ldm.cli.asking import Asked
from ldm.cli.labels import labels
from ldm.cli.plan import make_plan
from ldm.conditioners import captions
from ldm.diffusion.guidance import ClassifierFree
from ldm.diffusion.samplers import DDIM
from ldm.images import to_uint8
from ldm.sampling import Request, sample_images

CPU = ["--accelerator", "cpu", "--num-steps", "2"]
NAMES = ["tench", "great white shark", "tiger shark", "7", "hen"]
SIZE = {
    "class_path": "ldm.conditioners.SizeAndCrop",
    "init_args": {"width": 16, "default_size": [8, 8], "num_frequencies": 4},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The runs ae, text (captions), sized (captions and sizes) and named (five classes with names)."""
    folder = tmp_path_factory.mktemp("prompts")
    autoencoder_run(folder / "ae")
    text_run(folder / "text", folder / "ae")
    text_run(folder / "sized", folder / "ae", [SIZE])
    diffusion_run(folder / "named", folder / "ae", classes=5, names=NAMES)
    return folder


@pytest.fixture
def work(made, tmp_path, monkeypatch):
    """The working directory, with the runs of `made`."""
    monkeypatch.chdir(tmp_path)
    for run in made.iterdir():
        Path(run.name).symlink_to(run)
    return tmp_path


def sample(*words):
    main(["sample", *map(str, words), *CPU])


def read(file):
    with Image.open(file) as picture:
        return pil_to_tensor(picture).int(), dict(picture.info)


def entries(out="samples"):
    return [read(file)[1] for file in sorted(Path(out).glob("0*.png"))]


def test_prompts_are_dealt_in_turn_and_guided_away_from_the_negative(work):
    sample(
        "text",
        "--prompt",
        "a red circle",
        "cyan",
        "--negative-prompt",
        "blue",
        "--guidance-scale",
        2,
        "--num-images",
        3,
    )
    wish, avoided = {"captions": ["a red circle", "cyan", "a red circle"]}, {"captions": ["blue"] * 3}
    request = Request(range(3), wish, [ClassifierFree(2.0)], avoided)
    expected = to_uint8(sample_images(runs.load("text"), request, DDIM(2))).int()
    for i, about in enumerate(entries()):
        assert (read(f"samples/{i:06d}.png")[0] - expected[i]).abs().max() <= 1
        assert (about["prompt"], about["negative prompt"]) == (wish["captions"][i], "blue")
        assert (about["seed"], about["guidance_scale"]) == (str(i), "2.0")


def test_a_sweep_gives_each_prompt_and_scale_the_same_seed_and_changes_no_pixels(work):
    prompts = ["a red circle", "cyan"]
    sample(
        "text", "--prompt", *prompts, "--guidance-scale", 1, 3, "--same-seed", "--seed", 5, "--num-images", 8, "--grid"
    )
    asked = [(about["prompt"], about["guidance_scale"], about["seed"]) for about in entries()]
    assert asked == [(p, s, seed) for seed in "56" for s in ("1.0", "3.0") for p in prompts]
    for place, (prompt, scale, seed) in list(enumerate(asked))[2:7:2]:
        rules = [] if scale == "1.0" else [ClassifierFree(float(scale))]
        alone = sample_images(runs.load("text"), Request([int(seed)], {"captions": [prompt]}, rules), DDIM(2))
        assert (read(f"samples/{place:06d}.png")[0] - to_uint8(alone)[0].int()).abs().max() <= 1
    with Image.open("samples/grid.png") as grid:
        assert grid.height > 4 * 66 + 2  # four rows and the prompts
        assert grid.width > 2 * 66 + 2  # two columns, and scales and seeds beside them


@functools.cache
def conditioner(run):
    return runs.load_diffusion(run).conditioner


def plan(num_images=None, scales=(1.0,), same_seed=False, pictures=0, columns=0, run="text", **asked):
    said = Asked(**asked).read(conditioner(run))
    return make_plan(said, {scale: [] for scale in scales}, scales, num_images, 0, same_seed, pictures, columns)


def test_how_many_images_and_columns_there_are(work):
    Path("p.txt").write_text("\n".join("abcde"))
    sizes = {
        (16, 4): {},
        (16, 3): {"prompt": ["a", "b", "c"]},
        (18, 3): {"prompt": ["a", "b", "c"], "same_seed": True},
        (18, 2): {"prompt": ["a", "b"], "scales": (1.0, 2.0, 4.0)},
        (18, 9): {"scales": tuple(map(float, range(9)))},
        (5, 2): {"prompts": "p.txt"},
        (10, 5): {"prompts": "p.txt", "scales": (1.0, 2.0)},
        (30, 15): {"prompts": "p.txt", "scales": (1.0, 2.0), "pictures": 3},
        (6, 6): {"prompt": ["a", "b"], "negative_prompt": ["c", "d", "e"], "num_images": 6},
        (4, 2): {"num_images": 4, "pictures": 2},
        (7, 5): {"num_images": 7, "columns": 5},
    }
    for (count, columns), options in sizes.items():
        made = plan(**options)
        assert (len(made), made.columns) == (count, columns)
    assert list(plan(num_images=4).request.seeds) == [0, 1, 2, 3]
    assert list(plan(num_images=5, prompt=["a", "b"], same_seed=True).request.seeds) == [0, 0, 1, 1, 2]


def test_a_grid_says_beside_its_images_what_they_are(work):
    both = plan(4, (1.0, 2.5), True, prompt=["a", "b"]).labels()
    assert both == (["a", "b"], ["scale 1", "scale 2.5"], "seed 0")
    scales = plan(6, (1.0, 2.0, 4.0), True, prompt=["a"]).labels()
    assert scales == (["scale 1", "scale 2", "scale 4"], ["seed 0", "seed 1"], "a")
    assert plan(4, same_seed=True, prompt=["a", "b"]).labels() == (["a", "b"], ["seed 0", "seed 1"], "")
    away = plan(2, prompt=["a", "b"], negative_prompt=["c"]).labels()
    assert away == (["a", "b"], [], "not: c")
    classes = plan(5, run="named", classes=["tench", "3"]).labels()
    assert classes == (["tench", "class 7"], [], "")
    assert plan(3, run="named", classes=["hen", "0"], columns=2).labels().titles == ["hen", "tench"]
    odd = plan(3, run="named", classes=["hen", "0"], columns=3).labels()
    assert odd.titles == ["hen", "tench", "hen"]
    crooked = plan(4, run="named", classes=["hen", "0"], columns=3).labels()  # a column of both
    assert crooked == (["hen", "tench", "hen", "tench"], [], "")
    assert plan(4).labels() == ([""] * 2, [], "")
    assert labels([{"seed": 1}, {"seed": 2}, {"seed": 3}], 2).titles == ["seed 1", "seed 2", "seed 3"]


def test_a_file_of_prompts(work):
    Path("p.txt").write_text("\ufeffa red circle\r\n\n  cyan  \n", encoding="utf-8")
    sample("text", "--prompts", "p.txt")
    assert [about["prompt"] for about in entries()] == ["a red circle", "cyan"]
    lines = [{"prompt": "a", "negative": "b", "seed": 70}, {"prompt": "c"}, {"prompt": "d\u2028e", "seed": None}]
    Path("p.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    sample("text", "--prompts", "p.jsonl", "--guidance-scale", 2, "--seed", 3)
    assert [about["seed"] for about in entries()] == ["70", "4", "5"]
    assert [about.get("negative prompt") for about in entries()] == ["b", None, None]
    first = read("samples/000000.png")[0]
    request = Request([70], {"captions": ["a"]}, [ClassifierFree(2.0)], {"captions": ["b"]})
    alone = to_uint8(sample_images(runs.load("text"), request, DDIM(2)))[0]
    assert (first - alone.int()).abs().max() <= 1
    given = plan(prompts="p.jsonl", negative_prompt=["x"])  # of the lines that have none
    assert given.request.avoided["captions"] == ["b", "x", "x"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("", "holds no prompt"),
        ('{"prompt": "a"}\n{"prompt": b}', "p.jsonl, line 2 is no JSON"),
        ('{"prompt": "a"}\n\n["a"]', 'p.jsonl, line 3 has no text "prompt"'),
        ('{"prompt": 3}', 'line 1 has no text "prompt"'),
        ('{"prompt": "a", "sed": 3}', "has 'sed': the fields of a prompt are prompt, negative, seed"),
        ('{"prompt": "a", "seed": -1}', '"seed" is to be a whole number'),
        ('{"prompt": "a", "seed": 1.5}', "and is 1.5"),
        ('{"prompt": "a", "seed": true}', "and is True"),
        ('{"prompt": "a", "negative": ["b"]}', '"negative" is to be text'),
    ],
)
def test_a_file_that_holds_no_prompts(work, refused, lines, told):
    Path("p.jsonl").write_text(lines)
    assert told in refused("sample", "text", "--prompts", "p.jsonl", *CPU)


def test_prompts_that_cannot_be_had(work, refused):
    text = ["sample", "text", *CPU, "--out", "never"]
    Path("latin").write_bytes("rot grün".encode("latin-1"))
    assert "nowhere.txt: No such file" in refused(*text, "--prompts", "nowhere.txt")
    assert "not UTF-8" in refused(*text, "--prompts", "latin")
    assert "come from one of them" in refused(*text, "--prompts", "p.txt", "--prompt", "a")
    for further in ([], ["--guidance-scale", "2"]):
        told = refused("sample", "named", *CPU, "--prompt", "a red circle", *further)
        assert "cannot be asked for prompts (--prompt); it takes classes (--classes)" in told
        told = refused(*text, "--classes", "tench" if further else "3", *further)
        assert "cannot be asked for classes (--classes); it takes prompts (--prompt)" in told
    assert "name prompts (--prompt)" in refused(*text, "--guidance-scale", "2")
    assert "raise --guidance-scale over 1" in refused(*text, "--prompt", "a", "--negative-prompt", "b")
    assert "takes KEY=VALUE" in refused(*text, "--condition", "crop")
    told = refused(*text, "--condition", "colour=3")
    assert "cannot be asked for colour (--condition colour=...); it takes prompts" in told
    assert "crop is 2 numbers" in refused("sample", "sized", *CPU, "--condition", "crop=red")
    assert not Path("never").exists()


def test_classes_by_name(work, refused):
    main(["export", "named", "published"])
    words = ["--classes", "TENCH", "great", "#3", "4", "--num-images", 4]
    for run in ("named", "published"):
        sample(run, *words, "--out", f"of-{run}")
        assert [about["class"] for about in entries(f"of-{run}")] == ["0", "1", "3", "4"]
        assert [about["class name"] for about in entries(f"of-{run}")] == ["tench", "great white shark", "7", "hen"]
    named = ["sample", "named", *CPU, "--classes"]
    assert "any of #1 (great white shark), #2 (tiger shark): give more" in refused(*named, "shark")
    assert "There is no class 'cat': the model knows #0 (tench), #1" in refused(*named, "cat")
    assert "no class 9" in refused(*named, "#9")
    assert "negative class name" in {key for about in entries_of(work, "named", "hen") for key in about}


def entries_of(work, run, negative):
    sample(run, "--classes", "tench", "--negative-classes", negative, "--guidance-scale", 2, "--num-images", 1)
    return entries()


def test_further_conditions_are_named_by_key_and_value(work):
    words = ["sized", "--prompt", "cyan", "--num-images", 2, "--same-seed"]
    sample(*words, "--condition", "original_size=8x8", "original_size=512x64", "--out", "two")
    assert [about["original_size"] for about in entries("two")] == ["8x8", "512x64"]
    assert [about["seed"] for about in entries("two")] == ["0", "0"]
    one, other = (read(f"two/{i:06d}.png")[0] for i in range(2))
    assert not torch.equal(one, other)
    sample("sized", "--prompt", "cyan", "--num-images", 1, "--out", "usual")  # 8 x 8 unless a user says otherwise
    assert (read("usual/000000.png")[0] - one).abs().max() <= 1


def test_pictures_are_changed_and_painted_in_by_prompt(work):
    Image.linear_gradient("L").save("given.png")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save("mask.png")
    drawn = {}
    for prompt in ("a red circle", "cyan"):
        for name, words in {"image": ["--strength", 0.9], "paint": ["--mask", "mask.png"]}.items():
            sample(
                "text", "--prompt", prompt, "--images", "given.png", *words, "--num-images", 1, "--guidance-scale", 3
            )
            drawn[prompt, name], about = read("samples/000000.png")
            assert (about["prompt"], about["images"]) == (prompt, "given.png")
    for name in ("image", "paint"):
        assert not torch.equal(drawn["a red circle", name], drawn["cyan", name])


def test_a_prompt_that_is_cut_is_told_of_once(work, monkeypatch):
    monkeypatch.setattr(captions, "warned", set())
    prompt = "a red circle left of a blue square and a large cyan diamond"
    with pytest.warns(UserWarning, match="Lost is: 'large cyan diamond'") as told:
        sample("text", "--prompt", prompt, "--num-images", 3, "--batch-size", 1)
    assert len([warning for warning in told if "Lost is" in str(warning.message)]) == 1


def test_each_prompt_that_is_cut_is_told_of(work, monkeypatch):
    monkeypatch.setattr(captions, "warned", set())
    Path("long.txt").write_text("\n".join(f"a red circle left of a blue square and {i} stars" for i in range(14)))
    with pytest.warns(UserWarning, match="longer than the context") as told:
        sample("text", "--prompts", "long.txt", "--num-steps", 1)
    lost = [str(warning.message) for warning in told if "Lost is" in str(warning.message)]
    assert len(lost) == 14
    assert lost[-1].endswith("stars'.")


def test_a_sweep_may_hold_off_among_its_scales(work):
    """At scale 1 the rules that limit guidance have nothing to limit, and are no error."""
    words = ["--prompt", "cyan", "--num-images", 2, "--same-seed", "--guidance", "interval:low=0,high=1"]
    sample("text", *words, "--guidance-scale", 1, 2)
    sample("text", "--prompt", "cyan", "--num-images", 1, "--out", "off")
    assert (read("samples/000000.png")[0] - read("off/000000.png")[0]).abs().max() <= 1


def test_a_line_that_comes_again_has_the_next_seed_and_an_empty_negative_is_none_of_the_usual(work):
    lines = [{"prompt": "a", "seed": 7, "negative": ""}, {"prompt": "b"}]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    made = plan(num_images=4, prompts="p.jsonl", negative_prompt=["blue"])
    assert list(made.request.seeds) == [7, 1, 8, 3]
    assert list(made.request.avoided["captions"]) == ["", "blue", "", "blue"]


def test_half_of_a_character_is_refused_before_any_work(work, refused):
    Path("p.jsonl").write_text(r'{"prompt": "a \ud800 b"}')
    assert "p.jsonl, line 1 has half of a character" in refused("sample", "text", "--prompts", "p.jsonl")
