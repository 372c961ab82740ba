"""Facts: never made twice, never lost, the best row wins, copies across shards are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.errors import ConflictError
from curator.store.facts import CAPTIONS, REOPENED, SCORES, Facts, key64
from curator.store.keyindex import CLAIMED, KeyIndex, split_places
from curator.store.store import Store

A, B, C = (letter * 64 for letter in "abc")


def record(
    image: str, text: str | None, *, candidate: int = 0, **more: object
) -> dict[str, object]:
    return {
        "image_sha256": image,
        "candidate": candidate,
        "text": text,
        "text_sha256": text,
        "attempt": 0,
        "created": 1.0,
        **more,
    }


def wanted(*images: str, candidate: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        {"image_sha256": images, "candidate": [candidate] * len(images)},
        schema_overrides={"candidate": pl.Int16},
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store")


def facts_of(store: Store) -> Facts:
    return Facts(store, CAPTIONS, "g")


def write(store: Store, shard: str, *records: dict[str, object], finish: bool = True) -> None:
    writer = facts_of(store).writer(shard)
    writer.add(list(records))
    if finish:
        writer.finish()
    else:
        writer.close()


def test_what_exists_is_not_pending_in_a_file_or_a_journal(store: Store) -> None:
    write(store, "s0", record(A, "a"))
    write(store, "s1", record(B, "b"), finish=False)
    pending = facts_of(store).pending(wanted(A, B, C))
    assert pending["image_sha256"].to_list() == [C]
    assert pending["attempt"].to_list() == [0]


def test_an_image_in_two_shards_is_handed_out_once(store: Store) -> None:
    facts = facts_of(store)
    assert facts.pending(wanted(A, B, A))["image_sha256"].to_list() == [A, B]
    assert facts.pending(wanted(B, C))["image_sha256"].to_list() == [C]


def test_facts_of_many_files_come_in_the_order_they_were_asked_for(store: Store) -> None:
    write(store, "s0", record(C, "c"))
    write(store, "s1", record(A, "a"))
    found = facts_of(store).match(wanted(A, B, C, A), ["text"])
    assert found["text"].to_list() == ["a", None, "c", "a"]


def test_another_candidate_is_another_fact(store: Store) -> None:
    write(store, "s0", record(A, "a"))
    facts = facts_of(store)
    assert len(facts.pending(wanted(A, candidate=1))) == 1
    write(store, "s0", record(A, "second", candidate=1))
    found = facts_of(store).candidates(pl.DataFrame({"image_sha256": [B, A, A]}), ["text"])
    assert found.select("candidate", "text").rows() == [(0, "a"), (1, "second")] * 2


def test_a_fact_made_for_another_shard_is_found(store: Store) -> None:
    write(store, "s0", record(A, "from s0"), record(B, "b"))
    write(store, "s1", record(C, "c"))
    found = facts_of(store).read(wanted(C, A)).sort("image_sha256")
    assert found["text"].to_list() == ["from s0", "c"]


def test_facts_come_row_by_row_and_64_equal_bits_are_not_the_same_fact(store: Store) -> None:
    write(store, "s0", record(A, "a"), record(B, "b"))
    twin = A[:16] + C[16:]  # the same first 64 bits as A
    found = facts_of(store).match(wanted(B, C, twin, A, B), ["text"])
    assert found["text"].to_list() == ["b", None, None, "a", "b"]
    write(store, "s1", record(twin, "twin"), record(A, None, failure="vlm.oom"))
    found = facts_of(store).match(wanted(twin, A), ["text"])
    assert found["text"].to_list() == ["twin", "a"]


def test_a_text_that_is_null_has_no_fact(store: Store) -> None:
    scores = Facts(store, SCORES, "s")
    pairs = pl.DataFrame({"image_sha256": [A]}).with_columns(text_sha256=pl.lit(None, pl.String))
    row = {"image_sha256": A, "text_sha256": "0" * 64, "score": 0.5, "attempt": 0, "created": 1.0}
    writer = scores.writer("s0")
    writer.add([row])
    writer.finish()
    assert Facts(store, SCORES, "s").match(pairs, ["score"])["score"].to_list() == [None]


def test_the_last_attempt_counts_and_among_equals_a_success(store: Store) -> None:
    write(store, "s0", record(A, None, failure="vlm.oom"), record(B, "b"))
    write(store, "s1", record(A, "another process had more luck"))
    write(store, "s0", record(B, None, failure="vlm.stuck", attempt=1))
    found = facts_of(store).read(wanted(A, B)).sort("image_sha256")
    assert found["text"].to_list() == ["another process had more luck", None]
    assert found["failure"].to_list() == [None, "vlm.stuck"]


def test_a_reopened_failure_is_pending_once_and_counts_up(store: Store) -> None:
    write(store, "s0", record(A, None, failure="vlm.refusal"), record(B, "b"))
    assert facts_of(store).reopen(["vlm.refusal"]) == 1
    assert facts_of(store).read(wanted(A))["failure"].to_list() == [REOPENED]
    facts = facts_of(store)
    pending = facts.pending(wanted(A, B))
    assert pending.select("image_sha256", "attempt").rows() == [(A, 2)]
    assert facts.pending(wanted(A)).is_empty()
    write(store, "s0", record(A, "now it works", attempt=2))
    assert facts_of(store).pending(wanted(A)).is_empty()
    assert facts_of(store).read(wanted(A))["text"].to_list() == ["now it works"]
    assert facts_of(store).reopen(["vlm.refusal"]) == 0


def test_finishing_turns_the_journal_into_one_file_named_by_content(store: Store) -> None:
    write(store, "deep/s0", record(A, "a"))
    (path,) = (store.root / "facts").rglob("*.parquet")
    assert path.relative_to(store.facts_dir(CAPTIONS, "g")).as_posix().startswith("deep/s0.")
    assert not list((store.root / "journal").rglob("*.jnl"))
    write(store, "deep/s0", record(A, "a"))  # the same facts again: the same name
    assert len(list((store.root / "facts").rglob("*.parquet"))) == 1


def test_a_journal_has_one_writer(store: Store) -> None:
    first = facts_of(store).writer("s0")
    with pytest.raises(ConflictError) as caught:
        facts_of(store).writer("s0")
    assert caught.value.code == 11
    first.close()


def test_the_key_of_a_caption_counts_the_candidate() -> None:
    # the first 16 hex digits as a number, plus the candidate
    frame = wanted("00000000000000ff" + "0" * 48, candidate=2)
    assert key64(frame, CAPTIONS).tolist() == [0xFF + 2]


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=12),
    st.integers(0, 30),
    st.integers(0, 12),
    st.sampled_from([0, 5, 1000]),
)
def test_the_key_index_agrees_with_a_dictionary(
    files: list[list[int]], asked: int, at_once: int, in_memory: int
) -> None:
    """Also where it is on disk: beyond `in_memory` keys, which lie on different piles."""
    index, truth = KeyIndex(), []
    spread = np.uint64(2**58 + 1)
    known = [(np.array(keys, np.uint64) * spread, number) for number, keys in enumerate(files)]
    index.add_files(known[:at_once], in_memory)
    for later, number in known[at_once:]:
        index.add(later, number)
    for number, file in enumerate(files):
        truth += [(number, row) for row, key in enumerate(file) if key == asked]
    index.add(np.array([31], np.uint64) * spread, CLAIMED)
    keys = np.array([32, asked, 31], np.uint64) * spread
    positions, places = index.find(keys)
    assert set(positions.tolist()) <= {1}
    numbers, rows = split_places(places)
    assert sorted(zip(numbers.tolist(), rows.tolist(), strict=True)) == truth
    assert index.contains(keys).tolist() == [False, bool(truth), True]
