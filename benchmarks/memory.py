"""Peak memory of `recaption` and `score` over a small and a ten times larger dataset.

    python -m benchmarks.memory

Shards of 1,000 small pictures (64 px), so that only the number of shards differs.

    recaption   `curator recaption --captioner echo --policy replace`: index, text checks,
                captions, decision; all in one process
    score       `curator score` with an open_clip model of random weights (`random:NAME`, by
                default tiny): the worker with the model beside the parent

Peak is the largest sum of the resident memory of all processes, looked at every 50 ms.
Target: at most 1.05 times as much for ten times the samples.
"""

from __future__ import annotations

import shutil
import statistics
from functools import partial
from pathlib import Path

from benchmarks.common import (
    MB,
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

_TARGET = 1.05


def main() -> None:
    """Make both datasets, run both verbs over both, print the table."""
    options = parser(__doc__)
    options.add_argument("--sizes", type=int, nargs=2, default=(2_000, 20_000))
    options.add_argument("--samples", type=int, default=1_000, help="a shard")
    options.add_argument("--model", default="random:tiny", help="folder, or random:NAME")
    options.set_defaults(repeats=3)
    args = options.parse_args()
    if args.quick:
        args.sizes, args.samples, args.repeats = (100, 200), 100, 1
    seconds: dict[str, list[float]] = {}
    with scratch() as folder:
        for size in args.sizes:
            write_shards(
                folder / str(size),
                num_shards=size // args.samples,
                num_samples=args.samples,
                side_px=64,
            )
        model = Path(args.model)
        if args.model.startswith("random:"):
            model = folder / "model"
            run("-m", "benchmarks.random_clip", args.model.removeprefix("random:"), model)

        def peak(verb: str, size: int) -> float:
            store = folder / "store"
            extra = ("--scorer", model)
            if verb == "recaption":
                extra = ("--captioner", "echo", "--policy", "replace")
            else:
                run("-m", "curator", "index", folder / str(size), "--store", store)
            ended = run("-m", "curator", verb, folder / str(size), "--store", store, *extra)
            shutil.rmtree(store)
            seconds.setdefault(f"{verb} {size}", []).append(ended.seconds)
            return ended.peak_bytes / MB

        ways = {
            f"{verb} {size}": partial(peak, verb, size)
            for verb in ("recaption", "score")
            for size in args.sizes
        }
        peaks = take_turns(ways, rounds(args))
    rows = []
    for verb in ("recaption", "score"):
        small, large = (f"{verb} {size}" for size in args.sizes)
        grown = ratio(peaks[large], peaks[small])
        rows.append(
            [
                verb,
                spread(peaks[small], 0),
                spread(peaks[large], 0),
                f"{grown:.3f}",
                "met" if grown <= _TARGET else "missed",
                f"{statistics.median(seconds[large]):.0f}",
            ]
        )
    small, large = (f"MB at {size:,}" for size in args.sizes)
    columns = ["verb", small, large, "ratio", f"target {_TARGET}", f"seconds at {args.sizes[1]:,}"]
    show(columns, rows, args=args, details={"peak_mb": peaks, "seconds": seconds})


if __name__ == "__main__":
    main()
