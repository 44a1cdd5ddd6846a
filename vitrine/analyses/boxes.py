"""How the pixels that an element depends on spread through a network's operations.

Every element of every tensor carries the box of pixels it depends on. One forward pass carries the boxes
along: a windowed operation takes the hull over its window, an addition the hull of its terms, and what only
moves elements about (slices, concatenations, channel shuffles, shifted windows) moves their boxes the same
way. Operations that are not known are taken to mix all they are given, so that a box is never too small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

# A box is (top, left, -bottom, -right), so that the hull of boxes is their minimum and nothing at all is
# +inf. The boxes of a tensor are one tensor [4, *shape], in which a dimension along which they are equal has
# size 1.
NOTHING = float("inf")


class Boxes(TorchDispatchMode):
    """Within the scope, every tensor computed from `images` is given its elements' boxes."""

    def __init__(self, images: Tensor):
        super().__init__()
        height, width = images.shape[-2:]
        top = torch.arange(height, dtype=torch.float32)[:, None].expand(height, width)
        left = torch.arange(width, dtype=torch.float32).expand(height, width)
        self._known = WeakTensorKeyDictionary()
        self._known[images] = torch.stack([top, left, -top - 1, -left - 1])[:, None, None]

    def boxes(self, tensor: Tensor) -> Tensor:
        """[4, *shape], dimensions of size 1 standing for equal boxes; +inf where no pixel is seen."""
        known = self._known.get(tensor)
        return torch.full((4, *[1] * tensor.ndim), NOTHING) if known is None else known

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t in self._known]
        result = func(*args, **kwargs)
        if not inputs:
            return result
        name = func.overloadpacket.__name__
        rule = RULES.get(name) or RULES.get(name.removesuffix("_"))
        if rule is None:
            rule = _elementwise if torch.Tag.pointwise in func.tags else _everything
        outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        found = rule(self, func, outputs, *args, **kwargs)
        for output, boxes in zip(outputs, found):
            self._known[output] = boxes
            if name.endswith("_"):
                self._write_through(output, boxes)
        return result

    def _write_through(self, written: Tensor, boxes: Tensor) -> None:
        """What was written in place is seen through every other view of the same memory, too."""
        memory = written.untyped_storage().data_ptr()
        for other in list(self._known.keys()):
            if other is not written and other.untyped_storage().data_ptr() == memory:
                whole = boxes.reshape(4, -1).amin(1)
                self._known[other] = torch.minimum(self._known[other], _spread(whole, other.ndim))


Rule = Callable[..., list[Tensor]]


def _spread(box: Tensor, dimensions: int) -> Tensor:
    return box.reshape(4, *[1] * dimensions)


def _everything(tracker: Boxes, func: Any, outputs: list[Tensor], *args: Any, **kwargs: Any) -> list[Tensor]:
    """An operation that may mix all it is given."""
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    whole = torch.stack([tracker.boxes(t).reshape(4, -1).amin(1) for t in tensors]).amin(0)
    return [_spread(whole, output.ndim) for output in outputs]


def _elementwise(tracker: Boxes, func: Any, outputs: list[Tensor], *args: Any, **kwargs: Any) -> list[Tensor]:
    found = _spread(torch.full((4,), NOTHING), outputs[0].ndim)
    for tensor in tree_leaves((args, kwargs)):
        if isinstance(tensor, Tensor):
            boxes = tracker.boxes(tensor)
            ones = [1] * (outputs[0].ndim - tensor.ndim)  # broadcasting adds dimensions on the left
            found = torch.minimum(found, boxes.reshape(4, *ones, *boxes.shape[1:]))
    return [found]


def _same(tracker: Boxes, func: Any, outputs: list[Tensor], x: Tensor, *_: Any, **__: Any) -> list[Tensor]:
    """Normalisation by fixed statistics; the statistics returned beside the result see no pixels."""
    return [tracker.boxes(x)] if outputs[0].shape == x.shape else _everything(tracker, func, outputs, x)


