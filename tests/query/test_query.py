"""Read-only SQL: right answers, and nothing else than answers."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core import hashing
from curator.core.errors import DamageError, UsageError
from curator.edits import log as edit_log
from curator.edits.history import Action, Draft, SampleRef
from curator.query import run, worker
from curator.query.run import VIEWS, Request, run_query, schema_of_views
from curator.store.facts import SCORES, Facts
from tests.kit import store, tars
from tests.kit.hostile import SECRET, SQL_ATTACKS
from tests.kit.store import Kit


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return store.small_store(tmp_path_factory.mktemp("query") / "shards")


ON_A1 = {"shard": "00000", "row": 1, "key": "a1", "image_sha256": "1" * 64}
ON_B0 = {"shard": "00001", "row": 0, "key": "b0", "image_sha256": None}
HOSTILE = "'; copy (select 1) to 'x'; --"


@pytest.fixture(scope="module")
def edited(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """The store with five facts in two logs: four edits, of which one was taken back."""
    folder = tmp_path_factory.mktemp("edited") / "shards"
    shutil.copytree(kit.ws.dataset.root, folder)
    mine = Kit(store.open_workspace(str(folder), None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")  # 2023-11-14 22:13:20
        add(mine, ON_A1, "edit", "a man in a red hat", "a man", who="Anna")
        edit_log.add_many(
            mine.ws.store,
            "00000",
            [draft(ON_A1, "edit", "a man", "a woman", seen=0)],
            who=HOSTILE,
            batch="b-1",
        )
        add(mine, ON_B0, "accept", "Three kids with Anna in Paris", who="Ben")
        edit_log.undo(mine.ws.store, "00001#0", who="Anna")
        add(mine, ON_B0, "reject", "Three kids with Anna in Paris", who="Ben")
    return mine


def draft(
    about: dict[str, object],
    action: Action,
    old: str | None,
    new: str | None = None,
    seen: int | None = None,
) -> Draft:
    sample = SampleRef(**about)  # type: ignore[arg-type]  # kwargs of several types
    return Draft(sample=sample, action=action, base_text=old, new_text=new, seen=seen)


def add(
    kit: Kit,
    about: dict[str, object],
    action: Action,
    old: str | None,
    new: str | None = None,
    *,
    who: str,
) -> None:
    edit_log.add(kit.ws.store, draft(about, action, old, new), who=who)


def ask(kit: Kit, sql: str, **changes: object) -> list[dict[str, object]]:
    """The rows, from the worker's code in this process: the same way without the start."""
    head, table = worker.answer(request(kit, sql, **changes))
    assert table is not None, head
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


def request(kit: Kit, sql: str, **changes: object) -> Request:
    known = {
        "root": str(kit.ws.store.root),
        "sql": sql,
        "version": None,
        "shards": None,
        "limit": 1000,
        "timeout_sec": 30.0,
        "memory_mib": 1024,
    }
    return Request(**(known | changes))  # type: ignore[arg-type]  # kwargs of several types


# -- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_views_are_as_documented(kit: Kit, view: run.View) -> None:
    found = ask(kit, f"describe {view.name}")
    columns = {row["column_name"]: row["column_type"] for row in found}
    assert columns == {name: kind for name, (kind, _) in view.columns.items()}


def test_every_view_is_in_the_help() -> None:
    text = schema_of_views()
    assert all(f"{view.name}: {view.about}" in text for view in VIEWS)
    assert max(map(len, text.splitlines())) <= 100


def test_captions_are_those_of_the_newest_version(kit: Kit) -> None:
    # The last policy, "strict", keeps four alt texts and drops five (storekit).
    sql = "select action, count(*) n, any_value(version) v from captions group by 1 order by 1"
    assert ask(kit, sql) == [
        {"action": "dropped", "n": 5, "v": 4},
        {"action": "kept", "n": 4, "v": 4},
        {"action": "quarantined", "n": 1, "v": 4},
    ]


def test_captions_of_another_version_and_of_some_shards(kit: Kit) -> None:
    sql = "select version, shard, count(*) n from captions group by all"
    assert ask(kit, sql, version=3, shards=["00001"]) == [{"version": 3, "shard": "00001", "n": 6}]


