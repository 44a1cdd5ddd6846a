"""The image files that people have: what the format's own library reads, scaled as stated, or refused."""

import io
import logging
import struct
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from vitrine.datamodules import decoding as decoding_module
from vitrine.datamodules.decoding import Decoding, UnreadableImage, missing_codec
from vitrine.datamodules.folder import Folder, FolderSettings
from vitrine.datamodules.levels import scale_levels

tifffile = pytest.importorskip("tifffile")
GENERATOR = np.random.default_rng(0)


def tiff(numbers: np.ndarray, **options) -> io.BytesIO:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, numbers, **options)
    return buffer


def npy(numbers: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    np.save(buffer, numbers)
    return buffer


def saved(image: Image.Image, kind: str, **options) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer


def pixels(decoding: Decoding, file: io.BytesIO) -> np.ndarray:
    image = decoding.decode(file, "x")
    return image.numpy() if isinstance(image, torch.Tensor) else np.array(image)


def window(numbers: np.ndarray, low: float, high: float) -> np.ndarray:
    """Each number's level, one by one, by exact arithmetic."""
    span, levels = Fraction(high) - Fraction(low), []
    for number in numbers.ravel().tolist():
        level = (Fraction(number) - Fraction(low)) / span * 255
        levels.append(round(min(max(level, Fraction(0)), Fraction(255))))
    return np.array(levels, np.uint8).reshape(numbers.shape)


RANGES = {  # of each type: the numbers that files hold, and a window among them
    "uint8": (0, 255, (50, 180)),
    "uint16": (0, 4095, (0, 4095)),
    "uint32": (0, 4_000_000_000, (1000, 3_999_000_000)),
    "uint64": (0, 2**40, (0, 2**39)),
    "int8": (-128, 127, (-100, 100)),
    "int16": (-1024, 3071, (-160, 240)),  # Hounsfield units, soft tissue
    "int32": (-70_000, 70_000, (-50_000, 60_000)),
    "float16": (-2, 2, (-1, 1)),
    "float32": (-0.1, 1.2, (0, 0.3)),
    "float64": (-1e9, 1e9, (-1e8, 1e9)),
}


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_stated_range_is_black_to_white_whatever_the_type(kind, order):
    low, high, stated = RANGES[kind]
    numbers = np.linspace(low, high, 63).astype(kind).reshape(9, 7)
    expected = window(numbers, *stated).astype(int)
    assert len(np.unique(expected)) > 5
    for file in (tiff(numbers, byteorder=order), npy(numbers.astype(np.dtype(kind).newbyteorder(order)))):
        assert abs(pixels(Decoding(1, stated), file) - expected).max() <= (kind == "float32")
        colour = pixels(Decoding(3, stated), file)
        assert abs(colour - expected[..., None]).max() <= (kind == "float32")


def test_bits_of_a_known_white_are_scaled_by_their_whole_range():
    numbers = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040  # to 65520
    for file in (tiff(numbers), npy(numbers), tiff(65535 - numbers, photometric="miniswhite")):
        assert np.array_equal(pixels(Decoding(1), file), window(numbers, 0, 65535))
    for floats in ("float16", "float32", "float64"):
        for write in (tiff, npy):
            shares = (numbers / 65535).astype(floats)
            assert abs(pixels(Decoding(1), write(shares)) - shares.astype(float) * 255).max() <= 0.5001
    assert np.array_equal(pixels(Decoding(1), npy(numbers > 30000)), (numbers > 30000) * np.uint8(255))


def test_twelve_bits_of_a_tiff_are_white_at_4095():
    numbers = np.linspace(0, 4095, 64).round().astype(int).reshape(8, 8)
    bits = "".join(f"{number:012b}" for number in numbers.ravel())  # packed, by TIFF 6.0
    strip = int(bits, 2).to_bytes(len(bits) // 8, "big")
    tags = {256: 8, 257: 8, 258: 12, 259: 1, 262: 1, 273: 8 + 2 + 12 * 9 + 4, 277: 1, 278: 8, 279: len(strip)}
    directory = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    file = io.BytesIO(b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + directory + bytes(4) + strip)
    assert np.array_equal(pixels(Decoding(1), file), window(numbers, 0, 4095))
    assert np.array_equal(pixels(Decoding(1, (100, 2000)), file), window(numbers, 100, 2000))


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "uint32", "uint64", "int64"])
@pytest.mark.parametrize("write", [tiff, npy])
def test_integers_whose_white_is_not_known_are_refused(kind, write):
    with pytest.raises(
        UnreadableImage, match=rf"^x cannot .*{kind[-2:].lstrip('t')}-bit.*range=\[low,high\]"
    ):
        Decoding(1).decode(write(np.ones((4, 4), kind)), "x")


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        (np.array([[np.nan, 1]], np.float32), "not finite"),
        (np.array([[np.inf, 1]], np.float32), "not finite"),
        (np.array([[1, 2]], np.uint8), r"0 to 255, which range=\[-5,4095\] exceeds"),
        (np.array([[1, 2]], np.complex64), "complex64"),
        (np.array([["a", "b"]]), "expected numbers"),
        (np.array([[{}, None]]), "allow_pickle"),
        (np.ones(8, np.uint8), r"shape \[8\], expected \[H, W"),
        (np.ones((2, 3, 4, 5), np.uint8), r"shape \[2, 3, 4, 5\]"),
        (np.ones((3, 5, 3), np.uint8), "either end"),
    ],
)
def test_arrays_that_are_no_image_of_that_range_are_refused(numbers, problem):
    with pytest.raises(UnreadableImage, match=problem):
        Decoding(3, (-5, 4095)).decode(npy(numbers), "x")


