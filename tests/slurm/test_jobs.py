"""Jobs of a real SLURM, interrupted in its ways, end like a run to which nothing happens."""

import json
import re

import pytest
from trial import check_same

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


def state(run):
    return json.loads((run / "run.json").read_text())["state"]


def check_output(said, *lines):
    """A job said each line once, and had no traceback."""
    assert "Traceback" not in said, said
    for line in lines:
        assert len(re.findall(line, said)) == 1, f"{line}:\n{said}"


def check_completed(trial, job, restarts):
    ended = trial.cluster.ended(job)
    found = ended["JobState"], ended["ExitCode"], ended["Restarts"]
    assert found == ("COMPLETED", "0:0", str(restarts)), trial.output(job)


def test_a_job_trains_as_without_slurm(trial, cluster, whole):
    job = trial.train()
    check_completed(trial, job, 0)
    check_output(trial.output(job), "12 steps in")
    check_same(trial.run(), whole)


def test_two_nodes_train_as_two_processes_without_slurm_and_are_requeued(trial, cluster, whole_of_two):
    trial.hold(2)
    job = trial.train(options="--nodes=2", PACE="0.3")
    trial.reached(2, ranks=2)
    cluster.run("scontrol", "requeue", job)
    cluster.until_queued(job)
    trial.release(2)
    check_completed(trial, job, 1)
    check_output(trial.output(job), "stopping after this step", f"job {job} is requeued", "6 steps in")
    check_same(trial.run(), whole_of_two)


def test_two_tasks_of_a_node_and_an_array_train_as_without_slurm(trial, cluster, whole_of_two):
    array = trial.train(options="--array=0-1", name="each")
    pair = trial.train(options="--ntasks-per-node=2")
    check_completed(trial, pair, 0)
    check_same(trial.run(), whole_of_two)
    for task in range(2):
        check_completed(trial, f"{array}_{task}", 0)
        assert state(trial.run(f"each-{task}")) == "finished"
        assert f"  seed: {task}\n" in (trial.run(f"each-{task}") / "config.yaml").read_text()


def test_each_task_of_an_array_is_requeued_by_itself(trial, cluster, whole):
    trial.hold()
    array = trial.train(options="--array=0-1", name="each")
    trial.reached(ranks=2)
    cluster.run("scontrol", "requeue", f"{array}_0")
    cluster.until_queued(f"{array}_0")
    trial.release()
    check_completed(trial, f"{array}_0", 1)
    check_completed(trial, f"{array}_1", 0)
    check_same(trial.run("each-0"), whole)
    assert state(trial.run("each-1")) == "finished"


def test_a_requeued_job_goes_on(trial, cluster, whole):
    trial.hold()
    job = trial.train()
    trial.reached()
    cluster.run("scontrol", "requeue", job)
    cluster.until_queued(job)
    assert state(trial.run()) == "preempted"
    trial.release()
    check_completed(trial, job, 1)
    check_output(trial.output(job), "stopping after this step", f"job {job} is requeued", "12 steps in")
    check_same(trial.run(), whole)


@pytest.mark.parametrize("signal", ["USR1@60", "none"])
def test_a_job_whose_time_is_up_is_requeued_and_goes_on(trial, cluster, whole, signal):
    trial.hold()
    job = trial.train(options=f"--signal={signal}" if signal != "none" else "--signal=CONT@0")
    trial.reached()
    cluster.limit_time(job)
    cluster.until_queued(job)
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=1:00:00")
    trial.release()
    check_completed(trial, job, 1)
    name = "SIGTERM" if signal == "none" else "SIGUSR1"
    check_output(
        trial.output(job), f"{name}: stopping after this step", f"job {job} is requeued", "12 steps in"
    )
    check_same(trial.run(), whole)


@pytest.mark.parametrize("partition", ["requeue", "requeue-grace"])
def test_a_preempted_job_that_is_requeued_goes_on(trial, cluster, whole, partition):
    trial.hold()
    job = trial.train(options=f"--partition={partition}")
    trial.reached()
    cluster.preempt(trial.folder)
    cluster.until_queued(job)
    trial.release()
    check_completed(trial, job, 1)
    lines = "SIGTERM: stopping after this step", f"job {job} is requeued", "12 steps in"
    check_output(trial.output(job), *lines)
    check_same(trial.run(), whole)


@pytest.mark.parametrize("partition", ["cancel", "cancel-grace"])
def test_a_preempted_job_that_slurm_would_cancel_goes_on(trial, cluster, whole, partition):
    trial.hold()
    job = trial.train(options=f"--partition={partition}")
    trial.reached()
    cluster.preempt(trial.folder)
    cluster.until_queued(job)  # by its program: SLURM would not
    trial.release()
    check_completed(trial, job, 1)
    check_output(trial.output(job), "SIGTERM: stopping", f"job {job} is requeued", "12 steps in")
    check_same(trial.run(), whole)


def test_a_cancelled_job_stays_cancelled_and_goes_on_with_the_same_command(trial, cluster, whole):
    trial.hold()
    job = trial.train()
    trial.reached()
    cluster.run("scancel", job)
    ended = cluster.ended(job)
    assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", "0")
    said = trial.output(job)
    check_output(said, "SIGTERM: stopping after this step", f"job {job} was cancelled and is not requeued")
    assert "to go on: python train.py run.name=run run.resume=true" in said
    assert state(trial.run()) == "preempted"
    trial.release()
    check_completed(trial, trial.train(), 0)
    check_same(trial.run(), whole)


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_job_whose_node_is_killed_goes_on(trial, cluster, request, nodes):
    trial.hold()
    job = trial.train(options=f"--nodes={nodes}", PACE="0.3")
    trial.reached(ranks=nodes)
    node = "127.0.0.2" if nodes == 2 else cluster.job(job)["BatchHost"]
    cluster.kill_node(node)
    trial.release()
    cluster.until_queued(job)
    cluster.start_node(node)
    check_completed(trial, job, 1)
    check_same(trial.run(), request.getfixturevalue("whole" if nodes == 1 else "whole_of_two"))


def test_followers_look_while_training_only_saves(trial, cluster, whole):
    trial.hold(7)
    training = trial.train("analysis.mode=follow")
    follower = trial.follow("runs/run", options=f"--dependency=after:{training}")
    trial.reached(7)
    cluster.until(lambda: (trial.run() / "analysis" / "step=00000006" / "complete.json").exists(), "pictures")
    cluster.run("scontrol", "requeue", training)
    cluster.until_queued(training)
    trial.release(7)
    check_completed(trial, training, 1)
    check_completed(trial, follower, 0)
    check_output(trial.output(follower), "the page: ")
    check_same(trial.run(), whole)
