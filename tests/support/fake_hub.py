"""A Hugging Face hub on this machine: creates repositories, takes uploads, and serves what was uploaded."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """What was asked of the hub. files: content by repository and path. private: by repository. status: if not 200,
    the answer to every creation of a repository."""

    url: str = ""
    token: str = "hf_token_of_the_test"
    status: int = 200
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    cards: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    _objects: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that runs until the end of the block."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Prints nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {self.hub.token}":
            return self._reply(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path == "/api/validate-yaml":
            self.hub.cards.append(json.loads(body)["content"])
            return self._reply(200, {"errors": [], "warnings": []})
        if self.path.endswith("/preupload/main"):
            return self._reply(200, {"files": [self._upload_mode(file["path"]) for file in json.loads(body)["files"]]})
        if self.path.endswith("/info/lfs/objects/batch"):
            return self._reply(200, {"objects": [self._upload_action(entry) for entry in json.loads(body)["objects"]]})
        if self.path.endswith("/commit/main"):
            return self._commit([json.loads(line) for line in body.splitlines()])
        return self._reply(404, {"error": f"no {self.path}"})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub._objects[oid] = content
        self._reply(200, {})

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def _create(self, request: dict[str, Any]) -> None:
        if self.hub.status != 200:
            return self._reply(self.hub.status, {"error": "You do not have the rights to create a model here"})
        repository = f"{request['organization']}/{request['name']}"
        if repository in self.hub.private:
            return self._reply(
                409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{repository}"}
            )
        self.hub.private[repository] = request.get("private", request.get("visibility") == "private")
        return self._reply(200, {"url": f"{self.hub.url}/{repository}"})

    def _upload_mode(self, path: str) -> dict[str, Any]:
        mode = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False}

    def _upload_action(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "actions": {"upload": {"href": f"{self.hub.url}/objects/{entry['oid']}"}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        repository = "/".join(self.path.split("/")[3:5])
        files = self.hub.files.setdefault(repository, {})
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub._objects[value["oid"]]
        self._reply(200, {"commitUrl": f"{self.hub.url}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})

    def _serve(self) -> None:
        if self.path.startswith("/api/"):  # asks whether a repository exists that could not be created
            return self._reply(404, {"error": "Repository not found"})
        owner, name, _, _, path = self.path.strip("/").split("/", 4)
        content = self.hub.files.get(f"{owner}/{name}", {}).get(path)
        if content is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        return self._send(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def _reply(self, status: int, answer: dict[str, Any]) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
