"""Means of training metrics of two ranks before and after a resume are those of a run in one go."""

import launch
import pytest
import torch

from vitrine.modules import Classifier, OptimizerSettings, load_network, record_of
from vitrine.modules.objectives.standard import Standard

WINDOWS, STEPS = 30, 4  # rows of metrics.csv, steps from one to the next


class Logged(Classifier):
    """A classifier whose training is only steps and rows."""

    def log_dict(self, metrics, **_):
        self.trainer.rows.append([float(value) for value in metrics.values()])


class Steps:
    """What a module asks of its Trainer in these tests."""

    log_every_n_steps, global_step, loggers = STEPS, 0, ()

    def __init__(self, rows):
        self.rows = rows
        self.world_size, self.global_rank = torch.distributed.get_world_size(), torch.distributed.get_rank()


def fresh(rows):
    torch.manual_seed(0)
    network = load_network("convnet", classes=["a", "b"], widths=[4, 8])
    module = Logged(network, Standard(), OptimizerSettings(), record_of(network).classes)
    module.trainer = Steps(rows)
    return module.eval()


def rows(resume_at):
    """What a rank logs, resumed after the steps at which `resume_at` is true of their place in a window."""
    rank, logged = torch.distributed.get_rank(), []
    module = fresh(logged)
    generator = torch.Generator().manual_seed(rank)
    for step in range(WINDOWS * STEPS):
        images = torch.rand(5, 3, 8, 8, generator=generator)
        module.training_step((images, torch.arange(5) % 2), 0)
        module.trainer.global_step = step + 1
        module.on_train_batch_end(None, None, 0)
        if step % STEPS in resume_at:
            saved = [{"state_dict": {}, "global_step": step + 1}]
            module.on_save_checkpoint(saved[0])
            torch.distributed.broadcast_object_list(saved)  # rank 0's is the one that is written
            module = fresh(logged)
            module.trainer.global_step = step + 1
            module.on_load_checkpoint(saved[0])
    return logged


def both():
    torch.distributed.init_process_group("gloo")
    return [rows(()), rows((1,)), rows((0, 2))]


@pytest.mark.slow
def test_means_over_steps_before_and_after_a_resume_are_bit_for_bit_those_of_one_run():
    for whole, once, twice in launch.run_ranks(both, seconds=250):
        assert len(whole) == WINDOWS
        assert once == whole
        assert twice == whole
