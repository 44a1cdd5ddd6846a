"""`analyze.py object`: a mesh and a texture in, a turntable and an adversarial object out."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from vitrine.cli import analyze, train
from vitrine.core.settings import SettingError
from vitrine.objects import shapes
from vitrine.objects.obj_files import read_mesh, write_obj
from vitrine.runs.store import Store

pytestmark = pytest.mark.slow  # a run is trained
RUN = [
    "data.name=objects",
    "data.train_size=16",
    "data.val_size=8",
    "data.image_size=16",
    "data.batch_size=8",
    "trainer.max_steps=1",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "logging.wandb.mode=disabled",
    "analysis.mode=off",
]
FEW = ["steps=1", "draws=2", "views=4", "shown=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    train.main([*RUN, f"run.root={root}", "run.name=objects"])
    return root / "objects"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_shape_in_a_pattern_goes_into_the_runs_folder(run, capsys):
    analyze.main(["object", str(run), "mesh=car", "pattern=dots", "target=rings", *FEW])
    printed = capsys.readouterr().out.splitlines()
    folder = run / "object"
    assert {file.name for file in folder.iterdir()} == {
        "car-as-rings",
        "car-as-rings.png",
        *(f"car-as-rings-object.{suffix}" for suffix in ("obj", "mtl", "png")),
    }
    assert printed[-2] == f"the turntable: {folder / 'car-as-rings.png'}"
    assert printed[-1] == f"the page: {folder / 'car-as-rings' / 'index.html'}"
    assert "to be taken for rings (red) from any side" in printed[0] and "within Linf 64/255" in printed[0]
    mesh = read_mesh(folder / "car-as-rings-object.obj")
    torch.testing.assert_close(
        mesh.vertices[mesh.faces], shapes.make("car").vertices[shapes.make("car").faces]
    )
    store = Store(
        folder / "car-as-rings"
    )  # the page links the same object, which goes with it when it is sent
    (step,) = store.steps()
    files = store.results(step)["adversarial_object"].files
    assert list(files) == ["object.obj", "object.mtl", "object.png"]
    assert files["object.png"] == (folder / "car-as-rings-object.png").read_bytes()
    linked = read_mesh(store.step_folder(step) / "adversarial_object" / "object.obj")
    assert torch.equal(linked.vertices, mesh.vertices)
    assert (
        '"files":["object.obj","object.mtl","object.png"]'
        in (folder / "car-as-rings" / "gallery.js").read_text()
    )


def test_two_runs_stand_beside_each_other_on_one_page(run, tmp_path, capsys):
    other = run.with_name("robust")
    shutil.copytree(run, other)
    analyze.main(["object", str(run), str(other), "mesh=cube", "pattern=dots", "target=rings", *FEW])
    page = run / "object" / "cube-as-rings-beside-robust" / "index.html"
    assert capsys.readouterr().out.splitlines()[-1] == f"the page: {page}"
    shown = json.loads(page.with_name("gallery.js").read_text()[len("vitrine(") : -len(");\n")])["runs"]
    assert [of["name"] for of in shown] == ["objects", "robust"]
    for of, folder in zip(shown, (run, other)):
        (technique,) = of["analyses"]
        ((_, _, _, _, drawn),) = technique["at"]["1"]
        assert list(drawn["turntable"]["rows"]) == ["clean", "one view", "all views"]
        assert (page.parent / of["base"]).resolve() == (folder / "object" / "cube-as-rings").resolve()
        assert (folder / "object" / "cube-as-rings.png").is_file()


def test_of_several_networks_each_has_a_file_of_its_own_or_is_refused(run, tmp_path):
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    words = ["mesh=cube", "pattern=dots", "target=rings", *FEW]
    with pytest.raises(SettingError, match="object: two of the networks are of objects"):
        analyze.main(["object", str(run), checkpoint, *words])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").write_text("")
    with pytest.raises(SettingError, match="out: a is there already"):
        analyze.main(["object", str(run), "out=a.png", *words])


def test_a_mesh_of_ones_own_keeps_its_place_and_its_texture_is_found(run, tmp_path, capsys):
    texture = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    cube = shapes.make("cube")
    moved = type(cube)(cube.vertices * 7 + 3, cube.faces, cube.uvs, cube.face_uvs)
    write_obj(tmp_path / "mine.obj", moved, texture)
    analyze.main(["object", str(run), "mesh=mine.obj", "target=0", "eps=8/255", "out=a.png", *FEW])
    back = read_mesh(tmp_path / "a-object.obj")
    torch.testing.assert_close(back.vertices[back.faces], moved.vertices[moved.faces])
    changed, before = (np.asarray(Image.open(name)).astype(int) for name in ("a-object.png", "mine.png"))
    assert 0 < np.abs(changed - before).max() <= 9
    assert "mine: " in capsys.readouterr().out


def test_a_texture_that_is_named_and_not_there_is_said(run, tmp_path):
    write_obj(tmp_path / "mine.obj", shapes.make("cube"), torch.rand(3, 8, 8))[-1].unlink()
    message = r"texture: is not given, and .*names the texture mine.png, and there is no such file; or give"
    with pytest.raises(SettingError, match=message):
        analyze.main(["object", str(run), "mesh=mine.obj", "target=0", *FEW])


def test_what_an_object_is_made_of_is_not_overwritten(run, tmp_path):
    files = write_obj(tmp_path / "a-object.obj", shapes.make("cube"), torch.rand(3, 8, 8))
    before = [file.read_bytes() for file in files]
    with pytest.raises(SettingError, match=r"out: a-object\.obj is what the object is made of"):
        analyze.main(["object", str(run), "mesh=a-object.obj", "target=0", "out=a.png", *FEW])
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize(
    "words, message",
    [
        (["pattern=dots"], "target: is not given"),
        (["pattern=dots", "target=ring"], "target: .*did you mean rings"),
        (["pattern=dotz", "target=rings"], "pattern: .*did you mean dots"),
        (["target=rings"], "texture: is not given, and turtle names none"),
        (["target=rings", "texture=a.png"], "texture: there is no file a.png"),
        (["target=rings", "texture=a.png", "pattern=dots"], "pattern: is dots, and texture is given as well"),
        (["target=rings", "pattern=dots", "mesh=turtel"], "mesh: .*did you mean turtle"),
        (["target=rings", "pattern=dots", "mesh=a.obj"], "mesh: there is no file a.obj"),
        (["target=rings", "pattern=dots", "eps=32"], "eps: is 32.*did you mean 32/255"),
        (["target=rings", "pattern=dots", "out=a.jpg"], "out: is a.jpg, expected a file that ends in .png"),
    ],
)
def test_what_cannot_be_attacked_is_answered_by_one_sentence(run, words, message):
    with pytest.raises(SettingError, match=message):
        analyze.main(["object", str(run), *words, *FEW])
    assert not (run / "object" / "turtle-as-rings.png").exists()
