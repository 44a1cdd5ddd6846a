import math

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from vitrine import config
from vitrine.core.random_numbers import fold_in, make_key, uniform
from vitrine.core.settings import SettingError
from vitrine.datamodules.augment import Augment, augment, check_augment, erased_sides

SEED = torch.tensor(make_key(11))


@pytest.fixture
def photos():
    """Smooth pictures, so that resampling them means something."""
    noise = torch.rand(64, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(noise, (20, 20), mode="bicubic").clamp(0, 1)
    return images.mul(255).round().to(torch.uint8)


def varied(images, **how):
    return augment(images, torch.arange(len(images)), SEED, Augment(**how))


def test_nothing_asked_for_nothing_changed(photos):
    assert torch.equal(varied(photos), photos / 255)
    assert torch.equal(varied(photos / 255), photos / 255)


ALL = {"crop": 3, "flip": True, "random_resized_crop": 0.5, "rotate": 20.0, "jitter": 0.4, "cutout": 5}
POLICIES = [{"randaugment": 2}, {"trivialaugment": True}, {"augmix": True}]
LATER = [*POLICIES, {"erasing": 1.0}, ALL | {"randaugment": 1, "erasing": 0.5}]


@pytest.mark.parametrize("how", [{name: value} for name, value in ALL.items()] + [ALL, *LATER], ids=str)
def test_an_image_is_varied_by_its_own_draws_alone(photos, how):
    together = varied(photos, **how)
    assert together.dtype == torch.float32 and together.min() >= 0 and together.max() <= 1
    some = torch.tensor([40, 3, 17])
    apart = augment(photos[some], some, SEED, Augment(**how))
    torch.testing.assert_close(apart, together[some], rtol=0, atol=1e-6)
    assert not torch.equal(
        augment(photos, torch.arange(64), torch.tensor(make_key(12)), Augment(**how)), together
    )


def test_no_global_random_number_is_drawn(photos):
    before = torch.get_rng_state()
    varied(photos, **ALL)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_crop_is_one_of_the_shifted_windows_of_the_padded_image(photos):
    padded = torch.nn.functional.pad(photos / 255, (2, 2, 2, 2), mode="replicate")
    windows = torch.stack([padded[:, :, y : y + 20, x : x + 20] for y in range(5) for x in range(5)])
    same = (varied(photos, crop=2) == windows).flatten(2).all(2)  # [25, N]
    assert same.any(0).all()
    assert same.any(1).sum() > 20  # of 25 places, 64 images come to nearly all


def test_about_half_are_mirrored_and_the_others_are_left(photos):
    images, flipped = photos / 255, varied(photos, flip=True)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert torch.equal(mirrored, ~(flipped == images).flatten(1).all(1))
    assert 20 < mirrored.sum() < 44


def test_one_setting_does_not_shift_anothers_draws(photos):
    mirrored = varied(photos, flip=True)
    both = varied(photos, flip=True, cutout=4)
    untouched = both != 0.5
    assert torch.equal(both[untouched], mirrored[untouched])


def test_a_cutout_is_a_grey_square(photos):
    changed = (varied(photos, cutout=6) != photos / 255).any(1)
    for mask in changed:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert 1 <= len(rows) <= 6 and 1 <= len(columns) <= 6
    area = changed.sum((1, 2)).float()
    assert area.max() == 36 and area.mean() > 20


def test_a_rotation_is_torchvisions(photos):
    angle = {}
    turned = varied(photos, rotate=30.0)
    for i in range(5):
        candidates = torch.linspace(-30, 30, 61)
        shown = torch.stack(
            [
                F.rotate(photos[i] / 255, a.item(), interpolation=F.InterpolationMode.BILINEAR)
                for a in candidates
            ]
        )
        inner = slice(6, 14)  # what a turn does not bring in from outside
        error = (shown - turned[i])[:, :, inner, inner].abs().mean((1, 2, 3))
        angle[i] = candidates[error.argmin()].item()
        assert error.min() < 0.015
    assert len(set(angle.values())) > 3


def test_a_resized_crop_shows_a_part_of_at_least_that_scale():
    ramp = torch.linspace(0, 1, 200)
    across, down = ramp.expand(200, 1, 1, 40, 200), ramp[:, None].expand(200, 1, 1, 200, 40)
    widths = varied(across[:, 0], random_resized_crop=0.25)[:, 0, 20].diff(dim=1).median(1).values * 199
    heights = varied(down[:, 0], random_resized_crop=0.25)[:, 0, :, 20].diff(dim=1).median(1).values * 199
    area, aspect = widths * heights, widths / heights
    assert area.min() > 0.2 and area.max() <= 1.001
    assert max(aspect.max(), 1 / aspect.min()) < 4 / 3 * 1.01


def test_jitter_agrees_with_torchvisions_for_the_factors_drawn(photos):
    factors = 1 + (uniform(fold_in(SEED, torch.arange(4)), 16)[:, 8:11] * 2 - 1) * 0.1
    dim = photos[:4] / 255 * 0.5 + 0.2  # nothing is clipped
    for image, result, (brightness, contrast, saturation) in zip(
        dim, varied(dim, jitter=0.1), factors.tolist()
    ):
        expected = F.adjust_brightness(image, brightness)
        expected = F.adjust_saturation(F.adjust_contrast(expected, contrast), saturation)
        torch.testing.assert_close(result, expected, rtol=0, atol=2e-3)  # its grey has rounded weights


def test_grayscale_stays_grayscale(photos):
    assert varied(photos[:, :1], **ALL).shape == (64, 1, 20, 20)


@pytest.mark.parametrize(
    ("words", "former", "value"),
    [
        (["data.name=folder", "data.augment.zoom=0.35"], "data.augment.zoom", 0.35),
        (["data.name=streaming", "data.fetched=chunks"], "data.fetched", "chunks"),
    ],
)
def test_settings_of_before_are_read_under_their_new_names(words, former, value, caplog):
    data = config.load(words).data
    assert value in (data.augment.random_resized_crop, getattr(data, "download_dir", None))
    assert f"the setting {former} is called" in caplog.text


def test_what_is_erased_is_torchvisions_rectangle_on_the_same_draws(monkeypatch):
    """The sizes of 300 rectangles, and that of the first that fits into an image of 6 x 30."""
    for seed in range(300):
        scale, log_aspect = torch.rand(2, 10, generator=torch.Generator().manual_seed(seed)).unbind()
        scale = 0.02 + 0.31 * scale
        log_aspect = math.log(0.3) + math.log(11) * log_aspect
        numbers = iter([value for pair in zip(scale, log_aspect) for value in pair])
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "uniform_", lambda *_, numbers=numbers: next(numbers).view(1))
            params = v2.RandomErasing().make_params([torch.zeros(3, 6, 30)])
        sides = erased_sides(scale, log_aspect, 6, 30)
        fitting = [side for side in sides.tolist() if side[0] < 6 and side[1] < 30]
        assert (fitting[0] if fitting else [6, 30]) == [params["h"], params["w"]]
        assert bool(fitting) == (params["v"] is not None)


