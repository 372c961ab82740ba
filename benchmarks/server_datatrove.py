"""Shards captioned by datatrove's inference runner: `python -m ... PYTHON SHARDS URL`.

PYTHON is of an environment that has datatrove; it runs this file again. Requests at once: 256.
"""

from __future__ import annotations

import base64
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def _main(shards: Path, url: str) -> None:
    from datatrove.data import Document  # type: ignore[import-not-found]  # in a venv of its own
    from datatrove.pipeline.inference.run_inference import (  # type: ignore[import-not-found]  # in a venv of its own
        InferenceConfig,
        InferenceRunner,
    )
    from datatrove.pipeline.writers import JsonlWriter  # type: ignore[import-not-found]  # in a venv of its own

    def documents() -> Iterator[Any]:
        for path in sorted(shards.glob("*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.name.endswith(".jpg"):
                        data = tar.extractfile(member)
                        assert data is not None
                        image = base64.b64encode(data.read()).decode()
                        yield Document(text=" ", id=member.name, metadata={"image": image})

    async def rollout(document: Any, generate: Any) -> str:
        address = f"data:image/jpeg;base64,{document.metadata.pop('image')}"
        content = [
            {"type": "image_url", "image_url": {"url": address}},
            {"type": "text", "text": "Describe this image in one short sentence."},
        ]
        messages = [{"role": "user", "content": content}]
        asked = {"messages": messages, "max_tokens": 64, "temperature": 0.0, "seed": 0}
        return str((await generate(asked)).text)

    with tempfile.TemporaryDirectory() as folder:
        config = InferenceConfig(
            server_type="endpoint",
            model_name_or_path="m",
            endpoint_url=url.removesuffix("/v1"),
            max_concurrent_generations=256,
        )
        runner = InferenceRunner(rollout, config, JsonlWriter(f"{folder}/out"))
        for _ in runner.run(documents(), 0, 1) or ():
            pass


if __name__ == "__main__":
    if len(sys.argv) == 4:
        os.execv(sys.argv[1], [sys.argv[1], __file__, *sys.argv[2:]])
    _main(Path(sys.argv[1]), sys.argv[2])
