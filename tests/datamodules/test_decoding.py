"""Pixels are those that a viewer shows, whatever the depth they are stored with, for every reader alike."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from vitrine.cli.images import read_image
from vitrine.core.random_numbers import make_key
from vitrine.core.settings import SettingError
from vitrine.datamodules.decoding import Decoding, UnreadableImage, to_tensor
from vitrine.datamodules.files import ImageFiles
from vitrine.datamodules.jpeg import read_plain_jpeg

RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
GRAY = (RAMP / 257).round().astype(np.uint8)  # white is 65535 = 255 * 257


def png(pixels: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits a channel, by its specification: no library here writes those in colour."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(pixels: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


GRAYS = {
    "16-bit PNG": png(RAMP, 0),
    "16-bit TIFF": saved(RAMP, "TIFF"),
    "16-bit TIFF, big-endian": saved(RAMP.astype(">u2"), "TIFF"),
    "16-bit TIFF, white is 0": saved(65535 - RAMP, "TIFF", tiffinfo={262: 0}),
    "16-bit JPEG 2000": saved(RAMP, "JPEG2000", irreversible=False),
    "16-bit PGM": b"P5 8 8 65535\n" + RAMP.astype(">u2").tobytes(),
    "12-bit PGM": b"P5 8 8 4095\n" + (RAMP / 65535 * 4095).round().astype(">u2").tobytes(),
    "float TIFF": saved((RAMP / 65535).astype(np.float32), "TIFF"),
    "8-bit PNG": saved(GRAY, "PNG"),
    "8-bit TIFF, white is 0": saved(GRAY, "TIFF", tiffinfo={262: 0}),
}


@pytest.mark.parametrize("kind", GRAYS)
@pytest.mark.parametrize("channels", [1, 3])
def test_gray_levels_of_any_depth_are_scaled_to_the_whole_range(tmp_path, kind, channels):
    pixels = np.array(Decoding(channels).decode(io.BytesIO(GRAYS[kind]), kind))
    expected = GRAY if channels == 1 else np.stack([GRAY] * 3, -1)
    assert pixels.dtype == np.uint8 and abs(pixels.astype(int) - expected).max() <= (kind == "12-bit PGM")

    file = tmp_path / "image"
    file.write_bytes(GRAYS[kind])
    image = torch.from_numpy(pixels if channels == 1 else pixels.transpose(2, 0, 1)).view(channels, 8, 8)
    assert torch.equal(ImageFiles([file], torch.zeros(1), 8, channels=channels)[0][0], image)
    assert torch.equal(read_image("image", str(file), channels, None, 512)[0], image / 255)


@pytest.mark.parametrize("colour", [2, 6])
def test_sixteen_bits_a_colour_are_scaled_alike(colour):
    pixels = np.random.default_rng(0).integers(0, 65536, (8, 8, {2: 3, 6: 4}[colour]), dtype=np.uint16)
    decoded = np.array(Decoding(3).decode(io.BytesIO(png(pixels, colour)), "x")).astype(float)
    shown = pixels[..., :3] / 257
    if colour == 6:
        alpha = pixels[..., 3:] / 65535
        shown = shown * alpha + 255 * (1 - alpha)
    assert abs(decoded - shown).max() <= 2


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        (np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8), "values from -1 to 1"),
        (np.linspace(0, 255, 64, dtype=np.float32).reshape(8, 8), "values from 0 to 255"),
        (np.full((8, 8), np.nan, np.float32), "values from nan to nan"),
        (np.arange(64, dtype=np.int32).reshape(8, 8), "32-bit"),
    ],
)
def test_values_without_a_known_white_are_refused_by_name(tmp_path, pixels, problem):
    file = tmp_path / "odd.tif"
    file.write_bytes(saved(pixels, "TIFF"))
    with pytest.raises(UnreadableImage, match=f"odd.tif cannot be read as an image .*{problem}"):
        Decoding(3).decode(file, file)
    with pytest.raises(SettingError, match=f"^content: .*odd.tif .*{problem}"):
        read_image("content", str(file), 3, None, 512)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_reader_sees_a_photograph_upright(tmp_path, orientation, kind):
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8, :8], upright[:8, 8:], upright[8:, :8] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    stored = {  # EXIF 2.3, tag 0x0112: where the 0th row and the 0th column of what is stored are seen
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "photograph"
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    file.write_bytes(saved(np.ascontiguousarray(stored), kind, exif=exif, **lossless))
    pixels = np.array(Decoding(3).decode(file, file)).astype(int)
    assert abs(pixels - upright).max() < 40
    image, _ = ImageFiles([file], torch.zeros(1), 16)[0]
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))
    assert torch.equal(read_image("image", str(file), 3, None, 512)[0] * 255, image)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_an_orientation_that_cannot_be_read_costs_no_image(tmp_path):
    file = tmp_path / "photograph.jpg"
    file.write_bytes(
        saved(np.full((8, 8, 3), 128, np.uint8), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09broken")
    )
    assert np.array(Decoding(3).decode(file, file)).mean() == pytest.approx(128, abs=1)


def jpeg(mode: str = "RGB", orientation: int = 1, **options) -> bytes:
    """A small photograph, of sides that JPEG's blocks do not divide."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    image = Image.fromarray(coarse).resize((53, 37), Image.Resampling.BICUBIC).convert(mode)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    image.save(buffer, "JPEG", exif=exif, **options)
    return buffer.getvalue()


