"""What anybody would write to caption shards with a server: `python -m ... SHARDS URL`."""

from __future__ import annotations

import asyncio
import base64
import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from PIL import Image


def _images(shards: Path) -> Iterator[bytes]:
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    data = tar.extractfile(member)
                    assert data is not None
                    yield data.read()


async def _caption(session: aiohttp.ClientSession, url: str, image: bytes) -> str:
    Image.open(io.BytesIO(image)).convert("RGB")
    address = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "text", "text": "Describe this image in one short sentence."},
    ]
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 64,
        "temperature": 0.0,
        "seed": 0,
    }
    async with session.post(f"{url}/chat/completions", json=body) as response:
        document = await response.json()
        return str(document["choices"][0]["message"]["content"])


async def _main(shards: Path, url: str) -> None:
    connector = aiohttp.TCPConnector(limit=256)
    async with aiohttp.ClientSession(connector=connector) as session:
        flying: set[asyncio.Task[str]] = set()
        for image in _images(shards):
            if len(flying) >= 256:
                _, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
            flying.add(asyncio.create_task(_caption(session, url, image)))
        await asyncio.wait(flying)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2]))
