"""Training on W&B: cut off and resumed, in a sweep, beside TensorBoard; the logs read back."""

import io
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from vitrine import config
from vitrine.cli import train
from vitrine.modules.classifier import Classifier
from vitrine.reporting import wandb_offline
from vitrine.reporting.wandb_run import WandbSettings, wandb_logger

pytest.importorskip("wandb")
pytestmark = pytest.mark.usefixtures("offline_home")

RECIPES = Path(__file__).resolve().parents[2] / "configs"
SMALL = [
    "data.train_size=64",
    "data.val_size=32",
    "data.image_size=32",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "analysis.probes=2",
    "analysis.units=2",
    *[f"analysis.{name}.enabled=false" for name in ("cam", "saliency", "unit_saliency", "features")],
    *[f"analysis.{name}.enabled=false" for name in ("localization", "truth", "samples")],
    "checkpoint.every_steps=2",
]


def told(run_dir, history):
    """(step, key) of all that was logged, with its value, but for the clock and what a path holds."""
    return [
        ((row["trainer/global_step"], key), value)
        for row in history(run_dir)
        for key, value in row.items()
        if not key.startswith(("_", "Time/")) and key.split("/")[0] in ("Training", "Classes", "Examples")
        if isinstance(value, float | int) and key != "Training/epoch"
    ]


@pytest.mark.slow
def test_a_run_that_was_cut_off_and_resumed_has_each_step_once(tmp_path, monkeypatch, history):
    common = [*SMALL, f"run.root={tmp_path}", "trainer.max_steps=6", "data.batch_size=16"]
    train.main([*common, "run.name=whole"])

    step = Classifier.training_step

    def cut(self, batch, batch_idx):
        if self.global_step == 5:
            raise RuntimeError("the machine is gone")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", cut)
        with pytest.raises(RuntimeError, match="gone"):
            train.main([*common, "run.name=cut"])
    for file in (tmp_path / "cut" / "checkpoints").iterdir():
        if file.name != "step=00000002.ckpt":
            file.unlink()  # so that steps 3 to 5 come again
    before = len(told(tmp_path / "cut", history))
    train.main([*common, "run.name=cut", "run.resume=true"])

    whole, resumed = told(tmp_path / "whole", history), told(tmp_path / "cut", history)
    assert len(list(tmp_path.glob("cut/wandb/offline-run-*"))) == 2 and len(resumed) > before
    assert [place for place, _ in sorted(resumed)] == [
        place for place, _ in sorted(whole)
    ]  # none lost, none twice
    assert dict(resumed) == dict(whole)


@pytest.mark.slow
def test_a_run_that_is_opened_again_keeps_its_id_and_is_appended_to(tmp_path, records):
    ids = []
    for step in (1, 2):
        logger, _ = wandb_logger(tmp_path / "run", WandbSettings())
        logger.log_metrics({"train/loss": 1.0 / step}, step=1)
        logger.log_metrics({"train/loss": 1.0 / step}, step=step)
        ids.append(logger.experiment.id)
        logger.experiment.finish()
        time.sleep(1 - time.time() % 1)  # W&B calls the folder of a start by its second
    assert ids[0] == ids[1] == (tmp_path / "run" / "wandb-id").read_text().strip()
    folders = sorted(tmp_path.glob("run/wandb/offline-run-*"))
    assert all(records(folder, "run")[0]["resume"] for folder in folders)  # what `wandb sync` appends by
    assert [
        (row["trainer/global_step"], row["Training/train/loss"])
        for row in wandb_offline.history(tmp_path / "run", ids[0])
    ] == [
        (1, 1.0),
        (1, 1.0),
        (2, 0.5),
    ]


