import pytest
import torch
import torch.nn.functional as F

from vitrine.core.image_dataset import ImageDataset
from vitrine.datamodules.drawing.scene import compose, render
from vitrine.datamodules.signs import SignImages

COUNT = 96
SCENES = torch.arange(COUNT)


@pytest.fixture(scope="module")
def split():
    return SignImages(seed=11, size=96, shortcut=1.0)


@pytest.fixture(scope="module")
def images(split):
    return split.batch(SCENES)[0]


@pytest.fixture(scope="module")
def masks(split):
    return split.part_masks(SCENES)


def chosen(split, *names, count=COUNT):
    return torch.tensor([name in names for name in split.parts]).expand(count, -1)


def changed(before, after):
    return (before != after).any(1)


def grown(mask, pixels=3):
    return F.max_pool2d(mask[:, None].float(), 2 * pixels + 1, 1, pixels)[:, 0].bool()


def test_without_nothing_a_scene_keeps_its_bits(split, images):
    nothing = chosen(split)
    assert torch.equal(split.without_parts(SCENES, nothing), images)
    assert torch.equal(split.with_other_parts(SCENES, nothing), images)


def test_without_all_parts_of_the_sign_the_scene_is_the_one_drawn_without_a_sign(split):
    scene = compose(split.seed, SCENES, split.labels, split.stickers)
    bare = render(scene._replace(sign=(scene.sign[0], torch.zeros_like(scene.sign[1]))), 64)
    without = split.without_parts(SCENES, chosen(split, "border", "plate", "glyph"))
    assert torch.equal(without, bare.images)


@pytest.mark.slow
def test_leaving_a_part_out_changes_its_own_pixels_and_no_others(split, images, masks):
    for name in split.parts:
        differs = changed(images, split.without_parts(SCENES, chosen(split, name)))
        # but for slivers behind something else, apart from the rest
        assert (differs & ~grown(masks[name])).sum() < 0.004 * differs.sum(), name
        # what is behind has the same colour here and there, or the light is beyond what a pixel can hold
        assert (differs & masks[name]).sum() > 0.9 * masks[name].sum() > 0, name
        without = ~masks[name].flatten(1).any(1)
        assert differs[without].sum() <= 10 * without.sum()  # at most a few pixels show a little of it


def test_parts_may_be_left_out_of_each_scene_as_one_likes(split):
    left_out = torch.rand(96, len(split.parts), generator=torch.Generator().manual_seed(0)) < 0.4
    together = split.without_parts(SCENES, left_out)
    for i in (0, 5, 50, 95):
        alone = split.without_parts(SCENES[i : i + 1], left_out[i : i + 1])
        assert torch.equal(alone[0], together[i])


def test_the_parts_of_the_sign_cover_what_its_mask_covers_and_not_each_other(split, masks):
    sign = split.masks(SCENES)["sign"]
    union = masks["border"] | masks["plate"] | masks["glyph"]
    assert (union & sign).sum() > 0.97 * sign.sum()
    assert (union & ~grown(sign, 1)).sum() < 0.001 * sign.sum()
    overlap = sum(masks[name].int() for name in ("border", "plate", "glyph")) > 1
    assert overlap.sum() < 0.03 * sign.sum()
    assert torch.equal(masks["sticker"], split.masks(SCENES)["sticker"])
    glyphs = masks["glyph"].flatten(1).any(1)
    assert glyphs.tolist() == [label not in (1, 4) for label in split.labels.tolist()]  # yield, priority


@pytest.mark.slow
def test_another_classs_part_is_seen_in_its_place_and_the_rest_keeps_its_bits(split, images, masks):
    plates = compose(split.seed, SCENES, split.labels, split.stickers).sign[0]
    reach = plates.frame.abs().sum(2) * 1.4 + 0.1  # in perspective a corner may be nearer
    at = (torch.arange(64) + 0.5) / 32 - 1
    across, down = (((at - plates.centre[:, k, None]).abs() < reach[:, k, None]) for k in (0, 1))
    around = {"sticker": grown(masks["sticker"])}
    for name in split.class_parts:
        after = split.with_other_parts(SCENES, chosen(split, name))
        differs = changed(images, after)
        has = masks[name].flatten(1).any(1)
        assert differs[has].flatten(1).any(1).all(), name
        assert not differs[~has].any(), name
        assert not (differs & ~around.get(name, across[:, None] & down[:, :, None])).any(), name
        left_out = split.without_parts(SCENES, chosen(split, name))
        assert changed(after, left_out)[has].flatten(1).any(1).all(), name
        one = split.with_other_parts(SCENES[7:8], chosen(split, name, count=1))
        assert torch.equal(one[0], after[7])


def test_what_cannot_be_left_out_or_replaced_is_refused(split):
    with pytest.raises(ValueError, match=r"left_out: is torch.bool \[2, 7\], expected bool \[96, 7\]"):
        split.without_parts(SCENES, chosen(split, count=2))
    with pytest.raises(ValueError, match="'pole' is no class's own, expected border, plate, glyph, sticker"):
        split.with_other_parts(SCENES, chosen(split, "pole"))


def test_most_data_sets_have_no_parts():
    assert ImageDataset.parts == () and ImageDataset().part_masks(SCENES) == {}
    with pytest.raises(NotImplementedError, match="ImageDataset has no parts"):
        ImageDataset().without_parts(SCENES, torch.zeros(96, 0, dtype=torch.bool))
