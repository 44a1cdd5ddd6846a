import pytest
import torch
from tiny_images import picture

from vitrine.core.settings import SettingError
from vitrine.datamodules.folder import Folder
from vitrine.datamodules.memory import InMemory
from vitrine.datamodules.mislabeling import draw_mislabels, mislabel
from vitrine.datamodules.signs import SignImages, Signs, SignsSettings


def signs(mislabeled: float = 0.25, seed: int = 5, **settings) -> Signs:
    small = {"train_size": 80, "val_size": 16, "test_size": 16, "image_size": 16, "batch_size": 16}
    data = Signs(SignsSettings(**small | {"mislabeled": mislabeled} | settings), seed=seed)
    data.setup()
    return data


def test_a_share_of_the_labels_becomes_another_class_all_others_equally_likely():
    labels = torch.arange(20_000) % 5
    given, mislabeled = draw_mislabels(labels, 0.3, 5, seed=1)
    assert mislabeled.sum() == 6000
    assert torch.equal(given != labels, mislabeled)
    counts = torch.zeros(5, 5).index_put_((labels[mislabeled], given[mislabeled]), torch.ones(6000), True)
    assert counts.diagonal().eq(0).all() and (counts + 300 * torch.eye(5) - 300).abs().max() < 5 * 300**0.5


def test_the_draw_is_a_function_of_the_seed():
    labels = torch.arange(400) % 8
    first, again, other = (draw_mislabels(labels, 0.1, 8, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_images_and_held_out_labels_are_as_they_were():
    plain, planted = signs(0), signs()
    assert plain.train.mislabeled is None and plain.facts() == {}
    assert "20 of 80" in planted.facts()["training labels"]
    assert torch.equal(plain.train.images, planted.train.images)
    assert torch.equal(plain.train.labels != planted.train.labels, planted.train.mislabeled)
    assert planted.train.mislabeled.sum() == 20
    for one, other in ((plain.val, planted.val), (plain.test_split(), planted.test_split())):
        assert torch.equal(one.labels, other.labels) and other.mislabeled is None


@pytest.mark.parametrize("cache", ["always", "never"])
def test_whoever_reads_the_training_split_reads_the_same_wrong_labels(cache):
    data = signs(cache=cache, sampler="balanced")
    train, everything = data.train, torch.arange(80)
    assert torch.equal(train.batch(everything)[1], train.labels)
    assert [train[i][1] for i in range(0, 80, 9)] == train.labels[::9].tolist()
    assert torch.equal(train.with_stickers().labels, train.labels)
    assert torch.equal(train.batch(everything)[0], SignImages(train.seed, 80, 16).batch(everything)[0])
    for batch in data.train_dataloader():
        assert torch.equal(batch.labels, train.labels[batch.indices])
    drawn = data.train_dataloader().sampler.images  # of each class, for all classes to be equally likely
    assert [len(images) for images in drawn] == train.labels.bincount().tolist()


def test_a_resumed_epoch_goes_on_with_the_same_labels():
    whole = list(signs().train_dataloader())
    resumed = signs().train_dataloader()
    resumed.load_state_dict({"epoch": 0, "batches": 2})
    for batch, expected in zip(resumed, whole[2:], strict=True):
        assert torch.equal(batch.labels, expected.labels) and torch.equal(batch.images, expected.images)


def test_files_have_the_same_wrong_labels_in_memory_or_not(tmp_path):
    for name in ("ant", "bee", "cow"):
        for i in range(8):
            picture(tmp_path / name / f"{i}.png", seed=i)
    splits = []
    for cache in ("always", "never"):
        settings = Folder.Settings(root=str(tmp_path), val_fraction=0.25, mislabeled=0.2, cache=cache)
        data = Folder(settings, seed=2)
        data.setup()
        assert data.val.labels.tolist() == [0, 0, 1, 1, 2, 2]  # held out by class, of the labels as they are
        splits.append(data.train)
    held, read = splits
    assert held.in_memory and not read.in_memory
    assert torch.equal(held.labels, read.labels) and torch.equal(held.mislabeled, read.mislabeled)
    assert read.mislabeled.sum() == 4
    assert [read[i][1] for i in range(18)] == [read.training_item(i, 0)[1] for i in range(18)]
    assert [read[i][1] for i in range(18)] == held.batch(torch.arange(18))[1].tolist() == held.labels.tolist()
    assert read.select([0, 1]).mislabeled is None


class OwnLabels(InMemory):
    def batch(self, indices):
        return super().batch(indices)[0], indices % 2


def test_what_cannot_be_planted_is_refused():
    with pytest.raises(SettingError, match=r"data.mislabeled: is 1.5, expected at most 1"):
        Signs(SignsSettings(mislabeled=1.5))
    with pytest.raises(SettingError, match=r"data.mislabeled: is 0.001, which is none of 80 training images"):
        signs(0.001)
    images, labels = torch.zeros(40, 3, 4, 4, dtype=torch.uint8), torch.arange(40) % 2
    with pytest.raises(SettingError, match=r"data.mislabeled: is 0.1, but there is no other class"):
        mislabel(InMemory(images, labels * 0), 0.1, 1, seed=0)
    with pytest.raises(SettingError, match=r"data.mislabeled: is 0.1, but OwnLabels reads labels elsewhere"):
        mislabel(OwnLabels(images, labels), 0.1, 2, seed=0)
