import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from vitrine.datamodules.augment import Augment
from vitrine.datamodules.base import DataSettings, ImageDataModule
from vitrine.datamodules.memory import InMemory

IMAGES, BATCH = 22, 4  # five batches an epoch, two images left over
STEPS = IMAGES // BATCH


class OneByOne(InMemory):
    """The same images, read as files are: an item at a time, by the loader's workers."""

    in_memory = False


class Squares(ImageDataModule):
    split = InMemory

    def load(self):
        self.classes, self.image_size = ["dark", "light"], 8
        self.mean = self.std = (0.5,) * 3
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (IMAGES, 3, 8, 8), dtype=torch.uint8, generator=draw)
        return self.split(images, torch.arange(IMAGES) % 2), self.split(images[:7], torch.arange(7) % 2)


class FromWorkers(Squares):
    split = OneByOne


class Recorder(lightning.LightningModule):
    """Remembers what it was trained on, by step."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.network = nn.Linear(3 * 8 * 8, 2)
        self.seen, self.fail_at = {}, fail_at

    def training_step(self, batch, _):
        if self.global_step == self.fail_at:
            raise KeyboardInterrupt
        self.seen[self.global_step] = (
            batch.indices.tolist(),
            batch.images.sum().item(),
            batch.labels.tolist(),
        )
        return nn.functional.cross_entropy(self.network(batch.images.flatten(1)), batch.labels)

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


SETTINGS = DataSettings(batch_size=BATCH, workers=1, augment=Augment(crop=1, flip=True))
EVERYTHING = Augment(
    crop=1, flip=True, random_resized_crop=0.5, randaugment=2, erasing=0.5, mixup=0.5, cutmix=1.0, repeats=2
)


def fit(data, folder, callbacks=(), ckpt=None, fail_at=None, settings=SETTINGS, **trainer):
    module = Recorder(fail_at)
    trainer = lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
        callbacks=list(callbacks),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **(trainer or {"max_epochs": 3}),
    )
    try:
        trainer.fit(module, data(settings, seed=1), ckpt_path=ckpt, weights_only=True if ckpt else None)
    except (KeyboardInterrupt, SystemExit):
        assert fail_at is not None
    return module.seen


def slowly(*steps):
    return [pytest.param(step, marks=pytest.mark.slow) for step in steps]


@pytest.fixture(scope="module", params=[Squares, FromWorkers], ids=["memory", "workers"])
def straight(request, tmp_path_factory):
    """A data module, everything a run without a break sees, and a checkpoint after each of its steps."""
    folder = tmp_path_factory.mktemp("straight")
    every = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    ends = ModelCheckpoint(folder / "ends", filename="{step}", save_top_k=-1, save_on_train_epoch_end=True)
    seen = fit(request.param, folder, [every, ends])
    return request.param, seen, folder


@pytest.mark.slow
def test_an_epoch_is_new_batches_of_one_size(straight):
    _, seen, _ = straight
    assert sorted(seen) == list(range(3 * STEPS))
    for epoch in range(3):
        indices = [i for step in range(epoch * STEPS, (epoch + 1) * STEPS) for i in seen[step][0]]
        assert len(indices) == len(set(indices)) == STEPS * BATCH
    assert [seen[i][0] for i in range(STEPS)] != [seen[i + STEPS][0] for i in range(STEPS)]


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, STEPS, 2 * STEPS, *slowly(1, STEPS + 1, 2 * STEPS - 1, 2 * STEPS + 2)])
def test_a_resumed_run_sees_the_batches_that_were_left(straight, tmp_path, step):
    data, seen, folder = straight
    resumed = fit(data, tmp_path, ckpt=folder / f"step={step}.ckpt")
    assert resumed == {later: seen[later] for later in range(step, 3 * STEPS)}


@pytest.mark.slow
@pytest.mark.parametrize("step", [STEPS, *slowly(2 * STEPS)])
def test_a_run_resumed_at_an_epochs_end_begins_the_next(straight, tmp_path, step):
    data, seen, folder = straight
    resumed = fit(data, tmp_path, ckpt=folder / "ends" / f"step={step}.ckpt")
    assert resumed == {later: seen[later] for later in range(step, 3 * STEPS)}


@pytest.mark.parametrize("step", [STEPS + 2, *slowly(3, STEPS)])
def test_a_run_counted_in_steps_resumes_alike(straight, tmp_path, step):
    data, seen, folder = straight
    for checkpoint in folder.glob(f"**/step={step}.ckpt"):
        resumed = fit(data, tmp_path, ckpt=checkpoint, max_steps=3 * STEPS - 2, max_epochs=-1)
        assert resumed == {later: seen[later] for later in range(step, 3 * STEPS - 2)}


@pytest.mark.parametrize(
    "how", [{"max_epochs": 3}, {"max_steps": 9, "max_epochs": -1}], ids=["epochs", "steps"]
)
def test_shortened_epochs_resume_alike(tmp_path, how):
    every = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    ends = ModelCheckpoint(tmp_path / "ends", filename="{step}", save_top_k=-1, save_on_train_epoch_end=True)
    seen = fit(Squares, tmp_path, [every, ends], limit_train_batches=3, **how)
    assert sorted(seen) == list(range(9))
    for file in [tmp_path / "step=2.ckpt", *tmp_path.glob("**/step=3.ckpt"), tmp_path / "step=4.ckpt"]:
        step = int(file.stem.removeprefix("step="))
        resumed = fit(Squares, tmp_path, ckpt=file, limit_train_batches=3, **how)
        assert resumed == {later: seen[later] for later in range(step, 9)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Squares, FromWorkers])
def test_a_run_with_everything_on_resumes_alike(tmp_path, kind):
    how = {"settings": DataSettings(batch_size=BATCH, workers=1, sampler="balanced", augment=EVERYTHING)}
    every = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    seen = fit(kind, tmp_path, [every], max_epochs=2, **how)
    assert any(0 < share < 1 for _, _, labels in seen.values() for row in labels for share in row)
    for step in (2, STEPS + 1):
        resumed = fit(kind, tmp_path, ckpt=tmp_path / f"step={step}.ckpt", max_epochs=2, **how)
        assert resumed == {later: seen[later] for later in range(step, 2 * STEPS)}


@pytest.mark.slow
def test_a_run_resumed_twice_in_an_epoch_goes_on(straight, tmp_path):
    data, seen, folder = straight
    every = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    fit(data, tmp_path, [every], ckpt=folder / "step=6.ckpt", max_steps=8, max_epochs=-1)
    resumed = fit(data, tmp_path, ckpt=tmp_path / "step=8.ckpt")
    assert resumed == {later: seen[later] for later in range(8, 3 * STEPS)}


@pytest.mark.slow
def test_a_batch_that_was_fetched_but_not_trained_on_comes_again(straight, tmp_path):
    data, seen, _ = straight
    broken = ModelCheckpoint(tmp_path, filename="broken", save_on_exception=True, every_n_epochs=1)
    fit(data, tmp_path, [broken], fail_at=STEPS + 2)
    checkpoint = max(tmp_path.glob("*.ckpt"), key=lambda file: file.stat().st_mtime)
    resumed = fit(data, tmp_path, ckpt=checkpoint)
    assert resumed == {later: seen[later] for later in range(STEPS + 2, 3 * STEPS)}
