"""Where the weights of an open_clip name and tag lie on the hub.

A leaf module: `open_clip` loads torch, so `curator.core.models` imports this one late.
"""

from __future__ import annotations

import open_clip
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from curator.core.errors import NotFoundError, UsageError, nearest


def repository(name: str, tag: str) -> str:
    """Return the hub repository of an open_clip model name and pretrained tag.

    Raises:
        NotFoundError: open_clip has no such name or tag; the hint names the nearest.
        UsageError: the weights of this tag are not on the hub, or are a pickle.
    """
    config = get_pretrained_cfg(name, tag)
    if not config:
        tags = list_pretrained_tags_by_model(name)
        raise NotFoundError(
            f"open_clip has no weights {tag!r} for {name!r}" if tags else f"no model {name!r}",
            hint=nearest(tag, tags) if tags else nearest(name, open_clip.list_models()),
            reason="model.not_found",
        )
    location = str(config.get("hf_hub", ""))
    if not location.endswith("/"):
        raise UsageError(
            f"the weights of {name}:{tag} are a pickle ({location or config['url']})",
            did="nothing was loaded",
            hint="docs/reference/models.md says how to convert them into a folder",
            reason="model.pickle",
        )
    return location.rstrip("/")
