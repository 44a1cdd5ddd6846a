"""A mesh on a car's roof that hides cars from a LiDAR detector, beside random meshes and other loads.

    python -m vitrine hide RUN                     a run of `vitrine lidar`, or a checkpoint in one
    python -m vitrine hide RUN method=gradient     soft rays and Adam alone; or method=search alone

Writes into RUN/hide: mesh.obj (metres, for any viewer), pictures of held-out cars in perspective and from
above, with nothing on the roof, a random mesh and this one, counts.json: how many cars each hides, and a page
that shows all of it, which the run's own page links.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrine.cli import images
from vitrine.core.settings import SettingError, setting
from vitrine.runs import run_folders

if TYPE_CHECKING:
    from torch import Tensor

    from vitrine.analyses.base import Figure
    from vitrine.lidar.detector import Detector
    from vitrine.lidar.roof_targets import RoofTarget

BOOTSTRAP = 2000  # samples
NOTHING, RANDOM, OPTIMISED = "nothing on the roof", "random mesh", "optimised mesh"


@dataclass(frozen=True)
class Settings:
    method: str = setting(
        "both",
        "search (an evolution strategy), gradient, or both: a search whose result gradients refine",
        choices=("both", "search", "gradient"),
    )
    cars: int = setting(64, "cars of validation scenes to optimise on, each in its own scene", least=1)
    held_out: int = setting(60, "cars of held-out scenes that are counted", least=1)
    generations: int = setting(40, "of the search", least=1)
    steps: int = setting(100, "of gradients", least=1)
    threshold: float = setting(
        0.5, "score from which on a detection counts (at an IoU of 0.5)", above=0, most=1
    )
    pictures: int = setting(3, "held-out cars that are drawn", least=1)
    out: str | None = setting(None, "folder to write; RUN/hide unless given")
    seed: int = setting(0, "of the attack and of the random meshes", least=0, most=2**63 - 1)


def main(words: list[str], settings: Any) -> None:
    started = time.monotonic()
    if len(words) != 1:
        raise SettingError("hide", f"{len(words)} runs came, expected one: python -m vitrine hide RUN")
    checkpoint = find_checkpoint(words[0])
    detector = read_detector(checkpoint)
    folder = Path(settings.out) if settings.out else run_folders.find_run(words[0]) / "hide"
    if folder.exists() and not folder.is_dir():
        raise SettingError("out", f"{folder} is a file, expected a folder")
    if (folder / "config.yaml").exists():
        raise SettingError("out", f"{folder} is a run, whose page would be lost; expected another folder")

    import torch

    from vitrine.analyses.result import AnalysisResult
    from vitrine.core import atomic
    from vitrine.core.bootstrap import bootstrap
    from vitrine.examination.examiner import weights_hash
    from vitrine.examination.subject import progress_bar
    from vitrine.lidar import hiding
    from vitrine.lidar.drawing import draw_sights
    from vitrine.lidar.mesh_attacks import GradientAttack, SearchAttack
    from vitrine.lidar.roof_mesh import obj_text, random_mesh, shape
    from vitrine.reporting import result_page
    from vitrine.reporting.page import PageSink
    from vitrine.runs.checkpoint_files import read_step

    held_out = hiding.find_targets(detector, "held_out", settings.held_out)
    clean = hiding.car_scores(detector, held_out, None)
    found = int((clean >= settings.threshold).sum())
    if not found:
        problem = f"is {settings.threshold}, at which none of {len(held_out)} held-out cars is found"
        raise SettingError(
            "threshold", f"{problem}: expected a lower one, or a detector that has learned more"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before the minutes that the attack takes
    except OSError as error:
        raise SettingError("out", f"{folder} cannot be made: {error.strerror}") from None
    targets = hiding.find_targets(detector, "val", settings.cars)
    offsets = None
    if settings.method != "gradient":
        search = SearchAttack(settings.generations, seed=settings.seed)
        offsets = search(detector, targets, None, lambda steps: progress_bar(steps, "search"))
    if settings.method != "search":
        gradient = GradientAttack(settings.steps, seed=settings.seed)
        offsets = gradient(detector, targets, offsets, lambda steps: progress_bar(steps, "gradients"))
    meshes = {
        "box": hiding.roof_box(),
        "ellipsoid": hiding.ellipsoid(),
        RANDOM: random_mesh(settings.seed),
        OPTIMISED: shape(offsets),
    }
    scores = {name: hiding.car_scores(detector, held_out, mesh) for name, mesh in meshes.items()}
    counts: dict[str, Any] = {"cars": len(held_out), "found": found, "hidden": {}}
    print(f"{found} of {len(held_out)} held-out cars are found with nothing on the roof; hidden by")
    for name, of in scores.items():
        values = hiding.hidden(clean, of, settings.threshold)
        share, low, high = (bound.item() for bound in bootstrap(values, settings.seed, BOOTSTRAP))
        counts["hidden"][name] = {"share": share, "interval": [low, high]}
        print(f"  {name}: {share:.1%} ({low:.1%} to {high:.1%})")
    atomic.write_json(folder / "counts.json", counts)
    atomic.write_text(folder / "mesh.obj", obj_text(shape(offsets)))
    # those first that are found without and hidden best
    lost = (clean - scores[OPTIMISED]).masked_fill(clean < settings.threshold, -torch.inf)
    shown = {NOTHING: None} | {name: meshes[name] for name in (RANDOM, OPTIMISED)}
    result = AnalysisResult()
    result.add(counts_figure(counts, settings.threshold))
    for number, index in enumerate(lost.argsort(descending=True)[: settings.pictures].tolist()):
        target = held_out[index]
        sights = [hiding.look(detector, target, name, mesh) for name, mesh in shown.items()]
        of_car = {NOTHING: clean[index].item()} | {name: scores[name][index].item() for name in scores}
        figure = car_figure(
            number, target, {name: of_car[name] for name in shown}, draw_sights(target, sights)
        )
        images.write_picture(folder / f"{figure.key}.png", figure.image)
        result.add(figure)
    result.seconds = time.monotonic() - started
    named = "/".join(checkpoint.resolve().parts[-3:])
    facts = {"detector": named, "cars": f"{len(held_out)} of streets held out"}
    step, weights = read_step(checkpoint), weights_hash(detector.network)
    page = result_page.write(folder, "roof_mesh", result, step, weights, "cars under a mesh", facts)
    if settings.out is None:
        PageSink(folder.parent).close()  # the run's own page links this one
    print(f"the mesh and pictures: {folder}, {result.seconds:.0f} s")
    print(f"the page: {page}")


def counts_figure(counts: Mapping[str, Any], threshold: float) -> "Figure":
    """How many cars each load hides: the content of counts.json, as bars and a table."""
    from vitrine.analyses.base import Figure
    from vitrine.analyses.outputs import Table
    from vitrine.analyses.plots import COLOURS, bars

    hidden = counts["hidden"]
    shares = {name: {"hidden": 100 * of["share"]} for name, of in hidden.items()}
    rows = [(name, of["share"], *of["interval"]) for name, of in hidden.items()]
    names, means, lows, highs = map(list, zip(*rows))
    best = hidden[OPTIMISED]
    return Figure(
        key="hidden",
        image=bars(
            shares, {"hidden": COLOURS["robust"]}, "% of the cars found without it that it hides", 100
        ),
        caption=f"Of {counts['found']} held-out cars found with a score of {threshold:g} or more and nothing "
        f"on the roof, the optimised mesh hides {best['share']:.1%} ({best['interval'][0]:.1%} to "
        f"{best['interval'][1]:.1%}), a random mesh {hidden[RANDOM]['share']:.1%}.",
        table=Table({"on the roof": names, "share hidden": means, "from": lows, "to": highs}),
    )


def car_figure(number: int, target: "RoofTarget", scores: Mapping[str, float], picture: "Tensor") -> "Figure":
    """A car in perspective and from above, with each load; a score of 0 says that it is not found."""
    from vitrine.analyses.base import Figure

    said = "; ".join(f"{name}: {f'{score:.2f}' if score else 'not found'}" for name, score in scores.items())
    away = f"A car {target.car[:2].norm():.0f} m away, its score with {said}."
    caption = f"{away} The truth is dotted, detections are blue."
    return Figure(f"car-{number + 1}", picture, caption, values=dict(scores))


def find_checkpoint(word: str) -> Path:
    """A checkpoint, or the last one of a run.

    Raises:
        SettingError: it is neither, or the run has none yet.
    """
    from vitrine.runs.checkpoint_files import last_good_checkpoint

    if Path(word).is_file():
        return Path(word)
    folder = run_folders.find_run(word)
    found = last_good_checkpoint(folder)
    if found is None:
        raise SettingError("hide", f"{folder} has no intact checkpoint, expected a run of `vitrine lidar`")
    return found


def read_detector(checkpoint: Path) -> "Detector":
    """The detector of a checkpoint of `vitrine lidar`; SettingError: it holds none."""
    from vitrine.config.errors import as_setting_error
    from vitrine.lidar.detector import load_detector

    with as_setting_error("hide"):
        return load_detector(checkpoint)
