"""Export a version to files that trainers can read without this tool.

    wds          NAME.tar for every shard NAME: the samples that are captioned or kept
    open_clip    the same, with every caption under a key of its own (`curator.export.open_clip`)
    datacompdr   the same, with the generated captions in KEY.syn.json (`curator.export.datacompdr`)
    hf           data/NAME.tar, a dataset card (`curator.export.card`) and Croissant metadata; all
                 images have one extension, for `load_dataset` (`curator.export.huggingface`)
    parquet      NAME.parquet: the captions as a table, no images (`curator.export.tables`)
    overlay      data/NAME.parquet: the captions with what finds their images in other people's
                 copies, a card and Croissant metadata

In a tar, KEY.jpg is the image byte for byte (its sha256 is checked while copying), KEY.txt one
caption, and KEY.json the original fields plus one:

    "curator": {"version": ..., "action": ..., "captions": [{"text", "source", "weight", "score"}]}

If the source already has a field `curator`, it stays and ours is called `curator_export`.

Each file has a NAME_stats.json beside it, which is written last and marks the shard as complete.
Folders of tars have a sizes.json, from which open_clip_train takes the number of samples.
curator_version.json records what was exported and is written at the end. The same version gives the
same bytes. A second run continues after the finished shards.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from curator.core.clock import iso
from curator.core.errors import UsageError, nearest
from curator.export import card as export_card
from curator.export import croissant, datacompdr, open_clip
from curator.export import tables as export_tables
from curator.export.huggingface import ImageNames, layout, upload_command
from curator.export.samples import FIELD, TextLayout, first_text
from curator.export.shards import (
    Advance,
    ShardJob,
    Writer,
    write_overlay,
    write_table,
    write_tar,
)
from curator.shards import cache
from curator.shards.dataset import ShardRef
from curator.shards.places import Place, Remote, below
from curator.store import outputs
from curator.store.store import Store
from curator.store.versions import Version, shards_of

MANIFEST = outputs.EXPORT_MANIFEST

Target = Literal["wds", "open_clip", "datacompdr", "hf", "parquet", "overlay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How a target is written. Tars hold their captions as `texts` has it.

    Its files lie in `data/` with a card and Croissant metadata beside it if `is_published`.
    """

    suffix: str
    write: Writer
    texts: TextLayout = first_text
    is_published: bool = False


