import pytest
import torch

from vitrine.analyses.base import Scratch
from vitrine.runs.scratch import FileScratch
from vitrine.runs.store import Store


def test_what_is_saved_is_there_at_the_next_start_until_it_is_cleared(tmp_path):
    scratch: Scratch = FileScratch(tmp_path / "a" / "b")
    assert scratch.load("key") is None and not (tmp_path / "a").exists()
    scratch.save("key", {"rows": torch.arange(3), "names": ["x"]})
    scratch.save("other", {"done": 1})
    scratch.save("key", {"rows": torch.arange(4), "names": ["x"]})
    again = FileScratch(tmp_path / "a" / "b")
    assert torch.equal(again.load("key")["rows"], torch.arange(4)) and again.load("other") == {"done": 1}
    again.clear()
    assert again.load("key") is None and list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_is_passed_over(tmp_path, caplog):
    scratch = FileScratch(tmp_path)
    scratch.save("key", {"done": 1})
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:40])
    assert scratch.load("key") is None and "starts from the beginning" in caplog.text


def test_a_disk_that_refuses_does_not_end_the_analysis(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    FileScratch(tmp_path / "file" / "folder").save("key", {})
    assert "cannot save" in caplog.text


def test_steps_weights_and_analyses_have_their_own_and_readers_of_steps_see_nothing(tmp_path):
    store = Store(tmp_path)
    places = {
        store.scratch(*of).folder for of in ((1, "a", "w"), (2, "a", "w"), (1, "b", "w"), (1, "a", "v"))
    }
    assert len(places) == 4
    store.scratch(1, "a", "w").save("key", {})
    assert store.steps() == []


def test_a_large_tensor_is_in_a_file_that_nobody_else_has_and_that_leaves_nothing(tmp_path):
    for scratch in (Scratch(), FileScratch(tmp_path / "a" / "b")):
        one, other = (scratch.empty("features", (3, 2), torch.float16) for _ in range(2))
        one.fill_(1)
        other.copy_(torch.arange(6).view(3, 2))
        assert one.eq(1).all() and other[2, 1] == 5 and one.dtype == torch.float16
        assert scratch.empty("none", (0, 2)).shape == (0, 2)
    scratch.clear()
    assert one.eq(1).all() and list(tmp_path.iterdir()) == []


def test_a_disk_without_room_for_a_tensor_is_an_error_and_not_a_killed_process(tmp_path):
    with pytest.raises(OSError):
        FileScratch(tmp_path).empty("features", (2**57,), torch.float32)
    assert list(tmp_path.iterdir()) == []
