import math
from types import SimpleNamespace

import pytest
import torch

from vitrine.core.settings import SettingError
from vitrine.datamodules.augment import Augment
from vitrine.datamodules.base import Batch, DataSettings, ImageDataModule
from vitrine.datamodules.caching import compute_statistics
from vitrine.datamodules.memory import InMemory

AUGMENT = Augment(crop=2, flip=True, jitter=0.2)


class OneByOne(InMemory):
    in_memory = False

    def training_item(self, index, seed):
        return self.images[index] // 2, int(self.labels[index])  # told apart from [index]


class Noise(ImageDataModule):
    split = InMemory

    def load(self):
        self.classes, self.channels, self.image_size = ["a", "b", "c"], 3, 8
        self.mean = self.std = (0.5,) * 3
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (53, 3, 8, 8), dtype=torch.uint8, generator=draw)
        return self.split(images, torch.arange(53) % 3), self.split(images[:11], torch.arange(11) % 3)


class NoiseFromWorkers(Noise):
    split = OneByOne


def data(kind=Noise, seed=3, **settings):
    module = kind(DataSettings(**{"batch_size": 10, "workers": 0, "augment": AUGMENT} | settings), seed=seed)
    module.setup()
    return module


def as_rank(module, rank, world):
    """The module as it is in a training run on several devices."""
    epoch_loop = SimpleNamespace(
        batch_progress=SimpleNamespace(current=SimpleNamespace(ready=0, processed=0))
    )
    module.trainer = SimpleNamespace(
        global_rank=rank,
        world_size=world,
        overfit_batches=0,
        training=True,
        fit_loop=SimpleNamespace(epoch_loop=epoch_loop),
    )
    return module


def epoch(module, number=0):
    loader = module.train_dataloader()
    loader.sampler.set_epoch(number)
    return [module.preprocess(batch, train=True) for batch in loader]


def test_constructing_costs_nothing_and_setup_loads_once():
    module = Noise()
    assert module.train is None
    module.setup()
    split = module.train
    module.setup("fit")
    assert module.train is split


def test_impossible_settings_are_refused():
    with pytest.raises(SettingError, match=r"data.batch_size: is 0, expected at least 1"):
        Noise(DataSettings(batch_size=0))
    with pytest.raises(SettingError, match=r"data.augment.random_resized_crop"):
        Noise(DataSettings(augment=Augment(random_resized_crop=0.0)))


@pytest.mark.parametrize("kind", [Noise, NoiseFromWorkers])
def test_batches_are_as_promised(kind):
    module = data(kind)
    for batch, raw in zip(epoch(module), module.train_dataloader()):
        assert isinstance(batch, Batch) and raw.images.dtype == torch.uint8
        assert batch.images.shape == (10, 3, 8, 8) and batch.images.dtype == torch.float32
        assert batch.images.min() >= 0 and batch.images.max() <= 1
        assert batch.labels.tolist() == (batch.indices % 3).tolist()
        assert batch.seed.shape == () and batch.seed.dtype == torch.int64


MIXED = Augment(flip=True, mixup=1.0, cutmix=1.0)


@pytest.mark.parametrize("kind", [Noise, NoiseFromWorkers])
def test_training_mixes_images_and_labels_and_validation_does_not(kind):
    module = data(kind, augment=MIXED)
    module.classes = ["a", "b", "c"]
    for batch, single in zip(epoch(module), epoch(data(kind, augment=Augment(flip=True)))):
        assert batch.labels.shape == (10, 3) and batch.labels.dtype == torch.float32
        torch.testing.assert_close(batch.labels.sum(1), torch.ones(10))
        one_hot = torch.nn.functional.one_hot(single.labels, 3).float()
        share = ((batch.labels - one_hot.roll(1, 0)) * (one_hot - one_hot.roll(1, 0))).sum()
        share = share / (one_hot - one_hot.roll(1, 0)).square().sum()
        torch.testing.assert_close(batch.labels, share * one_hot + (1 - share) * one_hot.roll(1, 0))
        blended = share * single.images + (1 - share) * single.images.roll(1, 0)
        from_one = (batch.images == single.images) | (batch.images == single.images.roll(1, 0))
        assert from_one.all() or torch.allclose(batch.images, blended, atol=1e-5)
    assert all(
        batch.labels.ndim == 1 for batch in (module.preprocess(b, False) for b in module.val_dataloader())
    )


def test_each_rank_and_batch_is_mixed_by_a_draw_of_its_own():
    ranks = [as_rank(data(batch_size=5, augment=MIXED), rank, 2) for rank in range(2)]
    shares = []
    for module in ranks:
        module.classes = ["a", "b", "c"]
        shares += [batch.labels.max(1).values.min().item() for batch in epoch(module)]
    assert len(set(shares)) > 7  # of 10 batches