def test_eight_bits_a_colour_are_stretched_alike_and_alpha_is_not():
    colours = GENERATOR.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    stated = (20, 200)
    expected = window(colours, *stated)
    assert np.array_equal(pixels(Decoding(3, stated), saved(Image.fromarray(colours), "PNG")), expected)
    alpha = np.full((6, 5, 1), 255, np.uint8)
    image = Image.fromarray(np.concatenate([colours, alpha], 2))
    assert np.array_equal(pixels(Decoding(3, stated), saved(image, "PNG")), expected)
    planes = pixels(Decoding(4, stated), saved(image, "PNG"))
    assert np.array_equal(planes[:3], expected.transpose(2, 0, 1)) and (planes[3] == 255).all()
    indexed = Image.fromarray(colours).quantize(8)
    shown = np.array(indexed.convert("RGB"))
    assert np.array_equal(pixels(Decoding(3, stated), saved(indexed, "PNG")), window(shown, *stated))
    with pytest.raises(UnreadableImage, match=r"8 bits each, 0 to 255, which range=\[0,4095\] exceeds"):
        Decoding(3, (0, 4095)).decode(saved(indexed, "PNG"), "x")


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 13])
def test_tiffs_of_many_channels_are_those_that_tifffile_reads(count, kind, planar):
    numbers = GENERATOR.random((count, 7, 6))
    whites = {"uint8": 255, "uint16": 65535, "float32": 1}
    numbers = (numbers * whites[kind]).astype(kind)
    stored = numbers if planar == "separate" else np.moveaxis(numbers, 0, 2)
    file = tiff(stored, planarconfig=planar, photometric="rgb" if count == 3 else "minisblack")
    read = tifffile.imread(io.BytesIO(file.getvalue()))
    assert np.array_equal(read if planar == "separate" else np.moveaxis(read, 2, 0), numbers)
    expected = window(numbers, 0, whites[kind]).astype(int)
    image = pixels(Decoding(count), file)
    image = image.transpose(2, 0, 1) if count == 3 else image
    # Pillow takes the higher byte of 16 bits a colour
    assert abs(image - expected).max() <= (kind == "float32" or (count == 3 and kind == "uint16"))
    if count == 3 and kind == "uint16":
        stated = pixels(Decoding(3, (0, 4095)), file).transpose(2, 0, 1)
        assert np.array_equal(stated, window(numbers, 0, 4095))
    with pytest.raises(UnreadableImage, match=f"{count} channels, expected 7|unknown raw mode"):
        Decoding(7).decode(file, "x")


