"""`curator demo data`: shards, truth and dense labels that agree with each other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curator.demo.alttext import DEFAULT_RATES, KINDS, alt_text, parse_rates, wrong
from curator.demo.data import DemoData, make_data
from curator.demo.judge import _auroc, read_truth
from curator.demo.render import CLASSES
from curator.demo.scene import SHAPES, sample_scene
from curator.errors import UsageError
from curator.stopping import StopRequest
from tests.clikit import curator

ASKED = DemoData(images=12, labelled=10, side_px=48, samples_per_shard=8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    make_data(out, ASKED, stop=StopRequest())
    return out


def test_every_picture_has_its_truth(world: Path) -> None:
    truth = read_truth(world)
    assert len(truth) == 12
    for key, digest, text in truth.select("key", "image_sha256", "alt_text").rows():
        image = (world / "pictures" / f"{key}.jpg").read_bytes()
        assert hashlib.sha256(image).hexdigest() == digest
        assert (world / "pictures" / f"{key}.txt").read_text() == text
    assert set(truth["kind"]) <= set(KINDS)
    assert sorted(path.name for path in (world / "shards").glob("*.tar")) == [
        "00000.tar",
        "00001.tar",
    ]


def test_masks_depth_and_boxes_agree(world: Path) -> None:
    assert (world / "segmentation" / "classes.txt").read_text().split() == list(CLASSES)
    splits = {
        split: sorted(p.stem for p in (world / "segmentation" / split / "images").iterdir())
        for split in ("train", "val", "test")
    }
    assert [len(names) for names in splits.values()] == [6, 1, 3]
    assert (world / "depth" / "test.txt").read_text().split() == splits["test"]
    coco = json.loads((world / "detection" / "test.json").read_text())
    names = {image["id"]: image["file_name"][:-4] for image in coco["images"]}
    assert sorted(names.values()) == splits["test"]
    for annotation in coco["annotations"]:
        name = names[annotation["image_id"]]
        labels = np.array(Image.open(world / "segmentation" / "test" / "labels" / f"{name}.png"))
        depth = np.array(Image.open(world / "depth" / "depth" / f"{name}.png"))
        x, y, width, height = annotation["bbox"]
        shape = SHAPES[annotation["category_id"] - 1]
        inside = labels[y : y + height, x : x + width] == CLASSES.index(shape)
        assert inside.sum() >= annotation["area"]
        assert (depth[labels == 0] == 0).all()
        assert 1000 < depth[y : y + height, x : x + width][inside].min() < 12_000


def test_a_second_call_makes_nothing_again(world: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*.*")}
    before = {path: time for path, time in before.items() if path.suffix != ".json"}
    report = make_data(world, ASKED, stop=StopRequest())
    assert report.num_new_shards == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_options_for_the_same_folder_are_refused(world: Path) -> None:
    with pytest.raises(UsageError, match="other options"):
        make_data(world, replace(ASKED, images=300), stop=StopRequest())


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    said = curator("demo", "data", tmp_path / "w", "--images", "3", "--labelled", "0", "--side", 32)
    assert said.code == 0, said.err
    assert "3 pictures in 1 shards" in said.out
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
    assert _auroc(np.array([0.3, 0.5]), np.array([0.1, 0.3, 0.4])) == pytest.approx(4.5 / 6)
