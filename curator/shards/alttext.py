"""Find the alt text of a sample: in a text file beside the image, or in a field of a .json.

By default this reads KEY.txt, or else KEY.caption, KEY.cap or KEY.text. A text with another name
(KEY.url.txt of DataCompDR, KEY.license.txt) may be anything and is not used as alt text;
`curator.shards.alttext_counts` finds such texts, so that a message can name the option to use them.

JSON is untrusted: its size is checked before it is read and its depth before it is parsed. Without
a field, no JSON is opened for a sample that has a text, so a broken one does not affect the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from curator.core import strictjson
from curator.core.errors import Unusable, UsageError
from curator.core.text import CleanText, clean_str, clean_text, is_blank
from curator.shards.samples import Member

MAX_TEXT_BYTES = 64 * 1024
TEXT_EXT = ("txt", "caption", "cap", "text")
"""Usual extensions of caption files (img2dataset; kohya's scripts), the likeliest first."""

# `KEY.alt.txt` names its content, as does `KEY.url.txt`; any other may be anything.
_CAPTION_NAMES = frozenset(("caption", "captions", "cap", "text", "alt", "alt_text", "alttext"))
_NO_CAPTION_NAMES = frozenset(("url",))

Read = Callable[[Member], bytes]


@dataclass(frozen=True, slots=True)
class AltText:
    """An alt text. `text` is clean, None if there is none; `raw` only if cleaning changed it.

    `flags` are those of `curator.core.text` and `caption.missing`, `caption.ambiguous` (several
    texts, none clearly the alt text), `caption.not_text` (the json field is not a string). `source`
    is where the text was read, as `--caption-field` would name it; None without a text.
    """

    text: str | None
    raw: bytes | None
    flags: tuple[str, ...]
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A place to look: the member with this extension (None: any json), and the path in it."""

    ext: str | None
    path: str | None

    @classmethod
    def parse(cls, spec: str) -> Place:
        """Parse `caption`, `meta.alt`, `.syn.json:syn_text.0` or `.caption`, as a user types it.

        Raises:
            UsageError: it has none of these forms.
        """
        ext, path = None, spec
        if spec.startswith("."):
            ext, _, path = spec[1:].lower().partition(":")
            path = spec[len(spec) - len(path) :]  # fields are case-sensitive
        names = [*(ext.split(".") if ext is not None else ()), *(path.split(".") if path else ())]
        is_json = ext is None or ext.rpartition(".")[2] == "json"
        if not names or not all(names) or is_json != bool(path):
            raise UsageError(
                f"caption_field is {spec!r}",
                hint="allowed: a field of the .json, with dots between names such as meta.caption; "
                "a file, such as .caption; or a field of one file, such as .syn.json:syn_text.0",
                reason="option.value",
            )
        return cls(ext, path or None)


def pick(members: Sequence[Member], extensions: frozenset[str]) -> list[Member]:
    """Return the members with one of `extensions` (lower case, without the first dot).

    Members with the plain extension (`jpg`) win over those with a prefix (`seg.jpg`, `25.jpg`).
    """
    plain = [member for member in members if member.ext.lower() in extensions]
    return plain or [
        member for member in members if member.ext.lower().rpartition(".")[2] in extensions
    ]


def read_alt_text(
    members: Sequence[Member], *, image: Member, read: Read, field: str | None
) -> AltText:
    """Return the alt text of a sample from its `members`; `read` returns the bytes of a member.

    `field` is a spec for `Place.parse`; None looks for a text file with a usual name.

    Raises:
        Unusable: caption.too_long, json.too_large, json.too_deep or json.invalid.
    """
    place = Place(None, None) if field is None else Place.parse(field)
    if place.path is not None:
        return _from_json(members, place.ext, place.path, read)
    found = _text_files(members, image) if place.ext is None else _named(members, place.ext, image)
    if len(found) != 1:
        return AltText(None, None, ("caption.ambiguous" if found else "caption.missing",))
    member = found[0]
    if member.length > MAX_TEXT_BYTES:
        raise Unusable("caption.too_long", f"{member.length} bytes, limit {MAX_TEXT_BYTES}")
    raw = read(member)
    return _alt_text(clean_text(raw), raw, f".{member.ext.lower()}")


def _alt_text(clean: CleanText, raw: bytes, source: str) -> AltText:
    text, flags = clean.text, clean.flags
    if text and is_blank(text):
        text, flags = "", (*flags, "caption.empty")
    return AltText(text or None, raw if text.encode() != raw else None, flags, source)


def _text_files(members: Sequence[Member], image: Member) -> list[Member]:
    """Return the text file that is the alt text; several if it is ambiguous; or none."""
    for ext in TEXT_EXT:
        if found := _named(members, ext, image):
            return found
    split = [(one, one.ext.lower().split(".")) for one in members if "." in one.ext]
    texts = [(one, names[-2]) for one, names in split if names[-1] in TEXT_EXT]
    named = [one for one, name in texts if name in _CAPTION_NAMES]
    unknown = [one for one, name in texts if name not in _NO_CAPTION_NAMES]
    return named or (unknown if len(unknown) > 1 else [])


def _named(members: Sequence[Member], ext: str, image: Member) -> list[Member]:
    """Return the member KEY.ext; in a sample of dotted names (`0.25.jpg`), the image's namesake."""
    plain = [one for one in members if one.ext.lower() == ext]
    front, dot, _ = image.ext.lower().rpartition(
        "."
    )  # the front of `0..jpg` is empty: test the dot
    return plain or [one for one in members if dot and one.ext.lower() == f"{front}.{ext}"]


def _from_json(members: Sequence[Member], ext: str | None, path: str, read: Read) -> AltText:
    """Read the field at `path` of KEY.json, or else of the only other json member that has it."""
    files = [one for one in members if one.ext.lower().rpartition(".")[2] == "json"]
    if ext is not None:
        files = [one for one in files if one.ext.lower() == ext]
    files.sort(key=lambda one: one.ext.lower() != "json")  # stable: KEY.json is the first
    found: list[tuple[Member, object]] = []
    for member in files:
        value = _lookup(_parse(member, read), path)
        if value is not None:
            found.append((member, value))
            if member.ext.lower() == "json":
                break
    if len(found) != 1:
        return AltText(None, None, ("caption.ambiguous" if found else "caption.missing",))
    member, value = found[0]
    if not isinstance(value, str):
        return AltText(None, None, ("caption.not_text",))
    # JSON can spell half a UTF-16 pair; surrogatepass keeps it in the raw bytes.
    raw = value.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_TEXT_BYTES:
        raise Unusable("caption.too_long", f"{len(raw)} bytes, limit {MAX_TEXT_BYTES}")
    return _alt_text(clean_str(value), raw, f".{member.ext.lower()}:{path}")


def _parse(member: Member, read: Read) -> object:
    if member.length > strictjson.MAX_JSON_BYTES:
        limit = strictjson.MAX_JSON_BYTES
        raise Unusable("json.too_large", f"{member.length} bytes, limit {limit}")
    return strictjson.parse(read(member))


def _lookup(value: object, field: str) -> object:
    """Follow the dots of `field` through objects and (as indices) lists; None if it is absent."""
    for name in field.split("."):
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value
