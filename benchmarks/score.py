"""Scoring throughput: the engine, a plain open_clip script, and the model alone.

    python -m benchmarks.score --data PHOTOS --model CLIP_FOLDER
    python -m benchmarks.score --data PHOTOS --model random:ViT-B-32 --shards 1

All five arms do the same pairs in batches of the same size with torch's own number of threads,
each in a fresh process, taking turns:

    engine         `curator score`: worker process, decoding ahead, sha256 of every image, one
                   fsync a batch, facts (benchmarks/score_engine.py)
    plain          webdataset, Pillow, open_clip, nothing kept (score_plain.py)
    floor          both towers on tensors that lie ready in memory (score_floor.py), run as the
                   plain script does
    floor, tuned   the same, run as the engine does: memory is kept, channels come last
    decode + towers
                   the tuned towers behind the engine's own decoding, in as many threads: what any
                   engine has to do, nothing hashed or stored (score_least.py)

What the engine takes beyond `decode + towers` is its own overhead. The time of a sample is that
between the end of the first and of the last batch, journaled; the start (imports, loading the
model, first batch) stands apart. CPU time counts all processes.
Target: engine at most 5 % over plain.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

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

_SHARED = REPOSITORY.parent / "shared"
_ARMS = ("engine", "plain", "floor", "floor, tuned", "decode + towers")
_SAME_WITHIN = 1e-3


def main() -> None:
    """Run all arms and print the table."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=_SHARED / "data" / "photos")
    options.add_argument(
        "--model",
        default=str(_SHARED / "models" / "photo-clip"),
        help="folder of an open_clip model, or random:NAME",
    )
    options.add_argument("--shards", type=int, help="only the first so many")
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--device", help="default: a GPU if there is one")
    options.add_argument("--dtype", help="fp32, bf16 or fp16; default: by device")
    args = options.parse_args()
    with scratch() as folder:
        data = folder / "data"
        if args.quick:
            args.model, args.data = "random:tiny", data
            write_shards(data, num_shards=2, num_samples=64, side_px=64)
        elif not list(args.data.glob("*.tar")):
            print(f"skipped: no shards in {args.data}; name some with --data")
            return
        else:
            data.mkdir()
            for tar in sorted(args.data.glob("*.tar"))[: args.shards]:
                (data / tar.name).symlink_to(tar.resolve())
        model = Path(args.model)
        if args.model.startswith("random:"):
            model = folder / "model"
            run("-m", "benchmarks.random_clip", args.model.removeprefix("random:"), model)
        elif not model.is_dir():
            print(f"skipped: no model in {model}; name one with --model, or random:ViT-B-32")
            return
        found = _measure(folder, data, model, args)
    _report(found, args)


def _measure(
    folder: Path, data: Path, model: Path, args: argparse.Namespace
) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in _ARMS}
    common = [data, model.resolve(), "--batch-size", args.batch_size]
    for option in ("device", "dtype"):
        if value := getattr(args, option):
            common += [f"--{option}", value]

    def arm(name: str, command: Callable[[], tuple[object, ...]]) -> float:
        ended = run("-m", *command())
        lap: dict[str, float] = {**ended.last_json(), "peak_bytes": ended.peak_bytes}
        found[name].append(lap)
        return lap["wall_ms"]

    def engine() -> tuple[object, ...]:
        store = folder / f"store{len(found['engine'])}"
        return ("benchmarks.score_engine", *common, "--store", store)

    take_turns(
        {
            "engine": partial(arm, "engine", engine),
            "plain": partial(arm, "plain", lambda: ("benchmarks.score_plain", *common)),
            "floor": partial(
                arm, "floor", lambda: ("benchmarks.score_floor", *common, "--as", "plain")
            ),
            "floor, tuned": partial(
                arm, "floor, tuned", lambda: ("benchmarks.score_floor", *common, "--as", "engine")
            ),
            "decode + towers": partial(
                arm, "decode + towers", lambda: ("benchmarks.score_least", *common)
            ),
        },
        rounds(args),
    )
    for ours, theirs in zip(found["engine"], found["plain"], strict=True):
        num_pairs = ours["num_samples"] + args.batch_size
        difference = abs(ours["total"] - theirs["total"]) / num_pairs
        assert difference < _SAME_WITHIN, f"scores differ by {difference} in the mean"
    return found


def _report(found: dict[str, list[dict[str, float]]], args: argparse.Namespace) -> None:
    wall = {name: [lap["wall_ms"] for lap in laps] for name, laps in found.items()}
    cpu = {name: [lap["cpu_ms"] for lap in laps] for name, laps in found.items()}
    columns = ["arm", "ms a sample", "samples/s", "to plain", "to floor, tuned",
               "to decode + towers", "CPU ms", "CPU to plain", "CPU to decode + towers", "start s",
               "peak MB"]  # fmt: skip
    rows = []
    for name in _ARMS:
        rows.append(
            [
                name,
                spread(wall[name], 2),
                f"{1000 / statistics.median(wall[name]):.0f}",
                f"{ratio(wall[name], wall['plain']):.2f}",
                f"{ratio(wall[name], wall['floor, tuned']):.2f}",
                f"{ratio(wall[name], wall['decode + towers']):.2f}",
                spread(cpu[name], 2),
                f"{ratio(cpu[name], cpu['plain']):.2f}",
                f"{ratio(cpu[name], cpu['decode + towers']):.2f}",
                f"{statistics.median(lap['start_sec'] for lap in found[name]):.1f}",
                f"{statistics.median(lap['peak_bytes'] for lap in found[name]) / 1e6:.0f}",
            ]
        )
    show(columns, rows, args=args, details=found)


if __name__ == "__main__":
    main()
