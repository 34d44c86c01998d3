"""The last stage of a build and of a search: ``report.html``, made from what the others left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qhw.errors import InputError
from qhw.pipeline import manifest as manifests
from qhw.pipeline.build_stages import source_digest
from qhw.pipeline.stages import Observer, Outcome, Stage, Workspace, opened, run_stages
from qhw.report import FILE_NAME

STAGE = "report"

_CHANGES = ("stages", "digest")
"""Keys of build.json that are not the same in each run of a build, and that no report shows."""


def build_report(
    folder: Path, manifest: Mapping[str, Any], outcomes: list[Outcome], observer: Observer | None = None
) -> None:
    """Write the report of a build, held by :func:`opened`, unless it is there; ``outcomes`` gets an entry."""

    def page() -> str:
        from qhw.report.build_page import build_page

        return build_page(folder, dict(manifest))

    shown = {name: value for name, value in manifest.items() if name not in _CHANGES}
    _write(folder, shown, page, outcomes, observer)


def search_report(
    folder: Path,
    front: Mapping[str, Any],
    tried: Sequence[tuple[float, float]],
    outcomes: list[Outcome],
    observer: Observer | None = None,
) -> None:
    """Write the report of a search; as :func:`build_report`."""

    def page() -> str:
        from qhw.report.search_page import search_page

        return search_page(dict(front), tried)

    shown = {"front": {name: value for name, value in front.items() if name != "seconds"}, "tried": tried}
    _write(folder, shown, page, outcomes, observer)


def _write(
    folder: Path,
    shown: Mapping[str, Any],
    page: Callable[[], str],
    outcomes: list[Outcome],
    observer: Observer | None,
) -> None:
    def run(work: Workspace) -> Mapping[str, Any]:
        text = page()
        (work.scratch / FILE_NAME).write_text(text, encoding="utf-8")
        return {"summary": f"{FILE_NAME}, {len(text.encode()) / 1e6:.1f} MB"}

    from qhw.report.page import template_digest

    made_by = {"qhw": source_digest(), "templates": template_digest()}
    run_stages(folder, [Stage(STAGE, run, {**made_by, **shown})], outcomes, observer)


def report(folder: str | Path, observer: Observer | None = None) -> Path:
    """Write the report of a build folder or of a search's folder again: what ``qhw report`` does.

    Returns:
        The page, which needs no other file and no network.

    Raises:
        InputError: the folder holds neither, or a file in it is not what was written.
        ToolMissingError: vl-convert is not installed.
    """
    from qhw.search import front as fronts

    place = Path(folder)
    if not place.is_dir():
        raise InputError(
            f"{place} is no folder", hint="give a folder that qhw build or qhw search has written"
        )
    is_build = (place / manifests.FILE_NAME).exists()
    if not is_build and not (place / fronts.FILE_NAME).exists():
        raise InputError(
            f"{place} has neither {manifests.FILE_NAME} nor {fronts.FILE_NAME}",
            hint="give a folder that qhw build or qhw search has written",
        )
    with opened(place):
        if is_build:
            build_report(place, manifests.read(place), [], observer)
        else:
            front = fronts.read(place)
            search_report(place, front, _tried(place, front), [], observer)
    return place / FILE_NAME


def _tried(folder: Path, front: Mapping[str, Any]) -> list[tuple[float, float]]:
    """The points that this user's search evaluated; none where its record is gone, or another's."""
    from qhw.pipeline.stages import read_record
    from qhw.search.result import tried_of
    from qhw.search.run import trials_of

    record = read_record(folder, "search")
    return [] if record is None else tried_of(dict(front), trials_of(record.facts))
