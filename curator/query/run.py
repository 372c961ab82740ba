"""Run SQL over the tables of a store: read-only, one SELECT, in a separate process.

The tables are Arrow datasets over the store's Parquet files, read lazily and with their page
checksums; nothing is copied, and memory does not grow with the store. Only logs are read as a
whole: journals of unfinished runs, and edits (memory: about their size on disk). The layers that
make untrusted SQL harmless, from the inside out (the tests contain the attacks):

* DuckDB reads only registered tables and datasets: external access off, no allowed directory, no
  extensions, no Python variables, no spilling to disk, configuration locked.
* Exactly one statement is allowed, and every node of its parse tree must be a query. The statement
  type is not enough: in DuckDB 2.0 `with x as (copy (select 1) to 'f') select 1` is a SELECT.
* The process cannot write files (RLIMIT_FSIZE 0), its memory is capped by the kernel, and it is
  killed at the timeout. DuckDB's own limits are not enough: `range(2000000000)` allocates 17 GB
  outside its memory limit, `repeat('x', 2000000000)` ignores an interrupt for 16 seconds.

Starting the process takes as long as loading DuckDB and Arrow, so `QueryProcess` can be started
before it is known what to ask.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from curator.core.errors import CuratorError, DamageError, UsageError
from curator.core.text import as_typed
from curator.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

MIN_MEMORY_MIB = 512
MAX_TIMEOUT_SEC = 86_400

# Not `-m`, which would load the module a second time as __main__.
_START = (
    "import os; to = os.dup(1); os.dup2(2, 1); from curator.query import lean; lean.hide(); "
    "from curator.query.worker import main; lean.numpy_again(); main(to)"
)


@dataclass(frozen=True, slots=True)
class View:
    """A table that SQL can use. `columns` maps each name to its SQL type and a description."""

    name: str
    about: str
    columns: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The answer of a query. `truncated` means that there were more rows than the limit.

    Column names of `table` are unique; `renamed` has one sentence for each column that was renamed.
    """

    table: pa.Table
    truncated: bool
    renamed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The input of the query process. `shards` None means all indexed shards."""

    root: str
    sql: str
    version: int | None
    shards: Sequence[str] | None
    limit: int
    timeout_sec: float
    memory_mib: int


_SAMPLE = {
    "shard": ("VARCHAR", "name of the shard"),
    "row": ("INTEGER", "row of the sample in its shard, from 0"),
    "key": ("VARCHAR", "key of the sample"),
}
_DECISION = {
    "version": ("INTEGER", "number of the version"),
    **_SAMPLE,
    "image_sha256": ("VARCHAR", "SHA-256 of the image bytes"),
    "action": ("VARCHAR", "captioned, kept, dropped or quarantined"),
    "slot": ("SMALLINT", "0 for the first text of a sample, 1 for the second, ..."),
    "text": ("VARCHAR", "the chosen text; null if dropped or quarantined"),
    "text_sha256": ("VARCHAR", "SHA-256 of the text"),
    "source": ("VARCHAR", "alt_text, the name of the captioner, or human"),
    "weight": ("FLOAT", "sampling weight; adds up to 1 per sample"),
    "score": ("FLOAT", "score of this text by the policy's scorer; null if never scored"),
    "because": ("VARCHAR", "why it was chosen, kept or dropped"),
}
_FACT = {
    "failure": ("VARCHAR", "reason code if it failed"),
    "detail": ("VARCHAR", "description of the failure"),
    "attempt": ("SMALLINT", "0 for the first attempt; the latest success counts"),
    "created": ("TIMESTAMP", "when it was made, UTC"),
}

VIEWS: tuple[View, ...] = (
    View(
        "samples",
        "every sample of the shards, usable or not",
        {
            **_SAMPLE,
            "ext": ("VARCHAR", "extension of the image"),
            "byte_offset": ("BIGINT", "offset of the image in the tar, in bytes"),
            "num_bytes": ("BIGINT", "size of the encoded image, in bytes"),
            "image_sha256": ("VARCHAR", "SHA-256 of the image bytes"),
            "width": ("INTEGER", "in pixels, after EXIF rotation"),
            "height": ("INTEGER", "in pixels, after EXIF rotation"),
            "image_format": ("VARCHAR", "JPEG, PNG, ..."),
            "alt_text": ("VARCHAR", "text that came with the image, cleaned"),
            "alt_sha256": ("VARCHAR", "SHA-256 of the alt text"),
            "flags": ("VARCHAR[]", "unusual properties of image or text"),
            "reason": ("VARCHAR", "reason code if it is unusable, else null"),
            "detail": ("VARCHAR", "description of the reason"),
        },
    ),
    View("captions", "the decision of one version: the newest, or DATASET@VERSION", _DECISION),
    View("all_captions", "the decisions of all versions", _DECISION),
    View(
        "generated",
        "every caption that a model generated, one row per attempt",
        {
            "generator": ("VARCHAR", "captioner that generated it"),
            "image_sha256": ("VARCHAR", "SHA-256 of the image bytes"),
            "candidate": ("SMALLINT", "0 for the first caption of an image, ..."),
            "text": ("VARCHAR", "the caption; null if it failed"),
            "text_sha256": ("VARCHAR", "SHA-256 of the text"),
            "finish_reason": (
                "VARCHAR",
                "stop; length: token limit; trimmed: cut back to whole sentences",
            ),
            "num_tokens": ("INTEGER", "number of generated tokens"),
            "seed": ("BIGINT", "sampling seed"),
            **_FACT,
            "detail": (
                "VARCHAR",
                "description of the failure, or what was removed from the answer",
            ),
        },
    ),
    View(
        "scores",
        "every score of a text for an image, one row per attempt",
        {
            "scorer": ("VARCHAR", "name of the scorer"),
            "image_sha256": (
                "VARCHAR",
                "SHA-256 of the image bytes; '' if only the text was scored",
            ),
            "text_sha256": ("VARCHAR", "SHA-256 of the text"),
            "score": ("FLOAT", "raw score; for CLIP the cosine"),
            "num_tokens": ("INTEGER", "number of tokens of the text"),
            "truncated": (
                "BOOLEAN",
                "whether it is longer than the scorer's context and was scored in parts",
            ),
            "sentences": (
                'STRUCT("start" INTEGER, "end" INTEGER, score FLOAT)[]',
                "scores of the parts",
            ),
            "flags": ("VARCHAR[]", "problems of the text"),
            "measures": ('STRUCT("name" VARCHAR, "value" FLOAT)[]', "measures of the text"),
            **_FACT,
            "detail": (
                "VARCHAR",
                "description of the failure, or what a judge said, as JSON",
            ),
        },
    ),
    View(
        "edits",
        "changes made by hand, one row per edit",
        {
            "id": ("VARCHAR", "id, for `curator edits undo`"),
            **_SAMPLE,
            "image_sha256": ("VARCHAR", "SHA-256 of the image bytes"),
            "action": ("VARCHAR", "edit, accept or reject"),
            "text_before": ("VARCHAR", "text before the edit; null if there was none"),
            "text_after": ("VARCHAR", "text after the edit; null if rejected"),
            "text_sha256": ("VARCHAR", "SHA-256 of text_after, as in scores"),
            "reviewer": ("VARCHAR", "name of the reviewer"),
            "created": ("TIMESTAMP", "when it was made, UTC"),
            "batch": ("VARCHAR", "id of the find-and-replace it belongs to, or null"),
            "undone": ("BOOLEAN", "whether it was undone"),
        },
    ),
    View(
        "versions",
        "every version",
        {
            "version": ("INTEGER", "number of the version"),
            "name": ("VARCHAR", "v1, v2, ..."),
            "id": ("VARCHAR", "digest of the decision"),
            "parent": ("VARCHAR", "id of the previous version"),
            "created": ("TIMESTAMP", "when it was committed, UTC"),
            "policy": ("VARCHAR", "name of the policy"),
            "tags": ("VARCHAR[]", "tags of the version"),
            "num_samples": ("BIGINT", "all samples"),
            "captioned": ("BIGINT", "samples with a generated caption"),
            "kept": ("BIGINT", "samples that keep their alt text"),
            "dropped": ("BIGINT", "samples left out by the policy"),
            "quarantined": ("BIGINT", "samples that could not be used"),
            "tool_version": ("VARCHAR", "version of this tool"),
        },
    ),
    View(
        "quarantine",
        "everything unusable: damaged tars, unusable samples, failures of models",
        {
            "stage": ("VARCHAR", "read, decode, score or caption"),
            "reason": ("VARCHAR", "reason code"),
            "retryable": ("BOOLEAN", "whether a retry can succeed"),
            "shard": ("VARCHAR", "name of the shard; null if no shard has the image"),
            "key": ("VARCHAR", "key of the sample; null if the tar itself is damaged"),
            "byte_offset": ("BIGINT", "offset in the tar, in bytes"),
            "num_bytes": ("BIGINT", "size of the encoded image, in bytes"),
            "image_sha256": ("VARCHAR", "SHA-256 of the image bytes"),
            "maker": ("VARCHAR", "captioner or scorer that failed"),
            "detail": ("VARCHAR", "description of the failure"),
            "attempt": ("SMALLINT", "0 for the first attempt"),
        },
    ),
)


def schema_of_views() -> str:
    """Return all views with their columns for `--help`, one line per view and per column."""
    lines = []
    for view in VIEWS:
        lines.append(f"{view.name}: {view.about}")
        for name, (kind, about) in view.columns.items():
            short = re.sub(r"\(.*\)", "", kind)
            lines.append(f"  {name:<15} {short:<10} {about}")
    return "\n".join(lines)


class QueryProcess:
    """A process that runs one query. Started before there is one, it loads its libraries meanwhile.

    Leaving the block ends it, and so does dropping the object. Without a query it does nothing.
    """

    def __init__(self) -> None:
        self._child = _started()
        self._end = weakref.finalize(self, _ended, self._child)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def is_alive(self) -> bool:
        """Whether it can still take a query."""
        return self._child.poll() is None

    def run(
        self,
        store: Store,
        sql: str,
        *,
        version: int | None = None,
        shards: Sequence[str] | None = None,
        limit: int = 10_000,
        timeout_sec: float = 30.0,
        memory_mib: int = 1024,
    ) -> QueryResult:
        """Run one SELECT over `VIEWS` and return at most `limit` rows; see `run_query`."""
        if memory_mib < MIN_MEMORY_MIB:
            raise ValueError(f"memory_mib must be at least {MIN_MEMORY_MIB}, not {memory_mib}")
        if not 0 < timeout_sec <= MAX_TIMEOUT_SEC:  # also refuses nan
            raise UsageError(
                f"--timeout is {timeout_sec:g}",
                hint=f"allowed: above 0, up to {MAX_TIMEOUT_SEC:,} seconds",
                reason="option.value",
            )
        request = Request(
            root=str(store.root.resolve()),
            sql=as_typed(sql, "the query", reason="query.invalid"),
            version=version,
            shards=None if shards is None else list(shards),
            limit=limit,
            timeout_sec=timeout_sec,
            memory_mib=memory_mib,
        )
        asked = json.dumps(asdict(request)).encode()
        import pyarrow as pa  # while the process, which needs longer, loads it too

        try:
            out, err = self._child.communicate(asked, timeout=timeout_sec)
        except subprocess.TimeoutExpired:
            raise UsageError(
                f"the query took longer than {timeout_sec:g} s",
                did="it was stopped",
                hint="select one version, one shard or fewer columns",
                reason="query.timeout",
            ) from None
        head, _, body = out.partition(b"\n")
        if self._child.returncode or not head:
            raise _died(self._child.returncode, err, memory_mib)
        answer = json.loads(head)
        if "error" in answer:
            raise _refusal(answer["error"], answer["message"], sql)
        with pa.ipc.open_stream(body) as reader:
            table = reader.read_all()
        return QueryResult(table, bool(answer["truncated"]), tuple(answer["renamed"]))


def run_query(
    store: Store,
    sql: str,
    *,
    version: int | None = None,
    shards: Sequence[str] | None = None,
    limit: int = 10_000,
    timeout_sec: float = 30.0,
    memory_mib: int = 1024,
) -> QueryResult:
    """Run one SELECT over `VIEWS` in a new process and return at most `limit` rows.

    `version` is the number of the version that the view `captions` shows, default the newest;
    `shards` restricts samples, captions, all_captions and edits to these shards. `memory_mib`
    bounds the whole query process.

    Raises:
        UsageError: query.refused (not exactly one SELECT over the views), query.invalid (DuckDB
            cannot parse or bind it), query.timeout, query.too_large (memory).
        DamageError: a file of the store was changed after it was written.
    """
    with QueryProcess() as process:
        return process.run(
            store,
            sql,
            version=version,
            shards=shards,
            limit=limit,
            timeout_sec=timeout_sec,
            memory_mib=memory_mib,
        )


def _started() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-B", "-c", _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        cwd="/",
    )


def _ended(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    with child:  # closes its pipes and waits for it
        pass


def _environment() -> dict[str, str]:
    """Return the process's environment: no credentials, and not Arrow's own allocator.

    Arrow's allocator would reserve 1 GiB at start. The import path is this process's, because a
    table of implementations may name a module on PYTHONPATH.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    here = str(Path(__file__).resolve().parents[2])
    # Absolute, since the query process has another current folder; "" means this process's own.
    folders = [
        here,
        *(os.path.abspath(entry) for entry in sys.path if os.path.exists(entry or ".")),
    ]
    path = os.pathsep.join(entry for entry in dict.fromkeys(folders) if os.pathsep not in entry)
    return kept | {"PYTHONPATH": path, "ARROW_DEFAULT_MEMORY_POOL": "system"}


