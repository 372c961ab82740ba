"""`curator decide` over a million samples: seconds and memory for four policies.

    python -m benchmarks.decide

The store is made here through the real table writers: 100 shards of 10,000 samples, one generator
with one caption a sample, one CLIP scorer and the text checker with facts for both texts of a
sample (2 million each). One sample in 500 has no usable image, one in 50 no alt text, one caption
in 100 failed, one text in 20 carries a flag, one in 4 has two sentences. The tars are empty
files: a decision never opens them.

Measured is the command, from its start to its end, in a process of its own; what it wrote is
deleted before the next one, or it would find its files there. `plain` is a short polars script with
the join and the rule of `best` (`benchmarks.decide_plain`), which must choose the same texts.
Targets: under 10 s each, and `best` within 1.5 times `plain`.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.common import (
    MB,
    WORDS,
    parser,
    ratio,
    rounds,
    run,
    scratch,
    show,
    spread,
    take_turns,
)
from curator.core import hashing
from curator.core.hashing import canonical_json, digest
from curator.engine.makers import captioner_maker, checker_maker
from curator.shards.dataset import ShardRef
from curator.shards.scan import ScanOptions
from curator.steps.workspace import Workspace, open_workspace
from curator.store import fsops, index, parquet
from curator.store.facts import CAPTIONS, SCORES, Facts
from curator.store.schemas import INDEX_SCHEMA, SCORE_SCHEMA

POLICIES = ("best", "raw-if-good", "replace", "mix")
_RECIPE = {"scorer": "clip", "model": "benchmark"}
_SCORER = f"clip-benchmark-{digest(_RECIPE)[:8]}"
_TARGET_SEC = 10


def main() -> None:
    """Make the store, decide, print the table."""
    options = parser(__doc__)
    options.add_argument("--shards", type=int, default=100)
    options.add_argument("--samples", type=int, default=10_000, help="a shard")
    options.add_argument("--policy", action="append", choices=POLICIES, help="default: all four")
    args = options.parse_args()
    if args.quick:
        args.shards, args.samples = 2, 500
    policies = args.policy or (POLICIES[:1] if args.quick else POLICIES)
    peaks: dict[str, list[float]] = {name: [] for name in (*policies, "plain")}
    chosen: dict[str, dict[str, Any]] = {}
    with scratch() as folder:
        make_store(folder, args.shards, args.samples)

        def plain() -> float:
            command = ("-m", "benchmarks.decide_plain", folder / "store", folder / "plain.parquet")
            ended = run(*command)
            peaks["plain"].append(ended.peak_bytes / MB)
            chosen["plain"] = ended.last_json()
            return ended.seconds

        def decide(policy: str) -> float:
            for name in ("captions", "versions", "runs"):
                shutil.rmtree(folder / "store" / name, ignore_errors=True)
            (folder / "store" / "listings" / "versions.log").unlink(missing_ok=True)
            command = ("-m", "curator", "decide", folder / "data", "--policy", policy)
            ended = run(*command, "--store", folder / "store", "--json")
            peaks[policy].append(ended.peak_bytes / MB)
            chosen[policy] = ended.last_json()
            return ended.seconds

        ways = {**{name: partial(decide, name) for name in policies}, "plain": plain}
        seconds = take_turns(ways, rounds(args))
        size = sum(path.stat().st_size for path in (folder / "store").rglob("*.parquet"))
    if "best" in chosen:
        counts = chosen["best"]["version"]["counts"]
        same = {"generated": counts["captioned"], "alt_text": counts["kept"]}
        assert chosen["plain"] == same, f"plain chose {chosen['plain']}, best {same}"
    num_samples = args.shards * args.samples
    print(f"{num_samples:,} samples, store {size / MB:,.0f} MB")
    rows = [
        [
            name,
            spread(seconds[name]),
            f"{ratio(seconds[name], seconds['plain']):.2f}",
            f"{num_samples / statistics.median(seconds[name]):,.0f}",
            spread(peaks[name], 0),
            "met" if statistics.median(seconds[name]) < _TARGET_SEC else "missed",
        ]
        for name in ways
    ]
    columns = ["policy", "seconds", "to plain", "samples/s", "peak MB", f"target {_TARGET_SEC} s"]
    show(columns, rows, args=args, details={"seconds": seconds, "peak_mb": peaks})


def make_store(
    folder: Path,
    num_shards: int,
    num_samples: int,
    pictures: Sequence[bytes] = (),
    *,
    with_scores: bool = True,
    unchecked: float = 0.0,
) -> Workspace:
    """Shards of `num_samples` each in `folder`/data, and their store in `folder`/store.

    With `pictures` (encoded images) every shard holds them once, one behind the other, and its
    samples take turns in pointing at them. `unchecked` is the share of texts without a check.
    """
    (folder / "data").mkdir()
    for shard in range(num_shards):
        (folder / "data" / f"{shard:05d}.tar").write_bytes(b"".join(pictures))
    ws = open_workspace(str(folder / "data"), folder / "store", create=True)
    generator = captioner_maker("echo")
    checker = checker_maker("en")
    ws.store.write_recipe(CAPTIONS, generator.name, generator.recipe)
    ws.store.write_recipe(SCORES, checker.name, checker.recipe)
    if with_scores:
        ws.store.write_recipe(SCORES, _SCORER, _RECIPE)
    for number, ref in enumerate(ws.shards):
        rng = np.random.default_rng(number)
        samples = _samples(rng, number * num_samples, num_samples)
        _write_index(ws, ref, _point_at(samples, pictures) if pictures else samples)
        made = _captions(rng, samples)
        _write_facts(ws, CAPTIONS, generator.name, ref.name, made)
        texts = pl.concat(
            [
                samples.filter(pl.col("reason").is_null()).select(
                    "image_sha256", text_sha256="alt_sha256", text="alt_text"
                ),
                made.select("image_sha256", "text_sha256", "text"),
            ]
        ).drop_nulls()
        if with_scores:
            _write_facts(ws, SCORES, _SCORER, ref.name, _scores(rng, texts))
        checks = texts.unique("text_sha256", maintain_order=True)
        checks = checks.filter(pl.Series(rng.random(len(checks)) >= unchecked))
        _write_facts(ws, SCORES, checker.name, ref.name, _checks(rng, checks))
    return ws


def _point_at(samples: pl.DataFrame, pictures: Sequence[bytes]) -> pl.DataFrame:
    lengths = np.array([len(picture) for picture in pictures])
    number = np.arange(len(samples)) % len(pictures)
    return samples.with_columns(
        offset=pl.Series((np.cumsum(lengths) - lengths)[number]), length=pl.Series(lengths[number])
    )


def _samples(rng: np.random.Generator, first: int, count: int) -> pl.DataFrame:
    """One row a sample, in the columns of the index that matter."""
    numbers = np.arange(first, first + count)
    alt_texts = _texts(rng, numbers, "alt")
    missing = rng.random(count) < 0.02
    alts = pl.Series(alt_texts, dtype=pl.String).set(pl.Series(missing), None)
    broken = rng.random(count) < 0.002
    reasons = pl.Series(np.where(broken, "image.truncated", ""), dtype=pl.String)
    return pl.DataFrame(
        {
            "row": pl.Series(range(count), dtype=pl.Int32),
            "key": [f"{number:09d}" for number in numbers],
            "ext": ["jpg"] * count,
            "offset": numbers * 100_000,
            "length": [100_000] * count,
            "image_sha256": _digests(f"image {number}" for number in numbers),
            "width": pl.Series([512] * count, dtype=pl.Int32),
            "height": pl.Series([512] * count, dtype=pl.Int32),
            "image_format": ["JPEG"] * count,
            "alt_text": alts,
            "alt_sha256": pl.Series(_digests(alt_texts)).set(pl.Series(missing), None),
            "reason": reasons.replace("", None),
            "detail": [""] * count,
        }
    )


def _captions(rng: np.random.Generator, samples: pl.DataFrame) -> pl.DataFrame:
    usable = samples.filter(pl.col("reason").is_null())
    texts = _texts(rng, usable["offset"].to_numpy() // 100_000, "generated")
    failed = pl.Series(rng.random(len(usable)) < 0.01)
    return usable.select(
        "image_sha256",
        candidate=pl.lit(0, pl.Int16),
        text=pl.Series(texts).set(failed, None),
        text_sha256=pl.Series(_digests(texts)).set(failed, None),
        finish_reason=pl.lit("stop"),
        num_tokens=pl.lit(20, pl.Int32),
        seed=pl.lit(0, pl.Int64),
        failure=pl.when(failed).then(pl.lit("vlm.refusal")),
        attempt=pl.lit(0, pl.Int16),
        created=pl.lit(0.0),
    )


def _scores(rng: np.random.Generator, texts: pl.DataFrame) -> pl.DataFrame:
    score = pl.Series(rng.normal(0.25, 0.08, len(texts)), dtype=pl.Float32)
    middle = pl.col("text").str.find(". ", literal=True).cast(pl.Int32) + 1
    end = pl.col("text").str.len_chars().cast(pl.Int32)
    halves = pl.concat_list(
        pl.struct(start=pl.lit(0, pl.Int32), end=middle, score=score),
        pl.struct(start=middle + 1, end=end, score=score),
    )
    none = pl.lit([], pl.Schema(SCORE_SCHEMA)["sentences"])
    return texts.select(
        "image_sha256",
        "text_sha256",
        score=score,
        num_tokens=pl.lit(20, pl.Int32),
        truncated=pl.lit(False),
        sentences=pl.when(middle.is_not_null()).then(halves).otherwise(none),
        attempt=pl.lit(0, pl.Int16),
        created=pl.lit(0.0),
    )


def _checks(rng: np.random.Generator, texts: pl.DataFrame) -> pl.DataFrame:
    flagged = pl.Series(rng.random(len(texts)) < 0.05)
    return texts.select(
        "text_sha256",
        image_sha256=pl.lit(""),
        num_tokens=pl.lit(0, pl.Int32),
        truncated=pl.lit(False),
        flags=pl.when(flagged).then(pl.lit(["spam"])).otherwise(pl.lit([], pl.List(pl.String))),
        attempt=pl.lit(0, pl.Int16),
        created=pl.lit(0.0),
    )


def _texts(rng: np.random.Generator, numbers: Sequence[int], kind: str) -> list[str]:
    """Twelve words each, no two the same; every fourth in two sentences."""
    picked = rng.integers(0, len(WORDS), (len(numbers), 11)).tolist()
    texts = []
    for number, words in zip(numbers, picked, strict=True):
        parts = [f"{kind}{number}", *(WORDS[word] for word in words)]
        if number % 4 == 0:
            parts[5] += "."
        texts.append(" ".join(parts) + ".")
    return texts


def _digests(texts: Iterable[str]) -> list[str]:
    return [hashing.text_sha256(text) for text in texts]


def _write_index(ws: Workspace, ref: ShardRef, samples: pl.DataFrame) -> None:
    stat = ref.path.stat()
    table = parquet.to_table(_complete(samples, INDEX_SCHEMA), INDEX_SCHEMA)
    facts = index.ShardFacts(
        shard=ref.name,
        digest=hashing.file_sha256(ref.path),
        size_bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        num_samples=len(samples),
        num_unusable=samples["reason"].count(),
        ignored_members=0,
        options=asdict(ScanOptions()),
        problems=(),
        rows_digest=parquet.content_digest(table),
    )
    parquet.write(ws.store.index_path(ref.name), table, canonical_json(asdict(facts)))


def _write_facts(ws: Workspace, kind: str, maker: str, shard: str, frame: pl.DataFrame) -> None:
    schema = Facts(ws.store, kind, maker).schema
    rows = _complete(frame, schema).sort([*Facts(ws.store, kind, maker).key, "attempt", "created"])
    data = parquet.to_bytes(parquet.to_table(rows, schema))
    # The name that today's writer gives: by another, the whole table would be read to check it.
    name = f"{shard}.{hashlib.sha256(data).hexdigest()[:12]}.parquet"
    fsops.write_atomic(ws.store.facts_dir(kind, maker) / name, data)


def _complete(frame: pl.DataFrame, schema: pa.Schema) -> pl.DataFrame:
    """All columns of `schema`; those that `frame` lacks are null."""
    types = pl.Schema(schema)
    missing = [name for name in types if name not in frame.columns]
    return frame.with_columns(pl.lit(None, types[name]).alias(name) for name in missing)


if __name__ == "__main__":
    main()