def test_versions_can_be_compared(kit: Kit) -> None:
    # From the alt texts to the best: a0, a1, a5 and b3 have another text (storekit).
    sql = """select new.key from all_captions old join all_captions new using (shard, row, slot)
             where old.version = 1 and new.version = 2 and old.text <> new.text order by 1"""
    assert [row["key"] for row in ask(kit, sql)] == ["a0", "a1", "a5", "b3"]


def test_samples_know_where_their_bytes_lie(kit: Kit) -> None:
    sql = "select shard, byte_offset, num_bytes from samples where key = 'b1'"
    (row,) = ask(kit, sql)
    tar = (kit.ws.dataset.root / "00001.tar").read_bytes()
    start, length = row["byte_offset"], row["num_bytes"]
    assert isinstance(start, int)
    assert isinstance(length, int)
    assert tar[start : start + length] == store.image("b1")


def test_facts_carry_their_maker(kit: Kit) -> None:
    sql = "select generator, count(*) n, count(text) texts from generated group by 1"
    # Nine tries, of which one was refused.
    assert ask(kit, sql) == [{"generator": store.GENERATOR, "n": 9, "texts": 8}]
    sql = "select scorer, count(*) n, max(score) best from scores group by 1"
    (row,) = ask(kit, sql)
    # b1 says the same twice and has one score; b2 has none; a3 and a4 one: 2 x 6 + 1 + 1 + 1.
    assert row == {"scorer": store.SCORER, "n": 15, "best": pytest.approx(0.33)}


def test_facts_in_a_journal_are_seen(kit: Kit, tmp_path: Path) -> None:
    mine = store.open_kit(tmp_path)
    writer = Facts(mine.ws.store, SCORES, store.SCORER).writer("00000")
    writer.add([store.score_fact(b"another image", "a text", 0.5)])  # acknowledged, unfinished
    assert ask(mine, "select count(*) n from scores") == [{"n": 16}]
    writer.close()


def test_quarantine_holds_every_kind(kit: Kit) -> None:
    sql = "select stage, reason, retryable, shard, key, maker from quarantine order by key"
    assert ask(kit, sql) == [
        {
            "stage": "caption",
            "reason": "vlm.refusal",
            "retryable": True,
            "shard": "00000",
            "key": "a4",
            "maker": store.GENERATOR,
        },
        {
            "stage": "decode",
            "reason": "image.truncated",
            "retryable": False,
            "shard": "00001",
            "key": "b2",
            "maker": None,
        },
    ]


def test_quarantine_forgets_what_a_retry_mended_and_names_damaged_tars(tmp_path: Path) -> None:
    store.write_shards(tmp_path)
    whole = (tmp_path / "00001.tar").read_bytes()
    (tmp_path / "00002.tar").write_bytes(whole[:-1024])  # cut at its end-of-archive blocks
    mine = store.open_kit(tmp_path)
    captions = Facts(mine.ws.store, "captions", store.GENERATOR)
    mended = store.caption_fact(store.Row("a4", generated="three apples"))
    assert mended is not None
    store.add_facts(captions, "00000", [mended | {"attempt": 1}])
    found = ask(mine, "select reason, key from quarantine where shard <> '00001' order by all")
    # 00002 holds the samples of 00001 again, the broken one too.
    assert found == [
        {"reason": "image.truncated", "key": "b2"},
        {"reason": "tar.no_eof", "key": None},
    ]


def test_edits_are_one_row_each(edited: Kit) -> None:
    when = datetime(2023, 11, 14, 22, 13, 20)  # noqa: DTZ001 - SQL's TIMESTAMP has no zone
    common = {"created": when, "batch": None, "undone": False}
    kids = "Three kids with Anna in Paris"
    assert ask(edited, "select * from edits order by id") == [
        {
            **common, **ON_A1, "id": "00000#0", "action": "edit", "reviewer": "Anna",
            "text_before": "a man in a red hat", "text_after": "a man",
            "text_sha256": hashing.text_sha256("a man"),
        },
        {
            **common, **ON_A1, "id": "00000#1", "action": "edit", "reviewer": HOSTILE,
            "text_before": "a man", "text_after": "a woman", "batch": "b-1",
            "text_sha256": hashing.text_sha256("a woman"),
        },
        {
            **common, **ON_B0, "id": "00001#0", "action": "accept", "reviewer": "Ben",
            "text_before": kids, "text_after": kids, "undone": True,
            "text_sha256": hashing.text_sha256(kids),
        },
        {
            **common, **ON_B0, "id": "00001#2", "action": "reject", "reviewer": "Ben",
            "text_before": kids, "text_after": None, "text_sha256": None,
        },
    ]  # fmt: skip


