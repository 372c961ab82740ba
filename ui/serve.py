"""Start the dashboard in this process; Ctrl-C or SIGTERM ends it.

It listens on one address only, checks requests (XSRF token, origin, host name), shows no traceback
in the browser, watches no file and sends no usage statistics. A stray `.streamlit/config.toml`
cannot change that: the options set here override it.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from streamlit.web import bootstrap

from curator.core.errors import UsageError
from curator.core.registry import load
from curator.steps.workspace import StoreName
from ui.shared.environment import DATASET, STORE, STUDIES

_FOLDER = Path(__file__).resolve().parent
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ANY = ("0.0.0.0", "::")
_MAX_UPLOAD_MB = 1
_MAX_MESSAGE_MB = 64
# Together they import everything the first two pages need. Names rather than imports at the top:
# importing them takes more than a second, and the server should listen before that.
WARMED = (
    "ui.views.overview.health:show",
    "ui.views.overview.runs:show",
    "ui.views.inspect.sample:show",
)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What to show, and at which address. `port` 0 takes any free one.

    Raises:
        UsageError: `studies` is not a folder, or the port is not free.
    """

    dataset: str
    store: StoreName | None = None
    studies: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8501

    def __post_init__(self) -> None:
        if self.studies is not None and not self.studies.is_dir():
            raise UsageError(
                f"--studies {self.studies} is not a folder",
                hint="`curator study` makes one; leave the option out to see captions only",
                reason="option.value",
            )
        object.__setattr__(self, "port", _free_port(self.host, self.port))

    @property
    def url(self) -> str:
        """Return the address for a browser on this machine."""
        host = "127.0.0.1" if self.host in _ANY else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in _LOOPBACK


def _free_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {host}:{port} ({error})",
            hint="choose another --port, or 0 for any free one",
            reason="ui.port",
        ) from error


def options(serving: Serving) -> dict[str, Any]:
    """Return the options that Streamlit is started with."""
    return {
        "server.address": serving.host,
        "server.port": serving.port,
        "server.headless": True,
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.allowedHosts": [*_LOOPBACK, serving.host] if serving.is_private else [],
        "server.enableStaticServing": False,
        "server.enableAgentApi": False,
        "server.fileWatcherType": "none",
        "server.maxUploadSize": _MAX_UPLOAD_MB,
        "server.maxMessageSize": _MAX_MESSAGE_MB,
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.showErrorLinks": False,
        "client.toolbarMode": "minimal",
        "client.allowedOrigins": [],
        "runner.magicEnabled": False,
        "logger.hideWelcomeMessage": True,
        "logger.level": "error",
        "theme.base": str(_FOLDER / "theme" / "theme.toml"),
    }


def _warm() -> None:
    for target in WARMED:
        load(target)


def serve(serving: Serving) -> None:
    """Serve until SIGINT or SIGTERM."""
    os.environ[DATASET] = serving.dataset
    for name, folder in ((STORE, serving.store), (STUDIES, serving.studies)):
        os.environ.pop(name, None)
        if folder is not None:
            os.environ[name] = str(folder)
    settings = options(serving)
    bootstrap.load_config_options(settings)
    # Imports for more than a second, while the browser still loads its scripts.
    Thread(target=_warm, name="warm", daemon=True).start()
    bootstrap.run(str(_FOLDER / "app.py"), False, [], settings)
