"""A folder of images with captions and metadata beside them. See `curator.pack.sources`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from curator.errors import Unusable
from curator.pack.sources import (
    CAPTION_COLUMNS,
    ImageRoot,
    Item,
    SourceOptions,
    make_item,
)
from curator.shards import IMAGE_EXT
from curator.strictjson import MAX_JSON_BYTES, parse_object
from curator.tarfiles import printable


def read_folder(source: Path, options: SourceOptions) -> Iterator[Item]:
    """Images below a folder in sorted order, with NAME.txt and NAME.json beside NAME.jpg.

    Every file with the extension of an image is an item, and so is a .txt without an image. The
    caption comes from the .txt, else from a caption column of the .json. Hidden files are left
    aside, links to folders are not followed (each is an item that says so). Memory: the names in
    one folder.
    """
    yield from _walk(source, source, ImageRoot(options.images or source), options)


def _walk(folder: Path, top: Path, root: ImageRoot, options: SourceOptions) -> Iterator[Item]:
    origin = folder.relative_to(top).as_posix()
    try:
        if folder != top and folder.is_symlink():
            raise Unusable("path.traversal", "a link to a folder; pack that folder itself")
        with os.scandir(folder) as found:
            entries = sorted(
                (entry for entry in found if not entry.name.startswith(".")),
                key=lambda entry: entry.name,
            )
    except OSError as error:
        yield Item(origin=printable(origin), problem=Unusable("image.missing", str(error.strerror)))
        return
    except Unusable as problem:
        yield Item(origin=printable(origin), problem=problem)
        return
    folders = {entry.name for entry in entries if _is_folder(entry)}
    split = {entry.name: os.path.splitext(entry.name) for entry in entries}
    by_name = {
        (stem, ext.lower()): entry
        for entry, (stem, ext) in zip(entries, split.values(), strict=True)
        if entry.name not in folders
    }
    pictures = {stem for stem, ext in by_name if ext[1:] in IMAGE_EXT}
    for entry in entries:
        stem, ext = split[entry.name][0], split[entry.name][1].lower()
        origin = printable((folder.relative_to(top) / entry.name).as_posix())
        if entry.name in folders:
            yield from _walk(folder / entry.name, top, root, options)
        elif ext[1:] in IMAGE_EXT:
            sidecars = (by_name.get((stem, ".txt")), by_name.get((stem, ".json")))
            yield _picture(entry, origin=origin, sidecars=sidecars, root=root, options=options)
        elif ext == ".txt" and stem not in pictures:
            yield Item(origin=origin, problem=Unusable("image.missing", "a .txt without an image"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # DirEntry.is_dir() raises for a link in a loop.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _picture(
    entry: os.DirEntry[str],
    *,
    origin: str,
    sidecars: tuple[os.DirEntry[str] | None, os.DirEntry[str] | None],
    root: ImageRoot,
    options: SourceOptions,
) -> Item:
    """The item of one image with its .txt and .json."""
    text, data = sidecars
    meta: dict[str, object] = {}
    try:
        if data is not None:
            meta = parse_object(_read_small(data, root))
        wanted = options.caption_column
        usual = CAPTION_COLUMNS if wanted is None else (wanted,)
        captions = next((meta[name] for name in usual if meta.get(name) is not None), None)
        if text is not None:
            captions = _read_small(text, root)
        image = _real(entry, root)
    except Unusable as problem:
        return Item(origin=origin, meta=meta, problem=problem)
    return make_item(origin, image=image, captions=captions, meta=meta, root=root)


def _real(entry: os.DirEntry[str], root: ImageRoot) -> Path:
    """The file behind a folder entry. Only links can lead out of the folder."""
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
        reason = "caption.too_long" if name.lower().endswith(".txt") else "json.too_large"
        raise Unusable(reason, f"{name}: more than {MAX_JSON_BYTES} bytes")
    return data
