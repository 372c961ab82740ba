"""Read TOML files that are bundled with the tool under a name: policies, recipes, studies.

An argument that ends in `.toml` is a path; any other is a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from curator.core.errors import UsageError, nearest, not_there


@dataclass(frozen=True, slots=True)
class Presets:
    """Bundled files of one kind; `noun` names the kind in errors and starts their reasons."""

    noun: str
    package: str
    folder: str

    def names(self) -> list[str]:
        """Return all names, sorted."""
        entries = (files(self.package) / self.folder).iterdir()
        return sorted(entry.name.removesuffix(".toml") for entry in entries)

    def text(self, name: str) -> str:
        """Return the TOML of a preset, to copy and change. Raises UsageError for unknown names."""
        if name not in self.names():
            raise UsageError(
                f"unknown {self.noun} {name!r}",
                hint=f"{nearest(name, self.names())}; or give the path of a .toml file",
                reason=f"{self.noun}.unknown",
            )
        return (files(self.package) / self.folder / f"{name}.toml").read_text("utf-8")

    def read(self, name_or_path: str) -> str:
        """Return the TOML of a preset by name, or of a file by path.

        Raises:
            UsageError: there is no such preset or file, or the file is not UTF-8.
        """
        path = Path(name_or_path)
        if path.suffix != ".toml":
            return self.text(name_or_path)
        if not path.is_file():
            reason = f"{self.noun}.unknown"
            raise not_there(f"{self.noun} file", path, reason=reason, error=UsageError)
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"not valid TOML: not UTF-8 ({error})", where=path, reason=f"{self.noun}.invalid"
            ) from error
