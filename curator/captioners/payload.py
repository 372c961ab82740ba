"""Build requests to an OpenAI-compatible server, and parse its answers."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from PIL import Image

from curator.captioners import LENGTH, STOP, Caption, CaptionFailure
from curator.captioners.examples import Example
from curator.captioners.options import Sampling
from curator.core.images import decode

_MIME = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


class Mismatch(Exception):
    """Raised for an answer without exactly one text."""


def body_of(
    image: bytes | None,
    prompt: str,
    candidate: int,
    num: int = 1,
    *,
    model: str,
    sampling: Sampling,
    heads: Sequence[Mapping[str, Any]] = (),
    top_logprobs: int | None = None,
) -> bytes:
    """Return the JSON body that asks for `num` captions of one image, from `candidate` on.

    `image` is a `data:` URI; it goes before the text, as in Qwen's training; None: the request has
    text alone. `heads` are the messages before it, as `heads_of` makes them. `top_logprobs` asks
    for the likeliest tokens at each place, that many of them. `n` is sent only to
    ask for more than one caption. vLLM draws the i-th of them with the seed `seed + i`, which is
    what a request of its own would be sent with, so how captions are asked for changes nothing.
    """
    content: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
    if image is not None:
        content.insert(0, {"type": "image_url", "image_url": {"url": ""}})
    document: dict[str, Any] = {
        "messages": [*heads, {"role": "user", "content": content}],
        "model": model,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed_of(candidate),
    }
    if num > 1:
        document["n"] = num
    if top_logprobs is not None:
        document |= {"logprobs": True, "top_logprobs": top_logprobs}
    if image is None:
        return json.dumps(document).encode()
    # The image is put in afterwards, so that a megabyte is not searched for what JSON escapes. Its
    # place is the last of its kind: behind the examples, and within a string quotes are escaped.
    head, url, tail = json.dumps(document).rpartition('"url": "')
    return b"".join(((head + url).encode(), image, tail.encode()))


def heads_of(system: str | None, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Return the messages before a request: the system prompt, and examples as turns of a chat."""
    heads: list[dict[str, Any]] = []
    if system is not None:
        heads.append({"role": "system", "content": system})
    for example in examples:
        content: list[dict[str, Any]] = [{"type": "text", "text": example.prompt}]
        if example.image is not None:
            url = data_uri(example.image).decode()
            content.insert(0, {"type": "image_url", "image_url": {"url": url}})
        heads.append({"role": "user", "content": content})
        heads.append({"role": "assistant", "content": example.caption})
    return heads


def data_uri(image: bytes, max_pixels: int | None = None) -> bytes:
    """Return the image as a `data:` URI: its own bytes if all servers read them alike, else a PNG.

    Most servers ignore the EXIF orientation and drop transparency (which shows hidden colours), and
    they differ on CMYK, palettes, 16 bits and animations; such images are sent as decoded by
    `curator.core.images`. An image of more than `max_pixels` is made smaller, with its aspect
    ratio, and sent as a JPEG of quality 95.

    Raises:
        Unusable: the image cannot be decoded. Servers fill truncated images with grey.
    """
    decoded = decode(image, at_least=lambda info: _fitted(info.width, info.height, max_pixels))
    mime = _MIME.get(decoded.info.format)
    buffer = io.BytesIO()
    size = (decoded.info.width, decoded.info.height)
    smaller = _fitted(*size, max_pixels)
    if smaller != size:
        decoded.image.resize(smaller, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=95)
        image, mime = buffer.getvalue(), "image/jpeg"
    elif decoded.info.notes or mime is None:
        decoded.image.save(buffer, format="PNG", compress_level=1)
        image, mime = buffer.getvalue(), "image/png"
    return f"data:{mime};base64,".encode() + base64.b64encode(image)


def _fitted(width: int, height: int, max_pixels: int | None) -> tuple[int, int]:
    """Return the largest size with the same aspect ratio and at most `max_pixels`."""
    if max_pixels is None or width * height <= max_pixels:
        return width, height
    scale = math.sqrt(max_pixels / (width * height))
    return max(1, int(width * scale)), max(1, int(height * scale))


