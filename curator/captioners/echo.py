"""A captioner without a model: plausible English sentences, and simulated faults.

The text depends only on the image's hash, the prompt, the candidate and the seed, so runs are
byte-identical on every machine. The image is decoded but its content is ignored, so the same images
fail as with a real captioner. Used in demos and as the fake engine of the reliability tests:
`fault` makes a share of the images fail.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Sequence

from curator.captioners import Caption, CaptionFailure, CaptionRequest
from curator.captioners.options import RETRY_CANDIDATE, Sampling
from curator.captioners.pixels import DecodePool
from curator.core.errors import UsageError, check_value, nearest

_DEFAULT_SAMPLING = Sampling()

_SUBJECTS = (
    "a man", "a woman", "a young boy", "a little girl", "an old couple", "a family",
    "a group of friends", "a brown dog", "a black cat", "a white horse", "a small bird",
    "a cyclist", "a surfer", "a skier", "a musician", "a climber", "a farmer", "a runner",
)  # fmt: skip
_LOOKS = (
    "in a red jacket", "with a blue hat", "in bright sunlight", "near a wooden fence",
    "with a green bag", "in a striped shirt", "beside a yellow car", "under a large tree",
    "in front of a brick wall", "with an umbrella", "next to a bicycle", "behind a table",
)  # fmt: skip
_ACTIONS = (
    "walks", "rests", "looks around", "waits", "plays", "runs", "stands still", "turns around",
    "jumps", "smiles at the camera", "crosses the street", "eats something",
)  # fmt: skip
_PLACES = (
    "on a sandy beach", "in a quiet park", "on a busy street", "in the snow", "at a market",
    "by a lake", "in a small kitchen", "on a mountain path", "at a train station",
    "in a grassy field", "on a bridge", "in an empty room",
)  # fmt: skip


def _sentence(digest: bytes) -> str:
    parts = [
        words[int.from_bytes(digest[4 * i : 4 * i + 4], "big") % len(words)]
        for i, words in enumerate((_SUBJECTS, _LOOKS, _ACTIONS, _PLACES))
    ]
    text = " ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


# Texts of faulty answers.
_BAD_TEXTS: dict[str, Callable[[CaptionRequest], tuple[str, str]]] = {
    "refusal": lambda request: ("I'm sorry, but I can't describe this image.", "stop"),
    "loop": lambda request: ("a dog and " * 40, "length"),
    "garbage": lambda request: ("!" * 64, "length"),
    "language": lambda request: ("Ein brauner Hund läuft am Strand neben dem Wasser.", "stop"),
    "empty": lambda request: ("", "stop"),
    "echo": lambda request: (request.prompt, "stop"),
    "boilerplate": lambda request: ("As an AI language model, I have no eyes.", "stop"),
    "special": lambda request: ("A dog.<|im_end|> <|im_start|>user What else?", "stop"),
    "stuck": lambda request: ("A photo of a person in a room.", "stop"),
}
FAULTS = (*_BAD_TEXTS, "late", "hang", "crash", "n_minus_1", "n_plus_1")
_FOREVER_SEC = 3600.0


class EchoCaptioner:
    """Makes up captions. `model` names a variant: another name gives other sentences.

    `fault` is one of `FAULTS`. It affects the share `fault_share` of the images, always the same
    ones, also on the second try (`curator.captioners.guard`) unless `fault_once`. `late` answers
    after `fault_sec` seconds, `hang` after an hour, `crash` kills this process, and `n_minus_1` and
    `n_plus_1` violate the protocol: one answer is missing, or there is one too many.

    Raises:
        UsageError: an option is out of range; the message names it.
    """

    def __init__(
        self,
        *,
        model: str = "echo",
        sampling: Sampling = _DEFAULT_SAMPLING,
        device: str | None = None,
        dtype: str | None = None,
        fault: str | None = None,
        fault_share: float = 1.0,
        fault_once: bool = False,
        fault_sec: float = 1.0,
    ) -> None:
        if fault is not None and fault not in FAULTS:
            raise UsageError(f"fault is {fault!r}", hint=nearest(fault, FAULTS))
        check_value(0 <= fault_share <= 1, "fault_share", fault_share, "0 to 1")
        check_value(fault_sec >= 0, "fault_sec", fault_sec, "0 or more")
        check_value(device is None, "device", device, "nothing; there is no model")
        check_value(dtype is None, "dtype", dtype, "nothing; there is no model")
        self._model = model
        self._sampling = sampling
        self._fault = fault
        self._fault_share = fault_share
        self._fault_once = fault_once
        self._fault_sec = fault_sec
        self._images = DecodePool()

    def prefetch(self, requests: Sequence[CaptionRequest]) -> None:
        """Start decoding the images of the next batch."""
        self._images.prefetch(requests)

    def caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        """Caption every request, in order, except as `fault` says."""
        images = self._images.take(requests)
        hit = [request for request in requests if self._is_hit(request)]
        if hit and self._fault in ("late", "hang"):
            time.sleep(self._fault_sec if self._fault == "late" else _FOREVER_SEC)
        if hit and self._fault == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        outcomes = [
            image if isinstance(image, CaptionFailure) else self._caption(request)
            for request, image in zip(requests, images, strict=True)
        ]
        if hit and self._fault == "n_minus_1":
            return outcomes[:-1]
        if hit and self._fault == "n_plus_1":
            return [*outcomes, outcomes[0]]
        return outcomes

    def _caption(self, request: CaptionRequest) -> Caption:
        seed = self._sampling.seed_of(request.candidate)
        if self._fault in _BAD_TEXTS and self._is_hit(request):
            text, finish_reason = _BAD_TEXTS[self._fault](request)
            return Caption(text, finish_reason, len(text.split()), seed)
        key = f"{self._model}\0{request.image_sha256}\0{request.prompt}\0{seed}"
        words = _sentence(hashlib.sha256(key.encode()).digest()).split()
        kept = words[: self._sampling.max_tokens]
        finish_reason = "stop" if len(kept) == len(words) else "length"
        return Caption(" ".join(kept), finish_reason, len(kept), seed)

    def _is_hit(self, request: CaptionRequest) -> bool:
        if self._fault is None or (self._fault_once and request.candidate >= RETRY_CANDIDATE):
            return False
        return int(request.image_sha256[:8], 16) < self._fault_share * 2**32
