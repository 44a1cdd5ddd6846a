"""What makes squares of images that are none: of every kind of image, in validation and in training."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from vitrine.core.settings import SettingError
from vitrine.datamodules.decoding import Decoding
from vitrine.datamodules.files import ImageFiles
from vitrine.datamodules.folder import Folder, FolderSettings

SHAPES = [(48, 20), (20, 48), (32, 32), (7, 40), (90, 66), (3, 100)]  # width, height
GROUND = (200, 30, 90)


def split(tmp_path, shape, side, channels=3, **options):
    image = np.random.default_rng(0).integers(0, 256, (shape[1], shape[0], channels), dtype=np.uint8)
    file = tmp_path / ("a.npy" if channels > 3 else "a.png")
    if channels > 3:
        np.save(file, image)
    else:
        Image.fromarray(image.squeeze()).save(file)
    decoding = Decoding(channels, background=GROUND)
    return ImageFiles([file], torch.zeros(1), side, decoding=decoding, **options), Image.fromarray(
        image[..., :3].squeeze()
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_letterbox_is_pillows_on_the_background(tmp_path, shape, channels):
    images, image = split(tmp_path, shape, 32, channels, fit="letterbox")
    ground = GROUND if channels == 3 else round(0.299 * GROUND[0] + 0.587 * GROUND[1] + 0.114 * GROUND[2])
    colour = (ground,) * 3 if channels == 4 else ground
    ours = images[0][0].permute(1, 2, 0).squeeze().numpy().astype(int)
    fitted = ImageOps.contain(image, (32, 32), Image.Resampling.BILINEAR)
    left, top = (32 - fitted.width) // 2, (32 - fitted.height) // 2
    expected = Image.new(image.mode, (32, 32), colour)
    expected.paste(fitted, (left, top))
    # of four channels torchvision resizes, which rounds in another way
    assert abs(ours[..., :3] - np.array(expected) if channels == 4 else ours - np.array(expected)).max() <= (
        channels == 4
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_stretched_images_are_pillows(tmp_path, shape, channels):
    images, image = split(tmp_path, shape, 32, channels, fit="stretch")
    expected = np.array(image.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    ours = (
        images[0][0].permute(1, 2, 0).squeeze().numpy()[..., :3] if channels > 1 else images[0][0][0].numpy()
    )
    assert abs(ours - expected).max() <= (channels == 4)


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
def test_random_crops_are_of_what_validation_sees(tmp_path, fit):
    images, _ = split(tmp_path, (40, 20), 16, fit=fit, min_scale=0.3)
    items = torch.stack([images.training_item(0, seed)[0] for seed in range(40)])
    assert torch.equal(items, torch.stack([images.training_item(0, seed)[0] for seed in range(40)]))
    assert items.shape == (40, 3, 16, 16) and len(items.unique(dim=0)) > 20
    bars = (items == torch.tensor(GROUND)[:, None, None]).all(1).any(2).any(1)
    assert bars.any() == (fit == "letterbox")


def test_a_fit_that_crops_nothing_takes_no_resize(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (30 + i, 20)).save(tmp_path / name / f"{i}.png")
    root = {"root": str(tmp_path), "image_size": 16}
    with pytest.raises(SettingError, match=r"^data.resize: is 20, but data.fit=letterbox crops nothing"):
        Folder(FolderSettings(**root, fit="letterbox", resize=20)).setup()
    data = Folder(FolderSettings(**root, fit="letterbox", background="#c81e5a"))
    data.setup()
    assert data.train[0][0][:, 0, 0].tolist() == list(GROUND) and data.train[0][0][:, 8, 8].tolist() == [
        0,
        0,
        0,
    ]
