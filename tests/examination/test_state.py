"""What an analysis is handed from one checkpoint to the next, and what it leaves beside its pictures."""

import json
from pathlib import Path

import pytest
import tiny
import torch

from vitrine.analyses.base import Analysis, File, Scalar, State
from vitrine.runs.store import Store


class Adds(Analysis):
    """Sums the steps it has seen, and lists them."""

    broken = False

    def __call__(self, subject):
        before = subject.previous_state.get("adds", {})
        steps = torch.cat([before.get("steps", torch.zeros(0)), torch.tensor([float(subject.step)])])
        yield State({"steps": steps, "first": steps[:1]})  # a view of the other
        yield File("steps.csv", "step\r\n" + "".join(f"{int(step)}\r\n" for step in steps))
        yield Scalar("sum", steps.sum().item())
        if self.broken:
            raise RuntimeError("broken")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return tiny.tiny_network().eval()


def sums(run: Path) -> dict[int, float]:
    store = Store(run)
    found = {step: store.scalars(step, "adds") for step in store.steps()}
    return {step: points[0].value for step, points in found.items() if points}


def test_a_state_goes_from_each_checkpoint_to_the_next_in_whatever_order_they_are_examined(tmp_path, network):
    examiner = tiny.examiner(tmp_path, {"adds": Adds()})
    for step in (10, 30, 20, 40):
        examiner.examine(network, step)
    assert sums(tmp_path) == {10: 10, 20: 30, 30: 40, 40: 80}  # 40 after 30, which did not know of 20
    with torch.no_grad():
        network[5].bias.add_(1)
    for step in (20, 30, 40):  # of other weights: again, and no step counts twice
        examiner.examine(network, step)
    assert sums(tmp_path) == {10: 10, 20: 30, 30: 60, 40: 100}
    assert Store(tmp_path).previous_state(10) == {}


def test_a_checkpoint_without_the_analysis_is_passed_over(tmp_path, network):
    tiny.examiner(tmp_path, {"adds": Adds()}).examine(network, 10)
    tiny.examiner(tmp_path, {"plain": tiny.Plain()}).examine(network, 20)
    tiny.examiner(tmp_path, {"adds": Adds()}).examine(network, 30)
    assert sums(tmp_path) == {10: 10, 30: 40}


def test_state_and_files_lie_in_the_folder_of_the_analysis_and_are_read_on_access(tmp_path, network):
    report = tiny.examiner(tmp_path, {"adds": Adds(), "plain": tiny.Plain()}).examine(network, 10)
    folder = Store(tmp_path).step_folder(10)
    names = {"figures.json", "scalars.json", "state.safetensors", "steps.csv"}
    assert {file.name for file in (folder / "adds").iterdir()} == names
    for result in (report.results["adds"], Store(tmp_path).results(10)["adds"]):
        assert list(result.files) == ["steps.csv"] and result.files["steps.csv"] == "step\r\n10\r\n"
        assert list(result.state) == ["steps", "first"] and result.state["first"].tolist() == [10]
    assert (folder / "adds" / "steps.csv").read_bytes() == b"step\r\n10\r\n"
    assert len({file.stat().st_mode for file in (folder / "adds").iterdir()}) == 1
    records = json.loads((folder / "complete.json").read_text())["analyses"]
    assert records["adds"]["files"] == ["steps.csv"] and "files" not in records["plain"]
    plain = Store(tmp_path).results(10)["plain"]
    assert not plain.files and not plain.state and list(Store(tmp_path).previous_state(11)) == ["adds"]


def test_the_state_is_looked_for_from_the_latest_step_on_and_no_further_than_it_is(tmp_path, network):
    examiner = tiny.examiner(tmp_path, {"adds": Adds()})
    for step in (10, 20, 30):
        examiner.examine(network, step)
    store = Store(tmp_path)
    before = store.previous_state(31)
    (store.step_folder(10) / "complete.json").write_bytes(b"damaged")
    assert before["adds"]["steps"].tolist() == [10, 20, 30] and list(before) == ["adds"]
    assert "other" not in before and store.previous_state(20) == {}  # 10 is complete no more
    (store.step_folder(20) / "complete.json").unlink()
    (store.step_folder(20) / "complete.json").mkdir()  # reading it would raise IsADirectoryError
    assert before["adds"]["steps"].tolist() == [10, 20, 30]
    with pytest.raises(IsADirectoryError):
        before["other"]


def test_a_state_that_cannot_be_read_any_more_is_said_and_begun_anew(tmp_path, network, caplog):
    examiner = tiny.examiner(tmp_path, {"adds": Adds()})
    examiner.examine(network, 10)
    (examiner.store.step_folder(10) / "adds" / "state.safetensors").write_bytes(b"damaged")
    examiner.examine(network, 20)
    assert sums(tmp_path)[20] == 20 and "state.safetensors cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("yielded", "problem"),
    [
        ([File("../out.csv", "")], "expected letters"),
        ([File("a/b.csv", "")], "expected letters"),
        ([File("figures.json", "")], "expected letters"),
        ([File("state.safetensors", "")], "expected letters"),
        ([File("page.html", "")], "expected letters"),
        ([File("a.png", "")], "of str, expected letters"),
        ([File("a.obj", b"")], "of bytes, expected letters"),
        ([File("a.csv", ""), File("a.csv", "")], "came twice"),
        ([State({"a": torch.ones(1)}), State({"b": torch.ones(1)})], "second State"),
        ([State({"a": torch.ones(2).to_sparse()})], "expected dense tensors"),
        (["text"], "expected a Figure, a Scalar, a State or a File"),
    ],
)
def test_what_cannot_be_kept_is_a_failure_of_its_analysis(tmp_path, network, yielded, problem):
    class Wrong(Analysis):
        def __call__(self, subject):
            yield from yielded

    report = tiny.examiner(tmp_path, {"wrong": Wrong(), "plain": tiny.Plain()}).examine(network, 10)
    assert problem in report.errors["wrong"] and list(report.errors) == ["wrong"]
    assert not (tmp_path / "analysis" / "out.csv").exists()


def test_the_training_split_comes_in_batches_and_its_absence_is_said(network, tmp_path):
    found = {}

    class Looks(Analysis):
        def __call__(self, subject):
            found["rate"], found["train"] = subject.learning_rate, subject.train
            found["batches"] = [len(labels) for _, labels in subject.train_batches()]
            found["one"] = subject.train_images([3])[0]
            yield Scalar("count", len(subject.train))

    examiner = tiny.examiner(tmp_path, {"looks": Looks()})
    assert not examiner.examine(network, 10).errors
    train = examiner.data.train
    assert found["train"] is train and sum(found["batches"]) == len(train) and found["rate"] is None
    assert torch.equal(found["one"], train.batch(torch.tensor([3]))[0].float() / 255)

    examiner.data.training_split = lambda: (None, "it is a stream")
    assert "no training images: it is a stream" in examiner.examine(network, 20).errors["looks"]
