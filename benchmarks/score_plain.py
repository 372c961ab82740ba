"""The script anybody would write to score shards: webdataset, Pillow, open_clip.

One arm of benchmarks/score.py. What it leaves out: checks of the bytes, of truncated images and
of texts over the context, answers on disk, going on after a stop.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import open_clip
import torch
import webdataset as wds
from PIL import Image

from benchmarks.common import Laps
from benchmarks.score_arms import arm_options, chosen
from curator.core.devices import dtype_name


def main() -> None:
    """Score all shards of a folder; print the time of a sample and the sum of the scores."""
    args = arm_options(__doc__).parse_args()
    device, dtype = chosen(args)
    laps = Laps()
    source = f"local-dir:{args.model}"
    model, _, preprocess = open_clip.create_model_and_transforms(
        source, precision=dtype_name(args.dtype, args.device), device=device
    )
    model.eval()
    tokenizer = open_clip.get_tokenizer(source)

    def flush(images: Sequence[torch.Tensor], texts: Sequence[str]) -> float:
        with torch.inference_mode():
            image = model.encode_image(torch.stack(list(images)).to(device, dtype), normalize=True)
            text = model.encode_text(tokenizer(list(texts)).to(device), normalize=True)
            scores = (image * text).sum(-1).tolist()
        laps.lap(len(scores))
        return float(sum(scores))

    total = 0.0
    images: list[torch.Tensor] = []
    texts: list[str] = []
    for path in sorted(args.data.glob("*.tar")):
        for sample in wds.WebDataset(str(path), shardshuffle=False):
            images.append(preprocess(Image.open(io.BytesIO(sample["jpg"])).convert("RGB")))
            texts.append(sample["txt"].decode())
            if len(images) == args.batch_size:
                total += flush(images, texts)
                images, texts = [], []
    if images:
        total += flush(images, texts)
    print(json.dumps({**laps.summary(), "total": total}))


if __name__ == "__main__":
    main()
