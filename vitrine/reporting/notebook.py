"""A report of one checkpoint as HTML that a notebook shows beneath the cell."""

from __future__ import annotations

import base64
import html
import io

from PIL import Image

from vitrine.analyses import traits_of
from vitrine.analyses.base import Figure
from vitrine.analyses.result import CheckpointReport

SHOWN = 12  # pictures of a technique; the page has all


def to_html(report: CheckpointReport, page: str) -> str:
    """The pictures of a report by technique, each with its caption; what failed, with its error.

    Args:
        page: path of the page that has everything.
    """
    parts = [f"<p>step {report.step}: {report.figures} pictures, all on <code>{html.escape(page)}</code></p>"]
    for name, result in report.results.items():
        parts.append(f"<h4>{html.escape(traits_of(name).title)}</h4>")
        pictures = "".join(map(_picture, result.figures[:SHOWN]))
        parts.append(f"<div style='display:flex;flex-wrap:wrap;gap:12px'>{pictures}</div>")
        if len(result.figures) > SHOWN:
            parts.append(f"<p>and {len(result.figures) - SHOWN} more</p>")
    parts += [
        f"<p><b>{html.escape(name)}</b>: {html.escape(error)}</p>" for name, error in report.errors.items()
    ]
    return "\n".join(parts)


def _picture(figure: Figure) -> str:
    data = io.BytesIO()
    Image.fromarray(figure.image.cpu().numpy()).save(data, "PNG")
    source = base64.b64encode(data.getvalue()).decode()
    width = max(96, min(256, figure.image.shape[1]))
    caption = html.escape(figure.caption)
    return (
        f"<figure style='margin:0;width:{width}px'><img style='width:100%;image-rendering:pixelated' "
        f"src='data:image/png;base64,{source}' alt='{caption}'><figcaption>{caption}</figcaption></figure>"
    )
