"""Two processes on one store, each with shards of its own: the natural split over machines.

What one reads may be a journal that the other turns into a table at any moment. The moments are
chosen here, by hand; `tests.kit.two_worker` lets real processes choose them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from curator.browse.health import failures
from curator.browse.shelf import FactShelf
from curator.core.errors import ConflictError
from curator.core.run_options import RunOptions
from curator.core.stopping import StopRequest
from curator.policy.decider import Decider, Inputs
from curator.policy.model import load_policy
from curator.shards.scan import ScanOptions
from curator.steps.decide import MakerChoice, decide
from curator.steps.fsck import fsck
from curator.steps.index import make_index
from curator.steps.workspace import open_workspace
from curator.store import facts as facts_module
from curator.store import fsops, index
from curator.store.facts import CAPTIONS, Facts, FactWriter
from curator.store.journal import replay
from curator.store.store import Store
from curator.store.versions import version_id
from tests.kit import tars
from tests.kit.store import maker_name, open_kit

ECHO = maker_name("echo", {"captioner": "echo"})
A, B, C, D = ("".join([x] * 64) for x in "abcd")
ENV = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "POLARS_MAX_THREADS": "1"}


def record(image: str, text: str | None, **more: object) -> dict[str, object]:
    key = {"image_sha256": image, "candidate": 0, "attempt": 0, "created": 1.0}
    return {**key, "text": text, "text_sha256": text, **more}


def wanted(*images: str) -> pl.DataFrame:
    return pl.DataFrame({"image_sha256": images}).with_columns(candidate=pl.lit(0, pl.Int16))


def texts(facts: Facts, *images: str) -> list[str | None]:
    return facts.match(wanted(*images), ["text"])["text"].to_list()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.create(tmp_path / "store")
    made.write_recipe(CAPTIONS, ECHO, {"captioner": "echo"})
    return made


def other(store: Store, shard: str = "s1") -> FactWriter:
    """The other process, in the middle of a shard."""
    writer = Facts(store, CAPTIONS, ECHO).writer(shard)
    writer.add([record(B, "b"), record(A, "a")])  # the table will have them in another order
    return writer


def test_a_journal_that_becomes_a_table_is_still_read_right(store: Store) -> None:
    writer = other(store)
    facts = Facts(store, CAPTIONS, ECHO)
    assert texts(facts, A, B, C) == ["a", "b", None]
    writer.add([record(C, "c")])
    writer.finish()
    assert texts(facts, A, B) == ["a", "b"]
    assert facts.candidates(wanted(B, A).drop("candidate"), ["text"])["text"].to_list() == [
        *("b", "a")
    ]
    assert facts.pending(wanted(A, B, C))["image_sha256"].to_list() == [C]  # not there when asked
    assert texts(Facts(store, CAPTIONS, ECHO), A, B, C) == ["a", "b", "c"]


def test_a_new_journal_under_the_name_of_one_that_was_read_is_not_taken_for_it(
    store: Store,
) -> None:
    writer = other(store)
    facts = Facts(store, CAPTIONS, ECHO)
    facts.files()
    writer.finish()
    again = Facts(store, CAPTIONS, ECHO).writer("s1")
    again.add([record(D, "d"), record(C, "c"), record(B, "b again", attempt=1)])
    assert texts(facts, A, B) == ["a", "b"]
    again.close()


@pytest.mark.parametrize("when", ["before it is read", "after it is read"])
def test_a_journal_that_ends_while_files_are_listed_is_seen_once_or_as_a_table(
    store: Store, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    writer = other(store)

    def reading(path: Path) -> object:
        monkeypatch.setattr(facts_module, "replay", replay)
        found = replay(path)
        writer.finish()
        return found if when == "after it is read" else replay(path)

    monkeypatch.setattr(facts_module, "replay", reading)
    facts = Facts(store, CAPTIONS, ECHO)
    assert texts(facts, A, B) == ["a", "b"]
    assert facts_module.replay is replay, "the journal was read"
    assert facts.pending(wanted(A, B)).is_empty()


def test_the_dashboard_counts_failures_beside_a_job_that_ends(store: Store) -> None:
    writer = Facts(store, CAPTIONS, ECHO).writer("s1")
    writer.add([record(B, None, failure="vlm.refusal"), record(A, "a")])
    shelf = FactShelf(store)
    shelf.get(CAPTIONS, ECHO)
    writer.finish()
    (found,) = failures(store, shelf)
    assert dict(found.reasons) == {"vlm.refusal": 1}


def test_fsck_beside_a_job_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = open_kit(tmp_path / "shards")
    writer = other(kit.ws.store)
    from curator.steps import fsck as module

    def reading(path: Path) -> object:
        writer.finish()
        return replay(path)

    monkeypatch.setattr(module, "replay", reading)
    report = fsck(kit.ws)
    assert report.damage == []
    assert not any("of an unfinished run" in notice.what for notice in report.notices)


def test_a_decision_beside_a_job_that_ends(tmp_path: Path) -> None:
    """Deciding has looked for facts, the other process ends its shard, deciding goes on."""
    kit = open_kit(tmp_path / "shards")
    store = kit.ws.store
    store.write_recipe(CAPTIONS, ECHO, {"captioner": "echo"})
    images = index.read(store, "00000", ["image_sha256"])["image_sha256"].to_list()
    writer = Facts(store, CAPTIONS, ECHO).writer("00000")
    writer.add([record(image, f"caption {n}") for n, image in enumerate(reversed(images))])
    inputs = Inputs(shards=("00000",), generators=(ECHO,))
    decider = Decider(store, load_policy("replace").model_copy(update={"rule": ()}), inputs)
    decider.prepare()
    writer.finish()
    found = decider.decide("00000")
    assert found["text"].to_list() == [f"caption {n}" for n in (5, 4, 3, 2, 1, 0)]


# -- a shard that is indexed anew meanwhile -----------------------------------------------------


def shard_of(captions: list[str]) -> bytes:
    files: tars.Files = []
    for number, caption in enumerate(captions):
        files += tars.sample(f"k{number}", number, caption=caption)
    return tars.tar(files)


def in_front_of(at: str, work: Callable[[], None]) -> None:
    """Do something in front of the first write step on a path with `at` in it."""
    done = []

    def hook(_operation: str, path: Path) -> None:
        if at in path.as_posix() and not done:
            done.append(at)
            work()

    fsops.set_step_hook(hook)


@pytest.mark.parametrize("captions", [["other", "words"], ["one more", "sample", "here"]])
def test_a_decision_is_not_mixed_with_a_shard_that_was_indexed_anew(
    tmp_path: Path, captions: list[str]
) -> None:
    """The rows of a decision belong to the index it was made from: else nothing is committed."""
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "00000.tar").write_bytes(shard_of(["first", "second"]))
    (shards / "00001.tar").write_bytes(shard_of(["third", "fourth"]))
    ws = open_workspace(str(shards), None, create=True)
    make_index(ws, ScanOptions(), stop=StopRequest())

    def replace() -> None:
        (shards / "00001.tar").write_bytes(shard_of(captions))
        make_index(ws, ScanOptions(), stop=StopRequest())

    in_front_of("captions/00000", replace)
    policy = load_policy("as-is")
    try:
        with pytest.raises(ConflictError) as caught:
            decide(ws, policy, MakerChoice(), RunOptions(max_quarantine=1.0), stop=StopRequest())
    finally:
        fsops.set_step_hook(None)
    assert "re-indexed the shard" in str(caught.value)
    assert ws.store.numbers() == []
    version, _ = decide(
        ws, policy, MakerChoice(), RunOptions(max_quarantine=1.0), stop=StopRequest()
    )
    assert version.num_samples == 2 + len(captions)
    assert version.id == version_id(version.policy, version.shards)
    assert fsck(ws, deep=True).damage == []


# -- real processes -----------------------------------------------------------------------------


def rounds(folder: Path, number: int) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.kit.two_worker", str(folder), str(number)]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(600)
def test_two_real_processes_on_disjoint_shards(tmp_path: Path) -> None:
    assert rounds(tmp_path, 6) == {"rounds": 6, "violations": []}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_50_rounds_of_two_real_processes(tmp_path: Path) -> None:
    assert rounds(tmp_path, 50) == {"rounds": 50, "violations": []}
