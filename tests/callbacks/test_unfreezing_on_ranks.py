"""Two processes train a network of which a part is frozen, and then no longer."""

import launch
import lightning
import pytest
import tiny
import torch
from torch import nn

from vitrine.callbacks.resume import ExactResume
from vitrine.modules.classifier import Classifier
from vitrine.modules.objectives.standard import Standard
from vitrine.modules.optimizers import OptimizerSettings

pytestmark = pytest.mark.slow

STEPS = 3  # an epoch


def weights(ranks: int, folder, resume_from: int | None = None) -> list[float]:
    """What two epochs end in, the body frozen in the first; each step on eight images, whatever the ranks."""
    lightning.seed_everything(0, verbose=False)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    settings = OptimizerSettings("sgd", lr=0.1, schedule="constant")
    module = Classifier(
        network, Standard(), settings, ["dark", "bright"], freeze="all_but_head", unfreeze_epoch=1
    )
    data = tiny.TinyData(2 * STEPS)
    data.settings.batch_size = 8 // ranks
    data.settings.augment.flip = False
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")

    class SaveAt(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.save_checkpoint(folder / f"{trainer.global_step}.ckpt")

    callbacks = [ExactResume(), SaveAt()] if resume_from is None else [ExactResume()]
    trainer = lightning.Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", max_epochs=2,
        callbacks=callbacks, use_distributed_sampler=False, **dict.fromkeys(quiet, False),
    )  # fmt: skip
    checkpoint = None if resume_from is None else folder / f"{resume_from}.ckpt"
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    assert trainer.global_step == 2 * STEPS
    return tiny.weights(network)


def test_the_gradients_of_what_was_frozen_are_averaged_too(tmp_path):
    first, second = launch.run_ranks(weights, 2, tmp_path)
    assert isinstance(first, list), first
    assert first == second
    alone = weights(1, tmp_path / "alone")
    torch.testing.assert_close(torch.tensor(first), torch.tensor(alone), atol=1e-5, rtol=1e-4)
    for step in (2, 3, 5):
        assert launch.run_ranks(weights, 2, tmp_path, step) == [first, first], step
