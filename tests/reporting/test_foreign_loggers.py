"""AnalyzeCheckpoints logs into the runs of somebody else's loggers, and leaves these to their owner."""

import pytest
from foreign import fit
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from vitrine import AnalyzeCheckpoints
from vitrine.runs.store import Store

pytestmark = pytest.mark.slow


def analyze(**options):
    return AnalyzeCheckpoints(analyses=["weights", "cam"], layers=["2"], units=2, probes=3, **options)


@pytest.mark.usefixtures("offline_home")
def test_pictures_reach_the_wandb_run_which_its_owner_goes_on_using(tmp_path, history):
    import wandb

    logger = WandbLogger(project="theirs", name="run", save_dir=tmp_path, offline=True, version="abc12345")
    callback = analyze()
    fit(tmp_path, [callback], logger=logger, log_every_n_steps=1)
    assert callback.folder == tmp_path / "theirs" / "abc12345" / "vitrine"
    assert wandb.run is not None and wandb.run.id == "abc12345"  # neither ended nor replaced
    wandb.log({"mine": 1.0})
    wandb.finish()
    rows = history(tmp_path)
    keys = [
        {item["key"] or "/".join(item["nested_key"]) for item in row} if isinstance(row, list) else set(row)
        for row in rows
    ]
    pictured = [row for row in keys if any(key.startswith("Class maps/cam") for key in row)]
    assert len(pictured) == 2
    assert sum("train_loss" in row for row in keys) == 6
    assert sum("mine" in row for row in keys) == 1


def test_pictures_reach_tensorboard_and_a_csv_log_is_left_as_it_is(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board, table = TensorBoardLogger(tmp_path, name="board"), CSVLogger(tmp_path, name="table")
    callback = analyze()
    fit(tmp_path, [callback], logger=[board, table], log_every_n_steps=1)
    assert str(callback.folder) == f"{board.log_dir}/vitrine"
    board.experiment.add_scalar("mine", 1.0, 7)  # still open
    board.experiment.flush()
    events = EventAccumulator(board.log_dir).Reload()
    assert any(tag.startswith("Class maps/cam") for tag in events.Tags()["images"])
    assert "mine" in events.Tags()["scalars"]
    header = (tmp_path / "table" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert set(header.split(",")) == {"epoch", "step", "train_loss", "val_acc"}


def ddp(folder):
    callback = analyze()
    module, _ = fit(folder, [callback], devices=2, strategy="ddp")
    return [value.tolist() for value in module.state_dict().values()], len(callback.reports)


def test_two_ranks_examine_together(tmp_path):
    import launch

    (weights, reports), (others, none) = launch.run_ranks(ddp, tmp_path)
    assert weights == others
    store = Store(tmp_path / "vitrine")
    assert reports == len(store.steps()) == 2 and none == 0
    assert store.figures(store.steps()[-1], "cam")
