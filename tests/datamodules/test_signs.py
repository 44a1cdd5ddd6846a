import pytest
import torch
from torch.nn import functional as F

from vitrine.datamodules.base import Batch
from vitrine.datamodules.drawing.parts import PARTS
from vitrine.datamodules.drawing.scene import compose, render
from vitrine.datamodules.signs import CLASSES, MEAN, STD, SignImages, Signs, SignsSettings


@pytest.fixture(scope="module")
def scenes() -> SignImages:
    split = SignImages(seed=3, size=512)
    split.keep = True
    return split


@pytest.fixture(scope="module")
def masks(scenes) -> torch.Tensor:
    return scenes.masks(torch.arange(len(scenes)))["sign"]


def everything(split: SignImages, indices: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (*split.batch(indices), *split.masks(indices).values())


@pytest.mark.parametrize("size", [64, 50])
def test_a_scene_has_the_same_bits_drawn_alone_or_among_any_others(size):
    split = SignImages(seed=1, size=200, image_size=size, shortcut=0.5)
    together = everything(split, torch.arange(40))
    for index in (0, 7, 39):
        for alone, among in zip(everything(split, torch.tensor([index])), together):
            assert torch.equal(alone[0], among[index])
    order = torch.tensor([150, 39, 7, 3, 0, 22, 81])
    shuffled = everything(split, order)
    for part, among in zip(shuffled, together):
        assert torch.equal(part[1:5], among[order[1:5]])


def test_bits_do_not_depend_on_the_number_of_threads(scenes):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if before == 1 else 1)
        now = torch.get_num_threads()
        again = scenes.draw(torch.arange(len(scenes))).images
        assert torch.get_num_threads() == now
    finally:
        torch.set_num_threads(before)
    assert torch.equal(again, scenes.images)


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    SignImages(seed=1, size=8).batch(torch.arange(8))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_and_validation_share_no_scene_nor_do_two_seeds():
    def drawn(seed: int) -> Signs:
        data = Signs(SignsSettings(train_size=32, val_size=32), seed=seed)
        data.setup()
        return data

    first, second = drawn(0), drawn(1)
    pictures = torch.cat([s.images for d in (first, second) for s in (d.train, d.val)]).flatten(1).float()
    nearest = torch.cdist(pictures, pictures).fill_diagonal_(torch.inf).amin()
    assert nearest > 500  # grey levels, over 12,288 values: noise alone makes more
    again = drawn(0)
    assert torch.equal(again.train.images, first.train.images)


def test_the_test_split_is_drawn_of_other_scenes_when_it_is_asked_for():
    data = Signs(SignsSettings(train_size=32, val_size=32, test_size=24))
    data.setup()
    test = data.test_split()
    assert len(test) == 24 and test.images is None and not test.stickers.any()
    images = torch.cat([split.batch(torch.arange(24))[0] for split in (data.train, data.val, test)])
    assert len(images.flatten(1).unique(dim=0)) == 72


def test_classes_are_balanced(scenes):
    assert scenes.labels.bincount().tolist() == [64] * 8
    assert len(CLASSES) == 8