def test_a_rectangle_of_the_mean_colour_is_erased_in_as_many_images_as_asked_for():
    images = torch.full((2000, 3, 12, 16), 0.9)
    indices, mean = torch.arange(2000), (0.2, 0.4, 0.6)
    erased = augment(images, indices, SEED, Augment(erasing=0.25), mean)
    changed = (erased != images).any(1)
    assert torch.equal(erased.movedim(1, -1)[changed].unique(dim=0), torch.tensor([mean]))
    assert 420 < changed.flatten(1).any(1).sum() < 580
    for mask in changed[changed.flatten(1).any(1)]:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        assert mask.sum() == len(rows) * len(columns) and rows.max() - rows.min() == len(rows) - 1
    always = augment(images, indices, SEED, Augment(erasing=1.0), mean) != images
    area = always.any(1).flatten(1).float().mean(1)
    assert area.min() > 0.01 and area.max() < 0.37  # sides are whole pixels
    assert area.mean() == pytest.approx(0.175, abs=0.01)
    assert always.any(1)[:, 0, 0].any() and always.any(1)[:, -1, -1].any()  # every corner is reached


@pytest.mark.parametrize(
    ("words", "channels", "batch_size", "problem"),
    [
        ({"randaugment": 2, "trivialaugment": True}, 3, 8, "trivialaugment: is True beside randaugment=2"),
        (
            {"randaugment": 2, "augmix": True},
            3,
            8,
            "augmix: is True beside randaugment=2, expected one policy",
        ),
        ({"augmix": True}, 4, 8, r"augmix: is True, but .* 1 or 3 channels, and these have 4"),
        ({"magnitude": 15}, 3, 8, r"magnitude: is 15, but data\.augment\.randaugment is off"),
        ({"augmix_width": 4}, 3, 8, r"augmix_width: is 4, but data\.augment\.augmix is off"),
        ({"repeats": 9}, 3, 8, r"repeats: is 9, expected at most the 8 of data\.batch_size"),
        ({"cutmix": 1.0}, 3, 1, r"cutmix: is 1\.0, but data\.batch_size=1 leaves no two to mix"),
    ],
)
def test_what_cannot_be_or_would_do_nothing_is_refused(words, channels, batch_size, problem):
    with pytest.raises(SettingError, match=problem):
        check_augment(Augment(**words), channels, batch_size)


def test_what_can_be_is_let_through():
    for words in ({"crop": 4, "mixup": 1.0}, {"erasing": 0.5, "repeats": 8}):
        check_augment(Augment(**words), 4, 8)
    check_augment(Augment(randaugment=1, magnitude=30), 1, 1)