_AT_LIMIT = frozenset(("length", "max_tokens", "max_length", "model_length", "token_limit"))
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_text")


def captions_of(
    answer: bytes, *, seeds: Sequence[int], max_tokens: int
) -> list[Caption | CaptionFailure]:
    """Return the captions in an answer to a request for one caption of each seed, maybe fewer.

    Servers that do not know `n` give one. A caption that the server's content filter removed is a
    failure. Some servers return "stop" for captions cut at `max_tokens`, so the number of tokens
    is checked too; it is known only of a single caption, since servers count all of an answer.
    Thinking that a server returns separately is never used as the caption, even without another
    text.

    Raises:
        Mismatch: not JSON, no choice, more choices than seeds, or one without a message.
    """
    document = _json(answer)
    choices = document.get("choices")
    if not isinstance(choices, list) or not 1 <= len(choices) <= len(seeds):
        number = len(choices) if isinstance(choices, list) else "no"
        asked = "one request" if len(seeds) == 1 else f"a request for {len(seeds)}"
        raise Mismatch(f"{number} choices in the answer to {asked}")
    usage = document.get("usage")
    counted = usage.get("completion_tokens") if isinstance(usage, dict) else None
    num_tokens = counted if isinstance(counted, int) and len(choices) == 1 else 0
    return [
        _caption_of(choice, seed=seed, num_tokens=num_tokens, max_tokens=max_tokens)
        for choice, seed in zip(choices, seeds, strict=False)
    ]


def _caption_of(
    choice: object, *, seed: int, num_tokens: int, max_tokens: int
) -> Caption | CaptionFailure:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise Mismatch("a choice without a message")
    finish_reason = choice.get("finish_reason")
    if finish_reason == "content_filter" or message.get("refusal"):
        return CaptionFailure("vlm.refusal", str(message.get("refusal") or finish_reason)[:200])
    at_limit = str(finish_reason).lower() in _AT_LIMIT or num_tokens >= max_tokens
    thoughts = (message.get(name) for name in _REASONING_FIELDS)
    return Caption(
        _text(message.get("content")),
        LENGTH if at_limit else STOP,
        num_tokens,
        seed,
        reasoning=next((text for text in thoughts if isinstance(text, str) and text.strip()), ""),
    )


def first_logprobs_of(answer: bytes) -> list[tuple[str, float]] | None:
    """Return the likeliest first tokens of the only answer with their log probabilities.

    None: the server gave no log probabilities, which is how some servers ignore the request.

    Raises:
        Mismatch: not JSON, or not of the form that the API describes.
    """
    try:
        logprobs = _json(answer)["choices"][0].get("logprobs")
        content = logprobs.get("content") if isinstance(logprobs, dict) else None
        if not content:
            return None
        tops = content[0].get("top_logprobs")
        return [(str(top["token"]), float(top["logprob"])) for top in tops] if tops else None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Mismatch("log probabilities of an unknown form") from error


def error_text(answer: bytes) -> str:
    """Return the server's error message, else the beginning of its answer."""
    try:
        document = _json(answer)
    except Mismatch:
        return answer[:400].decode("utf-8", "replace") or "(no text)"
    error = document.get("error", document)
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return str(error)


def retry_after_sec(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header (a number or an HTTP date); None if invalid."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _json(answer: bytes) -> dict[str, Any]:
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise Mismatch("the answer is not JSON") from error
    if not isinstance(document, dict):
        raise Mismatch("the answer is not a JSON object")
    return document


def _text(content: object) -> str:
    """Return the text of a message; some servers give a list of parts, and null for no text.

    Parts of other types ("thinking", "reasoning") are not part of the answer.
    """
    if isinstance(content, list):
        parts = (
            part.get("text")
            for part in content
            if isinstance(part, dict) and part.get("type", "text") in ("text", "output_text")
        )
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
