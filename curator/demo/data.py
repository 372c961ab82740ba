"""The rendered world on disk: shards with noisy alt text, their truth, and dense labels.

    OUT/shards/00000.tar ...                       what `curator recaption` gets to see
    OUT/curator.toml                               the bundled models as options of `recaption`
    OUT/truth/00000.parquet                        key, scene_seed, kind of noise, true captions
    OUT/segmentation/{train,val,test}/{images,labels}/NAME.{jpg,png}, classes.txt   CamVid's layout
    OUT/depth/{rgb,depth}/NAME.{jpg,png}, train.txt, test.txt      16-bit PNG, millimetres, 0 = none
    OUT/detection/images/NAME.jpg, {train,val,test}.json           COCO instances

A picture is a function of its seed, and a file that is there is not made again, so a second call
goes on where the first one was stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curator import fsops, progress, tables
from curator.demo.alttext import DEFAULT_RATES, alt_text
from curator.demo.bundled import bundled_model
from curator.demo.language import LENGTHS, caption
from curator.demo.render import CLASSES, Picture, make_picture
from curator.demo.scene import SHAPES, Scene, sample_scene
from curator.errors import UsageError
from curator.pack.shards import PackOptions, PackReport, pack
from curator.stopping import StopRequest

HELD_OUT = 10_000_000
"""Seed of the first picture of a demo: no picture from here on is used for training."""

TRUTH_SCHEMA = pa.schema(
    [
        ("key", pa.large_string()),  # of the picture's file; shards count their own
        ("image_sha256", pa.large_string()),
        ("scene_seed", pa.int64()),  # `sample_scene` makes the scene from it
        ("kind", pa.large_string()),  # one of alttext.KINDS
        ("alt_text", pa.large_string()),
        *((length, pa.large_string()) for length in LENGTHS),
    ]
)
_CHUNK = 200
_KEPT = "pictures that are finished stay; run the same command again"
_DENSE_OFFSET = 5_000_000
_SPLITS = {"train": 0.6, "val": 0.1, "test": 0.3}
_JPEG = {"quality": 92, "subsampling": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoData:
    """What to make: `images` for shards, `labelled` ones for each dense task."""

    images: int = 3000
    labelled: int = 400
    side_px: int = 128
    seed: int = 0
    rates: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_RATES))
    samples_per_shard: int = 1000


def make_data(out: Path, asked: DemoData, *, stop: StopRequest) -> PackReport:
    """Write the whole folder; see the module.

    Raises:
        UsageError: `out` holds a world that was made with other options.
    """
    _check_same_world(out, asked)
    chunks = [
        (first, min(_CHUNK, asked.images - first)) for first in range(0, asked.images, _CHUNK)
    ]
    todo = [chunk for chunk in chunks if not _truth_path(out, chunk[0]).exists()]
    with (
        ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=_leave_signals) as pool,
        progress.bar("render pictures", asked.images, "pictures") as advance,
    ):
        advance(asked.images - sum(count for _, count in todo))
        made = pool.map(partial(_make_chunk, out, asked), todo)
        try:
            for (_, count), _done in zip(todo, made, strict=True):
                advance(count)
                stop.check(_KEPT)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if asked.labelled and not (out / "detection" / "test.json").exists():
        _make_dense(out, asked, stop)
    if not (out / "curator.toml").exists():  # it may have been changed since
        fsops.write_atomic(out / "curator.toml", _settings().encode())
    options = PackOptions(format="folder", samples_per_shard=asked.samples_per_shard)
    with progress.bar("pack shards", asked.images, "pictures") as advance:
        return pack(out / "pictures", out / "shards", options=options, on_progress=advance)


def _check_same_world(out: Path, asked: DemoData) -> None:
    """Pictures are made once, so other options would be passed over in silence."""
    path, options = out / "demo.json", json.dumps(asdict(asked), indent=1)
    if not path.exists():
        fsops.write_atomic(path, options.encode())
    elif path.read_text() != options:
        raise UsageError(
            "the folder holds a demo with other options",
            where=path,
            hint="type the options that are in this file, or give a new folder",
            reason="option.value",
        )


def _leave_signals() -> None:
    """Ctrl-C is for the parent: it stops between chunks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _settings() -> str:
    """Options for the engine to run offline; TOML quotes strings as JSON does."""
    scorer, captioner = (
        json.dumps(str(folder)) for folder in (bundled_model("scorer"), bundled_model("captioner"))
    )
    return (
        f"[defaults]\nscorer = {scorer}\n\n"
        f'[recaption]\nmodel = {captioner}\nprompt = "detailed"\npolicy = "best"\n'
    )


