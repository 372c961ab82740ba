"""Installed packages: this tool's version, and which extra installs a missing package.

`pip install caption-curator` installs the core: index, decide, compare, query, export, and captions
from a server. Running models, training and the dashboard need extras. Modules import what they need
unconditionally. When an import fails, `missing_extra` turns the failure into one line with the
install command (`curator.cli.output` calls it); `require` checks before work starts, where an
import would otherwise fail in a worker process an hour later.
"""

from __future__ import annotations

from importlib.metadata import version as package_version
from importlib.util import find_spec

from curator.core.errors import MissingExtraError

# Extra -> the modules that it adds, as in pyproject.toml. Each extra there also includes those in
# INCLUDED.
EXTRAS: dict[str, tuple[str, ...]] = {
    "models": (
        "torch", "torchvision", "transformers", "open_clip", "timm", "huggingface_hub",
        "safetensors", "tokenizers", "num2words", "httpx",
    ),
    "train": ("h5py", "pycocotools", "tensorboardX", "torchmetrics", "scipy"),
    "ui": ("streamlit", "altair", "scipy", "statsmodels"),
    "ray": ("ray",),
}  # fmt: skip
INCLUDED = {"train": ("models",), "all": ("models", "train", "ui")}

# The first package these commands miss may belong to a smaller extra that is not enough.
_OF_COMMAND = {
    "pretrain": "train",
    "finetune": "train",
    "study": "train",
    "report": "train",
    "demo": "train",
    "ui": "ui",
}


def tool_version() -> str:
    """Return the installed version of this tool."""
    return package_version("caption-curator")


def missing_extra(error: ImportError, command: str = "") -> MissingExtraError | None:
    """Return the error for a failed import of an extra's package; None for any other import.

    `command` is what the user typed after `curator`, or "".
    """
    module = (error.name or "").partition(".")[0]
    extra = next((name for name, modules in EXTRAS.items() if module in modules), None)
    if extra is None:
        return None
    asker = f"curator {command}".strip()
    return _missing(asker, module, _OF_COMMAND.get(command, extra))


def require(extra: str, asker: str) -> None:
    """Check that all packages of an extra are installed, without importing them.

    `asker` names what needs them, e.g. `--captioner local`.

    Raises:
        MissingExtraError: a package is missing.
    """
    module = first_missing(extra)
    if module is not None:
        raise _missing(asker, module, extra)


def first_missing(extra: str) -> str | None:
    """Return a package of this extra that is not installed, or None."""
    modules = [name for part in (*INCLUDED.get(extra, ()), extra) for name in EXTRAS.get(part, ())]
    return next((name for name in modules if find_spec(name) is None), None)


def install_command(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'caption-curator[{extra}]'"


def _missing(asker: str, module: str, extra: str) -> MissingExtraError:
    return MissingExtraError(
        f"{asker} needs {module}, which is not installed",
        hint=f"install it with: {install_command(extra)}",
    )
