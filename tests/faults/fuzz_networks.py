"""Networks whose maps lie otherwise (channels last, tokens), as high or wide as they have channels, for
images of any shape, with logits in another form, wrapped or not: maps and logits of the plain network."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from cases import run_cases, time_limit
from hypothesis import strategies as st
from torch import Tensor, nn

from vitrine.analyses.activations import activations
from vitrine.analyses.cam import grad_cam
from vitrine.analyses.layers import auto_layers
from vitrine.analyses.saliency import input_gradient
from vitrine.attacks import FGSM
from vitrine.core.network_scopes import eager_eval_mode

FORMS = {
    "tensor": lambda logits: logits,
    "dict": lambda logits: {"aux": logits * 2, "logits": logits},
    "object": lambda logits: SimpleNamespace(logits=logits, hidden=(logits,)),
    "tuple": lambda logits: (logits, logits * 2),
    "list": lambda logits: [logits],
    "dict without": lambda logits: {"scores": logits},
}
READABLE = ("tensor", "dict", "object")
LAYOUTS = ("NCHW", "NHWC", "tokens", "class token")
WRAPPERS = {
    "none": lambda network: network,
    "compiled": lambda network: torch.compile(network, backend="eager"),
    "compiled in place": lambda network: network.compile(backend="eager") or network,
    "parallel": nn.DataParallel,
}


class Stage(nn.Module):
    """A convolution whose output lies in a layout."""

    def __init__(self, channels: int, width: int, stride: int, layout: str):
        super().__init__()
        self.conv, self.layout = nn.Conv2d(channels, width, 3, stride, 1), layout
        self.token = nn.Parameter(torch.randn(1, 1, width))

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.conv(maps).relu()
        if self.layout == "NCHW":
            return maps
        if self.layout == "NHWC":
            return maps.permute(0, 2, 3, 1)
        tokens = maps.flatten(2).transpose(1, 2)
        if self.layout == "tokens":
            return tokens
        return torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1)


class Network(nn.Module):
    """Two stages and a head over all places; what it returns is `form` of the logits."""

    def __init__(self, channels: int, widths: tuple[int, int], stride: int, layout: str, form: str):
        super().__init__()
        self.layout, self.form = layout, form
        self.stem = nn.Conv2d(channels, widths[0], 3, stride, 1)
        self.stage = Stage(widths[0], widths[1], 1, layout)
        self.head = nn.Linear(widths[1], 4)

    def forward(self, images: Tensor) -> Any:
        out = self.stage(self.stem(images).relu())
        if self.layout == "NCHW":
            places = out.flatten(2).transpose(1, 2)
        elif self.layout == "class token":
            places = out[:, 1:]
        else:
            places = out.flatten(1, -2)
        return FORMS[self.form](self.head(places.mean(1)))


@st.composite
def networks(draw: Any) -> SimpleNamespace:
    stride = draw(st.integers(1, 3))
    height, width = draw(st.integers(3, 12)) * stride, draw(st.integers(3, 12)) * stride
    rows, columns = -(-height // stride), -(-width // stride)
    return SimpleNamespace(
        stride=stride,
        size=(height, width),
        grid=(rows, columns),
        channels=draw(st.sampled_from([1, 3])),
        # as many channels as rows, as columns, as places: what a shape alone cannot tell apart
        widths=(draw(st.integers(2, 8)), draw(st.sampled_from([rows, columns, rows * columns, 1, 5, 8]))),
        layout=draw(st.sampled_from(LAYOUTS)),
        form=draw(st.sampled_from([*sorted(FORMS), *READABLE, *READABLE, *READABLE])),
        wrapper=draw(st.sampled_from(sorted(WRAPPERS))),
        called=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


def build(case: SimpleNamespace, layout: str, form: str) -> Network:
    torch.manual_seed(case.seed)
    return Network(case.channels, case.widths, case.stride, layout, form).eval()


def check(case: SimpleNamespace) -> str:
    images = torch.rand(2, case.channels, *case.size, generator=torch.Generator().manual_seed(case.seed))
    labels, plain = torch.tensor([1, 3]), build(case, "NCHW", "tensor")
    inner = build(case, case.layout, case.form)
    network = WRAPPERS[case.wrapper](inner)
    if case.called:
        network(images)
    with time_limit(120):
        with eager_eval_mode(network) as eager:
            maps = activations(eager, images, ["stage"])["stage"]
        assert torch.allclose(maps, activations(plain, images, ["stage"])["stage"], atol=1e-6)
        assert maps.shape == (2, case.widths[1], *case.grid)
        if case.form not in READABLE:
            for function in (
                lambda: grad_cam(network, images, labels, "stage"),
                lambda: input_gradient(network, images, labels),
                lambda: FGSM(eps=0.1)(network, images, labels),
            ):
                try:
                    function()
                except ValueError as refusal:
                    assert str(refusal).startswith("network: returns ") and "\n" not in str(refusal)
                else:
                    raise AssertionError("logits were guessed")
            return "refused in one line"
        assert auto_layers(network, images) == auto_layers(plain, images)
        for of in (
            lambda n: grad_cam(n, images, labels, "stage"),
            lambda n: input_gradient(n, images, labels),
            lambda n: FGSM(eps=0.1)(n, images, labels),
        ):
            torch.testing.assert_close(of(network), of(plain), rtol=1e-4, atol=1e-6)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    return "as the plain network"


def run(count: int, seed: int, _folder: Path) -> Counter:
    """So many networks: how many are read as the plain one, and how many are refused in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run_cases(count, seed, networks(), check)