def _truth_path(out: Path, first: int) -> Path:
    return out / "truth" / f"{first // _CHUNK:05d}.parquet"


def _make_chunk(out: Path, asked: DemoData, chunk: tuple[int, int]) -> None:
    """Pictures and alt texts of a chunk, then its truth, which says that the chunk is whole."""
    first, count = chunk
    rows = []
    for number in range(first, first + count):
        seed = HELD_OUT + asked.seed * 1_000_000 + number
        scene, picture = make_picture(seed, asked.side_px)
        rng = np.random.default_rng(seed)
        text = alt_text(scene, _other_scene(scene, seed), asked.rates, rng)
        key = f"{number:07d}"
        image = _jpeg(picture.rgb)
        fsops.write_atomic(out / "pictures" / f"{key}.jpg", image)
        fsops.write_atomic(out / "pictures" / f"{key}.txt", text.text.encode())
        told = {length: caption(scene, length, rng) for length in LENGTHS}
        about: dict[str, object] = {"key": key, "image_sha256": hashlib.sha256(image).hexdigest()}
        about |= {"scene_seed": scene.seed, "kind": text.kind, "alt_text": text.text}
        rows.append(about | told)
    frame = tables.from_rows(rows, TRUTH_SCHEMA)
    tables.write(_truth_path(out, first), tables.to_table(frame, TRUTH_SCHEMA))


def _other_scene(scene: Scene, seed: int) -> Scene:
    """Another scene that holds none of the solids of this one."""
    mine = {(solid.shape, solid.color) for solid in scene.solids}
    for number in range(1, 1000):
        other = sample_scene(seed * 1000 + 500 + number)
        if mine.isdisjoint((solid.shape, solid.color) for solid in other.solids):
            return other
    raise AssertionError("every scene shares a solid with this one")


def _jpeg(rgb: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", **_JPEG)
    return out.getvalue()


def _png(values: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


# -- dense labels ----------------------------------------------------------------------------------


def _make_dense(out: Path, asked: DemoData, stop: StopRequest) -> None:
    names: dict[str, list[str]] = {split: [] for split in _SPLITS}
    found: dict[str, list[tuple[str, Scene, Picture]]] = {split: [] for split in _SPLITS}
    with progress.bar("render labelled pictures", asked.labelled, "pictures") as advance:
        for number in range(asked.labelled):
            split = _split_of(number, asked.labelled)
            seed = HELD_OUT + _DENSE_OFFSET + asked.seed * 1_000_000 + number
            scene, picture = make_picture(seed, asked.side_px)
            name = f"{number:06d}"
            _write_labels(out, split, name, picture)
            names[split].append(name)
            found[split].append((name, scene, picture))
            advance(1)
            stop.check(_KEPT)
    fsops.write_atomic(out / "segmentation" / "classes.txt", ("\n".join(CLASSES) + "\n").encode())
    for split in ("train", "test"):
        listed = names[split] + (names["val"] if split == "train" else [])
        fsops.write_atomic(out / "depth" / f"{split}.txt", ("\n".join(listed) + "\n").encode())
    for split, rows in found.items():
        fsops.write_atomic(out / "detection" / f"{split}.json", _coco(rows, asked.side_px))


def _split_of(number: int, total: int) -> str:
    share = number / total
    if share < _SPLITS["train"]:
        return "train"
    return "val" if share < _SPLITS["train"] + _SPLITS["val"] else "test"


def _write_labels(out: Path, split: str, name: str, picture: Picture) -> None:
    rgb = _jpeg(picture.rgb)
    millimetres = np.round(picture.depth * 1000).astype(np.uint16)
    for path, data in {
        f"segmentation/{split}/images/{name}.jpg": rgb,
        f"segmentation/{split}/labels/{name}.png": _png(picture.classes),
        f"depth/rgb/{name}.jpg": rgb,
        f"depth/depth/{name}.png": _png(millimetres),
        f"detection/images/{name}.jpg": rgb,
        f"detection/masks/{name}.png": _png(picture.instances),
    }.items():
        fsops.write_atomic(out / path, data)


def _coco(rows: Sequence[tuple[str, Scene, Picture]], side_px: int) -> bytes:
    """COCO's instances format; boxes are x, y, width, height in pixels."""
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number, (name, scene, picture) in enumerate(rows):
        images.append(
            {"id": number, "file_name": f"{name}.jpg", "width": side_px, "height": side_px}
        )
        for place, (solid, box) in enumerate(
            zip(scene.solids, picture.boxes.tolist(), strict=True)
        ):
            x0, y0, x1, y1 = box
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": SHAPES.index(solid.shape) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int((picture.instances == place + 1).sum()),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number + 1, "name": shape} for number, shape in enumerate(SHAPES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(content).encode()
