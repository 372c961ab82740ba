"""Open the source that a user names, with a control applied if one is requested.

DATASET@VERSION                a version in the store of the dataset
DATASET                        its newest version, or, without a store, the shards themselves:
                               an exported version, or any WebDataset (folder, glob, braces)
DATASET@TABLE[:COLUMN]         the user's own captions (`pretrain.data.captions_table`)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from curator.core.errors import UsageError, nearest
from curator.core.hashing import digest
from curator.shards.dataset import discover
from curator.shards.places import Remote
from curator.steps.workspace import StoreName, open_workspace, split_spec, store_place
from pretrain.data import controls
from pretrain.data.captions_table import CaptionTables, read_captions, split_table
from pretrain.data.options import NEED_REFERENCE
from pretrain.data.source import Source
from pretrain.data.tables import Tables
from pretrain.data.tars import TarTables
from pretrain.data.version import IndexTables, VersionTables

CONTROLS = (*controls.CHANGES, *controls.CHOICES)


class _Opened(NamedTuple):
    tables: Tables
    name: str
    id: str
    about: dict[str, Any]


def open_source(
    spec: str,
    store: StoreName | None = None,
    *,
    control: str | None = None,
    reference: str | None = None,
    need_text: bool = True,
    seed: int = 0,
) -> Source:
    """Open the source that `spec` names (see the module); `store` is its store, if elsewhere.

    `control` is one of CONTROLS; `reference` is the spec of the version that some of them match.
    Without `need_text` all usable images are used, with or without texts. `seed` is the control's.

    Raises:
        UsageError: unknown control, a control that does not fit the source, or no samples.
        NotFoundError: no such version.
    """
    _check(control, reference, need_text)
    choice = control if control in controls.CHOICES else "chosen" if need_text else "images"
    opened = _open(spec, store, choice)
    if control is None:
        return Source(opened.tables, name=opened.name, source_id=opened.id, about=opened.about)
    about = opened.about | {"control": control}
    other = None if reference is None else _open(reference, store, "chosen")
    if other is not None:
        about |= {"reference": other.name, "reference_id": other.id}
    tables = opened.tables
    if control in controls.CHANGES:
        about |= {"control_seed": seed}
        tables = controls.change(control, tables, other.tables if other else None, seed)
    return Source(
        tables,
        name=f"{opened.name} ({control})",
        source_id=digest(
            [opened.id, control, about.get("reference_id"), about.get("control_seed")]
        ),
        about=about,
        unchanged=opened.tables,
    )


def _check(control: str | None, reference: str | None, need_text: bool) -> None:
    if control is not None and control not in CONTROLS:
        raise UsageError(
            f"unknown control {control!r}", hint=nearest(control, CONTROLS), reason="option.value"
        )
    if control is not None and not need_text:
        raise UsageError(
            f"control {control!r} changes texts, but the objective reads none",
            hint="leave out the control, or use an objective that reads text",
            reason="option.value",
        )
    needed = control in NEED_REFERENCE
    if needed != (reference is not None):
        raise UsageError(
            f"control {control!r} needs a reference version"
            if needed
            else f"the reference {reference!r} is not used by any control",
            hint=f"only {' and '.join(NEED_REFERENCE)} use a reference",
            reason="option.missing" if needed else "option.value",
        )


def _open(spec: str, store: StoreName | None, choice: str) -> _Opened:
    table = split_table(spec)
    if table is not None:
        return _open_table(*table, store, choice)
    where, version_name = split_spec(spec)
    if version_name is not None or _has_store(where, store):
        return _open_version(spec, store, choice)
    if choice in controls.CHOICES:
        raise _needs_store(choice, spec)
    tars = TarTables(discover(spec), need_text=choice == "chosen")
    identity = tars.digest()
    about: dict[str, Any] = {"kind": "shards", "shards": spec}
    if tars.is_export and tars.manifest is not None:
        about["exported_version"] = tars.manifest["version"]
    return _Opened(tars, spec, identity, about)


def _open_version(spec: str, store: StoreName | None, choice: str) -> _Opened:
    workspace = open_workspace(spec, store, reads="all")
    version = workspace.version()
    tables = VersionTables(workspace.store, version, workspace.shards, choice)
    about = {
        "kind": "version",
        "shards": workspace.spec,
        "version": version.name,
        "version_id": version.id,
        "policy": version.policy.get("name"),
        "counts": version.counts,
        "totals": dict(version.totals),
    }
    identity = version.id if choice == "chosen" else digest([version.id, choice])
    return _Opened(tables, f"{workspace.spec}@{version.name}", identity, about)


def _open_table(
    where: str, pattern: str, column: str, store: StoreName | None, choice: str
) -> _Opened:
    if choice in controls.CHOICES:
        raise _needs_store(choice, f"{where}@{pattern}")
    base: Tables
    if not _has_store(where, store):
        tars = TarTables(discover(where), need_text=False)
        base, base_id = tars, tars.digest()
    else:
        workspace = open_workspace(where, store, reads="all")
        base = IndexTables(workspace.store, workspace.shards)
        base_id = base.digest()
    if choice == "images":
        return _Opened(base, where, base_id, {"kind": "images", "shards": where})
    captions, identity = read_captions(pattern, column)
    about = {"kind": "captions", "shards": where, "captions": pattern, "column": column}
    tables = CaptionTables(base, captions)
    if not tables.counts().sum():
        raise _no_match(f"{where}@{pattern}", captions, base)
    return _Opened(tables, f"{where}@{pattern}:{column}", digest([base_id, identity]), about)


def _has_store(where: str, store: StoreName | None) -> bool:
    """Whether shards have a store."""
    root = store_place(store, discover(where).root)
    return isinstance(root, Remote) or (root / "store.json").exists()


def _needs_store(choice: str, spec: str) -> UsageError:
    return UsageError(
        f"control {choice!r} chooses from a version in a store, and {spec} has none",
        hint="name DATASET@VERSION",
        reason="option.value",
    )


def _no_match(spec: str, captions: pl.DataFrame, base: Tables) -> UsageError:
    by = captions.columns[0]
    tables = (base.read(shard).rows[by] for shard in range(len(base.shards)))
    images = next((str(names[0]) for names in tables if len(names)), "none")
    rows = str(captions[by][0]) if len(captions) else "none"
    return UsageError(
        f"no image has a row in the table: {by} of the first row is {rows}, of the first image "
        f"{images}",
        where=spec,
        hint=f"write the {by} that images have in their shards",
        reason="pretrain.no_samples",
    )
