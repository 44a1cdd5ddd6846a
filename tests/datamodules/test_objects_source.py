import pytest
import torch

from vitrine.datamodules.objects_source import CLASSES, ObjectImages, Objects, ObjectsSettings
from vitrine.objects import shapes


def test_a_view_has_the_same_bits_drawn_alone_or_among_any_others():
    split = ObjectImages(seed=1, size=100, image_size=24)
    together, labels = split.batch(torch.arange(60))
    order = torch.tensor([59, 7, 3, 48, 0, 22])
    shuffled, _ = split.batch(order)
    assert torch.equal(shuffled, together[order])
    assert torch.equal(split[7][0], together[7]) and split[7][1] == labels[7]


@pytest.mark.slow
def test_bits_do_not_depend_on_the_number_of_threads():
    split, before = ObjectImages(seed=2, size=64, image_size=24), torch.get_num_threads()
    drawn = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            drawn.append(split.draw_images(torch.arange(64)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*drawn)


def test_each_class_comes_in_each_shape_equally_often():
    split = ObjectImages(seed=0, size=96)
    pairs = split.labels * len(shapes.SHAPES) + split.shapes
    assert pairs.bincount().tolist() == [2] * (len(CLASSES) * len(shapes.SHAPES))


def test_splits_and_seeds_share_no_view_and_the_test_split_is_drawn_when_asked_for():
    def drawn(seed: int) -> Objects:
        data = Objects(ObjectsSettings(train_size=16, val_size=16, test_size=16, image_size=16), seed=seed)
        data.setup()
        return data

    first, second, again = drawn(0), drawn(1), drawn(0)
    assert first.train.images is not None and first.test_split().images is None
    splits = [*(s for d in (first, second) for s in (d.train, d.val)), first.test_split()]
    pictures = torch.cat([split.batch(torch.arange(16))[0] for split in splits]).flatten(1).float()
    assert torch.cdist(pictures, pictures).fill_diagonal_(torch.inf).amin() > 200
    assert torch.equal(again.train.images, first.train.images)
    state = torch.get_rng_state()
    first.test_split().batch(torch.arange(2))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_the_normalisation_is_that_of_the_pixels():
    data = Objects(ObjectsSettings(train_size=480, val_size=1))
    data.setup()
    pixels = data.train.images.float().div(255)
    assert (pixels.mean((0, 2, 3)) - torch.tensor(data.mean)).abs().max() < 0.02
    assert (pixels.std((0, 2, 3)) - torch.tensor(data.std)).abs().max() < 0.02
