"""Human edits as facts: what is acknowledged stays, what comes too late is refused by name.

Many writers at once, as threads and as killed processes; in full size in the slow suite.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curator.core.errors import ConflictError, DamageError, NotFoundError, StorageError, UsageError
from curator.core.text import clean_str
from curator.edits import log as edit_log
from curator.edits.history import Draft, Edit, SampleRef, follow
from curator.store import fsops
from curator.store.store import Store

DOG = SampleRef(shard="00000", row=0, key="a0", image_sha256="1" * 64)
CAT = SampleRef(shard="00000", row=1, key="a1", image_sha256="2" * 64)
FAR = SampleRef(shard="sub/00001", row=0, key="b0", image_sha256="3" * 64)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store")


def change(old: str | None, new: str, *, sample: SampleRef = DOG, seen: int | None = None) -> Draft:
    return Draft(sample=sample, action="edit", base_text=old, new_text=new, seen=seen)


def accept(text: str, *, sample: SampleRef = DOG, seen: int | None = None) -> Draft:
    return Draft(sample=sample, action="accept", base_text=text, seen=seen)


def reject(text: str, *, sample: SampleRef = DOG, seen: int | None = None) -> Draft:
    return Draft(sample=sample, action="reject", base_text=text, seen=seen)


def wanted(store: Store, sample: SampleRef, text: str | None) -> tuple[str | None, str] | None:
    """What a text of a sample became, and by which action."""
    applied = follow(edit_log.history(store, sample.shard).in_effect(sample), text)
    return (applied[-1].result, applied[-1].action) if applied else None


# -- one edit --------------------------------------------------------------------------------------


def test_an_edit_is_kept_as_it_was_made(store: Store) -> None:
    made = edit_log.add(store, change("a dog", "a brown dog"), who="Anna  B.")
    assert (made.id, made.who, made.base_text, made.new_text) == (
        "00000#0", "Anna B.", "a dog", "a brown dog",
    )  # fmt: skip
    assert edit_log.history(store, "00000").edits == [made]
    row = edit_log.newest(store).row(0, named=True)
    assert (row["id"], row["text"], row["action"]) == ("00000#0", "a brown dog", "edit")
    assert edit_log.newest(store, ["00000"]).height == 1
    assert edit_log.edited_shards(store) == ["00000"]


def test_an_edit_is_on_disk_before_it_is_acknowledged(store: Store) -> None:
    steps: list[tuple[str, str]] = []
    fsops.set_step_hook(lambda operation, path: steps.append((operation, path.name)))
    try:
        edit_log.add(store, accept("x"), who="Anna")
        undone = edit_log.undo(store, "00000#0", who="Anna")
    finally:
        fsops.set_step_hook(None)
    written = [step for step in steps if step[1] == "00000.log" and step[0] != "open_append"]
    assert written == [("append", "00000.log"), ("append", "00000.log"), ("fsync", "00000.log")] * 2
    assert ("fsync_dir", "edits") in steps, "the new file's name as well"
    assert edit_log.history(store, "00000").edits[-1] == undone


def test_shards_in_folders_and_samples_without_text(store: Store) -> None:
    made = edit_log.add(store, change(None, "a red house", sample=FAR), who="a")
    assert made.id == "sub/00001#0"
    assert edit_log.edited_shards(store) == ["sub/00001"]
    assert wanted(store, FAR, None) == ("a red house", "edit")
    edit_log.undo(store, made.id, who="a")
    assert wanted(store, FAR, None) is None


def test_edits_build_upon_each_other(store: Store) -> None:
    one = edit_log.add(store, change("x", "y"), who="anna")
    two = edit_log.add(store, change("y", "z", seen=one.number), who="ben")
    assert [wanted(store, DOG, text) for text in "xyz"] == [("z", "edit"), ("z", "edit"), None]
    assert [edit.id for edit in edit_log.history(store, "00000").heads()] == [two.id]
    back = edit_log.add(store, change("z", "x", seen=two.number), who="anna")  # round in a circle
    assert wanted(store, DOG, "x") == ("x", "edit")
    edit_log.add(store, reject("x", seen=back.number), who="ben")
    assert wanted(store, DOG, "y") == ("x", "reject")


def test_what_people_wrote_is_what_a_version_may_get(store: Store) -> None:
    edit_log.add(store, accept("seen by somebody"), who="anna")  # nobody wrote it
    one = edit_log.add(store, change("x", "y"), who="anna")
    edit_log.add(store, change("y", "z", seen=one.number), who="ben")
    edit_log.add(store, change("other", "z"), who="ben")  # another slot, the same text
    back = edit_log.add(store, change(None, "a cat", sample=CAT), who="anna")
    assert list(edit_log.history(store, "00000").written()) == [(DOG, "z"), (CAT, "a cat")]
    edit_log.add(store, reject("a cat", sample=CAT, seen=back.number), who="ben")
    assert list(edit_log.history(store, "00000").written()) == [(DOG, "z")]


@pytest.mark.parametrize(
    ("draft", "what"),
    [
        (lambda: change("a dog", "  \u200b "), "the new text is empty"),
        (lambda: change("a dog", " a  dog\n"), "the new text equals the old one"),
        (lambda: change("a dog", "x" * 10_001), "10,001 characters"),
        (lambda: Draft(sample=DOG, action="accept", base_text=None), "has no text to accept"),
        (lambda: Draft(sample=DOG, action="reject", base_text="x", new_text="y"), "is only for"),
        (lambda: Draft(sample=DOG, action="undo", base_text="x"), "action is 'undo'"),  # type: ignore[arg-type]  # the point
    ],
)
def test_an_edit_that_says_nothing_is_refused(draft: object, what: str) -> None:
    assert callable(draft)
    with pytest.raises(UsageError, match=what):
        draft()


@pytest.mark.parametrize("who", ["", " \t", "x" * 61, "\u202e"])
def test_an_edit_has_a_name(store: Store, who: str) -> None:
    with pytest.raises(UsageError, match="reviewer's name"):
        edit_log.add(store, accept("x"), who=who)
    assert edit_log.edited_shards(store) == []


def test_what_is_typed_becomes_one_clean_line(store: Store) -> None:
    made = edit_log.add(store, change("x", " two\nlines \x00 and \u202e a trick "), who="a")
    assert made.new_text == "two lines and a trick"


# -- coming too late -------------------------------------------------------------------------------


def test_a_stale_edit_is_refused_by_name(store: Store) -> None:
    edit_log.add(store, change("a dog", "a cat"), who="Anna")
    with pytest.raises(ConflictError) as refused:
        edit_log.add(store, change("a dog", "a cow"), who="Ben")
    said = str(refused.value)
    assert "'a dog' of 'a0' (shard 00000) was changed by 'Anna' at 20" in said
    assert "to 'a cat'; your edit was not recorded" in said
    assert refused.value.reason == "edits.stale"
    assert len(edit_log.history(store, "00000").edits) == 1


def test_the_same_edit_is_one_also_when_somebody_agreed_in_between(store: Store) -> None:
    one, two = (edit_log.add(store, reject("x"), who=who) for who in ("Anna", "Ben"))
    assert edit_log.add(store, reject("x"), who="Anna") == one
    assert edit_log.history(store, "00000").edits == [one, two]


def test_somebody_elses_verdict_is_not_overruled_unseen(store: Store) -> None:
    one = edit_log.add(store, reject("x"), who="Anna")
    for draft in (accept("x"), change("x", "y")):
        with pytest.raises(ConflictError, match="was rejected by 'Anna'"):
            edit_log.add(store, draft, who="Ben")
    edit_log.add(store, accept("x", seen=one.number), who="Ben")  # who has seen it may
    assert wanted(store, DOG, "x") == ("x", "accept")


def test_agreeing_is_no_conflict(store: Store) -> None:
    one, two = (edit_log.add(store, change("x", "y"), who=who) for who in ("Anna", "Ben"))
    assert one.id != two.id
    assert edit_log.newest(store)["who"].to_list() == ["Ben"]  # one row for the text
    edit_log.undo(store, one.id, who="Anna")
    assert wanted(store, DOG, "x") == ("y", "edit"), "Ben still wants it"


def test_the_same_edit_sent_twice_is_one(store: Store) -> None:
    assert edit_log.add(store, accept("x"), who="Anna") == edit_log.add(
        store, accept("x"), who="Anna"
    )
    assert len(edit_log.history(store, "00000").edits) == 1


def test_an_edit_of_a_text_that_was_put_back_is_refused(store: Store) -> None:
    one = edit_log.add(store, change("x", "y"), who="Anna")
    edit_log.undo(store, one.id, who="Cleo")
    with pytest.raises(ConflictError, match=r"'y' .* was restored by 'Cleo'"):
        edit_log.add(store, accept("y", seen=one.number), who="Ben")
    with pytest.raises(ConflictError, match="is not the result of edit 0"):
        edit_log.add(store, accept("q", seen=one.number), who="Ben")
    with pytest.raises(ConflictError, match="is not the result of edit 7"):
        edit_log.add(store, accept("y", seen=7), who="Ben")
    edit_log.add(store, change("x", "z"), who="Ben")  # the text is as if nothing had been


def test_another_picture_in_the_same_place_is_another_sample(store: Store) -> None:
    edit_log.add(store, change("x", "y"), who="Anna")
    new = SampleRef(shard="00000", row=0, key="a0", image_sha256="9" * 64)  # the shard was replaced
    edit_log.add(store, change("x", "z", sample=new), who="Ben")
    assert wanted(store, new, "x") == ("z", "edit")
    assert wanted(store, DOG, "x") == ("y", "edit")


# -- taking back -----------------------------------------------------------------------------------


def test_undo(store: Store) -> None:
    one = edit_log.add(store, change("x", "y"), who="Anna")
    undone = edit_log.undo(store, one.id, who="Ben")
    assert (undone.action, undone.undoes, undone.who) == ("undo", 0, "Ben")
    assert wanted(store, DOG, "x") is None
    assert edit_log.newest(store).is_empty()
    assert [edit.action for edit in edit_log.everything(store)] == ["undo", "edit"]
    with pytest.raises(ConflictError, match="was already undone by 'Ben'"):
        edit_log.undo(store, one.id, who="Anna")
    with pytest.raises(UsageError, match="is an undo"):
        edit_log.undo(store, undone.id, who="Anna")


def test_undo_leaves_what_others_built_upon(store: Store) -> None:
    one = edit_log.add(store, change("x", "y"), who="Anna")
    two = edit_log.add(store, change("y", "z", seen=0), who="Ben")
    with pytest.raises(ConflictError, match=r"'Ben' at .* has built on 00000#0") as refused:
        edit_log.undo(store, one.id, who="Anna")
    assert refused.value.hint == f"undo {two.id} first"
    edit_log.undo(store, two.id, who="Anna")
    edit_log.undo(store, one.id, who="Anna")
    assert wanted(store, DOG, "x") is None


@pytest.mark.parametrize("name", ["00000#1", "00000", "#0", "00000#-1", "../store#0", "00000#x"])
def test_undo_of_what_is_not_there(store: Store, name: str) -> None:
    edit_log.add(store, accept("x"), who="Anna")
    with pytest.raises(NotFoundError, match="there is no edit"):
        edit_log.undo(store, name, who="Anna")


def test_a_batch_comes_and_goes_as_one(store: Store) -> None:
    edit_log.add(store, change("a", "b", sample=CAT), who="Anna")
    drafts = [change("x", "y"), change("a", "c", sample=CAT)]
    made, refused = edit_log.add_many(store, "00000", drafts, who="Ben", batch="r1")
    assert [edit.row for edit in made] == [0]
    assert ["was changed by 'Anna'" in str(one) for one in refused] == [True]
    edit_log.add_many(store, "sub/00001", [change("x", "y", sample=FAR)], who="Ben", batch="r1")
    edit_log.add(store, change("y", "z", sample=FAR, seen=0), who="Anna")
    undone, kept = edit_log.undo_batch(store, "r1", who="Ben")
    assert [edit.id for edit in undone] == ["00000#2"]
    assert ["has built on sub/00001#0" in str(one) for one in kept] == [True]
    with pytest.raises(NotFoundError, match="no edit 'r2'"):
        edit_log.undo_batch(store, "r2", who="Ben")


# -- the log ---------------------------------------------------------------------------------------


def filled(folder: Path) -> tuple[Store, bytes]:
    store = Store.create(folder / "store")
    for number, text in enumerate("abc"):
        edit_log.add(store, change(text, f"{text} ü {number}"), who="Anna")
    return store, edit_log.log_path(store, "00000").read_bytes()


def test_a_log_cut_anywhere_keeps_what_was_whole(tmp_path: Path) -> None:
    store, data = filled(tmp_path)
    path = edit_log.log_path(store, "00000")
    whole = edit_log.history(store, "00000").edits
    lines = [place for place, byte in enumerate(data) if byte == ord("\n")]
    for size in sorted({*range(0, len(data), 19), *lines, *(line + 1 for line in lines)}):
        path.write_bytes(data[:size])
        kept = data[:size].count(b"\n") // 2  # a line says what follows, and an edit is one
        assert edit_log.history(store, "00000").edits == whole[:kept]
        made = edit_log.add(store, accept("d"), who="Ben")
        assert edit_log.history(store, "00000").edits == [*whole[:kept], made]
        assert edit_log.torn_bytes(store, "00000") == 0


def test_a_flipped_bit_is_noticed_and_nothing_is_written_behind_it(tmp_path: Path) -> None:
    store, data = filled(tmp_path)
    path = edit_log.log_path(store, "00000")
    for place in range(len(data)):
        bad = data[:place] + bytes([data[place] ^ 0x04]) + data[place + 1 :]
        path.write_bytes(bad)
        with pytest.raises(DamageError):
            edit_log.history(store, "00000")
        with pytest.raises(DamageError):
            edit_log.add(store, accept("d"), who="Ben")
        assert path.read_bytes() == bad


def test_a_line_that_is_gone_is_noticed(tmp_path: Path) -> None:
    store, data = filled(tmp_path)
    lines = data.splitlines(keepends=True)
    edit_log.log_path(store, "00000").write_bytes(b"".join(lines[:2] + lines[4:]))
    with pytest.raises(DamageError, match="or one is missing"):
        edit_log.history(store, "00000")


def old_log(data: bytes) -> bytes:
    """As it was written before there were batches: the lines of edits alone."""
    return b"".join(line for line in data.splitlines(keepends=True) if not line.startswith(b"#"))


def test_old_logs_are_read_and_go_on(tmp_path: Path) -> None:
    store, data = filled(tmp_path)
    path, whole = edit_log.log_path(store, "00000"), edit_log.history(store, "00000").edits
    path.write_bytes(old_log(data) + b"1234abcd {half")
    assert edit_log.history(store, "00000").edits == whole
    assert edit_log.torn_bytes(store, "00000") == 14
    made = edit_log.add(store, accept("d"), who="Ben")
    assert edit_log.history(store, "00000").edits == [*whole, made]
    assert path.read_bytes().startswith(old_log(data) + b"#00000000 ")


def test_a_flipped_bit_in_an_old_log_is_noticed(tmp_path: Path) -> None:
    store, data = filled(tmp_path)
    path, old = edit_log.log_path(store, "00000"), old_log(data)
    for place in range(len(old)):
        bad = old[:place] + bytes([old[place] ^ 0x04]) + old[place + 1 :]
        path.write_bytes(bad)
        with pytest.raises(DamageError):
            edit_log.add(store, accept("d"), who="Ben")
        assert path.read_bytes() == bad
    lines = old.splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(DamageError, match="line 2 is edit 2, expected 1"):
        edit_log.history(store, "00000")


def test_a_log_that_stays_locked_is_a_named_conflict(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edit_log, "LOCK_WAIT_SEC", 0.05)
    holder = fsops.Appender(edit_log.log_path(store, "00000"))
    with pytest.raises(ConflictError, match="another process is writing"):
        edit_log.add(store, accept("x"), who="Anna")
    holder.close()
    edit_log.add(store, accept("x"), who="Anna")


def test_a_full_disk_is_named_and_leaves_a_log_that_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_log.add(store, accept("x"), who="Anna")
    for at in range(1, 5):
        monkeypatch.setattr(fsops._failpoint, "fault", 28)  # ENOSPC
        monkeypatch.setattr(fsops._failpoint, "count", 0)
        monkeypatch.setattr(fsops._failpoint, "at", at)
        with pytest.raises(StorageError):
            edit_log.add(store, change("y", f"z{at}", sample=CAT), who="Ben")
        monkeypatch.setattr(fsops._failpoint, "at", 0)
        assert len(edit_log.history(store, "00000").edits) == 1
    edit_log.add(store, change("y", "z", sample=CAT), who="Ben")


words = st.text(max_size=40)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=5))
@pytest.mark.long
def test_any_text_and_any_name_come_back(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[str, str, str]]
) -> None:
    store = Store.create(tmp_path_factory.mktemp("any"))
    made = []
    for row, (base, new, who) in enumerate(asked):
        sample = SampleRef(shard="00000", row=row, key=base[:8], image_sha256=None)
        try:
            made.append(
                edit_log.add(store, change(clean_str(base).text, new, sample=sample), who=who)
            )
        except UsageError:
            continue
    assert edit_log.history(store, "00000").edits == made


ACTS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"), st.booleans(), st.integers(0, 9)),
    max_size=25,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ACTS)
def test_whatever_reviewers_do_the_last_one_who_saw_it_all_is_followed(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, str, bool, int]]
) -> None:
    """One text, many hands: it ends where a plain variable would, undos included."""
    store = Store.create(tmp_path_factory.mktemp("many"))
    done: list[Edit] = []  # a stack of what is in effect
    for old, new, is_undo, who in acts:
        name = f"r{who}"
        if is_undo:
            if done:
                edit_log.undo(store, done.pop().id, who=name)
            continue
        now = done[-1].new_text if done else "a"
        draft = change(old, new, seen=done[-1].number if done else None) if old != new else None
        if draft is None or old != now:
            continue
        done.append(edit_log.add(store, draft, who=name))
    expected = (done[-1].new_text, "edit") if done else None
    assert wanted(store, DOG, "a") == expected


# -- many at once, and kill -9 ----------------------------------------------------------------


def storm(root: Path, *, num_sessions: int, num_edits: int, num_samples: int) -> Counter[str]:
    """Sessions in threads, each with its own view of the texts; checks that nothing was lost."""
    store = Store.create(root)
    acknowledged: list[Edit] = []
    outcome: Counter[str] = Counter()
    names: list[str] = []
    guard = threading.Lock()
    all_looked = threading.Barrier(num_sessions)

    def session(number: int) -> None:
        generator = random.Random(number)
        own = Store.open(root)
        for turn in range(num_edits):
            sample = SampleRef(
                shard=f"0000{generator.randrange(2)}" if turn else "00000",
                row=generator.randrange(num_samples) if turn else 0,
                key="k",
                image_sha256=None,
            )
            applied = follow(edit_log.history(own, sample.shard).in_effect(sample), "start")
            seen = applied[-1] if applied else None
            base = seen.result if seen else "start"
            if turn == 0:
                all_looked.wait()  # all have seen the same text, and one of them is the first
            time.sleep(generator.random() * 0.002)  # somebody thinks, others are faster
            draft = change(
                base, f"{number}/{turn}", sample=sample, seen=seen.number if seen else None
            )
            try:
                made = edit_log.add(own, draft, who=f"r{number}")
            except ConflictError as error:
                with guard:
                    outcome["refused"] += 1
                    names.append(str(error))
            else:
                with guard:
                    outcome["acknowledged"] += 1
                    acknowledged.append(made)

    threads = [threading.Thread(target=session, args=(number,)) for number in range(num_sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = [edit for shard in ("00000", "00001") for edit in edit_log.history(store, shard).edits]
    assert sorted(edit.id for edit in kept) == sorted(edit.id for edit in acknowledged)
    assert {edit.id: edit for edit in kept} == {edit.id: edit for edit in acknowledged}
    assert all(" by 'r" in name for name in names), "a refusal names who was faster"
    for row in range(num_samples):  # every edit in effect builds on the one before it
        for shard in ("00000", "00001"):
            sample = SampleRef(shard=shard, row=row, key="k", image_sha256=None)
            here = edit_log.history(store, shard).in_effect(sample)
            assert follow(here, "start") == here
    return outcome


def test_sessions_at_once_lose_no_edit(tmp_path: Path) -> None:
    outcome = storm(tmp_path / "store", num_sessions=8, num_edits=10, num_samples=3)
    assert outcome.total() == 80
    assert outcome["refused"] >= 7, "of the first turn"


@pytest.mark.slow
def test_50_sessions_of_20_edits_lose_no_edit(tmp_path: Path) -> None:
    outcome = storm(tmp_path / "store", num_sessions=50, num_edits=20, num_samples=10)
    assert outcome.total() == 1000
    assert outcome["refused"] >= 49


def killed(root: Path, *, num_processes: int, num_kills: int) -> Counter[str]:
    """Writers that say what was acknowledged; some die at once, and others take their place."""
    Store.create(root)
    generator = random.Random(0)
    outcome: Counter[str] = Counter()
    said: list[Path] = []

    def start() -> subprocess.Popen[bytes]:
        path = root.parent / f"said{len(said)}"
        said.append(path)
        command = [
            sys.executable,
            "-m",
            "tests.kit.edit_worker",
            "write",
            str(root),
            str(len(said)),
        ]
        with path.open("wb") as out:
            return subprocess.Popen(command, stdout=out)

    running = [start() for _ in range(num_processes)]
    while outcome["killed"] < num_kills:
        time.sleep(generator.uniform(0.05, 0.2))
        number = generator.randrange(num_processes)
        process = running[number]
        if said[-1].stat().st_size == 0 and process.poll() is None:
            continue  # let the newest one begin, or nothing would ever be written
        process.kill()
        outcome["killed"] += process.wait() == -signal.SIGKILL
        running[number] = start()
    for process in running:
        process.kill()
        process.wait()
    store = Store.open(root)
    kept = {
        edit.id: edit
        for s in edit_log.edited_shards(store)
        for edit in edit_log.history(store, s).edits
    }
    for path in said:
        for line in path.read_bytes().split(b"\n")[:-1]:
            told = json.loads(line)
            outcome["acknowledged"] += 1
            edit = kept[told["id"]]
            assert [edit.base_text, edit.new_text, edit.who] == told["edit"]
    outcome["kept"] = len(kept)
    return outcome


@pytest.mark.long
def test_kill_9_loses_no_acknowledged_edit(tmp_path: Path) -> None:
    outcome = killed(tmp_path / "store", num_processes=3, num_kills=6)
    assert outcome["acknowledged"] > 20
    # at most the edit that each one was writing is there without having been acknowledged
    assert outcome["acknowledged"] <= outcome["kept"] <= outcome["acknowledged"] + 9


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_100_kills_lose_no_acknowledged_edit(tmp_path: Path) -> None:
    outcome = killed(tmp_path / "store", num_processes=6, num_kills=100)
    assert outcome["acknowledged"] > 1000


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("verb", "points"), [("edit", 20), ("apply", 12)])
@pytest.mark.long
def test_a_kill_before_any_write_step_loses_nothing(verb: str, points: int, tmp_path: Path) -> None:
    """The sweep of tests/reliability/test_crash.py over what edits write."""
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-m", "tests.kit.edit_worker", "sweep", verb, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["points"] >= points
    assert result["violations"] == []
