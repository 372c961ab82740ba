"""What is installed: this tool's version, and which extra brings the packages that are missing.

`pip install caption-curator` brings the core: index, decide, compare, query, export, and captions
from a server. What runs models, trains or serves the dashboard is in extras. Modules import what
they need as if it were there. Where an import fails, `missing_extra` turns the failure into one
line with the command that installs the package (`curator.cli.output` calls it); `require` says the
same before work starts, where an import would only fail in a worker process an hour later.
"""

from __future__ import annotations

from importlib.metadata import version as package_version
from importlib.util import find_spec

from curator.core.errors import MissingExtraError

# Extra -> the modules that it adds. The same packages stand in pyproject.toml; each extra there
# also brings what is named in INCLUDED.
EXTRAS: dict[str, tuple[str, ...]] = {
    "models": (
        "torch", "torchvision", "transformers", "open_clip", "timm", "huggingface_hub",
        "safetensors", "tokenizers", "num2words",
    ),
    "train": ("h5py", "pycocotools", "tensorboardX", "torchmetrics", "scipy", "statsmodels"),
    "ui": ("streamlit", "altair", "scipy", "statsmodels"),
}  # fmt: skip
INCLUDED = {"train": ("models",), "all": ("models", "train", "ui")}

# What these commands miss first may belong to a smaller extra that would not be enough.
_OF_COMMAND = {
    "pretrain": "train",
    "finetune": "train",
    "study": "train",
    "report": "train",
    "demo": "train",
    "ui": "ui",
}


def tool_version() -> str:
    """The installed version of this tool."""
    return package_version("caption-curator")


def missing_extra(error: ImportError, command: str = "") -> MissingExtraError | None:
    """The error to show for a failed import of an extra's package; None for any other import.

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

    `asker` is what needs them, e.g. `--captioner local`.

    Raises:
        MissingExtraError: one is missing.
    """
    module = first_missing(extra)
    if module is not None:
        raise _missing(asker, module, extra)


def first_missing(extra: str) -> str | None:
    """A package of this extra that is not installed, or None."""
    modules = [name for part in (*INCLUDED.get(extra, ()), extra) for name in EXTRAS.get(part, ())]
    return next((name for name in modules if find_spec(name) is None), None)


def install_command(extra: str) -> str:
    """What to type to get an extra."""
    return f"pip install 'caption-curator[{extra}]'"


def _missing(asker: str, module: str, extra: str) -> MissingExtraError:
    return MissingExtraError(
        f"{asker} needs {module}, which is not installed",
        hint=f"install it with: {install_command(extra)}",
    )
