"""`fsck --repair` keeps what is intact, sets aside what is damaged, and says what is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator.edits import log as edit_log
from curator.edits.history import Draft, SampleRef
from curator.steps.fsck import FsckReport, check
from curator.steps.fsck_files import SET_ASIDE
from curator.store.facts import CAPTIONS, Facts
from curator.store.journal import Journal, replay
from tests.kit.store import GENERATOR, Kit, Row, caption_fact, small_store
from tests.kit.tars import flip

ROWS = [caption_fact(Row(f"z{number}", generated=f"caption {number}")) or {} for number in range(4)]


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return small_store(tmp_path / "shards", ["best"])


def repaired(kit: Kit, path: Path) -> tuple[str, FsckReport]:
    """What was said of a file; afterwards nothing is damaged, and a second call does nothing."""
    assert [f.where for f in check(kit.ws.spec, None, deep=True, repair=False).damage] == [
        str(path)
    ]
    report = check(kit.ws.spec, None, deep=True, repair=True)
    assert report.damage == []
    assert check(kit.ws.spec, None, deep=True, repair=True).repaired == []
    (said,) = {finding.what for finding in report.repaired if finding.where == str(path)}
    return said, report


def test_a_journal_keeps_what_is_intact(kit: Kit) -> None:
    writer = Facts(kit.ws.store, CAPTIONS, GENERATOR).writer("00001")
    for row in ROWS:
        writer.add([row])
    writer.close()
    path = kit.ws.store.journal_path(CAPTIONS, GENERATOR, "00001")
    data = path.read_bytes()
    bad = flip(data, len(data) // 3)  # in the second of four
    path.write_bytes(bad)
    said, _ = repaired(kit, path)
    assert (
        said == f"set aside as 00001.jnl{SET_ASIDE}; 3 facts are kept, the next run makes the rest"
    )
    assert replay(path).records == [ROWS[0], *ROWS[2:]]
    assert path.with_name(f"00001.jnl{SET_ASIDE}").read_bytes() == bad
    journal = Journal(path)
    journal.append([ROWS[1]])
    journal.close()
    assert len(replay(path).records) == 4


def test_a_log_of_edits_keeps_what_is_intact(kit: Kit) -> None:
    sample = SampleRef(shard="00000", row=0, key="a0", image_sha256="1" * 64)
    store, texts = kit.ws.store, ["a", "b", "c"]
    for text in texts:
        draft = Draft(sample=sample, action="edit", base_text=text, new_text=f"{text}!")
        edit_log.add(store, draft, who="Anna")
    edit_log.undo(store, "00000#2", who="Anna")
    path = edit_log.log_path(store, "00000")
    data = path.read_bytes()
    path.write_bytes(flip(data, data.index(b'"b!"') + 1))
    said, _ = repaired(kit, path)
    assert said == f"set aside as 00000.log{SET_ASIDE}; 3 edits are kept, at least 1 are lost"
    kept = edit_log.history(store, "00000").edits
    assert [(one.number, one.new_text, one.undoes) for one in kept] == [
        (0, "a!", None), (1, "c!", None), (2, "c!", 1),
    ]  # fmt: skip
    assert edit_log.add(store, draft, who="Ben").number == 3


@pytest.mark.parametrize("what", ["facts", "tag", "listing"])
def test_other_files_are_set_aside(kit: Kit, what: str) -> None:
    store = kit.ws.store
    store.tag("good", store.version(1))
    path = {
        "facts": next(store.facts_dir(CAPTIONS, GENERATOR).glob("00000.*.parquet")),
        "tag": store.root / "tags" / "good.json",
        "listing": store.root / "listings" / CAPTIONS / f"{GENERATOR}.log",
    }[what]
    path.write_bytes(flip(path.read_bytes(), 20))
    report = check(kit.ws.spec, None, deep=True, repair=True)
    assert report.damage == []
    assert report.repaired[0].where == str(path)
    assert path.with_name(path.name + SET_ASIDE).exists()
    assert path.exists() == (what == "listing")
