"""The page in a real browser, Chromium without a window: drawn, quiet, closed to the network, usable by keyboard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.compare.runfile import write_run

pytest.importorskip("matplotlib", reason="the page needs maskfuse[report]")
pytest.importorskip("jinja2", reason="the page needs maskfuse[report]")
pytest.importorskip("selenium", reason="the browser is driven by selenium: pip install 'maskfuse[dev]'")

from selenium import webdriver

from engine.compare.report.command import report
from tests.engine.compare.report.test_page import HOSTILE, hostile_run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no Chromium with its driver: apt-get install chromium chromium-driver"
)
DESKTOP, PHONE = (1280, 900), (390, 844)


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
def chromium() -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


def visit(driver: Any, page: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> None:
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
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
    name: str, size: tuple[int, int], scheme: str, chromium: Any, pages: dict[str, Path]
) -> None:
    visit(chromium, pages[name], size, scheme)
    drawn = chromium.execute_async_script(
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
    assert [entry for entry in chromium.get_log("browser") if entry["level"] != "DEBUG"] == []
    assert [url for url in requested(chromium) if not url.startswith("data:")] == [pages[name].as_uri()]


def test_hostile_names_are_text(chromium: Any, pages: dict[str, Path]) -> None:
    visit(chromium, pages["scored"])
    text = chromium.execute_script("return document.body.textContent")
    for name in HOSTILE:
        assert name in text
    assert chromium.title == "3 members on 4 images"
    assert chromium.execute_script("return document.scripts.length") == 1
    found = "return document.querySelectorAll('[onerror],[onload],[onclick],img[src=x],iframe,object,base,form').length"
    assert chromium.execute_script(found) == 0


def test_the_policy_bars_what_would_leave(chromium: Any, pages: dict[str, Path]) -> None:
    """Even code that got in could send nothing out: the check above can fail, and the policy holds."""
    visit(chromium, pages["scored"])
    barred = chromium.execute_async_script(
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
    assert chromium.title == "3 members on 4 images"


def test_the_gallery_steps_and_zooms_by_keyboard(chromium: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver import Keys

    visit(chromium, pages["scored"])
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
        return dict(chromium.execute_script(state))

    assert (now()["current"], now()["open"]) == (-1, False)
    press(chromium, "j")
    assert (now()["current"], now()["focused"]) == (0, 0)
    press(chromium, "j")
    assert now()["current"] == 1
    press(chromium, "k", "k", "k")
    assert now()["current"] == 0
    press(chromium, Keys.ENTER)
    seen = now()
    assert (seen["open"], seen["told"], seen["same"]) == (True, "image (1 of 8)", seen["panels"][0])
    press(chromium, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    seen = now()
    assert seen["same"] == seen["panels"][2]
    assert seen["told"].startswith("fused: ")
    press(chromium, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert now()["told"] == "disagreement (8 of 8)"
    press(chromium, Keys.ARROW_DOWN)
    seen = now()
    assert (seen["current"], seen["same"]) == (1, seen["panels"][7])
    press(chromium, Keys.ESCAPE)
    seen = now()
    assert (seen["open"], seen["current"], seen["focused"]) == (False, 1, 1)


def test_a_click_zooms_and_filters_leave_the_rest_out(chromium: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.by import By

    visit(chromium, pages["scored"])
    panel = chromium.find_elements(By.CSS_SELECTOR, ".card .panel")[1]
    chromium.execute_script("arguments[0].scrollIntoView({block: 'center'})", panel)
    panel.click()
    zoom = chromium.find_element(By.ID, "zoom")
    assert zoom.is_displayed()
    assert chromium.find_element(By.ID, "zoom-told").text == "truth (2 of 8)"
    width = chromium.find_element(By.ID, "zoom-image").size["width"]
    assert width > 3 * panel.size["width"]
    chromium.find_element(By.ID, "zoom-close").click()
    assert not zoom.is_displayed()
    every = chromium.find_elements(By.CSS_SELECTOR, ".card")
    tab = chromium.find_element(By.CSS_SELECTOR, '.tabs [data-reason="worst"]')
    tab.click()
    shown = [card for card in every if card.is_displayed()]
    assert tab.get_attribute("aria-pressed") == "true"
    assert 0 < len(shown) <= 2
    assert all("worst" in str(card.get_attribute("data-reasons")) for card in shown)


def test_the_table_sorts_filters_and_changes_its_convention(chromium: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    visit(chromium, pages["scored"])
    folded = len(chromium.find_elements(By.CSS_SELECTOR, "#table tbody tr:not([hidden])"))
    told = chromium.find_element(By.CSS_SELECTOR, "#table tbody tr:not([hidden]) .same:not(:empty)").text
    assert told.startswith("= ")
    equal = chromium.find_element(By.ID, "equal")
    equal.click()
    every = chromium.find_elements(By.CSS_SELECTOR, "#table tbody tr:not([hidden])")
    assert len(every) == len(chromium.find_elements(By.CSS_SELECTOR, "#table tbody tr")) > folded
    assert chromium.find_elements(By.CSS_SELECTOR, "#table .same:not(:empty)") == []
    equal.click()
    assert len(chromium.find_elements(By.CSS_SELECTOR, "#table tbody tr:not([hidden])")) == folded
    assert chromium.find_element(By.CSS_SELECTOR, "#table tbody tr:not([hidden]) .same:not(:empty)").text == told
    equal.click()

    def column(convention: str) -> list[float]:
        cells = chromium.find_elements(
            By.CSS_SELECTOR, f"#table tbody tr:not([hidden]) td.c-{convention}:nth-of-type(3n+2)"
        )
        return [float(cell.get_attribute("data-value") or "nan") for cell in cells if cell.is_displayed()]

    first = column("keras-ignore")
    assert first == sorted(first, reverse=True)
    assert column("all") == []
    Select(chromium.find_element(By.ID, "convention")).select_by_value("all")
    other = column("all")
    assert len(other) == len(first)
    assert other == sorted(other, reverse=True)
    assert column("keras-ignore") == []
    chromium.find_element(By.CSS_SELECTOR, 'input.state[value="raw"]').click()
    assert len(column("all")) == len(first) * 2 // 3
    head = chromium.find_element(By.CSS_SELECTOR, "#table thead th.rate button")
    head.click()
    rates = chromium.find_elements(By.CSS_SELECTOR, "#table tbody td.rate")
    values = [float(cell.get_attribute("data-value") or "nan") for cell in rates]
    assert values == sorted(values, reverse=True)
    head.click()
    rates = chromium.find_elements(By.CSS_SELECTOR, "#table tbody td.rate")
    assert [float(cell.get_attribute("data-value") or "nan") for cell in rates] == sorted(values)


def test_the_button_turns_the_page_dark_and_back(chromium: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.by import By

    visit(chromium, pages["scored"])
    colour = "return getComputedStyle(document.body).backgroundColor"
    assert chromium.execute_script(colour) == "rgb(255, 255, 255)"
    button = chromium.find_element(By.ID, "theme")
    button.click()
    assert chromium.execute_script(colour) == "rgb(20, 23, 27)"
    plot = "return getComputedStyle(document.querySelector('#throughput text')).fill"
    dark = chromium.execute_script(plot)
    button.click()
    assert chromium.execute_script(colour) == "rgb(255, 255, 255)"
    assert chromium.execute_script(plot) != dark
