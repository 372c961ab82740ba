"""Map names to rows that say where a class is and what it needs; import it when it is asked for.

A table imports nothing before that, so `curator --help` does not import torch, and it refuses a
class that breaks the port's contract before any work starts. Each port adds the columns that it
needs to `Spec`, e.g. `ModelSpec` for captioners.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Collection, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from curator.core.errors import UsageError, nearest


def load(target: str) -> Any:
    """Import `"package.module:Name"` and return the object."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True, slots=True)
class Spec:
    """One row of a table.

    Attributes:
        target: "module:Class", or whatever the port says is built.
        help: one line about it, for `--help` and error messages.
        tiny: "module:function" of the tests, a context manager: (an empty folder) -> the options
            that the contract suite builds a tiny one with, as a dict. Empty: it is built without.
    """

    target: str
    _: KW_ONLY
    help: str = ""
    tiny: str = ""


S = TypeVar("S", bound=Spec)


class Registry(Generic[S]):
    """The table of one port, e.g. all captioners.

    `kind` names the port in error messages. With a `protocol`, every row is a class that has its
    methods; a port of builders checks what they built with `check_contract`.
    """

    def __init__(
        self, kind: str, rows: Mapping[str, S], *, protocol: type[Any] | None = None
    ) -> None:
        self.kind = kind
        self.rows = dict(rows)
        self.protocol = protocol

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def spec(self, name: str) -> S:
        """The row of `name`; imports nothing.

        Raises:
            UsageError: the name is not in the table; names the nearest one.
        """
        if name not in self.rows:
            raise UsageError(
                f"unknown {self.kind} {name!r}",
                hint=nearest(name, self.rows),
                reason=f"{self.kind}.unknown",
            )
        return self.rows[name]

    def get(self, name: str) -> Any:
        """Import and return the object of `name`.

        Raises:
            UsageError: the name is not in the table, its target is not there, or the class does
                not keep the contract; names what is missing.
        """
        target = self.spec(name).target
        module, _, attribute = target.partition(":")
        what = None
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module is there; something that it imports is not
            what = f"there is no module {error.name!r}"
        except SyntaxError as error:
            what = f"{error.filename}:{error.lineno}: {error.msg}"
        except AttributeError as error:
            if not str(error).startswith("module "):
                raise  # in the code of the module
            what = f"there is no {attribute!r} in the module {module!r}"
        else:
            if self.protocol is not None and not isinstance(found, type):
                what = f"{target} is not a class"
        if what is not None:
            raise UsageError(
                f"{self.kind} {name!r}: {what}",
                hint=f"its row in the table says {target!r}: correct the row, or put the folder "
                "of the module on PYTHONPATH",
                reason=f"{self.kind}.contract",
            )
        if self.protocol is not None:
            check_contract(self.kind, name, found, self.protocol)
        return found

    def check(self, name: str) -> S:
        """The row of `name`, once its class is known to keep the contract: before work starts.

        A class that needs torch takes ten seconds to import, so its source is read instead; only
        where that does not show the methods as the contract has them, it is imported.

        Raises:
            UsageError: as `get`.
        """
        spec = self.spec(name)
        if self.protocol is None or not _shows_contract(spec.target, self.protocol):
            self.get(name)
        return spec

    def build(self, name: str, options: Mapping[str, Any]) -> Any:
        """Import the class of `name` and make one.

        Raises:
            UsageError: as `get`, or its constructor does not take these options by keyword.
            Others: from the constructor.
        """
        cls = self.get(name)
        self._check_constructor(name, cls, options)
        return cls(**options)

    def check_constructor(self, name: str, keywords: Collection[str]) -> None:
        """Check before work starts that the class of `name` can be built with these keywords.

        As in `check`, the source is read first.

        Raises:
            UsageError: as `build`.
        """
        if not _shows_constructor(self.spec(name).target, keywords):
            self._check_constructor(name, self.get(name), dict.fromkeys(keywords))

    def _check_constructor(self, name: str, cls: type, options: Mapping[str, Any]) -> None:
        try:
            inspect.signature(cls).bind(**options)
        except TypeError as error:
            raise UsageError(
                f"{self.kind} {name!r}: the class {cls.__qualname__} cannot be built with "
                f"{', '.join(options) or 'nothing'} ({error})",
                where=file_of(cls),
                hint="what it is built with follows from its row: see the port's protocol",
                reason=f"{self.kind}.contract",
            ) from error


