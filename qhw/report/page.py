"""One self-contained HTML file from a template, with style, script, data and the plotting library in it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from qhw.report.library import plotting_javascript


@cache
def _templates() -> jinja2.Environment:
    """Every text that is put into a template is escaped."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("qhw.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":"), "allow_nan": False}
    return found


@cache
def template_digest() -> str:
    """SHA-256 over all templates, which decide what a page looks like."""
    from qhw.pipeline.stages import json_digest

    loader = _templates().loader
    assert loader is not None
    return json_digest([loader.get_source(_templates(), name)[0] for name in loader.list_templates()])


def rendered(template: str, **values: Any) -> str:
    """A page.

    Args:
        template: its file's name in ``templates``.
        values: what the template names; texts are escaped, whoever they are from.

    Raises:
        ToolMissingError: vl-convert is not installed.
    """
    from qhw.doctor import package_version

    text: str = (
        _templates()
        .get_template(template)
        .render(
            library=Markup(plotting_javascript()),  # a text of vl-convert's, which holds no </script>
            version=package_version("qhw") or "",
            **values,
        )
    )
    return text


def chart(name: str, spec: Mapping[str, Any], lazy: bool = False) -> dict[str, Any]:
    """A plot for the template's macro of that name; one that is ``lazy`` is drawn when it comes into view."""
    return {"name": name, "spec": spec, "lazy": lazy}
