"""`curator demo data`: shards, truth and dense labels that agree with each other."""

from __future__ import annotations

import hashlib
import json
import signal
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from curator.core.auroc import auroc
from curator.core.errors import StoppedError, UsageError
from curator.core.stopping import StopRequest
from curator.demo import dense
from curator.demo.alttext import DEFAULT_RATES, KINDS, alt_text, parse_rates, wrong
from curator.demo.data import DemoData, make_data
from curator.demo.evaluate import read_truth
from curator.demo.render import ATTEMPTS, CLASSES, RenderedImage, make_picture
from curator.demo.scene import SHAPES, Scene, sample_scene
from curator.demo.seeds import HELD_OUT, labelled_seeds, shard_seeds, training_seeds
from curator.demo.workers import chunks_of, make_chunks
from tests.kit.cli import curator

ASKED = DemoData(images=12, labelled=10, side_px=48, samples_per_shard=8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    make_data(out, ASKED, stop=StopRequest())
    return out


def test_every_picture_has_its_truth(world: Path) -> None:
    truth = read_truth(world)
    pictures = pl.read_parquet(world / "pictures" / "*.parquet")
    assert len(truth) == len(pictures) == 12
    for key, digest, text in truth.select("key", "image_sha256", "alt_text").rows():
        assert hashlib.sha256(pictures["image"][int(key)]).hexdigest() == digest
        assert pictures["caption"][int(key)] == text
    assert set(truth["kind"]) <= set(KINDS)
    assert sorted(path.name for path in (world / "shards").glob("*.tar")) == [
        "00000.tar",
        "00001.tar",
    ]


def opened(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_splits_name_the_same_pictures_in_all_layouts(world: Path) -> None:
    assert (world / "segmentation" / "classes.txt").read_text().split() == list(CLASSES)
    splits = {
        split: sorted(p.stem for p in (world / "segmentation" / split / "images").iterdir())
        for split in ("train", "val", "test")
    }
    assert [len(names) for names in splits.values()] == [6, 1, 3]
    for split, names in splits.items():
        labels = (world / "segmentation" / split / "labels").iterdir()
        assert sorted(p.stem for p in labels) == names
        coco = json.loads((world / "detection" / f"{split}.json").read_text())
        assert [image["file_name"] for image in coco["images"]] == [f"{n}.jpg" for n in names]
    listed = {
        part: (world / "depth" / f"{part}.txt").read_text().split() for part in ("train", "test")
    }
    assert listed == {"train": splits["train"] + splits["val"], "test": splits["test"]}
    for folder in ("depth/rgb", "depth/depth", "detection/images", "detection/masks"):
        assert sorted(p.stem for p in (world / folder).iterdir()) == sorted(chain(*splits.values()))


def test_labels_are_the_truth_of_the_scene(world: Path) -> None:
    seed = labelled_seeds(0, 10)[9]
    _, picture = make_picture(seed, 48)
    name = "000009"
    assert (opened(world / f"segmentation/test/labels/{name}.png") == picture.classes).all()
    assert (opened(world / f"detection/masks/{name}.png") == picture.instances).all()
    depth = opened(world / f"depth/depth/{name}.png")
    assert depth.dtype == np.uint16
    assert np.abs(depth / 1000 - picture.depth).max() <= 0.0005 + 1e-6
    assert ((depth == 0) == (picture.depth == 0)).all()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in decode
def test_coco_annotations_hold_the_masks(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(world / "detection" / "test.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(SHAPES)
    assert min(coco.getAnnIds()) == 1  # 0 is not a match in COCOeval
    for image in coco.loadImgs(coco.getImgIds()):
        name = image["file_name"][:-4]
        instances = opened(world / "detection" / "masks" / f"{name}.png")
        classes = opened(world / "segmentation" / "test" / "labels" / f"{name}.png")
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert len(found) == instances.max()
        for number, annotation in enumerate(found, 1):
            mask = coco.annToMask(annotation).astype(bool)
            assert (mask == (instances == number)).all()
            assert annotation["area"] == mask.sum()
            x, y, width, height = annotation["bbox"]
            ys, xs = np.nonzero(mask)
            assert (x, y) == (xs.min(), ys.min())
            assert (x + width, y + height) == (xs.max() + 1, ys.max() + 1)
            shape = SHAPES[annotation["category_id"] - 1]
            assert (classes[mask] == CLASSES.index(shape)).all()
    capsys.readouterr()  # pycocotools prints


def test_the_truth_as_detections_has_full_average_precision(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masks, boxes and ids are such that COCO's own evaluation finds nothing missing."""
    truth = COCO(world / "detection" / "test.json")
    keys = ("image_id", "category_id", "segmentation")
    for kind in ("segm", "bbox"):
        perfect = [
            {key: one[key] for key in keys} | {"score": 0.5} for one in truth.dataset["annotations"]
        ]
        evaluation = COCOeval(truth, truth.loadRes(perfect), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1.0)
    capsys.readouterr()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 400])
def test_splits_have_their_shares_and_hold_every_picture_once(count: int) -> None:
    parts = dense._parts(count)
    assert [number for _, part in parts for number in part] == list(range(count))
    for split, part in parts:
        assert len(part) == pytest.approx(count * dense.SPLITS[split], abs=1)


def test_a_second_call_makes_nothing_again(world: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*.*")}
    before = {path: time for path, time in before.items() if path.suffix != ".json"}
    report = make_data(world, ASKED, stop=StopRequest())
    assert report.num_new_shards == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_options_for_the_same_folder_are_refused(world: Path) -> None:
    with pytest.raises(UsageError, match="other options"):
        make_data(world, replace(ASKED, images=300), stop=StopRequest())


def test_a_stopped_run_keeps_chunks_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curator.demo.workers.os.cpu_count", lambda: 1)
    monkeypatch.setattr("curator.demo.data._CHUNK", 4)
    monkeypatch.setattr("curator.demo.dense._CHUNK", 4)
    asked, stop = replace(ASKED, labelled=6), StopRequest()

    def make_then_stop(seed: int, side: int) -> tuple[Scene, RenderedImage]:
        if seed == shard_seeds(0, 12)[5]:
            stop.signum = signal.SIGINT
        return make_picture(seed, side)

    monkeypatch.setattr("curator.demo.data.make_picture", make_then_stop)
    with pytest.raises(StoppedError, match="finished images are kept"):
        make_data(tmp_path, asked, stop=stop)
    assert len(list((tmp_path / "truth").iterdir())) == 2  # the chunk in flight was finished
    made = []
    monkeypatch.setattr(
        "curator.demo.data.make_picture", lambda *a: made.append(a) or make_picture(*a)
    )
    make_data(tmp_path, asked, stop=StopRequest())
    assert [seed for seed, _ in made] == list(shard_seeds(0, 12))[8:]
    assert len(read_truth(tmp_path)) == 12


def test_processes_give_the_same_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks of 200 and 50 are one each in the other tests: no process is started for them."""
    chunks = chunks_of(4, 2)
    make = partial(_seeds_of_scenes, 77)
    monkeypatch.setattr("curator.demo.workers.os.cpu_count", lambda: 2)
    made = dict(make_chunks(make, chunks, stop=StopRequest()))
    assert made == {chunk: make(chunk) for chunk in chunks}


def _seeds_of_scenes(first: int, chunk: range) -> list[int]:
    return [make_picture(first + number, 32)[0].seed for number in chunk]


def test_no_two_uses_share_a_seed() -> None:
    ranges = [training_seeds(0, 10_000_000)]
    for world in (0, 1, 5, 2**32 - 1):
        ranges += [shard_seeds(world, 1_000_000), labelled_seeds(world, 1_000_000)]
    ranges.sort(key=lambda one: one.start)
    assert all(a.stop <= b.start for a, b in pairwise(ranges))
    assert ranges[-1].stop * ATTEMPTS < 2**63  # the truth holds scene seeds as int64
    assert shard_seeds(0, 3)[0] == HELD_OUT


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"images": 1_000_001}, "images must be 0 to 1,000,000, not 1,000,001"),
        ({"labelled": 1_000_001}, "labelled must be 0 to 1,000,000, not 1,000,001"),
        ({"seed": 2**32}, "seed must be 0 to 4,294,967,295"),
        ({"seed": -1}, "seed must be"),
        ({"side_px": 16}, "side_px must be 32 to 1,024, not 16"),
    ],
)
def test_sizes_out_of_range_are_refused(options: dict[str, int], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        replace(ASKED, **options)


@pytest.mark.parametrize(("first", "count"), [(0, 10_000_001), (9_999_999, 2), (-1, 5), (0, 0)])
def test_held_out_scenes_are_not_trained_on(first: int, count: int) -> None:
    with pytest.raises(UsageError, match="not for training"):
        training_seeds(first, count)


def test_the_command_names_the_limit(tmp_path: Path) -> None:
    said = curator("demo", "data", tmp_path / "w", "--labelled", "2000000")
    assert said.code == 2
    assert "labelled must be 0 to 1,000,000, not 2,000,000" in said.err
    assert not (tmp_path / "w").exists()


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    said = curator("demo", "data", tmp_path / "w", "--images", "3", "--labelled", "0", "--side", 32)
    assert said.code == 0, said.err
    assert "3 images in 1 shards" in said.out
    assert "next: curator recaption" in said.out


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("godo=1", "good"),
        ("good=0.5", "1"),
        ("good=x", "0 to 1"),
        ("good=2,spam=-1", "0 to 1"),
    ],
)
def test_rates_that_make_no_sense_are_refused(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rates(text)
    assert hint in f"{caught.value} {caught.value.hint}"


def test_rates_are_those_of_the_alt_texts() -> None:
    rng = np.random.default_rng(0)
    scene, other = sample_scene(1), sample_scene(2)
    rates = parse_rates("good=0.5, spam=0.5")
    kinds = [alt_text(scene, other, rates, rng).kind for _ in range(400)]
    assert 160 < kinds.count("good") < 240
    assert kinds.count("good") + kinds.count("spam") == 400
    assert sum(DEFAULT_RATES.values()) == pytest.approx(1)


def test_a_wrong_caption_is_not_a_true_one() -> None:
    from curator.demo.checker import check

    for seed in range(60):
        scene, rng = sample_scene(seed), np.random.default_rng(seed)
        for length in ("short", "detailed"):
            text = wrong(scene, rng, length)
            assert not check(text, scene).is_right, text


def test_auroc_by_hand() -> None:
    # of 2 x 3 pairs the good one wins 4, and ties once: 4.5 / 6
    assert auroc(np.array([0.3, 0.5]), np.array([0.1, 0.3, 0.4])) == pytest.approx(4.5 / 6)