def _moved(tracker: Boxes, func: Any, outputs: list[Tensor], *args: Any, **kwargs: Any) -> list[Tensor]:
    """An operation that only moves elements about does the same to their boxes."""

    def moved(side: int) -> list[Tensor]:
        def boxes(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor.cpu()  # an index, which says where, not what
            return tracker.boxes(tensor)[side].expand(tensor.shape).contiguous()

        a, k = tree_map_only(Tensor, boxes, (args, kwargs))
        if func.overloadpacket.__name__ == "constant_pad_nd":
            a = (*a[:2], NOTHING)
        return [t for t in tree_leaves(func(*a, **k)) if isinstance(t, Tensor)]

    return [_compressed(torch.stack(sides)) for sides in zip(*(moved(side) for side in range(4)))]


def _compressed(boxes: Tensor) -> Tensor:
    for dimension in range(1, boxes.ndim):
        first = boxes.narrow(dimension, 0, min(1, boxes.shape[dimension]))
        if (boxes == first).all():
            boxes = first
    return boxes


def _hull_over(boxes: Tensor, dimensions: Sequence[int], ndim: int) -> Tensor:
    return boxes.amin([1 + d % ndim for d in dimensions], keepdim=True) if dimensions else boxes


def _reduced(
    tracker: Boxes, func: Any, outputs: list[Tensor], x: Tensor, *args: Any, **kwargs: Any
) -> list[Tensor]:
    """Mean, sum, maximum and the like over some dimensions."""
    over = kwargs.get("dim", args[0] if args else None)
    if isinstance(over, (float, bool)) or (func.overloadpacket.__name__ == "linalg_vector_norm"):
        over = kwargs.get("dim", args[1] if len(args) > 1 else None)  # the order of the norm stands before it
    over = [over] if isinstance(over, int) else list(over or range(x.ndim))
    boxes = _hull_over(tracker.boxes(x), over, x.ndim)
    if outputs[0].ndim < x.ndim:
        boxes = boxes.squeeze([1 + d % x.ndim for d in over])
    return [boxes] * len(outputs)


def _along(dimension_of: Callable[..., Sequence[int]]) -> Rule:
    """A rule for operations whose outputs depend on all of some dimensions (softmax, layer normalisation)."""

    def rule(
        tracker: Boxes, func: Any, outputs: list[Tensor], x: Tensor, *args: Any, **kwargs: Any
    ) -> list[Tensor]:
        return [_hull_over(tracker.boxes(x), dimension_of(x, *args), x.ndim)]

    return rule


def _product(tracker: Boxes, func: Any, outputs: list[Tensor], *tensors: Any, **kwargs: Any) -> list[Tensor]:
    """Matrix products [..., m, k] x [..., k, n], a term to add standing first where there is one."""
    *term, a, b = [t for t in tensors if isinstance(t, Tensor)]
    rows, columns = tracker.boxes(a).amin(-1, keepdim=True), tracker.boxes(b).amin(-2, keepdim=True)
    found = torch.minimum(rows, columns)
    for t in term:
        boxes = tracker.boxes(t)
        found = torch.minimum(found, boxes.reshape(4, *[1] * (a.ndim - t.ndim), *boxes.shape[1:]))
    return [found]


def _attended(
    tracker: Boxes, func: Any, outputs: list[Tensor], q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any
) -> list[Tensor]:
    seen = torch.minimum(
        tracker.boxes(k).amin((-2, -1), keepdim=True), tracker.boxes(v).amin(-2, keepdim=True)
    )
    return [torch.minimum(tracker.boxes(q).amin(-1, keepdim=True), seen)]


def _pair(value: Any, default: int = 1) -> tuple[int, int]:
    value = [value] if isinstance(value, int) else list(value)
    value = value or [default]
    return (value[0], value[-1])


def _windowed(
    boxes: Tensor, x: Tensor, output: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any
) -> Tensor:
    """The hull over each window: [4, N, C, h, w] -> [4, N, C, h', w']."""
    boxes = boxes.expand(*boxes.shape[:3], *x.shape[-2:]).flatten(0, 1)
    kernel, padding, dilation = _pair(kernel), _pair(padding), _pair(dilation)
    stride = _pair(stride) if stride or isinstance(stride, int) else kernel
    pads = []
    for axis in (1, 0):  # the last dimension is named first
        reach = (output.shape[axis - 2] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        pads += [padding[axis], max(0, reach - padding[axis] - x.shape[axis - 2])]
    boxes = F.pad(boxes, pads, value=NOTHING)
    found = -F.max_pool2d(-boxes, kernel, stride, 0, dilation)
    found = found[..., : output.shape[-2], : output.shape[-1]]
    return found.unflatten(0, (4, -1))


def _convolution(
    tracker: Boxes, func: Any, outputs: list[Tensor], x: Tensor, weight: Tensor, bias: Any, stride: Any,
    padding: Any, dilation: Any, transposed: bool, _output_padding: Any, groups: int,
) -> list[Tensor]:  # fmt: skip
    output = outputs[0]
    if transposed or x.ndim != 4:
        return _everything(tracker, func, outputs, x)
    boxes = tracker.boxes(x)
    if boxes.shape[2] > 1:  # channels that see differently: each group takes the hull of its own
        boxes = boxes.unflatten(2, (groups, -1)).amin(3)
        if groups > 1:
            boxes = boxes.repeat_interleave(output.shape[1] // groups, 2)
    return [_windowed(boxes, x, output, weight.shape[2:], stride, padding, dilation)]


def _max_pool(
    tracker: Boxes, func: Any, outputs: list[Tensor], x: Tensor, kernel: Any, stride: Any = (),
    padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
) -> list[Tensor]:  # fmt: skip
    if x.ndim != 4:
        return _everything(tracker, func, outputs, x)
    return [_windowed(tracker.boxes(x), x, outputs[0], kernel, stride, padding, dilation)]


def _average_pool(
    tracker: Boxes, func: Any, outputs: list[Tensor], x: Tensor, kernel: Any, stride: Any = (),
    padding: Any = 0, *_: Any, **__: Any,
) -> list[Tensor]:  # fmt: skip
    return _max_pool(tracker, func, outputs, x, kernel, stride, padding)


def _adaptive_pool(
    tracker: Boxes, func: Any, outputs: list[Tensor], x: Tensor, *_: Any, **__: Any
) -> list[Tensor]:
    boxes = tracker.boxes(x)
    for axis in (-2, -1):
        size, cells = x.shape[axis], outputs[0].shape[axis]
        boxes = boxes.expand(*boxes.shape[:3], *(size if a == axis else boxes.shape[a] for a in (-2, -1)))
        starts = [i * size // cells for i in range(cells)]
        ends = [-(-(i + 1) * size // cells) for i in range(cells)]
        parts = [boxes.narrow(axis, s, e - s).amin(axis, keepdim=True) for s, e in zip(starts, ends)]
        boxes = torch.cat(parts, axis)
    return [boxes]


def _filled(
    tracker: Boxes, func: Any, outputs: list[Tensor], x: Tensor, *args: Any, **kwargs: Any
) -> list[Tensor]:
    """What takes only a shape from its first argument: zeros, constants, the value given."""
    values = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    return _everything(tracker, func, outputs, *values, torch.zeros(()))


def _rules(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    "convolution": _convolution,
    "avg_pool2d": _average_pool,
    "_softmax": _along(lambda x, dimension, *_: [dimension]),
    "native_layer_norm": _along(lambda x, shape, *_: range(-len(shape), 0)),
    "native_group_norm": _along(lambda x, *_: range(1, x.ndim)),
    **_rules(_max_pool, "max_pool2d max_pool2d_with_indices"),
    **_rules(_adaptive_pool, "_adaptive_avg_pool2d adaptive_max_pool2d"),
    **_rules(_elementwise, "hardswish copy _to_copy"),
    **_rules(_product, "mm bmm addmm baddbmm"),
    **_rules(_reduced, "mean sum amax amin max min var std prod logsumexp linalg_vector_norm"),
    **_rules(
        _filled, "fill zero new_zeros new_ones new_full new_empty zeros_like ones_like full_like empty_like"
    ),
    **_rules(
        _same,
        """native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm
        native_dropout""",
    ),
    **_rules(
        _attended,
        """_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
        _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
        _scaled_dot_product_attention_math""",
    ),
    **_rules(
        _moved,
        """view _unsafe_view _reshape_alias reshape permute transpose t squeeze unsqueeze expand repeat slice
        select split split_with_sizes unbind cat stack roll flip index index_select gather constant_pad_nd
        reflection_pad2d replication_pad2d pixel_shuffle pixel_unshuffle channel_shuffle
        native_channel_shuffle unfold alias detach clone upsample_nearest2d""",
    ),
}
