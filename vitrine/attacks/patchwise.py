"""A convolutional network's logits after a rectangle of each image changed, by what depends on it alone.

Of each map that a window slides over, the values of the images as they are are kept. A changed rectangle
reaches a rectangle of the next map, a little larger, and so on until most of a map would change: from there
on the network is computed as a whole.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from vitrine.attacks.map_rows import MapRows
from vitrine.attacks.patch import Patch
from vitrine.attacks.windows import Window, slides
from vitrine.core.network_output import as_logits

TOLERANCE = 1e-4  # of the largest logit: what rounding may move, and nothing else
_LOCAL = 0.8  # of a map: where a larger share would change it is computed as a whole
_WORTH = 0.8  # of the multiplications: where more are left, the network is asked as it is
_MOST_BYTES = 1 << 29  # kept for a batch at most

_ADDITIONS = (operator.add, operator.iadd, torch.add)


class Patchwise:
    """The logits of images [N, C, H, W] with a `Patch` each, and memory of the images.

    patchwise = Patchwise.of(network, images[:4])
    logits = patchwise(images, patch)
    patch.write(images, rows); patchwise.keep(rows)    some of the images become what they were asked as
    images = images[remaining]; patchwise.forget()     or others take their place
    """

    def __init__(self, graph: fx.Graph, modules: dict[str, nn.Module], root: nn.Module):
        self._graph, self._modules, self._root = graph, modules, root
        self._windows: dict[fx.Node, Window] = {}
        self._pixelwise: set[fx.Node] = set()
        self._shapes: dict[fx.Node, torch.Size] = {}
        self._bytes: dict[fx.Node, int] = {}
        self._sizes: dict[fx.Node, tuple[int, int]] = {}
        self._stored: set[fx.Node] = set()
        self._size: tuple[int, int] | None = None  # of the patches that the maps are kept for
        self._kept: dict[fx.Node, MapRows] = {}
        self._is_worth = False

    @classmethod
    def of(cls, network: nn.Module, images: Tensor) -> Patchwise | None:
        """None where the network cannot be followed, nothing of it is local, or its logits are others.

        Args:
            network: in eval mode.
            images: a few, [N, C, H, W], to look at the network and to compare the logits on.
        """
        root = _Root(network)
        try:
            graph = _Tracer().trace(root)
        except Exception:  # whatever a network does that depends on its input, or cannot be traced for
            return None
        found = cls(graph, dict(root.named_modules()), root)
        with torch.no_grad():
            found._examine(images)
            return found if found._windows and found._is_true_to(network, images) else None

    def __call__(self, images: Tensor, patch: Patch) -> Tensor:
        """[N, K], of the images with their patches."""
        size = tuple(patch.values.shape[2:])
        if size != self._size:
            self._size, self._sizes = size, self._plan(size)
            self._stored, self._kept = self._read_beyond(), {}
            per_image = sum(self._bytes[node] for node in self._stored)
            self._is_worth = self._share() <= _WORTH and per_image * len(images) <= _MOST_BYTES
        if self._is_worth:
            if not self._kept:
                self._compute(images)
            try:
                return self._compute(patch)
            except _ElsewhereError:
                self._is_worth, self._kept = False, {}
        return as_logits(self._root(patch.on(images)))

    def keep(self, rows: Tensor) -> None:
        """Some images, int64, are now those with their patches of the last call."""
        for kept in self._kept.values():
            kept.keep(rows)

    def forget(self) -> None:
        """Other images come."""
        self._kept = {}

    def _compute(self, images: Tensor | Patch) -> Tensor:
        """The logits; of whole images, whose maps are kept, or of their patches."""
        values: dict[fx.Node, Any] = {}
        wholes: dict[fx.Node, Any] = {}

        def whole(node: fx.Node) -> Any:
            if not isinstance(values[node], Patch):
                return values[node]
            if node not in wholes:
                wholes[node] = self._kept[node].whole()
            return wholes[node]

        for node in self._graph.nodes:
            if node.op == "output":
                return as_logits(fx.node.map_arg(node.args[0], whole))
            inputs = node.all_input_nodes
            if node.op == "placeholder":
                values[node] = images
            elif node in self._sizes and isinstance(images, Patch):
                values[node] = self._local(node, [values[i] for i in inputs])
            else:
                args, kwargs = (fx.node.map_arg(part, whole) for part in (node.args, node.kwargs))
                values[node] = self._execute(node, args, kwargs)
            if node in self._stored:
                if isinstance(images, Patch):
                    self._kept[node].put(values[node])
                else:
                    self._kept[node] = MapRows(values[node], self._sizes[node])
        raise AssertionError("a graph ends in its output")

    def _local(self, node: fx.Node, inputs: list[Patch]) -> Patch:
        """What a node makes of changed rectangles."""
        if node in self._pixelwise:
            (patch,) = inputs
            args, kwargs = (
                fx.node.map_arg(part, lambda _: patch.values) for part in (node.args, node.kwargs)
            )
            return Patch(self._execute(node, args, kwargs), patch.top, patch.left)
        if node in self._windows:
            return self._slide(node, inputs[0])
        small, large = sorted(zip(inputs, node.all_input_nodes), key=lambda pair: pair[0].area)
        if not large[0].covers(small[0]):
            raise _ElsewhereError
        size = tuple(large[0].values.shape[2:])
        other = self._kept[small[1]].crop(large[0].top, large[0].left, size)
        return Patch(large[0].values + other, large[0].top, large[0].left)

    def _slide(self, node: fx.Node, patch: Patch) -> Patch:
        window, size, outer = self._windows[node], self._sizes[node], self._shapes[node][2:]
        first, begin, extent = [], [], []
        for axis, corner in enumerate((patch.top, patch.left)):
            stride, padding = window.stride[axis], window.padding[axis]
            out = torch.div(corner + padding - window.reach(axis) + stride - 1, stride, rounding_mode="floor")
            out = out.clamp_(0, outer[axis] - size[axis])
            first.append(out)
            begin.append(out * stride - padding)
            extent.append((size[axis] - 1) * stride + window.reach(axis) + 1)
        crop = self._kept[node.all_input_nodes[0]].crop(*begin, tuple(extent), window.fill)
        return Patch(window.slide(self._modules[node.target], crop), *first)

    def _execute(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if node.op == "call_module":
            return self._modules[node.target](*args, **kwargs)
        if node.op == "call_function":
            return node.target(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        return operator.attrgetter(node.target)(self._root)

    def _plan(self, size: tuple[int, int]) -> dict[fx.Node, tuple[int, int]]:
        """The sizes of the rectangles that patches of a size change, of the nodes where those are local."""
        sizes: dict[fx.Node, tuple[int, int]] = {}
        for node in self._graph.nodes:
            inputs = node.all_input_nodes
            if node.op == "placeholder":
                found = size
            elif not inputs or any(i not in sizes for i in inputs):
                continue
            elif node in self._windows:
                window, (of,) = self._windows[node], (sizes[i] for i in inputs)
                found = tuple((of[a] + window.reach(a) - 1) // window.stride[a] + 1 for a in (0, 1))
            elif node in self._pixelwise:
                found = sizes[inputs[0]]
            elif self._is_addition(node) and _contains(*(sizes[i] for i in inputs)):
                found = max(sizes[i] for i in inputs)
            else:
                continue
            height, width = self._shapes[node][2:]
            if min(found[0], height) * min(found[1], width) <= _LOCAL * height * width:
                sizes[node] = min(found[0], height), min(found[1], width)
        return sizes

    def _read_beyond(self) -> set[fx.Node]:
        """The local nodes of which more is read than what changed."""
        return {
            node
            for node in self._sizes
            if any(user not in self._pixelwise or user not in self._sizes for user in node.users)
        }

    def _share(self) -> float:
        """The multiplications of convolutions that are left, as a share of all."""
        left = every = 0.0
        for node in self._windows:
            if isinstance(module := self._modules[node.target], nn.Conv2d):
                area = self._shapes[node][2:].numel()
                size = self._sizes.get(node, self._shapes[node][2:])
                left += module.weight.numel() * size[0] * size[1]
                every += module.weight.numel() * area
        return left / every if every else 1.0

    def _is_addition(self, node: fx.Node) -> bool:
        is_plain = len(node.args) == 2 and not node.kwargs and len(node.all_input_nodes) == 2
        return node.op == "call_function" and node.target in _ADDITIONS and is_plain

    def _examine(self, images: Tensor) -> None:
        """Run the network once, and note what each node is."""
        values: dict[fx.Node, Any] = {}
        for node in self._graph.nodes:
            if node.op == "output":
                return
            if node.op == "placeholder":
                values[node] = images
            else:
                of_crop = self._execute_on_crop(node, values)  # first, as what it takes may change in place
                args, kwargs = (fx.node.map_arg(part, values.get) for part in (node.args, node.kwargs))
                values[node] = self._execute(node, args, kwargs)
                window = slides(self._modules.get(node.target)) if node.op == "call_module" else None
                if window is not None and len(node.all_input_nodes) == 1:
                    self._windows[node] = window
                elif of_crop is not None and torch.equal(of_crop, _crop(values[node])):
                    self._pixelwise.add(node)
            if isinstance(values[node], Tensor):
                self._shapes[node] = values[node].shape
                self._bytes[node] = values[node].nbytes // len(images)

    def _execute_on_crop(self, node: fx.Node, values: dict[fx.Node, Any]) -> Tensor | None:
        """What a node that takes one tensor of maps makes of a part of it; None for others."""
        inputs = [values[i] for i in node.all_input_nodes]
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
            return None
        if inputs[0].ndim != 4 or min(inputs[0].shape[2:]) < 3:
            return None
        try:
            found = self._execute(
                node,
                *(fx.node.map_arg(p, lambda n: _crop(values[n]).clone()) for p in (node.args, node.kwargs)),
            )
        except Exception:  # nothing for images of any size
            return None
        return found if isinstance(found, Tensor) and found.ndim == 4 else None

    def _is_true_to(self, network: nn.Module, images: Tensor) -> bool:
        """Whether the logits are the network's, with patches anywhere, some of them kept."""
        height, width = images.shape[2:]
        images = images.clone()
        every, generator = torch.arange(len(images), device=images.device), torch.Generator().manual_seed(0)
        for divisor in (3, 8, 12):
            size = max(height // divisor, 1), max(width // divisor, 1)
            for kept in (every[::2], every):
                corners = torch.rand(2, len(images), generator=generator).to(images.device)
                corners = (corners * 1.5 - 0.25).clamp(0, 1)  # many of them at the border
                top, left = ((corners[a] * (images.shape[2 + a] - size[a])).round().long() for a in (0, 1))
                drawn = torch.rand(*images.shape[:2], *size, generator=generator).to(images)
                patch = Patch(drawn, top, left)
                expected, found = as_logits(network(patch.on(images))), self(images, patch)
                if not (found - expected).abs().max() <= TOLERANCE * expected.abs().max():
                    return False
                patch.write(images, kept)
                self.keep(kept)
        self._size = None
        return True


class _ElsewhereError(Exception):
    """Two branches change rectangles of which neither covers the other."""


class _Root(nn.Module):
    """A network as a part: calls of parts run their hooks, which normalise."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, images: Tensor) -> Any:
        return self.network(images)


class _Tracer(fx.Tracer):
    """Calls of whatever has no parts are the graph's nodes."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return next(module.children(), None) is None


def _crop(maps: Tensor) -> Tensor:
    return maps[:, :, 1:, 2:]


def _contains(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one of two sizes is at least the other, down and across."""
    return all(a >= b for a, b in zip(one, other)) or all(a <= b for a, b in zip(one, other))
