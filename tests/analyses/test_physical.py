import pytest
import torch
from torch import nn

from vitrine import config
from vitrine.analyses import physical
from vitrine.analyses.base import Figure, Probes, Scalar, Subject
from vitrine.analyses.physical import TITLES, Physical, random_transformation
from vitrine.analyses.picture_table import GAP, LINE
from vitrine.attacks import TRANSFORMATIONS
from vitrine.core.random_numbers import content_keys, fold_in, uniform

QUICK = {"enabled": True, "steps": 20, "draws": 2, "draws_each": 16, "eps": 0.04}
CLASSES = ["dark", "bright"]
STILL = ("rotation", "scale", "perspective", "blur")  # that leave an even grey as it is


class Brightness(nn.Module):
    """Bright where the mean of the pixels is above one half."""

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1) * 40


def subject(levels=(0.47, 0.53)):
    images = torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 16, 16).contiguous()
    labels = (torch.tensor(levels) > 0.5).long()
    return Subject(Brightness().eval(), Probes(images, labels, torch.arange(len(levels))), [], CLASSES, {})


def split(results):
    results = list(results)
    figures = [r for r in results if isinstance(r, Figure)]
    return figures, {r.key: r.value for r in results if isinstance(r, Scalar)}


@pytest.mark.slow
def test_what_leaves_an_image_as_it_is_destroys_nothing_and_light_does_what_it_must():
    given = subject()
    figures, scalars = split(Physical(**QUICK)(given))
    for name in STILL:
        assert scalars[f"destruction/PGD/{name}"] == scalars[f"destruction/EOT/{name}"] == 0
    # the adversarial image is the even grey 0.51 or 0.49: contrast hardly matters, brightness alone decides
    keys = fold_in(content_keys(given.probes.images), 1)
    undone = 0
    for draw in range(16):
        grey = torch.tensor([0.51, 0.49]).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)
        lit = TRANSFORMATIONS["light"]()(grey, fold_in(keys, draw)).mean((1, 2, 3))
        undone += int((lit[0] <= 0.5).item()) + int((lit[1] > 0.5).item())
    assert scalars["destruction/PGD/light"] == pytest.approx(undone / 32) and undone
    rates = figures[-1]
    assert (
        rates.key == "destruction rates" and rates.values["reached/PGD"] == rates.values["reached/EOT"] == 1
    )


@pytest.mark.slow
def test_each_probe_has_its_rows_and_every_transformation_a_column():
    figures, _ = split(Physical(**QUICK)(subject()))
    first = figures[0]
    assert [f.key for f in figures[:2]] == ["probe-000/as bright", "probe-001/as dark"]
    assert first.label == 1 and first.caption.startswith("probe 0, dark, to be taken for bright")
    side, columns = 96, 1 + len(TITLES)
    assert first.image.shape == (LINE + 3 * (side + LINE + GAP) - GAP, LINE + columns * (side + GAP) - GAP, 3)
    assert set(first.values) == {
        f"{row}/{c}" for row in ("image", "PGD", "EOT") for c in ("as it is", *TITLES)
    }
    confidence = torch.tensor(0.51 - 0.5).mul(80).sigmoid().item()
    for name in ("as it is", *STILL):
        assert first.values[f"PGD/{name}"] == pytest.approx(confidence, abs=1e-3)


@pytest.mark.slow
def test_a_target_that_cannot_be_reached_has_no_destruction_rate():
    figures, scalars = split(Physical(**QUICK)(subject((0.2,))))
    assert scalars == {}
    assert figures[-1].values["reached/PGD"] == 0
    assert figures[-1].image.dtype == torch.uint8


@pytest.mark.slow
def test_probes_of_the_target_are_passed_over():
    figures, _ = split(Physical(**QUICK, target="dark")(subject()))
    assert [f.key for f in figures] == ["probe-001/as dark", "destruction rates"]
    (said,) = Physical(**QUICK, target="dark")(subject((0.4,)))
    assert said.name == "left-out.txt" and "every one (1) is of dark, the target" in said.text


@pytest.mark.slow
def test_eot_survives_what_plain_pgd_does_not():
    class Corner(nn.Module):
        """Looks at single pixels on a fine grid, which blur destroys, and faintly at the whole."""

        def forward(self, images):
            board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
            fine = (images * board).mean((1, 2, 3))
            score = 30 * fine + 12 * (images.mean((1, 2, 3)) - 0.52)
            return torch.stack([-score, score], 1)

    given = subject((0.5,))
    given = Subject(Corner().eval(), given.probes, [], CLASSES, {})
    _, scalars = split(
        Physical(**QUICK | {"eps": 0.06, "draws": 8}, probes=1, target="bright")(
            Subject(
                given.network,
                Probes(given.probes.images, torch.tensor([0]), torch.arange(1)),
                [],
                CLASSES,
                {},
            )
        )
    )
    assert scalars["destruction/EOT/physical"] <= scalars["destruction/PGD/physical"]


def test_it_is_off_unless_asked_for_and_its_settings_are_understood():
    assert not config.load([]).analysis.physical.enabled
    said = ["analysis.physical.enabled=true", "analysis.physical.target=stop", "analysis.physical.eps=16/255"]
    assert config.load(said).analysis.physical == Physical(enabled=True, target="stop")


@pytest.mark.parametrize("name", TITLES)
def test_what_is_chosen_says_nothing_of_how_it_turns_out(name, monkeypatch):
    came = []

    def keep(images, keys):
        came.append(keys)
        return images

    kinds = {other: lambda: lambda images, keys: images for other in TITLES} | {name: lambda: keep}
    monkeypatch.setattr(physical, "TRANSFORMATIONS", kinds)
    random_transformation(torch.zeros(4000, 1, 2, 2), torch.arange(4000))
    (keys,) = came
    for own in (keys, *(fold_in(keys, purpose) for purpose in range(8))):
        drawn = uniform(own, 1)
        assert 0.4 < drawn.mean() < 0.6 and drawn.min() < 0.1 and drawn.max() > 0.9


def test_half_of_the_views_are_under_all_at_once_and_each_is_its_keys_own():
    generator = torch.Generator().manual_seed(0)
    images, keys = torch.rand(200, 3, 8, 8, generator=generator), torch.arange(200)
    seen = random_transformation(images, keys)
    found = {}
    for name in (None, *TITLES):
        alone = images if name is None else TRANSFORMATIONS[name]()(images, fold_in(keys, 1))
        found[name] = (seen - alone).flatten(1).abs().amax(1) < 1e-6
    assert torch.stack([*found.values()]).any(0).all()  # each image is as one of them makes it
    assert 70 < found["physical"].sum() < 130 and min(there.sum() for there in found.values()) > 2
    rows = torch.tensor([7, 3, 150])
    assert torch.allclose(random_transformation(images[rows], keys[rows]), seen[rows], atol=1e-6)


def test_where_all_probes_are_of_the_target_that_is_said(caplog):
    (said,) = Physical(target="bright", enabled=True)(subject(levels=(0.53, 0.6)))
    assert said.name == "left-out.txt" and "every one (2) is of bright, the target" in said.text
    assert "physical is left out: no probe is attacked" in caplog.text and len(caplog.records) == 1