def test_edits_of_some_shards_and_beside_other_views(edited: Kit) -> None:
    sql = "select id from edits where not undone"
    assert ask(edited, sql, shards=["00001"]) == [{"id": "00001#2"}]
    # Twice in one query, and joined: v2 holds the text that the first edit is about.
    sql = """select e.id, c.text from edits e join all_captions c
             on c.version = 2 and c.shard = e.shard and c.row = e.row and c.text = e.text_before
             where e.batch is null and e.id not in (select id from Edits where undone)
             order by 1"""
    assert ask(edited, sql) == [
        {"id": "00000#0", "text": "a man in a red hat"},
        {"id": "00001#2", "text": "Three kids with Anna in Paris"},
    ]


def test_edits_join_their_scores(edited: Kit, tmp_path: Path) -> None:
    shutil.copytree(edited.ws.dataset.root, tmp_path / "shards")
    mine = Kit(store.open_workspace(str(tmp_path / "shards"), None))
    fact = store.score_fact(b"", "a woman", 0.25) | {"image_sha256": "1" * 64}
    store.add_facts(Facts(mine.ws.store, SCORES, store.SCORER), "00000", [fact])
    sql = "select id, score from edits join scores using (image_sha256, text_sha256)"
    assert ask(mine, sql) == [{"id": "00000#1", "score": 0.25}]


def test_a_damaged_log_is_named_and_only_where_it_is_asked_for(edited: Kit, tmp_path: Path) -> None:
    shutil.copytree(edited.ws.dataset.root, tmp_path / "shards")
    mine = Kit(store.open_workspace(str(tmp_path / "shards"), None))
    path = edit_log.log_path(mine.ws.store, "00001")
    path.write_bytes(tars.flip(path.read_bytes(), 200))
    head, table = worker.answer(request(mine, "select id from edits"))
    assert (head["error"], table) == ("edits.damaged", None)
    assert "is damaged" in str(head["message"])
    with pytest.raises(DamageError, match="is damaged") as damage:
        run_query(mine.ws.store, "select id from edits")
    assert damage.value.reason == "edits.damaged"
    assert ask(mine, "select count(*) n from edits", shards=["00000"]) == [{"n": 2}]
    assert ask(mine, "select count(*) n from samples") == [{"n": 10}]


def test_a_store_without_anything_has_empty_views(tmp_path: Path) -> None:
    store.write_shards(tmp_path)
    empty = Kit(store.open_workspace(str(tmp_path), None, create=True))
    for view in VIEWS:
        assert ask(empty, f"select * from {view.name}") == []


def test_more_rows_than_the_limit(kit: Kit) -> None:
    head, table = worker.answer(request(kit, "select key from samples order by 1", limit=3))
    assert head == {"truncated": True, "renamed": []}
    assert table is not None
    assert table["key"].to_pylist() == ["a0", "a1", "a2"]
    head, table = worker.answer(request(kit, "select key from samples", limit=10))
    assert head == {"truncated": False, "renamed": []}


def test_damage_is_named_and_never_an_answer(tmp_path: Path) -> None:
    mine = store.open_kit(tmp_path)
    (path,) = (mine.ws.store.root / "facts" / "captions").rglob("00000.*.parquet")
    whole = path.read_bytes()
    columns = pq.ParquetFile(path).metadata.row_group(0)
    place = next(c for c in map(columns.column, range(11)) if c.path_in_schema == "text")
    sql = "select text from generated order by 1"
    before = ask(mine, sql)
    found = set()
    start = place.data_page_offset
    for at in range(start, start + place.total_compressed_size, 9):
        path.write_bytes(tars.flip(whole, at))
        head, table = worker.answer(request(mine, sql))
        found.add(head.get("error"))
        # A bit of a page header may mean nothing; then the rows are as they were.
        assert head.get("error") == DamageError.reason or table.to_pylist() == before
    assert DamageError.reason in found


