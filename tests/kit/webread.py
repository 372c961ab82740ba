"""Shards as other people's readers see them: webdataset's own, on raw bytes."""

from __future__ import annotations

from pathlib import Path

from webdataset.tariterators import group_by_keys, tar_file_expander


def webdataset_samples(folder: Path) -> list[dict[str, bytes | str]]:
    """The samples of all tars in a folder: `__key__` and the bytes of each file by extension.

    The files are opened here, because `wds.WebDataset` leaves that to the garbage collector.
    """
    found = []
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb") as stream:
            files = tar_file_expander([{"url": path.name, "stream": stream}])
            found += [
                {
                    name: value
                    for name, value in sample.items()
                    if name == "__key__" or not name.startswith("__")
                }
                for sample in group_by_keys(files)
                if "__key__" in sample  # not webdataset's own mark for the end of a file
            ]
    return found
