"""Start the dashboard in this process; it ends with Ctrl-C or SIGTERM.

It listens on one address only, checks who may talk to it (XSRF token, origin, host name), shows no
traceback in the browser, watches no file and tells nobody that it was started. The options of a
`.streamlit/config.toml` lying about do not change any of that: what is set here wins.
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
from ui.shared.environment import DATASET, STORE, STUDIES

_FOLDER = Path(__file__).resolve().parent
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ANY = ("0.0.0.0", "::")
_MAX_UPLOAD_MB = 1
_MAX_MESSAGE_MB = 64
# Between them they import all that the first two pages need.
WARMED = (
    "ui.pages.overview.health:show",
    "ui.pages.overview.runs:show",
    "ui.pages.inspect.sample:show",
)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What is shown, and where. `port` 0 takes any free one.

    Raises:
        UsageError: `studies` is no folder, or the port cannot be had.
    """

    dataset: str
    store: Path | None = None
    studies: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8501

    def __post_init__(self) -> None:
        if self.studies is not None and not self.studies.is_dir():
            raise UsageError(
                f"--studies {self.studies} is no folder",
                hint="`curator study` makes one; leave it away to look at captions only",
                reason="option.value",
            )
        object.__setattr__(self, "port", _free_port(self.host, self.port))

    @property
    def url(self) -> str:
        """The address for a browser on this machine."""
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
            hint="another --port, or 0 for any free one",
            reason="ui.port",
        ) from error


def options(serving: Serving) -> dict[str, Any]:
    """What Streamlit is started with."""
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
    """Serve until a signal comes."""
    os.environ[DATASET] = serving.dataset
    for name, folder in ((STORE, serving.store), (STUDIES, serving.studies)):
        os.environ.pop(name, None)
        if folder is not None:
            os.environ[name] = str(folder)
    settings = options(serving)
    bootstrap.load_config_options(settings)
    # More than a second of imports, done while the browser still fetches its scripts.
    Thread(target=_warm, name="warm", daemon=True).start()
    bootstrap.run(str(_FOLDER / "app.py"), False, [], settings)
