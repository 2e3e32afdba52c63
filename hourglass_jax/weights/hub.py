"""Weights in repositories of the Hugging Face Hub, by the package huggingface_hub.

    hourglass weights push runs/lspet owner/name
    hourglass weights pull owner/name
    Predictor("hf://owner/name"), Predictor("hf://owner/name@revision")

A repository holds model.safetensors (see `weights`), config.json (the same metadata, for readers and for the
Hub's count of downloads) and README.md, the model card. Downloads are kept in the Hub's own cache (HF_HOME),
and are used from there when the Hub cannot be reached. HF_ENDPOINT names another server.
"""

import contextlib
import hashlib
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from hourglass_jax import extras, files, weights
from hourglass_jax.network import Metadata

SCHEME = "hf://"
FILE = "model.safetensors"
TIMEOUT = 20.0  # s for a repository's description
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@([^@\s]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Of the connection; the package's HTTP client changed with its version.
_CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
_LOG_IN = "log in by `hf auth login`, or set HF_TOKEN"


class Repository(NamedTuple):
    """A repository, and one of its revisions: a branch, a tag or a commit; "" for the main branch."""

    name: str
    revision: str = ""

    @classmethod
    def parse(cls, text: str) -> "Repository":
        """ "owner/name", "owner/name@revision", each with or without "hf://".

        Raises:
          ValueError: it is something else.
        """
        if not (found := _NAME.fullmatch(text.removeprefix(SCHEME))):
            raise ValueError(
                f"{text}: expected owner/name or owner/name@revision, a repository of the Hugging Face Hub, "
                "in letters, digits, '.', '_' and '-'."
            )
        return cls(found[1], found[2] or "")

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}" + (f"@{self.revision}" if self.revision else "")


def is_name(path: str | os.PathLike) -> bool:
    """Whether weights are named by a repository: "hf://owner/name"."""
    return isinstance(path, str) and path.startswith(SCHEME)


def fetch(repository: Repository) -> pathlib.Path:
    """The file of a repository's weights in the Hub's cache, as `weights.read` reads it.

    The file is downloaded if it is not in the cache or has changed. If the server cannot be reached, the copy
    of an earlier download is used, with a note.

    Raises:
      OSError: there is no such repository, revision or file, no permission, no connection and no copy, or
        the download is broken.
      ImportError: huggingface_hub is not installed.
    """
    api = _api(f"{repository}: downloading it")
    where: dict[str, Any] = {"repo_id": repository.name, "revision": repository.revision or None}
    if _COMMIT.fullmatch(repository.revision) and (copy := _copy(api, where)):
        return copy  # a commit does not change
    with _reported(repository):
        try:
            # Ask before the download, which would try for half a minute without giving a reason.
            found = api.model_info(**where, timeout=TIMEOUT)
        except Exception as error:
            if not _is_unreachable(error):
                raise
            if not (copy := _copy(api, where)):
                raise OSError(f"{_reason(error)}, and there is no earlier download") from error
            print(f"Note: {repository}: {_reason(error)}; using an earlier download.", file=sys.stderr)
            return copy
    if FILE not in {one.rfilename for one in found.siblings or ()}:
        raise FileNotFoundError(f"{repository}: holds no {FILE}, which `hourglass weights push` writes.")
    with _reported(repository):
        path = pathlib.Path(api.hf_hub_download(**where, filename=FILE))
    _check(repository, path)
    return path


def check_can_push(repository: Repository) -> None:
    """Checks, before the work, that uploading to a repository is possible.

    Raises:
      ValueError: a revision is named; OSError: there is no token; ImportError: huggingface_hub is missing.
    """
    if repository.revision:
        raise ValueError(f"{repository}: weights go to the main branch; leave @{repository.revision} out.")
    _api(f"{repository}: uploading to it")
    import huggingface_hub

    if not huggingface_hub.get_token():
        raise OSError(f"{repository}: uploading needs a token; {_LOG_IN}.")


