"""Samples a second into pretraining: the pipeline, open_clip_train, a plain script, a floor.

    python -m benchmarks.pretrain_data --data PHOTOS --side-px 500 --image-px 224
    python -m benchmarks.pretrain_data --data PHOTOS --side-px 128 --image-px 64 --workers 2

All arms (benchmarks/pretrain_data_arms.py, pretrain_data_reference.py) draw batches of the same
size from the same pictures with the same number of workers, each in a fresh process, taking turns.
The pictures are those of --data, encoded again with --side-px pixels on the long side, in shards of
a version with two captions a sample, and exported. Timed are the batches behind the first ones; the
start (workers, shuffle buffers, the first read of exported shards, whose tables stay in memory for
later epochs) stands apart. CPU time counts all processes.
Target: the pipeline at most as long as open_clip_train's loader.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.common import (
    REPOSITORY,
    parser,
    ratio,
    rounds,
    run,
    scratch,
    show,
    spread,
    take_turns,
    write_shards,
)
from curator.core import hashing
from curator.core.hashing import digest
from curator.core.run_options import RunOptions
from curator.core.stopping import StopRequest
from curator.export.version import export
from curator.policy.model import parse_policy
from curator.shards.dataset import discover
from curator.shards.places import read_bytes
from curator.shards.scan import ScanOptions, scan_shard
from curator.shards.tar import END_OF_ARCHIVE, member_bytes
from curator.steps.decide import MakerChoice, decide
from curator.steps.index import make_index
from curator.steps.workspace import Workspace, open_workspace
from curator.store import index
from curator.store.facts import CAPTIONS, Facts

_ARMS = ("version", "export", "open_clip", "webdataset", "floor")
_REFERENCES = ("open_clip", "webdataset")
_RECIPE = {"captioner": "echo"}
_GENERATOR = f"echo-short-{digest(_RECIPE)[:8]}"
_POLICY = 'name = "mix"\nsources = ["alt_text", "generated"]\npick = "all"\n'


def main() -> None:
    """Run all arms and print the table."""
    options = parser(__doc__)
    shared = REPOSITORY.parent / "shared" / "data" / "photos"
    options.add_argument("--data", type=Path, default=shared, help="folder of shards")
    options.add_argument("--side-px", type=int, default=500, help="pictures, long side")
    options.add_argument("--image-px", type=int, default=224, help="what is trained on")
    options.add_argument("--samples", type=int, default=4000)
    options.add_argument("--shards", type=int, default=8)
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--batches", type=int, default=40, help="timed ones")
    options.add_argument("--workers", type=int, default=2)
    args = options.parse_args()
    with scratch() as folder:
        if args.quick:
            args.data, args.side_px, args.image_px = folder / "pictures", 64, 32
            args.samples, args.batch_size, args.batches, args.workers = 64, 4, 4, 1
            write_shards(args.data, num_shards=1, num_samples=32, side_px=64)
        elif not list(args.data.glob("*.tar")):
            print(f"skipped: no shards in {args.data}; name some with --data")
            return
        _report(_measure(folder, args), args)


def _measure(folder: Path, args: Any) -> dict[str, list[dict[str, float]]]:
    workspace = _write_version(folder / "shards", args)
    exported = folder / "export"
    export(workspace.store, workspace.shards, workspace.version(), exported, to="wds")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in _ARMS}
    names = ("workers", "batch_size", "image_px", "batches")
    same = [part for name in names for part in (f"--{name.replace('_', '-')}", vars(args)[name])]

    def arm(name: str) -> float:
        source = f"{folder}/shards@v1" if name == "version" else exported
        module = "reference" if name in _REFERENCES else "arms"
        ended = run("-m", f"benchmarks.pretrain_data_{module}", name, source, *same)
        lap: dict[str, float] = {**ended.last_json(), "peak_bytes": ended.peak_bytes}
        found[name].append(lap)
        return lap["wall_ms"]

    take_turns({name: partial(arm, name) for name in _ARMS}, rounds(args))
    return found


def _write_version(folder: Path, args: Any) -> Workspace:
    """Shards of the pictures, in the size asked for, and a version with two texts a sample."""
    folder.mkdir()
    pictures = list(_pictures(args.data, args.side_px))
    each = args.samples // args.shards
    for first in range(0, each * args.shards, each):
        parts = []
        for number in range(first, first + each):
            key, image = f"{number:09d}", _numbered(pictures[number % len(pictures)], number)
            text = f"a picture of something, number {number}"
            parts += [member_bytes(f"{key}.jpg", image), member_bytes(f"{key}.txt", text.encode())]
        (folder / f"{first // each:05d}.tar").write_bytes(b"".join([*parts, END_OF_ARCHIVE]))
    workspace = open_workspace(str(folder), None, create=True)
    make_index(workspace, ScanOptions(), stop=StopRequest())
    workspace.store.write_recipe(CAPTIONS, _GENERATOR, _RECIPE)
    for shard in workspace.shards:
        writer = Facts(workspace.store, CAPTIONS, _GENERATOR).writer(shard.name)
        rows = index.read(workspace.store, shard.name, ["image_sha256", "key"]).rows()
        writer.add(
            [_fact(sha256, f"a longer caption of {key}, two clauses") for sha256, key in rows]
        )
        writer.finish()
    policy = parse_policy(_POLICY, where="benchmark")
    decide(workspace, policy, MakerChoice(), RunOptions(max_quarantine=1.0), stop=StopRequest())
    return workspace


def _pictures(folder: Path, side_px: int) -> Iterator[bytes]:
    for ref in discover(str(folder)).shards:
        for sample in scan_shard(ref, options=ScanOptions()).samples:
            if sample.image is None or sample.reason is not None:
                continue
            data = read_bytes(ref.path, sample.image.offset, sample.image.length)
            image = Image.open(io.BytesIO(data)).convert("RGB")
            scale = side_px / max(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            out = io.BytesIO()
            image.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
            yield out.getvalue()


def _numbered(jpeg: bytes, number: int) -> bytes:
    """The picture with its number in a comment segment, so that no two are the same bytes."""
    return jpeg[:2] + b"\xff\xfe\x00\x0e" + b"%012d" % number + jpeg[2:]


def _fact(sha256: str, text: str) -> dict[str, object]:
    return {
        "image_sha256": sha256,
        "candidate": 0,
        "text": text,
        "text_sha256": hashing.text_sha256(text),
        "finish_reason": "stop",
        "num_tokens": 8,
        "seed": 0,
        "failure": None,
        "detail": None,
        "attempt": 0,
        "created": 0.0,
    }


def _report(found: dict[str, list[dict[str, float]]], args: Any) -> None:
    wall = {name: [lap["wall_ms"] for lap in laps] for name, laps in found.items()}
    cpu = {name: [lap["cpu_ms"] for lap in laps] for name, laps in found.items()}
    columns = ["arm", "ms a sample", "samples/s", "to open_clip", "to floor", "CPU ms",
               "CPU to open_clip", "CPU to floor", "start s", "peak MB"]  # fmt: skip
    rows = [
        [
            name,
            spread(wall[name], 2),
            f"{1000 / statistics.median(wall[name]):.0f}",
            f"{ratio(wall[name], wall['open_clip']):.2f}",
            f"{ratio(wall[name], wall['floor']):.2f}",
            spread(cpu[name], 2),
            f"{ratio(cpu[name], cpu['open_clip']):.2f}",
            f"{ratio(cpu[name], cpu['floor']):.2f}",
            f"{statistics.median(lap['start_sec'] for lap in found[name]):.1f}",
            f"{statistics.median(lap['peak_bytes'] for lap in found[name]) / 1e6:.0f}",
        ]
        for name in _ARMS
    ]
    show(columns, rows, args=args, details=found)


if __name__ == "__main__":
    main()
