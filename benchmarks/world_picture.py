"""Draws docs/images/world.png, what the README shows of the demo: alt texts beside new captions.

    curator demo run demo-out
    python -m benchmarks.world_picture demo-out docs/images/world.png

The pictures are the first ones of a seeded draw from all of the demo, good alt texts among them and
nothing picked by hand. A caption is what the policy `replace` chose. Below each text stands what
the truth of the world says: how the alt text was spoilt, if it was, and what is wrong in the
caption, if anything is (`curator.demo.checker`).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from curator.core import images
from curator.demo.alttext import KINDS
from curator.demo.checker import check
from curator.demo.evaluate import read_truth
from curator.demo.scene import sample_scene
from curator.policy.decider import read_decision
from curator.shards.scan import read_bytes
from curator.steps.workspace import Workspace, open_workspace
from curator.store import fsops, index

POLICY = "replace"
SCALE = 2  # pixels for one of a plain screen
WIDTH, SIDE, GAP, HEAD, MARGIN = 1000, 128, 24, 32, 16
TEXT_SIZE, NOTE_SIZE, LEADING = 15, 13, 20
MOST_LINES = 5
_TEXT_WIDTH = (WIDTH - 2 * MARGIN - SIDE - 2 * GAP) // 2
_COLUMNS = (MARGIN, MARGIN + SIDE + GAP, WIDTH - MARGIN - _TEXT_WIDTH)

INK, GREY, GREEN, RED = "#1f2328", "#59636e", "#116329", "#a40e26"
_SPOILT = {
    "good": "good",
    "file_name": "a file name",
    "sku": "an article number",
    "spam": "spam",
    "other_caption": "another picture's caption",
    "wrong_attribute": "one thing is wrong",
    "vague": "vague",
    "foreign": "another language",
    "html": "remains of HTML",
    "empty": "no alt text",
}
assert _SPOILT.keys() == set(KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture. `kind` says how its alt text was spoilt, `wrong` what of the caption is."""

    picture: Image.Image
    alt_text: str
    kind: str
    caption: str
    wrong: list[str]


def main() -> None:
    """Draw the picture of a demo folder."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("demo", type=Path, help="folder of `curator demo run`")
    options.add_argument("out", type=Path, help="the PNG to write")
    options.add_argument("--rows", type=int, default=6)
    options.add_argument("--seed", type=int, default=0, help="of the draw")
    args = options.parse_args()
    rows = drawn(args.demo, args.rows, args.seed)
    out = io.BytesIO()
    draw(rows).save(out, "PNG", optimize=True)
    fsops.write_atomic(args.out, out.getvalue())
    print(f"{args.out}: {len(out.getvalue()) / 1000:.0f} KB")


def drawn(demo: Path, num: int, seed: int) -> list[Row]:
    """The first `num` pictures of a draw from all."""
    ws = open_workspace(str(demo / "shards"), None)
    texts = _captions(ws).join(read_truth(demo), on="image_sha256").sort("image_sha256")
    places = np.random.default_rng(seed).permutation(len(texts))[:num]
    return [_row(ws, row) for row in texts[places].to_dicts()]


def _captions(ws: Workspace) -> pl.DataFrame:
    """shard, image_sha256, text of the newest version by POLICY."""
    version = [one for one in ws.store.versions() if one.policy["name"] == POLICY][-1]
    parts = [
        read_decision(ws.store, entry)
        .filter(pl.col("slot") == 0)
        .select(pl.lit(entry.name).alias("shard"), "image_sha256", "text")
        for entry in version.shards
    ]
    return pl.concat(parts)


def _row(ws: Workspace, row: dict[str, str]) -> Row:
    places = index.read(ws.store, row["shard"], ["image_sha256", "offset", "length"])
    place = places.row(by_predicate=pl.col("image_sha256") == row["image_sha256"], named=True)
    data = read_bytes(ws.ref(row["shard"]).path, place["offset"], place["length"])
    facts = check(row["text"], sample_scene(int(row["scene_seed"]))).facts
    return Row(
        picture=images.decode(data).image,
        alt_text=" ".join((row["alt_text"] or "").split()),
        kind=row["kind"],
        caption=row["text"],
        wrong=[name for name, tally in facts.items() if tally.right < tally.claimed],
    )


# -- drawing --------------------------------------------------------------------------------------


def draw(rows: Sequence[Row]) -> Image.Image:
    """A table of picture, alt text and caption on white, SCALE times WIDTH pixels wide."""
    height = MARGIN + HEAD + len(rows) * (SIDE + GAP) - GAP + MARGIN
    page = Image.new("RGB", (WIDTH * SCALE, height * SCALE), "white")
    pen = ImageDraw.Draw(page)
    bold = _font("DejaVu Sans:bold", TEXT_SIZE)
    for left, title in zip(_COLUMNS, ("", "alt text", "new caption"), strict=True):
        pen.text((left * SCALE, MARGIN * SCALE), title, INK, bold)
    for number, row in enumerate(rows):
        top = MARGIN + HEAD + number * (SIDE + GAP)
        shown = row.picture.resize((SIDE * SCALE, SIDE * SCALE), Image.Resampling.NEAREST)
        page.paste(shown, (MARGIN * SCALE, top * SCALE))
        note = (_SPOILT[row.kind], GREEN if row.kind == "good" else RED)
        _write(pen, _COLUMNS[1], top, row.alt_text, note)
        told = (f"wrong: {', '.join(row.wrong)}", RED) if row.wrong else ("right", GREEN)
        _write(pen, _COLUMNS[2], top, row.caption, told)
    return page


def _write(pen: ImageDraw.ImageDraw, left: int, top: int, text: str, note: tuple[str, str]) -> None:
    font = _font("DejaVu Sans", TEXT_SIZE)
    for line in lines_of(text):
        pen.text((left * SCALE, top * SCALE), line, INK, font)
        top += LEADING
    pen.text((left * SCALE, (top + 4) * SCALE), note[0], note[1], _font("DejaVu Sans", NOTE_SIZE))


def lines_of(text: str) -> list[str]:
    """A text in lines that fit into a column, at most MOST_LINES; a cut one ends in an ellipsis."""
    font = _font("DejaVu Sans", TEXT_SIZE)
    lines: list[str] = []
    rest = text
    while rest and len(lines) < MOST_LINES:
        size = next(size for size in range(len(rest), 0, -1) if _fits(rest[:size], font))
        if size < len(rest) and " " in rest[: size + 1]:  # else one word is longer than a line
            size = rest.rindex(" ", 0, size + 1)
        lines.append(rest[:size])
        rest = rest[size:].lstrip()
    if rest:
        lines[-1] = f"{lines[-1][:-2]}\u2026"
    return lines


def _fits(text: str, font: ImageFont.FreeTypeFont) -> bool:
    return font.getlength(text) <= _TEXT_WIDTH * SCALE


def _font(pattern: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that matplotlib brings along, and so looks the same everywhere."""
    return ImageFont.truetype(font_manager.findfont(pattern), size * SCALE)


if __name__ == "__main__":
    main()
