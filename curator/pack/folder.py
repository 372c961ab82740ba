"""Read a folder of images with captions and metadata beside them. See `curator.pack.sources`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curator.core.errors import Unusable
from curator.core.strictjson import MAX_JSON_BYTES, parse_object
from curator.pack.sidecars import Sidecars, merged
from curator.pack.sources import (
    CAPTION_COLUMNS,
    ImageRoot,
    PackItem,
    SourceOptions,
    make_item,
)
from curator.shards.alttext import TEXT_EXT
from curator.shards.scan import IMAGE_EXT
from curator.shards.tar import printable


def read_folder(source: Path, options: SourceOptions) -> Iterator[PackItem]:
    """Yield the images below a folder in sorted order, with the captions beside them.

    The caption of NAME.jpg is NAME.txt, .caption, .cap or .text (also NAME.jpg.txt), else from a
    table (see `curator.pack.sidecars`), else a caption column of NAME.json; other fields of the
    table and the .json become metadata. Every file with an image extension is an item, and so is a
    text or table row without an image. Hidden files are skipped; links to folders are not followed
    (each is an item with that problem). Memory: the tables, and the names in one folder.
    """
    root = ImageRoot(options.images or source)
    tables = Sidecars(source, options)
    yield from _walk(source, _FolderWalk(source, root, tables, options))
    yield from tables.left_over(root)


@dataclass(frozen=True, slots=True)
class _FolderWalk:
    """The state shared by all folders of a walk."""

    top: Path
    root: ImageRoot
    tables: Sidecars
    options: SourceOptions


def _walk(folder: Path, walk: _FolderWalk) -> Iterator[PackItem]:
    below = folder.relative_to(walk.top)
    try:
        entries = _entries(folder, walk)
    except OSError as error:
        unread = Unusable("image.missing", str(error.strerror))
        yield PackItem(origin=printable(below.as_posix()), problem=unread)
        return
    except Unusable as problem:
        yield PackItem(origin=printable(below.as_posix()), problem=problem)
        return
    folders = {entry.name for entry in entries if _is_folder(entry)}
    split = {entry.name: os.path.splitext(entry.name) for entry in entries}
    by_name = {
        (stem, ext.lower()): entry
        for entry, (stem, ext) in zip(entries, split.values(), strict=True)
        if entry.name not in folders
    }
    # NAME.jpg has its text in NAME.txt or NAME.jpg.txt.
    pictures = {name for name, (_, ext) in split.items() if ext.lower()[1:] in IMAGE_EXT}
    pictures |= {split[name][0] for name in pictures}
    for entry in entries:
        stem, ext = split[entry.name][0], split[entry.name][1].lower()
        path = (below / entry.name).as_posix()
        if entry.name in folders:
            yield from _walk(folder / entry.name, walk)
        elif ext[1:] in IMAGE_EXT:
            places = ((name, f".{one}") for one in TEXT_EXT for name in (stem, entry.name))
            text = next((by_name[place] for place in places if place in by_name), None)
            yield _picture(entry, path, text=text, data=by_name.get((stem, ".json")), walk=walk)
        elif ext[1:] in TEXT_EXT and stem not in pictures:
            lone = Unusable("image.missing", f"a {ext} file without an image")
            yield PackItem(origin=printable(path), problem=lone)


def _entries(folder: Path, walk: _FolderWalk) -> list[os.DirEntry[str]]:
    if folder != walk.top and folder.is_symlink():
        raise Unusable("path.traversal", "a link to a folder; pack that folder itself")
    with os.scandir(folder) as found:
        visible = (entry for entry in found if not entry.name.startswith("."))
        return sorted(visible, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # DirEntry.is_dir() raises for a link in a loop.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _picture(
    entry: os.DirEntry[str],
    path: str,
    *,
    text: os.DirEntry[str] | None,
    data: os.DirEntry[str] | None,
    walk: _FolderWalk,
) -> PackItem:
    """Make the item of an image and the files beside it; `path` is relative to the top folder."""
    origin, root, wanted = printable(path), walk.root, walk.options.caption_column
    meta: dict[str, object] = {}
    about = walk.tables.take(path)
    try:
        if data is not None:
            meta = parse_object(_read_small(data, root))
        usual = CAPTION_COLUMNS if wanted is None else (wanted,)
        captions = next((meta[name] for name in usual if meta.get(name) is not None), None)
        if about is not None:
            captions = about.captions or captions
            meta = merged(meta, about)
        if text is not None:
            captions = _read_small(text, root)
        image = _real(entry, root)
    except Unusable as problem:
        return PackItem(origin=origin, meta=meta, problem=problem)
    return make_item(origin, image=image, captions=captions, meta=meta, root=root)


def _real(entry: os.DirEntry[str], root: ImageRoot) -> Path:
    """Return the file of a folder entry, with links resolved; only links can leave the folder."""
    if entry.is_symlink():
        return root.locate(os.path.realpath(entry.path))
    if not entry.is_file():
        raise Unusable("image.missing", "no regular file")
    return Path(entry.path)


def _read_small(entry: os.DirEntry[str], root: ImageRoot) -> bytes:
    name = printable(entry.name)
    try:
        with _real(entry, root).open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise Unusable("row.invalid", f"{name}: {error.strerror}") from error
    except Unusable as problem:
        raise Unusable(problem.reason, f"{name}: {problem.detail}") from problem
    if len(data) > MAX_JSON_BYTES:
        reason = "json.too_large" if name.lower().endswith(".json") else "caption.too_long"
        raise Unusable(reason, f"{name}: more than {MAX_JSON_BYTES} bytes")
    return data