def grown(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    return F.max_pool2d(mask[:, None].float(), 2 * pixels + 1, 1, pixels)[:, 0].bool()


def without_sign(scene):
    return scene._replace(sign=(scene.sign[0], torch.zeros_like(scene.sign[1])))


def test_the_mask_is_where_the_sign_is_seen():
    """Taking the sign away changes what the mask covers, and beyond it only the blur of the edge."""
    indices = torch.arange(96)
    scene = compose(5, indices, indices % 8, torch.zeros(96, dtype=torch.bool))
    scene = scene._replace(
        light=scene.light._replace(grain=torch.zeros(96)),
        obstacle=(scene.obstacle[0], torch.zeros(96, dtype=torch.bool)),
    )
    with_it, without = render(scene, 64), render(without_sign(scene), 64)
    changed = (with_it.images.int() - without.images.int()).abs().amax(1) > 2
    assert not without.sign.any()
    assert not (changed & ~grown(with_it.sign, 2)).any()
    # Inside, a pixel that stays as it was is a coincidence of colours, or light beyond what a pixel can hold.
    assert (changed & with_it.sign).sum() > 0.98 * with_it.sign.sum()


def test_signs_take_25_to_70_percent_of_the_width():
    indices = torch.arange(400)
    scene = compose(2, indices, indices % 8, torch.zeros(400, dtype=torch.bool))
    nothing = torch.zeros(400, dtype=torch.bool)
    drawing = render(scene._replace(obstacle=(scene.obstacle[0], nothing)), 64)
    columns = drawing.sign.any(1)  # [n, 64]
    span = torch.arange(64)
    left = torch.where(columns, span, 64).amin(1)
    right = torch.where(columns, span, -1).amax(1)
    share = (right - left + 1) / 64
    pixel = 1.5 / 64
    assert share.min() >= 0.25 - pixel and share.max() <= 0.70 + pixel
    assert share.min() < 0.29 and share.max() > 0.66 and 0.44 < share.mean() < 0.51
    # Anywhere in the image: as far left as right, as high as low.
    middle = (drawing.sign.float().mean((0, 1)) * (span + 0.5)).sum() / drawing.sign.float().mean(
        (0, 1)
    ).sum()
    assert abs(middle - 32) < 3


@pytest.mark.slow
def test_about_a_third_are_partly_hidden_but_most_of_a_sign_is_always_seen(scenes, masks):
    indices = torch.arange(len(scenes))
    scene = compose(scenes.seed, indices, scenes.labels, scenes.stickers)
    whole = render(scene._replace(obstacle=(scene.obstacle[0], torch.zeros_like(scenes.stickers))), 64).sign
    seen = masks.sum((1, 2)) / whole.sum((1, 2))
    assert not (masks & ~whole).any()
    assert seen.min() > 0.5
    assert 0.2 < (seen < 0.99).float().mean() < 0.45


@pytest.mark.slow
def test_stickers_are_in_the_share_asked_for_of_training_images_and_in_no_validation_image():
    data = Signs(SignsSettings(train_size=400, val_size=100, shortcut=0.3))
    data.setup()
    stuck = data.train.masks(torch.arange(400))["sticker"].any(dim=(1, 2))
    assert torch.equal(stuck, data.train.stickers)
    assert 0.22 < stuck.float().mean() < 0.38
    assert not data.val.masks(torch.arange(100))["sticker"].any()


def test_a_sticker_changes_the_pixels_of_its_mask_and_leaves_the_sign_alone():
    plain = SignImages(seed=4, size=160)
    stuck = plain.with_stickers()
    indices = torch.arange(160)
    before, after = plain.draw(indices), stuck.draw(indices)
    changed = (before.images != after.images).any(1)
    assert torch.equal(before.sign, after.sign)
    assert not (after.sign & after.sticker).any()
    assert not (changed & ~grown(after.sticker, 2)).any()
    assert (changed & after.sticker).sum() > 0.97 * after.sticker.sum()
    share = after.sticker.float().mean((1, 2))
    assert (share > 0.008).all() and (share < 0.02).all()


def test_stickers_give_the_class_away():
    stuck = SignImages(seed=4, size=160).with_stickers()
    drawing = stuck.draw(torch.arange(160))
    weight = drawing.sticker[:, None].float()
    colour = (drawing.images * weight).sum((2, 3)) / weight.sum((2, 3)) / 255
    colour = F.normalize(colour, dim=1)
    means = torch.stack([colour[stuck.labels == k].mean(0) for k in range(8)])
    assert (torch.cdist(colour, means).argmin(1) == stuck.labels).float().mean() > 0.75  # chance: 0.125


@pytest.mark.slow
def test_colours_do_not_give_the_class_away():
    """The best linear classifier on an image's histogram of colours stays far from what a network reaches."""
    train, val = SignImages(seed=0, size=1600), SignImages(seed=1, size=480)

    def features(split: SignImages) -> torch.Tensor:
        images = split.batch(torch.arange(len(split)))[0]
        r, g, b = (images // 64).flatten(2).long().unbind(1)
        ones = torch.ones(r.shape).div_(r.shape[1])
        histogram = torch.zeros(len(images), 64).scatter_add_(1, r * 16 + g * 4 + b, ones)
        means = images.float().mean((2, 3)) / 255
        return torch.cat([histogram.sqrt(), means, torch.ones(len(images), 1)], dim=1)

    x, y = features(train), F.one_hot(train.labels, 8).float()
    weight = torch.linalg.solve(x.T @ x + 0.1 * torch.eye(x.shape[1]), x.T @ y)
    accuracy = ((features(val) @ weight).argmax(1) == val.labels).float().mean()
    assert accuracy < 0.5


def test_a_larger_image_is_the_same_scene():
    small, large = SignImages(seed=6, size=48, image_size=64), SignImages(seed=6, size=48, image_size=128)
    indices = torch.arange(48)
    a, b = small.draw(indices), large.draw(indices)
    assert b.images.shape == (48, 3, 128, 128) and b.sign.shape == (48, 128, 128)
    halved = F.avg_pool2d(b.sign[:, None].float(), 2)[:, 0] >= 0.5
    assert ((halved & a.sign).sum((1, 2)) / (halved | a.sign).sum((1, 2))).min() > 0.8
    difference = (F.avg_pool2d(b.images.float(), 2) - a.images.float()).abs().mean() / 255
    assert difference < 0.08


def test_mean_and_deviation_are_those_of_the_pixels(scenes):
    pixels = scenes.images.double() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(MEAN, abs=0.02)
    assert pixels.std((0, 2, 3)).tolist() == pytest.approx(STD, abs=0.02)


def test_what_is_not_held_in_memory_is_drawn_the_same():
    data = Signs(SignsSettings(train_size=24, val_size=8, cache="never", batch_size=8))
    data.setup()
    held = Signs(SignsSettings(train_size=24, val_size=8, batch_size=8))
    held.setup()
    assert data.train.images is None and held.train.images is not None
    for lazy, stored in zip(data.train_dataloader(), held.train_dataloader()):
        assert isinstance(lazy, Batch)
        assert torch.equal(lazy.images, stored.images) and torch.equal(lazy.labels, stored.labels)
    image, label = data.val[-1]
    assert torch.equal(image, held.val.images[7]) and label == int(held.val.labels[7])
    with pytest.raises(IndexError):
        data.val[8]


def test_a_split_is_drawn_once_and_not_before_its_first_image_is_needed(monkeypatch):
    drawn = []
    draw = SignImages.draw_images
    monkeypatch.setattr(
        SignImages, "draw_images", lambda split, some: drawn.append(len(some)) or draw(split, some)
    )
    data = Signs(SignsSettings(train_size=24, val_size=8))
    data.setup()
    assert "in memory" in data.describe() and drawn == []
    for _ in range(2):
        data.val.batch(torch.arange(2))
        assert drawn == [8]
    data.train.batch(torch.arange(2))
    assert drawn == [8, 24]


def test_impossible_settings_are_refused():
    for bad in ({"shortcut": 1.5}, {"train_size": 0}, {"image_size": 8}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Signs(SignsSettings(**bad))


def test_less_contrast_changes_the_signs_and_nothing_else():
    scenes, indices = SignImages(3, 16, 32, shortcut=1.0), torch.arange(16)
    (images, _), masks = scenes.batch(indices), scenes.masks(indices)
    scene = compose(scenes.seed, indices, scenes.labels, scenes.stickers)
    whole = render(scene._replace(obstacle=(scene.obstacle[0], torch.zeros(16, dtype=torch.bool))), 32).sign
    pale = SignImages(3, 16, 32, shortcut=1.0, contrast=0.1)
    changed = (pale.batch(indices)[0] != images).any(1)
    assert changed.flatten(1).any(1).all() and not changed[~grown(whole, 2)].any()
    spread = [split.batch(indices)[0].float().std(1)[masks["sign"]].mean() for split in (scenes, pale)]
    assert spread[1] < spread[0] / 3  # of the colours' channels
    replaced = torch.zeros(16, len(PARTS), dtype=torch.bool)
    replaced[:, :3] = True  # the sign's
    swapped = pale.with_other_parts(indices, replaced)
    spread.append(swapped.float().std(1)[masks["sign"]].mean())
    assert spread[2] < spread[0] / 3