def push(
    repository: Repository,
    variables: dict,
    metadata: Metadata,
    card: str,
    *,
    private: bool = False,
    message: str = "",
) -> str:
    """Writes weights, their metadata and a model card to a repository, in one commit.

    The repository is created if it does not exist. Files of the same names are replaced, other files stay;
    the repository's history keeps all versions.

    Args:
      repository: its main branch.
      variables: {"params", "batch_stats"}.
      metadata: of the network.
      card: README.md, see `model_card.text`.
      private: make a newly created repository private.
      message: of the commit.

    Returns:
      the commit's address.

    Raises:
      ValueError: a value is not finite or too large for float16.
      OSError: no token, no permission or no connection.
      ImportError: huggingface_hub or safetensors is not installed.
    """
    check_can_push(repository)
    api = _api(f"{repository}: uploading to it")
    with tempfile.TemporaryDirectory(prefix="hourglass_jax-") as folder:
        made = pathlib.Path(folder)
        weights.write(made / FILE, variables, metadata)
        files.write_json(made / "config.json", metadata.to_dict())
        files.write(made / "README.md", card.encode())
        with _reported(repository):
            api.create_repo(repository.name, private=private or None, exist_ok=True)
            done = api.upload_folder(
                repo_id=repository.name,
                folder_path=made,
                commit_message=message or f"Weights of step {metadata.step}",
            )
    return str(done)


def _api(purpose: str):
    with extras.needed("huggingface_hub", purpose):
        import huggingface_hub
    # Pass HF_ENDPOINT here: the package reads the variable only once, when it is imported.
    return huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="hourglass_jax")


def _copy(api, where: dict) -> pathlib.Path | None:
    """The file of an earlier download; None if there is none."""
    from huggingface_hub import errors

    try:
        return pathlib.Path(api.hf_hub_download(**where, filename=FILE, local_files_only=True))
    except errors.LocalEntryNotFoundError:
        return None


def _check(repository: Repository, path: pathlib.Path) -> None:
    """Removes a download whose SHA-256 is not the server's; the cache names large files by that SHA-256.

    Raises:
      OSError: the SHA-256 differs.
    """
    kept = path.resolve()
    with kept.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if _SHA256.fullmatch(kept.name) and kept.name != digest:
        path.unlink()
        kept.unlink(missing_ok=True)
        raise OSError(f"{repository}: the download of {FILE} was damaged, and is removed; try again.")


@contextlib.contextmanager
def _reported(repository: Repository) -> Iterator[None]:
    """Turns the many errors of the Hub's client into OSError of one line, which names the remedy."""
    try:
        yield
    except Exception as error:
        while type(error) is RuntimeError and error.__cause__:  # an upload wraps its errors
            error = error.__cause__
        raise OSError(f"{repository}: {_reason(error)}.") from error


def _status(error: BaseException) -> int:
    """The status of the server's response; 0 without a response."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _is_unreachable(error: BaseException) -> bool:
    kind = type(error).__module__.partition(".")[0]
    return isinstance(error, (ConnectionError, TimeoutError)) or kind in _CLIENTS or _status(error) >= 500


def _reason(error: BaseException) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, errors.GatedRepoError):
        return f"its owner grants access one by one; ask for it on its page, and {_LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "there is no such revision"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such repository, or it is private: {_LOG_IN}"
    said = " ".join(str(getattr(error, "server_message", None) or error).split())[:200].rstrip(".")
    if (status := _status(error)) == 401:
        return f"the server does not accept the token ({said}); {_LOG_IN}"
    if status == 403:
        return f"no permission ({said}); use a token that may write to it"
    if status:
        return f"the server responds with {status} ({said})"
    if _is_unreachable(error):
        address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        return f"{address} cannot be reached ({said or type(error).__name__})"
    return said or type(error).__name__
