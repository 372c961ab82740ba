"""Member names of a shard, and the keys in them: one rule for whoever reads or writes shards.

A name is split at the FIRST dot of its base name, as WebDataset and Hugging Face's `datasets` do:
what stands before it, with the folders, is the key, byte for byte (`./00000`, `my photo`); what
stands behind is the extension.

Whatever `problem_of` lets through, every reader holds and `curator export` can write. What it
refuses is refused when a shard is indexed, before any model is asked for a caption.
"""

from __future__ import annotations

import re
import unicodedata

from curator.shards.tar import printable

MAX_KEY_BYTES = 255

_DRIVE = re.compile(r"[A-Za-z]:")
# webdataset passes over these without a word (its `skip_meta`): no sample would come out of them.
_SKIPPED = re.compile(r"__[^/]*__/")
# Control characters, ends of lines, bytes that are no UTF-8 (surrogates), and the characters that
# turn the direction of a text around: with them a name is not what it looks like. Spaces of all
# kinds are fine: macOS puts U+202F into the names of screenshots, Japanese ones hold U+3000.
_UNFIT = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_LOOSE = re.compile(r"(?:^|/)\.?/")


def split_name(name: str) -> tuple[str, str] | None:
    """(key, extension) of a member name; None when it has no key or no extension."""
    folder, slash, base = name.rpartition("/")
    stem, _, ext = base.partition(".")
    return (folder + slash + stem, ext) if stem and ext else None


def problem_of(name: str, key: str) -> str | None:
    """The reason why the member `name` with this key cannot be used; None if it can.

    `name` is decoded with surrogate escapes, as in `curator.shards.tar.TarMember`.
    """
    if points_outside(name):
        return "path.traversal"
    if _UNFIT.search(name) or _SKIPPED.match(name) or len(key.encode()) > MAX_KEY_BYTES:
        return "key.invalid"
    return None


def escaped(name: str) -> str:
    """`name` itself where it can be used, else in a form that can be shown and stored."""
    return printable(name) if _UNFIT.search(name) else name


def points_outside(name: str) -> bool:
    """Whether the name leads out of the folder that it is unpacked in, on any system."""
    return (
        name.startswith("/")
        or "\\" in name
        or (".." in name and ".." in name.split("/"))
        or _DRIVE.match(name) is not None
    )


def spelling(key: str) -> str:
    """What two keys share that name one file: `./a` and `a`, or e-acute in one or two characters.

    A tar holds both; a folder, or a file system that composes its names, only one of them.
    """
    if key.isascii() and not _LOOSE.search(key):
        return key
    parts = (part for part in key.split("/") if part not in ("", "."))
    return unicodedata.normalize("NFC", "/".join(parts))
