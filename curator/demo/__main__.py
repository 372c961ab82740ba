"""`make demo`: the engine from a folder of pictures to a committed, compared, exported version.

It draws its own pictures with alt text as noisy as the web's and runs the real commands on them.
Captions come from `echo`, which does not look at the pictures: this shows the engine, not what
captions are worth. A second run goes on where the first one ended and is done at once.
"""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

from curator import fsops
from curator.cli.app import app
from curator.cli.output import run_app
from curator.progress import bar, say

_NUM_PICTURES = 400
_SIDE_PX = 96
_COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
_GROUNDS = {"grass": "darkolivegreen", "sand": "burlywood", "snow": "gainsboro"}
_SHAPES: dict[str, Callable[[ImageDraw.ImageDraw, tuple[int, int, int, int], str], None]] = {
    "disc": lambda draw, box, color: draw.ellipse(box, fill=color),
    "square": lambda draw, box, color: draw.rectangle(box, fill=color),
    "triangle": lambda draw, box, color: draw.polygon(
        [(box[0], box[3]), ((box[0] + box[2]) // 2, box[1]), (box[2], box[3])], fill=color
    ),
}

POLICY = """
name = "healthy-alt-text"
description = "The alt text if it reads like one, else the generated caption."
sources = ["alt_text", "generated"]
pick = "first"

[[rule]]
name = "healthy"
field = "flags"
none_of = ["empty", "refusal", "repetition", "echo", "language", "spam", "url", "file_name", "html"]
"""


def draw_pictures(folder: Path) -> None:
    """Write NUM.png and NUM.txt files: two thirds of the texts fit, the others are web noise."""
    rng = random.Random(7)
    with bar("draw pictures", _NUM_PICTURES, "pictures") as advance:
        for number in range(_NUM_PICTURES):
            color, shape = rng.choice(_COLORS), rng.choice(list(_SHAPES))
            ground = rng.choice(list(_GROUNDS))
            left, top = rng.randrange(4, 44), rng.randrange(20, 44)
            size = rng.randrange(24, 44)
            picture = Image.new("RGB", (_SIDE_PX, _SIDE_PX), "lightskyblue")
            draw = ImageDraw.Draw(picture)
            draw.rectangle((0, _SIDE_PX // 2, _SIDE_PX, _SIDE_PX), fill=_GROUNDS[ground])
            _SHAPES[shape](draw, (left, top, left + size, top + size), color)
            noise = rng.choice(
                [
                    f"IMG_{rng.randrange(1000, 9999)}.JPG",
                    "FREE SHIPPING!!! buy now, best price, click here",
                    f"https://shop.example/item?id={number}",
                    "",
                ]
            )
            fits = f"a {color} {shape} on {ground} under a blue sky"
            text = fits if rng.random() < 2 / 3 else noise
            encoded = io.BytesIO()
            picture.save(encoded, "PNG")
            fsops.write_atomic(folder / f"{number:04d}.png", encoded.getvalue())
            fsops.write_atomic(folder / f"{number:04d}.txt", text.encode())
            advance(1)


def main() -> int:
    """Run the demo below the folder given on the command line."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")
    pictures, shards, policy = out / "pictures", out / "shards", out / "healthy-alt-text.toml"
    if not (pictures / f"{_NUM_PICTURES - 1:04d}.txt").exists():
        draw_pictures(pictures)
    fsops.write_atomic(policy, POLICY.encode())
    engine = ["--captioner", "echo", "--policy"]
    for argv in (
        ["pack", str(pictures), str(shards), "--samples-per-shard", "100"],
        ["recaption", str(shards), *engine, str(policy)],
        ["recaption", str(shards), *engine, "replace"],
        ["log", str(shards)],
        ["query", str(shards), "select source, count(*) n from captions group by all order by n"],
        ["diff", f"{shards}@v1", f"{shards}@v2", "--html", str(out / "diff.html")],
        ["export", f"{shards}@v1", str(out / "export")],
        ["fsck", str(shards), "--deep"],
    ):
        say(f"\n$ curator {' '.join(argv)}")
        code = run_app(app, argv)
        if code:
            return code
    say(f"\nOpen {out / 'diff.html'} in a browser. Next, with a model on your own shards:")
    say("  curator recaption SHARDS --model HuggingFaceTB/SmolVLM-500M-Instruct --policy best")
    return 0


if __name__ == "__main__":
    sys.exit(main())
