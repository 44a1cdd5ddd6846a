"""An object whose texture makes a network see another class in it, from all sides.

    python analyze.py object RUN mesh=turtle pattern=dots target=rings     a run of data.name=objects
    python analyze.py object RUN mesh=FILE.obj texture=FILE.png target=CLASS    any mesh with UV coordinates
    python analyze.py object RUN mesh=turtle pattern=dots target=rings norm=lab eps=12
    python analyze.py object PLAIN ROBUST mesh=turtle pattern=dots target=rings    two runs beside each other

Writes a turntable (views from all around with the verdict under each), as a picture and as a page on which it
is turned; and the object as .obj with .mtl and .png, which any viewer opens. Meshes: sphere, cube, mug,
bottle, turtle, car; an .obj file; or what trimesh reads (pip install 'vitrine[physical]').
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrine.analyses.adversarial_object import AdversarialObject
from vitrine.cli import images
from vitrine.cli.arguments import add_technique_settings
from vitrine.config import recipes
from vitrine.config.errors import as_setting_error
from vitrine.core.settings import SettingError, setting

if TYPE_CHECKING:
    from vitrine.cli.network import NamedNetwork

TECHNIQUE_SETTINGS = ("norm", "eps", "steps", "draws", "views", "shown")
MAX_TEXTURE = 1024  # texels of the longer side


@dataclass(frozen=True)
class OwnSettings:
    mesh: str = setting(
        "turtle", "a shape (sphere, cube, mug, bottle, turtle, car), or a file of a mesh with UV"
    )
    texture: str | None = setting(
        None, "image that is its texture; unless given, that of the .obj's material"
    )
    pattern: str | None = setting(None, "in place of a texture: a class of data.name=objects")
    target: str | None = setting(None, "class (name or index) to be taken for")
    size: int | None = setting(
        None, "pixels a side of the views; the run's data.image_size unless given", least=8
    )
    out: str | None = setting(
        None,
        "PNG of the turntable to write, the object and the page beside it; unless given "
        "RUN/object/MESH-as-CLASS.png. Of several networks, each has its name appended",
    )
    seed: int = setting(0, "of the views and of the pattern", least=0, most=2**63 - 1)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")


Settings = add_technique_settings(OwnSettings, AdversarialObject, TECHNIQUE_SETTINGS)


@dataclass(frozen=True)
class _Job:
    """A network that the object is attacked for, and what is written of it."""

    source: "NamedNetwork"
    classes: list[str]
    target: int
    size: int  # pixels a side of the views
    turntable: Path  # PNG

    @property
    def name(self) -> str:
        return self.source.run.name if self.source.run else self.source.name

    @property
    def solid(self) -> Path:
        return self.turntable.with_name(f"{self.turntable.stem}-object.obj")

    @property
    def page(self) -> Path:
        return self.turntable.with_suffix("")


def main(words: list[str], settings: Any) -> None:
    if settings.target is None:
        raise SettingError("target", "is not given, expected target=CLASS")
    if settings.texture is not None and settings.pattern is not None:
        raise SettingError(
            "pattern", f"is {settings.pattern}, and texture is given as well: expected one of them"
        )
    mesh = _mesh(settings.mesh)
    texture, sources = _texture(settings)
    jobs = _jobs(words, settings, sources)
    pages = [_attack(job, mesh, texture, settings) for job in jobs]
    if len(jobs) > 1:
        pages.append(_beside(jobs))
    print(f"the page: {pages[-1]}")


def _jobs(words: list[str], settings: Any, sources: list[str]) -> list[_Job]:
    """The networks that the words name, each with a file of its own for the turntable."""
    from vitrine.analyses.threat_model import class_index
    from vitrine.cli.network import find_network
    from vitrine.modules.network_record import record_of
    from vitrine.runs.filenames import safe_name

    words = list(dict.fromkeys(words))
    apart = len(words) > 1 and not any(map(recipes.is_override, words))
    found = [find_network(some, settings.device) for some in ([[w] for w in words] if apart else [words])]
    jobs: list[_Job] = []
    for source in found:
        if source.channels != 3:
            problem = f"{source.name} takes {source.channels} channels, expected 3: objects have colours"
            raise SettingError("mesh", problem)
        classes = record_of(source.network).classes
        with as_setting_error("target"):
            target = class_index(settings.target, classes)
        name = f"{Path(settings.mesh).stem}-as-{safe_name(classes[target])}.png"
        default, out = source.run / "object" / name if source.run else Path(name), settings.out
        if out is not None and len(found) > 1:
            of = source.run.name if source.run else source.name
            out = str(Path(out).with_stem(f"{Path(out).stem}-{safe_name(of)}"))
        file = images.output_file(out, default, sources)
        job = _Job(source, classes, target, settings.size or _image_size(source.run), file)
        if any(other.turntable == file for other in jobs):
            raise SettingError("object", f"two of the networks are of {job.name}: expected different runs")
        made = {job.solid.with_suffix(suffix).resolve() for suffix in (".obj", ".mtl", ".png")}
        for of in (settings.mesh, *sources):
            if Path(of).resolve() in made:
                raise SettingError("out", f"{of} is what the object is made of, expected another name")
        if (job.page / "config.yaml").exists() or job.page.is_file():
            raise SettingError("out", f"{job.page} is there already and no such page, expected another name")
        jobs.append(job)
    return jobs


def _attack(job: _Job, mesh: Any, texture: Any, settings: Any) -> Path:
    """Attack the object for a network, and write what came of it; the page, which is returned, too."""
    started = time.monotonic()

    # not at the top: seconds of imports, which a mistyped setting need not wait for
    from vitrine.analyses import ANALYSES
    from vitrine.analyses import adversarial_object as technique
    from vitrine.analyses.result import AnalysisResult
    from vitrine.attacks.textures import TextureAttack
    from vitrine.examination.examiner import weights_hash
    from vitrine.examination.subject import progress_bar
    from vitrine.objects.obj_files import write_obj
    from vitrine.reporting import result_page

    thing, network = Path(settings.mesh).stem, job.source.network
    with as_setting_error("object"):
        budget = {key: getattr(settings, key) for key in ("norm", "eps", "steps", "draws", "seed")}
        attack = TextureAttack(**budget)
        attacked = technique.attack_object(
            network,
            mesh.fitted(),
            texture.to(job.source.device),
            job.target,
            attack,
            job.size,
            settings.views,
            progress_bar,
        )
        wanted = f"{settings.pattern or 'its texture'} as {job.classes[job.target]}"
        result = AnalysisResult()
        for found in technique.figures(network, attacked, job.classes, attack, thing, wanted, settings.shown):
            result.add(found)
        for file in technique.object_files(mesh, attacked.textures[technique.EOT]):
            result.add(file)
    result.seconds = time.monotonic() - started
    (figure,) = result.figures
    images.write_picture(job.turntable, figure.image)
    written = write_obj(job.solid, mesh, attacked.textures[technique.EOT])
    name, facts = ANALYSES.name_of(AdversarialObject), {"network": job.source.name, "object": thing}
    weights = weights_hash(network)
    try:
        page = result_page.write(job.page, name, result, job.source.step, weights, job.name, facts)
    except OSError as error:
        raise SettingError("out", f"{job.page} cannot be written: {error.strerror}") from None
    print(f"{figure.caption} {result.seconds:.0f} s")
    print(f"the object: {', '.join(map(str, written))}")
    print(f"the turntable: {job.turntable}")
    return page


def _beside(jobs: list[_Job]) -> Path:
    """The page of several networks, beside that of the first."""
    from vitrine.reporting.page import compare
    from vitrine.runs.filenames import safe_name

    first, *others = jobs
    names = [first.page.name, *(safe_name(job.name) for job in others)]
    folder = first.page.with_name("-beside-".join(names))
    try:
        return compare([job.page for job in jobs], folder)
    except OSError as error:
        raise SettingError("out", f"{folder} cannot be written: {error.strerror}") from None


def _mesh(name: str) -> Any:
    """The mesh of a shape or of a file, as it is there."""
    from vitrine.core.registry import UnknownName
    from vitrine.objects import shapes
    from vitrine.objects.obj_files import UnreadableMesh, read_mesh

    file = Path(name)
    try:
        return read_mesh(file) if file.is_file() or file.suffix or "/" in name else shapes.make(name)
    except (UnreadableMesh, UnknownName) as error:
        raise SettingError("mesh", str(error)) from None


def _texture(settings: Any) -> tuple[Any, list[str]]:
    """The texture [3, T, T], and the files that must not be overwritten."""
    from vitrine.analyses.adversarial_object import pattern_texture
    from vitrine.objects.obj_files import UnreadableMesh
    from vitrine.objects.obj_materials import find_texture

    if settings.pattern is not None:
        with as_setting_error("pattern"):
            return pattern_texture(settings.pattern, settings.seed), []
    try:
        file = settings.texture or find_texture(Path(settings.mesh))
    except UnreadableMesh as error:
        raise SettingError("texture", f"is not given, and {error}; or give texture=FILE") from None
    if file is None:
        problem = f"is not given, and {settings.mesh} names none"
        raise SettingError(
            "texture", f"{problem}: expected texture=FILE, or pattern=CLASS of data.name=objects"
        )
    return images.read_image("texture", str(file), 3, None, MAX_TEXTURE)[0], [str(file)]


def _image_size(run: Path | None) -> int:
    """The image size that a run trains with."""
    from vitrine import config

    size = config.load_saved(run, []).data.image_size if run else 0
    if not size:
        raise SettingError(
            "size", "is not given, and cannot be told: expected size=PIXELS of the network's images"
        )
    return size