@pytest.mark.slow
def test_a_log_that_was_cut_off_is_read_up_to_there(tmp_path, history):
    logger, _ = wandb_logger(tmp_path / "run", WandbSettings())
    for step in range(40):  # more than a block of the log
        logger.log_metrics({f"long/name-{i}": i / 3 for i in range(200)}, step=step)
    identity = logger.experiment.id
    logger.experiment.finish()

    def rows():
        return list(wandb_offline.history(tmp_path / "run", identity))

    whole = history(tmp_path / "run")
    assert len(whole) == 40 and whole == rows()
    assert whole[7]["Training/long/name-3"] == 1 and whole[7]["trainer/global_step"] == 7
    (file,) = tmp_path.glob("run/wandb/offline-run-*/run-*.wandb")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])  # cut off by a kill
    assert whole[: len(rows())] == rows() != []


def sweeps_command(parameters):
    """The command line and the environment that W&B's agent makes of configs/sweep.yaml."""
    from wandb.sdk.launch.sweeps import utils

    sweep = yaml.safe_load((RECIPES / "sweep.yaml").read_text())
    made = utils.create_sweep_command_args({"args": {key: {"value": v} for key, v in parameters.items()}})
    made |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
    words = []
    for word in utils.create_sweep_command(sweep["command"]):
        words += made[word[2:-1]] if word.startswith("${") else [word]
    return sweep, words


@pytest.mark.slow
def test_a_sweeps_agent_trains_what_it_asks_for(tmp_path, monkeypatch, records, history):
    asked = {"optimizer.lr": 1.2345e-05, "optimizer.weight_decay": 0, "data.batch_size": 32, "run.seed": 2}
    sweep, words = sweeps_command(asked)
    assert set(sweep["parameters"]) == set(asked)
    assert words[:3] == ["/usr/bin/env", "python", "train.py"]
    parameters = tmp_path / "agent" / "wandb" / "sweep-s1" / "config-given123.yaml"
    parameters.parent.mkdir(parents=True)
    parameters.write_text(yaml.safe_dump({key: {"value": value} for key, value in asked.items()}))
    for variable, value in {
        "WANDB_SWEEP_ID": "s1",
        "WANDB_RUN_ID": "given123",
        "WANDB_PROJECT": "of-the-sweep",
        "WANDB_DIR": str(tmp_path / "agent"),
        "WANDB_SWEEP_PARAM_PATH": str(parameters),
        "WANDB_MODE": "offline",
    }.items():
        monkeypatch.setenv(variable, value)
    (tmp_path / "work" / "configs").symlink_to(RECIPES)
    more = [*SMALL, f"run.root={tmp_path / 'runs'}", "trainer.max_steps=2", "logging.tensorboard=true"]
    settings = config.load(words[3:])
    assert (settings.optimizer.lr, settings.data.batch_size, settings.run.seed) == (1.2345e-05, 32, 2)
    train.main([*words[3:], *more])

    (run_dir,) = (tmp_path / "runs").iterdir()
    assert run_dir.name.endswith("given123")  # agents that begin in the same second
    (folder,) = run_dir.glob("wandb/offline-run-*-given123")
    (run,) = records(folder, "run")
    assert (run["sweep_id"], run["run_id"], run["project"]) == ("s1", "given123", "of-the-sweep")
    summary = {}
    for update in records(folder, "summary"):
        summary |= update["update"]
    assert 0 <= summary[sweep["metric"]["name"]] <= 1  # what the sweep ranks by is a number
    assert not list((tmp_path / "agent").glob("wandb/offline-run-*"))  # the run's folder has it all
    check_tensorboard(run_dir, history(run_dir))


def check_tensorboard(run_dir, logged):
    """TensorBoard has the same curves as W&B, and pictures at the same steps."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    losses = {
        row["trainer/global_step"]: row["Training/train/loss"]
        for row in logged
        if "Training/train/loss" in row
    }
    assert {e.step: e.value for e in events.Scalars("train/loss")} == pytest.approx(losses, rel=1e-6)
    steps = [
        row["trainer/global_step"] for row in logged if any(key.startswith("Examples/ex") for key in row)
    ]
    tags = [tag for tag in events.Tags()["images"] if tag.startswith("Examples/examples/")]
    assert tags
    for tag in tags:
        assert [image.step for image in events.Images(tag)] == steps == [2]
        assert Image.open(io.BytesIO(events.Images(tag)[0].encoded_image_string)).size[0] > 64
    assert (run_dir / "metrics.csv").exists()
