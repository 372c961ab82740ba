"""Prepare the study of policies (`benchmarks/policies.toml`): one rendered world, a version each.

    python -m benchmarks.policies WORLD [--images 3000] [--seed 30]

Renders the images, captions and scores them with the bundled models, and commits a version by every
preset. A stopped preparation continues; what is there is not made again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from curator.policy.model import PRESETS


def main() -> None:
    """Prepare the world named on the command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("world", type=Path)
    options.add_argument("--images", type=int, default=3000)
    options.add_argument("--seed", type=int, default=30)
    asked = options.parse_args()
    shards = asked.world / "shards"
    for argv in (
        ["demo", "data", asked.world, "--images", asked.images, "--seed", asked.seed],
        ["recaption", shards, "--policy", "best"],
        *(["decide", shards, "--policy", name] for name in PRESETS.names() if name != "best"),
    ):
        command = [sys.executable, "-m", "curator", *map(str, argv)]
        print("$ curator", *argv, flush=True)
        subprocess.run(command, check=True)
    print(f"next: curator study benchmarks/policies.toml --set world={asked.world}")


if __name__ == "__main__":
    main()
