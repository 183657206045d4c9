"""Matplotlib figures as SVG: inline, in the colours of the page, or a file; images as PNG."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from ep_neuro.report.plots.axes import svg_bytes
from ep_neuro.report.plots.palette import DARK, LIGHT, css_variables

_VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT = re.compile(r"font: (?:\w+ )*([\d.]+px)[^;]*")
_SVG = "http://www.w3.org/2000/svg"
_NUMBER = re.compile(r"-?\d+\.\d+")


def inline_svg(figure: Figure, name: str, description: str) -> Markup:
    """Themed SVG of a figure, to stand inside an HTML page.

    Colours become CSS variables, text stays text in the page's font, and ids are those that the
    figure refers to, made unique in the page by `name`. A screen reader says the `description`.
    Figures of the same data give the same text.
    """
    root = ElementTree.fromstring(svg_bytes(figure))
    _tidy(root, name)
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib.clear()
    root.attrib.update(viewBox=f"0 0 {width} {height}", role="img")
    root.set("aria-label", description)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def standalone_svg(figure: Figure, description: str) -> str:
    """`inline_svg` as a file of its own: on paper, in light or dark as the reader's system is."""
    svg = str(inline_svg(figure, "f", description))
    width, height = svg.split('viewBox="0 0 ', 1)[1].split('"', 1)[0].split()
    style = (
        f":root{{{css_variables(LIGHT)}font-family:sans-serif}}"
        f"@media(prefers-color-scheme:dark){{:root{{{css_variables(DARK)}}}}}"
    )
    head, body = svg.split(">", 1)
    head = head.replace("<svg", f'<svg xmlns="{_SVG}" width="{width}pt" height="{height}pt"')
    paper = '<rect width="100%" height="100%" rx="4" style="fill: var(--paper)"/>'
    return f"{head}><style>{style}</style>{paper}{body}\n"


def image_uri(image: ArrayLike) -> str:
    """PNG data address of an image (H, W), (1, H, W) or (3, H, W) with values from 0 to 1."""
    pixels = np.nan_to_num(np.asarray(image, dtype=float)).clip(0, 1)
    if pixels.ndim == 3:
        pixels = pixels[0] if pixels.shape[0] == 1 else np.moveaxis(pixels, 0, -1)
    buffer = BytesIO()
    Image.fromarray(np.round(255 * pixels).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _tidy(root: ElementTree.Element, name: str) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            # A <style> of one figure would reach the whole page.
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    used = set(_REFERENCE.findall(ElementTree.tostring(root, encoding="unicode")))
    used |= {v[1:] for e in root.iter() for k, v in e.attrib.items() if _local(k) == "href"}
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {
            _local(key): _themed(_local(key), value, name)
            for key, value in element.attrib.items()
            if _local(key) != "id" or value in used
        }
        if element.tag != "text":
            element.text = None if not (element.text or "").strip() else element.text
        element.tail = None


def _themed(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value[1:]}"
    if key == "d":
        return _NUMBER.sub(_rounded, " ".join(value.split()))
    value = _COLOUR.sub(lambda match: _VARIABLES[match[0].lower()], value)
    value = _FONT.sub(r"font-size: \1", value)
    return _REFERENCE.sub(rf"url(#{name}-\1)", value)


def _rounded(match: re.Match[str]) -> str:
    # Hundredths of a point are far below a pixel, and halve the page.
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
