"""Call the class of a table's row, and say whose fault it is when it does not do what it should.

`Registry.check` refuses a class before any work starts; what it raises and returns is only known
when it runs. Both end the run with one line that names the class, its file, what came and what the
contract wants: the traceback of a loop that met a string where it expects a `Caption` says nothing
to whoever wrote the class. That traceback is a note of the error, for the log of the run.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from curator.core.errors import CuratorError, EngineError
from curator.core.package import missing_extra
from curator.core.registry import Registry, file_of


def build(table: Registry[Any], name: str, options: Mapping[str, Any]) -> Any:
    """Build the class of a row.

    Raises:
        UsageError: as `Registry.build`. EngineError: its constructor raised something else.
    """
    try:
        return table.build(name, options)
    except CuratorError:
        raise
    except Exception as error:
        raise _raised(table.get(name), table.kind, "__init__", error) from error


def call(made: object, kind: str, method: str, argument: object, *, wants: str) -> Sequence[Any]:
    """Return what a method of a captioner or a scorer returns, which must be a list.

    Raises:
        EngineError: it is not a list, or the method raised something else than a CuratorError.
    """
    try:
        found = getattr(made, method)(argument)
    except CuratorError:
        raise
    except Exception as error:
        raise _raised(type(made), kind, method, error) from error
    if inspect.iscoroutine(found):
        found.close()  # else Python warns that it was never awaited
        raise broken(made, kind, method, "a coroutine (it is `async def`)", wants=wants)
    if isinstance(found, str | bytes) or not isinstance(found, Sequence):
        raise broken(made, kind, method, f"a {type(found).__name__}", wants=wants)
    return found


def broken(
    made: object, kind: str, method: str, came: str, *, wants: str, hint: str = ""
) -> EngineError:
    """Return the error for a result that breaks the contract."""
    cls = type(made)
    return EngineError(
        f"{kind}: `{method}` of the class {cls.__qualname__} returned {came}",
        where=file_of(cls),
        did="nothing of this batch was stored",
        hint=f"it must return {wants}" + (f"; {hint}" if hint else ""),
        reason=f"{kind}.contract",
    )


def _raised(cls: type, kind: str, method: str, error: Exception) -> Exception:
    if isinstance(error, ImportError) and missing_extra(error) is not None:
        return error  # the command line names the extra
    file = file_of(cls)
    lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == file]
    said = " ".join(str(error).split())
    told = EngineError(
        f"{kind}: `{method}` of the class {cls.__qualname__} raised {type(error).__name__}: {said}",
        where=f"{file}:{lines[-1]}" if lines else file,
        did="all stored facts are kept",
        hint="CURATOR_TRACEBACK=1 shows the traceback",
        reason=f"{kind}.raised",
    )
    told.add_note("".join(traceback.format_exception(error)))  # survives pickling, a cause does not
    return told
