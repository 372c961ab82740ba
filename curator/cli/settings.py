"""Read `curator.toml`: default options of the commands, for what you would type again and again.

    [defaults]                      # for every command that has the option
    store = "store"

    [recaption]                     # one table per command; of a subcommand: [quarantine.show]
    model = "models/captioner"
    batch-size = 8

The file becomes the `default_map` of the command line: typed options and environment variables
(`CURATOR_STORE`) override it, and it overrides the built-in defaults. All names in it are checked
on every run; values are checked for the command that runs. The options taken from it are named on
stderr, because a file beside a dataset may come from a stranger (`curator.cli.trust`: what it may
set).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from typer.core import TyperGroup
from typer.exceptions import TyperException

from curator.cli.trust import INSIDE, Harmless, mark_of
from curator.core.errors import UsageError, nearest

FILE_NAME = "curator.toml"
VARIABLE = "CURATOR_CONFIG"
DEFAULTS = ("defaults",)

Words = tuple[str, ...]
"""The words that name a command: ("recaption",) or ("quarantine", "list")."""
Options = Mapping[str, Any]
"""Option name without leading dashes -> typer's parameter."""

_MAX_SHOWN = 60
_MOST_LINES = 1000
_ONLY_TYPED = "json"  # the format of errors is needed before any file is read


class SettingsGroup(TyperGroup):
    """The root command group; reads default options from a curator.toml."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Resolve the command as typer does, after loading its options from the file."""
        found = super().resolve_command(ctx, args)
        if ctx.resilient_parsing:  # shell completion: must read no file and print nothing
            return found
        ctx.default_map = self._default_map(args, ctx.help_option_names)
        return found

    def _default_map(self, args: list[str], help_names: list[str] | None = None) -> dict[str, Any]:
        """Return parameter -> value, nested by the words of the command; empty without a file.

        Raises:
            UsageError: config.unreadable, .invalid, .unknown_table, .unknown_key or .value.
        """
        command: Any = self
        words: Words = ()
        while isinstance(command, TyperGroup):
            name = args[len(words)] if len(words) < len(args) else ""
            if name not in command.commands:
                return {}  # --help, or an error that typer will report
            command, words = command.commands[name], (*words, name)
        # A command keeps the help option that it was first parsed with.
        typed = command.make_context(
            words[-1], args[len(words) :], resilient_parsing=True, help_option_names=help_names
        )
        dataset = _first_argument(typed)
        path = None if _is_typed(typed, "help") else find_file(dataset)
        if path is None:
            return {}
        given: dict[str, Any] = dict(_given(path, dataset, words, dict(_commands(self)), typed))
        if given:
            from curator.core.progress import say  # with rich

            names = ", ".join(name.replace("_", "-") for name in given)
            say(f"options from {_short(path)}: {names}")
        for word in reversed(words):
            given = {word: given}
        return given


