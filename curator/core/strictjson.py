"""Parse untrusted JSON with limits on size and depth, and make values safe to write as JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from curator.core.errors import Unusable

MAX_JSON_BYTES = 10 * 1000 * 1000
MAX_JSON_DEPTH = 100

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[{\]}]")


def parse(raw: bytes) -> object:
    """Parse a JSON text.

    Raises:
        Unusable: json.too_large, json.too_deep or json.invalid.
    """
    if len(raw) > MAX_JSON_BYTES:
        raise Unusable("json.too_large", f"more than {MAX_JSON_BYTES} bytes")
    if _depth(raw) > MAX_JSON_DEPTH:
        raise Unusable("json.too_deep", f"nested more than {MAX_JSON_DEPTH} deep")
    try:
        return json.loads(raw)
    except ValueError as error:  # also bytes that are not UTF-8, and integers of 4,300 digits
        raise Unusable("json.invalid", str(error)[:500]) from error
    except RecursionError as error:  # UTF-16, where brackets and quotes are counted wrongly
        raise Unusable("json.too_deep", str(error)) from error


def parse_object(raw: bytes) -> dict[str, object]:
    """Parse a JSON object.

    Raises:
        Unusable: like `parse`; also json.invalid for a list, a number, ...
    """
    value = parse(raw)
    if not isinstance(value, dict):
        raise Unusable("json.invalid", f"a {type(value).__name__}, not an object")
    return value


def check_depth(value: object) -> None:
    """Refuse JSON that is nested more than 100 deep.

    Raises:
        Unusable: json.too_deep.
    """
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            part
            for one in level
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise Unusable("json.too_deep", f"nested more than {MAX_JSON_DEPTH} deep")


def _depth(raw: bytes) -> int:
    """Return the nesting depth of brackets outside strings; cheap if there are few brackets."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_JSON_DEPTH:
        return 0
    depth = deepest = 0
    for match in _BRACKET.finditer(_STRING.sub(b"", raw)):
        depth += 1 if match[0] in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def finite(value: object) -> object:
    """Return the value with NaN and infinity replaced by None, since JSON cannot hold them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(one) for name, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value
