"""Images of more channels than a photograph has, from file to picture."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from vitrine.analyses import ANALYSES
from vitrine.core.settings import SettingError
from vitrine.datamodules.augment import Augment
from vitrine.datamodules.folder import Folder, FolderSettings
from vitrine.datamodules.number_files import read_planes
from vitrine.examination.examiner import Examiner
from vitrine.examination.settings import AnalysisSettings
from vitrine.modules import load_network
from vitrine.runs.store import Store

CHANNELS = 5


@pytest.fixture
def root(tmp_path):
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, name in enumerate("ab"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(4):
                image = (
                    generator.integers(0, 100, (CHANNELS, 16, 16)) + 40 * np.arange(CHANNELS)[:, None, None]
                )
                image[label] += 50
                np.save(tmp_path / split / name / f"{i}.npy", image.astype(np.uint16))
    return tmp_path


def settings(root, **more):
    return FolderSettings(**{"root": str(root), "channels": CHANNELS, "range": [0.0, 400.0], **more})


@pytest.mark.parametrize("cache", ["always", "never"])
def test_a_folder_of_arrays_is_read_with_statistics_per_channel(root, cache):
    data = Folder(settings(root, cache=cache))
    data.setup()
    files = sorted((root / "train").rglob("*.npy"))
    numbers = np.stack([np.load(file) for file in files]) / 400
    assert data.channels == CHANNELS and data.image_size == 16 and data.train.in_memory == (cache == "always")
    images = data.train.batch(torch.arange(8))[0]
    assert abs(images.numpy() / 255 - numbers).max() <= 0.5 / 255 + 1e-9
    assert data.mean == pytest.approx(numbers.mean((0, 2, 3)), abs=1e-3)
    assert data.std == pytest.approx(numbers.std((0, 2, 3)), abs=1e-3)
    shown = {"image size": "16, as the files have it", "pictures show": "channels 0 1 2 of 0 to 4"}
    assert data.shown == (0, 1, 2) and data.facts() == shown


def test_every_technique_of_a_run_shows_the_chosen_channels(root, tmp_path):
    data = Folder(settings(root, show=[4, 2, 0]))
    data.setup()
    network = load_network(
        "convnet", classes=2, channels=CHANNELS, mean=data.mean, std=data.std, widths=[4, 4]
    )
    analyses = {
        name: ANALYSES[name]() for name in ("weights", "examples", "cam", "saliency", "unit_saliency")
    }
    analyses["features"] = ANALYSES["features"](steps=2)
    analyses["adversarial"] = ANALYSES["adversarial"]()
    store = Store(tmp_path / "run")
    examiner = Examiner(analyses, data, AnalysisSettings(probes=1, units=1, strict=True), store)
    report = examiner.examine(network, 1)
    assert not report.failures and set(report.results) == set(analyses)
    figure = report.results["saliency"].figures[0]
    shown = data.val[data.val.labels.tolist().index(figure.label)][0][[4, 2, 0]]
    tile = shown.permute(1, 2, 0).repeat_interleave(8, 0).repeat_interleave(8, 1)
    assert contains(figure.image, tile)


def contains(image, part):
    height, width = part.shape[:2]
    places = (image[: -height + 1, : -width + 1] == part[0, 0]).all(2).nonzero().tolist()
    return any(torch.equal(image[y : y + height, x : x + width], part) for y, x in places)


@pytest.mark.parametrize(
    ("more", "key", "problem"),
    [
        ({"show": [0, 5, 1]}, "data.show", "expected one channel of 0 to 4, or three"),
        ({"show": [0, 1]}, "data.show", "or three"),
        ({"show": [0], "channels": 3}, "data.show", "are shown whole; expected null"),
        ({"range": [5.0, 5.0]}, "data.range", "the lower first"),
        ({"range": [1.0]}, "data.range", "expected \\[low, high\\]"),
        ({"background": "whit"}, "data.background", "expected a colour"),
        ({"background": "#ffffff80"}, "data.background", "expected a colour"),
        ({"interpolation": "lanczos"}, "data.interpolation", "expected bilinear or bicubic"),
        ({"normalize": "imagenet"}, "data.normalize", "3 channels, not 5"),
        ({"channels": 4}, "data.root", "shape \\[5, 16, 16\\], expected \\[H, W, 4\\] or \\[4, H, W\\]"),
        ({"range": None, "channels": 3}, "data.root", "expected \\[H, W, 3\\]"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(root, more, key, problem):
    with pytest.raises(SettingError, match=problem) as refusal:
        Folder(settings(root, image_size=16, **more)).setup()
    assert refusal.value.key == key and "\n" not in str(refusal.value)


def test_augmentation_of_colours_leaves_other_channels_apart(root):
    data = Folder(settings(root, augment=Augment(jitter=0.4, flip=True, crop=2, rotate=10, cutout=4)))
    data.setup()
    batch = next(iter(data.train_dataloader()))
    images = data.preprocess(batch, train=True).images
    assert images.shape == batch.images.shape and images.min() >= 0 and images.max() <= 1


class Cycle:
    """What only the garbage collector frees, which runs Python then: another thread may go on."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        for _ in range(50):
            pass


def test_threads_read_arrays_at_once_whenever_garbage_is_collected(root):
    file, threshold, interval = root / "train" / "a" / "0.npy", gc.get_threshold(), sys.getswitchinterval()

    def read(_):
        for _ in range(5):
            Cycle()
        return read_planes(file, CHANNELS, exif=False).numbers.shape

    gc.set_threshold(20)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert set(threads.map(read, range(1000))) == {(CHANNELS, 16, 16)}
    finally:
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
