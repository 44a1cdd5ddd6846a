"""The metrics of a validation that two ranks share are those of one process."""

from types import SimpleNamespace

import launch
import pytest
import torch

from vitrine.modules import Classifier, OptimizerSettings, load_network, record_of
from vitrine.modules.objectives.standard import Standard

CLASSES = [f"class {number}" for number in range(12)]


class Logged(Classifier):
    """A classifier that keeps what it logs."""

    def log_dict(self, metrics, **_):
        self.logged |= {name: float(value) for name, value in metrics.items()}


def metrics(rank, world_size):
    torch.manual_seed(0)
    network = load_network("convnet", classes=CLASSES, widths=[4, 8])
    module = Logged(network, Standard(), OptimizerSettings(), record_of(network).classes).eval()
    module.logged, module.trainer = {}, SimpleNamespace(sanity_checking=False)
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.rand(90, 3, 8, 8, generator=generator), torch.arange(90) ** 2 % 12
    module.on_validation_epoch_start()
    for rows in torch.arange(rank, 90, world_size).split(16):
        module.validation_step((images[rows], labels[rows]), 0)
    module.on_validation_epoch_end()
    return module.logged


def of_rank():
    torch.distributed.init_process_group("gloo")
    return metrics(torch.distributed.get_rank(), 2)


@pytest.mark.slow
def test_two_ranks_log_what_one_does():
    alone = metrics(0, 1)
    assert {"val/macro_accuracy", "val/macro_f1", "val/top5_accuracy"} <= set(alone)
    for found in launch.run_ranks(of_rank, seconds=250):
        assert found == pytest.approx(alone, rel=1e-6)
