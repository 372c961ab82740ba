"""The captioner protocol, and the table of captioners.

A new captioner is one class in one file and one row in `CAPTIONERS`. The command line, `doctor`
and the contract suite (tests/contracts/test_captioners.py) read the row; docs/extend/captioner.md
shows one from beginning to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from curator.core.model_spec import OPEN_CLIP_FILES, TRANSFORMERS_FILES, ModelSpec
from curator.core.names import NOTHING, Items
from curator.core.registry import Registry

STOP = "stop"
LENGTH = "length"
TRIMMED = "trimmed"


@dataclass(frozen=True, slots=True)
class CaptionRequest:
    """A request for caption number `candidate` of one image.

    `image` holds the encoded bytes as stored in the shard; `image_sha256` is their hex digest and
    identifies the answer. `prompt` is the final text, already filled in and cleaned, without
    model-specific tokens. `keep` are the names and numbers of the alt text that the caption should
    have; only `curator.captioners.guard` reads them.
    """

    image_sha256: str
    image: bytes
    prompt: str
    candidate: int = 0
    keep: Items = NOTHING


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption that a model wrote.

    `finish_reason` is `stop`; `length` when the token limit cut it; or `trimmed` when it was then
    cut back to its last whole sentence (by `curator.captioners.guard`). `reasoning` is the model's
    thinking, if the server returns it separately; it is not stored. `note` says what was removed.
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
    """Writes captions. Built once per worker process; the caller does batching and retries.

    The keyword arguments of its constructor depend on `needs` of its row in `CAPTIONERS`:

        needs      keywords
        nothing    those of `sampling`, `language` that its constructor has
        model      `model`, `revision`, `device`, `dtype`, `sampling`
        server     `model`, `url` (a list for several), `stall_timeout_sec`, `sampling`, and those
                   of `concurrency`, `max_pixels`, `server_wait_sec`, `text_only` that its
                   constructor has

    `system`, a system prompt, and `examples` are given where they were asked for, and are an error
    for a class without them.

    It may have a method `prefetch(requests)`, which gets the batch after the next call of
    `caption` and returns at once.
    """

    def caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        """Return exactly one outcome per request, in the same order.

        A problem with one image is a `CaptionFailure` for it and does not affect the others.
        """
        ...


CAPTIONERS = Registry(
    "captioner",
    {
        "local": ModelSpec(
            "curator.captioners.local:LocalCaptioner",
            help="a vision-language model on this machine, through transformers",
            needs="model",
            # The reasons for all default models, with licences, are in docs/reference/models.md.
            default_model="HuggingFaceTB/SmolVLM-500M-Instruct",
            default_model_gpu="Qwen/Qwen3-VL-2B-Instruct",
            files=TRANSFORMERS_FILES,
            tiny="tests.kit.tiny:local",
        ),
        "server": ModelSpec(
            "curator.captioners.server:ServerCaptioner",
            help="an OpenAI-compatible server, such as vLLM",
            needs="server",
            tiny="tests.kit.tiny:server",
        ),
        "coca": ModelSpec(
            "curator.captioners.coca:CocaCaptioner",
            help="an open_clip CoCa model, which takes no prompt",
            needs="model",
            default_model="coca_ViT-L-14:mscoco_finetuned_laion2b_s13b_b90k",
            files=OPEN_CLIP_FILES,
            tiny="tests.kit.tiny:coca",
        ),
        "echo": ModelSpec(
            "curator.captioners.echo:EchoCaptioner",
            help="made-up sentences without a model, for trying things out",
            in_process=True,
        ),
    },
    protocol=Captioner,
)

DEFAULT_CAPTIONER = "local"
"""The captioner that is used if none is named."""
