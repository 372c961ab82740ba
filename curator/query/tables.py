"""Build the Arrow tables and datasets behind the views of `curator.query.run`.

Parquet files are read lazily. Journals and logs are parsed here, before any SQL runs, and only for
views that the SQL mentions; their rows are held in memory. The modules that read them load polars,
which takes as long as all else here: only the views that need them import them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from curator.core import hashing
from curator.core.reasons import REASONS
from curator.edits.history import REJECT, UNDO, Edit, History
from curator.query.run import Request
from curator.store.journal import replay
from curator.store.listing import listing_of
from curator.store.schemas import (
    CAPTION_SCHEMA,
    CAPTIONS,
    DECISION_SCHEMA,
    INDEX_SCHEMA,
    SCORE_SCHEMA,
    SCORES,
)
from curator.store.store import Store
from curator.store.versions import ACTIONS, Version

_PARQUET = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)
_PROBLEM_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("reason", pa.string()),
        ("byte_offset", pa.int64()),
        ("detail", pa.string()),
    ]
)
_EDIT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int32()),
        ("key", pa.string()),
        ("image_sha256", pa.string()),
        ("action", pa.string()),
        ("text_before", pa.string()),
        ("text_after", pa.string()),
        ("text_sha256", pa.string()),
        ("reviewer", pa.string()),
        ("created", pa.float64()),
        ("batch", pa.string()),
        ("undone", pa.bool_()),
    ]
)
_REASON_SCHEMA = pa.schema(
    [("reason", pa.string()), ("stage", pa.string()), ("retryable", pa.bool_())]
)
_VERSION_SCHEMA = pa.schema(
    [
        ("version", pa.int32()),
        ("name", pa.string()),
        ("id", pa.string()),
        ("parent", pa.string()),
        ("created", pa.float64()),
        ("policy", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("num_samples", pa.int64()),
        *((action, pa.int64()) for action in ACTIONS),
        ("tool_version", pa.string()),
    ]
)


def sources(request: Request) -> Iterator[tuple[str, ds.Dataset | pa.Table]]:
    """Yield every table with its name. Files are listed only for views that the SQL mentions."""
    store = Store.open(Path(request.root))

    def used(*views: str) -> bool:
        return any(re.search(rf"\b{view}\b", request.sql, re.IGNORECASE) for view in views)

    shards = None if request.shards is None else set(request.shards)
    indexed = list(_indexed(store, shards)) if used("samples", "quarantine") else []
    newest = store.numbers()[-1:] if request.version is None else [request.version]
    chosen = map(store.version, newest) if used("captions") else ()
    every = store.versions() if used("all_captions") else ()
    yield "_samples", _dataset(indexed, INDEX_SCHEMA, {"shard": pa.large_string()})
    yield "_captions", _decisions(store, chosen, shards)
    yield "_all_captions", _decisions(store, every, shards)
    for view, kind, maker, schema in (
        ("generated", CAPTIONS, "generator", CAPTION_SCHEMA),
        ("scores", SCORES, "scorer", SCORE_SCHEMA),
    ):
        names = store.makers(kind) if used(view, "quarantine") else []
        yield f"_{view}", _facts(store, kind, names, maker, schema)
    yield "_edits", _edits(store, shards) if used("edits") else _EDIT_SCHEMA.empty_table()
    yield "_versions", _version_table(store if used("versions") else None)
    names = [str(values["shard"]) for _, values in indexed] if used("quarantine") else []
    yield "_problems", _problems(store, names)
    rows = [{"reason": name, **about._asdict()} for name, about in REASONS.items()]
    yield "_reasons", pa.Table.from_pylist(rows, _REASON_SCHEMA)


def _indexed(store: Store, shards: set[str] | None) -> Iterator[tuple[Path, dict[str, str]]]:
    folder = store.index_path("x").parent
    for path in sorted(folder.rglob("*.parquet")):
        name = path.relative_to(folder).as_posix().removesuffix(".parquet")
        if shards is None or name in shards:
            yield path, {"shard": name}


def _decisions(
    store: Store, versions: Iterable[Version], shards: set[str] | None
) -> ds.Dataset | pa.Table:
    files = [
        (store.root / entry.file, {"version": version.number, "shard": entry.name})
        for version in versions
        for entry in version.shards
        if shards is None or entry.name in shards
    ]
    return _dataset(files, DECISION_SCHEMA, {"version": pa.int32(), "shard": pa.large_string()})


def _facts(
    store: Store, kind: str, makers: Iterable[str], column: str, schema: pa.Schema
) -> ds.Dataset | pa.Table:
    """Read files and journals of all makers.

    Journals are read first: one that is finished in between is then seen twice rather than missed.
    """
    files: list[tuple[Path, dict[str, str]]] = []
    pending = []
    for maker in makers:
        listing_of(store, kind, maker).check()
        journals = store.journal_path(kind, maker, "x").parent
        records = [row for path in sorted(journals.rglob("*.jnl")) for row in replay(path).records]
        pending += [row | {column: maker} for row in records]
        found = sorted(store.facts_dir(kind, maker).rglob("*.parquet"))
        files += [(path, {column: maker}) for path in found]
    whole = _dataset(files, schema, {column: pa.large_string()})
    if not pending:
        return whole
    journaled = pa.Table.from_pylist(pending, whole.schema)
    return ds.dataset([whole, ds.dataset(journaled)]) if files else journaled


def _dataset(
    files: Iterable[tuple[Path, Mapping[str, object]]],
    schema: pa.Schema,
    constants: Mapping[str, pa.DataType],
) -> ds.Dataset | pa.Table:
    """Combine Parquet files into one table; `constants` are columns with one value per file."""
    whole = schema
    for name, kind in constants.items():
        whole = whole.append(pa.field(name, kind))
    local = pafs.LocalFileSystem()
    fragments = []
    for path, values in files:
        known = None
        for name, value in values.items():
            term = ds.field(name) == pa.scalar(value, constants[name])
            known = term if known is None else known & term
        fragments.append(_PARQUET.make_fragment(str(path), local, partition_expression=known))
    if not fragments:
        return whole.empty_table()
    return ds.FileSystemDataset(fragments, whole, _PARQUET, local)


def _edits(store: Store, shards: set[str] | None) -> pa.Table:
    """Read all edits, including undone ones; an undo has no row. Parses one log at a time."""
    from curator.edits.log import edited_shards, history

    parts = [_EDIT_SCHEMA.empty_table()]
    for shard in edited_shards(store):
        if shards is None or shard in shards:
            past = history(store, shard)
            rows = [_edit(past, edit) for edit in past.edits if edit.action != UNDO]
            parts.append(pa.Table.from_pylist(rows, _EDIT_SCHEMA))
    return pa.concat_tables(parts)


def _edit(past: History, edit: Edit) -> dict[str, object]:
    after = None if edit.action == REJECT else edit.result
    return {
        "id": edit.id,
        "shard": edit.shard,
        "row": edit.row,
        "key": edit.key,
        "image_sha256": edit.image_sha256,
        "action": edit.action,
        "text_before": edit.base_text,
        "text_after": after,
        "text_sha256": None if after is None else hashing.text_sha256(after),
        "reviewer": edit.who,
        "created": edit.created,
        "batch": edit.batch,
        "undone": past.undone_by(edit.number) is not None,
    }


def _version_table(store: Store | None) -> pa.Table:
    if store is None:
        return _VERSION_SCHEMA.empty_table()
    tags = store.tags()
    rows = [
        {
            "version": version.number,
            "name": version.name,
            "id": version.id,
            "parent": version.parent,
            "created": version.created,
            "policy": version.policy.get("name"),
            "tags": [tag for tag, number in tags.items() if number == version.number],
            "num_samples": version.num_samples,
            **version.counts,
            "tool_version": version.tool_version,
        }
        for version in store.versions()
    ]
    return pa.Table.from_pylist(rows, _VERSION_SCHEMA)


def _problems(store: Store, shards: Sequence[str]) -> pa.Table:
    if not shards:
        return _PROBLEM_SCHEMA.empty_table()
    from curator.store import index

    rows = [
        {
            "shard": shard,
            "reason": problem["reason"],
            "byte_offset": problem["offset"],
            "detail": problem["detail"],
        }
        for shard in shards
        for problem in index.shard_facts(store, shard).problems
    ]
    return pa.Table.from_pylist(rows, _PROBLEM_SCHEMA)