# -- attacks --------------------------------------------------------------------------------------


python_variable = [{"secret": SECRET}]


EDIT_ATTACKS = (
    "insert into edits select * from edits",
    "update edits set reviewer = 'somebody else'",
    "delete from edits",
    "with x as (delete from edits returning *) select * from x",
    "with x as (insert into _edits select * from _edits returning *) select * from x",
    "drop view edits",
    "copy (select * from edits) to '{out}'",
    "with x as (copy (select * from edits) to '{out}') select 1",
    "select * from edits, read_text('{folder}/store/edits/00000.log')",
    "select * from edits, read_blob('{folder}/store/edits/*.log')",
    "select * from edits, read_csv('{secret}')",
    "select * from edits, glob('{folder}/*')",
    "select * from edits; delete from edits",
)


@pytest.mark.parametrize("attack", [*SQL_ATTACKS, *EDIT_ATTACKS, "", "-- nothing"])
@pytest.mark.long
def test_attacks_read_and_write_nothing(
    edited: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    monkeypatch.chdir(tmp_path)
    secret, out = tmp_path / "secret.csv", tmp_path / "out"
    secret.write_text(f"{SECRET}\n")
    (tmp_path / "store").symlink_to(edited.ws.store.root)
    before = snapshot(tmp_path), snapshot(edited.ws.dataset.root)
    sql = attack.format(secret=secret, out=out, folder=tmp_path)
    head, table = worker.answer(request(edited, sql))
    assert table is None
    assert head["error"] in ("query.refused", "query.invalid")
    assert SECRET not in str(head)
    assert (snapshot(tmp_path), snapshot(edited.ws.dataset.root)) == before


@pytest.mark.long
def test_a_foreign_file_among_the_logs_is_damage_and_not_shown(edited: Kit, tmp_path: Path) -> None:
    shutil.copytree(edited.ws.dataset.root, tmp_path / "shards")
    mine = Kit(store.open_workspace(str(tmp_path / "shards"), None))
    secret = tmp_path / "secret.csv"
    secret.write_text(f"{SECRET}\n")
    (mine.ws.store.root / "edits" / "00002.log").symlink_to(secret)
    head, table = worker.answer(request(mine, "select * from edits"))
    assert (head["error"], table) == ("edits.damaged", None)
    assert SECRET not in str(head)


def test_there_are_no_secrets_to_list(kit: Kit) -> None:
    assert ask(kit, "select * from duckdb_secrets()") == []


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_looks_like_an_attack_inside_a_text_is_a_text(kit: Kit) -> None:
    sql = "select 'copy (select 1) to ''x''; drop table samples' as t from samples limit 1"
    assert ask(kit, sql) == [{"t": "copy (select 1) to 'x'; drop table samples"}]


# -- names and values that not everybody can hold --------------------------------------------------


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a", "b"], ["a", "b"]),
        (["key", "key"], ["key", "key_1"]),
        (["key", "key", "key"], ["key", "key_1", "key_2"]),
        (["key", "key", "key_1"], ["key", "key_2", "key_1"]),  # who has a name already keeps it
        (["key_1", "key", "key"], ["key_1", "key", "key_2"]),
        (["key", "Key"], ["key", "Key_1"]),  # one name to DuckDB and to many readers of Parquet
        (["a", "a", "A_1", "A"], ["a", "a_2", "A_1", "A_3"]),
    ],
)
def test_no_two_columns_share_a_name(names: list[str], found: list[str]) -> None:
    new, said = worker.distinct(names)
    assert new == found
    assert len(said) == sum(a != b for a, b in zip(names, found, strict=True))


