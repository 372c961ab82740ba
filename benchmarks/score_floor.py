"""The floor of scoring: the two towers on tensors that lie ready in memory, and nothing else.

One arm of benchmarks/score.py. `--as plain` loads and runs the model like
benchmarks/score_plain.py; `--as engine` like the engine, which lets glibc keep freed memory and
puts the channels last.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import open_clip
import torch
from PIL import Image

from benchmarks.common import Laps
from benchmarks.score_arms import arm_options, chosen, wait_for
from curator.core.devices import dtype_name
from curator.engine.executors.local import keep_freed_memory
from curator.scorers.clip_model import load_clip


def main() -> None:
    """Encode all pairs of a folder of shards; print the time of a sample."""
    options = arm_options(__doc__)
    options.add_argument("--as", dest="like", choices=("plain", "engine"), required=True)
    args = options.parse_args()
    device, dtype = chosen(args)
    net, _, preprocess = open_clip.create_model_and_transforms(
        f"local-dir:{args.model}", precision=dtype_name(args.dtype, args.device), device=device
    )
    tokenizer = open_clip.get_tokenizer(f"local-dir:{args.model}")
    net.eval()
    layout = torch.contiguous_format
    if args.like == "engine":
        keep_freed_memory()
        layout = torch.channels_last
        net = load_clip(str(args.model), device=device, dtype=dtype).net
    encoded, texts = read_pairs(args.data)
    pictures = [preprocess(Image.open(io.BytesIO(data)).convert("RGB")) for data in encoded]
    batches = [
        part.to(device, dtype).contiguous(memory_format=layout)
        for part in torch.stack(pictures).split(args.batch_size)
    ]
    ids = tokenizer(texts).to(device).split(args.batch_size)
    del encoded, pictures
    laps = Laps()
    with torch.inference_mode():
        for images, words in zip(batches, ids, strict=True):
            net.encode_image(images)
            net.encode_text(words)
            wait_for(device)
            laps.lap(len(images))
    print(json.dumps(laps.summary()))


def read_pairs(folder: Path) -> tuple[list[bytes], list[str]]:
    """The encoded pictures and the alt texts of all shards."""
    pictures, texts = [], []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                data = tar.extractfile(member)
                assert data is not None, "our shards hold files only"
                if member.name.endswith(".jpg"):
                    pictures.append(data.read())
                elif member.name.endswith(".txt"):
                    texts.append(data.read().decode())
    return pictures, texts


if __name__ == "__main__":
    main()
