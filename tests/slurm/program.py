"""`train.py` and `analyze.py` of a trial, in which training waits in the midst of a step.

Where a file hold-STEP is in the working directory, the training step after STEP optimizer steps makes a file
held-STEP.RANK, of an array held-STEP.TASK, and goes on once hold-STEP is removed or a signal has come. `PACE`
is the least time of a step in seconds: several ranks tell each other of signals about once a second.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any


def hold_steps() -> None:
    from vitrine.distributed import interruption
    from vitrine.modules.classifier import Classifier

    names = "RANK", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID"
    rank = next((os.environ[name] for name in names if name in os.environ), "0")
    training_step, pace = Classifier.training_step, float(os.environ.get("PACE", 0))

    def waiting(self: Any, *args: Any, **options: Any) -> Any:
        if self._trainer is not None:  # else it is tried before the run
            time.sleep(pace)
            hold = Path(f"hold-{self.global_step}")
            if hold.exists():
                Path(f"held-{self.global_step}.{rank}").touch()
            while hold.exists() and not interruption.received():
                time.sleep(0.02)
        return training_step(self, *args, **options)

    Classifier.training_step = waiting


if __name__ == "__main__":
    name = Path(sys.argv[0]).stem
    if name == "train":
        hold_steps()
    from vitrine import cli

    raise SystemExit(cli.main([name, *sys.argv[1:]]))
