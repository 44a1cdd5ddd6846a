"""TensorBoard as a logger of curves that a resumed run can take back."""

from lightning.pytorch.loggers import TensorBoardLogger

from vitrine.runs.resumable_logger import ResumableLogger


class BoardLogger(TensorBoardLogger, ResumableLogger):
    """Lightning's TensorBoardLogger; a run that goes on forgets what was logged beyond its checkpoint."""

    def rewind(self, step: int) -> None:
        """Have TensorBoard leave out what an earlier process logged after `step`.

        What it logged at `step` stays, since the checkpoint's pictures are there; a curve's point there comes
        twice, the same.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        start = Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        self.experiment.file_writer.add_event(start)
