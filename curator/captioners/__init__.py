"""The captioner port: the protocol, and the table of everything that can caption an image.

A new captioner is one class in one file and one line in `CAPTIONERS`; the contract suite in
tests/contracts/test_captioners.py then runs over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from curator.core.registry import Registry, Spec

STOP = "stop"
LENGTH = "length"
TRIMMED = "trimmed"


@dataclass(frozen=True, slots=True)
class CaptionRequest:
    """Ask for caption number `candidate` of one image.

    `image` holds the encoded bytes as they lie in the shard; `image_sha256` is their hex digest
    and identifies the answer. `prompt` is final text, already filled in and cleaned, without any
    model-specific token.
    """

    image_sha256: str
    image: bytes
    prompt: str
    candidate: int = 0


@dataclass(frozen=True, slots=True)
class Caption:
    """A text a model wrote.

    `finish_reason` is `stop`; `length` when the token limit cut it; or `trimmed` when it was then
    cut back to its last whole sentence (by `curator.captioners.guard`). `reasoning` is what a
    server told apart as the model's thinking; it is not stored. `note` says what was taken off.
    """

    text: str
    finish_reason: str
    num_tokens: int
    seed: int
    reasoning: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class CaptionFailure:
    """No usable text: `reason` is a code of `curator.core.reasons`, `detail` explains it."""

    reason: str
    detail: str = ""


class Captioner(Protocol):
    """Writes captions. Built once a worker process; the caller owns batching and retries."""

    def caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        """Answer every request, in the same order: exactly one outcome each."""
        ...


CAPTIONERS = Registry(
    "captioner",
    {
        "local": Spec("curator.captioners.local:LocalCaptioner"),
        "coca": Spec("curator.captioners.coca:CocaCaptioner"),
        "server": Spec("curator.captioners.server:ServerCaptioner"),
        "echo": Spec("curator.captioners.echo:EchoCaptioner"),
    },
    protocol=Captioner,
)