def check_contract(kind: str, name: str, found: object, protocol: type[Any]) -> None:
    """Refuse a class (or an object) that lacks a member of `protocol`, before any work starts.

    Methods must be there and take the arguments that the protocol gives them; annotations and
    further arguments with defaults do not matter. Other members (properties) are only looked for
    on objects, since a class may set them when it is made.

    Raises:
        UsageError: names the class, its file and the member.
    """
    cls = found if isinstance(found, type) else type(found)
    for member, wanted in _members(protocol).items():
        is_method = inspect.isfunction(wanted)
        if found is cls and not is_method:
            continue
        call = f"{member}({', '.join(_arguments(wanted))})" if is_method else member
        problem = None
        if not hasattr(found, member):
            problem = f"has no method `{call}`" if is_method else f"has no `{member}`"
        elif is_method and not _takes(found, member, wanted):
            problem = f"has a `{member}` that cannot be called as `{call}`"
        if problem is not None:
            raise UsageError(
                f"{kind} {name!r}: the class {cls.__qualname__} {problem}",
                where=file_of(cls),
                did="nothing was started",
                hint=f"the contract is {protocol.__module__}.{protocol.__qualname__}",
                reason=f"{kind}.contract",
            )


def _members(protocol: type[Any]) -> dict[str, Any]:
    """Name -> what a protocol defines, with the protocols that it extends."""
    found: dict[str, Any] = {}
    for base in reversed(protocol.__mro__):
        if base not in (object, Protocol, Generic):
            names = {**getattr(base, "__annotations__", {}), **vars(base)}
            found |= {name: vars(base).get(name) for name in names if not name.startswith("_")}
    return found


def _arguments(method: Any) -> list[str]:
    """The names of a method's arguments without `self`."""
    return list(inspect.signature(method).parameters)[1:]


def _takes(found: object, member: str, wanted: Any) -> bool:
    """Whether `found.member` can be called with the arguments of `wanted`, a plain method."""
    method = getattr(found, member)
    if not callable(method):
        return False
    given = list(inspect.signature(wanted).parameters.values())
    static = inspect.getattr_static(found, member)
    if not isinstance(found, type) or isinstance(static, (staticmethod, classmethod)):
        given = given[1:]  # bound already, or without `self`
    by_name = {one.name: None for one in given if one.kind is one.KEYWORD_ONLY}
    in_place = [one for one in given if one.kind is not one.KEYWORD_ONLY]
    try:
        inspect.signature(method).bind(*in_place, **by_name)
    except TypeError:
        return False
    except ValueError:  # built in C: it has no signature to read
        return True
    return True


def _shows_contract(target: str, protocol: type[Any]) -> bool:
    """Whether the source of a class has the methods of `protocol` with the same arguments."""
    methods = _methods_in_source(target)
    return all(
        member in methods
        and [one.arg for one in (*methods[member].args, *methods[member].kwonlyargs)]
        == list(inspect.signature(wanted).parameters)
        for member, wanted in _members(protocol).items()
        if inspect.isfunction(wanted)
    )


def _shows_constructor(target: str, keywords: Collection[str]) -> bool:
    """Whether the source of a class has an `__init__` that can be called with these keywords."""
    taken = _methods_in_source(target).get("__init__")
    if taken is None or taken.posonlyargs or taken.vararg or taken.kwarg:
        return False
    in_place = [one.arg for one in taken.args[1:]]
    needed = set(in_place[: len(in_place) - len(taken.defaults)])
    by_name = [one.arg for one in taken.kwonlyargs]
    needed |= {one for one, value in zip(by_name, taken.kw_defaults, strict=True) if value is None}
    return needed <= set(keywords) <= {*in_place, *by_name}


def _methods_in_source(target: str) -> dict[str, ast.arguments]:
    """Name -> arguments of the plain methods that the source of a class shows."""
    module, _, name = target.partition(":")
    try:
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None or not found.origin.endswith(".py"):
            return {}
        tree = ast.parse(Path(found.origin).read_text("utf-8"))
    except (ModuleNotFoundError, SyntaxError, ValueError):  # ValueError: it was made by hand
        return {}
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return {
        node.name: node.args
        for cls in classes[-1:]
        for node in cls.body
        if isinstance(node, ast.FunctionDef) and not node.decorator_list
    }


def file_of(cls: type) -> str:
    """Return the file of a class, or its module where there is none."""
    try:
        return inspect.getfile(cls)
    except (TypeError, OSError):
        return cls.__module__
