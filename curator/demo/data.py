"""Write the rendered world to disk: shards with noisy alt text, and their ground truth.

    OUT/shards/00000.tar ...     the input of `curator recaption`
    OUT/curator.toml             the bundled models as options of `recaption`
    OUT/truth/00000.parquet      key, scene_seed, materials, noise of the alt text, true captions
    OUT/images/00000.parquet     the images that the shards are packed from
    OUT/{segmentation,depth,normals,detection}/    see `curator.demo.dense`

An image is a function of its seed. A chunk of images whose truth file exists is not made again, so
a second call continues where the first was stopped.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from curator.core import progress
from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from curator.demo.alttext import DEFAULT_RATES, alt_text
from curator.demo.bundled import bundled_model
from curator.demo.dense import make_dense
from curator.demo.language import LENGTHS, caption
from curator.demo.render import ATTEMPTS, make_image
from curator.demo.scene import MATERIALS, PLAIN, Material, Scene, sample_scene
from curator.demo.seeds import labelled_seeds, shard_seeds
from curator.demo.workers import Chunk, chunks_of, make_chunks
from curator.pack.report import PackReport
from curator.pack.shards import PackOptions, pack
from curator.store import fsops, parquet

TRUTH_SCHEMA = pa.schema(
    [
        ("key", pa.large_string()),  # the number of the image; shards have their own keys
        ("image_sha256", pa.large_string()),
        ("scene_seed", pa.int64()),  # the argument of `sample_scene`
        ("patterns", pa.bool_()),  # whether its materials are `MATERIALS`, or `PLAIN`
        ("noise", pa.large_string()),  # one of alttext.NOISES
        ("alt_text", pa.large_string()),
        *((length, pa.large_string()) for length in LENGTHS),
    ]
)
_IMAGES_SCHEMA = pa.schema([("image", pa.large_binary()), ("caption", pa.large_string())])
_CHUNK = 200
_KEPT = "finished images are kept"
_SIDES_PX = (32, 1024)
_FORMAT = 3
"""Increased when the same options would give other files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoData:
    """What to make: `images` in shards, and `labelled` images for each dense task.

    With `patterns`, some things are striped or dotted.
    """

    images: int = 3000
    labelled: int = 400
    side_px: int = 128
    seed: int = 0
    patterns: bool = False
    rates: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_RATES))
    samples_per_shard: int = 1000

    def __post_init__(self) -> None:
        shard_seeds(self.seed, self.images)
        labelled_seeds(self.seed, self.labelled)
        if not _SIDES_PX[0] <= self.side_px <= _SIDES_PX[1]:
            raise UsageError(
                f"side_px must be {_SIDES_PX[0]} to {_SIDES_PX[1]:,}, not {self.side_px:,}",
                reason="option.value",
            )


def materials(patterns: bool) -> tuple[Material, ...]:
    """Return the materials of a world with or without patterns, for `sample_scene`."""
    return MATERIALS if patterns else PLAIN


def make_data(out: Path, asked: DemoData, *, stop: StopRequest) -> PackReport:
    """Write the whole folder; see the module.

    Raises:
        UsageError: `out` contains a world made with other options.
        StoppedError: a signal was received; finished chunks stay.
    """
    _check_same_world(out, asked)
    chunks = chunks_of(asked.images, _CHUNK)
    todo = [chunk for chunk in chunks if not _path(out, "truth", chunk).exists()]
    with progress.bar("render images", asked.images, "images") as advance:
        advance(asked.images - sum(map(len, todo)))
        for chunk, _ in make_chunks(partial(_make_chunk, out, asked), todo, stop=stop):
            advance(len(chunk))
        stop.check(_KEPT)
    if asked.labelled:
        make_dense(
            out,
            labelled_seeds(asked.seed, asked.labelled),
            asked.side_px,
            materials(asked.patterns),
            stop=stop,
        )
    if not (out / "curator.toml").exists():  # keep the user's changes
        fsops.write_atomic(out / "curator.toml", _settings().encode())
    options = PackOptions(format="parquet", samples_per_shard=asked.samples_per_shard)
    with progress.bar("pack shards", asked.images, "images") as advance:

        def on_progress(count: int) -> None:
            advance(count)
            stop.check("shards that are finished stay")

        return pack(out / "images", out / "shards", options=options, on_progress=on_progress)


def _check_same_world(out: Path, asked: DemoData) -> None:
    """Refuse other options: images are made only once, so these would be silently ignored."""
    path = out / "demo.json"
    options = json.dumps({"format": _FORMAT, **asdict(asked)}, indent=1)
    if not path.exists():
        fsops.write_atomic(path, options.encode())
    elif path.read_text() != options:
        raise UsageError(
            "the folder holds a demo with other options",
            where=path,
            hint="type the options that are in this file, or give a new folder",
            reason="option.value",
        )


def _settings() -> str:
    """Return options for running the engine offline; TOML quotes strings as JSON does."""
    scorer, captioner = (
        json.dumps(str(folder)) for folder in (bundled_model("scorer"), bundled_model("captioner"))
    )
    return (
        f"[defaults]\nscorer = {scorer}\n\n"
        f'[recaption]\nmodel = {captioner}\nprompt = "kinds"\npolicy = "best"\n'
    )


def _path(out: Path, what: str, chunk: Chunk) -> Path:
    return out / what / f"{chunk.start // _CHUNK:05d}.parquet"


def _make_chunk(out: Path, asked: DemoData, chunk: Chunk) -> None:
    """Write images and alt texts of a chunk, then its truth, which marks the chunk as complete."""
    images: list[dict[str, object]] = []
    truth: list[dict[str, object]] = []
    seeds = shard_seeds(asked.seed, asked.images)
    used = materials(asked.patterns)
    for number in chunk:
        seed = seeds[number]
        scene, rendered = make_image(seed, asked.side_px, used)
        rng = np.random.default_rng(seed)
        alt = alt_text(scene, other_scene(scene, seed, used), asked.rates, rng)
        image = rendered.jpeg()
        images.append({"image": image, "caption": alt.text})
        truth.append(
            {
                "key": f"{number:07d}",
                "image_sha256": hashlib.sha256(image).hexdigest(),
                "scene_seed": scene.seed,
                "patterns": asked.patterns,
                "noise": alt.noise,
                "alt_text": alt.text,
                **{length: caption(scene, length, rng) for length in LENGTHS},
            }
        )
    for what, rows, schema in (
        ("images", images, _IMAGES_SCHEMA),
        ("truth", truth, TRUTH_SCHEMA),
    ):
        table = parquet.to_table(parquet.from_rows(rows, schema), schema)
        parquet.write(_path(out, what, chunk), table)


def other_scene(scene: Scene, seed: int, materials: tuple[Material, ...]) -> Scene:
    """Return a scene with none of this scene's kinds, from the scene seeds of the same image."""
    mine = {thing.kind for thing in scene.things}
    for number in range(ATTEMPTS // 2, ATTEMPTS):
        other = sample_scene(seed * ATTEMPTS + number, materials)
        if mine.isdisjoint(thing.kind for thing in other.things):
            return other
    raise AssertionError("every scene shares a kind with this one")
