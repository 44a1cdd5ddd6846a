"""Train a classifier and see inside it at every checkpoint.

    python train.py                                    the default run: traffic signs, 3 minutes on two cores
    python train.py configs/cifar10.yaml optimizer.lr=0.05
    python train.py run.name=NAME run.resume=true      start a run, or go on where it was cut off

Recipes are merged left to right, then key=value. `--help` lists every setting, `--help SECTION` some.
"""

import time
from contextlib import ExitStack
from typing import Any

from vitrine import config
from vitrine.cli.help import print_help_if_asked
from vitrine.datamodules.drawing_ahead import DrawingAhead
from vitrine.distributed import interruption, requeue
from vitrine.distributed.interruption import Interrupted
from vitrine.distributed.processes import Processes, launched
from vitrine.runs import run_folders


def main(arguments: list[str]) -> None:
    if print_help_if_asked(arguments, __doc__):
        return
    with interruption.handle_signals(), launched() as processes, ExitStack() as cleanup:
        interruption.defer()  # for a second or two: how to end depends on the settings
        ahead = DrawingAhead()
        cleanup.callback(ahead.end)

        def begin(settings: config.Settings) -> None:
            if processes.world_size == 1 and processes.is_global_zero:  # ranks keep the cores busy themselves
                ahead.begin(settings.data, settings.run.seed)

        settings = config.load_run(arguments, processes.is_global_zero, meanwhile=begin)
        try:
            with interruption.immediate():
                train(settings, arguments, processes, cleanup, ahead)
        except Interrupted as interrupted:
            requeue.exit_interrupted(interrupted, settings.run, cleanup.pop_all().close)


def train(
    settings: config.Settings,
    arguments: list[str],
    processes: Processes,
    cleanup: ExitStack,
    ahead: DrawingAhead,
) -> None:
    """A run, from its settings to its final report; `cleanup` gets what is to be closed in any case, `ahead`
    may be drawing its images already."""
    start = time.monotonic()
    from vitrine import assembly  # seconds of imports, which a mistyped setting need not wait for
    from vitrine.callbacks.analyze_run import AnalyzeRun
    from vitrine.cli.final_report import final_report
    from vitrine.cli.measure_test import measure_trained
    from vitrine.core.class_names import refuse_other_classes
    from vitrine.datamodules.splitting import refuse_other_splits
    from vitrine.preflight import check_run
    from vitrine.runs.checkpoint_files import (
        checkpoint_files,
        last_good_checkpoint,
        read_classes,
        refuse_other_network,
    )
    from vitrine.runs.metrics_csv import MetricsCSV
    from vitrine.runs.run_record import RunRecord

    def build_trainer() -> tuple[AnalyzeRun, Any]:
        load = assembly.checkpoint_loader(settings)
        analyze_run = AnalyzeRun(settings.folder, analyses, settings.analysis, load=load)
        return analyze_run, assembly.build_trainer(settings, [analyze_run], trainer_arguments)

    trainer_arguments = processes.with_launched_devices(settings.trainer)
    begun = any((settings.folder / "checkpoints").glob("*.ckpt"))
    if settings.run.resume and begun and (settings.folder / "config.yaml").exists():
        refuse_other_splits(settings.data, config.load_saved(settings.folder, []).data)
    assembly.check_network(settings)
    assembly.check_objective(settings)
    data = assembly.build_data(settings, processes.local_rank_zero_first, ahead)
    files = checkpoint_files(settings.folder / "checkpoints", newest_first=True) if begun else ()
    newest = [file for _, file in files if settings.run.resume][:1]
    for file in newest:
        refuse_other_classes(data.classes, read_classes(file), file)
    module = assembly.build_classifier(settings, data)
    for file in newest:
        refuse_other_network(module.state_dict(), file, "model")
    analyses = assembly.build_analyses(settings, module.network, data)
    analyze_run, trainer = build_trainer()
    check_run(settings, data, module, trainer)
    processes.barrier()

    if not processes.is_global_zero:
        decided = processes.receive()
        settings.rename(decided["name"])
        _, trainer = build_trainer()
        trainer.loggers = [MetricsCSV(settings.folder)]  # writes on rank 0; Lightning expects it on all
        trainer.fit(module, datamodule=data, ckpt_path=decided["checkpoint"], weights_only=True)
        if settings.run.test:
            measure_trained(settings, data, trainer, trainer_arguments)
        return

    # nothing is refused from here on
    folder = run_folders.claim(settings.folder, settings.run.resume, settings.unnamed)
    if folder != settings.folder:
        settings.rename(folder.name)
        analyze_run, trainer = build_trainer()
    settings.save()
    part = "leader" if settings.analysis.mode == "follow" else "alone"
    logs = assembly.open_logs(settings, data.classes, part)
    cleanup.callback(logs.close)
    record = RunRecord(settings.folder, ["train.py", *arguments], data.facts())
    trainer.loggers, analyze_run.examiner.sinks = logs.loggers, [record, *logs.sinks]
    found = last_good_checkpoint(settings.folder) if settings.run.resume else None
    checkpoint = None if found is None else str(found)
    processes.broadcast(name=settings.run.name, checkpoint=checkpoint)
    counts = [(p.numel(), p.requires_grad) for p in module.network.parameters()]
    parameters = f"{sum(count for count, _ in counts):,} parameters"
    if module.frozen is not None:
        parameters += f" (all but {sum(count for count, trains in counts if trains):,} frozen)"
    print(data.describe())
    print(f"{settings.run.name}: {settings.model.name}, {parameters}, in {settings.folder}")
    if checkpoint:
        print(f"going on from {checkpoint}")
    tested = None
    with record:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if settings.run.test:
            tested = measure_trained(settings, data, trainer, trainer_arguments)
        interruption.defer()  # the run is complete: an interrupt now waits for the final report
    cleanup.close()
    seconds = time.monotonic() - start
    print(final_report(settings, trainer, analyze_run.reports, logs.notes, seconds, tested))
