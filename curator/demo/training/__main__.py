"""Train the scorer and the captioner of the rendered world from nothing.

    python -m curator.demo.training OUT [--only scorer|captioner] [--device cuda]

OUT/scorer and OUT/captioner are folders that `--scorer` and `--model` of `curator recaption` take.
About 45 minutes on two cores. Scenes 0, 1, 2, ... are for training; the demo and the evaluation
begin at `HELD_OUT`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from curator.demo.training import captioner, scorer
from curator.demo.training.pictures import load_pictures


def main() -> int:
    """Train what is asked for."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("out", type=Path)
    options.add_argument("--only", choices=["scorer", "captioner"])
    options.add_argument("--device", default="cpu")
    options.add_argument("--scenes", type=int, default=12_000)
    options.add_argument("--captioner-steps", type=int, default=1600)
    options.add_argument("--scorer-steps", type=int, default=600)
    args = options.parse_args()
    pictures = load_pictures(args.out, 0, args.scenes)
    if args.only != "scorer":
        captioner.train(
            pictures,
            args.out / "captioner",
            steps=args.captioner_steps,
            batch_size=64,
            device=args.device,
        )
    if args.only != "captioner":
        scorer.train(
            pictures,
            args.out / "scorer",
            steps=args.scorer_steps,
            batch_size=128,
            device=args.device,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