@given(st.lists(st.sampled_from(["a", "A", "a_1", "a_2", "a_1_1", "A_3", "b"]), max_size=12))
def test_names_are_distinct_whatever_they_were(names: list[str]) -> None:
    new, _ = worker.distinct(names)
    assert len({name.lower() for name in new}) == len(names)
    assert all(one.startswith(name) for one, name in zip(new, names, strict=True))


def test_a_join_keeps_all_its_columns(kit: Kit) -> None:
    head, table = worker.answer(
        request(
            kit, "select s.key, c.key from captions c join samples s using (shard, row) limit 1"
        )
    )
    assert table is not None
    assert table.column_names == ["key", "key_1"]
    assert head["renamed"] == ["column 2, 'key', is shown as 'key_1': its name is taken"]


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        # of its own accord DuckDB gives -1
        ("'340282366920938463463374607431768211455'::UHUGEINT",
         "340282366920938463463374607431768211455"),
        ("'12:00:00+02'::TIMETZ", "12:00:00+02"),
        ("'\\xAA\\x00'::BLOB", "\\xAA\\x00"),
        ("'101'::BIT", "101"),
        ("interval 1 day", "1 day"),
        ("[interval 1 day]", "[1 day]"),
        ("map{'a': 1}", "{a=1}"),
        ("'2020-01-01 00:00:00.123456789'::TIMESTAMP_NS", "2020-01-01 00:00:00.123456789"),
        ("'infinity'::TIMESTAMP", "infinity"),
        ("[date '200000-01-01']", "[200000-01-01]"),
        ("{'a': 1, 'b': ['x']}", {"a": 1, "b": ["x"]}),
        ("sum(3)", 3),
        ("1.5::DECIMAL(3, 1)", Decimal("1.5")),
        ("'a'::ENUM('a', 'b')", "a"),
    ],
)  # fmt: skip
def test_values_arrive_as_they_are(kit: Kit, sql: str, value: object) -> None:
    (row,) = ask(kit, f"select {sql} as x, 1 as X")
    assert row == {"x": value, "X_1": 1}


# -- the process ----------------------------------------------------------------------------------


def test_run_query_gives_the_rows(kit: Kit) -> None:
    sql = "select text from captions where text like '%bold%' or text like '%riding%'"
    result = run_query(kit.ws.store, sql, version=1)
    assert sorted(result.table["text"].to_pylist()) == [
        "a <b>bold</b> sign",
        "a man riding a bike",
    ]
    assert result.truncated is False


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        # Never ends; DuckDB could be interrupted here.
        ("with recursive t(n) as (select 1 union all select n + 1 from t) select max(n) from t",
         "query.timeout"),
        # 17 GB in one list, beside DuckDB's own memory limit.
        ("select len(range(2000000000))", "query.too_large"),
        # Too many groups for the limit, and no disk to spill to.
        ("select count(*) from (select distinct range from range(200000000))", "query.too_large"),
    ],
)  # fmt: skip
@pytest.mark.long
def test_run_query_bounds_time_and_memory(kit: Kit, sql: str, reason: str) -> None:
    timeout_sec = 6.0 if reason == "query.timeout" else 600.0  # the second: whatever comes first
    with pytest.raises(UsageError) as caught:
        run_query(kit.ws.store, sql, timeout_sec=timeout_sec, memory_mib=512)
    assert caught.value.reason == reason


