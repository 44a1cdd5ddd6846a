"""The promises once more with the real network, module and analyses, as train.py puts them together."""

import shutil
from pathlib import Path

import lightning
import pytest
import tiny
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from vitrine.analyses import ANALYSES
from vitrine.callbacks.analyze_run import AnalyzeRun
from vitrine.callbacks.checkpoints import CheckpointSettings, model_checkpoints
from vitrine.callbacks.resume import ExactResume
from vitrine.datamodules.memory import InMemory
from vitrine.examination.examiner import Examiner, weights_hash
from vitrine.examination.settings import AnalysisSettings
from vitrine.examination.summary import summarize
from vitrine.modules import Classifier, OptimizerSettings, load_checkpoint, load_network
from vitrine.modules.objectives.standard import Standard
from vitrine.runs.checkpoint_files import last_good_checkpoint
from vitrine.runs.checkpoint_io import AtomicCheckpointIO
from vitrine.runs.metrics_csv import MetricsCSV
from vitrine.runs.store import Store

NAMES = ("weights", "examples")
SETTINGS = AnalysisSettings(units=2, probes=2)


class Data(tiny.TinyData):
    """32 pixels a side."""

    def _draw(self, count: int, seed: int) -> InMemory:
        split = super()._draw(count, seed)
        return InMemory(split.images.repeat_interleave(4, 2).repeat_interleave(4, 3), split.labels)


class StopAt(lightning.Callback):
    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.callbacks = []
            raise ConnectionAbortedError


def train(run_dir: Path, names=NAMES, extra=(), resume=False):
    lightning.seed_everything(1, verbose=False)
    data = Data(4)
    data.setup()
    network = load_network("convnet", classes=data.classes, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    module = Classifier(network, Standard(), OptimizerSettings(), data.classes)
    writing = model_checkpoints(run_dir, CheckpointSettings(every_steps=3, monitor="val/accuracy"))
    callback = AnalyzeRun(run_dir, {name: ANALYSES[name]() for name in names}, SETTINGS)
    lightning.Trainer(
        max_epochs=2,
        callbacks=[ExactResume(), EMAWeightAveraging(decay=0.9), *extra, *writing, callback],
        logger=MetricsCSV(run_dir),
        plugins=[AtomicCheckpointIO()],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=2,
        use_distributed_sampler=False,
    ).fit(
        module,
        datamodule=data,
        ckpt_path=last_good_checkpoint(run_dir) if resume else None,
        weights_only=True,
    )
    return network, callback


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole")
    network, callback = train(run_dir)
    assert callback.reports
    assert "none failed" in summarize(callback.reports)
    return run_dir, tiny.weights(network)


def test_analyses_change_nothing(run, tmp_path):
    assert tiny.weights(train(tmp_path, names=())[0]) == run[1]


@pytest.mark.slow
def test_a_run_cut_off_ends_in_the_same_weights_metrics_and_pictures(run, tmp_path):
    with pytest.raises(ConnectionAbortedError):
        train(tmp_path, extra=(StopAt(7),))
    assert tiny.weights(train(tmp_path, resume=True)[0]) == run[1]
    assert (tmp_path / "metrics.csv").read_text() == (run[0] / "metrics.csv").read_text()
    assert same_pictures(Store(tmp_path), Store(run[0]), Store(run[0]).steps())


def test_the_checkpoint_alone_gives_the_same_pictures(run, tmp_path):
    data, store = Data(4), Store(tmp_path)
    data.setup()
    file = run[0] / "checkpoints" / "step=00000006.ckpt"
    network = load_checkpoint(file)
    assert weights_hash(network) == Store(run[0]).weights(6)
    step = Store(run[0]).step_folder(3)
    shutil.copytree(step, store.step_folder(3))  # the checkpoint before
    torch.manual_seed(99)  # another state of the world
    Examiner({name: ANALYSES[name]() for name in NAMES}, data, SETTINGS, store).examine(network, 6)
    assert same_pictures(store, Store(run[0]), [6])


def same_pictures(ours: Store, theirs: Store, steps: list[int]) -> bool:
    for step in steps:
        for name in NAMES:
            pairs = list(zip(ours.figures(step, name), theirs.figures(step, name), strict=True))
            assert pairs
            if not all(a.key == b.key and torch.equal(a.image, b.image) for a, b in pairs):
                return False
            if ours.scalars(step, name) != theirs.scalars(step, name):
                return False
    return True
