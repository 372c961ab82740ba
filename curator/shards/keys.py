"""Split member names into key and extension, and refuse unsafe names: one rule for read and write.

A name is split at the FIRST dot of its base name, as WebDataset and Hugging Face's `datasets` do:
the part before, with the folders, is the key, byte for byte (`./00000`, `my photo`); the part after
is the extension.

Every name that `problem_of` accepts works in every reader and in `curator export`. Names it refuses
are refused when a shard is indexed, before any model makes a caption.
"""

from __future__ import annotations

import re
import unicodedata

from curator.shards.tar import printable

MAX_KEY_BYTES = 255

_DRIVE = re.compile(r"[A-Za-z]:")
# webdataset silently skips these (its `skip_meta`), so they would yield no sample.
_SKIPPED = re.compile(r"__[^/]*__/")
# Control characters, line ends, bytes that are not UTF-8 (surrogates), and characters that change
# text direction: a name with them is not what it looks like. Spaces of all kinds are fine: macOS
# puts U+202F into the names of screenshots, Japanese ones contain U+3000.
_UNFIT = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_LOOSE = re.compile(r"(?:^|/)\.?/")


def split_name(name: str) -> tuple[str, str] | None:
    """Return (key, extension) of a member name; None if it has no key or no extension."""
    folder, slash, base = name.rpartition("/")
    stem, _, ext = base.partition(".")
    return (folder + slash + stem, ext) if stem and ext else None


def problem_of(name: str, key: str) -> str | None:
    """Return the reason why the member `name` with this key cannot be used; None if it can.

    `name` is decoded with surrogate escapes, as in `curator.shards.tar.TarMember`.
    """
    if points_outside(name):
        return "path.traversal"
    if _UNFIT.search(name) or _SKIPPED.match(name) or len(key.encode()) > MAX_KEY_BYTES:
        return "key.invalid"
    return None


def escaped(name: str) -> str:
    """Return `name` if it can be used, else a form that can be shown and stored."""
    return printable(name) if _UNFIT.search(name) else name


def points_outside(name: str) -> bool:
    """Whether unpacking this name would write outside the target folder, on any system."""
    return (
        name.startswith("/")
        or "\\" in name
        or (".." in name and ".." in name.split("/"))
        or _DRIVE.match(name) is not None
    )


def spelling(key: str) -> str:
    """Return what two keys share that name one file: `./a` and `a`, or e-acute composed or not.

    A tar can hold both; a folder, or a file system that composes names, only one of them.
    """
    if key.isascii() and not _LOOSE.search(key):
        return key
    parts = (part for part in key.split("/") if part not in ("", "."))
    return unicodedata.normalize("NFC", "/".join(parts))
