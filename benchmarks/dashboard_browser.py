"""The dashboard in Chromium over a million samples: seconds that a person waits.

    python -m benchmarks.dashboard_browser
    python -m benchmarks.dashboard_browser --store FOLDER     # that of benchmarks.dashboard

The store is that of `benchmarks.dashboard`; the server is `curator ui` in a process of its own, and
Chromium has no window. Times are taken inside the page: from the start of the navigation, the
key or the click, to the first frame in which everything waited for is there.

    server up            from the command to a server that answers
    first page           overview with figures and versions; the server has just begun to answer,
                         and the browser knows nothing of it
    first page, later    the same, two seconds after the server began to answer: nobody is faster
                         at the browser
    in a new browser     the same; the server has shown it before
    in the same browser  the same; the browser has its scripts and styles too
    50 pictures          inspect, opened by its address: all pictures are complete
    next 50 pictures     by the button
    filter by score      from an arrow key on the slider to another count
    filter by text       from Enter to another count

Beside it stands the floor, `benchmarks.dashboard_page`, served with the same options to the same
Chromium: one line of text, two widgets and a line, 50 ready pictures and nothing else. What
stands in `ours` is the median of the differences within a round; the rest is Streamlit's and the
browser's. Ours and the floor take turns. Targets: as in `benchmarks.dashboard`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from playwright.sync_api import Browser, Page

from benchmarks.browser import chromium, serving
from benchmarks.common import rounds, show, spread
from benchmarks.dashboard import arguments, made_store, pictures

NUM_PICTURES = 50
_TARGETS_SEC = {
    "server up": None,
    "first page": 2.0,
    "first page, later": 2.0,
    "in a new browser": 2.0,
    "in the same browser": 2.0,
    "50 pictures": 1.0,
    "next 50 pictures": 1.0,
    "filter by score": 0.5,
    "filter by text": 0.5,
}
_LATER_SEC = 2
_PATIENCE_MS = 120_000
_PAGE = Path(__file__).with_name("dashboard_page.py")

# The capture phase: before anything of the page hears of it.
_ACTED = """
for (const kind of ['pointerdown', 'keydown'])
  addEventListener(kind, () => { window.acted = performance.now(); }, true);
"""
_SEEN = "[...document.querySelectorAll({0!r})].some(found => found.getClientRects().length)"
_OVERVIEW = " && ".join(map(_SEEN.format, (".cc-metrics", ".st-key-lineage svg")))
_LINE = _SEEN.format("p.line")

Steps = dict[str, float]
Go = Callable[[Browser, str], Steps]
Arm = tuple[Go, str, Sequence[object]]


def main() -> None:
    """Make the store, wait for its pages and for the floor's in turns, print the table."""
    args = arguments(__doc__)
    found: dict[str, list[Steps]] = {"ours": [], "floor": []}
    with made_store(args) as folder, chromium() as browser:
        store = ("--store", folder / "store", "--port", "0")
        arms: dict[str, Arm] = {
            "ours": (_dashboard, _OVERVIEW, ("-m", "curator", "ui", folder / "data", *store)),
            "floor": (_floor, _LINE, ("-m", "benchmarks.dashboard_browser", "--floor")),
        }
        for number in range(rounds(args)):
            for name in list(arms)[:: -1 if number % 2 else 1]:
                found[name].append(_look(browser, *arms[name]))
    ours, floor = (
        {step: [steps[step] for steps in found[name]] for step in _TARGETS_SEC} for name in found
    )
    rows = [
        [
            step,
            spread(ours[step], 2),
            spread(floor[step], 2),
            f"{statistics.median(a - b for a, b in zip(ours[step], floor[step], strict=True)):.2f}",
            f"{target or ''}",
            _verdict(ours[step], target),
        ]
        for step, target in _TARGETS_SEC.items()
    ]
    columns = ["step", "seconds", "floor", "ours", "target", ""]
    show(columns, rows, args=args, details={"seconds": ours, "floor_seconds": floor})


def _verdict(seconds: list[float], target: float | None) -> str:
    if target is None:
        return ""
    return "met" if statistics.median(seconds) < target else "missed"


# -- what is waited for ---------------------------------------------------------------------------


def _look(browser: Browser, go: Go, is_there: str, command: Sequence[object]) -> Steps:
    start = time.perf_counter()
    with serving(*command) as url:
        steps = {"server up": time.perf_counter() - start, **go(browser, url)}
    with serving(*command) as url, _opened(browser) as page:
        time.sleep(_LATER_SEC)
        steps["first page, later"] = _goto(page, url, is_there)
    return steps


