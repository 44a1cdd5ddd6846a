"""Letters and digits as strokes, without a font: paths in a box of the given half width and half height."""

from torch import Tensor

from vitrine.datamodules.drawing.sdf import Point, arc, stroke, union


def text_distance(
    points: Tensor, text: str, *, half_width: float, half_height: float, gap: float, width: float
) -> Tensor:
    """Distance of points [..., 2] to a word, of what `character_paths` knows, centred on the origin.

    Args:
        half_width, half_height: of one character, measured along the middle of its strokes.
        gap: between the boxes of neighbours, middle of stroke to middle of stroke.
        width: of the strokes.
    """
    pitch = 2 * half_width + gap
    distances = []
    for place, character in enumerate(text):
        shifted = points - points.new_tensor((pitch * (place - (len(text) - 1) / 2), 0.0))
        paths = character_paths(character, half_width, half_height)
        distances += [stroke(shifted, path, width) for path in paths]
    return union(*distances)


def character_paths(character: str, w: float, h: float) -> list[list[Point]]:
    """The strokes of a character in a box of half width w and half height h; KeyError if it is not known."""
    match character:
        case "0" | "O":
            top, bottom = arc((0, w - h), w, w, 180, 360), arc((0, h - w), w, w, 0, 180)
            return [[*top, *bottom, top[0]]]
        case "1":
            return [[(-0.7 * w, -0.62 * h), (0.3 * w, -h), (0.3 * w, h)]]
        case "2":
            return [[*arc((0, w - h), w, w, 185, 395), (-w, h), (w, h)]]
        case "3":
            upper, lower = (0, -0.52 * h), (0, 0.48 * h)
            return [[*arc(upper, 0.92 * w, 0.48 * h, 205, 450), *arc(lower, w, 0.52 * h, 270, 515)]]
        case "5":
            bowl = arc((-0.05 * w, 0.4 * h), 1.05 * w, 0.6 * h, 235, 510)
            return [[(0.85 * w, -h), (-0.75 * w, -h), bowl[0], *bowl]]
        case "6":
            loop, hook = arc((0, 0.45 * h), w, 0.55 * h, 0, 360, 24), arc((0, w - h), w, w, 325, 180)
            return [loop, [*hook, (-w, 0.45 * h)]]
        case "8":
            upper, lower = (0, -0.52 * h), (0, 0.48 * h)
            return [arc(upper, 0.88 * w, 0.48 * h, 0, 360, 24), arc(lower, w, 0.52 * h, 0, 360, 24)]
        case "S":
            return [[*arc((0, -h / 2), w, h / 2, 335, 90), *arc((0, h / 2), w, h / 2, 270, 515)]]
        case "T":
            return [[(-1.1 * w, -h), (1.1 * w, -h)], [(0, -h), (0, h)]]
        case "P":
            return [[(-w, h), (-w, -h), *arc((0.0, -0.45 * h), w, 0.55 * h, 270, 450), (-w, 0.1 * h)]]
    raise KeyError(character)
