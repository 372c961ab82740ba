"""How well the scorer `concept` finds what people say is in photos, and what it misses.

    python -m benchmarks.concepts PHOTOS CLIP

PHOTOS is a folder of shards with captions.parquet (`key`, `human_captions`: five a photo). A photo
shows a thing if at least two people name it, and does not if nobody does; the others are left out.
Against the cosine of the same words: area under the ROC curve. The presets are asked about photos
that have no watermark and are no screenshot, and about copies with a watermark drawn across.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, ImageDraw, ImageFont

from curator.core.auroc import auroc
from curator.scorers.clip import ClipScorer
from curator.scorers.concept import ConceptScorer
from curator.scorers.concepts import PRESETS
from curator.shards.dataset import discover
from curator.shards.scan import ScanOptions, scan_shard

THINGS = {
    "a photo of a dog": r"\bdogs?\b|\bpupp",
    "snow": r"\bsnow",
    "a beach": r"\bbeach",
    "a person on a bicycle": r"\bbicycl|\bbik(e|es|ing|er)\b",
    "water": r"\bwater|\bocean|\blake|\bpool|\briver",
    "people playing football": r"\bfootball|\bsoccer",
    "a person climbing a rock": r"\bclimb",
    "a child": r"\bchild|\bkid|\bboy|\bgirl|\btoddler|\bbaby",
    "a crowd of people": r"\bcrowd",
    "a red shirt": r"\bred\b",
}
_AT_ONCE = 100
_AT_LEAST = 2
_EVERY = 4


def photos(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield key and bytes of every photo."""
    for ref in discover(str(folder)).shards:
        data = Path(str(ref.path)).read_bytes()
        for sample in scan_shard(ref, options=ScanOptions()).samples:
            image = sample.image
            assert image is not None
            yield sample.key, data[image.offset : image.offset + image.length]


def scores(scorer: ClipScorer, images: Sequence[bytes], words: Sequence[str]) -> np.ndarray:
    """Return `[num_images, num_words]`."""
    found = []
    for start in range(0, len(images), _AT_ONCE):
        batch = images[start : start + _AT_ONCE]
        got = scorer.score([(image, text) for image in batch for text in words])
        found += [[one.score for one in got]]
    return np.concatenate([np.array(part).reshape(-1, len(words)) for part in found])


def watermarked(data: bytes) -> bytes:
    """Return the photo with large half-transparent words across it, as stock sites show theirs."""
    photo = Image.open(io.BytesIO(data)).convert("RGBA")
    layer = Image.new("RGBA", photo.size, (255, 255, 255, 0))
    draw = ImageDraw.Draw(layer)
    font = ImageFont.load_default(photo.width // 7)
    for row in range(3):
        place = (photo.width * 0.05, photo.height * (0.1 + 0.3 * row))
        draw.text(place, "STOCK PHOTO", fill=(255, 255, 255, 150), font=font)
    out = io.BytesIO()
    Image.alpha_composite(photo, layer.rotate(30)).convert("RGB").save(out, "JPEG", quality=90)
    return out.getvalue()


def page(text: str, side: int = 224) -> bytes:
    """Return a picture of a page of text."""
    image = Image.new("RGB", (side, side), "white")
    font = ImageFont.load_default(side // 20)
    words = [text[start : start + 32] for start in range(0, 32 * 15, 32)]
    ImageDraw.Draw(image).multiline_text((8, 8), "\n".join(words), fill="black", font=font)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def main() -> None:
    """Print the tables of the page in docs/results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("clip")
    args = parser.parse_args()
    captions = dict(
        pl.read_parquet(args.photos / "captions.parquet")
        .select("key", "human_captions")
        .iter_rows()
    )
    keys, images = zip(*photos(args.photos), strict=True)
    words = [*THINGS, *(one for wordings in PRESETS.values() for one in wordings)]
    concept = ConceptScorer(args.clip)
    found = scores(concept, images, words)
    cosine = scores(ClipScorer(args.clip), images, list(THINGS))
    print("| words | photos with it | AUROC, cosine | AUROC, concept | precision | recall |")
    rows = []
    for place, (thing, pattern) in enumerate(THINGS.items()):
        named = [
            sum(bool(re.search(pattern, text.lower())) for text in captions[key]) for key in keys
        ]
        there, absent = np.array(named) >= _AT_LEAST, np.array(named) == 0
        likely = found[:, place] >= 0.5
        hits = (likely & there).sum()
        by_cosine = auroc(cosine[there, place], cosine[absent, place])
        by_concept = auroc(found[there, place], found[absent, place])
        told = hits / max((likely & (there | absent)).sum(), 1)
        rows.append((by_cosine, by_concept, told, hits / there.sum()))
        values = " | ".join(f"{one:.3f}" for one in rows[-1][:2])
        print(f"| {thing} | {there.sum()} | {values} | {told:.2f} | {hits / there.sum():.2f} |")
    print("mean", np.array(rows).mean(0).round(3))
    start = len(THINGS)
    pages = [page(" ".join(captions[key])) for key in keys[::_EVERY]]
    marked = [watermarked(data) for data in images[::_EVERY]]
    planted = {"watermark": marked, "screenshot": pages}
    for name, wordings in PRESETS.items():
        clean = found[:, start : start + len(wordings)].max(1)
        print(f"{name}: {(clean >= 0.5).mean():.1%} of {len(clean)} clean photos at 0.5 or more")
        start += len(wordings)
        if name in planted:
            marks = scores(concept, planted[name], wordings).max(1)
            print(
                f"  {(marks >= 0.5).mean():.1%} of {len(marks)} planted ones;"
                f" AUROC {auroc(marks, clean):.3f}"
            )


if __name__ == "__main__":
    main()
