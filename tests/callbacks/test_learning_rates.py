"""The rates of the first and the last block are logged, and not one for each of them."""

import lightning
import pytest
import tiny
import torch
from torch import nn

from vitrine.callbacks.lightning_internals import LearningRates
from vitrine.modules import Classifier, OptimizerSettings
from vitrine.modules.objectives.standard import Standard
from vitrine.runs.metrics_csv import MetricsCSV, read_rows


@pytest.mark.parametrize("layer_decay, expected", [(1.0, [0.1, 0.1]), (0.5, [0.1 / 8, 0.1])])
def test_the_rates_of_the_first_and_the_last_block_are_logged(tmp_path, layer_decay, expected):
    convolutions = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)]
    network = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(192, 2))
    settings = OptimizerSettings("sgd", lr=0.1, layer_decay=layer_decay, schedule="constant")
    module = Classifier(network, Standard(), settings, ["dark", "bright"])
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_steps=2, log_every_n_steps=1, logger=MetricsCSV(tmp_path),
        callbacks=[LearningRates("step")], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=tiny.TinyData())
    rows = [row for row in read_rows(tmp_path) if any(key.startswith("lr-") and row[key] for key in row)]
    found = [[float(row[key]) for key in sorted(row) if key.startswith("lr-")] for row in rows]
    assert len(found) == 2
    torch.testing.assert_close(torch.tensor(found), torch.tensor([expected, expected]))
