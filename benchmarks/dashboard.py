"""`curator ui` over a million samples: seconds until pages are there, and what memory does.

    python -m benchmarks.dashboard
    python -m benchmarks.dashboard --store FOLDER     # made there once, found there the next time

The store is that of `benchmarks.decide` (100 shards of 10,000 samples, one generator, one scorer,
one checker), its samples pointing at 200 pictures of 640 x 480 in each shard, with two versions.

Measured are the pages as the server makes them, in a process of its own: a run of the page's script
through Streamlit's AppTest, from the click to the last element, pictures included. What the browser
adds is in `benchmarks.dashboard_browser`. `first page` begins with nothing read; the modules are
loaded, as they are in a server that has just started. `overview` is all but the health of the data,
which is read in the background (`health on it`). Memory is that of the process after each step;
`memory after` looks at what 200 further pages in every order left behind.

Targets: first page under 2 s, a filter under 0.5 s, a page of 50 pictures under 1 s, and no more
than 10 % more memory after the 200 pages than after the first 50.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks.common import MB, parser, rounds, run, scratch, show, spread
from benchmarks.decide import make_store
from curator.core.run_options import RunOptions
from curator.core.stopping import StopRequest
from curator.policy.model import load_policy
from curator.steps.decide import MakerChoice, decide

_INSPECT = Path(__file__).resolve().parents[1] / "ui" / "views" / "inspect" / "page.py"
_OVERVIEW = _INSPECT.parents[1] / "overview" / "page.py"
_TARGETS_SEC = {
    "first page": 2.0,
    "overview": 2.0,
    "health on it": 10.0,
    "filter by score": 0.5,
    "filter by text": 0.5,
    "filter by source": 0.5,
    "filter by flag": 0.5,
    "filter by change": 0.5,
    "next page": 1.0,
    "next page by score": 1.0,
    "next page by gain": 1.0,
    "one sample": 1.0,
}
_MAX_GROWTH = 1.1


def main() -> None:
    """Make the store, look at it in processes of their own, print the table."""
    args = arguments(__doc__)
    found: dict[str, list[float]] = {name: [] for name in _TARGETS_SEC}
    cpu: dict[str, list[float]] = {name: [] for name in _TARGETS_SEC}
    memory: list[list[float]] = []
    num_pages = 20 if args.quick else 250
    with made_store(args) as folder:
        for _ in range(rounds(args)):
            looked = run("-m", "benchmarks.dashboard", "--look", folder, num_pages).last_json()
            for name, (seconds, cpu_seconds) in looked["steps"].items():
                found[name].append(seconds)
                cpu[name].append(cpu_seconds)
            memory.append(looked["memory"])
    rows = [
        [
            name,
            spread(found[name], 2),
            spread(cpu[name], 2),
            f"{target}",
            _verdict(found[name], target),
        ]
        for name, target in _TARGETS_SEC.items()
    ]
    growth = statistics.median(end / start for start, end in memory)
    after = f"{statistics.median(end for _, end in memory):,.0f} MB"
    verdict = "met" if growth <= _MAX_GROWTH else "missed"
    rows.append(["memory after", f"{after}, x {growth:.2f}", "", f"x {_MAX_GROWTH}", verdict])
    details = {"seconds": found, "cpu_seconds": cpu, "memory_mb": memory}
    show(["step", "seconds", "CPU s", "target", ""], rows, args=args, details=details)


def _verdict(seconds: list[float], target: float) -> str:
    return "met" if statistics.median(seconds) < target else "missed"


# -- the store ------------------------------------------------------------------------------------


def arguments(doc: str | None) -> argparse.Namespace:
    """The options of the benchmarks of the dashboard."""
    options = parser(doc)
    options.add_argument("--shards", type=int, default=100)
    options.add_argument("--samples", type=int, default=10_000, help="a shard")
    options.add_argument(
        "--store", type=Path, metavar="FOLDER", help="keep the store here; used if it is there"
    )
    args = options.parse_args()
    if args.quick:
        args.shards, args.samples = 2, 500
    return args


@contextmanager
def made_store(args: argparse.Namespace) -> Iterator[Path]:
    """A folder with `data` and `store`: that of `--store`, or one that is gone afterwards.

    Raises:
        SystemExit: the folder holds something else.
    """
    if args.store is None:
        with scratch() as folder:
            _make(folder, args)
            yield folder
        return
    sizes = f"{args.shards} shards of {args.samples} samples"
    sign = args.store / "made"  # written last
    if not sign.exists():
        if args.store.exists() and any(args.store.iterdir()):
            raise SystemExit(
                f"--store {args.store} is not a finished store; delete it, or name another"
            )
        args.store.mkdir(parents=True, exist_ok=True)
        _make(args.store, args)
        sign.write_text(sizes)
    elif sign.read_text() != sizes:
        raise SystemExit(
            f"--store {args.store} holds {sign.read_text().strip()}, not {sizes.strip()}"
        )
    yield args.store


def _make(folder: Path, args: argparse.Namespace) -> None:
    ws = make_store(folder, args.shards, args.samples, pictures())
    for policy in ("as-is", "best"):
        decide(
            ws,
            load_policy(policy),
            MakerChoice(),
            RunOptions(max_quarantine=1.0),
            stop=StopRequest(),
        )


def pictures(size: tuple[int, int] = (640, 480)) -> list[bytes]:
    """200 JPEGs that differ."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        sink = io.BytesIO()
        coarse.resize(size, Image.Resampling.BICUBIC).save(sink, "JPEG", quality=90)
        found.append(sink.getvalue())
    return found


