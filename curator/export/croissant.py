"""croissant.json: the files and columns of a published export, for machines.

Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html), with two fields of
its RAI extension: who wrote the captions, and their limits. Every file is named with its size and
sha256. License and address are left out where nobody stated them.

The files of a sample in a tar are records of several record sets with a common `key`. Croissant can
only take it from the names inside the tars: where shards repeat a key, it does not tell the samples
apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from curator.core.clock import iso
from curator.export.samples import FIELD
from curator.policy.model import ALT_TEXT
from curator.store.versions import Version

NAME = "croissant.json"
UNKNOWN = "unknown"

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_MIME = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_KEY = r"^((?:.*/)?[^/.]+)\.[^/]*$"  # up to the first dot of the last part, as WebDataset
_ALL_CAPTIONS = (
    f"Fields of the source, and {FIELD}.captions: text, source, sampling weight and score of each."
)
_LIMITS = (
    "Captions written by models can be wrong: invented objects, wrong counts, wrong relations."
    " Scores are similarities by the named scorer and no measure of truth."
)

Json = dict[str, Any]
Files = Mapping[str, Mapping[str, Any]]
"""Path below the export to its `size_bytes` and `sha256`."""


def of_tars(version: Version, files: Files, *, license_id: str, image_ext: str) -> bytes:
    """Describe tars of KEY.jpg, KEY.txt and KEY.json: one record set for each kind of file."""
    objects = _objects(files, "application/x-tar")
    archives = [{"@id": one["@id"]} for one in objects]
    image_type = _MIME.get(image_ext, f"image/{image_ext}")
    kinds = (
        ("images", image_ext, image_type, "sc:ImageObject", "The image."),
        ("texts", "txt", "text/plain", "sc:Text", "The first caption."),
        ("metadata", "json", "application/json", "sc:Text", _ALL_CAPTIONS),
    )
    distribution, records = [*objects], {}
    for name, ext, mime, data_type, description in kinds:
        file_set = f"{name}-files"
        distribution.append(
            {
                "@type": "cr:FileSet",
                "@id": file_set,
                "containedIn": archives,
                "encodingFormat": mime,
                "includes": f"*.{ext}",
            }
        )
        key = _extract(file_set, fileProperty="fullpath") | {"transform": {"regex": _KEY}}
        content = _extract(file_set, fileProperty="content")
        records[name] = [
            _field("key", "sc:Text", key, "Key of the sample, the same in all record sets."),
            _field("content", data_type, content, description),
        ]
    return _document(version, license_id, distribution, records)


def of_tables(
    version: Version,
    files: Files,
    *,
    license_id: str,
    schema: pa.Schema,
    descriptions: Mapping[str, str],
) -> bytes:
    """Describe Parquet tables in data/ with one row per caption; `descriptions` by column."""
    objects = _objects(files, "application/x-parquet")
    tables = {
        "@type": "cr:FileSet",
        "@id": "tables",
        "encodingFormat": "application/x-parquet",
        "includes": "data/*.parquet",
    }
    fields = []
    for one in schema:
        source = _extract("tables", column=one.name)
        fields.append(_field(one.name, _data_type(one.type), source, descriptions[one.name]))
    return _document(version, license_id, [*objects, tables], {"captions": fields})


def _document(
    version: Version,
    license_id: str,
    distribution: Sequence[Json],
    records: Mapping[str, Sequence[Json]],
) -> bytes:
    makers = sorted(maker for maker in version.makers if maker != ALT_TEXT)
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.0",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": f"captions-{version.id[:12]}",
        "description": (
            f"Captions of images: version {version.id}, decided by the policy"
            f" {version.policy.get('name')} with caption-curator {version.tool_version}."
            " README.md shows prompts, policy and counts."
        ),
        "dateCreated": iso(version.created),
        "version": f"{version.number}.0.0",
        "rai:machineAnnotationTools": makers,
        "rai:dataLimitations": _LIMITS,
        "distribution": list(distribution),
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": name,
                "field": [{**one, "@id": f"{name}/{one['@id']}"} for one in fields],
            }
            for name, fields in records.items()
        ],
    }
    if license_id != UNKNOWN:
        document["license"] = license_id
    return json.dumps(document, indent=1).encode() + b"\n"


def _objects(files: Files, mime: str) -> list[Json]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "contentUrl": name,
            "contentSize": f"{one['size_bytes']} B",
            "sha256": one["sha256"],
            "encodingFormat": mime,
        }
        for name, one in files.items()
    ]


def _field(name: str, data_type: str, source: Json, description: str) -> Json:
    return {
        "@type": "cr:Field",
        "@id": name,
        "description": description,
        "dataType": data_type,
        "source": source,
    }


def _extract(file_set: str, **what: str) -> Json:
    return {"fileSet": {"@id": file_set}, "extract": what}


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:Integer" if pa.types.is_integer(kind) else "sc:Text"
