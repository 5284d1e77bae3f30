"""timm's published weights: from the cache of huggingface_hub, else downloaded. Fails within seconds if offline."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from queue import Empty, SimpleQueue

import safetensors.torch
import timm
from huggingface_hub import constants, get_session, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from timm.models._hub import HF_WEIGHTS_NAME, _get_safe_alternatives, check_cached_file, hf_split
from torch import Tensor

from kdaug.errors import InputError, one_line
from kdaug.networks.torch_file import read_torch_file

_logger = logging.getLogger(__name__)
_ANSWER_SECONDS = 5.0
"""How long a server may take to answer the first request, unless HF_HUB_ETAG_TIMEOUT is set."""


def read_published_weights(name: str) -> dict[str, Tensor] | None:
    """The tensors of timm's weights `name`, as timm stores them; None if timm has to read them itself, or has none.

    A cached file is used without any request. Raises InputError if the file is neither cached nor can be downloaded.
    """
    published = timm.get_pretrained_cfg(name)
    if published is None:
        return None
    full_name = f"{published.architecture}.{published.tag}" if published.tag else name
    if published.hf_hub_id:
        return _read(_find_cached(published.hf_hub_id) or _download(published.hf_hub_id, full_name))
    url = published.url if isinstance(published.url, str) else (published.url or [""])[0]
    if url and not check_cached_file(url):  # timm downloads these few by torch.hub, which waits without limit
        _check_reachable(url, full_name)
    return None


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        return read_torch_file(path)
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError:
        raise InputError(f"the downloaded weights {path} are damaged", "delete this file") from None


def _candidates() -> list[str]:
    """The names that a weight file can have in timm's repositories on the hub, in timm's order."""
    return [*_get_safe_alternatives(HF_WEIGHTS_NAME), HF_WEIGHTS_NAME]


def _find_cached(hub_id: str) -> Path | None:
    repository, revision = hf_split(hub_id)
    for filename in _candidates():
        path = try_to_load_from_cache(repository, filename, revision=revision)
        if isinstance(path, str):
            return Path(path)
    return None


def _download(hub_id: str, name: str) -> Path:
    repository, revision = hf_split(hub_id)
    first, *others = _candidates()
    # huggingface_hub repeats its first request for half a minute and logs every attempt: ask once before.
    _check_reachable(hf_hub_url(repository, first, revision=revision), name)
    _logger.info(f"downloading timm's weights {name}")
    for filename in (first, *others):
        try:
            return Path(hf_hub_download(repository, filename, revision=revision))
        except EntryNotFoundError as error:
            if filename == others[-1] or isinstance(error, LocalEntryNotFoundError):
                raise _not_available(name, one_line(error), hf_hub_url(repository, first)) from None
        except Exception as error:  # of huggingface_hub or of the HTTP library that it uses
            raise _not_available(name, one_line(error), hf_hub_url(repository, first)) from None
    raise AssertionError("the last candidate returns or raises")


def _check_reachable(url: str, name: str) -> None:
    """Raises InputError unless the server of `url` answers one request in time."""
    if constants.HF_HUB_OFFLINE:
        raise _not_available(name, "HF_HUB_OFFLINE is set", url)
    seconds = _ANSWER_SECONDS
    if constants.HF_HUB_ETAG_TIMEOUT != constants.DEFAULT_ETAG_TIMEOUT:
        seconds = float(constants.HF_HUB_ETAG_TIMEOUT)
    problems = SimpleQueue[str]()

    def ask() -> None:
        try:
            status = get_session().head(url, timeout=seconds).status_code
            problems.put(f"the server answers with status {status}" if status >= 500 else "")
        except Exception as error:  # of requests, httpx or httpx2, whichever huggingface_hub uses
            problems.put(one_line(error))

    # In a thread, because the timeout of a request is for each of its parts: looking up the name is not limited, and
    # each address of the server is tried in turn.
    threading.Thread(target=ask, daemon=True).start()
    try:
        problem = problems.get(timeout=seconds + 0.5)
    except Empty:
        problem = f"no answer within {seconds:g} seconds"
    if problem:
        raise _not_available(name, problem, url)


def _not_available(name: str, reason: str, url: str) -> InputError:
    host = "/".join(url.split("/")[:3])
    return InputError(
        f"timm's weights {name} are not in the cache {constants.HF_HUB_CACHE} and cannot be downloaded from {host}: "
        f"{reason}",
        f"download {url} elsewhere and use file:PATH in student.weights or teacher.source, or set HF_HOME to a cache "
        "that has them",
    )
