"""What a row of `CAPTIONERS` or `SCORERS` says of its class: what it needs, and its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from curator.core.registry import Spec

# What is fetched from a hub repository: never code, never a pickle. A cached copy without one of
# those named in full is a stopped download, or another library's part of the repository.
# The model card (README.md) names the model that this one was made from; the pattern keeps a cached
# copy without a card whole.
TRANSFORMERS_FILES = (
    "config.json",
    "*.json",
    "*.safetensors",
    "*.txt",
    "*.model",
    "*.jinja",
    "README*",
)
OPEN_CLIP_FILES = (
    "README*",
    "open_clip_config.json",
    "open_clip_model.safetensors",
    "*.json",
    "*.txt",
    "*.model",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(Spec):
    """A row of the captioners or of the scorers.

    Attributes:
        needs: "nothing"; "model", the files of one, which are in a folder or on the hub; or
            "server", the URL of one and the name of a model there.
        default_model: the model that is used if none is named; None where one must be named.
        default_model_gpu: the same on a GPU; None: `default_model` there too.
        files: name patterns of what is fetched from a hub repository.
        in_process: runs in the process of the command. That saves starting another one, but
            what hangs or dies there takes the command with it: for what loads no model.
        version: raised when the class would answer the same question differently, so that what
            it said before is not taken for what it says now.
    """

    needs: Literal["nothing", "model", "server"] = "nothing"
    default_model: str | None = None
    default_model_gpu: str | None = None
    files: tuple[str, ...] = ()
    in_process: bool = False
    version: int = 1
