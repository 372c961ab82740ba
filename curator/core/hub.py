"""The hub of Hugging Face: what its cache holds, and fetching what it does not.

A leaf module: `huggingface_hub` comes with the extra `models`, and `curator.core.models` reaches
this by name, so that a store is read and decided about without it.
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
    """The snapshot of `repository` in the hub cache; its name is the commit. None: not cached.

    Raises:
        UsageError: this cannot be the name of a repository.
    """
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise UsageError(str(error), reason="model.name") from error


def fetch(repository: str, revision: str | None, files: tuple[str, ...], by_hand: str) -> Path:
    """Download the files that match these patterns; gives the folder of the snapshot.

    `by_hand` is the hint for who cannot reach the hub.

    Raises:
        NotFoundError: no such repository or revision, or none for this user.
        EngineError: the hub cannot be reached or says no.
    """
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        # The hub answers 401 for what is not there as for what is private or gated.
        wanted = repository if revision is None else f"{repository} at {revision}"
        gated = isinstance(error, GatedRepoError)
        raise NotFoundError(
            f"the hub has no model {wanted} for you",
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
    """Why nothing can be fetched from the hub now, or None."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE keeps it from being fetched"
    hub = huggingface_hub.constants.ENDPOINT
    try:
        httpx.head(hub, timeout=_HUB_TIMEOUT_SEC)
    except httpx.HTTPError as error:
        return f"the hub at {hub} does not answer ({type(error).__name__})"
    return None
