"""Pictures of one's own that dream and style read: as data sets read them, from 1 to many channels."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from vitrine.cli import dream, style
from vitrine.cli.images import prepare_image, read_image, write_image
from vitrine.core.settings import SettingError
from vitrine.datamodules.files import ImageFiles


@pytest.mark.parametrize("program", [dream, style])
def test_programs_have_the_settings_of_data(program):
    names = {field.name for field in dataclasses.fields(program.Settings)}
    assert {"range", "background", "exif", "show"} <= names


def test_a_picture_is_read_in_its_range_on_its_background_and_as_it_is_stored(tmp_path):
    numbers = np.arange(200, 200 + 6 * 4, dtype=np.int16).reshape(4, 6)
    np.save(tmp_path / "a.npy", numbers)
    settings = dream.Settings(range=[200.0, 223.0])
    image = read_image("image", str(tmp_path / "a.npy"), 1, None, 512, settings)
    assert abs(image[0, 0].numpy() - (numbers - 200) / 23).max() <= 0.5 / 255 + 1e-6
    with pytest.raises(SettingError, match=r"^image: .*a\.npy cannot .*range=\[low,high\]"):
        read_image("image", str(tmp_path / "a.npy"), 1, None, 512, dream.Settings())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGBA", (6, 4), (9, 9, 9, 0)).save(tmp_path / "b.png", exif=exif)
    upright = read_image("image", str(tmp_path / "b.png"), 3, None, 512, dream.Settings(background="red"))
    assert upright.shape == (1, 3, 6, 4) and upright[0, :, 0, 0].tolist() == [1, 0, 0]
    stored = read_image("image", str(tmp_path / "b.png"), 3, None, 512, dream.Settings(exif=False))
    assert stored.shape == (1, 3, 4, 6) and stored.min() == 1
    with pytest.raises(SettingError, match=r"^background: is 'no'"):
        read_image("image", str(tmp_path / "b.png"), 3, None, 512, dream.Settings(background="no"))


def test_a_picture_of_five_channels_is_read_resized_and_shown(tmp_path):
    numbers = np.zeros((8, 12, 5), np.uint8)
    numbers[..., :] = [0, 50, 100, 150, 200]
    np.save(tmp_path / "a.npy", numbers)
    settings = dream.Settings(show=[4, 2, 0])
    image = read_image("image", str(tmp_path / "a.npy"), 5, 6, 512, settings)
    assert image.shape == (1, 5, 4, 6)
    assert torch.equal(image[0, :, 0, 0] * 255, torch.tensor([0.0, 50, 100, 150, 200]))
    write_image(tmp_path / "a.png", image[0], settings.show)
    assert np.array(Image.open(tmp_path / "a.png"))[0, 0].tolist() == [200, 100, 0]
    with pytest.raises(SettingError, match=r"^show: is \[5\], expected one channel of 0 to 4"):
        read_image("image", str(tmp_path / "a.npy"), 5, 6, 512, dream.Settings(show=[5]))
    with pytest.raises(SettingError, match=r"^image: .*shape \[8, 12, 5\], expected"):
        read_image("image", str(tmp_path / "a.npy"), 3, 6, 512)


def test_a_picture_is_made_as_those_of_a_split_are_that_are_read_when_needed(tmp_path):
    Image.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / "wide.png")
    split = ImageFiles([], torch.zeros(0), 16, fit="letterbox")
    split.source = "s3://bucket/chunks"  # as that of streamed images
    data = SimpleNamespace(val=split, image_size=16, channels=3)
    image = prepare_image("image", str(tmp_path / "wide.png"), data)
    assert torch.equal(image[0], split.prepare(tmp_path / "wide.png") / 255)
    assert image[0, 1, 0, 0] == 1  # above it the white background
