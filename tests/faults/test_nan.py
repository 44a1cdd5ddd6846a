"""A loss, or weights, that are no numbers end training; the batch is kept and no checkpoint is spoiled."""

import json
import re

import pytest
import small
import torch

from vitrine.cli import train
from vitrine.cli.command_line import run_cli
from vitrine.modules import classifier
from vitrine.modules.classifier import Classifier
from vitrine.modules.finite import FiniteLossCheck, NonFiniteLoss, NonFiniteWeights

pytestmark = pytest.mark.slow


def ends(monkeypatch, capsys, words):
    """Exit status and what is said on stderr, as of the program itself."""
    monkeypatch.setattr("sys.argv", ["train.py", *words])
    with pytest.raises(SystemExit) as ended:
        run_cli(train.main)
    return ended.value.code, capsys.readouterr().err


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "a"


def poisoned(monkeypatch, at, how):
    """`how(module, batch)` before the step after `at` optimizer steps; gives the indices of its batch."""
    real, met = Classifier.training_step, []

    def step(self, batch, batch_idx):
        if self.global_step == at:
            met[:] = batch[2].tolist()
            batch = how(self, batch) or batch
        return real(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", step)
    return met


def test_a_nan_loss_ends_in_one_message_and_the_batch_is_kept(folder, monkeypatch, capsys):
    met = poisoned(monkeypatch, 7, lambda module, batch: batch._replace(images=batch.images * float("nan")))
    status, said = ends(monkeypatch, capsys, small.words(folder))
    assert status == 1
    last = [line for line in said.splitlines() if line.startswith("stopped: ")]
    assert len(last) == 1 and "Traceback" not in said
    assert re.search(r"the loss is nan at step 7 on the batch of images \d+", last[0])
    assert f"the batch is in {folder / 'nan_batch.json'}" in last[0] and "step=00000006.ckpt" in last[0]
    kept = json.loads((folder / "nan_batch.json").read_text())
    assert kept == {"step": 7, "loss": "nan", "indices": met} and len(met) == 16
    assert sorted(f.name for f in folder.glob("checkpoints/step=*")) == [
        "step=00000003.ckpt",
        "step=00000006.ckpt",
    ]
    small.nothing_half_made(folder)
    for step in (3, 6):
        assert all(t.isfinite().all() for t in small.weights(folder, step).values())


def test_the_run_goes_on_once_the_cause_is_gone(folder, monkeypatch, capsys, tmp_path):
    with monkeypatch.context() as patch:
        poisoned(patch, 7, lambda module, batch: batch._replace(images=batch.images * float("nan")))
        assert ends(patch, capsys, small.words(folder))[0] == 1
    train.main(small.words(folder))
    train.main(small.words(tmp_path / "whole"))
    (folder / "nan_batch.json").unlink()
    small.as_unbroken(folder, tmp_path / "whole")


def test_weights_that_are_no_numbers_are_never_written(folder, monkeypatch, capsys):
    def gradient(module, batch):  # the loss is a number, what it does to the weights is not
        def spoil(parameter):
            parameter.grad.fill_(float("nan"))

        next(module.network.parameters()).register_post_accumulate_grad_hook(spoil)

    met = poisoned(monkeypatch, 5, gradient)  # the step before a checkpoint
    status, said = ends(monkeypatch, capsys, small.words(folder))
    assert status == 1 and "is no longer finite at step 6" in said and "Traceback" not in said
    assert json.loads((folder / "nan_batch.json").read_text()) == {"step": 6, "loss": None, "indices": met}
    assert [f.name for f in folder.glob("checkpoints/step=*")] == ["step=00000003.ckpt"]
    assert (folder / "checkpoints" / "last.ckpt").resolve().name == "step=00000003.ckpt"


def test_a_loss_seen_late_spoils_no_checkpoint_either(folder, monkeypatch, capsys):
    """As on a GPU, where nobody waits for it: it is checked every 16 steps, and before a checkpoint."""
    monkeypatch.setattr(classifier, "FiniteLossCheck", lambda: FiniteLossCheck(immediate=False))
    met = poisoned(monkeypatch, 4, lambda module, batch: batch._replace(images=batch.images * float("nan")))
    status, said = ends(monkeypatch, capsys, small.words(folder))
    assert status == 1 and "the loss is nan at step 4" in said
    assert json.loads((folder / "nan_batch.json").read_text())["indices"] == met
    assert [f.name for f in folder.glob("checkpoints/step=*")] == ["step=00000003.ckpt"]


def test_an_error_says_which_and_how_many():
    assert "the loss is inf at step 3 on the batch of images 0, 1, 2, 3, 4, 5, 6, 7, ..." in str(
        NonFiniteLoss(3, float("inf"), list(range(20)))
    )
    assert str(NonFiniteWeights(3, ["a.weight", "b"], [1])).startswith(
        "a.weight and 1 more is no longer finite"
    )


def _rank(rank, port, at, results):
    """One of two processes; the loss of the second is no number."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    check = FiniteLossCheck()
    try:
        for step in range(16):
            bad = rank == 1 and step >= at
            check.add(step, torch.tensor(float("nan") if bad else 1.0), torch.tensor([10 * rank + step]))
        results.put((rank, None))
    except NonFiniteLoss as error:
        results.put((rank, (error.step, error.indices)))
    dist.destroy_process_group()


@pytest.mark.parametrize(("at", "expected"), [(5, (5, [15])), (99, None)])
def test_all_ranks_stop_at_the_step_at_which_one_of_them_has_no_number(at, expected):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_rank, args=(rank, port, at, results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    assert found == {0: expected, 1: expected}
