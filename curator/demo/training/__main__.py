"""Train the scorer and the captioner of the rendered world from nothing.

    python -m curator.demo.training OUT [--only scorer|captioner] [--device cuda]

OUT/scorer and OUT/captioner are folders that `--scorer` and `--model` of `curator recaption` take.
About two hours on one core; one thread is the default because sums depend on the number of
threads, and so do the weights. Scenes 0, 1, 2, ... are for training; the demo and the evaluation
begin at `curator.demo.seeds.HELD_OUT`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from curator.demo.training import captioner, scorer
from curator.demo.training.pictures import load_pictures
from curator.errors import UsageError


def main() -> int:
    """Train what is asked for."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("out", type=Path)
    options.add_argument("--only", choices=["scorer", "captioner"])
    options.add_argument("--device", default="cpu")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--scenes", type=int, default=20_000)
    options.add_argument("--captioner-steps", type=int, default=5000)
    options.add_argument("--scorer-steps", type=int, default=3000)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    try:
        pictures = load_pictures(args.out, 0, args.scenes)
    except UsageError as error:
        options.error(str(error))
    # On these short rows PyTorch's plain attention takes a third less time than its flash one.
    with sdpa_kernel(SDPBackend.MATH):
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
