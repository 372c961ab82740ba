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
from curator.demo.alttext import NOISES
from curator.demo.checker import check
from curator.demo.data import DemoData, make_data, materials, other_scene
from curator.demo.evaluate import read_truth
from curator.demo.language import LENGTHS
from curator.demo.render import ATTEMPTS, CLASSES, RenderedImage, make_image
from curator.demo.scene import KINDS, MATERIALS, PLAIN, Material, Scene, sample_scene
from curator.demo.seeds import HELD_OUT, labelled_seeds, shard_seeds, training_seeds
from curator.demo.workers import chunks_of, make_chunks
from tests.kit.cli import curator

ASKED = DemoData(images=12, labelled=10, side_px=48, samples_per_shard=8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    make_data(out, ASKED, stop=StopRequest())
    return out


def test_every_image_has_its_truth(world: Path) -> None:
    truth = read_truth(world)
    images = pl.read_parquet(world / "images" / "*.parquet")
    assert len(truth) == len(images) == 12
    for key, digest, text in truth.select("key", "image_sha256", "alt_text").rows():
        assert hashlib.sha256(images["image"][int(key)]).hexdigest() == digest
        assert images["caption"][int(key)] == text
    assert set(truth["noise"]) <= set(NOISES)
    assert sorted(path.name for path in (world / "shards").glob("*.tar")) == [
        "00000.tar",
        "00001.tar",
    ]


@pytest.mark.parametrize("patterns", [False, True])
def test_the_scene_of_the_truth_is_the_one_that_is_shown(tmp_path: Path, patterns: bool) -> None:
    asked = replace(ASKED, images=6, labelled=0, side_px=32, patterns=patterns)
    make_data(tmp_path, asked, stop=StopRequest())
    truth = read_truth(tmp_path)
    assert truth["patterns"].to_list() == [patterns] * 6
    used = materials(patterns)
    assert used == (MATERIALS if patterns else PLAIN)
    for number, row in enumerate(truth.to_dicts()):
        scene = sample_scene(row["scene_seed"], used)
        made, image = make_image(shard_seeds(0, 6)[number], 32, used)
        assert scene == made
        assert hashlib.sha256(image.jpeg()).hexdigest() == row["image_sha256"]
        for length in LENGTHS:
            assert check(row[length], scene).is_right, row[length]


@pytest.mark.parametrize("seed", range(20))
def test_the_other_scene_shares_no_kind(seed: int) -> None:
    scene, _ = make_image(seed, 32)
    other = other_scene(scene, seed, PLAIN)
    assert not {one.kind for one in scene.things} & {one.kind for one in other.things}


def opened(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_splits_name_the_same_images_in_all_layouts(world: Path) -> None:
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
    for folder in ("depth/rgb", "depth/depth", "normals", "detection/images", "detection/masks"):
        assert sorted(p.stem for p in (world / folder).iterdir()) == sorted(chain(*splits.values()))


def test_labels_are_the_truth_of_the_scene(world: Path) -> None:
    seed = labelled_seeds(0, 10)[9]
    _, image = make_image(seed, 48)
    name = "000009"
    assert (opened(world / f"segmentation/test/labels/{name}.png") == image.classes).all()
    assert (opened(world / f"detection/masks/{name}.png") == image.instances).all()
    depth = opened(world / f"depth/depth/{name}.png")
    assert depth.dtype == np.uint16
    assert np.abs(depth / 1000 - image.depth).max() <= 0.0005 + 1e-6
    assert ((depth == 0) == (image.depth == 0)).all()
    normals = np.load(world / f"normals/{name}.npy")
    assert (normals.shape, normals.dtype) == ((48, 48, 3), np.float16)
    assert np.abs(normals - image.normals).max() <= 2**-11  # half the last place below 1
    assert ((depth == 0) == (normals == 0).all(-1)).all()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in decode
def test_coco_annotations_hold_the_masks(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(world / "detection" / "test.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(KINDS)
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
            kind = KINDS[annotation["category_id"] - 1]
            assert (classes[mask] == CLASSES.index(kind)).all()
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
def test_splits_have_their_shares_and_hold_every_image_once(count: int) -> None:
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

    def make_then_stop(
        seed: int, side: int, materials: tuple[Material, ...]
    ) -> tuple[Scene, RenderedImage]:
        if seed == shard_seeds(0, 12)[5]:
            stop.signum = signal.SIGINT
        return make_image(seed, side, materials)

    monkeypatch.setattr("curator.demo.data.make_image", make_then_stop)
    with pytest.raises(StoppedError, match="finished images are kept"):
        make_data(tmp_path, asked, stop=stop)
    assert len(list((tmp_path / "truth").iterdir())) == 2  # the chunk in flight was finished
    made = []
    monkeypatch.setattr("curator.demo.data.make_image", lambda *a: made.append(a) or make_image(*a))
    make_data(tmp_path, asked, stop=StopRequest())
    assert [seed for seed, *_ in made] == list(shard_seeds(0, 12))[8:]
    assert len(read_truth(tmp_path)) == 12


def test_processes_give_the_same_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks of 200 and 50 are one each in the other tests: no process is started for them."""
    chunks = chunks_of(4, 2)
    make = partial(_seeds_of_scenes, 77)
    monkeypatch.setattr("curator.demo.workers.os.cpu_count", lambda: 2)
    made = dict(make_chunks(make, chunks, stop=StopRequest()))
    assert made == {chunk: make(chunk) for chunk in chunks}


def _seeds_of_scenes(first: int, chunk: range) -> list[int]:
    return [make_image(first + number, 32)[0].seed for number in chunk]


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


def test_auroc_by_hand() -> None:
    # of 2 x 3 pairs the good one wins 4, and ties once: 4.5 / 6
    assert auroc(np.array([0.3, 0.5]), np.array([0.1, 0.3, 0.4])) == pytest.approx(4.5 / 6)
