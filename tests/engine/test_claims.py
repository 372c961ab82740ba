"""Several processes on one store: each shard is worked on by one of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
import pytest

from curator.core.errors import StoppedError
from curator.core.stopping import StopRequest
from curator.engine import claims as claims_module
from curator.engine.claims import Claims
from curator.shards.dataset import ShardRef
from curator.store.facts import CAPTIONS, REOPENED, SHARD, Facts
from curator.store.store import Store
from tests.kit import tars
from tests.kit.cli import curator
from tests.kit.paths import ROOT

REFS = [ShardRef(f"{number:05d}", Path(f"{number:05d}.tar")) for number in range(4)]
NUM_SHARDS, NUM_SAMPLES = 8, 25


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store")


def names(refs: Iterable[ShardRef]) -> list[str]:
    return [ref.name for ref in refs]


def test_a_shard_is_taken_by_one_and_left_by_the_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Claims(store) as mine, Claims(store) as theirs:
        rounds = mine.rounds(REFS, stop=StopRequest())
        taking = mine.take(next(rounds))
        assert names([next(taking), next(taking)]) == ["00000", "00001"]

        others = theirs.rounds(REFS, stop=StopRequest())
        taken = theirs.take(next(others))
        assert names([next(taken)]) == ["00002"]
        assert names(list(taking)) == ["00003"]
        assert list(taken) == []

        for name in ("00000", "00001", "00003"):
            mine.free(name)
        waits: list[float] = []

        def sleep(sec: float) -> None:
            waits.append(sec)
            theirs.free("00002")

        monkeypatch.setattr(claims_module.time, "sleep", sleep)
        assert names(next(rounds)) == ["00002"]
        assert waits == [claims_module.POLL_SEC]
        assert names(list(mine.take([REFS[2]]))) == ["00002"]
        assert next(rounds, None) is None
        assert names(next(others)) == ["00000", "00001", "00003"]
    assert [path for path in (store.root / "claims").rglob("*") if path.is_file()] == []


def test_what_another_process_did_meanwhile_is_not_needed(store: Store) -> None:
    with Claims(store) as mine, Claims(store) as theirs:
        assert names(list(mine.take(REFS, needed=lambda ref: ref.name == "00001"))) == ["00001"]
        assert names(list(theirs.take(REFS))) == ["00000", "00002", "00003"]


def test_waiting_can_be_stopped(store: Store) -> None:
    stop = StopRequest()
    with Claims(store) as mine, Claims(store) as theirs:
        list(theirs.take(REFS))
        rounds = mine.rounds(REFS, stop=stop)
        list(mine.take(next(rounds)))
        stop.signum = signal.SIGINT
        with pytest.raises(StoppedError, match="finished shards are kept"):
            next(rounds)


def test_facts_of_others_are_seen_once_a_shard_is_taken(store: Store) -> None:
    first, second = "a" * 64, "b" * 64

    def record(image: str) -> dict[str, object]:
        return {"image_sha256": image, "candidate": 0, "attempt": 0, "created": 1.0, "text": image}

    store.write_recipe(CAPTIONS, "echo-12345678", {})
    mine, theirs = (Facts(store, CAPTIONS, "echo-12345678") for _ in range(2))
    assert mine.files() == theirs.files() == []
    writer = theirs.writer("00000")
    writer.add([record(first)])
    writer.add([record(second)])
    writer.close()  # as if it died
    mine.refresh("00001")
    assert len(mine.files()) == 0  # only the shard that was taken counts
    mine.refresh("00000")
    assert len(mine.files()) == 1
    wanted = pl.DataFrame({"image_sha256": [second, first, "c" * 64]}).with_columns(
        candidate=pl.lit(0, pl.Int16)
    )
    assert mine.pending(wanted)["image_sha256"].to_list() == ["c" * 64]
    again = theirs.writer("00000")
    again.finish()
    mine.refresh("00000")
    assert mine.match(wanted, ["text"])["text"].to_list() == [second, first, None]


def test_a_retry_that_another_process_made_is_not_made_again(store: Store) -> None:
    wanted = pl.DataFrame({"image_sha256": ["a" * 64], "candidate": pl.Series([0], dtype=pl.Int16)})
    store.write_recipe(CAPTIONS, "echo-12345678", {})

    def write(facts: Facts, **record: object) -> None:
        writer = facts.writer("00000")
        writer.add([{"image_sha256": "a" * 64, "candidate": 0, "created": 1.0, **record}])
        writer.finish()

    write(Facts(store, CAPTIONS, "echo-12345678"), failure=REOPENED, attempt=1)
    mine, theirs = (Facts(store, CAPTIONS, "echo-12345678") for _ in range(2))
    assert len(mine.files()) == 1
    assert theirs.pending(wanted)["attempt"].to_list() == [2]
    write(theirs, text="a red ball", attempt=2)
    mine.refresh("00000")
    assert mine.pending(wanted).is_empty()


def test_records_in_a_journal_that_another_process_took_over_are_seen(store: Store) -> None:
    """Small shards share a journal: one died, a second took shard 00000, and this one 00001."""
    store.write_recipe(CAPTIONS, "echo-12345678", {})
    mine, theirs, dead = (Facts(store, CAPTIONS, "echo-12345678") for _ in range(3))
    assert mine.files() == theirs.files() == []
    shared = {"candidate": 0, "attempt": 0, "created": 1.0}
    writer = dead.writer("00000")
    writer.add([{"image_sha256": "a" * 64, **shared}])
    writer.add([{"image_sha256": "b" * 64, **shared, SHARD: "00001"}])
    writer.close()
    writer = theirs.writer("00000")
    mine.refresh("00001")
    wanted = pl.DataFrame({"image_sha256": ["a" * 64, "b" * 64]}).with_columns(
        candidate=pl.lit(0, pl.Int16)
    )
    assert mine.pending(wanted)["image_sha256"].to_list() == ["a" * 64]
    writer.finish()
    mine.refresh("00001")
    assert len(mine.files()) == 3  # its rows in the journal, and a file for each shard


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    for shard in range(NUM_SHARDS):
        data = tars.tar(tars.samples(NUM_SAMPLES, first=NUM_SAMPLES * shard))
        (tmp_path / "shards" / f"{shard:05d}.tar").write_bytes(data)
    return tmp_path / "shards"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server that needs a while for each image and logs those that it answered."""
    command = [sys.executable, "-m", "tests.kit.model_server", "--latency", "0.05", "--log"]
    with subprocess.Popen(
        [*command, tmp_path / "answered"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        server.send_signal(signal.SIGTERM)


def start(shards: Path, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "curator", "recaption", shards, "--captioner", "server"]
    command += ["--model", "m", "--url", url, "--policy", "replace", "--concurrency", "4"]
    return subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def answered(tmp_path: Path) -> Counter[str]:
    """How often each image was answered."""
    path = tmp_path / "answered"
    return Counter(line.split()[0] for line in path.read_text().splitlines())


def captions(shards: Path) -> list[str]:
    query = "SELECT key, text FROM captions ORDER BY key"
    return curator("query", f"{shards}@v1", query, "--csv").out.splitlines()


def test_two_processes_share_the_shards_of_one_store(
    tmp_path: Path, shards: Path, url: str
) -> None:
    processes = [start(shards, url) for _ in range(2)]
    said = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    made = answered(tmp_path)
    assert len(made) == NUM_SHARDS * NUM_SAMPLES
    assert set(made.values()) == {1}
    assert curator("fsck", shards, "--deep").code == 0
    assert len(list((shards / ".curator/versions").glob("*.json"))) == 1


def test_the_other_goes_on_with_the_shards_of_one_that_was_killed(
    tmp_path: Path, shards: Path, url: str
) -> None:
    first, second = start(shards, url), start(shards, url)
    log = tmp_path / "answered"
    while not log.exists() or log.read_text().count("\n") < NUM_SAMPLES * 2:
        time.sleep(0.01)
    first.kill()
    first.communicate()
    _, told = second.communicate(timeout=240)
    assert second.returncode == 0, told
    made = answered(tmp_path)
    assert len(made) == NUM_SHARDS * NUM_SAMPLES
    again = sum(made.values()) - len(made)
    assert again <= 2 * 16 + 4, "two batches whose answers were not all there yet, and requests"
    assert curator("fsck", shards, "--deep").code == 0