def test_what_libraries_print_does_not_reach_the_answer(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB drew a progress bar into it after two seconds; anything else may print as well."""
    noisy = run._START.replace("main(to)", "os.write(1, b'bar'); print('said'); main(to)")
    monkeypatch.setattr(run, "_START", noisy)
    assert run_query(kit.ws.store, "select 7 as n").table.to_pylist() == [{"n": 7}]


def test_no_progress_bar_is_drawn(kit: Kit) -> None:
    sql = "select value from duckdb_settings() where name = 'enable_progress_bar'"
    assert ask(kit, sql) == [{"value": "false"}]


@pytest.mark.parametrize("timeout_sec", [0.0, -1.0, math.nan, math.inf, 1e12])
def test_a_time_that_is_none(kit: Kit, timeout_sec: float) -> None:
    with pytest.raises(UsageError, match="allowed: above 0, up to 86,400 seconds"):
        run_query(kit.ws.store, "select 1", timeout_sec=timeout_sec)


def test_any_number_of_rows_may_be_asked_for(kit: Kit) -> None:
    assert ask(kit, "select 1 as n", limit=10**30) == [{"n": 1}]


def test_a_query_in_bytes_that_the_locale_has_not(kit: Kit) -> None:
    typed = "select 'é' as x".encode().decode("ascii", "surrogateescape")
    assert run_query(kit.ws.store, typed).table.to_pylist() == [{"x": "é"}]
    with pytest.raises(UsageError, match="the query is not UTF-8"):
        run_query(kit.ws.store, "select '\udcff'")


def test_the_process_can_be_started_before_the_question(kit: Kit) -> None:
    with run.QueryProcess() as process:
        assert process.is_alive
        found = process.run(kit.ws.store, "select count(*) as n from samples")
        assert found.table.to_pylist() == [{"n": 10}]
        assert not process.is_alive, "one process, one query"


def test_a_process_without_a_question_ends(kit: Kit) -> None:
    with run.QueryProcess() as left:
        pass
    dropped = run.QueryProcess()
    child = dropped._child
    del dropped
    assert (left._child.returncode, child.returncode) == (-signal.SIGKILL, -signal.SIGKILL)
    with run.QueryProcess() as parentless:  # as when the dashboard is killed
        assert parentless._child.stdin is not None
        parentless._child.stdin.close()
        assert parentless._child.wait() == 0


_LOADED = """
import sys; from curator.query import lean; lean.hide(); from curator.query import worker
heavy = {"pandas", "numpy", "polars", "PIL", "rich", "pydantic", "obstore"}
print(sorted(heavy & set(sys.modules)))
lean.numpy_again(); import numpy
"""


def test_it_starts_without_what_no_count_needs() -> None:
    """Each of these takes longer to load than the query takes."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADED], capture_output=True, check=True, env=run._environment()
    )
    assert done.stdout == b"[]\n"


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
@pytest.mark.long
def test_the_process_reads_every_view(edited: Kit, view: run.View) -> None:
    """Also those that load more, in a process that started without numpy."""
    table = run_query(edited.ws.store, f"select * from {view.name}").table
    assert table.column_names == list(view.columns)
    assert table.to_pylist() == ask(edited, f"select * from {view.name}")


def test_run_query_reads_the_edits(edited: Kit) -> None:
    result = run_query(edited.ws.store, "select reviewer from edits where batch = 'b-1'")
    assert result.table.to_pylist() == [{"reviewer": HOSTILE}]


def test_errors_name_what_is_allowed(kit: Kit) -> None:
    with pytest.raises(UsageError, match=r"samples, captions\(version, shard, row, key") as caught:
        run_query(kit.ws.store, "select txt from captions")
    assert caught.value.reason == "query.invalid"
    assert caught.value.code == 2


def test_damage_ends_with_its_own_error(tmp_path: Path) -> None:
    mine = store.open_kit(tmp_path)
    path = mine.ws.store.index_path("00000")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamageError):
        run_query(mine.ws.store, "select * from samples")


def test_the_process_gets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert SECRET not in str(run._environment())


def test_it_imports_what_this_process_can_import(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of a table may name a module on PYTHONPATH; it used to be lost on the way."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(run, "_START", f"import only_here; {run._START}")
    (tmp_path / "only_here.py").write_text("")
    assert run_query(kit.ws.store, "select 1 as one").table.to_pylist() == [{"one": 1}]
    monkeypatch.syspath_prepend(tmp_path / "gone")
    assert str(tmp_path / "gone") not in run._environment()["PYTHONPATH"]


def test_the_kernel_forbids_the_process_to_write(kit: Kit, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import sys; from curator.query import worker as w; from curator.query.run import Request; "
        "w._limit_process(Request(root='', sql='', version=None, shards=None, limit=1,"
        " timeout_sec=5, memory_mib=512)); open(sys.argv[1], 'wb', 0).write(b'x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], capture_output=True, check=False, env=os.environ
    )
    assert b"File too large" in done.stderr
    assert out.read_bytes() == b""
