"""A real SLURM of two nodes on one machine: its configuration, its daemons, its commands.

It is private: its files are in a folder of its own, it listens on free ports of the loopback address only,
and it needs neither systemd nor cgroups. Nodes are called by addresses of the loopback network, as a node's
name has to be one that the other processes of a job can connect to.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmstepd", "sbatch", "srun", "scontrol", "scancel")
NODES = ("127.0.0.1", "127.0.0.2")
GRACE = 60  # seconds, of the partitions with one
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL")

CONFIGURATION = """
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# cred_expire is also how long a requeued job waits before it starts again, 120 s by default
AuthInfo=socket={folder}/munge.socket,cred_expire=8
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=12
MessageTimeout=60
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=127.0.0.1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=64 Gres=gpu:8
NodeName=127.0.0.2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=64 Gres=gpu:8
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF Default=YES
PartitionName=requeue Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE
PartitionName=requeue-grace Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=cancel Nodes=ALL PriorityTier=1 PreemptMode=CANCEL
PartitionName=cancel-grace Nodes=ALL PriorityTier=1 PreemptMode=CANCEL GraceTime={grace}
"""


def missing_program() -> str | None:
    """The first of SLURM's and munge's programs that is not installed, or None."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    return next((name for name in PROGRAMS if shutil.which(name, path=places) is None), None)


class Cluster:
    """A context manager: SLURM runs within it, and nothing of it or of its jobs afterwards.

    Args:
        folder: for its files; its path must be short, as that of a socket is.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen] = {}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "PYTEST"))}
        self.environment = {**inherited, "PATH": path, "SLURM_CONF": str(self.configuration)}

    def __enter__(self) -> Cluster:
        # a process of its own, as this one may be killed
        command = [sys.executable, __file__, str(self.configuration)]
        self._reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        for process in (self._reaper, *self._daemons.values()):
            process.communicate(timeout=30)

    def sbatch(self, script: Path, *words: str, options: str = "", folder: Path, **environment: str) -> str:
        """Submit a batch script as from a shell in `folder`; the job's number."""
        command = ["sbatch", "--parsable", *shlex.split(options), str(script), *words]
        return self.run(*command, cwd=folder, env=self.environment | environment)

    def run(self, *command: str, **options: Any) -> str:
        """What one of SLURM's commands prints."""
        options = {"env": self.environment} | options
        ran = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, **options)
        assert ran.returncode == 0, f"{shlex.join(command)}: {ran.stdout}{ran.stderr}"
        return ran.stdout.strip()

    def job(self, job: str) -> dict[str, str]:
        """What SLURM says of a job: JobState, Restarts, ExitCode, Reason, ..."""
        shown = self.run("scontrol", "show", "job", "--oneliner", job).splitlines()[0]
        return dict(re.findall(r"(\S+?)=(\S*)", shown))

    def until(self, told: Callable[[], Any], what: str, seconds: float = 400) -> Any:
        """The first true value of `told()`."""
        deadline = time.monotonic() + seconds
        while not (value := told()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {seconds} s\n{self.run('squeue')}\n{self.log()}")
            time.sleep(0.2)
        return value

    def ended(self, job: str, seconds: float = 400) -> dict[str, str]:
        """What SLURM says of a job, once it has ended and is not queued again."""
        what = f"job {job} ends"
        return self.until(
            lambda: found if (found := self.job(job))["JobState"] in ENDED else None, what, seconds
        )

    def until_queued(self, job: str) -> None:
        """Wait until a job has been stopped and waits in the queue."""
        self.until(lambda: self.job(job)["JobState"] == "PENDING", f"job {job} is queued again")

    def limit_time(self, job: str) -> None:
        """Let the time of a running job be up within a minute or so; limits are of whole minutes."""
        days, _, clock = self.job(job)["RunTime"].rpartition("-")
        hours, minutes, _ = map(int, clock.split(":"))
        limit = (int(days or 0) * 24 + hours) * 60 + minutes + 1
        self.run("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")

    def preempt(self, folder: Path) -> None:
        """Run a job that gets both nodes whole, at the cost of those in the other partitions."""
        script = folder / "urgent.sbatch"
        script.write_text("#!/bin/sh\n")
        options = "--partition=urgent --nodes=2 --exclusive --output=/dev/null"
        self.ended(self.sbatch(script, options=options, folder=folder))

    def kill_node(self, name: str) -> None:
        """SIGKILL at once to all processes of a node: its daemon, those of the steps, the tasks."""
        tasks = list(processes(f"SLURM_CONF={self.configuration}", f"SLURMD_NODENAME={name}"))
        steps = {parent for pid in tasks if b"slurmstepd" in _command(parent := _parent(pid))}
        for process in [self._daemons[name].pid, *steps, *tasks]:
            _kill(process)
        self._daemons[name].wait()

    def start_node(self, name: str) -> None:
        self._daemon(name, "slurmd", "-D", "-N", name)

    def log(self) -> str:
        """The ends of what the daemons said."""
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{file.name}: ...{file.read_text(errors='replace')[-1500:]}" for file in files)

    def _start(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        (self.folder / "state").mkdir()
        for number in range(8):  # what the jobs take for graphics cards
            (self.folder / f"gpu{number}").touch()
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-7]\n")
        controller, first, second = _free_ports(3)
        self.configuration.write_text(
            CONFIGURATION.format(
                folder=self.folder,
                host=socket.gethostname().partition(".")[0],
                user="root",
                controller=controller,
                first=first,
                second=second,
                grace=GRACE,
            )
        )
        names = {"socket": "socket", "pid-file": "pid", "log-file": "munged.log", "seed-file": "seed"}
        places = [f"--{option}={self.folder}/munge.{name}" for option, name in names.items()]
        self._daemon("munged", "munged", "--foreground", "--force", f"--key-file={key}", *places)
        self.until(lambda: (self.folder / "munge.socket").exists(), "munged starts", 20)
        self._daemon("slurmctld", "slurmctld", "-D")
        for name in NODES:
            self.start_node(name)
        self.until(self._is_idle, "both nodes are idle", 60)

    def _is_idle(self) -> bool:
        shown = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%T", "--partition=urgent"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return shown.stdout.split() == ["idle"] * len(NODES)

    def _daemon(self, name: str, *command: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self._daemons[name] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, cwd=self.folder
            )


def processes(*variables: str) -> Iterator[int]:
    """The processes that have all these variables: a cluster's daemons, and all that they have started."""
    wanted = {variable.encode() for variable in variables}
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted <= set(file.read_bytes().split(b"\0")):
                yield int(file.parent.name)
        except OSError:
            continue  # ended meanwhile


def reap(configuration: str) -> None:
    """Once standard input is closed: kill all that runs under a configuration."""
    sys.stdin.read()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (left := list(processes(f"SLURM_CONF={configuration}"))):
        for process in left:
            _kill(process)
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _parent(process: int) -> int:
    return int((Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[1])


def _command(process: int) -> bytes:
    try:
        return (Path("/proc") / str(process) / "cmdline").read_bytes()
    except OSError:
        return b""


if __name__ == "__main__":
    reap(sys.argv[1])
