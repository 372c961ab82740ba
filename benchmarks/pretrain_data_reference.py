"""Two arms of benchmarks/pretrain_data.py that are not ours: the loaders people train with today.

open_clip    open_clip_train's own loader, with its end-of-shard marker mended (it fails with
             webdataset 1.0)
webdataset   what anybody would write: WebDataset, shuffle, decode, transform, WebLoader
"""

from __future__ import annotations

import argparse
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import open_clip
import open_clip_train.data as reference
import torch
import webdataset as wds
from PIL import Image

from benchmarks.pretrain_data_arms import MEAN, STD, WARM_BATCHES, asked_for, timed


def main() -> None:
    """Draw the batches of one arm and print the time of a sample."""
    args = asked_for(__doc__, ["open_clip", "webdataset"])
    timed(from_open_clip if args.arm == "open_clip" else from_webdataset, args)


def from_open_clip(args: argparse.Namespace) -> Iterator[int]:
    """`get_wds_dataset`, as open_clip_train's main calls it."""
    reference.tarfile_to_samples_nothrow = wds.tarfile_to_samples(
        handler=reference.log_and_continue
    )
    tars = sorted(Path(args.source).glob("*.tar"))
    asked = argparse.Namespace(
        train_data="::".join(map(str, tars)),
        train_num_samples=(args.batches + WARM_BATCHES + 4) * args.batch_size,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        batch_size=args.batch_size,
        workers=args.workers,
        world_size=1,
    )
    preprocess = open_clip.image_transform(args.image_px, is_train=True, mean=MEAN, std=STD)
    tokenizer = open_clip.SimpleTokenizer()
    info = reference.get_wds_dataset(asked, preprocess, is_train=True, tokenizer=tokenizer)
    for images, _ in info.dataloader:
        yield len(images)


def from_webdataset(args: argparse.Namespace) -> Iterator[int]:
    """A plain script; it takes the first caption, and decodes with Pillow."""
    preprocess = open_clip.image_transform(args.image_px, is_train=True, mean=MEAN, std=STD)
    tokenizer = open_clip.SimpleTokenizer()

    def prepare(sample: dict[str, bytes]) -> tuple[torch.Tensor, torch.Tensor]:
        captions = json.loads(sample["json"])["curator"]["captions"]
        weights = [caption["weight"] for caption in captions]
        text = random.choices([caption["text"] for caption in captions], weights)[0]
        image = Image.open(io.BytesIO(sample["jpg"])).convert("RGB")
        return preprocess(image), tokenizer([text])[0]

    tars = [str(path) for path in sorted(Path(args.source).glob("*.tar"))]
    data = (
        wds.WebDataset(tars, shardshuffle=len(tars), nodesplitter=wds.split_by_node)
        .repeat()
        .shuffle(1000)
        .map(prepare)
        .batched(args.batch_size, partial=False)
    )
    for images, _ in wds.WebLoader(data, batch_size=None, num_workers=args.workers):
        yield len(images)


if __name__ == "__main__":
    main()
