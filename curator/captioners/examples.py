"""Examples that a chat model is shown before it is asked: questions with the answers wanted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator.captioners.prompts import Prompt, render, safe_text
from curator.core.errors import Unusable, UsageError
from curator.core.images import decode

MAX_EXAMPLES = 16
_KEYS = ("image", "alt_text", "description", "caption")


@dataclass(frozen=True, slots=True)
class Example:
    """What a model might have been asked, and what it should have answered.

    `image` has the encoded bytes, or is None if the question is text alone.
    """

    prompt: str
    caption: str
    image: bytes | None = None

    def to_recipe(self) -> dict[str, Any]:
        """Return what identifies the example in a recipe."""
        sha256 = hashlib.sha256(self.image).hexdigest() if self.image is not None else None
        return {"prompt": self.prompt, "caption": self.caption, "image_sha256": sha256}


def load_examples(path: str | Path, prompt: Prompt, *, text_only: bool) -> tuple[Example, ...]:
    """Read the examples of a JSON Lines file, and ask them as `prompt` does.

    Each line has `caption`, the answer; `image`, a path relative to the file, unless `text_only`;
    `description` if the prompt has `{caption}`; and `alt_text` if there is one.

    Raises:
        UsageError: no such file, no or too many lines, one that is no such object, or an image
            that cannot be read; the message names the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--examples cannot be read ({type(error).__name__})",
            where=path,
            hint='a JSON Lines file with {"image": PATH, "caption": TEXT} in each line',
            reason="option.value",
        ) from error
    lines = [line for line in lines if line.strip()]
    if not 1 <= len(lines) <= MAX_EXAMPLES:
        raise UsageError(
            f"--examples has {len(lines)} lines",
            where=path,
            hint=f"allowed: 1 to {MAX_EXAMPLES}; each is sent with every image",
            reason="option.value",
        )
    return tuple(
        _example(line, f"{path}, line {number}", path.parent, prompt, text_only=text_only)
        for number, line in enumerate(lines, 1)
    )


def _example(line: str, where: str, folder: Path, prompt: Prompt, *, text_only: bool) -> Example:
    needed = ["caption"] + ["image"] * (not text_only) + ["description"] * prompt.needs_caption

    def wrong(what: str) -> UsageError:
        return UsageError(
            f"an example of --examples {what}",
            where=where,
            hint=f"needed: {', '.join(needed)}; allowed: {', '.join(_KEYS)}; all are strings",
            reason="option.value",
        )

    try:
        found = json.loads(line)
    except ValueError as error:
        raise wrong("is not JSON") from error
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise wrong("is not an object of strings")
    if unknown := [key for key in found if key not in _KEYS]:
        raise wrong(f"has {unknown[0]!r}")
    if missing := [key for key in needed if not found.get(key, "").strip()]:
        raise wrong(f"has no {missing[0]!r}")
    if prompt.needs_caption and not safe_text(found["description"]):
        raise wrong("has a description without a word")
    asked = render(prompt, alt_text=found.get("alt_text"), caption=found.get("description"))
    if text_only:
        return Example(asked, found["caption"])
    try:
        image = (folder / found["image"]).read_bytes()
        decode(image)
    except (OSError, Unusable) as error:
        raise wrong(f"has an image that cannot be read ({error})") from error
    return Example(asked, found["caption"], image)