# -- in the process that looks --------------------------------------------------------------------


def look(folder: Path, num_pages: int) -> None:
    """Go through the pages as somebody would; print what it took as JSON."""
    from streamlit.testing.v1 import AppTest

    import ui.views.inspect.sample  # as in a server that has started
    from ui.shared import context, environment
    from ui.views.overview import health

    assert ui.views.inspect.sample
    os.environ[environment.DATASET] = str(folder / "data")
    os.environ[environment.STORE] = str(folder / "store")
    steps: dict[str, tuple[float, float]] = {}

    def step(name: str, page: Any, change: Callable[[], object] | None = None) -> None:
        if change is not None:
            change()
        start, start_cpu = time.perf_counter(), time.process_time()
        page.run()
        steps[name] = (time.perf_counter() - start, time.process_time() - start_cpu)
        assert not page.exception, page.exception

    page = AppTest.from_file(str(_INSPECT), default_timeout=300)
    step("first page", page)
    version = context.workspace().store.resolve(None)
    # A person takes longer than that to find the first button.
    context.catalog(version).warm()

    def turn() -> None:
        page.button(key="page_top_next").click()

    step("next page", page, turn)
    step("filter by score", page, lambda: page.slider(key="score").set_range(0.2, 0.4))
    step("filter by source", page, lambda: page.multiselect(key="source").select("alt_text"))
    page.multiselect(key="source").set_value([])
    step("filter by text", page, lambda: page.text_input(key="text").set_value("tree beach"))
    page.text_input(key="text").set_value("")
    step("filter by flag", page, lambda: page.multiselect(key="flag").select("spam"))
    page.multiselect(key="flag").set_value([])
    step("filter by change", page, lambda: page.selectbox(key="against").select("v1"))
    page.selectbox(key="against").set_value(None)
    for order in ("score", "gain"):
        name = "score gain" if order == "gain" else order
        page.selectbox(key="order").select(name).run()
        step(f"next page by {order}", page, turn)
    step("one sample", page, lambda: page.button(key="open_7").click())
    page.button(key="close").click().run()
    overview = AppTest.from_file(str(_OVERVIEW), default_timeout=300)
    # The health comes into a page that is there: here a run of the page would wait for it.
    with mock.patch.object(health, "_arriving", _without_health):
        step("overview", overview)
    step("health on it", overview)
    print(json.dumps({"steps": steps, "memory": _wander(page, num_pages)}))


def _without_health(_reading: object, _version: object) -> None:
    pass


def _wander(page: Any, num_pages: int) -> list[float]:
    """Resident memory in MB after a fifth of the pages, and after all of them."""
    orders = ("shard order", "score", "score gain", "length", "random")
    seen = []
    for number in range(num_pages):
        if number % 10 == 0:
            page.selectbox(key="order").select(orders[number // 10 % len(orders)])
            page.slider(key="score").set_range(0.0, 0.3 + number / 2000)
        else:
            page.button(key="page_top_next").click()
        page.run()
        assert not page.exception, page.exception
        if number in (num_pages // 5 - 1, num_pages - 1):
            gc.collect()  # a run of AppTest is a heap of cycles: without, this sees when they went
            resident = int(Path("/proc/self/statm").read_text().split()[1])
            seen.append(resident * os.sysconf("SC_PAGE_SIZE") / MB)
    return seen


if __name__ == "__main__":
    if sys.argv[1:2] == ["--look"]:
        look(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
