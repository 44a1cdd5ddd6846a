"""W&B online, against a stand-in for its server: what arrives of a run."""

import pytest

from vitrine.reporting.wandb_run import WandbSettings, wandb_logger
from vitrine.reporting.wandb_sink import WandbSink
from vitrine.runs.store import Store

pytestmark = pytest.mark.slow


def test_a_whole_run_arrives(tmp_path, report, server):
    run_dir = tmp_path / "run"
    settings = WandbSettings(project="p", group="g", job_type="train", tags=["a", "b"], notes="why")
    logger, line = wandb_logger(run_dir, settings, config={"seed": 7, "data": {"name": "signs"}})
    assert line == f"W&B shows the run at {server.url}/me/p/runs/{logger.experiment.id}"
    sink, store = WandbSink(logger.experiment, classes=["a", "b"], run_dir=run_dir), Store(run_dir)
    (run_dir / "metrics.csv").write_text("step,val/accuracy\n99,0.5\n")
    logger.log_metrics({"val/accuracy": 0.5}, step=99)
    for step in (100, 200):
        with store.writing(step, weights="") as writer:
            for name, result in report(step).results.items():
                writer.write(name, result)
        sink.log(report(step), store.step_folder(step))
    (run_dir / "index.html").write_text("page")
    sink.close()

    (run,) = server.runs.values()
    assert run.id == (run_dir / "wandb-id").read_text().strip() and run.state == "finished"
    assert (run.project, run.fields["groupName"], run.fields["jobType"]) == ("p", "g", "train")
    assert (run.fields["tags"], run.fields["notes"]) == (["a", "b"], "why")
    assert run.config["seed"]["value"] == 7 and run.config["data"]["value"] == {"name": "signs"}
    assert [row["trainer/global_step"] for row in run.rows] == [99, 100, 200]
    assert run.rows[0]["Training/val/accuracy"] == 0.5
    assert run.summary["best/accuracy"] == 0.5 and run.summary["last/step"] == 200
    for row in run.rows[1:]:
        assert row["Examples/examples/layer1"]["path"] in run.files
        assert all(name in run.files for name in row["Class maps/cam"]["filenames"])
        assert row["Features/units"]["nrows"] == 6
    assert len(server.of_type("run_table")) == 2
    aliases = [set(artifact.aliases) for artifact in server.of_type("analysis")]
    assert aliases == [{"latest", "step-100"}, {"latest", "step-200"}]
    (page,) = server.of_type("page")
    on_disk = {
        path.relative_to(run_dir).as_posix() for path in run_dir.glob("analysis/**/*") if path.is_file()
    }
    assert set(page.files) == {"index.html", *on_disk} and set(page.aliases) == {"latest", "final"}
