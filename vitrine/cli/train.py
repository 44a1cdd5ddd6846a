"""Train a classifier and see inside it at every checkpoint.

    python train.py                                    the default run: traffic signs, 3 minutes on two cores
    python train.py configs/cifar10.yaml optimizer.lr=0.05
    python train.py run.name=NAME run.resume=true      start a run, or go on where it was cut off

Recipes are merged left to right, then key=value. `--help` lists every setting, `--help SECTION` some.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from vitrine import config
from vitrine.cli import closing
from vitrine.cli.help import print_help_if_asked
from vitrine.distributed import interruption, processes, requeue
from vitrine.distributed.interruption import Interrupted
from vitrine.distributed.processes import Processes
from vitrine.runs import run_folders


def main(arguments: list[str]) -> None:
    if print_help_if_asked(arguments, __doc__):
        return
    with interruption.handled(), processes.started() as those, ExitStack() as last:
        interruption.defer()  # for a second or two: what to do depends on the settings
        settings = config.load_run(arguments, those.first)
        try:
            with interruption.at_once():
                train(settings, arguments, those, last)
        except Interrupted as interrupted:
            requeue.end(interrupted, settings.run, last.pop_all().close)


def train(settings: config.Settings, arguments: list[str], those: Processes, last: ExitStack) -> None:
    """A run, from its settings to its closing lines.

    Args:
        those: who train together; the first decides, writes and speaks.
        last: takes what is to be closed in any case.
    """
    started = time.monotonic()
    from vitrine import assembly  # seconds of imports, which a mistyped setting need not wait for
    from vitrine.callbacks.analyze_checkpoints import AnalyzeCheckpoints
    from vitrine.runs.checkpoint_files import last_good_checkpoint
    from vitrine.runs.run_record import RunRecord

    def assembled() -> tuple[AnalyzeCheckpoints, Any]:
        looking = AnalyzeCheckpoints(settings.folder, analyses, settings.analysis)
        return looking, assembly.trainer(settings, last=[looking])

    settings.trainer.update(those.sized(settings.trainer))
    data = assembly.data(settings, those.one_a_node_first)
    module = assembly.classifier(settings, data)
    analyses = assembly.analyses(settings, module.network, data)
    looking, trainer = assembled()
    those.meet()

    if not those.first:
        told = those.told()
        settings.rename(told["name"])
        looking, trainer = assembled()
        trainer.loggers = assembly.logs(settings, data.classes, "none").loggers
        trainer.fit(module, datamodule=data, ckpt_path=told["resumed"], weights_only=True)
        return

    # nothing is refused from here on
    folder = run_folders.claim(settings.folder, settings.run.resume, settings.unnamed)
    if folder != settings.folder:
        settings.rename(folder.name)
        looking, trainer = assembled()
    settings.save()
    logs = assembly.logs(settings, data.classes, "leader" if settings.analysis.mode == "follow" else "alone")
    last.callback(logs.close)
    record = RunRecord(settings.folder, ["train.py", *arguments])
    trainer.loggers, looking.sinks = logs.loggers, [record, *logs.sinks]
    found = last_good_checkpoint(settings.folder) if settings.run.resume else None
    resumed = None if found is None else str(found)
    those.tell(name=settings.run.name, resumed=resumed)
    parameters = sum(p.numel() for p in module.network.parameters())
    print(data.describe())
    print(f"{settings.run.name}: {settings.model.name}, {parameters:,} parameters, in {settings.folder}")
    if resumed:
        print(f"going on from {resumed}")
    with record:
        trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
        interruption.defer()  # all is done: who interrupts now waits for the closing lines
    last.close()
    print(closing.words(settings, trainer, looking, logs.notes, time.monotonic() - started))
