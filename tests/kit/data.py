"""Sources for tests of pretraining: in memory without images, or small ones on disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image

from pretrain.data.rng import Ints
from pretrain.data.source import Source
from pretrain.data.tables import ROWS, ShardTable

Texts = Sequence[str]


class FakeTables:
    """Shards of samples given as lists of texts; images are named by shard and row only."""

    def __init__(self, *shards: Sequence[Texts]) -> None:
        self._given = shards
        self.shards = tuple(f"{number:05d}" for number in range(len(shards)))
        self.num_reads = 0

    def counts(self) -> Ints:
        return np.array([len(rows) for rows in self._given], np.int64)

    def read(self, shard: int) -> ShardTable:
        self.num_reads += 1
        rows = [
            {
                "key": f"{shard}-{row}",
                "image_sha256": sha256_of(shard, row),
                "offset": row,
                "length": 1,
                "texts": list(texts),
                "weights": [1 / len(texts)] * len(texts),
                "written_by": ["alt_text"] * len(texts),
            }
            for row, texts in enumerate(self._given[shard])
        ]
        return ShardTable(Path(f"{shard}.tar"), pl.DataFrame(rows, schema=ROWS))

    def images(self, shard: int) -> pl.Series:
        return self.read(shard).rows["image_sha256"]


def sha256_of(shard: int, row: int) -> str:
    return hashlib.sha256(f"{shard} {row}".encode()).hexdigest()


def counted(*counts: int) -> FakeTables:
    """Shards of so many samples, each with a text of its own."""
    return FakeTables(
        *([[f"text {shard} {row}"] for row in range(count)] for shard, count in enumerate(counts))
    )


def fake_source(*counts: int) -> Source:
    return Source(counted(*counts), name="fake", source_id="0", about={})


def texts_of(source: Source) -> dict[str, list[str]]:
    """Key -> texts of a whole source."""
    return {
        key: texts
        for shard in range(len(source.tables.shards))
        for key, texts in source.read(shard).rows.select("key", "texts").rows()
    }


def half_jpeg() -> bytes:
    """A good header in front of half of the pixels: only decoding finds that the rest is gone."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "JPEG")
    return out.getvalue()[: len(out.getvalue()) // 2]


def lengths(texts: list[str]) -> torch.Tensor:
    """A tokenizer for tests: one token a text, its number of characters."""
    return torch.tensor([[len(text)] for text in texts])
