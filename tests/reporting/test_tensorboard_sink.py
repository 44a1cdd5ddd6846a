import io

import numpy as np
import pytest
from PIL import Image

from vitrine.reporting.sheet import sheet
from vitrine.reporting.tensorboard_sink import TensorBoardSink


def test_curves_and_sheets_arrive_at_their_steps(tmp_path, report):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    sink = TensorBoardSink(writer)
    for step in (500, 1000):
        sink.log(report(step), tmp_path)
    sink.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    curve = events.Scalars("Examples/dead_units/layer1")
    assert [(point.step, point.value) for point in curve] == [(500, 0.5), (1000, 1.0)]
    images = events.Images("Examples/examples/layer2")
    assert [image.step for image in images] == [500, 1000]
    shown = np.array(Image.open(io.BytesIO(images[1].encoded_image_string)).convert("RGB"))
    wanted = sheet([f.image for f in report(1000).results["examples"].figures if f.layer == "layer2"])
    assert np.array_equal(shown, wanted.numpy())


def test_what_was_logged_beyond_the_checkpoint_is_forgotten_when_a_run_goes_on(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from vitrine.reporting.tensorboard_logger import BoardLogger

    for start, ends, value in ((0, 5, 1.0), (3, 7, 2.0)):  # cut off after step 5, its last checkpoint at 3
        board = BoardLogger(tmp_path, name="", version="tensorboard")
        if start:
            board.rewind(start)
        for step in range(start + 1, ends + 1):
            board.log_metrics({"train/loss": value}, step)
        board.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    points = [(point.step, point.value) for point in events.Scalars("train/loss")]
    assert points == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0), (7, 2.0)]


def test_a_log_that_fails_costs_the_run_nothing(tmp_path, report, caplog):
    class Broken:
        def __getattr__(self, name):
            raise OSError("gone")

    sink = TensorBoardSink(Broken())
    sink.log(report(500), tmp_path)
    sink.close()
    assert "step 500 did not reach TensorBoard" in caplog.text
