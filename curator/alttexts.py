"""The alt text of one sample: from its .txt, or from a field of its .json.

JSON comes from anywhere, so its size is judged before it is read and its depth before it is
parsed. Without `field` no JSON is ever opened: a broken one then costs the sample nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from curator import strictjson
from curator.errors import Unusable
from curator.sample import Member
from curator.text import clean_str, clean_text

MAX_TEXT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class AltText:
    """`text` is clean, None when there is nothing to read; `raw` only if cleaning changed it.

    `flags` are those of `curator.text` and `caption.missing`, `caption.ambiguous` (several text
    files and none named plainly .txt), `caption.not_text` (the json field is no string).
    """

    text: str | None
    raw: bytes | None
    flags: tuple[str, ...]


def pick(members: Sequence[Member], extensions: frozenset[str]) -> list[Member]:
    """The members with one of `extensions`, given in lower case without the first dot.

    Members named plainly (`jpg`) win over those with more in front (`seg.jpg`, `25.jpg`).
    """
    plain = [member for member in members if member.ext.lower() in extensions]
    return plain or [
        member for member in members if member.ext.lower().rpartition(".")[2] in extensions
    ]


def read_alt_text(
    members: Sequence[Member], *, read: Callable[[Member], bytes], field: str | None
) -> AltText:
    """Take the alt text of a sample out of its `members`; `read` gives the bytes of one.

    `field` is a path into the .json such as `caption`, `meta.alt` or `syn_text.0`.

    Raises:
        Unusable: caption.too_long, json.too_large, json.too_deep or json.invalid.
    """
    kind = "txt" if field is None else "json"
    found = pick(members, frozenset((kind,)))
    if len(found) != 1:
        return AltText(None, None, ("caption.ambiguous" if found else "caption.missing",))
    member = found[0]
    if field is None:
        if member.length > MAX_TEXT_BYTES:
            raise Unusable("caption.too_long", f"{member.length} bytes, limit {MAX_TEXT_BYTES}")
        raw = read(member)
        clean = clean_text(raw)
    else:
        value = _lookup(_parse(member, read), field)
        if value is None:
            return AltText(None, None, ("caption.missing",))
        if not isinstance(value, str):
            return AltText(None, None, ("caption.not_text",))
        # JSON can spell half a UTF-16 pair; surrogatepass keeps it in the raw bytes.
        raw = value.encode("utf-8", "surrogatepass")
        if len(raw) > MAX_TEXT_BYTES:
            raise Unusable("caption.too_long", f"{len(raw)} bytes, limit {MAX_TEXT_BYTES}")
        clean = clean_str(value)
    is_changed = clean.text.encode("utf-8") != raw
    return AltText(clean.text or None, raw if is_changed else None, clean.flags)


def _parse(member: Member, read: Callable[[Member], bytes]) -> object:
    if member.length > strictjson.MAX_JSON_BYTES:
        limit = strictjson.MAX_JSON_BYTES
        raise Unusable("json.too_large", f"{member.length} bytes, limit {limit}")
    return strictjson.parse(read(member))


def _lookup(value: object, field: str) -> object:
    """Follow the dots of `field` through objects and, with numbers, lists; None if it ends."""
    for name in field.split("."):
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value
