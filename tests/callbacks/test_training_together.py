"""Two processes train together: the curves are of both."""

from pathlib import Path

import launch
import lightning
import pytest
import tiny
import torch

from vitrine.callbacks.resume import ExactResume
from vitrine.modules.classifier import Classifier
from vitrine.modules.objectives.free import Free
from vitrine.modules.objectives.standard import Standard
from vitrine.modules.optimizers import OptimizerSettings
from vitrine.runs.checkpoint_io import AtomicCheckpointIO
from vitrine.runs.metrics_csv import MetricsCSV, read_rows

pytestmark = pytest.mark.slow

STEPS = 6  # of 4 images on each of two ranks, logged at every third


def trained(run_dir: Path, cuts: list[int], objective=Standard) -> list[float]:
    """Train, starting anew after the steps of `cuts`; each step's loss on this rank."""
    seen, before = [], None
    for steps in [*cuts, STEPS]:
        lightning.seed_everything(0, verbose=False)
        module = Classifier(
            tiny.tiny_network(), objective(), OptimizerSettings(schedule="constant"), ["dark", "bright"]
        )
        real = module.training_step
        module.training_step = lambda *batch, real=real: (seen.append(loss := real(*batch)), loss)[1]
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=2,
            strategy="ddp",
            max_steps=steps,
            log_every_n_steps=3,
            logger=MetricsCSV(run_dir),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[ExactResume()],
            plugins=[AtomicCheckpointIO()],
        )
        trainer.fit(module, datamodule=tiny.TinyData(2 * STEPS), ckpt_path=before, weights_only=True)
        before = str(run_dir / f"{steps}.ckpt")
        trainer.save_checkpoint(before)
    return [float(loss.detach()) for loss in seen]


@pytest.mark.parametrize("cuts", [[], [2]])
def test_the_curve_of_training_is_of_all_ranks_also_when_resumed(tmp_path, cuts):
    first, second = launch.run_ranks(trained, tmp_path, cuts)
    assert isinstance(first, list), first
    assert len(first) == len(second) == STEPS and first != second
    logged = [float(row["train/loss"]) for row in read_rows(tmp_path) if row.get("train/loss")]
    both = (torch.tensor(first) + torch.tensor(second)) / 2
    torch.testing.assert_close(torch.tensor(logged), both.view(-1, 3).mean(1))


def free():
    return Free(eps=0.2, step=0.07, replays=2)


def test_each_rank_resumes_with_a_perturbation_of_its_own(tmp_path):
    whole, cut = (tmp_path / name for name in ("whole", "cut"))
    whole.mkdir()
    cut.mkdir()
    expected = launch.run_ranks(trained, whole, [], free)
    assert isinstance(expected[0], list), expected[0]
    assert launch.run_ranks(trained, cut, [2], free) == expected