def _is_typed(context: Any, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def _first_argument(context: Any) -> str | None:
    """Return DATASET, or whatever argument the command has first; None when it is missing."""
    for param in context.command.params:
        if param.param_type_name == "argument":
            value = context.params.get(param.name)
            return None if value is None else str(value)
    return None


def find_file(dataset: str | None) -> Path | None:
    """Return the absolute path of the curator.toml for DATASET; it need not exist.

    `CURATOR_CONFIG` if set; else the first found in the dataset's folder, its parent, and the
    current folder. None if there is none, or no dataset.
    """
    if dataset is None:
        return None
    if named := os.environ.get(VARIABLE):
        return Path(os.path.abspath(named))
    folder = _folder_of(dataset)
    found = (Path(place, FILE_NAME) for place in (folder, folder.parent, Path.cwd()))
    return next((path for path in found if os.path.isfile(path)), None)


def _folder_of(dataset: str) -> Path:
    from curator.steps.workspace import folder_of  # imported late; the command needs it too

    folder: Path = folder_of(dataset)
    return folder if os.path.isdir(folder) else folder.parent


def _commands(group: TyperGroup, before: Words = ()) -> Iterator[tuple[Words, Options]]:
    """Yield every command that takes options from a file."""
    for name, command in group.commands.items():
        words = (*before, name)
        if isinstance(command, TyperGroup):
            yield from _commands(command, words)
            continue
        options = {
            spelling.removeprefix("--"): param
            for param in command.params
            for spelling in param.opts
            if spelling.startswith("--") and param.name != _ONLY_TYPED
        }
        if options:
            yield words, options


def _given(
    path: Path, dataset: str | None, words: Words, commands: Mapping[Words, Options], typed: Any
) -> Options:
    """Return parameter -> value for one command, after checking all names in the file.

    Options that are also typed are left out, so an untrusted value for them does not matter.
    """
    text = _read(path)
    tables = dict(_tables(_parsed(text, path), commands, path))
    everywhere = {name: None for options in commands.values() for name in options}
    spelled = {
        table: _spelled(table, entries, commands.get(table, everywhere), path)
        for table, entries in tables.items()
    }
    options = commands.get(words, {})
    is_own = _is_own(path, dataset)
    given = {}
    refused: list[tuple[Words, str, Harmless | None]] = []
    for table in (DEFAULTS, words):
        for name, value in spelled.get(table, {}).items():
            if name not in options or _is_typed(typed, options[name].name):
                continue
            param = options[name]
            mark = mark_of(typed.command, param)
            label = f"[{'.'.join(table)}] {name}"
            found = _value(label, value, param, typed, path, is_folder=mark is INSIDE)
            if not (is_own or (mark is not None and mark.holds(found, path.parent))):
                refused.append((table, name, mark))
            given[param.name] = found
    if refused:
        raise _refused(refused, text, path)
    return given


def _is_own(path: Path, dataset: str | None) -> bool:
    """Whether the user chose this file. One beside a dataset may have come with it.

    It may also when the user works in the dataset's folder: `cd download; curator index .`
    """
    if os.environ.get(VARIABLE):
        return True
    here = path.parent == Path.cwd()
    return here and not (
        dataset and os.path.realpath(_folder_of(dataset)) == os.path.realpath(path.parent)
    )


def _refused(found: list[tuple[Words, str, Harmless | None]], text: str, path: Path) -> UsageError:
    said = []
    for table, name, mark in found:
        line = _line_of(text, table, name)
        notes = [f"line {line}" if line else f"after line {_MOST_LINES:,}"]
        notes += [f"allowed: {mark.allowed}"] if mark else []
        said.append(f"[{'.'.join(table)}] {name} is refused ({'; '.join(notes)})")
    return UsageError(
        f"{', '.join(said)}: this file is beside a dataset and may have come with it",
        where=path,
        hint=f"type --{found[0][1]}; or, if the file is yours, set {VARIABLE}={path}; "
        f"{VARIABLE}=/dev/null ignores it",
        reason="config.value",
    )


def _line_of(text: str, table: Words, name: str) -> int | None:
    """Return the line number, from 1, of an entry. tomllib reports none, so prefixes are parsed.

    A prefix that ends inside a value is invalid TOML: the entry starts after the last valid one.
    """
    lines = text.split("\n")[:_MOST_LINES]
    whole = 0
    for number in range(1, len(lines) + 1):
        try:
            entries: Any = tomllib.loads("\n".join(lines[:number]))
        except (ValueError, RecursionError):
            continue
        for word in table:
            entries = entries.get(word, {}) if isinstance(entries, dict) else {}
        if any(key.replace("_", "-") == name for key in entries):
            return whole + 1
        whole = number
    return None


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise UsageError(
            f"cannot read options: {error.strerror}",
            where=path,
            hint=f"make it readable, or set {VARIABLE} to another file",
            reason="config.unreadable",
        ) from error
    except ValueError as error:  # not UTF-8
        raise _invalid(error, path) from error


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # includes numbers with too many digits and deep nesting
        raise _invalid(error, path) from error


def _invalid(error: Exception, path: Path) -> UsageError:
    return UsageError(f"not valid TOML ({error})", where=path, reason="config.invalid")


def _tables(
    document: Mapping[str, Any], commands: Mapping[Words, Options], path: Path, before: Words = ()
) -> Iterator[tuple[Words, Mapping[str, Any]]]:
    """Return the table of each command; a subcommand's table is nested in its group's table."""
    known = {DEFAULTS, *commands}
    for key, value in document.items():
        words = (*before, key)
        is_group = any(name[: len(words)] == words and name != words for name in known)
        if not isinstance(value, dict):
            raise UsageError(
                f"{key!r} is outside any command's table",
                where=path,
                hint="put it below [defaults], or below a command such as [recaption]",
                reason="config.unknown_key",
            )
        if is_group:
            yield from _tables(value, commands, path, words)
        elif words in known:
            yield words, value
        else:
            name = ".".join(words)
            raise UsageError(
                f"there is no table {name!r}",
                where=path,
                hint=nearest(name, [".".join(words) for words in known]),
                reason="config.unknown_table",
            )


def _spelled(
    table: Words, entries: Mapping[str, Any], allowed: Options, path: Path
) -> dict[str, Any]:
    """Return the entries of a table with `_` in names replaced by `-`."""
    spelled: dict[str, Any] = {}
    for key, value in entries.items():
        name = key.replace("_", "-")
        if name not in allowed:
            raise UsageError(
                f"{key!r} is not an option of the table [{'.'.join(table)}]",
                where=path,
                hint=nearest(name, allowed),
                reason="config.unknown_key",
            )
        if name in spelled:
            raise UsageError(
                f"[{'.'.join(table)}] has {name!r} twice, with - and with _",
                where=path,
                hint="keep one of them",
                reason="config.value",
            )
        spelled[name] = value
    return spelled


def _value(label: str, value: Any, param: Any, typed: Any, path: Path, *, is_folder: bool) -> Any:
    """Return the value as the option takes it, with its path made absolute.

    Typer alone would accept "3" for 3 and true for 1, because typed options are always text.
    """
    if param.multiple and _is_text(value):
        value = [value]
    wanted = _wanted(value, param)
    if wanted is not None:
        raise UsageError(
            f"{label} is {_shown(value)}",
            where=path,
            hint=f"allowed: {wanted}",
            reason="config.value",
        )
    located = _located(value, path.parent, is_path=is_folder or param.type_descriptor.is_path)
    try:
        param.process_value(typed, located)
    except TyperException as error:
        raise UsageError(
            f"{label} is {_shown(value)}", where=path, hint=error.message, reason="config.value"
        ) from error
    return located


def _wanted(value: Any, param: Any) -> str | None:
    """Return a description of the type the option takes, or None if the value has that type."""
    kind = param.type_descriptor.annotation
    if param.is_flag:
        return None if isinstance(value, bool) else "true or false"
    if param.multiple:
        is_list = isinstance(value, list) and all(map(_is_text, value))
        return None if is_list else 'a list of strings, such as ["a", "b"]'
    if kind is int:
        return None if _is_whole(value) else "a whole number"
    if kind is float:
        return None if isinstance(value, float) or _is_whole(value) else "a number"
    return None if _is_text(value) else "a string"


def _is_text(value: object) -> bool:
    return (
        isinstance(value, str) and "\0" not in value
    )  # NUL cannot occur in a path or a typed option


def _is_whole(value: object) -> bool:
    # TOML integers have 64 bits; Python's parser accepts larger ones, which overflow later.
    return isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 64  # noqa: PLR2004 - bits


def _located(value: Any, folder: Path, *, is_path: bool) -> Any:
    """Resolve a path against the file's folder; a text counts as a path if it names a file there.

    A URL is no path.

    A bare word is never a path: a folder called `en` must not change what `language = "en"` means.
    """
    if not isinstance(value, str) or "://" in value:
        return value
    place = os.path.join(folder, os.path.expanduser(value))
    if is_path:
        return place
    return place if ("/" in value or "." in value) and os.path.exists(place) else value


def _shown(value: Any) -> str:
    if isinstance(value, str | float | bool) or _is_whole(value):
        return repr(value)[:_MAX_SHOWN]
    kinds = {int: "number above 64 bits", dict: "table"}
    return f"a {kinds.get(type(value), type(value).__name__)}"


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