def test_pages_are_channels_where_they_are_as_many_and_else_the_first_is_read(caplog):
    numbers = GENERATOR.integers(0, 256, (4, 7, 6), dtype=np.uint8)
    file = tiff(numbers, photometric="minisblack")
    assert np.array_equal(pixels(Decoding(4), file), numbers)
    decoding_module._said.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert np.array_equal(pixels(Decoding(1), file), numbers[0])
    assert [record.message for record in caplog.records] == [
        "x has several frames or pages; the first is read, as of every TIFF (said once)"
    ]


@pytest.mark.parametrize("order", ["HWC", "CHW"])
@pytest.mark.parametrize("count", [2, 3, 4, 13])
def test_arrays_have_their_channels_at_either_end(count, order):
    numbers = GENERATOR.integers(0, 256, (count, 7, 6), dtype=np.uint8)
    image = pixels(Decoding(count), npy(numbers if order == "CHW" else np.moveaxis(numbers, 0, 2)))
    assert np.array_equal(image.transpose(2, 0, 1) if count == 3 else image, numbers)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_read(kind, caplog):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    file = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    decoding_module._said.clear()
    with caplog.at_level(logging.WARNING):
        assert (pixels(Decoding(3), file) == [255, 0, 0]).all()
    assert f"as of every {kind}" in caplog.text


GROUND = (0, 100, 200)


def blended(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colours * share + np.array(GROUND) * (1 - share)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG2000"])
def test_the_background_is_seen_through_transparent_parts(kind):
    colours, alpha = (GENERATOR.integers(0, 256, shape, dtype=np.uint8) for shape in ((6, 5, 3), (6, 5)))
    alpha[0], alpha[1] = 0, 255
    lossless = {"WEBP": {"lossless": True, "exact": True}, "JPEG2000": {"irreversible": False}}.get(kind, {})
    file = saved(Image.fromarray(np.dstack([colours, alpha])), kind, **lossless)
    image = pixels(Decoding(3, background=GROUND), file)
    assert abs(image - blended(colours, alpha)).max() <= 1
    assert (image[0] == GROUND).all() and np.array_equal(image[1], colours[1])
    assert (pixels(Decoding(3), file)[0] == 255).all()
    assert np.array_equal(pixels(Decoding(4), file), np.dstack([colours, alpha]).transpose(2, 0, 1))


def test_a_background_shows_through_palettes_keys_and_gray_levels():
    palette, alpha = GENERATOR.integers(0, 256, (4, 3), dtype=np.uint8), np.array([0, 90, 255, 255], np.uint8)
    numbers = GENERATOR.integers(0, 4, (6, 5), dtype=np.uint8)
    indexed = Image.fromarray(numbers).convert("P")
    indexed.putpalette(palette.tobytes())
    file = saved(indexed, "PNG", transparency=alpha.tobytes())
    shown = blended(palette[numbers], alpha[numbers])
    assert abs(pixels(Decoding(3, background=GROUND), file) - shown).max() <= 1
    keyed = blended(palette[numbers], (numbers != 3) * 255)
    for kind in ("PNG", "GIF"):
        assert np.array_equal(
            pixels(Decoding(3, background=GROUND), saved(indexed, kind, transparency=3)), keyed
        )
    gray = Image.merge("LA", [Image.fromarray(numbers * np.uint8(60)), Image.fromarray(alpha[numbers])])
    luma = 0.299 * GROUND[0] + 0.587 * GROUND[1] + 0.114 * GROUND[2]
    share = alpha[numbers] / 255
    for kind in ("PNG", "TIFF"):
        image = pixels(Decoding(1, background=GROUND), saved(gray, kind))
        assert abs(image - (numbers * 60.0 * share + luma * (1 - share))).max() <= 1.5
    deep = Image.fromarray(numbers.astype(np.uint16) * 20000)
    image = pixels(Decoding(1, background=GROUND), saved(deep, "PNG", transparency=20000))
    assert np.array_equal(image, np.where(numbers == 1, round(luma), np.rint(numbers * (20000 / 257))))


def test_black_and_white_are_0_and_255():
    drawn = GENERATOR.random((6, 5)) > 0.5
    for kind in ("PNG", "TIFF", "BMP", "GIF"):
        file = saved(Image.fromarray(drawn), kind)
        assert np.array_equal(pixels(Decoding(1), file), drawn * np.uint8(255))


def adobe(inks: np.ndarray, transform: int) -> io.BytesIO:
    """A JPEG of inks [H, W, 4], inverted as Adobe's; 2: marked as YCCK, of which they are then the parts."""
    content = bytearray(saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=100, subsampling=0).getvalue())
    place = content.index(b"Adobe")
    assert content[place - 4 : place - 2] == b"\xff\xee"
    content[place + 11] = transform
    return io.BytesIO(bytes(content))


