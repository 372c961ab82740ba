"""Draws the pictures of the dashboard and of the report in docs/images, from the demo.

    curator demo run demo-out
    python -m benchmarks.dashboard_pictures demo-out docs/images
    python -m benchmarks.dashboard_pictures demo-out docs/images --photos PHOTOS STORE

Nothing of the demo is changed: a copy of its store gets what a store in use has, more versions,
tags and edits. PHOTOS with the versions v1 and v2 in STORE give one picture more, of figures only:
what a dataset's licence lets nobody copy is not on it. Chromium has to be on the PATH.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

from benchmarks.browser import chromium, serving, settle
from benchmarks.common import scratch
from curator.store import fsops

Pages = Mapping[str, tuple[str, tuple[int, int]]]

COLORS = 256
PAGES = {
    "overview": ("?v=v6", (1280, 1060)),
    "inspect": ("inspect?v=v1", (1280, 900)),
    "sample": ("inspect?v=v1&sample=00000/3&at=3", (1280, 900)),
    "review": ("review?v=v1&who=Ada", (1280, 900)),
    "compare": ("compare?old=v2&v=v1", (1280, 900)),
    "policy": ("policy?v=v1&base=raw-if-good", (1920, 1000)),
    "query": ("query?v=v1", (1280, 900)),
    "studies": ("studies", (1280, 1000)),
}
"""File -> address and size in pixels. v1 to v3 are the demo's: best, as-is, replace."""

PHOTOS = ("compare?old=v2&v=v1&tab=Numbers", (1280, 900))

DARK = ("policy",)
REPORT_PX = (1100, 1150)

_MORE = (
    ("decide", "{data}", "--policy", "raw-if-good"),
    ("decide", "{data}", "--policy", "filter"),
    ("edits", "replace", "{data}@v1", "on tiles", "on a tiled floor", "--who", "Ada", "--yes"),
    ("score", "{data}"),
    ("edits", "apply", "{data}@v1"),
    ("tag", "{data}@v2", "base"),
    ("tag", "{data}@v6", "train"),
)


def main() -> None:
    """Copy the store, add to it, open every page, keep what it looks like."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("demo", type=Path, help="what `curator demo run` made")
    options.add_argument("out", type=Path, help="folder of the pictures")
    options.add_argument("--photos", type=Path, nargs=2, metavar=("PHOTOS", "STORE"))
    args = options.parse_args()
    with scratch() as folder, chromium() as browser:
        data, store = args.demo / "shards", folder / "store"
        shutil.copytree(data / ".curator", store)
        for words in _MORE:
            _curator(*(word.format(data=data) for word in words), "--store", store)
        asked = (data, "--store", store, "--studies", args.demo)
        _draw(browser, asked, PAGES, args.out)
        if args.photos:
            photos, store = args.photos
            _draw(browser, (photos, "--store", store), {"photos": PHOTOS}, args.out)
        with closing(_tab(browser, REPORT_PX)) as page:
            page.goto((args.demo / "study" / "report.html").resolve().as_uri())
            _keep(page, args.out / "report.png")


def _draw(browser: Browser, asked: Sequence[object], pages: Pages, out: Path) -> None:
    with serving("-m", "curator", "ui", *asked, "--port", "0") as url:
        for name, (address, size) in pages.items():
            with closing(_tab(browser, size, dark=name in DARK)) as page:
                page.goto(f"{url}/{address}")
                settle(page)
                _prepare(name, page)
                _keep(page, out / f"{name}.png")


def _curator(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "curator", *map(str, words)], check=True)


def _tab(browser: Browser, size: tuple[int, int], *, dark: bool = False) -> Page:
    return browser.new_page(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )


def _prepare(name: str, page: Page) -> None:
    """What has to be clicked before a page shows what it is for."""
    if name == "query":
        page.get_by_role("button", name="Run").click()
        page.get_by_text(", complete.").wait_for()
        page.mouse.move(0, 0)
    if name == "overview":
        page.get_by_text("unusable samples").wait_for()
    settle(page)


def _keep(page: Page, path: Path) -> None:
    page.wait_for_function("[...document.images].every(image => image.complete)")
    whole = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    out = io.BytesIO()
    # Not the median cut: small spots of colour, as in legends, would be gone.
    few = whole.quantize(
        COLORS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.FLOYDSTEINBERG
    )
    few.save(out, "PNG", optimize=True)
    fsops.write_atomic(path, out.getvalue())


if __name__ == "__main__":
    main()
