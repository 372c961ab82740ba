"""Write an open_clip model folder with random weights: the arithmetic of a real one, no download.

    python -m benchmarks.random_clip ViT-B-32 FOLDER

NAME is any of open_clip's model configurations, or `tiny`: 32 px and 60 thousand weights beside
its vocabulary.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

_TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def main() -> None:
    """Build and save."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("name")
    options.add_argument("folder", type=Path)
    args = options.parse_args()
    torch.manual_seed(0)
    if args.name == "tiny":
        config, net = _TINY, open_clip.CLIP(**_TINY)
    else:
        config = open_clip.get_model_config(args.name)
        net = open_clip.create_model(args.name)
    args.folder.mkdir(parents=True)
    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    save_file(weights, args.folder / "open_clip_model.safetensors")
    saved = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (args.folder / "open_clip_config.json").write_text(json.dumps(saved))


if __name__ == "__main__":
    main()
