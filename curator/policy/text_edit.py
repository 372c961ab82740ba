"""Write policies as TOML text, change them, and save them as files.

`parse_policy(to_toml(policy), ...) == policy` for every policy. Comments are not part of a policy,
so they are lost when a text is read and written again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from curator.core.errors import ConflictError, UsageError, not_there
from curator.core.validation import explain
from curator.policy.fields import FIELDS
from curator.policy.model import PRESETS, Policy, Rule, Weights, load_policy, parse_policy
from curator.store import fsops
from curator.store.versions import Version

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
HEALTHY_PRESET = "best"
"""Preset whose first rule lists the flags that a text must not have."""
_MAX_WHOLE = 1e15
"""Whole floats up to this value are written without a point."""


def to_toml(policy: Policy) -> str:
    """Return the TOML of a policy, with the keys that differ from their defaults."""
    head: dict[str, object] = {"name": policy.name}
    if policy.description:
        head["description"] = policy.description
    head |= {"sources": policy.sources, "pick": policy.pick}
    if policy.otherwise != "drop":
        head["otherwise"] = policy.otherwise
    if policy.scorer != "clip":
        head["scorer"] = policy.scorer
    lines = _lines(head)
    for rule in policy.rule:
        lines += ["", "[[rule]]", *_lines(rule.model_dump(exclude_defaults=True))]
    if policy.surgery is not None:
        lines += ["", "[surgery]", *_lines(policy.surgery.model_dump(exclude_none=True))]
    if policy.weights != Weights():
        lines += ["", "[weights]", *_lines(policy.weights.model_dump())]
    for concept in policy.concept:
        lines += ["", "[[concept]]", *_lines(concept.model_dump())]
    return "\n".join(lines) + "\n"


def _lines(table: Mapping[str, object]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items()]


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < _MAX_WHOLE
        return str(int(value)) if whole else repr(value)
    # A JSON string is a valid TOML string, except for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def policy_of(version: Version) -> Policy:
    """Return the policy that decided a version.

    Raises:
        UsageError: the version was made in another way, such as from edits.
    """
    known = {key: value for key, value in version.policy.items() if key in Policy.model_fields}
    try:
        return Policy.model_validate(known)
    except ValidationError as error:
        raise UsageError(
            f"{version.name} was not decided by a policy ({explain(error, Policy)})",
            hint=f"start from a preset: {', '.join(PRESETS.names())}",
            reason="policy.none",
        ) from error


def base_text(name: str, version: Version | None) -> str:
    """Return the text to start a change from: that of a preset, or of the version's policy."""
    return PRESETS.text(name) if version is None else to_toml(policy_of(version))


def save_policy(text: str, folder: Path, *, replace: bool = False) -> Path:
    """Write the text of a policy into a folder, as `<its name>.toml`.

    Raises:
        UsageError: invalid policy, or unusable as a file name. NotFoundError: no such folder.
        ConflictError: the file exists, and `replace` is false or it does not hold a policy.
    """
    name = parse_policy(text, where="as typed").name
    if not _FILE_NAME.fullmatch(name):
        raise UsageError(
            f"name {name!r} cannot be a file name",
            hint="use only letters, digits and . _ -",
            reason="policy.name",
        )
    if not folder.is_dir():
        hint = "create it first, or name another folder"
        raise not_there("folder", folder, hint=hint, reason="policy.folder")
    path, data = folder / f"{name}.toml", text.encode()
    if not replace:
        if not fsops.put_if_absent(path, data):
            raise ConflictError(
                "the file exists",
                where=path,
                did="it is unchanged",
                hint="give the policy another name, or choose to replace the file",
                reason="policy.exists",
            )
        return path
    if path.exists():
        _check_replaceable(path)
    fsops.write_atomic(path, data)
    return path


def _check_replaceable(path: Path) -> None:
    """Refuse to replace a TOML file that does not hold a policy."""
    try:
        parse_policy(path.read_text("utf-8"), where=path.name)
    except (UsageError, UnicodeDecodeError) as error:
        raise ConflictError(
            "the file exists and is not a policy",
            where=path,
            did="it is unchanged",
            hint="give the policy another name",
            reason="policy.exists",
        ) from error


# -- changing one -----------------------------------------------------------------------------


def new_rules() -> dict[str, dict[str, object]]:
    """Return the kinds of rules that can be added with one click, and their initial keys."""
    return {
        kind: {**keys, "field": name}
        for name, row in FIELDS.items()
        for kind, keys in row.starts.items()
    }


def change(policy: Policy, **values: object) -> Policy:
    """Return the policy with other values of its keys.

    Raises:
        UsageError: a value is not allowed; named as in a policy file.
    """
    return _checked({**policy.model_dump(), **values})


def change_rule(policy: Policy, place: int, **values: object) -> Policy:
    """Return the policy with other values in rule number `place`. Raises as `change` does."""
    rules = [rule.model_dump() for rule in policy.rule]
    rules[place] |= values
    return change(policy, rule=rules)


def drop_rule(policy: Policy, place: int) -> Policy:
    """Return the policy without rule number `place`."""
    return change(policy, rule=[*policy.rule[:place], *policy.rule[place + 1 :]])


def add_rule(policy: Policy, kind: str) -> Policy:
    """Return the policy with one more rule of a kind of `new_rules`, under a unique name."""
    values = new_rules()[kind]
    if values["field"] == "flags":
        values = load_policy(HEALTHY_PRESET).rule[0].model_dump() | {"name": values["name"]}
    taken = {rule.name for rule in policy.rule}
    names = [str(values["name"]), *(f"{values['name']}_{n}" for n in range(2, len(taken) + 3))]
    name = next(name for name in names if name not in taken)
    return change(policy, rule=[*policy.rule, Rule.model_validate({**values, "name": name})])


def _checked(values: Mapping[str, object]) -> Policy:
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            explain(error, Policy), where="the policy", reason="policy.invalid"
        ) from error
