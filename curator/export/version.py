"""Export a version to files that trainers can read without this tool.

    wds       NAME.tar for every shard NAME: the samples that are captioned or kept
    parquet   NAME.parquet: the captions as a table, no images (see `curator.export.tables`)
    hf        data/NAME.tar and a dataset card (see `curator.export.card`); all images have the same
              extension, as `load_dataset` requires (see `curator.export.huggingface`)

In a tar, KEY.jpg is the image byte for byte (its sha256 is checked while copying), KEY.txt the
first caption, and KEY.json the original fields plus one:

    "curator": {"version": ..., "action": ..., "captions": [{"text", "source", "weight", "score"}]}

If the source already has a field `curator`, it stays and ours is called `curator_export`.
open_clip_train reads only the .txt. To sample among several captions, map the decoded sample:
`c = s["json"]["curator"]["captions"]; random.choices([x["text"] for x in c], [x["weight"] for x
in c])[0]`.

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
from curator.export import tables as export_tables
from curator.export.huggingface import ImageNames, layout
from curator.export.samples import FIELD
from curator.export.shards import Advance, ShardJob, write_table, write_tar
from curator.shards import cache
from curator.shards.dataset import ShardRef
from curator.shards.places import Place, below
from curator.store import outputs
from curator.store.store import Store
from curator.store.versions import Version, shards_of

MANIFEST = outputs.EXPORT_MANIFEST

Target = Literal["wds", "parquet", "hf"]

_FOLDER = {"wds": None, "parquet": None, "hf": "data"}
_SUFFIX = {"wds": ".tar", "parquet": ".parquet", "hf": ".tar"}
_WRITERS = {"wds": write_tar, "parquet": write_table, "hf": write_tar}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options of `export`. `other_members` also copies files other than image, txt and json.

    `license` is a Hugging Face license id, required for `hf`. `preset` is a column layout of
    `export_tables.PRESETS`, for `parquet`.
    """

    other_members: bool = False
    license: str | None = None
    preset: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """Counts of shards and samples in the whole output; `num_new_shards` were made by this run.

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
    folder = _FOLDER[to]
    base = out if folder is None else out / folder
    paths = {name: _path(base, name, _SUFFIX[to]) for name in refs}
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
                image_ext=names.image_ext if names else None,
            )
            found = job.finished()
            num_new += found is None
            if found is None and to != "parquet":
                ahead.after(number)
            stats[entry.name] = found or job.make(_WRITERS[to])
            if found:
                job.on_progress(found["successes"])
        report = _report(version, to, stats, num_new)
        if to != "parquet":
            _write_sizes(paths, stats)
        if names is not None:
            _write_card(out, version, stats, report, names, str(options.license))
        outputs.write_manifest(out / MANIFEST, recipe, _manifest(version, paths, stats, out))
    return replace(report, warnings=tuple(_warnings(report, names)))


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
    if to == "hf":
        export_card.check_license(options.license)
    elif options.license is not None:
        raise UsageError(
            "--license works only with --to hf, for its dataset card", reason="option.value"
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
    names: ImageNames,
    license_id: str,
) -> None:
    sources: Counter[str] = Counter()
    for one in stats.values():
        sources.update(one["sources"])
    nested = any("/" in name for name in stats)
    data_files: str | list[str] = "data/**/*.tar" if nested else "data/*.tar"
    filled = [f"data/{name}.tar" for name, one in stats.items() if one["successes"]]
    if filled and len(filled) < len(stats):  # load_dataset fails on a first tar without samples
        data_files = filled
    text = export_card.card(
        version,
        license_id=license_id,
        num_samples=report.num_samples,
        num_captions=report.num_captions,
        sources=sources,
        data_files=data_files,
        image_ext=names.image_ext,
        formats=names.formats_in_words() if names.is_mixed else None,
    )
    outputs.put(out / "README.md", text.encode())


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
