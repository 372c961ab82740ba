"""Build requests to an OpenAI-compatible server, and parse its answers."""

from __future__ import annotations

import base64
import io
import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from curator.captioners import LENGTH, STOP, Caption, CaptionFailure, CaptionRequest
from curator.captioners.options import Sampling
from curator.core.images import decode

_MIME = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


class Mismatch(Exception):
    """Raised for an answer without exactly one text."""


def body_of(request: CaptionRequest, *, model: str, sampling: Sampling) -> bytes:
    """Return the JSON body for one caption, with the image before the text as in Qwen's training.

    Raises:
        Unusable: the image cannot be decoded. Servers fill truncated images with grey.
    """
    content = [
        {"type": "image_url", "image_url": {"url": data_uri(request.image)}},
        {"type": "text", "text": request.prompt},
    ]
    return json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed_of(request.candidate),
        }
    ).encode()


def data_uri(image: bytes) -> str:
    """Return the image as a `data:` URI: its own bytes if all servers read them alike, else a PNG.

    Most servers ignore the EXIF orientation and drop transparency (which shows hidden colours), and
    they differ on CMYK, palettes, 16 bits and animations; such images are sent as decoded by
    `curator.core.images`.

    Raises:
        Unusable: the image cannot be decoded.
    """
    decoded = decode(image)
    mime = _MIME.get(decoded.info.format)
    if decoded.info.notes or mime is None:
        buffer = io.BytesIO()
        decoded.image.save(buffer, format="PNG", compress_level=1)
        image, mime = buffer.getvalue(), "image/png"
    return f"data:{mime};base64,{base64.b64encode(image).decode('ascii')}"


_AT_LIMIT = frozenset(("length", "max_tokens", "max_length", "model_length", "token_limit"))
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_text")


def caption_of(answer: bytes, *, seed: int, max_tokens: int) -> Caption | CaptionFailure:
    """Return the caption in an answer, or a failure if the server's content filter removed it.

    Some servers return "stop" for captions cut at `max_tokens`, so the number of tokens is checked
    too. Thinking that a server returns separately is never used as the caption, even without
    another text.

    Raises:
        Mismatch: not JSON, or not exactly one choice with a message.
    """
    document = _json(answer)
    choices = document.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        number = len(choices) if isinstance(choices, list) else "no"
        raise Mismatch(f"{number} choices in the answer to one request")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise Mismatch("a choice without a message")
    finish_reason = choices[0].get("finish_reason")
    if finish_reason == "content_filter" or message.get("refusal"):
        return CaptionFailure("vlm.refusal", str(message.get("refusal") or finish_reason)[:200])
    usage = document.get("usage")
    counted = usage.get("completion_tokens") if isinstance(usage, dict) else None
    num_tokens = counted if isinstance(counted, int) else 0
    at_limit = str(finish_reason).lower() in _AT_LIMIT or num_tokens >= max_tokens
    thoughts = (message.get(name) for name in _REASONING_FIELDS)
    return Caption(
        _text(message.get("content")),
        LENGTH if at_limit else STOP,
        num_tokens,
        seed,
        reasoning=next((text for text in thoughts if isinstance(text, str) and text.strip()), ""),
    )


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
