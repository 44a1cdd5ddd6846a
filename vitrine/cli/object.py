"""An object whose texture makes a network see another class in it, from all sides.

    python analyze.py object RUN mesh=turtle pattern=dots target=rings     a run of data.name=objects
    python analyze.py object RUN mesh=FILE.obj texture=FILE.png target=CLASS    any mesh with UV coordinates
    python analyze.py object RUN mesh=turtle pattern=dots target=rings norm=lab eps=12

Writes a turntable (views from all around with the verdict under each) and the object as .obj with .mtl and
.png, which any viewer opens. Meshes: sphere, cube, mug, bottle, turtle, car; an .obj file; or what trimesh
reads (pip install 'vitrine[physical]').
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrine.analyses.adversarial_object import AdversarialObject
from vitrine.cli import images
from vitrine.cli.arguments import add_technique_settings
from vitrine.config.errors import as_setting_error
from vitrine.core.settings import SettingError, setting

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
        None, "PNG of the turntable to write, the object beside it; unless given RUN/object/MESH-as-CLASS.png"
    )
    seed: int = setting(0, "of the views and of the pattern", least=0)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")


Settings = add_technique_settings(OwnSettings, AdversarialObject, TECHNIQUE_SETTINGS)


def main(words: list[str], settings: Any) -> None:
    started = time.monotonic()
    if settings.target is None:
        raise SettingError("target", "is not given, expected target=CLASS")
    if settings.texture is not None and settings.pattern is not None:
        raise SettingError(
            "pattern", f"is {settings.pattern}, and texture is given as well: expected one of them"
        )

    # not at the top: seconds of imports, which a mistyped setting need not wait for
    from vitrine.analyses import adversarial_object as technique
    from vitrine.analyses.threat_model import class_index
    from vitrine.attacks.textures import TextureAttack
    from vitrine.cli.network import find_network
    from vitrine.examination.subject import progress_bar
    from vitrine.modules.network_record import record_of
    from vitrine.objects.obj_files import write_obj
    from vitrine.runs.filenames import safe_name

    mesh = _mesh(settings.mesh)
    texture, sources = _texture(settings)
    source = find_network(words, settings.device)
    if source.channels != 3:
        raise SettingError(
            "mesh", f"the network takes {source.channels} channels, expected 3: objects have colours"
        )
    classes = record_of(source.network).classes
    with as_setting_error("target"):
        target = class_index(settings.target, classes)
    size, stem = settings.size or _image_size(source.run), Path(settings.mesh).stem
    name = f"{stem}-as-{safe_name(classes[target])}.png"
    default = source.run / "object" / name if source.run else Path(name)
    file = images.output_file(settings.out, default, sources)
    solid = file.with_name(f"{file.stem}-object.obj")
    made = {solid.with_suffix(suffix).resolve() for suffix in (".obj", ".mtl", ".png")}
    for of in (settings.mesh, *sources):
        if Path(of).resolve() in made:
            raise SettingError("out", f"{of} is what the object is made of, expected another name")
    with as_setting_error("object"):
        budget = {key: getattr(settings, key) for key in ("norm", "eps", "steps", "draws", "seed")}
        attack = TextureAttack(**budget)
        attacked = technique.attack_object(
            source.network,
            mesh.fitted(),
            texture.to(source.device),
            target,
            attack,
            size,
            settings.views,
            progress_bar,
        )
        picture = technique.turntable_picture(source.network, attacked, classes, settings.shown)
    images.write_picture(file, picture)
    written = write_obj(solid, mesh, attacked.textures[technique.EOT])
    print(f"{stem}: {technique.describe(attacked, classes, attack)} {time.monotonic() - started:.0f} s")
    print(f"the object: {', '.join(map(str, written))}")
    print(f"the turntable: {file}")


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
    from vitrine.objects.obj_files import find_texture

    if settings.pattern is not None:
        with as_setting_error("pattern"):
            return pattern_texture(settings.pattern, settings.seed), []
    file = settings.texture or find_texture(Path(settings.mesh))
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
