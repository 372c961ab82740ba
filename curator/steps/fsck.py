"""Check that the store is intact, and list all damage. Changes nothing without `repair`.

The invariants (reliability I1-I9): every visible version opens and every file it names exists;
version numbers are contiguous, each version has one parent; every sample of a shard has exactly one
action (conservation) and every key occurs once; no temporary file is referenced; journals are
readable to their end; every edit that a version was made from is still in its log.
`deep` also hashes every file, including the source shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from curator.core import hashing, progress
from curator.core.errors import CuratorError, DamageError
from curator.edits.log import history, log_path, logs_there, torn_bytes
from curator.policy.decider import read_decision
from curator.ratings import log as rating_log
from curator.shards.digest import short
from curator.shards.places import has_digest, stamp
from curator.steps import fsck_files
from curator.steps.apply_edits import LOGS
from curator.steps.fsck_files import SET_ASIDE, Finding
from curator.steps.repair import repair as repair_files
from curator.steps.workspace import STORE_FOLDER, StoreName, Workspace, open_workspace
from curator.store import index, parquet
from curator.store.facts import CAPTIONS, SCORES, check_file
from curator.store.fsops import TEMP_PREFIX
from curator.store.journal import replay
from curator.store.listing import MISSING
from curator.store.schemas import CAPTION_SCHEMA, DECISION_SCHEMA, INDEX_SCHEMA, SCORE_SCHEMA
from curator.store.store import Store
from curator.store.versions import ACTIONS, ShardEntry, Version


@dataclass(slots=True)
class FsckReport:
    """The findings of one check. `damage` is empty for an intact store; `notices` are harmless.

    `repaired` lists what --repair did. `is_store` is False for the folder of a study, run or
    export.
    """

    num_versions: int = 0
    num_files: int = 0
    num_samples: int = 0
    damage: list[Finding] = field(default_factory=list)
    notices: list[Finding] = field(default_factory=list)
    repaired: list[Finding] = field(default_factory=list)
    is_store: bool = True


def check(spec: str, store: StoreName | None, *, deep: bool, repair: bool) -> FsckReport:
    """Check the store of a dataset, or the folder of a study, run or export.

    Raises:
        UsageError, NotFoundError: `spec` is neither.
    """
    folder = Path(spec)
    is_output = any((folder / name).is_file() for name in fsck_files.ROOTS)
    if is_output and store is None and not (folder / STORE_FOLDER).is_dir():
        damage, notices, num_files = fsck_files.folder(folder)
        return FsckReport(num_files=num_files, damage=damage, notices=notices, is_store=False)
    ws = open_workspace(spec, store)
    report = fsck(ws, deep=deep)
    if not repair or not report.damage:
        return report
    repaired = list(repair_files(ws.store, fsck(ws, deep=True).damage))
    return replace(fsck(ws, deep=deep), repaired=repaired)


def fsck(ws: Workspace, *, deep: bool = False) -> FsckReport:
    """Check the store of a dataset; with `deep`, read and hash everything."""
    report = FsckReport()
    found = _versions(ws.store, report)
    files: dict[str, ShardEntry] = {}
    for version in found:
        files.update({entry.file: entry for entry in version.shards})
    with progress.bar("fsck", len(files) + len(ws.shards), "files") as advance:
        for entry in files.values():
            report.damage.extend(_decision(ws.store, entry, deep))
            advance(1)
        for ref in ws.shards:
            report.damage.extend(_index(ws, ref.name, deep, report))
            advance(1)
    report.num_files = len(files)
    report.damage.extend(_facts(ws.store, deep))
    report.damage.extend(_journals(ws.store))
    report.damage.extend(_edits(ws.store, found))
    report.damage.extend(_ratings(ws.store))
    report.damage.extend(fsck_files.missing(ws.store, found))
    report.damage.extend(fsck_files.tags(ws.store))
    report.damage.extend(fsck_files.runs(ws.store))
    if deep:
        for version in found:
            report.damage.extend(fsck_files.spelling(ws.store, version.number))
    report.damage.extend(_unindexed(ws.store, found))
    report.notices.extend(_leftovers(ws.store))
    report.notices.extend(_gone(ws, found))
    return report


def _gone(ws: Workspace, found: list[Version]) -> Iterator[Finding]:
    """Yield a notice for each version with shards that the dataset lacks; that is not damage."""
    for version in found:
        if (text := ws.missing_text(version)) is not None:
            yield Finding(
                str(ws.dataset.root), f"{text}: it can be shown but not exported from here"
            )


def _versions(store: Store, report: FsckReport) -> list[Version]:
    numbers = store.numbers()
    found: list[Version] = []
    if numbers != list(range(1, len(numbers) + 1)):
        report.damage.append(
            Finding(str(store.root / "versions"), f"numbers are not 1..n: {numbers[:20]}")
        )
    for number in numbers:
        path = store.manifest_path(number)
        try:
            version = store.version(number)
        except CuratorError as error:
            report.damage.append(Finding(str(path), str(error)))
            continue
        before = found[-1] if found else None
        expected = before.id if before else None
        is_parent_known = number == 1 or (before is not None and before.number == number - 1)
        if is_parent_known and version.parent != expected:
            report.damage.append(
                Finding(str(path), f"parent is {version.parent}, expected {expected}")
            )
        if before and version.created <= before.created:
            report.damage.append(Finding(str(path), "created before its parent"))
        found.append(version)
    report.num_versions = len(found)
    return found


def _decision(store: Store, entry: ShardEntry, deep: bool) -> Iterator[Finding]:
    path = store.root / entry.file
    if not path.exists():
        yield Finding(str(path), "the file is missing, but a version names it")
        return
    if deep and (found := hashing.file_sha256(path)) != entry.file_sha256:
        yield Finding(str(path), f"sha256 is {found}, expected {entry.file_sha256}")
        return
    try:
        frame = read_decision(store, entry)
    except CuratorError as error:
        yield Finding(str(path), str(error))
        return
    if deep:
        digest = parquet.content_digest(parquet.to_table(frame, DECISION_SCHEMA))
        if digest != entry.rows_digest:
            yield Finding(str(path), f"content is {digest[:12]}, expected {entry.rows_digest[:12]}")
    yield from _conservation(store, entry, frame, path)


def _conservation(
    store: Store, entry: ShardEntry, frame: pl.DataFrame, path: Path
) -> Iterator[Finding]:
    first = frame.filter(pl.col("slot") == 0)
    counts = dict(first["action"].value_counts().iter_rows())
    if {action: counts.get(action, 0) for action in ACTIONS} != dict(entry.counts):
        yield Finding(str(path), f"counts are {counts}, expected {dict(entry.counts)}")
    if first["row"].to_list() != list(range(entry.num_samples)):
        yield Finding(
            str(path), f"{len(first)} decided samples, expected rows 0..{entry.num_samples - 1}"
        )
    if frame.select(pl.struct("row", "slot").is_duplicated().any()).item():
        yield Finding(str(path), "a row has the same slot twice")
    text = pl.col("text").is_not_null()
    used = pl.col("action").is_in(["captioned", "kept"])
    wrong = frame.filter((text != used) | pl.col("because").is_null())
    if len(wrong):
        yield Finding(
            str(path),
            f"{len(wrong)} rows whose text does not match their action, or without a reason",
        )
    if store.index_path(entry.name).exists():
        try:
            facts = index.shard_facts(store, entry.name)
        except DamageError:
            return  # `_index` reports it, if the shard belongs to the dataset as given
        if facts.digest == entry.digest and facts.num_samples != entry.num_samples:
            yield Finding(
                str(path), f"{entry.num_samples} samples, the index has {facts.num_samples}"
            )


def _index(ws: Workspace, shard: str, deep: bool, report: FsckReport) -> Iterator[Finding]:
    path = ws.store.index_path(shard)
    if not path.exists():
        return
    if index.is_first_form(path):
        what = "index in the first file format; `curator index` rebuilds it"
        report.notices.append(Finding(str(path), what))
        return
    try:
        facts = index.shard_facts(ws.store, shard)
        report.num_samples += facts.num_samples
        rows = index.read(ws.store, shard)
        if len(rows) != facts.num_samples:
            yield Finding(str(path), f"{len(rows)} rows, expected {facts.num_samples}")
        elif deep:
            digest = parquet.content_digest(parquet.to_table(rows, INDEX_SCHEMA))
            if digest != facts.rows_digest:
                yield Finding(
                    str(path), f"content is {digest[:12]}, expected {facts.rows_digest[:12]}"
                )
        ref = ws.ref(shard)
        there = stamp(ref.path)
        if there is None:
            yield Finding(str(ref.path), "the shard is gone")
        elif there.size_bytes != facts.size_bytes:
            yield Finding(
                str(ref.path), f"{there.size_bytes} bytes, indexed with {facts.size_bytes}"
            )
        elif deep and not has_digest(ref.path, facts.digest):
            what = f"its bytes are not those that were indexed (digest {short(facts.digest)})"
            yield Finding(str(ref.path), what)
    except (CuratorError, FileNotFoundError) as error:
        yield Finding(str(path), str(error))


def _facts(store: Store, deep: bool) -> Iterator[Finding]:
    for kind, schema in ((CAPTIONS, CAPTION_SCHEMA), (SCORES, SCORE_SCHEMA)):
        for maker in store.makers(kind):
            try:
                store.recipe(kind, maker)
            except DamageError as error:
                yield Finding(str(error.where), error.what)
        for path in sorted((store.root / "facts" / kind).rglob("*.parquet")):
            try:
                if deep:
                    check_file(path, schema)
                parquet.read(path, schema)
            except CuratorError as error:
                yield Finding(str(path), str(error))


def _journals(store: Store) -> Iterator[Finding]:
    for path in sorted((store.root / "journal").rglob("*.jnl")):
        try:
            replay(path)
        except DamageError as error:
            yield Finding(str(path), error.what)


def _edits(store: Store, found: list[Version]) -> Iterator[Finding]:
    """Yield logs that cannot be read, or have fewer edits than a version was made from."""
    used: dict[str, tuple[int, str]] = {}
    for version in found:
        for shard, number in version.extra.get(LOGS, {}).items():
            used[shard] = max(used.get(shard, (0, "")), (number, version.name))
    for shard in sorted({*used, *logs_there(store)}):
        path = log_path(store, shard)
        try:
            number = len(history(store, shard).edits)
        except DamageError as error:
            if error.reason != MISSING:  # `fsck_files.missing` reports it
                yield Finding(str(path), error.what)
            continue
        expected, name = used.get(shard, (0, ""))
        if number < expected and not any(path.parent.glob(f"{path.name}{SET_ASIDE}*")):
            yield Finding(str(path), f"{number} edits, {name} was made from {expected}")


def _unindexed(store: Store, found: list[Version]) -> Iterator[Finding]:
    for shard in sorted({entry.name for version in found for entry in version.shards}):
        path = store.index_path(shard)
        if not path.exists():
            yield Finding(str(path), "the file is missing; `curator index` rebuilds it")


def _ratings(store: Store) -> Iterator[Finding]:
    for error in rating_log.unreadable(store):
        yield Finding(str(error.where), error.what)


def _leftovers(store: Store) -> Iterator[Finding]:
    if number := fsck_files.without_checksum(store.root):
        what = f"{number} small files have no checksum: an older version wrote them"
        yield Finding(str(store.root), what)
    yield from fsck_files.unlisted(store)
    for path in sorted(store.root.rglob(f"*{SET_ASIDE}*")):
        yield Finding(
            str(path), "set aside by `fsck --repair`; remove it when you no longer need it"
        )
    for path in sorted(store.root.rglob(f"{TEMP_PREFIX}*")):
        yield Finding(str(path), "a temporary file of a process that died; `curator gc` removes it")
    for shard in logs_there(store):
        try:
            torn = torn_bytes(store, shard)
        except DamageError:
            continue  # `_edits` reports it
        if torn:
            what = f"{torn} bytes of an unfinished edit, never confirmed; the next edit cuts them"
            yield Finding(str(log_path(store, shard)), what)
    for path in sorted((store.root / "journal").rglob("*.jnl")):
        try:
            found = replay(path)
        except DamageError:
            continue  # `_journals` reports it
        tail = f", {found.torn} bytes torn" if found.torn else ""
        yield Finding(
            str(path),
            f"{len(found.records)} facts of an unfinished run; the next run uses them{tail}",
        )
