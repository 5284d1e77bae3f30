"""Stand-ins for the Hugging Face hub: a filled cache, a server with files, and servers that do not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import safetensors.torch
import timm
from huggingface_hub import constants
from torch import Tensor

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def use_hub(monkeypatch: pytest.MonkeyPatch, cache: Path, endpoint: str) -> None:
    """What HF_HUB_CACHE and HF_ENDPOINT do, for this process, which has read them already."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def fill_cache(cache: Path, name: str, tensors: Mapping[str, Tensor]) -> Path:
    """Puts `tensors` into a cache as timm's weights `name`, where huggingface_hub leaves it; returns the file."""
    repository = cache / f"models--{timm.get_pretrained_cfg(name).hf_hub_id.replace('/', '--')}"
    file = repository / "snapshots" / COMMIT / "model.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(dict(tensors), file)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return file


def published_weights(name: str) -> dict[str, Tensor]:
    """Random weights in the form of timm's weights `name`."""
    return timm.create_model(name).state_dict()


@contextmanager
def hub_with(files: Mapping[str, bytes], status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """A hub with `files` by path. Yields its address and the requests that it gets, such as "HEAD /a/b"."""
    requests = list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            requests.append(f"{self.command} {self.path}")
            content = files.get(self.path)
            self.send_response(status if content is not None or status != 200 else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("ETag", '"0123456789"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(files.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def refusing_address() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"