def _died(returncode: int, stderr: bytes, memory_mib: int) -> CuratorError:
    last_line = (stderr.decode(errors="replace").strip().splitlines() or [""])[-1][:300]
    if returncode == -signal.SIGXCPU:
        return UsageError("the query used more CPU time than allowed", reason="query.timeout")
    if returncode < 0:
        # Out of memory in an allocation of a thread, where it cannot be reported.
        return UsageError(
            f"the query process was killed (signal {-returncode}), probably for lack of memory",
            hint=f"select fewer rows or columns; the limit is {memory_mib} MiB of memory",
            reason="query.too_large",
        )
    return CuratorError(f"the query process failed ({last_line or returncode})")


def _refusal(reason: str, message: str, sql: str) -> CuratorError:
    hints = {
        "query.refused": f"allowed is one SELECT over the views: {_columns(sql)}",
        "query.invalid": f"the views: {_columns(sql)}",
        "query.too_large": "select fewer columns or one version, or aggregate",
    }
    if reason not in hints:
        hint = "`curator fsck` lists everything damaged"
        return DamageError(message, hint=hint, reason=reason)
    return UsageError(message, hint=hints[reason], reason=reason)


def _columns(sql: str) -> str:
    """List the columns of the views that the SQL names, or of all views if it names none."""
    named = [view for view in VIEWS if re.search(rf"\b{view.name}\b", sql, re.IGNORECASE)]
    return ", ".join(
        f"{view.name}({', '.join(view.columns)})" if view in (named or VIEWS) else view.name
        for view in VIEWS
    )
