import sys

import numpy as np
import pytest
import torch
from PIL import Image

from vitrine.objects import shapes
from vitrine.objects.obj_files import UnreadableMesh, parse_obj, read_mesh, write_obj

SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"


def test_a_mesh_comes_back_as_it_was_written(tmp_path):
    mesh, texture = shapes.make("turtle"), torch.rand(3, 8, 8)
    written = write_obj(tmp_path / "a.obj", mesh, texture)
    assert [file.name for file in written] == ["a.obj", "a.mtl", "a.png"]
    back = read_mesh(tmp_path / "a.obj")
    torch.testing.assert_close(back.vertices[back.faces], mesh.vertices[mesh.faces], atol=1e-8, rtol=0)
    torch.testing.assert_close(back.uvs[back.face_uvs], mesh.uvs[mesh.face_uvs], atol=1e-8, rtol=0)
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.abs(pixels.transpose(2, 0, 1) / 255 - texture.numpy()).max() <= 0.5 / 255 + 1e-6
    assert "mtllib a.mtl" in written[0].read_text() and "map_Kd a.png" in written[1].read_text()


def test_polygons_normals_comments_and_negative_numbers_are_read():
    mesh = parse_obj(SQUARE + "vn 0 0 1\n# a square\no name\ns off\nf -4/-4/1 2/2/1 3/3/1 4/4/1 # all four\n")
    assert mesh.faces.tolist() == mesh.face_uvs.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_lines_that_go_on_in_the_next_are_one_and_comments_are_not():
    mesh = parse_obj("# of C:\\models\\\n" + SQUARE + "f 1/1 2/2 \\\n3/3 \\\n4/4\n")
    assert len(mesh.vertices) == 4 and mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    with pytest.raises(UnreadableMesh, match="line 9: corner 9/9"):
        parse_obj(SQUARE + "f 1/1 \\\n2/2 9/9\n")


def test_a_byte_order_mark_hides_no_vertex(tmp_path):
    (tmp_path / "a.obj").write_text(SQUARE + "f 1/1 2/2 3/3\n", encoding="utf-8-sig")
    assert len(read_mesh(tmp_path / "a.obj").vertices) == 4


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "has no face"),
        (SQUARE + "f 1 2 3", "line 9: corner 1 has no UV coordinates"),
        (SQUARE + "f 1//1 2//1 3//1", "line 9: corner 1//1 has no UV coordinates"),
        (SQUARE + "f 1/1 2/2 5/3", "line 9: corner 5/3 names vertex 5 of 4"),
        (SQUARE + "f 1/1 2/2 0/3", "line 9: corner 0/3 names vertex 0 of 4"),
        (SQUARE + "f 1/1 2/2", "line 9: a face has 2 corners"),
        (SQUARE + "v 1 two 3", "line 9 is malformed: 'v 1 two 3'"),
        ("v nan 0 0\n" + SQUARE + "f 1/1 2/2 3/3", "not all finite"),
    ],
)
def test_what_is_no_unwrapped_mesh_is_answered_with_the_line(text, message):
    with pytest.raises(UnreadableMesh, match=message):
        parse_obj(text)


def test_other_formats_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    (tmp_path / "a.glb").write_bytes(b"glTF")
    with pytest.raises(UnreadableMesh, match=r"a.glb: .glb needs trimesh: pip install 'vitrine\[physical\]'"):
        read_mesh(tmp_path / "a.glb")


@pytest.mark.slow
def test_trimesh_reads_what_is_written_and_its_formats_are_read(tmp_path):
    trimesh = pytest.importorskip("trimesh", reason="pip install 'vitrine[physical]'")
    mesh = shapes.make("mug")
    write_obj(tmp_path / "a.obj", mesh, torch.rand(3, 8, 8))
    theirs = trimesh.load(tmp_path / "a.obj", force="mesh", process=False)
    assert theirs.volume == pytest.approx(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).volume)
    theirs.export(tmp_path / "a.glb")
    back = read_mesh(tmp_path / "a.glb")
    torch.testing.assert_close(back.vertices[back.faces], mesh.vertices[mesh.faces], atol=1e-6, rtol=0)
    torch.testing.assert_close(back.uvs[back.face_uvs], mesh.uvs[mesh.face_uvs], atol=1e-6, rtol=0)