def test_printing_colours_of_adobe_are_no_negative():
    inks = np.tile(np.array([30, 120, 200, 40], np.uint8), (16, 16, 1))
    shown = (255 - inks[0, 0, :3].astype(float)) * (255 - inks[0, 0, 3]) / 255
    for file in (adobe(inks, 0), saved(Image.fromarray(inks, "CMYK"), "TIFF")):
        assert abs(pixels(Decoding(3), file) - shown).max() <= 4
    # what is stored, 255 - inks, are now Y, Cb, Cr of the inks (JFIF), and k: what black lets through
    y, cb, cr, k = (255 - inks[0, 0].astype(float)).tolist()
    cyan_magenta_yellow = np.array(
        [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)]
    )
    shown = (255 - cyan_magenta_yellow.clip(0, 255)) * k / 255
    assert abs(pixels(Decoding(3), adobe(inks, 2)) - shown).max() <= 6


def in_lab(lab: np.ndarray) -> io.BytesIO:
    stored = np.array([round(lab[0] * 2.55), int(lab[1]), int(lab[2]) & 255], np.uint8)
    return tiff(np.tile(stored, (4, 4, 1)), photometric="cielab")


def test_lab_is_shown_in_colour():
    lab = np.array([60.0, 20.0, -30.0])  # CIE 1976, of D50
    file = in_lab(lab)
    fy = (lab[0] + 16) / 116
    f = np.array([fy + lab[1] / 500, fy, fy - lab[2] / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1, 0.8249]
    to_srgb = [  # Lindbloom: of D50, adapted by Bradford
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.clip(np.array(to_srgb) @ xyz, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert abs(pixels(Decoding(3), file) - srgb).max() <= 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["CMYK", "CMYK of Adobe", "LAB", "YCbCr"])
def test_a_range_is_of_what_printing_colours_and_lab_are_shown_as(kind, channels):
    inks = GENERATOR.integers(0, 256, (16, 16, 4), dtype=np.uint8)
    stored = Image.fromarray(inks, "CMYK") if kind == "CMYK" else Image.fromarray(inks[..., :3], "YCbCr")
    files = {"CMYK of Adobe": lambda: adobe(inks, 2), "LAB": lambda: in_lab(np.array([60.0, 20.0, -30.0]))}
    file = files.get(kind, lambda: saved(stored, "TIFF"))()
    shown = np.array(Image.fromarray(window(pixels(Decoding(3), file), 50, 200)).convert("RGB"))
    expected = shown if channels == 3 else np.array(Image.fromarray(shown).convert("L"))
    assert np.array_equal(pixels(Decoding(channels, (50, 200)), file), expected)
    if kind == "CMYK":
        planes = pixels(Decoding(4, (50, 200)), file)
        assert np.array_equal(planes, window(inks, 50, 200).transpose(2, 0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_range_leaves_what_is_transparent_by_its_key(channels):
    levels = np.array([[40, 20, 30, 90]], np.uint8)  # of which 20 and 30 become black
    image = Image.fromarray(levels if channels == 1 else np.stack([levels] * 3, -1))
    for key, expected in ((20, [28, 7, 0, 170]), (90, [28, 0, 0, 7]), (0, [28, 0, 0, 170])):
        file = saved(image, "PNG", transparency=key if channels == 1 else (key,) * 3)
        found = pixels(Decoding(channels, (30, 120), background=(7, 7, 7)), file)
        assert found.reshape(4, channels)[:, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_told_to_leave_the_orientation_a_reader_sees_what_is_stored(kind, orientation):
    stored = np.zeros((8, 16, 3), np.uint8)
    stored[:4, :8], stored[:4, 8:], stored[4:, :8] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    image = Image.fromarray(stored)
    file = saved(image, kind, exif=exif, **lossless)
    assert abs(pixels(Decoding(3, exif=False), file).astype(int) - stored).max() < 40
    upright = pixels(Decoding(3), file)
    assert (upright.shape[0] == 16) == (orientation >= 5)
    if kind == "TIFF":  # read by tifffile, it is the same
        numbers = np.dstack([stored, stored[..., 0] * 3])
        tag = [(274, 3, 1, orientation, True)]
        four = tiff(
            numbers.astype(np.uint16) * 257, photometric="minisblack", planarconfig="contig", extratags=tag
        )
        assert np.array_equal(pixels(Decoding(4), four)[:3], upright.transpose(2, 0, 1))
        assert np.array_equal(pixels(Decoding(4, exif=False), four)[:3], stored.transpose(2, 0, 1))


def test_what_pillow_lacks_on_this_machine_is_said(tmp_path: Path, monkeypatch):
    (tmp_path / "a.avif").write_bytes(b"\0\0\0 ftypavif nothing that anybody reads")
    monkeypatch.setattr(features, "check", lambda codec: codec != "avif")
    assert missing_codec(".AVIF") == "avif" and missing_codec(".webp") is None
    with pytest.raises(UnreadableImage, match=r"a\.avif cannot be read .*Pillow was built without avif"):
        Decoding(3).decode(tmp_path / "a.avif", tmp_path / "a.avif")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(UnreadableImage, match=r'pip install "vitrine\[tiff\]"'):
        Decoding(4).decode(tiff(np.ones((4, 4, 5), np.uint8), photometric="minisblack"), "x")


def test_a_range_that_looks_like_a_mistake_is_said_once(caplog):
    decoding_module._said.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            Decoding(1).decode(npy(np.full((4, 4), 4000, np.uint16)), "dark.npy")
            Decoding(1, (0, 1)).decode(npy(np.full((4, 4), 800.0)), "beyond.npy")
    assert [record.message for record in caplog.records] == [
        "dark.npy has 16 bits, but no number above 4000, and is dark: range=[0,4095] would make that white "
        "(said once)",
        "all of beyond.npy is at one end of range=[0,1]: it has numbers from 800 to 800 (said once)",
    ]


def test_a_table_of_levels_is_that_of_exact_arithmetic():
    numbers = np.arange(0, 65536, 7, dtype=np.uint16)
    assert np.array_equal(scale_levels(numbers, (10, 60000)), window(numbers, 10, 60000))


def test_a_header_that_announces_too_much_is_refused_with_what_to_do():
    content = bytearray(saved(Image.new("1", (8, 8)), "BMP").getvalue())
    content[18:26] = struct.pack("<ii", 60_000, 60_000)
    with pytest.raises(UnreadableImage, match="more than 178,956,970 pixels: scale it down first"):
        Decoding(3).decode(io.BytesIO(bytes(content)), "x")


def test_files_without_a_codec_are_counted_and_named(tmp_path: Path, monkeypatch, caplog):
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            np.save(tmp_path / split / name / "0.npy", np.full((8, 8), 200, np.uint8))
            for suffix in ("JPEG", "GIF", "AVIF", "JPEG2000", "TIFF", "WEBP"):
                ending = {"JPEG": "JFIF", "JPEG2000": "jp2", "TIFF": "tif"}.get(suffix, suffix.lower())
                Image.new("L", (8, 8), 200).save(tmp_path / split / name / f"1.{ending}", suffix)
    data = Folder(FolderSettings(root=str(tmp_path), channels=1))
    data.setup()
    assert len(data.train) == 14 and data.train.images.sub(200.0).abs().max() <= 2 and not caplog.text
    monkeypatch.setattr(features, "check", lambda codec: codec != "avif")
    data = Folder(FolderSettings(root=str(tmp_path), channels=1))
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert len(data.train) == 12
    assert "4 files that are no images by name (4 .avif, as Pillow here has no avif)" in caplog.text
