"""Damaged and busy stores through the real command: refused, named, and left as they are.

A store that was damaged after the fact, and configuration that is wrong. Whatever is damaged is
named with its path, what was expected and what was found; nothing is repaired behind one's back.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator.core import hashing
from curator.engine.makers import captioner_maker
from curator.store import batchlog, fsops, versions
from curator.store.facts import CAPTIONS
from curator.store.journal import Journal
from curator.store.listing import listing_of
from curator.store.store import Store
from curator.store.versions import ShardEntry, Version
from tests.kit import tars
from tests.kit.cli import check_whole, curator, recaption

KEEP = 'name = "keep"\nsources = ["alt_text"]\npick = "first"\n'


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards with a store of two versions."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(2):
        data = tars.tar(tars.samples(4, first=4 * number))
        (folder / f"{number:05d}.tar").write_bytes(data)
    (tmp_path / "keep.toml").write_text(KEEP)
    assert recaption(folder).code == 0
    assert curator("decide", folder, "--policy", tmp_path / "keep.toml").code == 0
    return folder


def store(shards: Path) -> Path:
    return shards / ".curator"


def manifest(shards: Path, number: int) -> Path:
    return store(shards) / "versions" / f"{number:06d}.json"


def damaged(shards: Path, *command: object) -> list[str]:
    """fsck and another command both exit 12; returns what fsck lists."""
    said = curator("fsck", shards, "--deep", "--json")
    assert (said.code, said.exit_line["code"]) == (12, 12), said.out
    if command:
        other = curator(*command, shards, "--json")
        assert other.code == 12, other.err
        assert other.exit_line["path"] is not None
    return [f"{finding['where']}: {finding['what']}" for finding in said.json["damage"]]


def rewrite(path: Path, change: Callable[[dict[str, Any]], None], *, seal: bool = True) -> None:
    """Change a manifest; `seal` gives it the checksum that fits."""
    outer = json.loads(path.read_bytes())
    change(outer["manifest"])
    if seal:
        outer["sha256"] = hashing.digest(outer["manifest"])
    path.write_bytes(hashing.canonical_json(outer))


def test_a_truncated_manifest(shards: Path) -> None:
    path = manifest(shards, 2)
    path.write_bytes(path.read_bytes()[:-40])
    (found,) = damaged(shards, "log")
    assert found.startswith(f"{path}: the manifest is unreadable")
    said = curator("show", shards)
    assert "restore the file from a backup" in said.err
    assert curator("show", f"{shards}@v1").code == 0, "the other version can be read"


def test_a_wrong_hash(shards: Path) -> None:
    path = manifest(shards, 1)
    rewrite(path, lambda body: body.update(tool_version="9.9"), seal=False)
    (found,) = damaged(shards, "log")
    assert "checksum is " in found
    assert ", expected " in found


def test_content_that_is_not_what_the_id_says(shards: Path) -> None:
    # sealed again by whoever changed it, but the id is a digest of the decision
    rewrite(manifest(shards, 2), lambda body: body["policy"].update(pick="best"))
    assert any("the id does not match the content" in found for found in damaged(shards, "show"))


def test_an_unknown_field_is_kept(shards: Path) -> None:
    rewrite(manifest(shards, 2), lambda body: body.update(from_the_future={"a": 1}))
    assert curator("fsck", shards).code == 0
    assert curator("show", shards, "--json").json["extra"]["from_the_future"] == {"a": 1}
    version = Store.open(store(shards)).version(2)
    assert (
        versions.to_json(version)
        == hashing.canonical_json(json.loads(manifest(shards, 2).read_bytes())) + b"\n"
    )


def test_an_unknown_field_of_a_shard_is_another_format(shards: Path) -> None:
    rewrite(manifest(shards, 2), lambda body: body["shards"][0].update(colour="red"))
    assert any("other fields than format 1" in found for found in damaged(shards, "show"))


@pytest.mark.parametrize("what", ["manifest", "store"])
def test_a_newer_format(shards: Path, what: str) -> None:
    if what == "manifest":
        rewrite(manifest(shards, 2), lambda body: body.update(format=2))
    else:
        (store(shards) / "store.json").write_text('{"format": 2}')
    said = curator("log", shards, "--json")
    assert (said.code, said.exit_line["error"]) == (13, "store.too_new")
    assert "format 2 is newer than this tool supports (1)" in said.err
    assert "upgrade caption-curator" in said.err


def test_a_cycle_of_parents(shards: Path) -> None:
    second = json.loads(manifest(shards, 2).read_bytes())["manifest"]["id"]
    rewrite(manifest(shards, 1), lambda body: body.update(parent=second))
    (found,) = damaged(shards)
    assert f"parent is {second}, expected None" in found


def test_a_version_that_is_gone(shards: Path) -> None:
    assert curator("tag", f"{shards}@v1", "first").code == 0
    manifest(shards, 1).unlink()
    found = damaged(shards)
    assert any("numbers are not 1..n: [2]" in one for one in found)
    assert any("names version 1, which does not exist" in one for one in found)
    said = curator("show", f"{shards}@first", "--json")
    assert (said.code, said.exit_line["what"]) == (12, "version 1 is missing")


def test_a_store_that_cannot_be_read(shards: Path) -> None:
    (store(shards) / "store.json").write_text("{")
    assert curator("log", shards).code == 12
    assert curator("recaption", shards, "--captioner", "echo", "--policy", "replace").code == 12


def test_fifty_thousand_shards(tmp_path: Path) -> None:
    # a twentieth of the million of the table, which takes a minute: the cost is linear
    entry = ShardEntry(
        name="", digest="0" * 64, num_samples=10_000, counts={"kept": 10_000},
        rows_digest="1" * 64, file="captions/x.parquet", file_sha256="2" * 64,
    )  # fmt: skip
    shards = tuple(replace(entry, name=f"{number:06d}") for number in range(50_000))
    big = Version(
        number=1, id="", parent=None, created=1.0, tool_version="0", policy={"name": "keep"},
        thresholds={}, makers={}, totals={}, shards=shards,
    )  # fmt: skip
    opened = Store.create(tmp_path)
    committed, _ = opened.commit(replace(big, id=versions.version_id(big.policy, shards)))
    found = opened.version(1)
    assert found == committed
    assert (len(found.shards), found.num_samples) == (50_000, 500_000_000)


def decision(shards: Path) -> Path:
    return sorted((store(shards) / "captions").rglob("00000.*.parquet"))[0]


def facts(shards: Path) -> Path:
    return sorted((store(shards) / "facts" / CAPTIONS).rglob("*.parquet"))[0]


def an_index(shards: Path) -> Path:
    return store(shards) / "index" / "00000.parquet"


FILES = {"decision": decision, "facts": facts, "index": an_index}
every_file = pytest.mark.parametrize("file", FILES)


@every_file
def test_flipped_bits(shards: Path, file: str) -> None:
    """40 single bits, spread over the file: pages, their headers, the footer."""
    path = FILES[file](shards)
    data = path.read_bytes()
    rows = pq.read_table(path, partitioning=None)
    for number in range(40):
        path.write_bytes(tars.flip(data, len(data) * number // 40, mask=1 << (number % 8)))
        said = curator("fsck", shards, "--deep", "--json")
        if said.code == 0:
            # Nothing names the hash of an index, it is derived: a flip may go unseen in what
            # Parquet writes and nobody reads (sizes of strings, offsets of pages), and only there.
            assert file == "index"
            assert pq.read_table(path, partitioning=None).equals(rows)
            continue
        assert said.code == 12, said.err
        assert any(finding["where"] == str(path) for finding in said.json["damage"])


@every_file
@pytest.mark.parametrize("kind", ["cut", "column", "type", "rows", "gone", "text"])
def test_another_table(shards: Path, file: str, kind: str) -> None:
    path = FILES[file](shards)
    table = pq.read_table(path, partitioning=None)
    name = table.column_names[0]
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "column":
        pq.write_table(table.drop_columns(name), path)
    elif kind == "type":
        wider = pa.array([str(value) for value in table[name].to_pylist()])
        other = wider if pa.types.is_integer(table[name].type) else pa.array([1] * len(table))
        pq.write_table(table.set_column(0, name, other), path)
    elif kind == "rows":
        pq.write_table(pa.concat_tables([table, table]), path)
    elif kind == "text":
        path.write_text("what is this")
    else:
        path.unlink()
    if (file, kind) == ("facts", "gone"):
        # its listing names it; who has no copy lets it go, and what it held is made again
        assert f"{path}: the file is missing, but its listing names it" in damaged(shards)
        assert recaption(shards).exit_line["error"] == "file.missing"
        assert (
            f"REPAIR  {path}: removed from its listing" in curator("fsck", shards, "--repair").out
        )
        assert recaption(shards).json["captioned"]["made"] == 4
        check_whole(shards)
        return
    if (file, kind) == ("index", "gone"):
        assert f"{path}: the file is missing; `curator index` rebuilds it" in damaged(shards)
        # derived from the shard: made again as well
        assert recaption(shards).code == 0
        check_whole(shards)
        return
    found = damaged(shards)
    assert any(one.startswith(f"{path}: ") for one in found), found


@pytest.mark.parametrize("file", ["facts", "index"])
def test_no_command_decides_on_damaged_tables(shards: Path, file: str) -> None:
    path = FILES[file](shards)
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    before = sorted((store(shards) / "versions").iterdir())
    for command in (("recaption", "--captioner", "echo"), ("decide",)):
        said = curator(command[0], shards, *command[1:], "--policy", "replace", "--json")
        assert (said.code, said.exit_line["path"]) == (12, str(path)), said.err
    assert sorted((store(shards) / "versions").iterdir()) == before


def test_a_pickle_in_a_table_is_never_executed(shards: Path, tmp_path: Path) -> None:
    # pyarrow < 14.0.1 unpickled the type of such a column when it read the schema (CVE-2023-47248)
    target = tmp_path / "executed"

    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (target,))

    path = decision(shards)
    table = pq.read_table(path, partitioning=None)
    field = table.schema.field("text").with_metadata(
        {
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": pickle.dumps(Attack()),
        }
    )
    schema = table.schema.set(table.schema.get_field_index("text"), field)
    pq.write_table(table.cast(schema), path)
    assert damaged(shards)
    # without --deep the table is opened, by `query` as well
    curator("fsck", shards)
    curator("query", shards, "select count(*) from captions")
    curator("export", f"{shards}@v1", tmp_path / "out")
    assert not target.exists()


def test_a_recipe_that_cannot_be_read(shards: Path) -> None:
    path = facts(shards).parent / "maker.json"
    path.write_bytes(path.read_bytes()[:-5])
    (found,) = damaged(shards)
    assert found == f"{path}: the recipe is unreadable"
    path.unlink()
    (found,) = damaged(shards)
    assert found == f"{path}: the recipe is missing"
    assert curator("decide", shards, "--policy", "replace").code == 12


@pytest.fixture
def journal(tmp_path: Path) -> tuple[Path, Path]:
    """(shards, the journal of their captions): two captions acknowledged, then a crash."""
    shards = tmp_path / "journaled"
    shards.mkdir()
    (shards / "00000.tar").write_bytes(tars.tar(tars.samples(4)))
    assert recaption(shards).code == 0
    made = facts(shards)
    records = pq.read_table(made, partitioning=None).to_pylist()[:2]
    made.unlink()
    listing_of(Store(store(shards)), CAPTIONS, made.parent.name).add([("lost", made)])
    maker = captioner_maker("echo").name
    path = Store(store(shards)).journal_path(CAPTIONS, maker, "00000")
    writer = Journal(path)
    writer.append(records)
    writer.close()
    return shards, path


@pytest.mark.parametrize(
    "tail", [b"#", b"#00000001 0000", batchlog.batch(1, b"[" + b" " * 99)[:-7], bytes(40)]
)
def test_a_torn_tail_is_cut_and_said(journal: tuple[Path, Path], tail: bytes) -> None:
    shards, path = journal
    path.write_bytes(path.read_bytes() + tail)
    notices = curator("fsck", shards, "--json").json["notices"]
    assert (
        f"2 facts of an unfinished run; the next run uses them, {len(tail)} bytes torn"
        in notices[0]["what"]
    )
    said = recaption(shards)
    assert said.code == 0, said.err
    assert said.json["captioned"]["made"] == 2, "what was acknowledged is not made again"
    assert f"00000: removed {len(tail)} bytes of a record" in said.err
    check_whole(shards)


def test_a_flipped_bit_is_no_torn_tail(journal: tuple[Path, Path]) -> None:
    """Whatever was acknowledged is not asked for again: both commands stop, and nothing is cut."""
    shards, path = journal
    data = path.read_bytes()
    for place in (0, 40, len(data) // 2, len(data) - 1):
        path.write_bytes(tars.flip(data, place))
        bad = path.read_bytes()
        (found,) = damaged(shards)
        assert found.startswith(f"{path}: the batch at byte 0 is damaged")
        said = recaption(shards)
        assert (said.code, said.exit_line["error"]) == (12, "journal.damaged")
        assert "curator fsck DATASET --repair" in said.err
        assert path.read_bytes() == bad


def test_two_writers(journal: tuple[Path, Path]) -> None:
    shards, path = journal
    other = fsops.Appender(path)
    try:
        said = recaption(shards)
    finally:
        other.close()
    assert (said.code, said.exit_line["error"]) == (11, "lock.held")
    assert said.exit_line["path"] == str(path)
    assert "wait for it or stop it, then run the same command again" in said.err
    assert recaption(shards).code == 0
    check_whole(shards)


# Row 61 also names a journal of another run. There is none to refuse: a journal belongs to a maker
# (whose name digests its recipe) and its records to images, so one of another run is one's own.


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (KEEP + "pik = 1\n", "unknown key 'pik': did you mean 'pick'?"),
        (
            KEEP.replace("first", "frist"),
            "pick is 'frist': Input should be 'best', 'first' or 'all'",
        ),
        (
            KEEP + "[weights]\nalt_text = -1\n",
            "weights.alt_text is -1: Input should be greater than",
        ),
        ("!!python/object/apply:os.system ['false']", "not valid TOML"),
        ("name = [", "not valid TOML"),
        ("\0\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "not valid TOML"),
    ],
    ids=["unknown-key", "value", "negative", "yaml-object", "cut", "binary"],
)
def test_policies(shards: Path, tmp_path: Path, policy: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(policy)
    done = curator("decide", shards, "--policy", path, "--json")
    assert (done.code, done.exit_line["error"]) == (2, "policy.invalid")
    assert said in done.err
    assert str(path) in done.err


def test_a_policy_that_is_no_text(shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"name = '\xff\xfe'")
    done = curator("decide", shards, "--policy", path, "--json")
    assert (done.code, done.exit_line["error"]) == (2, "policy.invalid"), done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--batch-size", -1), "'--batch-size'"),
        (("--workers", 0), "'--workers'"),
        (("--max-quarantine", 2), "'--max-quarantine'"),
        (("--candidates", 0), "'--candidates'"),
        (("--max-tokens", -5), "max_tokens is -5"),
        (("--temperature", 9), "temperature is 9.0"),
        (("--top-p", 0), "top_p is 0.0"),
        (("--seed", -1), "seed is -1"),
        (("--stall-timeout", -1), "--stall-timeout"),
        (("--policy", "rplace"), "did you mean 'replace'?"),
        (("--policy", "no/such.toml"), "there is no policy file"),
        (("--captioner", "eco"), "did you mean 'echo'?"),
        (("--prompt", "shrt"), "did you mean 'short'?"),
        (("--scorer", "clp", "--policy", "best"), "did you mean 'clip'?"),
        (("--only", "best 30%"), "write --only 'worst 30%'"),
        (("--image-ext", ".JPG"), "image_ext is '.JPG'"),
        (("--caption-field", "a..b"), "caption_field is 'a..b'"),
        (("--url", "http://u:secret@host/v1"), "--url works only with --captioner server"),
        (("--captioner", "server", "--url", "http://h/v1"), "needs --url and --model"),
        (("--captioner", "server", "--url", "file:///x", "--model", "m"), "url"),
        (("--no-such-option",), "No such option"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_options(tmp_path: Path, options: tuple[object, ...], said: str) -> None:
    (tmp_path / "00000.tar").write_bytes(tars.tar(tars.samples(2)))
    done = recaption(tmp_path, *options)
    assert done.code == 2, done.err
    assert said in done.err
    assert "secret" not in done.err
    assert not (tmp_path / ".curator").exists(), "nothing was written"
