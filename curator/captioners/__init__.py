"""The captioner port: the protocol, and the table of everything that can caption an image.

A new captioner is one class in one file and one line in `CAPTIONERS`; the contract suite in
tests/contracts/test_captioners.py then runs over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from curator.core.registry import Registry
from curator.shards.samples import Caption, CaptionFailure, CaptionRequest


class Captioner(Protocol):
    """Writes captions. Built once a worker process; the caller owns batching and retries."""

    def caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        """Answer every request, in the same order: exactly one outcome each."""
        ...


CAPTIONERS = Registry(
    "captioner",
    {
        "local": "curator.captioners.local:LocalCaptioner",
        "coca": "curator.captioners.coca:CocaCaptioner",
        "server": "curator.captioners.server:ServerCaptioner",
        "echo": "curator.captioners.echo:EchoCaptioner",
    },
)