_LAYOUTS: Mapping[str, _Layout] = {
    "wds": _Layout(suffix=".tar", write=write_tar),
    "open_clip": _Layout(suffix=".tar", write=write_tar, texts=open_clip.text_files),
    "datacompdr": _Layout(suffix=".tar", write=write_tar, texts=datacompdr.text_files),
    "hf": _Layout(suffix=".tar", write=write_tar, is_published=True),
    "parquet": _Layout(suffix=".parquet", write=write_table),
    "overlay": _Layout(suffix=".parquet", write=write_overlay, is_published=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options of `export`. `other_members` also copies files other than image, txt and json.

    `license` is a Hugging Face license id, for `hf` and `overlay`; without it their card says
    `unknown`. `preset` is a column layout of `export_tables.PRESETS`, for `parquet`.
    """

    other_members: bool = False
    license: str | None = None
    preset: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """What to type in a shell, and a sentence about it."""

    about: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """Counts of shards and samples in the whole output; `num_new_shards` were made by this run.

    `commands` are for the reader to type next.

    `num_json_replaced` samples had a .json that cannot be parsed; their new one has only `curator`.
    `num_fields_renamed` samples have a field `curator` in the source, so ours has another name.
    """

    version: str
    to: str
    num_shards: int
    num_new_shards: int
    num_samples: int
    num_captions: int
    num_json_replaced: int
    size_bytes: int
    num_fields_renamed: int = 0
    warnings: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the report for `--json`."""
        return asdict(self)


def export(
    store: Store,
    shards: Sequence[ShardRef],
    version: Version,
    out: Place,
    *,
    to: Target,
    options: ExportOptions = ExportOptions(),
    on_progress: Advance | None = None,
) -> ExportReport:
    """Write the captioned and kept samples of a version below `out`.

    `shards` must contain all shards of the version. `on_progress` gets the number of samples just
    written; if it raises, finished shards stay.

    Raises:
        UsageError: an option or shard name cannot be used, or `out` contains something else;
            nothing was written.
        DamageError: a shard or a decision differs from the one the version was made from.
        ConflictError: another process is exporting into `out`.
    """
    _check_options(to, options)
    refs = shards_of(version, shards)
    how = _LAYOUTS[to]
    base = out / "data" if how.is_published else out
    paths = {name: _path(base, name, how.suffix) for name in refs}
    recipe = {
        "verb": "export",
        "version": version.id,
        "to": to,
        **{name: value for name, value in asdict(options).items() if value},
    }
    names = None
    if to == "hf":
        names = layout(store, version, other_members=options.other_members)
    stats: dict[str, dict[str, Any]] = {}
    num_new = 0
    with (
        outputs.filling(out, manifest=MANIFEST, recipe=recipe),
        cache.Ahead([refs[entry.name].path for entry in version.shards]) as ahead,
    ):
        for number, entry in enumerate(version.shards):
            job = ShardJob(
                store=store,
                version=version,
                entry=entry,
                ref=refs[entry.name],
                path=paths[entry.name],
                other_members=options.other_members,
                preset=options.preset,
                on_progress=on_progress or (lambda _: None),
                texts=how.texts,
                image_ext=names.image_ext if names else None,
            )
            found = job.finished()
            num_new += found is None
            if found is None and to != "parquet":
                ahead.after(number)
            stats[entry.name] = found or job.make(how.write)
            if found:
                job.on_progress(found["successes"])
        report = _report(version, to, stats, num_new)
        manifest = _manifest(version, paths, stats, out)
        if how.suffix == ".tar":
            _write_sizes(paths, stats)
        if how.is_published:
            license_id = options.license or croissant.UNKNOWN
            _write_card(out, version, stats, report, names, license_id)
            about = _croissant(version, manifest["files"], names, license_id)
            outputs.put(out / croissant.NAME, about)
        outputs.write_manifest(out / MANIFEST, recipe, manifest)
    return replace(
        report,
        warnings=tuple(_warnings(report, names)),
        commands=tuple(_commands(out, to, paths, stats)),
    )


def _commands(
    out: Place, to: str, paths: Mapping[str, Place], stats: Mapping[str, Mapping[str, Any]]
) -> Iterator[Command]:
    sizes = {path: stats[name]["successes"] for name, path in paths.items()}
    counted: Counter[str] = Counter()
    for one in stats.values():
        counted.update(one.get("counted", {}))
    if to == "open_clip":
        yield Command(open_clip.about(counted), open_clip.command(out, sizes, counted))
    elif to == "datacompdr":
        yield Command(datacompdr.ABOUT, datacompdr.command(out, sizes, counted))
    elif _LAYOUTS[to].is_published and not isinstance(out, Remote):
        yield Command("publish the folder on the Hugging Face Hub", upload_command(out))


def _warnings(report: ExportReport, names: ImageNames | None) -> Iterator[str]:
    if names is not None and names.is_mixed:
        yield (
            f"image formats differ ({names.formats_in_words()}): all files are named"
            f" .{names.image_ext}, because load_dataset needs one extension; bytes are unchanged"
        )
    if report.num_fields_renamed:
        yield (
            f"{report.num_fields_renamed:,} samples already have a json field {FIELD!r}: it"
            " is kept, and the captions are in 'curator_export'"
        )
    if report.num_json_replaced:
        yield (
            f"{report.num_json_replaced:,} samples have a .json that cannot be parsed: their"
            f" exported .json has only {FIELD!r}"
        )


def _path(folder: Place, name: str, suffix: str) -> Place:
    path = outputs.inside(folder, name)
    return path.with_name(path.name + suffix)


def _check_options(to: str, options: ExportOptions) -> None:
    if to not in get_args(Target):
        raise UsageError(f"cannot export to {to!r}", hint=nearest(to, get_args(Target)))
    if options.preset is not None:
        if to != "parquet":
            raise UsageError("--preset works only with --to parquet", reason="option.value")
        export_tables.check_preset(options.preset)
    if options.license is not None:
        if not _LAYOUTS[to].is_published:
            raise UsageError(
                "--license works only with --to hf and --to overlay, for their dataset card",
                reason="option.value",
            )
        export_card.check_license(options.license)
    if options.other_members and to in ("datacompdr", "parquet", "overlay"):
        raise UsageError(
            f"--other-members does not work with --to {to}"
            + (
                ", because embeddings (.npz) and .syn.json of the source belong to other captions"
                if to == "datacompdr"
                else ", which has no members"
            ),
            did="nothing was written",
            hint="leave out --other-members",
            reason="option.value",
        )


def _report(
    version: Version, to: str, stats: Mapping[str, Mapping[str, Any]], num_new: int
) -> ExportReport:
    return ExportReport(
        version=version.id,
        to=to,
        num_shards=len(stats),
        num_new_shards=num_new,
        num_samples=sum(one["successes"] for one in stats.values()),
        num_captions=sum(one["num_captions"] for one in stats.values()),
        num_json_replaced=sum(one["json_replaced"] for one in stats.values()),
        size_bytes=sum(one["size_bytes"] for one in stats.values()),
        num_fields_renamed=sum(one.get("fields_renamed", 0) for one in stats.values()),
    )


def _write_sizes(paths: Mapping[str, Place], stats: Mapping[str, Mapping[str, Any]]) -> None:
    """Write sizes.json, {file name: samples}, to each folder of tars, for open_clip_train."""
    folders: dict[Place, dict[str, int]] = {}
    for name, path in paths.items():
        folders.setdefault(path.parent, {})[path.name] = stats[name]["successes"]
    for folder, sizes in folders.items():
        # No checksum field: open_clip_train takes every field for a shard.
        text = json.dumps(sizes, indent=1, sort_keys=True)
        outputs.put(folder / "sizes.json", text.encode() + b"\n")


def _write_card(
    out: Place,
    version: Version,
    stats: Mapping[str, Mapping[str, Any]],
    report: ExportReport,
    names: ImageNames | None,
    license_id: str,
) -> None:
    sources: Counter[str] = Counter()
    for one in stats.values():
        sources.update(one["sources"])
    suffix = ".parquet" if names is None else ".tar"
    nested = any("/" in name for name in stats)
    data_files: str | list[str] = f"data/**/*{suffix}" if nested else f"data/*{suffix}"
    filled = [f"data/{name}{suffix}" for name, one in stats.items() if one["successes"]]
    if filled and len(filled) < len(stats):  # load_dataset fails on a first tar without samples
        data_files = filled
    text = export_card.card(
        version,
        license_id=license_id,
        num_samples=report.num_samples,
        num_captions=report.num_captions,
        sources=sources,
        data_files=data_files,
        names=names,
    )
    outputs.put(out / "README.md", text.encode())


def _croissant(
    version: Version, files: croissant.Files, names: ImageNames | None, license_id: str
) -> bytes:
    if names is not None:
        return croissant.of_tars(version, files, license_id=license_id, image_ext=names.image_ext)
    return croissant.of_tables(
        version,
        files,
        license_id=license_id,
        schema=export_tables.OVERLAY_SCHEMA,
        descriptions=export_tables.OVERLAY_COLUMNS,
    )


def _manifest(
    version: Version,
    paths: Mapping[str, Place],
    stats: Mapping[str, Mapping[str, Any]],
    out: Place,
) -> dict[str, Any]:
    names = ("successes", "num_captions", "size_bytes", "sha256")
    return {
        "version": {
            "id": version.id,
            "number": version.number,
            "created": iso(version.created),
            "tool_version": version.tool_version,
            "policy": version.policy,
            "thresholds": version.thresholds,
            "makers": version.makers,
            "counts": version.counts,
        },
        "files": {
            below(paths[name], out): {key: one[key] for key in names} for name, one in stats.items()
        },
    }
