"""Export a version as tables without images, one Parquet file per shard.

The plain layout has one row per caption: a sample with three weighted captions has three rows. A
preset is the layout of a published data set, one row per sample, with those columns that can be
filled from the facts:

    recap-datacomp   Recap-DataComp-1B (arXiv 2406.08478), without its two GPT-4V columns

An overlay has one row per caption and what finds the image again in other people's copies: the
digest of its bytes, key, uid and url.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl
import pyarrow as pa

from curator.core.errors import UsageError, nearest
from curator.core.hashing import canonical_json
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

OVERLAY_SCHEMA = pa.schema(
    [
        ("image_sha256", pa.large_string()),
        ("key", pa.large_string()),
        ("shard", pa.large_string()),
        ("uid", pa.large_string()),
        ("url", pa.large_string()),
        ("original_sha256", pa.large_string()),
        ("slot", pa.int16()),
        ("text", pa.large_string()),
        ("source", pa.large_string()),
        ("weight", pa.float32()),
        ("score", pa.float32()),
    ]
)
OVERLAY_COLUMNS = {
    "image_sha256": "SHA-256 of the encoded image as it lay in the shard",
    "key": "key of the sample in the shard",
    "shard": "name of the shard, without .tar",
    "uid": "`uid` of the sample's .json, as DataComp has it; null if there is none",
    "url": "`url` of the sample's .json; null if there is none",
    "original_sha256": "`sha256` of the sample's .json: with img2dataset the file as downloaded, "
    "before resizing; null if there is none",
    "slot": "0 for the first caption of a sample",
    "text": "the caption",
    "source": "who wrote it: `alt_text` or a name of the makers in README.md",
    "weight": "sampling weight; the weights of one sample add up to 1",
    "score": "of this text and image, by the scorer of the policy; null if it was not scored",
}
"""The columns of an overlay and what they mean."""
FROM_JSON = {"uid": "uid", "url": "url", "original_sha256": "sha256"}
"""Columns of an overlay that come from a field of the sample's .json."""


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
        .with_columns(url=pl.Series(_json_texts(samples, path, ["url"])["url"], dtype=pl.String))
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


def overlay_table(rows: pl.DataFrame, *, shard: str, path: Place) -> pa.Table:
    """Return one row per caption in OVERLAY_SCHEMA's columns; `path` is the shard."""
    samples = rows.unique("row", keep="first", maintain_order=True)
    found = _json_texts(samples, path, FROM_JSON.values())
    columns = {name: pl.Series(found[field], dtype=pl.String) for name, field in FROM_JSON.items()}
    ids = samples.select("row").with_columns(**columns)
    frame = rows.join(ids, on="row", how="left", maintain_order="left").with_columns(
        shard=pl.lit(shard)
    )
    return parquet.to_table(frame, OVERLAY_SCHEMA)


def overlay_metadata(version: Version) -> bytes:
    """Return what each table of an overlay says of itself: version, policy and makers."""
    about = {"version": version.id, "policy": version.policy, "makers": version.makers}
    return canonical_json(about)


def _json_texts(
    samples: pl.DataFrame, path: Place, names: Iterable[str]
) -> dict[str, list[str | None]]:
    """Return fields of each sample's .json; None where it is missing or no printable text."""
    found: dict[str, list[str | None]] = {name: [] for name in names}
    with ShardReader(path) as source:
        for sample in samples_of(samples):
            fields, _ = source.json_fields(sample)
            for name, values in found.items():
                values.append(_printable(fields.get(name)))
    return found


def _printable(value: object) -> str | None:
    return value if isinstance(value, str) and value.isprintable() else None


def _alt_scores(store: Store, version: Version, samples: pl.DataFrame) -> pl.DataFrame:
    keys = samples.select("image_sha256", text_sha256="alt_sha256").drop_nulls().unique()
    scorer = version.policy.get("scores_by")
    if scorer is None:
        return keys.with_columns(org_clip_score=pl.lit(None, pl.Float32))
    found = Facts(store, SCORES, scorer).read(keys, ["score"])
    return found.select("image_sha256", "text_sha256", org_clip_score="score")
