"""Models that answer badly, crash or hang: what it costs, and that it costs no more.

The fake engine is the `echo` captioner with its faults; what the command line does not offer is
given to the step functions that the commands call. Crashes and hangs are real ones, of real
worker processes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from curator.captioners.stuck_detector import MAX_IMAGES
from curator.core.errors import EngineError, QuarantineLimitError
from curator.core.run_options import RunOptions
from curator.core.stopping import StopRequest
from curator.engine.executors import Worker, local
from curator.engine.executors.local import ProcessExecutor
from curator.engine.facts_loop import Tally
from curator.engine.makers import Maker, captioner_maker, checker_maker
from curator.engine.worker import CaptionItem
from curator.policy.model import load_policy
from curator.shards.scan import ScanOptions
from curator.steps.generate import generate
from curator.steps.index import make_index
from curator.steps.recaption import Recaption, RecaptionReport, recaption
from curator.steps.workspace import Workspace, open_workspace
from curator.store import index
from tests.kit import tars
from tests.kit.cli import check_whole, curator, quarantine

NUM_SAMPLES = 24
NUM_HIT = 5
STALL_SEC = 10.0  # what hangs, hangs for an hour; what does not answers in time on a busy machine


def faulty(**fault: object) -> Maker:
    """The echo captioner with a fault; a recipe does not tell, as with a real engine."""
    maker = captioner_maker("echo")
    return replace(maker, options={**maker.options, **fault})


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """One shard of 24 different pictures."""
    (tmp_path / "00000.tar").write_bytes(tars.tar(tars.samples(NUM_SAMPLES)))
    return open_workspace(str(tmp_path), None, create=True)


def run(ws: Workspace, maker: Maker, *, policy: str = "replace", **engine: Any) -> RecaptionReport:
    asked = Recaption(
        captioners=(maker,), scorer=None, checker=checker_maker("en"), policy=load_policy(policy)
    )
    options = {"caption_batch_size": 6, "max_quarantine": 1.0, **engine}
    return recaption(ws, asked, RunOptions(**options), stop=StopRequest())


def check(ws: Workspace, report: RecaptionReport, reason: str) -> None:
    """Only the images that were hit are lost, for this reason, and the rest is captioned."""
    assert report.captioned.failures == {reason: NUM_HIT}
    assert quarantine(ws.spec) == {reason: NUM_HIT}
    counts = report.version.counts
    assert (counts["captioned"], counts["quarantined"]) == (NUM_SAMPLES - NUM_HIT, NUM_HIT)
    check_whole(ws.spec)


def share_that_hits(ws: Workspace, number: int) -> float:
    """The `fault_share` that hits exactly this many images of the shard."""
    make_index(ws, ScanOptions(), stop=StopRequest())
    heads = sorted(int(s[:8], 16) for s in index.read(ws.store, "00000")["image_sha256"])
    return (heads[number - 1] + heads[number]) / 2 / 2**32


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refusal", "vlm.refusal"),
        ("loop", "vlm.repetition"),
        ("garbage", "vlm.garbage"),
        ("language", "vlm.language"),
        ("empty", "vlm.empty"),
        ("echo", "vlm.echo"),
        ("boilerplate", "vlm.boilerplate"),
        ("special", "vlm.special_token"),
        ("n_minus_1", "vlm.mismatch"),
        ("n_plus_1", "vlm.mismatch"),
    ],
    ids=lambda value: value.split(".")[-1],
)
def test_a_bad_answer_costs_its_image_alone(ws: Workspace, fault: str, reason: str) -> None:
    share = share_that_hits(ws, NUM_HIT)
    check(ws, run(ws, faulty(fault=fault, fault_share=share)), reason)
    # `quarantine retry`, and an engine that has recovered: all is made, nothing twice
    retried = curator("quarantine", "retry", ws.spec, "--reason", reason, "--json")
    assert retried.json == {"reason": reason, "reopened": NUM_HIT}
    again = run(ws, faulty())
    assert (again.captioned.made, again.captioned.failures) == (NUM_HIT, {})
    assert again.version.counts["captioned"] == NUM_SAMPLES
    assert quarantine(ws.spec) == {}
    check_whole(ws.spec)


@pytest.mark.parametrize("fault", ["refusal", "loop", "language", "empty", "echo", "special"])
def test_the_second_try_is_another_one(ws: Workspace, fault: str) -> None:
    report = run(ws, faulty(fault=fault, fault_once=True))
    assert (report.captioned.made, report.captioned.failures) == (NUM_SAMPLES, {})


def test_garbage_for_the_test_picture_too_ends_the_run(ws: Workspace) -> None:
    with pytest.raises(EngineError, match="the model gives garbage") as caught:
        run(ws, faulty(fault="garbage"))
    assert (caught.value.code, caught.value.reason) == (30, "vlm.garbage")
    assert "try --dtype bf16 or fp32" in str(caught.value)
    assert not list(ws.store.versions())
    assert run(ws, faulty()).captioned.made == NUM_SAMPLES, "the next run goes on"


def test_one_caption_for_all(ws: Workspace) -> None:
    report = run(ws, faulty(fault="stuck"))
    assert NUM_SAMPLES > MAX_IMAGES
    assert report.version.counts["quarantined"] == NUM_SAMPLES
    assert set(quarantine(ws.spec)) == {"vlm.stuck"}
    check_whole(ws.spec)


def test_the_shard_is_stopped_and_can_be_put_in_line_again(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes(tars.tar(tars.samples(150)))
    ws = open_workspace(str(tmp_path), None, create=True)
    report = run(ws, faulty(fault="stuck"))
    assert report.captioned.failures == {"vlm.stuck": 150}
    shown = curator("quarantine", "show", ws.spec, "--limit", "200").out.splitlines()
    not_asked = [row for row in shown if "not captioned: the shard was stopped" in row]
    # 21 to notice it, 21 more in a row, and at most three batches of 6 on their way meanwhile
    assert 150 - 21 - 21 - 3 * 6 <= len(not_asked) <= 150 - 21 - 21
    assert run(ws, faulty()).captioned.made == 0, "no picture is asked for again by itself"
    curator("quarantine", "retry", ws.spec, "--reason", "vlm.stuck")
    assert run(ws, faulty()).version.counts["captioned"] == 150
    check_whole(ws.spec)


def test_one_caption_for_a_few_is_no_failure(ws: Workspace) -> None:
    report = run(ws, faulty(fault="stuck", fault_share=0.5))
    assert report.version.counts["captioned"] == NUM_SAMPLES


def test_too_many_failures_stop_the_run(tmp_path: Path) -> None:
    # judged from 200 outcomes on, so that the first few decide nothing; 256 colours there are
    (tmp_path / "00000.tar").write_bytes(tars.tar(tars.samples(250)))
    big = open_workspace(str(tmp_path), None, create=True)
    with pytest.raises(QuarantineLimitError, match=r"mostly vlm\.refusal") as caught:
        run(big, faulty(fault="refusal", fault_share=0.3), max_quarantine=0.05)
    assert caught.value.code == 4
    made = run(big, faulty(), max_quarantine=1.0).captioned.made
    assert made < 250, "everything made so far is kept"


# A captioner that fails, in a store that has captions by another one


def other(**fault: object) -> Maker:
    """A second captioner, with a fault."""
    maker = captioner_maker("echo", seed=1)
    return replace(maker, options={**maker.options, **fault})


@pytest.mark.parametrize("policy", ["replace", "mix"])
def test_a_captioner_that_only_fails_commits_nothing(ws: Workspace, policy: str) -> None:
    first = run(ws, faulty()).version
    for _ in range(2):  # the second run asks for nothing anew, and has the same answer
        with pytest.raises(QuarantineLimitError) as caught:
            run(ws, other(fault="n_minus_1"), policy=policy, max_quarantine=0.05)
        assert f"no usable caption for {NUM_SAMPLES} of {NUM_SAMPLES} images" in str(caught.value)
        assert f"{NUM_SAMPLES}x vlm.mismatch" in str(caught.value)
        assert other().name in str(caught.value)
    assert ws.store.numbers() == [first.number]
    assert quarantine(ws.spec) == {"vlm.mismatch": NUM_SAMPLES}, "the facts are kept"


def test_captions_by_another_one_do_not_hide_failures(ws: Workspace) -> None:
    run(ws, faulty())
    fault = {"fault": "refusal", "fault_share": share_that_hits(ws, NUM_HIT)}
    with pytest.raises(QuarantineLimitError, match=r"5x vlm\.refusal"):
        run(ws, other(**fault), max_quarantine=0.05)
    # Where the alt text stands in, a few failures are no reason to stop; nor are they resumed.
    assert run(ws, other(**fault), policy="mix", max_quarantine=0.05).is_new
    assert run(ws, other(**fault), max_quarantine=0.5).num_calls == 0


def test_captions_of_an_earlier_run_count(ws: Workspace) -> None:
    run(ws, other())
    run(ws, faulty())
    again = run(ws, other(fault="n_minus_1"), max_quarantine=0.05)
    assert (again.num_calls, again.version.counts["captioned"]) == (0, NUM_SAMPLES)


def test_a_captioner_that_wrote_nothing_is_no_maker_of_a_version(ws: Workspace) -> None:
    first = run(ws, faulty()).version
    with pytest.raises(EngineError):
        run(ws, other(fault="garbage"))
    again = run(ws, faulty())
    assert (again.is_new, again.version.id) == (False, first.id)
    assert list(again.version.policy["generators"]) == [faulty().name]


# Worker processes


def caption(
    ws: Workspace, maker: Maker, executor: ProcessExecutor | None = None, *, batch_size: int = 6
) -> Tally:
    make_index(ws, ScanOptions(), stop=StopRequest())
    maker = replace(maker, spec=replace(maker.spec, in_process=False))
    run_options = RunOptions(
        caption_batch_size=batch_size, stall_timeout_sec=STALL_SEC, max_quarantine=1.0
    )
    return generate(ws, maker, run_options, executor=executor, stop=StopRequest())


def test_r11_an_image_that_kills_the_engine_is_found_and_the_rest_goes_on(ws: Workspace) -> None:
    share = share_that_hits(ws, 1)
    tally = caption(ws, faulty(fault="crash", fault_share=share))
    assert (tally.made, tally.failures) == (NUM_SAMPLES - 1, {"engine.crashed": 1})
    assert quarantine(ws.spec) == {"engine.crashed": 1}


def test_r11_an_image_that_stalls_the_engine_is_found_and_the_rest_goes_on(ws: Workspace) -> None:
    share = share_that_hits(ws, 1)
    tally = caption(ws, faulty(fault="hang", fault_share=share), batch_size=1)
    assert (tally.made, tally.failures) == (NUM_SAMPLES - 1, {"vlm.stalled": 1})
    rows = curator("quarantine", "show", ws.spec, "--json").out
    assert f"did not answer for {STALL_SEC:.0f} s" in rows


def test_r11_a_late_answer_is_an_answer(ws: Workspace) -> None:
    tally = caption(ws, faulty(fault="late", fault_sec=0.2))
    assert (tally.made, tally.failures) == (NUM_SAMPLES, {})


def test_r11_an_engine_that_dies_whatever_it_is_given_ends_the_run(ws: Workspace) -> None:
    with pytest.raises(EngineError, match="4 times in a row") as caught:
        caption(ws, faulty(fault="crash"))
    assert (caught.value.code, caught.value.reason) == (30, "engine.crashed")
    assert caption(ws, faulty()).made > 0, "the next run goes on"


@dataclass(frozen=True, slots=True)
class DyingDecoder:
    """Decoding one image kills or holds the process (no file that does it is known today)."""

    image_sha256: str
    how: str

    def __call__(self, item: CaptionItem) -> None:
        if item.image.sha256 == self.image_sha256:
            if self.how == "hang":
                time.sleep(3600)
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, build: Callable[[], Worker[CaptionItem, Any]]) -> Worker[CaptionItem, Any]:
        """The usual work, with this decoder in front."""
        work = build()

        def both(items: Sequence[CaptionItem]) -> list[Any]:
            for item in items:
                self(item)
            return work(items)

        return both


class ThroughDyingDecoder(ProcessExecutor):
    """The executor of every model, with another decoder in its workers."""

    def __init__(self, decoder: DyingDecoder) -> None:
        super().__init__(1, STALL_SEC)
        self._decoder = decoder

    def run(
        self,
        build: Callable[[], Worker[Any, Any]],
        batches: Iterable[Sequence[Any]],
        *,
        probe: Callable[[Any], object],
        stop: Callable[[], bool],
    ) -> Iterator[list[Any]]:
        mine = self._decoder
        return super().run(partial(mine.before, build), batches, probe=mine, stop=stop)


@pytest.mark.parametrize(
    ("how", "reason"), [("crash", "image.decoder_crashed"), ("hang", "image.decode_timeout")]
)
def test_an_image_that_kills_or_holds_the_decoder(
    ws: Workspace, how: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_PROBE_TIMEOUT_SEC", 1.0)  # ten seconds would be waited for
    make_index(ws, ScanOptions(), stop=StopRequest())
    bad = index.read(ws.store, "00000")["image_sha256"][7]
    maker = faulty()
    executor = ThroughDyingDecoder(DyingDecoder(bad, how))
    tally = caption(ws, maker, executor, batch_size=1 if how == "hang" else 6)
    assert (tally.made, tally.failures) == (NUM_SAMPLES - 1, {reason: 1})
    version = run(ws, maker).version
    assert (version.counts["captioned"], version.counts["quarantined"]) == (NUM_SAMPLES - 1, 1)
    assert quarantine(ws.spec) == {reason: 1}
    check_whole(ws.spec)
