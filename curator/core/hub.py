"""Hugging Face hub: look models up in its cache, and download what is not cached.

A leaf module: `huggingface_hub` comes with the extra `models`, and `curator.core.models` imports
this module late, so that reading and deciding need no hub package.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import huggingface_hub.constants
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from curator.core.errors import EngineError, NotFoundError, UsageError

_HUB_TIMEOUT_SEC = 10.0


def cached(repository: str, revision: str | None) -> Path | None:
    """Return the cached snapshot of `repository`, a folder named by the commit; None if absent.

    Raises:
        UsageError: `repository` cannot be a repository name.
    """
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise UsageError(str(error), reason="model.name") from error


def fetch(repository: str, revision: str | None, files: tuple[str, ...], by_hand: str) -> Path:
    """Download the files that match these patterns; return the folder of the snapshot.

    `by_hand` is the hint for users who cannot reach the hub.

    Raises:
        NotFoundError: no such repository or revision, or no access to it.
        EngineError: the hub cannot be reached or refuses.
    """
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        # The hub answers 401 for missing, private and gated repositories alike.
        wanted = repository if revision is None else f"{repository} at {revision}"
        gated = isinstance(error, GatedRepoError)
        raise NotFoundError(
            f"the hub has no model {wanted} that you can access",
            hint="accept its terms and log in with: hf auth login" if gated else None,
            reason="model.not_found",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise EngineError(
            f"cannot get model {repository!r} from the hub ({type(error).__name__})",
            hint=by_hand,
            reason="model.unreachable",
        ) from error


def why_unreachable() -> str | None:
    """Return why nothing can be downloaded now, or None if the hub answers."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids downloads"
    hub = huggingface_hub.constants.ENDPOINT
    try:
        httpx.head(hub, timeout=_HUB_TIMEOUT_SEC)
    except httpx.HTTPError as error:
        return f"the hub at {hub} does not answer ({type(error).__name__})"
    return None
