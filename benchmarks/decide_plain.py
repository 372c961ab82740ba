"""What `decide --policy best` is compared with: the same join and rule, as a short polars script.

    python -m benchmarks.decide_plain STORE OUT.parquet

It trusts every file, keeps no version, says no reason for a text that was not chosen, and needs the
memory for all texts at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl

BAD = [
    *("empty", "no_letters", "unreadable", "refusal", "repetition", "echo", "language"),
    *("special_token", "html", "talk", "spam", "url", "file_name"),
]
IN_ROW = ["shard", "row"]


def main() -> None:
    """Read, join, choose, write; print how many texts of each source were chosen."""
    store, out = map(Path, sys.argv[1:])
    samples = pl.scan_parquet(store / "index" / "*.parquet", include_file_paths="shard").select(
        "shard", "row", "key", "image_sha256", "alt_text", "alt_sha256", "reason"
    )
    scores, checks = (
        pl.scan_parquet(store / "facts" / "scores" / f"{name}-*" / "*.parquet")
        for name in ("clip", "text")
    )
    captions = pl.scan_parquet(store / "facts" / "captions" / "*" / "*.parquet")
    usable = samples.filter(pl.col("reason").is_null())
    generated = usable.join(captions, on="image_sha256").select(
        *IN_ROW, "image_sha256", "text", "text_sha256", rank=pl.lit(0), source=pl.lit("generated")
    )
    alt_texts = usable.select(
        *IN_ROW,
        "image_sha256",
        text="alt_text",
        text_sha256="alt_sha256",
        rank=pl.lit(1),
        source=pl.lit("alt_text"),
    )
    chosen = (
        pl.concat([generated, alt_texts])
        .drop_nulls("text")
        .join(
            scores.select("image_sha256", "text_sha256", "score"),
            on=["image_sha256", "text_sha256"],
            how="left",
        )
        .join(checks.select("text_sha256", "flags"), on="text_sha256", how="left")
        .filter(pl.col("flags").list.set_intersection(BAD).list.len() == 0)
        .sort(*IN_ROW, -pl.col("score"), "rank", nulls_last=True)
        .unique(IN_ROW, keep="first", maintain_order=True)
        .drop("image_sha256", "rank", "flags")
    )
    decided = samples.join(chosen, on=IN_ROW, how="left").sort(IN_ROW).collect()
    decided.write_parquet(out, compression="zstd", compression_level=1)
    print(json.dumps(dict(decided["source"].drop_nulls().value_counts().iter_rows())))


if __name__ == "__main__":
    main()
