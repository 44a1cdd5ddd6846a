"""A stand-in for W&B's server on the loopback address, enough for wandb's own service to run online.

It keeps what arrives and answers from that: runs with their rows, config, summary and files, and artifacts
with their files. What it knows of the protocol was read off the requests of wandb 0.31, and not off a server:
it shows what wandb sends, and not that W&B takes it.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

KEY = "0123456789" * 4
USER = "me"
HISTORY = "wandb-history.jsonl"


@dataclass
class Run:
    """A run as the server has it.

    Attributes:
        fields: what its settings were, as the mutation that makes it names them.
        lines: of the files that are streamed, the history among them.
        files: what was uploaded, by name.
        state: "running", "finished" or "failed".
    """

    id: str
    project: str
    fields: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    state: str = "running"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history."""
        return [json.loads(line) for line in self.lines.get(HISTORY, [])]

    def count(self, file: str) -> int:
        return len(self.lines.get(file, []))


@dataclass
class Artifact:
    """An artifact; `files` are those that were uploaded, by name."""

    id: str
    name: str
    type: str
    aliases: list[str]
    client_id: str
    committed: bool = False
    files: dict[str, bytes] = field(default_factory=dict)


class WandbServer:
    """Serves from a thread of its own until it is closed. Its methods in capitals are GraphQL's operations.

    Attributes:
        runs: by id.
        artifacts: in the order in which they were made.
        requests: of all that came, "POST /path" or the name of a GraphQL operation.
        status: gives the HTTP status for a request instead of its answer, or None; it may sleep, or raise
            ConnectionError, which ends the connection without an answer.
        retry_after: the seconds that such an answer says to wait, or None.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.requests: list[str] = []
        self.status: Callable[[str], int | None] = lambda request: None
        self.retry_after: int | None = None
        self.lock = threading.RLock()
        self._numbers = itertools.count(1)
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

    def Viewer(self) -> Any:
        none = {"edges": []}
        user = {"id": USER, "entity": USER, "username": USER, "name": USER, "email": "", "admin": False}
        return {"viewer": {**user, "flags": "{}", "apiKeys": none, "teams": none}}

    def GetDefaultEntity(self) -> Any:
        return {"viewer": {"id": USER, "entity": USER}}

    def ServerFeaturesQuery(self) -> Any:
        return {"serverInfo": {"features": []}}

    def OrganizationCoreWeaveOrganizationID(self, **_: Any) -> Any:
        return {"entity": {"organization": None}}

    def UpsertBucket(self, name: str, project: str, **fields: Any) -> Any:
        new = name not in self.runs
        run = self.runs.setdefault(name, Run(name, project))
        run.fields |= {key: value for key, value in fields.items() if value is not None}
        if fields.get("config"):
            run.config = json.loads(fields["config"])
        bucket = {
            "id": name,
            "name": name,
            "displayName": run.fields.get("displayName", name),
            "description": "",
            "config": json.dumps(run.config),
            "sweepName": run.fields.get("sweep"),
            "project": {"id": project, "name": project, "entity": {"id": USER, "name": USER}},
            "historyLineCount": run.count(HISTORY),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def RunResumeStatus(self, name: str, project: str, **_: Any) -> Any:
        run, bucket = self.runs.get(name), None
        if run is not None:
            telemetry = run.config.get("_wandb", {}).get("value", {}).get("t", {})
            bucket = {
                "id": name,
                "name": name,
                "displayName": run.fields.get("displayName", name),
                "summaryMetrics": json.dumps(run.summary),
                "config": json.dumps(run.config),
                "tags": run.fields.get("tags", []),
                "notes": run.fields.get("notes"),
                "wandbConfig": json.dumps({"t": telemetry}),
                "logLineCount": run.count("output.log"),
                "historyLineCount": run.count(HISTORY),
                "eventsLineCount": run.count("wandb-events.jsonl"),
                "historyTail": json.dumps(run.lines.get(HISTORY, [])[-1:]),
                "eventsTail": json.dumps(run.lines.get("wandb-events.jsonl", [])[-1:]),
            }
        entity = {"id": USER, "name": USER}
        return {"model": {"id": project, "name": project, "entity": entity, "bucket": bucket}}

    def Run(self, name: str, **_: Any) -> Any:
        if name not in self.runs:
            return {"project": {"run": None}}
        run = self.runs[name]
        unknown = ("sweepName", "group", "jobType", "commit", "notes")
        return {
            "project": {
                "run": {
                    **dict.fromkeys(unknown),
                    "projectId": "1",
                    "id": name,
                    "name": name,
                    "displayName": run.fields.get("displayName", name),
                    "tags": [],
                    "state": run.state,
                    "config": json.dumps(run.config),
                    "readOnly": False,
                    "createdAt": "2026-01-01T00:00:00Z",
                    "heartbeatAt": "2026-01-01T00:00:00Z",
                    "description": "",
                    "systemMetrics": "{}",
                    "summaryMetrics": json.dumps(run.summary),
                    "historyLineCount": run.count(HISTORY),
                    "user": {"name": USER, "username": USER},
                    "historyKeys": self._history_keys(name),
                }
            }
        }

    def RunHistoryKeys(self, name: str, **_: Any) -> Any:
        return {"project": {"run": {"historyKeys": self._history_keys(name)}}}

    def RunParquetHistory(self, runName: str, liveKeys: list[str], **_: Any) -> Any:
        live = [{key: row[key] for key in liveKeys if key in row} for row in self.runs[runName].rows]
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": live}}}}

    def HistoryPage(self, run: str, minStep: int, maxStep: int, pageSize: int, **_: Any) -> Any:
        rows = [json.dumps(row) for row in self.runs[run].rows if minStep <= row["_step"] < maxStep]
        return {"project": {"run": {"history": rows[:pageSize]}}}

    def CreateRunFiles(self, run: str, files: list[str], **_: Any) -> Any:
        links = [{"name": name, "uploadUrl": f"{self.url}/put/run/{run}/{quote(name)}"} for name in files]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": links}}

    def ArtifactType(self, name: str, **_: Any) -> Any:
        types = [a.type for a in self.artifacts.values() if a.name == name.split(":")[0]]
        known = {"artifactType": {"name": types[-1]}} if types else None
        return {"project": {"artifact": known}}

    def CreateArtifact(self, input: dict[str, Any]) -> Any:
        new = f"artifact-{next(self._numbers)}"
        aliases = [alias["alias"] for alias in input["aliases"]]
        name, kind = input["artifactCollectionName"], input["artifactTypeName"]
        self.artifacts[new] = Artifact(new, name, kind, aliases, input["clientID"])
        made = {"id": new, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": made}}

    def CreateArtifactManifest(self, artifactID: str, **_: Any) -> Any:
        url = f"{self.url}/put/manifest/{artifactID}/"
        file = {"id": f"file-{next(self._numbers)}", "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": artifactID, "file": file}}}

    def CreateArtifactFiles(self, input: dict[str, Any]) -> Any:
        edges = []
        for file in input["artifactFiles"]:
            node = {
                "id": f"file-{next(self._numbers)}",
                "name": file["name"],
                "displayName": file["name"],
                "storagePath": file["name"],
                "uploadUrl": f"{self.url}/put/artifact/{file['artifactID']}/{quote(file['name'])}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def CommitArtifact(self, artifactID: str, **_: Any) -> Any:
        self.artifacts[artifactID].committed = True
        return {"commitArtifact": {"artifact": {"id": artifactID, "digest": ""}}}

    def _history_keys(self, name: str) -> Any:
        last = max((row["_step"] for row in self.runs[name].rows), default=-1)
        return {"lastStep": last, "keys": {}, "sets": []}


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
