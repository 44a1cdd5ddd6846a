import pytest
import torch

from analyses.base import Figure, Scalar


def _picture(seed, height=12, width=10):
    drawn = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return drawn.to(torch.uint8)


@pytest.fixture
def results():
    """What three analyses might yield at a step: pictures of units, of a layer, of probes, and curves."""

    def at(step):
        units = [
            Figure(
                f"{layer}/unit-{unit:03d}",
                _picture(step + 10 * unit + depth),
                f"unit {unit} of {layer}",
                layer=layer,
                unit=unit,
                values={
                    "activation": 2.0 * unit + step,
                    "class_entropy": 0.5,
                    "top_class": 1.0,
                    "index-1": 7.0,
                },
            )
            for depth, layer in enumerate(("layer1", "layer2"))
            for unit in (0, 5, 9)
        ]
        curves = [Scalar("dead_units/layer1", step / 1000, "layer1"), Scalar("entropy", 1.5)]
        maps = [
            Figure(f"probe-{p:03d}/<b>", _picture(step + p), f"probe {p}: <b>", probe=p, label=1)
            for p in range(3)
        ]
        weights = [Figure("conv1", _picture(step, 20, 30), "filters of conv1", layer="conv1")]
        return {"weights": (weights, []), "examples": (units, curves), "cam": (maps, [])}

    return at
