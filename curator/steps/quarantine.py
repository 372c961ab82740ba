"""List everything that could not be used, the reason, and the place of its bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import polars as pl

from curator.core.errors import UsageError, nearest
from curator.core.reasons import REASONS, about
from curator.steps.workspace import Workspace
from curator.store import index
from curator.store.facts import CAPTIONS, SCORES, Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineRow:
    """One quarantine row: bytes are referenced (shard, offset, length), never copied.

    `key` and `sha256` are None for damage of the tar itself; `maker` is the maker that failed,
    None for damage found while reading.
    """

    stage: str
    reason: str
    detail: str
    shard: str
    key: str | None
    member: str | None
    offset: int | None
    length: int | None
    sha256: str | None
    retryable: bool
    maker: str | None
    attempts: int

    def to_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


def rows(ws: Workspace, reason: str | None = None) -> Iterator[QuarantineRow]:
    """Yield all quarantine rows of a dataset, shard by shard.

    Raises:
        UsageError: no such reason.
    """
    found = False
    makers = [
        Facts(ws.store, kind, name) for kind in (CAPTIONS, SCORES) for name in ws.store.makers(kind)
    ]
    for ref in ws.shards:
        for row in (*_read_stage(ws, ref.name), *_maker_stage(ws, ref.name, makers)):
            if reason in (None, row.reason):
                found = True
                yield row
    if reason is not None and not found:  # a store may have reasons that this version has not
        check_reason(reason)


def _read_stage(ws: Workspace, shard: str) -> Iterator[QuarantineRow]:
    for problem in index.shard_facts(ws.store, shard).problems:
        yield _row(
            shard,
            str(problem["reason"]),
            str(problem["detail"]),
            offset=problem.get("offset"),
            member=problem.get("member"),
        )
    columns = ["key", "ext", "offset", "length", "image_sha256", "reason", "detail"]
    unusable = index.read(ws.store, shard, columns).filter(pl.col("reason").is_not_null())
    for key, ext, offset, length, sha256, reason, detail in unusable.iter_rows():
        yield _row(
            shard,
            reason,
            detail or "",
            key=key,
            member=f"{key}.{ext}" if ext else None,
            offset=offset,
            length=length,
            sha256=sha256,
        )


def _maker_stage(ws: Workspace, shard: str, makers: list[Facts]) -> Iterator[QuarantineRow]:
    columns = ["key", "ext", "offset", "length", "image_sha256", "alt_sha256", "reason"]
    samples = index.read(ws.store, shard, columns).filter(pl.col("reason").is_null())
    generators = [facts for facts in makers if facts.kind == CAPTIONS]
    verdict = ["failure", "detail", "attempt"]
    for facts in makers:
        if facts.kind == CAPTIONS:
            found = facts.candidates(samples, verdict)
        else:
            asked = _pairs(samples, generators)
            found = pl.concat([asked, facts.match(asked, verdict)], how="horizontal")
        for row in found.drop_nulls("failure").iter_rows(named=True):
            yield _row(
                shard,
                row["failure"],
                row["detail"] or "",
                key=row["key"],
                member=f"{row['key']}.{row['ext']}",
                offset=row["offset"],
                length=row["length"],
                sha256=row["image_sha256"],
                maker=facts.maker,
                attempts=row["attempt"] + 1,
            )


def _pairs(samples: pl.DataFrame, generators: list[Facts]) -> pl.DataFrame:
    """Return one row per sample and text (`text_sha256`): the pairs that scorers score."""
    texts = [samples.with_columns(text_sha256="alt_sha256")]
    for facts in generators:
        made = facts.candidates(samples, ["text_sha256"])
        texts.append(made.select(*samples.columns, "text_sha256"))
    return pl.concat(texts).drop_nulls("text_sha256").unique(maintain_order=True)


def _row(shard: str, reason: str, detail: str, **known: object) -> QuarantineRow:
    known_reason = about(reason)
    empty: dict[str, object] = {
        "key": None,
        "member": None,
        "offset": None,
        "length": None,
        "sha256": None,
        "maker": None,
        "attempts": 1,
    }
    return QuarantineRow(
        stage=known_reason.stage,
        reason=reason,
        detail=detail[:500],
        shard=shard,
        retryable=known_reason.retryable,
        **(empty | known),  # type: ignore[arg-type]  # mypy cannot type a ** of mixed values
    )


def counts(ws: Workspace) -> Counter[str]:
    """Count rows by reason."""
    return Counter(row.reason for row in rows(ws))


def retry(ws: Workspace, reason: str) -> int:
    """Mark failures with this reason for another attempt by the next run; return how many.

    Raises:
        UsageError: the reason is unknown, or the same bytes would fail again.
    """
    if not about(reason).retryable:
        raise UsageError(
            f"{reason} cannot be retried: {about(reason).text}",
            hint="repair the shard, then run `curator index`",
            reason="quarantine.not_retryable",
        )
    reopened = sum(
        Facts(ws.store, kind, name).reopen([reason])
        for kind in (CAPTIONS, SCORES)
        for name in ws.store.makers(kind)
    )
    if not reopened:
        check_reason(reason)
    return reopened


def check_reason(reason: str) -> None:
    """Raise a UsageError that suggests the nearest reason if `reason` is unknown."""
    if reason not in REASONS:
        raise UsageError(
            f"unknown reason {reason!r}", hint=nearest(reason, REASONS), reason="quarantine.reason"
        )
