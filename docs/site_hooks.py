"""Hooks of MkDocs: files of the source tree that a page links to are published beside it, as they are.

Notebooks become pages of their text and code; what they print is shown where they are run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)]*)?\)")


def _published(name: str) -> str:
    return f"source/{name}.txt"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file outside of docs/ that a page links to."""
    pages = [file for file in files.documentation_pages() if file.abs_src_path]
    linked = {match[1] for page in pages for match in _LINK.finditer(page.content_string)}
    for name in sorted(linked):
        if (ROOT / name).is_file():
            files.append(File.generated(config, _published(name), abs_src_path=str(ROOT / name)))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        page = _page(path, f"notebooks/{path.name}")
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
    return files


def _page(path: Path, name: str) -> str:
    """A notebook as Markdown: its text, and its code in blocks."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"]).strip()
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    parts.insert(1, f"This is `{name}`: run it in Jupyter to see its tables and pictures.")
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links at what was published; those of what is not there are left, and end a strict build."""

    def target(match: re.Match[str]) -> str:
        name = match[1]
        return f"]({_published(name)})" if (ROOT / name).is_file() else match[0]

    return _LINK.sub(target, markdown)
