import pytest
from PIL import Image

from vitrine.objects.obj_files import UnreadableMesh
from vitrine.objects.obj_materials import find_texture

TRIANGLE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\n"
FACE = "f 1/1 2/2 3/3\n"
TWO = "newmtl a\nmap_Kd red.png\nnewmtl b\nmap_Kd blue.png\nnewmtl plain\nKd 1 1 1\n"


@pytest.fixture
def found(tmp_path):
    """What is found of an `.obj` whose material file says this, and whose faces use these materials."""
    (tmp_path / "textures").mkdir()
    for name in ("red.png", "blue.png", "a b.png", "textures/green.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)

    def find(materials, *used, library="mtllib a.mtl\n", mark=""):
        (tmp_path / "a.mtl").write_text(mark + materials, encoding="utf-8")
        faces = "".join(f"usemtl {name}\n{FACE}" for name in used) or FACE
        (tmp_path / "a.obj").write_text(mark + library + TRIANGLE + faces, encoding="utf-8")
        image = find_texture(tmp_path / "a.obj")
        return image and image.relative_to(tmp_path).as_posix()

    return find


@pytest.mark.parametrize(
    "words, image",
    [
        ("map_Kd red.png", "red.png"),
        ("\tmap_kd  a b.png", "a b.png"),
        ("map_Kd textures/green.png", "textures/green.png"),
        (r"map_Kd textures\green.png", "textures/green.png"),
        (r"map_Kd C:\models\red.png", "red.png"),
        ("map_Kd /elsewhere/red.png # of the body", "red.png"),
        ("map_Kd -s 1 1 1 red.png", "red.png"),
        ("map_Kd -o 0 -blendu on -clamp off -mm 0 1 a b.png", "a b.png"),
        ("map_Kd \\\n-s 1.0 1.0 1.0 \\\nred.png", "red.png"),
    ],
)
def test_a_texture_is_found_by_name_folder_and_behind_options(found, words, image):
    assert found(f"newmtl surface\n{words}\n", "surface") == image


def test_the_texture_is_that_of_the_material_that_faces_use(found, caplog):
    assert found(TWO, "b") == found(TWO, "b", mark="\ufeff") == "blue.png"
    assert found(TWO, "a", "a") == found(TWO, "a", library="usemtl b\nmtllib a.mtl\n") == "red.png"
    assert found(TWO, "plain") is None and not caplog.text
    assert found(TWO, "plain", "b") == "blue.png"
    assert "the faces of plain, which has no texture, get" in caplog.text
    assert found("newmtl a\nmap_Kd red.png\n") == "red.png"  # whatever the faces use
    assert found(TWO, "b", library="mtllib a.mtl a.mtl\n") == "blue.png"
    assert found(TWO, "b", library="") is None


@pytest.mark.parametrize(
    "materials, used, library, message",
    [
        (TWO, ["a", "b"], None, r"has several textures \(red.png of a, blue.png of b\)"),
        (TWO, [], None, "has several textures"),
        (TWO, ["a"], "mtllib .\n", "a.obj names the materials ., and there is no such file"),
        (TWO, ["a"], "mtllib b.mtl\n", "a.obj names the materials b.mtl, and there is no such file"),
        ("newmtl a\nmap_Kd green.png\n", ["a"], None, "names the texture green.png, and there is no such"),
        ("newmtl a\nmap_Kd .\n", ["a"], None, "names the texture ., and there is no such file"),
        ("newmtl a\nmap_Kd -s 1 1 1\n", ["a"], None, "names no file in map_Kd -s 1 1 1"),
        ("newmtl a\nmap_Kd -s 4 4 1 red.png\n", ["a"], None, "is changed by -s 4 4 1, which is not followed"),
        ("newmtl a\nmap_Kd -clamp on red.png\n", ["a"], None, "is changed by -clamp on"),
    ],
)
def test_what_names_no_single_texture_is_said(found, materials, used, library, message):
    with pytest.raises(UnreadableMesh, match=message):
        found(materials, *used, **({"library": library} if library else {}))
