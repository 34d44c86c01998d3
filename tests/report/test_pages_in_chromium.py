"""The pages in a real browser: no request, no complaint, they fit their screen and react to a click."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages
import pytest

from qhw.report.search_page import search_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WIDTHS = {"phone": 360, "tablet": 768, "desktop": 1280}

if CHROMIUM is None:
    pytest.skip("Chromium is not installed: apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    evil = {"model": pages.EVIL, "fps_from": pages.EVIL}
    search, hostile = folder / "search.html", folder / "hostile.html"
    search.write_text(search_page(pages.front(), pages.TRIED))
    hostile.write_text(
        search_page(
            pages.front(**evil, metric={"name": pages.EVIL, "higher_is_better": True, "is_share": True}),
            pages.TRIED,
        )
    )
    return {"build": pages.build(folder).report, "search": search, "hostile": hostile}


class Visit:
    """A page that was opened, with what it said and asked for."""

    def __init__(self, browser: Any, file: Path, width: int = 1280, scheme: str = "light"):
        self.said: list[str] = []
        self.asked: list[str] = []
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append("a dialog"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("html[data-ready]")

    def see_all(self) -> None:
        """Scroll to the end, so that every plot is drawn."""
        self.page.evaluate("for (const p of document.querySelectorAll('details')) p.open = true")
        for place in self.page.query_selector_all(".plot"):
            place.scroll_into_view_if_needed()
        self.page.wait_for_function(
            "[...document.querySelectorAll('.plot')].every((p) => p.querySelector('svg'))"
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", WIDTHS)
@pytest.mark.parametrize("name", ["build", "search", "hostile"])
def test_pages_load_offline_without_a_complaint_and_fit_their_screen(
    name: str, screen: str, scheme: str, browser: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    visit = Visit(browser, files[name], WIDTHS[screen], scheme)
    visit.see_all()
    assert visit.said == []
    assert visit.asked == [files[name].as_uri()]
    assert visit.page.evaluate("document.documentElement.scrollWidth") == WIDTHS[screen]
    ground, text = (
        visit.page.evaluate(f"getComputedStyle(document.body).{of}") for of in ("backgroundColor", "color")
    )
    lightness = [sum(map(int, colour[4:-1].split(","))) / 3 for colour in (ground, text)]
    assert (
        (lightness[0] > 200 and lightness[1] < 60)
        if scheme == "light"
        else (lightness[0] < 60 and lightness[1] > 200)
    )
    visit.page.screenshot(path=tmp_path / f"{name}-{screen}-{scheme}.png", full_page=True)


def command_of(visit: Visit) -> str:
    return str(visit.page.inner_text("#command code"))


def test_a_click_on_a_point_shows_the_command_that_builds_it(browser: Any, files: dict[str, Path]) -> None:
    visit = Visit(browser, files["search"])
    points = visit.page.query_selector_all("#front-plot .mark-symbol path[aria-roledescription='point']")
    assert len(points) == 3
    seen = set()
    for point in points:
        point.click()
        seen.add(command_of(visit))
        assert visit.page.inner_text("tr.chosen td:first-child") == command_of(visit)[-1]
    assert seen == {point["command"] for point in pages.front()["points"]}


def test_pointing_at_a_point_tells_its_formats(browser: Any, files: dict[str, Path]) -> None:
    visit = Visit(browser, files["search"])
    visit.page.query_selector("#front-plot .mark-symbol path[aria-roledescription='point']").hover()
    tip = visit.page.wait_for_selector("#vg-tooltip-element.visible")
    assert "conv1.weights" in tip.inner_text()


def test_rows_answer_to_the_mouse_and_the_keyboard_and_a_button_copies(
    browser: Any, files: dict[str, Path]
) -> None:
    visit = Visit(browser, files["search"])
    visit.page.click("tr[data-command$='#1']")
    assert command_of(visit).endswith("#1")
    visit.page.focus("tr[data-command$='#2']")
    visit.page.keyboard.press("Enter")
    assert command_of(visit).endswith("#2")
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.page.click("#command button")
    visit.page.wait_for_selector("#command button:text('Copied')")
    assert visit.page.evaluate("navigator.clipboard.readText()") == command_of(visit)


def test_print_opens_everything_in_black_on_white(browser: Any, files: dict[str, Path]) -> None:
    visit = Visit(browser, files["build"], scheme="dark")
    visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    visit.page.emulate_media(media="print", color_scheme="dark")
    visit.page.wait_for_function(
        "[...document.querySelectorAll('.plot')].every((p) => p.querySelector('svg'))"
    )
    assert visit.page.evaluate("[...document.querySelectorAll('details')].every((d) => d.open)")
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert visit.page.pdf()[:5] == b"%PDF-"
    assert visit.said == []
