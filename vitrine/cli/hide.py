"""A mesh on a car's roof that hides cars from a LiDAR detector, beside random meshes and other loads.

    python -m vitrine hide RUN                     a run of `vitrine lidar`, or a checkpoint in one
    python -m vitrine hide RUN method=gradient     soft rays and Adam alone; or method=search alone

Writes into RUN/hide: mesh.obj (metres, for any viewer), pictures of held-out cars in perspective and from
above, with nothing on the roof, a random mesh and this one, and counts.json: how many cars each hides.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrine.cli import images
from vitrine.core.settings import SettingError, setting
from vitrine.runs import run_folders


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
    seed: int = setting(0, "of the attack and of the random meshes", least=0)


def main(words: list[str], settings: Any) -> None:
    started = time.monotonic()
    if len(words) != 1:
        raise SettingError("hide", f"{len(words)} runs came, expected one: python -m vitrine hide RUN")
    detector = find_detector(words[0])
    folder = Path(settings.out) if settings.out else run_folders.find_run(words[0]) / "hide"
    if folder.exists() and not folder.is_dir():
        raise SettingError("out", f"{folder} is a file, expected a folder")

    from vitrine.core import atomic
    from vitrine.examination.subject import progress_bar
    from vitrine.lidar import hiding
    from vitrine.lidar.drawing import draw_sights
    from vitrine.lidar.mesh_attacks import GradientAttack, SearchAttack
    from vitrine.lidar.roof_mesh import obj_text, random_mesh, shape

    held_out = hiding.find_targets(detector, "held_out", settings.held_out)
    clean = hiding.car_scores(detector, held_out, None)
    found = int((clean >= settings.threshold).sum())
    if not found:
        problem = f"is {settings.threshold}, at which none of {len(held_out)} held-out cars is found"
        raise SettingError(
            "threshold", f"{problem}: expected a lower one, or a detector that has learned more"
        )
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
        "random mesh": random_mesh(settings.seed),
        "optimised mesh": shape(offsets),
    }
    scores = {name: hiding.car_scores(detector, held_out, mesh) for name, mesh in meshes.items()}
    counts: dict[str, Any] = {"cars": len(held_out), "found": found, "hidden": {}}
    print(f"{found} of {len(held_out)} held-out cars are found with nothing on the roof; hidden by")
    for name, of in scores.items():
        values = hiding.hidden(clean, of, settings.threshold)
        low, high = hiding.interval(values)
        counts["hidden"][name] = {"share": values.mean().item(), "interval": [low, high]}
        print(f"  {name}: {values.mean():.1%} ({low:.1%} to {high:.1%})")
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / "counts.json", counts)
    atomic.write_text(folder / "mesh.obj", obj_text(shape(offsets)))
    # those first that are found without and hidden best
    lost = clean * (clean >= settings.threshold) - scores["optimised mesh"]
    shown = {"nothing on the roof": None} | {name: meshes[name] for name in ("random mesh", "optimised mesh")}
    for number, index in enumerate(lost.argsort(descending=True)[: settings.pictures].tolist()):
        target = held_out[index]
        sights = [hiding.look(detector, target, name, mesh) for name, mesh in shown.items()]
        images.write_picture(folder / f"car-{number + 1}.png", draw_sights(target, sights))
    print(f"the mesh and pictures: {folder}, {time.monotonic() - started:.0f} s")


def find_detector(word: str) -> Any:
    """The detector of a run of `vitrine lidar`, or of a checkpoint.

    Raises:
        SettingError: it is neither, or has no checkpoint yet.
    """
    from vitrine.config.errors import as_setting_error
    from vitrine.lidar.detector import load_detector
    from vitrine.runs.checkpoint_files import last_good_checkpoint

    path = Path(word)
    if not path.is_file():
        folder = run_folders.find_run(word)
        found = last_good_checkpoint(folder)
        if found is None:
            raise SettingError(
                "hide", f"{folder} has no intact checkpoint, expected a run of `vitrine lidar`"
            )
        path = found
    with as_setting_error("hide"):
        return load_detector(path)
