"""A training and its followers on line, against a stand-in for W&B's server: each picture arrives once."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from wandb_training import Training

from vitrine.analyses import ANALYSES
from vitrine.cli import analyze, train

pytest.importorskip("wandb")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "data.train_size=96",
    "data.val_size=32",
    "data.image_size=32",
    "data.batch_size=16",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "checkpoint.every_steps=1",
    "analysis.probes=2",
    "analysis.units=2",
    "analysis.mode=follow",
    *[f"analysis.{name}.enabled=false" for name in ANALYSES if name not in ("weights", "cam")],
]
PICTURES = ("Class maps/cam", "Examples/examples/layer1", "Examples/examples/layer2", "Features/units")


def places(run):
    """How often each (step, key) is there, but for epochs, which stand in many rows."""
    return Counter(
        (row["trainer/global_step"], key)
        for row in run.rows
        for key in row
        if not key.startswith("_") and key not in ("trainer/global_step", "Training/epoch")
    )


def pictures(run):
    return {
        (row["trainer/global_step"], key): value
        for row in run.rows
        for key, value in row.items()
        if isinstance(value, dict) and "_type" in value
    }


def test_two_followers_divide_the_checkpoints_and_all_arrives_once(tmp_path, server):
    train.main([*SMALL, f"run.root={tmp_path}", "run.name=run"])
    (run,) = server.runs.values()
    leaders = places(run)
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ARTIFACT_DIR"):
        environment.pop(name, None)
    command = [sys.executable, str(ROOT / "analyze.py"), str(tmp_path / "run"), "follow=true"]
    followers = [
        subprocess.Popen(
            [*command, "follow.poll=0.1"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [follower.communicate(timeout=500)[0] for follower in followers]
    assert [follower.returncode for follower in followers] == [0, 0], said
    steps = [re.findall(r"^step (\d+): ", output, re.MULTILINE) for output in said]
    assert sorted(map(int, [*steps[0], *steps[1]])) == [1, 2, 3, 4, 5, 6]
    found = places(run)
    assert set(found.values()) == {1}
    assert leaders.items() <= found.items() and {step for step, _ in leaders} >= {0, 1, 2, 3, 4, 5}
    shown = pictures(run)
    assert {step for step, key in shown if key.startswith("Class maps/cam")} == {1, 2, 3, 4, 5, 6}
    names = [name for value in shown.values() for name in value.get("filenames", [value.get("path")])]
    assert set(names) <= run.files.keys()
    assert run.state == "finished" and "Traceback" not in "".join(said)


def follow(leader, report):
    time.sleep(1 - time.time() % 1)  # W&B calls the folder of a start by its second
    return Training(leader.run_dir, report, part="follower")


@pytest.fixture
def leader(tmp_path, report, server):
    training = Training(tmp_path / "run", report, part="leader")
    training.steps(0, 12)
    return training


def followed(run):
    """How often the pictures of a step are there, by step."""
    steps = Counter(step for step, key in places(run).elements() if key in PICTURES)
    return {step: count / len(PICTURES) for step, count in steps.items()}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_follower_lost_with_wandb_is_logged_at_the_next_start(leader, report, server, services, how):
    leader.sink.close()
    lost = follow(leader, report)
    lost.checkpoint(4)
    (service,) = services()
    os.kill(service, how)
    lost.checkpoint(8)
    lost.sink.close()
    again = follow(leader, report)
    again.checkpoint(12)
    again.sink.close()
    follow(leader, report).sink.close()  # finds nothing that is missing
    (run,) = server.runs.values()
    assert followed(run) == {4: 1, 8: 1, 12: 1}
    assert set(places(run).values()) == {1}


CLAIM = """
import sys
from pathlib import Path
from vitrine.reporting.wandb_claims import Claims
Claims(Path(sys.argv[1])).add(4)
print("claimed", flush=True)
sys.stdin.read()
"""


def test_what_a_living_follower_is_about_to_send_is_not_logged_by_another(leader, report, server):
    leader.sink.close()
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "env": {**os.environ, "PYTHONPATH": str(ROOT)},
    }
    with subprocess.Popen([sys.executable, "-c", CLAIM, str(leader.run_dir)], **pipes) as living:
        assert living.stdout.readline() == b"claimed\n"
        leader.checkpoint(4, log=False)
        follow(leader, report).sink.close()
        (run,) = server.runs.values()
        assert followed(run) == {}
        living.kill()
    follow(leader, report).sink.close()
    assert followed(run) == {4: 1} and set(places(run).values()) == {1}


def test_a_follower_with_nothing_to_analyze_logs_what_wandb_has_lost(
    tmp_path, server, offline_home, services
):
    train.main([*SMALL, f"run.root={tmp_path}", "run.name=run", "checkpoint.every_steps=3"])
    server.status = lambda request: 401 if request.endswith("/file_stream") else None
    analyze.main([str(tmp_path / "run"), "follow=true"])
    (run,) = server.runs.values()
    assert not pictures(run)
    server.status = lambda request: None
    analyze.main([str(tmp_path / "run"), "follow=true"])
    assert {step for step, _ in pictures(run)} == {3, 6} and set(places(run).values()) == {1}
