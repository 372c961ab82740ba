"""Draw docs/images/world.png, the README's picture of the demo: alt texts beside new captions.

    curator demo run demo-out
    python -m benchmarks.world_picture demo-out docs/images/world.png

It shows the first images of a seeded draw from all of the demo: good alt texts may be among them,
and nothing is picked by hand. Each has its alt text, struck out unless it is right, what the truth
of the world says of it, the caption that the policy `replace` chose, and the score of both. A scene
is rendered again at the size of the page and without the camera's noise; the models saw it at the
size of the demo's images and with the noise.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from curator.demo.alttext import NOISES
from curator.demo.checker import check
from curator.demo.data import materials
from curator.demo.evaluate import read_truth
from curator.demo.render import render
from curator.demo.scene import Scene, sample_scene
from curator.policy.decider import read_decision
from curator.steps.workspace import open_workspace
from curator.store import fsops
from curator.store.store import Store

POLICY, BEFORE = "replace", "as-is"
SCALE = 2  # pixels for one of a plain screen
WIDTH, COLUMNS, MARGIN, GAP, PAD = 1000, 3, 20, 20, 14
SIDE = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) // COLUMNS
TEXT_SIZE, NOTE_SIZE, LEADING, CORNER = 15, 12, 21, 12
MOST_LINES = 3
_TEXT_WIDTH = SIDE - 2 * PAD
_BLOCK = 22 + MOST_LINES * LEADING  # a heading and a text

INK, GREY, FAINT, GREEN, RED = "#1f2328", "#59636e", "#8c959f", "#116329", "#a40e26"
PAGE, CARD, EDGE = "#ffffff", "#f6f8fa", "#d1d9e0"
_NOTES = {
    "good": "right",
    "file_name": "a file name",
    "sku": "an article number",
    "spam": "an advertisement",
    "other_caption": "of another image",
    "wrong_detail": "one detail is wrong",
    "vague": "says nothing",
    "foreign": "another language",
    "html": "markup",
    "empty": "missing",
}
assert _NOTES.keys() == set(NOISES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image and its two texts; scores are None where there are none.

    `noise` is that of the alt text. `wrong` are the kinds of facts that the caption has wrong.
    """

    scene: Scene
    alt_text: str
    noise: str
    alt_score: float | None
    caption: str
    score: float | None
    wrong: list[str]


