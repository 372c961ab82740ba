"""The least any engine can do to score pairs: decode every picture, and both towers.

One arm of benchmarks/score.py. Pictures lie encoded in memory, texts as tokens. They are decoded
to the size of the model by `curator.core.images`, a batch ahead of the towers, in as many threads
as the engine uses; the towers run as the engine runs them. Nothing is hashed, checked or stored.
"""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from benchmarks.common import Laps
from benchmarks.score_arms import arm_options, chosen, wait_for
from benchmarks.score_floor import read_pairs
from curator.core import images
from curator.engine.executors.local import keep_freed_memory
from curator.scorers.clip_model import load_clip


def main() -> None:
    """Decode and encode all pairs of a folder of shards; print the time of a sample."""
    args = arm_options(__doc__).parse_args()
    device, dtype = chosen(args)
    keep_freed_memory()
    clip = load_clip(str(args.model), device=device, dtype=dtype)
    pictures, texts = read_pairs(args.data)
    ids = clip.tokens.encode(texts).split(args.batch_size)
    starts = range(0, len(pictures), args.batch_size)

    def decode(data: bytes) -> torch.Tensor:
        return clip.resize(images.decode(data).image)

    laps = Laps()
    num_threads = min(16, torch.get_num_threads())  # as `curator.scorers.clip.ClipScorer`
    with ThreadPoolExecutor(num_threads) as pool, torch.inference_mode():

        def begin(start: int) -> list[Future[torch.Tensor]]:
            return [pool.submit(decode, one) for one in pictures[start : start + args.batch_size]]

        ahead = begin(0)
        for start, words in zip(starts, ids, strict=True):
            batch, ahead = ahead, begin(start + args.batch_size)
            clip.encode_images(torch.stack([one.result() for one in batch]))
            clip.net.encode_text(words.to(device))
            wait_for(device)
            laps.lap(len(batch))
    print(json.dumps(laps.summary()))


if __name__ == "__main__":
    main()
