"""A folder of images whose class folders were renamed: what a run learned is not read under other names."""

import numpy as np
import pytest
from PIL import Image

from vitrine.cli import analyze, train
from vitrine.core.settings import SettingError

pytestmark = pytest.mark.slow
SMALL = [
    "data.name=folder",
    "data.image_size=8",
    "data.batch_size=4",
    "data.workers=0",
    "data.val_fraction=0.25",
    "model.options={widths: [4]}",
    "trainer.max_steps=1",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "analysis.mode=off",
    "logging.wandb.mode=disabled",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on cats and dogs, whose cats are called z_cat since: the folders are in another order."""
    root = tmp_path_factory.mktemp("renamed")
    for label, name in enumerate(("cat", "dog")):
        (root / "pics" / name).mkdir(parents=True)
        for i in range(4):
            levels = np.full((8, 8, 3), 100 * label + i, np.uint8)
            Image.fromarray(levels).save(root / "pics" / name / f"{i}.png")
    train.main([*SMALL, f"data.root={root / 'pics'}", f"run.root={root}", "run.name=pets"])
    (root / "pics/cat").rename(root / "pics/z_cat")
    return root / "pets"


def test_a_run_does_not_go_on_with_its_labels_swapped(run):
    before = sorted(run.rglob("*"))
    with pytest.raises(SettingError, match="label 0 is 'dog', and was 'cat'") as caught:
        train.main([f"run.root={run.parent}", "run.name=pets", "run.resume=true", "trainer.max_steps=2"])
    assert caught.value.key == "data" and sorted(run.rglob("*")) == before


def test_a_run_is_not_analyzed_with_its_labels_swapped(run):
    with pytest.raises(SettingError, match="label 0 is 'dog', and was 'cat'"):
        analyze.main([str(run), "analysis.mode=train"])
