"""Prepare the study of real photos (`benchmarks/real_photos.toml`): a caption a photo, three ways.

    python -m benchmarks.real_photos DATA OUT

DATA/photos holds WebDataset shards whose alt texts are wrong for half of the photos, and
captions.parquet with key, human_captions, blip2 and label (match, no-match). Written is
OUT/captions.parquet: key, `half_wrong` (the alt text), `right` (the alt text where it is right,
else the photo's first human caption), so the two differ in the wrong half only, and `blip2`.
"""

from __future__ import annotations

import argparse
import tarfile
from pathlib import Path

import polars as pl


def alt_texts(photos: Path) -> pl.DataFrame:
    """Return key and half_wrong of all shards in a folder."""
    rows = []
    for path in sorted(photos.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".txt"):
                    found = tar.extractfile(member)
                    assert found is not None, "a member that ends in .txt is a file"
                    rows.append((member.name.removesuffix(".txt"), found.read().decode()))
    return pl.DataFrame(rows, schema=["key", "half_wrong"], orient="row")


def main() -> None:
    """Write the table and say the next command."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("out", type=Path)
    asked = options.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    known = pl.read_parquet(asked.data / "photos" / "captions.parquet")
    table = known.join(alt_texts(asked.data / "photos"), on="key", validate="1:1").select(
        "key",
        "half_wrong",
        pl.when(pl.col("label") == "match")
        .then("half_wrong")
        .otherwise(pl.col("human_captions").list.first())
        .alias("right"),
        "blip2",
    )
    table.write_parquet(asked.out / "captions.parquet")
    print(
        "next: curator study benchmarks/real_photos.toml",
        f"--set data={asked.data} --set out={asked.out} --out {asked.out}/study --jobs 2",
    )


if __name__ == "__main__":
    main()
