"""Self-contained HTML pages: templates, figures, and pictures as data URIs, without any request to elsewhere."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from PIL import Image

from .errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INSTALL = "pip install 'idgen-diffusers[evaluate]'"


def render_page(package: str, template: str, **values: Any) -> str:
    """Render a Jinja template.

    Args:
        package: Package whose folder `templates` holds it.
        template: Name of the file.
        values: Variables of the template. Text is escaped.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader
    except ImportError as error:
        raise MissingDependencyError(f"Reports need jinja2: {INSTALL}") from error
    environment = Environment(loader=PackageLoader(package), autoescape=True)
    environment.filters["figure"] = lambda value: "–" if value is None or value != value else f"{value:.3f}"
    return environment.get_template(template).render(**values)


def new_figure(width: float = 5, height: float = 3.4) -> tuple[Figure, Axes]:
    """A figure of so many inches with one pair of axes; raises MissingDependencyError without matplotlib."""
    figure, (axes,) = new_figures(1, width, height)
    return figure, axes


def new_figures(columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of several plots side by side, each of so many inches, whose y axes are one; raises like
    `new_figure`."""
    try:
        from matplotlib.figure import Figure  # not pyplot, which keeps figures and needs a display
    except ImportError as error:
        raise MissingDependencyError(f"Figures need matplotlib: {INSTALL}") from error
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, sharey=True, squeeze=False)[0])


def figure_uri(figure: Figure) -> str:
    """A figure as data URI of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return _uri("png", buffer)


def picture_uri(image: Image.Image) -> str:
    """A picture as data URI of a JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return _uri("jpeg", buffer)


def _uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