JPEGS = {
    "4:2:0": jpeg(),
    "4:4:4": jpeg(subsampling=0),
    "progressive": jpeg(progressive=True),
    "stored as RGB": jpeg(keep_rgb=True),
    "gray": jpeg("L"),
    "CMYK": jpeg("CMYK"),
    "lies on its side": jpeg(orientation=6),
    "PNG": GRAYS["8-bit PNG"],
}


@pytest.mark.parametrize("exif", [True, False])
@pytest.mark.parametrize("kind", JPEGS)
def test_levels_are_pillows_pixels_by_whatever_way_they_are_decoded(kind, exif):
    data = JPEGS[kind]
    image = Image.open(io.BytesIO(data))
    expected = (ImageOps.exif_transpose(image) if exif else image).convert("RGB")
    levels = Decoding(exif=exif).levels(io.BytesIO(data), "it")
    assert torch.equal(levels, v2.functional.pil_to_tensor(expected))


def test_only_a_plain_colour_jpeg_goes_past_pillow(tmp_path):
    (tmp_path / "it.jpg").write_bytes(jpeg())
    assert read_plain_jpeg(tmp_path / "it.jpg").shape == (3, 37, 53)
    for data in (jpeg("L"), jpeg("CMYK"), jpeg(orientation=6), GRAYS["8-bit PNG"], jpeg()[:-60], b""):
        assert read_plain_jpeg(io.BytesIO(data)) is None


@pytest.mark.parametrize("damaged", [jpeg()[:-60], jpeg()[:200], b"\xff\xd8\xff", b""])
def test_a_damaged_jpeg_is_refused_by_name_by_either_way(damaged):
    for read in (Decoding().levels, Decoding().decode):
        with pytest.raises(UnreadableImage, match=r"^photo\.jpg cannot be read as an image \("):
            read(io.BytesIO(damaged), "photo.jpg")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_a_random_crop_is_torchvisions_of_pillows_image_but_for_rounding(tmp_path, interpolation):
    (tmp_path / "it.jpg").write_bytes(data := jpeg())
    options = {"interpolation": interpolation, "min_scale": 0.2}
    images = ImageFiles([tmp_path / "it.jpg"] * 4, torch.zeros(4), 16, **options)
    crop = v2.RandomResizedCrop(16, (0.2, 1.0), interpolation=images.interpolation)
    for index in range(4):
        torch.manual_seed(make_key(7, index))
        expected = to_tensor(crop(Image.open(io.BytesIO(data)))).int()
        differences = (images.training_item(index, 7)[0].int() - expected).abs()
        assert differences.max() <= (interpolation in ("bilinear", "bicubic"))
