"""Decode images in the background; and make the test image of the health check."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image

from curator.captioners import CaptionFailure, CaptionRequest
from curator.core.errors import Unusable
from curator.core.images import DecodedImage, decode

MAX_DECODE_THREADS = 8


class DecodePool:
    """Decodes the images of requests in threads, each image of a batch once.

    `prefetch` starts decoding a batch, `take` waits for it. At most the prefetched batch and the
    current one are in memory.
    """

    def __init__(self) -> None:
        num_threads = min(MAX_DECODE_THREADS, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
        self._started: dict[str, Future[DecodedImage]] = {}

    def prefetch(self, requests: Sequence[CaptionRequest]) -> None:
        """Start decoding; returns at once."""
        for request in requests:
            if request.image_sha256 not in self._started:
                self._started[request.image_sha256] = self._threads.submit(decode, request.image)

    def take(self, requests: Sequence[CaptionRequest]) -> list[Image.Image | CaptionFailure]:
        """Return the RGB image of every request, or its `image.*` failure."""
        self.prefetch(requests)
        futures = {r.image_sha256: self._started[r.image_sha256] for r in requests}
        for image_sha256 in futures:
            del self._started[image_sha256]
        return [_outcome(futures[request.image_sha256]) for request in requests]


def _outcome(future: Future[DecodedImage]) -> Image.Image | CaptionFailure:
    try:
        return future.result().image
    except Unusable as error:
        return CaptionFailure(error.reason, error.detail)


def probe_request() -> CaptionRequest:
    """Return a request with an easy test image: a colour ramp of 224 x 224 px."""
    ramp = Image.linear_gradient("L").resize((224, 224))
    picture = Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180)))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    image = buffer.getvalue()
    return CaptionRequest(hashlib.sha256(image).hexdigest(), image, "Describe this image.")