def main() -> None:
    """Draw the picture of a demo folder."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("demo", type=Path, help="folder of `curator demo run`")
    options.add_argument("out", type=Path, help="the PNG to write")
    options.add_argument("--images", type=int, default=2 * COLUMNS)
    options.add_argument("--seed", type=int, default=0, help="of the draw")
    args = options.parse_args()
    out = io.BytesIO()
    draw(drawn(args.demo, args.images, args.seed)).save(out, "PNG", optimize=True)
    fsops.write_atomic(args.out, out.getvalue())
    print(f"{args.out}: {len(out.getvalue()) / 1000:.0f} KB")


def drawn(demo: Path, num: int, seed: int) -> list[Row]:
    """Return the first `num` images of a draw from all."""
    store = open_workspace(str(demo / "shards"), None).store
    texts = _decided(store, POLICY).join(
        _decided(store, BEFORE).select("image_sha256", alt_score="score"),
        on="image_sha256",
        how="left",
    )
    texts = texts.join(read_truth(demo), on="image_sha256").sort("image_sha256")
    places = np.random.default_rng(seed).permutation(len(texts))[:num]
    return [_row(row) for row in texts[places].to_dicts()]


def _decided(store: Store, policy: str) -> pl.DataFrame:
    """Return image_sha256, text and score of the newest version by a policy; no rows without."""
    versions = [one for one in store.versions() if one.policy["name"] == policy]
    entries = versions[-1].shards if versions else ()
    empty = pl.DataFrame(schema={"image_sha256": pl.String, "text": pl.String, "score": pl.Float64})
    columns = ("image_sha256", "text", pl.col("score").cast(pl.Float64).fill_nan(None))
    parts = [
        read_decision(store, entry).filter(pl.col("slot") == 0).select(columns) for entry in entries
    ]
    return pl.concat([empty, *parts])


def _row(row: dict[str, object]) -> Row:
    scene = sample_scene(int(str(row["scene_seed"])), materials(bool(row["patterns"])))
    text = str(row["text"] or "")
    return Row(
        scene=scene,
        alt_text=" ".join(str(row["alt_text"] or "").split()),
        noise=str(row["noise"]),
        alt_score=_number(row["alt_score"]),
        caption=text,
        score=_number(row["score"]),
        wrong=[
            name for name, told in check(text, scene).facts.items() if told.right < told.claimed
        ],
    )


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None


# -- drawing --------------------------------------------------------------------------------------


def draw(rows: Sequence[Row]) -> Image.Image:
    """Draw a card for every row, COLUMNS side by side, on a page SCALE times WIDTH pixels wide."""
    height = SIDE + PAD + 2 * _BLOCK + 2 * PAD
    num_lines = -(-len(rows) // COLUMNS)
    page = Image.new(
        "RGB", (WIDTH * SCALE, (2 * MARGIN + num_lines * (height + GAP) - GAP) * SCALE), PAGE
    )
    pen = ImageDraw.Draw(page)
    for number, row in enumerate(rows):
        left = MARGIN + number % COLUMNS * (SIDE + GAP)
        top = MARGIN + number // COLUMNS * (height + GAP)
        box = [edge * SCALE for edge in (left, top, left + SIDE, top + height)]
        pen.rounded_rectangle(box, CORNER * SCALE, fill=CARD)
        _paste(page, row.scene, left, top)
        pen.rounded_rectangle(box, CORNER * SCALE, outline=EDGE, width=SCALE)
        right = row.noise == "good"
        note = (_NOTES[row.noise], GREEN if right else RED)
        at = (left + PAD, top + SIDE + PAD)
        _write(pen, at, "ALT TEXT", row.alt_text, note, row.alt_score, struck=not right)
        more = "\u2026" if len(row.wrong) > 1 else ""  # no room for all
        note = (f"wrong: {row.wrong[0]}{more}", RED) if row.wrong else ("right", GREEN)
        at = (left + PAD, top + SIDE + 2 * PAD + _BLOCK)
        _write(pen, at, "NEW CAPTION", row.caption, note, row.score, struck=False)
    return page


def _paste(page: Image.Image, scene: Scene, left: int, top: int) -> None:
    """Put the image at the top of its card, with the card's corners."""
    side = SIDE * SCALE
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).rounded_rectangle(
        (0, 0, side, side + CORNER * SCALE), CORNER * SCALE, fill=255
    )
    shown = Image.fromarray(render(replace(scene, noise=0.0), side).rgb)
    page.paste(shown, (left * SCALE, top * SCALE), mask)


def _write(
    pen: ImageDraw.ImageDraw,
    at: tuple[int, int],
    title: str,
    text: str,
    note: tuple[str, str],
    score: float | None,
    *,
    struck: bool,
) -> None:
    left, top = at[0] * SCALE, at[1] * SCALE
    small, bold = _font("DejaVu Sans", NOTE_SIZE), _font("DejaVu Sans:bold", NOTE_SIZE)
    pen.text((left, top), title, GREY, bold)
    pen.text((left + pen.textlength(f"{title}  ", bold), top), note[0], note[1], small)
    if score is not None:
        end = left + _TEXT_WIDTH * SCALE
        pen.text((end, top), f"score {score:.2f}", INK, small, anchor="ra")
    font = _font("DejaVu Sans", TEXT_SIZE)
    for number, line in enumerate(lines_of(text)):
        y = top + (22 + number * LEADING) * SCALE
        pen.text((left, y), line, FAINT if struck else INK, font)
        if struck:
            middle = y + round(0.62 * TEXT_SIZE * SCALE)
            end = left + pen.textlength(line, font)
            pen.line((left, middle, end, middle), fill=RED, width=SCALE)


def lines_of(text: str) -> list[str]:
    """Break a text into at most MOST_LINES lines that fit a card; a cut one ends in an ellipsis."""
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
    """Load a font that matplotlib brings along, and so looks the same everywhere."""
    return ImageFont.truetype(font_manager.findfont(pattern), size * SCALE)


if __name__ == "__main__":
    main()
