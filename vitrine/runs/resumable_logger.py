"""What a logger must offer so that a resumed run logs nothing twice."""

from abc import abstractmethod

from lightning.pytorch.loggers import Logger


class ResumableLogger(Logger):
    """A logger that can drop what an interrupted run logged beyond the checkpoint that it resumes from."""

    @abstractmethod
    def rewind(self, step: int) -> None:
        """Drop what was logged after `step` optimizer steps."""
