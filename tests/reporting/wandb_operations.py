"""What the stand-in for W&B's server knows, and its answers to GraphQL's operations."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import yaml

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


@dataclass
class Sweep:
    """A sweep.

    Attributes:
        asked: settings of the runs that its agent is to start, by id.
        heartbeats: which of its runs the agent said were running.
    """

    id: str
    config: dict[str, Any]
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)
    heartbeats: list[dict[str, bool]] = field(default_factory=list)


class Operations:
    """Methods are named as GraphQL's operations, and take their variables.

    Attributes:
        runs, sweeps: by id.
        artifacts: in the order in which they were made.
        views: workspaces and reports, as the variables that saved them.
    """

    url: str

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.views: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)

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

    def UpsertSweep(self, config: str, projectName: str | None, **_: Any) -> Any:
        sweep = Sweep(f"sweep-{next(self._numbers)}", yaml.safe_load(config))
        self.sweeps[sweep.id] = sweep
        project = {"id": "1", "name": projectName, "entity": {"id": USER, "name": USER}}
        return {"upsertSweep": {"sweep": {"name": sweep.id, "project": project}}}

    def SweepWithRuns(self, sweep: str, **_: Any) -> Any:
        known = self.sweeps.get(sweep)
        return {"project": {"sweep": known and {"config": yaml.dump(known.config), "runs": {"edges": []}}}}

    def CreateAgent(self, sweep: str, **_: Any) -> Any:
        return {"createAgent": {"agent": {"id": sweep}}}

    def Heartbeat(self, id: str, runState: str, **_: Any) -> Any:
        sweep = self.sweeps[id]
        sweep.heartbeats.append(json.loads(runState))
        commands = []
        if sweep.asked and not sweep.heartbeats[-1]:
            run_id, asked = sweep.asked.popitem()
            arguments = {name: {"value": value} for name, value in asked.items()}
            program = sweep.config["program"]
            commands = [{"type": "run", "run_id": run_id, "program": program, "args": arguments}]
        elif not sweep.heartbeats[-1]:
            commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": id}, "commands": json.dumps(commands)}}

    def GetProjects(self, **_: Any) -> Any:
        return {"models": {"edges": [], "pageInfo": {"endCursor": None, "hasNextPage": False}}}

    def CreateProject(self, input: dict[str, Any]) -> Any:
        return {"result": {"model": {"id": "1", "name": input["name"]}, "inserted": True}}

    def UpsertView2(self, **view: Any) -> Any:
        """A workspace, or a report."""
        view |= {"id": f"view-{next(self._numbers)}"}
        self.views.append(view)
        project = {"id": "1", "name": view["projectName"], "entityName": view["entityName"]}
        times = {"updatedAt": "2026-01-01T00:00:00Z"}
        return {"upsertView": {"view": {**view, "project": project, **times}, "inserted": True}}

    upsertView = UpsertView2

    def _history_keys(self, name: str) -> Any:
        last = max((row["_step"] for row in self.runs[name].rows), default=-1)
        return {"lastStep": last, "keys": {}, "sets": []}
