"""Edits through the page: reviewers in a real browser, and `kill -9` of the server that they use.

Pages of one Chromium press the buttons of Review over the same texts, all at once, while `curator
ui` is killed at random moments and started again on its port. The pages stay open all the time;
only one that the kill left without a part of Streamlit's own script is loaded again. A page
acknowledges an edit by a toast that names it; these names are compared with the log.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request

from tests.kit.browser import PATIENCE_MS, Server, chromium, needs_chromium, settle
from tests.kit.store import Row, open_kit

pytestmark = [pytest.mark.browser, needs_chromium]

_STEP_SEC = 0.02
_HURRIED = 0.1
"""How often somebody presses a button while the page still works on the last one."""
_DONE = {"accepted": "accept", "rejected": "reject", "edited": "edit"}

# `told` keeps every toast, which is gone after four seconds. `press` looks and clicks in one step,
# so that what was on the screen is known; a text with a badge of somebody's edit is skipped. It
# waits while the page is busy, unless in a hurry.
_IN_THE_PAGE = """
window.told = {};
window.refused = new Set();
new MutationObserver(() => {
  for (const toast of document.querySelectorAll('[data-testid=stToast]')) {
    const said = toast.innerText.match(/(accepted|rejected|edited): (\\S+#\\d+) is saved/);
    if (said) window.told[said[2]] = said[1];
  }
  for (const error of document.querySelectorAll('.cc-error'))
    if (error.innerText.includes('your edit was not recorded')) window.refused.add(error.innerText);
}).observe(document, {subtree: true, childList: true, characterData: true});

const isBusy = () =>
  document.querySelector('[data-testid=stApp]').dataset.testScriptState !== 'notRunning';
const buttonOf = (label) => [...document.querySelectorAll('[data-testid=stMain] button')]
  .find(button => button.innerText.trim().startsWith(label) && !button.disabled);
const keyOf = () => [...document.querySelectorAll('.cc-head + .cc-small')]
  .map(line => line.innerText.split(' · ')).find(parts => / of /.test(parts[0]))?.[1];

window.press = ([label, hurry]) => {
  if (isBusy() && !hurry) return null;
  const badges = [...document.querySelectorAll('.cc-head .cc-badge')].map(b => b.innerText);
  const isDone = badges.some(badge => /^(accepted|rejected|edited)$/.test(badge));
  const key = keyOf(), button = buttonOf(isDone ? 'Skip' : label);
  if (!key || !button) return null;
  button.click();
  return isDone ? null : key;
};

window.write = (text) => {
  const areas = document.querySelectorAll('textarea[aria-label="New text"]');
  const key = keyOf(), button = buttonOf('Save');
  if (isBusy() || areas.length !== 1 || !key || !button) return null;
  const set = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set;
  set.call(areas[0], text);
  areas[0].dispatchEvent(new Event('input', {bubbles: true}));
  button.click();
  return key;
};
"""


@dataclass  # without slots: playwright leaves notes on who listens
class Reviewer:
    """Somebody at a page. `clicks` counts (action, key of the sample that was on the screen)."""

    name: str
    page: Page
    clicks: Counter[tuple[str, str]] = field(default_factory=Counter)
    typed: dict[str, str] = field(default_factory=dict)
    """New text -> key; no text is typed twice."""
    told: dict[str, str] = field(default_factory=dict)
    """What the page acknowledged: edit -> what was done."""
    refused: set[str] = field(default_factory=set)
    is_broken: bool = False
    """Whether a part of the script could not be had; without that of toasts it says nothing."""

    def __post_init__(self) -> None:
        self.page.on("requestfailed", self._on_failure)

    def _on_failure(self, request: Request) -> None:
        self.is_broken |= request.resource_type == "script"

    def act(self, generator: random.Random) -> None:
        """One step, without waiting for what comes of it."""
        time.sleep(_STEP_SEC)
        if self.page.get_by_label("New text").count():
            text = f"{self.name} wrote {len(self.typed)}"
            key = self.page.evaluate("text => window.write(text)", text)
            if key:
                self.typed[text] = key
            return
        label, action = generator.choice(
            [("Accept", "accept"), ("Reject", "reject"), ("Edit", ""), ("Edit", "")]
        )
        in_a_hurry = generator.random() < _HURRIED
        key = self.page.evaluate("asked => window.press(asked)", [label, in_a_hurry])
        if key and action:
            self.clicks[action, key] += 1

    def mend(self) -> None:
        """Load the page again if it cannot go on."""
        if self.is_broken:
            self.look()
            self.is_broken = False
            self.page.reload()
            settle(self.page)

    def look(self) -> int:
        """Note what the page has said; the number of acknowledged edits so far."""
        said, refused = self.page.evaluate("[window.told, [...window.refused]]")
        self.told.update((name, _DONE[done]) for name, done in said.items())
        self.refused.update(refused)
        return len(self.told)


def opened(browser: Browser, url: str, name: str) -> Reviewer:
    page = browser.new_context(reduced_motion="reduce").new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.add_init_script(_IN_THE_PAGE)
    page.goto(f"{url}/review?who={name}&v=v1&order=random&seed=0")
    settle(page)
    return Reviewer(name, page)


def act_until_told(reviewers: list[Reviewer], generator: random.Random, *, at_least: int) -> None:
    """Until this many of them have got one more edit acknowledged."""
    before = [reviewer.look() for reviewer in reviewers]
    end = time.monotonic() + 4 * PATIENCE_MS / 1000
    while True:
        chosen = generator.choice(reviewers)
        chosen.mend()
        chosen.act(generator)
        now = [reviewer.look() for reviewer in reviewers]
        if sum(b < n for b, n in zip(before, now, strict=True)) >= at_least:
            return
        assert time.monotonic() < end, [reviewer.page.inner_text("body") for reviewer in reviewers]


def storm(folder: Path, *, num_reviewers: int, num_kills: int, num_samples: int) -> Counter[str]:
    """Edit and kill, then compare the log with what the pages said."""
    rows = [Row(f"k{number:04}", f"text {number}") for number in range(num_samples)]
    shards = {"s0": tuple(rows[::2]), "s1": tuple(rows[1::2])}
    open_kit(folder / "shards", shards).decide("alt")
    generator = random.Random(0)
    server = Server(folder / "shards")
    server.start()
    try:
        with chromium() as browser:
            names = [f"r{number}" for number in range(num_reviewers)]
            reviewers = [opened(browser, server.url, name) for name in names]
            for _ in range(num_kills):
                act_until_told(reviewers, generator, at_least=1)
                killer = threading.Timer(generator.uniform(0, 1), server.process.kill)
                killer.start()
                while server.process.poll() is None:
                    generator.choice(reviewers).act(generator)
                killer.join()
                server.kill()
                server.start()
            act_until_told(reviewers, generator, at_least=num_reviewers)  # the pages go on
            outcome = compared(folder / "shards", reviewers)
            for reviewer in reviewers:
                reviewer.page.context.close()
    finally:
        server.stop()
    outcome["killed"] = num_kills
    return outcome


def compared(shards: Path, reviewers: list[Reviewer]) -> Counter[str]:
    """Check every promise on the edits that are in the log."""
    told = {reviewer.name: reviewer.told for reviewer in reviewers}
    lines = curator("edits", "list", shards, "--all", "--limit", 1_000_000, "--json").splitlines()
    kept = {edit["id"]: edit for edit in map(json.loads, lines)}
    assert len(kept) == len(lines)
    for name, edits in told.items():
        for edit_id, action in edits.items():
            assert edit_id in kept, f"{name} was told of {edit_id}, which is lost"
            assert (kept[edit_id]["who"], kept[edit_id]["action"]) == (name, action)
    for reviewer in reviewers:
        mine = [edit for edit in kept.values() if edit["who"] == reviewer.name]
        texts = Counter(edit["new_text"] for edit in mine if edit["action"] == "edit")
        assert not texts - Counter(set(texts)), "one Save is one edit"
        for edit in mine:
            if edit["action"] == "edit":
                assert reviewer.typed[edit["new_text"]] == edit["key"], "the text it was typed for"
        chosen = Counter((e["action"], e["key"]) for e in mine if e["action"] != "edit")
        assert not chosen - Counter(set(chosen)), "one decision is one edit"
        unseen = chosen - reviewer.clicks
        assert not unseen, f"{reviewer.name} never saw {unseen}"
    assert {edit["who"] for edit in kept.values()} == set(told), "nobody else"
    curator("fsck", shards, "--deep")
    refused = sum(len(reviewer.refused) for reviewer in reviewers)
    acknowledged = sum(map(len, told.values()))
    edited = sum(edit["action"] == "edit" for edit in kept.values())
    return Counter(acknowledged=acknowledged, kept=len(kept), edited=edited, refused=refused)


def curator(*args: object) -> str:
    """The command in a process of its own, as an operator runs it beside the server."""
    command = [sys.executable, "-m", "curator", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_killed_server_loses_nothing_that_a_page_acknowledged(tmp_path: Path) -> None:
    outcome = storm(tmp_path, num_reviewers=2, num_kills=1, num_samples=40)
    assert outcome["acknowledged"] >= 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_20_kills_under_six_pages(tmp_path: Path) -> None:
    outcome = storm(tmp_path, num_reviewers=6, num_kills=20, num_samples=600)
    assert outcome["acknowledged"] >= 26
    assert outcome["edited"] > 0
    assert outcome["refused"] > 0, "they have to overlap"
