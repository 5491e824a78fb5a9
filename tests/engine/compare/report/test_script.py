"""The page in a real browser, Chromium without a window: drawn, quiet, closed to the network, usable by keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.compare.runfile import write_run

pytest.importorskip("matplotlib", reason="the page needs maskfuse[report]")
pytest.importorskip("jinja2", reason="the page needs maskfuse[report]")
pytest.importorskip("selenium", reason="the browser is driven by selenium: pip install 'maskfuse[dev]'")

from engine.compare.report.command import report
from tests.engine.compare.report.test_page import HOSTILE, hostile_run
from tests.helpers.browser import BROWSER, DESKTOP, DRIVER, NO_BROWSER, PHONE, chromium, look

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason=NO_BROWSER)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run with labels and of one without; names in both would like to run."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, labels in (("scored", True), ("unlabelled", False)):
        (folder / name).mkdir()
        write_run(folder / f"{name}.npz", hostile_run(folder / name, labels))
        found[name] = folder / f"{name}.html"
        report(folder / f"{name}.npz", found[name], overwrite=False)
    return found


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


def visit(driver: Any, page: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> None:
    look(driver, size, scheme)
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    driver.get(page.as_uri())


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    for key in keys:
        ActionChains(driver).send_keys(key).perform()


def requested(driver: Any) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize("name", ["scored", "unlabelled"])
@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_it_is_drawn_quiet_and_closed(
    name: str, size: tuple[int, int], scheme: str, driver: Any, pages: dict[str, Path]
) -> None:
    visit(driver, pages[name], size, scheme)
    drawn = driver.execute_async_script(
        """
        const done = arguments[0];
        const images = Array.from(document.querySelectorAll("article img"));
        images.forEach((image) => { image.loading = "eager"; });
        const width = (image) => image.decode().then(() => image.naturalWidth, () => 0);
        Promise.all(images.map(width)).then((widths) => done({
          widths,
          plots: Array.from(document.querySelectorAll("svg.plot")).filter((plot) => plot.getClientRects().length)
            .map((plot) => {
            const box = plot.getBoundingClientRect();
            const seen = Array.from(plot.querySelectorAll("path, text, use"));
            return [box.width, box.height, seen.filter((item) => item.getBoundingClientRect().width > 0).length];
          }),
          cut: Array.from(document.querySelectorAll(".plot-box")).filter((b) => b.scrollWidth > b.clientWidth).length,
          overflow: document.documentElement.scrollWidth - innerWidth,
          small: Math.min(...Array.from(document.querySelectorAll("svg.plot text"))
            .filter((text) => text.getClientRects().length)
            .map((text) => {
              const turned = text.getScreenCTM();
              return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(turned.a, turned.b);
            })),
          printed: getComputedStyle(document.querySelector(".swatch")).printColorAdjust,
          background: getComputedStyle(document.body).backgroundColor,
          ink: getComputedStyle(document.querySelector("svg.plot text")).fill,
          title: document.title,
        }));
        """
    )
    assert len(drawn["plots"]) == (6 if name == "scored" else 3)
    assert all(width > 100 and height > 50 and seen > 8 for width, height, seen in drawn["plots"])
    assert drawn["widths"]
    assert set(drawn["widths"]) == {24}
    assert drawn["overflow"] <= 0
    assert drawn["cut"] == 0
    assert drawn["small"] >= 10  # pixels of the smallest label, also on a phone
    assert drawn["printed"] == "exact"
    assert drawn["background"] == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")
    assert drawn["ink"] != drawn["background"]
    assert drawn["title"] == "3 members on 4 images"
    assert [entry for entry in driver.get_log("browser") if entry["level"] != "DEBUG"] == []
    assert [url for url in requested(driver) if not url.startswith("data:")] == [pages[name].as_uri()]


def test_hostile_names_are_text(driver: Any, pages: dict[str, Path]) -> None:
    visit(driver, pages["scored"])
    text = driver.execute_script("return document.body.textContent")
    for name in HOSTILE:
        assert name in text
    assert driver.title == "3 members on 4 images"
    assert driver.execute_script("return document.scripts.length") == 1
    found = "return document.querySelectorAll('[onerror],[onload],[onclick],img[src=x],iframe,object,base,form').length"
    assert driver.execute_script(found) == 0


def test_the_policy_bars_what_would_leave(driver: Any, pages: dict[str, Path]) -> None:
    """Even code that got in could send nothing out: the check above can fail, and the policy holds."""
    visit(driver, pages["scored"])
    barred = driver.execute_async_script(
        """
        const done = arguments[0], barred = [];
        document.addEventListener("securitypolicyviolation", (event) => barred.push(event.effectiveDirective));
        const image = document.createElement("img");
        image.src = "http://127.0.0.1:9/x.png";
        document.body.append(image);
        const script = document.createElement("script");
        script.textContent = "document.title = 'owned'";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<p style='color:red' onclick='1'>x</p>");
        fetch("http://127.0.0.1:9/y").catch(() => setTimeout(() => done(barred), 200));
        """
    )
    assert {"img-src", "connect-src", "script-src-elem", "style-src-attr"} <= set(barred)
    assert driver.title == "3 members on 4 images"


def test_the_gallery_steps_and_zooms_by_keyboard(driver: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver import Keys

    visit(driver, pages["scored"])
    state = """
        const cards = Array.from(document.querySelectorAll(".card"));
        return {
          current: cards.findIndex((card) => card.classList.contains("current")),
          focused: cards.indexOf(document.activeElement),
          count: cards.filter((card) => !card.hidden).length,
          open: document.getElementById("zoom").open,
          told: document.getElementById("zoom-told").textContent,
          same: document.getElementById("zoom-image").src,
          panels: Array.from((cards.find((card) => card.classList.contains("current")) || cards[0])
            .querySelectorAll("img")).map((image) => image.src),
        };
    """

    def now() -> dict[str, Any]:
        return dict(driver.execute_script(state))

    assert (now()["current"], now()["open"]) == (-1, False)
    press(driver, "j")
    assert (now()["current"], now()["focused"]) == (0, 0)
    press(driver, "j")
    assert now()["current"] == 1
    press(driver, "k", "k", "k")
    assert now()["current"] == 0
    press(driver, Keys.ENTER)
    seen = now()
    assert (seen["open"], seen["told"], seen["same"]) == (True, "image (1 of 8)", seen["panels"][0])
    press(driver, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    seen = now()
    assert seen["same"] == seen["panels"][2]
    assert seen["told"].startswith("fused: ")
    press(driver, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert now()["told"] == "disagreement (8 of 8)"
    press(driver, Keys.ARROW_DOWN)
    seen = now()
    assert (seen["current"], seen["same"]) == (1, seen["panels"][7])
    press(driver, Keys.ESCAPE)
    seen = now()
    assert (seen["open"], seen["current"], seen["focused"]) == (False, 1, 1)


def test_a_click_zooms_and_filters_leave_the_rest_out(driver: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.by import By

    visit(driver, pages["scored"])
    panel = driver.find_elements(By.CSS_SELECTOR, ".card .panel")[1]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", panel)
    panel.click()
    zoom = driver.find_element(By.ID, "zoom")
    assert zoom.is_displayed()
    assert driver.find_element(By.ID, "zoom-told").text == "truth (2 of 8)"
    width = driver.find_element(By.ID, "zoom-image").size["width"]
    assert width > 3 * panel.size["width"]
    driver.find_element(By.ID, "zoom-close").click()
    assert not zoom.is_displayed()
    every = driver.find_elements(By.CSS_SELECTOR, ".card")
    tab = driver.find_element(By.CSS_SELECTOR, '.tabs [data-reason="worst"]')
    tab.click()
    shown = [card for card in every if card.is_displayed()]
    assert tab.get_attribute("aria-pressed") == "true"
    assert 0 < len(shown) <= 2
    assert all("worst" in str(card.get_attribute("data-reasons")) for card in shown)


def test_the_table_sorts_filters_and_changes_its_convention(driver: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    visit(driver, pages["scored"])
    folded = len(driver.find_elements(By.CSS_SELECTOR, "#table tbody tr:not([hidden])"))
    told = driver.find_element(By.CSS_SELECTOR, "#table tbody tr:not([hidden]) .same:not(:empty)").text
    assert told.startswith("= ")
    equal = driver.find_element(By.ID, "equal")
    equal.click()
    every = driver.find_elements(By.CSS_SELECTOR, "#table tbody tr:not([hidden])")
    assert len(every) == len(driver.find_elements(By.CSS_SELECTOR, "#table tbody tr")) > folded
    assert driver.find_elements(By.CSS_SELECTOR, "#table .same:not(:empty)") == []
    equal.click()
    assert len(driver.find_elements(By.CSS_SELECTOR, "#table tbody tr:not([hidden])")) == folded
    assert driver.find_element(By.CSS_SELECTOR, "#table tbody tr:not([hidden]) .same:not(:empty)").text == told
    equal.click()

    def column(convention: str) -> list[float]:
        cells = driver.find_elements(
            By.CSS_SELECTOR, f"#table tbody tr:not([hidden]) td.c-{convention}:nth-of-type(3n+2)"
        )
        return [float(cell.get_attribute("data-value") or "nan") for cell in cells if cell.is_displayed()]

    first = column("keras-ignore")
    assert first == sorted(first, reverse=True)
    assert column("all") == []
    Select(driver.find_element(By.ID, "convention")).select_by_value("all")
    other = column("all")
    assert len(other) == len(first)
    assert other == sorted(other, reverse=True)
    assert column("keras-ignore") == []
    driver.find_element(By.CSS_SELECTOR, 'input.state[value="raw"]').click()
    assert len(column("all")) == len(first) * 2 // 3
    head = driver.find_element(By.CSS_SELECTOR, "#table thead th.rate button")
    head.click()
    rates = driver.find_elements(By.CSS_SELECTOR, "#table tbody td.rate")
    values = [float(cell.get_attribute("data-value") or "nan") for cell in rates]
    assert values == sorted(values, reverse=True)
    head.click()
    rates = driver.find_elements(By.CSS_SELECTOR, "#table tbody td.rate")
    assert [float(cell.get_attribute("data-value") or "nan") for cell in rates] == sorted(values)


def test_the_button_turns_the_page_dark_and_back(driver: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.by import By

    visit(driver, pages["scored"])
    colour = "return getComputedStyle(document.body).backgroundColor"
    assert driver.execute_script(colour) == "rgb(255, 255, 255)"
    button = driver.find_element(By.ID, "theme")
    button.click()
    assert driver.execute_script(colour) == "rgb(20, 23, 27)"
    plot = "return getComputedStyle(document.querySelector('#throughput text')).fill"
    dark = driver.execute_script(plot)
    button.click()
    assert driver.execute_script(colour) == "rgb(255, 255, 255)"
    assert driver.execute_script(plot) != dark
