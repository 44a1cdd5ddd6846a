"""A stand-in for W&B's server on the loopback address, enough for wandb's own service to run online.

It keeps what arrives and answers from that: runs with their rows, config, summary and files, and artifacts
with their files. What it knows of the protocol was read off the requests of wandb 0.31, and not off a server:
it shows what wandb sends, and not that W&B takes it.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from wandb_operations import Artifact, Operations

KEY = "0123456789" * 4


class WandbServer(Operations):
    """Serves from a thread of its own until it is closed.

    Attributes:
        requests: of all that came, "POST /path" or the name of a GraphQL operation.
        status: gives the HTTP status for a request instead of its answer, or None; it may sleep, or raise
            ConnectionError, which ends the connection without an answer.
        retry_after: the seconds that such an answer says to wait, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []
        self.status: Callable[[str], int | None] = lambda request: None
        self.retry_after: int | None = None
        self.lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"state": self})
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def environment(self) -> dict[str, str]:
        """What points wandb to this server."""
        return {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": self.url}

    def of_type(self, kind: str) -> list[Artifact]:
        """The artifacts of a type that are whole."""
        return [
            artifact for artifact in self.artifacts.values() if artifact.type == kind and artifact.committed
        ]

    def stream(self, run_id: str, content: dict[str, Any], shared: bool) -> None:
        """Lines of a run's files, at their offsets or, in shared mode, after the others; or its end."""
        run = self.runs[run_id]
        for file, chunk in content.get("files", {}).items():
            if file == "wandb-summary.json":
                run.summary = json.loads(chunk["content"][-1])
                continue
            lines = run.lines.setdefault(file, [])
            start = len(lines) if shared else chunk["offset"]
            lines[start : start + len(chunk["content"])] = chunk["content"]
        if content.get("complete"):
            run.state = "failed" if content.get("exitcode") else "finished"

    def put(self, kind: str, owner: str, name: str, content: bytes) -> None:
        """A file of a run or of an artifact."""
        if kind != "manifest":
            (self.runs if kind == "run" else self.artifacts)[owner].files[name] = content


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: WandbServer

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(f"GET {self.path}", lambda body: {})

    def do_PUT(self) -> None:
        _, _, kind, owner, name = unquote(self.path).split("/", 4)
        self._answer(f"PUT {self.path}", lambda body: self.state.put(kind, owner, name, body))

    def do_POST(self) -> None:
        if self.path == "/graphql":
            self._answer(None, self._graphql)
        elif self.path.endswith("/file_stream"):
            shared = "X-Wandb-Use-Async-Filestream" in self.headers
            run_id = self.path.split("/")[-2]
            self._answer(
                f"POST {self.path}", lambda body: self.state.stream(run_id, json.loads(body), shared)
            )
        else:
            self._answer(f"POST {self.path}", lambda body: {})  # telemetry

    def _graphql(self, body: bytes) -> Any:
        request = json.loads(body)
        operation = getattr(self.state, self._operation(request), None)
        if operation is None:
            return {"errors": [{"message": f"{self._operation(request)} is not known here"}]}
        return {"data": operation(**(request.get("variables") or {}))}

    @staticmethod
    def _operation(request: dict[str, Any]) -> str:
        return request.get("operationName") or request["query"].split("(")[0].split("{")[0].split()[-1]

    def _answer(self, request: str | None, answer: Callable[[bytes], Any]) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = request or self._operation(json.loads(body))
        self.state.requests.append(request)
        status, content = self.state.status(request), b"{}"
        if status is None:
            with self.state.lock:
                content = json.dumps(answer(body) or {}).encode()
        self.send_response(status or 200)
        if status is not None and self.state.retry_after is not None:
            self.send_header("Retry-After", str(self.state.retry_after))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