def _dashboard(browser: Browser, url: str) -> Steps:
    steps = {}
    with _opened(browser) as page:
        steps["first page"] = _goto(page, url, _OVERVIEW)
        # All that is read in the background is there; somebody else comes later.
        page.get_by_text("unusable samples").wait_for()
    with _opened(browser) as page:
        steps["in a new browser"] = _goto(page, url, _OVERVIEW)
        steps["in the same browser"] = _goto(page, url, _OVERVIEW)
        tiles = "[class*=st-key-tile_] img"
        steps["50 pictures"] = _goto(page, f"{url}/inspect?v=v2", _complete(tiles))
        steps["next 50 pictures"] = _next_pictures(page, tiles)
        steps["filter by score"] = _filter_score(page, ".cc-heading .cc-about")
        steps["filter by text"] = _filter_text(page, ".cc-heading .cc-about", "tree beach")
    return steps


def _floor(browser: Browser, url: str) -> Steps:
    steps = {}
    with _opened(browser) as page:
        steps["first page"] = _goto(page, url, _LINE)
    with _opened(browser) as page:
        steps["in a new browser"] = _goto(page, url, _LINE)
        steps["in the same browser"] = _goto(page, url, _LINE)
        images = "[data-testid=stMain] img"
        steps["50 pictures"] = _goto(page, f"{url}?show=pictures", _complete(images))
        steps["next 50 pictures"] = _next_pictures(page, images)
        _goto(page, f"{url}?show=filter", _LINE)
        steps["filter by score"] = _filter_score(page, "p.line")
        steps["filter by text"] = _filter_text(page, "p.line", "tree beach")
    return steps


@contextmanager
def _opened(browser: Browser) -> Iterator[Page]:
    """A page of a browser that has nothing kept yet."""
    with closing(browser.new_context(viewport={"width": 1280, "height": 900})) as context:
        context.set_default_timeout(_PATIENCE_MS)
        context.add_init_script(_ACTED)
        yield context.new_page()


def _goto(page: Page, url: str, is_there: str) -> float:
    page.goto(url, wait_until="commit")
    return _until(page, is_there, since="0")


def _until(page: Page, is_there: str, *, since: str = "window.acted") -> float:
    """Seconds to the first frame in which a condition of JavaScript holds; then all is at rest."""
    waited = page.wait_for_function(f"() => ({is_there}) && performance.now() - {since}")
    seconds = float(waited.json_value()) / 1000
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    return seconds


def _complete(images: str) -> str:
    """All pictures are there, and none of those that were there before."""
    is_new = "image.complete && image.naturalWidth > 0 && !window.before?.includes(image.src)"
    return (
        f"((images) => images.length === {NUM_PICTURES} && images.every(image => {is_new}))"
        f"([...document.querySelectorAll({images!r})])"
    )


def _next_pictures(page: Page, images: str) -> float:
    page.evaluate(f"window.before = [...document.querySelectorAll({images!r})].map(i => i.src)")
    page.get_by_role("button", name="Next").first.click()
    return _until(page, _complete(images))


def _filter_text(page: Page, line: str, text: str) -> float:
    box = page.get_by_label("Text contains")
    box.fill(text)
    return _changed(page, line, lambda: box.press("Enter"))


def _filter_score(page: Page, line: str) -> float:
    thumb = page.get_by_role("slider", name="Score").first
    return _changed(page, line, lambda: thumb.press("ArrowRight"))


def _changed(page: Page, line: str, act: Callable[[], None]) -> float:
    said = f"document.querySelector({line!r})?.innerText"
    page.evaluate(f"window.said = {said}")
    act()
    return _until(page, f"{said} && {said} !== window.said")


# -- the floor ----------------------------------------------------------------------------------


@cache
def ready_pictures() -> list[bytes]:
    """Pictures in the size of a thumbnail."""
    return pictures((256, 192))[: 2 * NUM_PICTURES]


def serve_floor() -> None:
    """`ui.serve.serve`, with another page."""
    from streamlit.web import bootstrap

    from ui.serve import Serving, options

    ready_pictures()
    floor = Serving(dataset="", port=0)
    told = options(floor)
    print(floor.url, flush=True)
    bootstrap.load_config_options(told)
    bootstrap.run(str(_PAGE), False, [], told)


if __name__ == "__main__":
    if sys.argv[1:] == ["--floor"]:
        serve_floor()
    else:
        main()