@pytest.mark.parametrize("kind", [Noise, NoiseFromWorkers])
def test_copies_of_an_image_are_varied_each_in_its_own_way(kind):
    module = data(kind, batch_size=12, augment=Augment(rotate=30.0, random_resized_crop=0.3, repeats=3))
    for batch in epoch(module, 1):
        assert batch.indices.bincount().unique().tolist() in ([3], [0, 3]) and batch.seed.shape == (12,)
        for index in batch.indices.unique():
            first, second, third = batch.images[batch.indices == index]
            assert not torch.equal(first, second) and not torch.equal(second, third)
        neighbours = batch.indices == batch.indices.roll(1)
        assert not neighbours.any()  # mixup would mix an image with itself


def test_a_balanced_sampler_is_that_of_the_settings_in_training_alone():
    module = data(sampler="balanced", batch_size=53)
    assert len({*epoch(module)[0].indices.tolist()}) < 53
    assert torch.cat([batch.indices for batch in module.val_dataloader()]).tolist() == list(range(11))


@pytest.mark.parametrize("kind", [Noise, NoiseFromWorkers])
def test_validation_is_every_image_in_order_as_it_is(kind):
    module = data(kind)
    batches = [module.preprocess(batch, train=False) for batch in module.val_dataloader()]
    assert torch.equal(torch.cat([batch.images for batch in batches]), module.val.images / 255)
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(11))


def test_only_a_training_trainer_augments():
    module = as_rank(data(), 0, 1)
    batch = next(iter(module.train_dataloader()))
    trained = module.on_after_batch_transfer(batch)
    assert torch.equal(trained.images, module.preprocess(batch, train=True).images)
    module.trainer.training = False
    assert torch.equal(module.on_after_batch_transfer(batch).images, batch.images / 255)
    assert module.on_after_batch_transfer("something else") == "something else"


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_nothing_and_no_global_random_number_is_drawn(workers):
    expected = epoch(data(NoiseFromWorkers), 4)
    before = torch.get_rng_state()
    got = epoch(data(NoiseFromWorkers, workers=workers), 4)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(got, expected, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b))


def test_an_image_is_varied_alike_whatever_the_batch_size_and_anew_each_epoch():
    small, large, later = (
        epoch(data(batch_size=1), 2),
        epoch(data(batch_size=53), 2),
        epoch(data(batch_size=53), 3),
    )
    by_index = {batch.indices.item(): batch.images[0] for batch in small}
    torch.testing.assert_close(torch.stack([by_index[i.item()] for i in large[0].indices]), large[0].images)
    by_index = {i.item(): image for i, image in zip(later[0].indices, later[0].images)}
    same = [torch.equal(by_index[i.item()], image) for i, image in zip(large[0].indices, large[0].images)]
    assert not any(same)


def test_seeds_differ():
    assert not torch.equal(epoch(data(seed=1))[0].indices, epoch(data(seed=2))[0].indices)


def test_ranks_share_an_epoch_and_validation():
    world = 3
    modules = [as_rank(data(batch_size=5), rank, world) for rank in range(world)]
    train = [i for module in modules for batch in module.train_dataloader() for i in batch.indices.tolist()]
    assert len(train) == len(set(train)) == 45
    val = [i for module in modules for batch in module.val_dataloader() for i in batch.indices.tolist()]
    assert sorted(val) == list(range(11))


def test_the_network_may_be_normalised_as_on_imagenet():
    assert data(normalize="imagenet").mean == (0.485, 0.456, 0.406)
    assert data().mean == (0.5,) * 3


def test_it_describes_itself_in_a_line():
    assert data().describe() == (
        "Noise: 53 training and 11 validation images of 3 x 8 x 8, 3 classes, 0.0 MiB in memory; "
        "no test split"
    )


def test_statistics_are_those_of_the_pixels():
    split = data().train
    mean, std = compute_statistics(split)
    pixels = split.images.numpy().transpose(1, 0, 2, 3).reshape(3, -1) / 255
    for channel in range(3):
        assert math.isclose(mean[channel], pixels[channel].mean(), rel_tol=1e-9)
        assert math.isclose(std[channel], pixels[channel].std(), rel_tol=1e-9)


def test_wrong_tensors_are_refused():
    with pytest.raises(ValueError, match=r"images: torch.float32 \(2, 3, 4, 4\), expected uint8"):
        InMemory(torch.rand(2, 3, 4, 4), torch.zeros(2))
    with pytest.raises(ValueError, match="labels"):
        InMemory(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3))


class HeldOut(Noise):
    reads = 0

    def load(self):
        self.has_test = True
        return super().load()

    def load_test(self):
        self.reads += 1
        return self.split(*super().load()[0].batch(torch.arange(20, 27)))


def test_a_test_split_is_read_when_it_is_asked_for_and_once():
    module = data(HeldOut)
    assert module.describe().endswith("; a test split is held out")
    module.setup("fit"), list(module.train_dataloader()), list(module.val_dataloader())
    assert module.reads == 0
    (batch,) = module.test_dataloader()
    assert torch.equal(batch.images, module.test_split().images) and len(batch.labels) == 7
    assert torch.equal(module.preprocess(batch, train=False).images, batch.images / 255)
    assert module.reads == 1


def test_a_source_without_a_test_split_says_so():
    module = data()
    assert module.test_split() is None and module.describe().endswith("; no test split")
    with pytest.raises(SettingError, match="Noise has no test split"):
        module.test_dataloader()
