"""Export a version as tables without images, one Parquet file per shard.

The plain layout has one row per caption: a sample with three weighted captions has three rows. A
preset is the layout of a published data set, one row per sample, with those columns that can be
filled from the facts:

    recap-datacomp   Recap-DataComp-1B (arXiv 2406.08478), without its two GPT-4V columns
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from curator.core.errors import UsageError, nearest
from curator.export.samples import ShardReader, samples_of
from curator.policy.model import ALT_TEXT
from curator.shards.places import Place
from curator.store import parquet
from curator.store.facts import SCORES, Facts
from curator.store.store import Store
from curator.store.versions import Version

TABLE_SCHEMA = pa.schema(
    [
        ("shard", pa.large_string()),
        ("row", pa.int32()),
        ("key", pa.large_string()),
        ("image_sha256", pa.large_string()),
        ("action", pa.large_string()),
        ("slot", pa.int16()),  # 0 for the first caption of a sample
        ("text", pa.large_string()),
        ("source", pa.large_string()),
        ("weight", pa.float32()),
        ("score", pa.float32()),
        ("because", pa.large_string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("alt_text", pa.large_string()),
    ]
)
RECAP_SCHEMA = pa.schema(
    [
        ("url", pa.large_string()),  # from the .json; null if it has none
        ("re_caption", pa.large_string()),  # the first generated caption; null if none was chosen
        ("org_caption", pa.large_string()),
        ("sha256", pa.large_string()),
        ("key", pa.large_string()),
        ("re_clip_score", pa.float32()),  # raw cosine of the version's scorer
        ("org_clip_score", pa.float32()),
        ("re_length", pa.int32()),  # words
        ("org_length", pa.int32()),
    ]
)
PRESETS = ("recap-datacomp",)


def check_preset(name: str) -> None:
    """Refuse a preset that does not exist.

    Raises:
        UsageError: no such preset; names the nearest.
    """
    if name not in PRESETS:
        raise UsageError(
            f"unknown preset {name!r}", hint=nearest(name, PRESETS), reason="option.value"
        )


def plain_table(rows: pl.DataFrame, *, shard: str) -> pa.Table:
    """Return one row per caption, in the columns of TABLE_SCHEMA."""
    return parquet.to_table(rows.with_columns(shard=pl.lit(shard)), TABLE_SCHEMA)


def recap_table(store: Store, version: Version, rows: pl.DataFrame, *, path: Place) -> pa.Table:
    """Return one row per sample in RECAP_SCHEMA's columns; `path` is the shard with the urls."""
    generated = (
        rows.filter(pl.col("source") != ALT_TEXT)
        .unique("row", keep="first", maintain_order=True)
        .select("row", re_caption="text", re_clip_score="score")
    )
    samples = rows.unique("row", keep="first", maintain_order=True)
    frame = (
        samples.select("row", "key", "image_sha256", "alt_text", text_sha256="alt_sha256")
        .with_columns(url=pl.Series(_urls(samples, path), dtype=pl.String))
        .join(generated, on="row", how="left", maintain_order="left")
        .join(
            _alt_scores(store, version, samples),
            on=["image_sha256", "text_sha256"],
            how="left",
            maintain_order="left",
        )
        .with_columns(
            org_caption="alt_text",
            sha256="image_sha256",
            re_length=pl.col("re_caption").str.count_matches(r"\S+"),
            org_length=pl.col("alt_text").str.count_matches(r"\S+"),
        )
    )
    return parquet.to_table(frame, RECAP_SCHEMA)


def _urls(samples: pl.DataFrame, path: Place) -> list[str | None]:
    with ShardReader(path) as source:
        found = [source.json_fields(sample)[0].get("url") for sample in samples_of(samples)]
    return [url if isinstance(url, str) and url.isprintable() else None for url in found]


def _alt_scores(store: Store, version: Version, samples: pl.DataFrame) -> pl.DataFrame:
    keys = samples.select("image_sha256", text_sha256="alt_sha256").drop_nulls().unique()
    scorer = version.policy.get("scores_by")
    if scorer is None:
        return keys.with_columns(org_clip_score=pl.lit(None, pl.Float32))
    found = Facts(store, SCORES, scorer).read(keys, ["score"])
    return found.select("image_sha256", "text_sha256", org_clip_score="score")
