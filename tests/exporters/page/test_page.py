"""The page in Chromium: the engine's labels out of WebAssembly, nothing leaves, usable by everyone on any screen."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("selenium", reason="the browser is driven by selenium: pip install 'maskfuse[dev]'")

from PIL import Image

from engine.outputs.png import png_bytes
from engine.runs.opened import open_ensemble
from engine.runs.options import Options
from engine.runs.plan import read_plan
from engine.samples.scenes import generate
from engine.sources.decode import decode
from engine.sources.reading import Reading
from exporters.parity import load_tiles
from tests.exporters.page.conftest import World
from tests.helpers.browser import BROWSER, DESKTOP, DRIVER, ISOLATED, NO_BROWSER, PHONE, Site, left, look, opened_site
from tests.helpers.pngs import GREY, INDEXED, KINDS, RGB, random_png
from tests.helpers.ties import ties

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason=NO_BROWSER)
Saved = Callable[..., list[Path]]
SWIFTSHADER = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")


def mars(count: int) -> np.ndarray | None:
    """Real tiles, where the machine has them."""
    named = os.environ.get("MASKFUSE_MARS")
    folder = Path(named) if named else Path(__file__).resolve().parents[4] / "shared" / "data" / "mars"
    found = folder / "mars_for_students.npz"
    return load_tiles(found, limit=count)[..., 0].astype(np.uint8) if found.is_file() else None


def check_masks(site: Site, plan: Path, images: np.ndarray, paths: list[Path]) -> int:
    """Compare what the page saves with the engine's labels; return how many ties were broken differently."""
    ensemble = open_ensemble(read_plan(plan), Options(), None)
    held = site.masks()
    got = np.stack([held[path.stem] for path in paths])
    return ties(ensemble, images, ensemble.predict(images), got)


@pytest.mark.parametrize("headers", [{}, ISOLATED], ids=["one thread", "threads"])
def test_labels_are_the_engines_and_nothing_leaves(
    headers: dict[str, str], world: World, saved: Saved, tmp_path: Path
) -> None:
    real = mars(12)
    images = np.concatenate([generate(12, seed=3).images, *([] if real is None else [real])])
    paths = saved(images)
    with opened_site(world.folder, tmp_path, headers) as (site, rest):
        told = site.open("tiles/?device=wasm")
        threads = site.driver.execute_script("return navigator.hardwareConcurrency")
        several = f"{threads} threads" if threads > 1 else "one thread"
        assert told.startswith(f"Runs on WASM, {several if headers else 'one thread'}")
        assert ("need two headers" in told) == (not headers)
        assert site.drop(*paths).startswith(f"{len(images)} pictures predicted on WASM: ")
        assert check_masks(site, world.plans["tiles"], images, paths) <= 2
        assert site.complaints() == []
        asked = [path.partition("?")[0] for path in site.server.asked]
        assert asked
        assert all(path.startswith("/tiles/") for path in asked)
        assert left(rest) == []
        # That the rest of the network would be seen: without the page's policy a request gets through to it.
        site.driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
        site.open("tiles/?device=wasm")
        site.driver.execute_async_script("fetch('http://elsewhere.test/').finally(arguments[0])")
        assert any("elsewhere.test" in line for line in left(rest))


def test_the_policy_binds_page_and_worker(site: Site) -> None:
    """Even code that got in could send nothing out."""
    site.open("tiles/")
    barred = site.driver.execute_async_script(
        """
        const done = arguments[0], barred = [];
        addEventListener("securitypolicyviolation", (event) => barred.push(event.effectiveDirective));
        const image = document.createElement("img");
        image.src = "http://127.0.0.1:9/x.png";
        document.body.append(image);
        const script = document.createElement("script");
        script.textContent = "document.title = 'owned'";
        document.body.append(script);
        const code = `fetch("http://127.0.0.1:9/y").then(() => postMessage("sent"), () => {});
          addEventListener("securitypolicyviolation", (event) => postMessage(event.effectiveDirective));`;
        const blob = new Blob([code], { type: "text/javascript" });
        const worker = new Worker(URL.createObjectURL(blob), { type: "module" });
        worker.onmessage = ({ data }) => barred.push(`worker ${data}`);
        fetch("http://127.0.0.1:9/z").catch(() => setTimeout(() => done(barred), 300));
        """
    )
    assert {"img-src", "connect-src", "script-src-elem", "worker connect-src"} <= set(barred)
    assert "worker sent" not in barred
    assert site.driver.title == "tiles packed"


def test_pixels_of_pngs_are_those_the_engine_reads(site: Site, world: World) -> None:
    draw = np.random.default_rng(11)
    kinds = [(*each, interlaced, False) for each in KINDS for interlaced in (False, True)] * 3
    kinds += [(kind, 8, False, True) for kind in (GREY, RGB, INDEXED)]
    pictures = [random_png(draw, *each) for each in kinds]
    site.open("tiles/")
    found = site.driver.execute_async_script(
        """
        const [pictures, done] = arguments;
        import("./png.js").then(async ({ decodePng }) => {
          const found = [];
          for (const text of pictures) {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const { width, height, channels, data } = await decodePng(bytes);
            found.push([[height, width, channels], [...data]]);
          }
          done(found);
        }).catch((error) => done(String(error)));
        """,
        [base64.b64encode(data).decode() for data in pictures],
    )
    assert not isinstance(found, str), found
    for (shape, values), data, told in zip(found, pictures, kinds, strict=True):
        expected = decode("picture.png", "images", data)
        np.testing.assert_array_equal(np.array(values).reshape(shape), expected, str(told))


def test_a_saved_mask_is_the_picture_that_the_command_writes(site: Site, world: World, saved: Saved) -> None:
    images = generate(1, seed=8).images
    site.open("tiles/")
    assert site.drop(*saved(images)) == "1 picture predicted on WASM."
    ensemble = open_ensemble(read_plan(world.plans["tiles"]), Options(), None)
    (tmp := site.downloads / "engine.png").write_bytes(png_bytes(ensemble.predict(images)[0], 5))
    got, expected = Image.open(site.saved("save", "tile0.mask.png")), Image.open(tmp)
    assert (got.mode, got.getpalette()) == (expected.mode, expected.getpalette())
    np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))
    rows = [row.text.split() for row in site.element("areas").find_elements("tag name", "tr")]
    counts = np.bincount(np.asarray(got).ravel(), minlength=5)
    assert [int(row[-3].replace(",", "")) for row in rows] == counts.tolist()
    assert [" ".join(row[1:-3]) for row in rows] == list(ensemble.classes)
    assert not site.element("save-all").is_displayed()


def test_foreign_members_of_any_size(site: Site, world: World, saved: Saved) -> None:
    """Strides, windows, resized maps, uint8: the arithmetic around the nets is the engine's in WebAssembly too."""
    draw, plan = np.random.default_rng(4), world.plans["odd"]
    images = [draw.integers(0, 256, size).astype(np.uint8) for size in ((12, 20), (9, 13), (31, 17))]
    paths = [saved(image[None], f"size {index} ")[0] for index, image in enumerate(images)]
    black = saved(np.zeros((1, 9, 13), np.uint8), "black")[0]
    site.open("odd/")
    assert site.drop(*paths, black).endswith("; 1 refused.")
    buttons = site.element("list").find_elements("tag name", "button")
    assert buttons[3].get_attribute("title") == "black0: a member computes NaN or infinity for this picture"
    ensemble, held = open_ensemble(read_plan(plan), Options(), None), site.masks()
    assert set(held) == {path.stem for path in paths}
    for image, path in zip(images, paths, strict=True):
        assert ties(ensemble, image[None], ensemble.predict(image[None]), held[path.stem][None]) <= 1


def test_colours_and_doubt(site: Site, world: World, saved: Saved, tmp_path: Path) -> None:
    images = np.random.default_rng(2).integers(0, 256, (2, 10, 14, 3)).astype(np.uint8)
    paths = saved(images)
    Image.fromarray(images[1]).save(paths[1].with_suffix(".bmp"))
    site.open("colour/")
    site.drop(paths[0], paths[1].with_suffix(".bmp"))
    assert check_masks(site, world.plans["colour"], images, paths) == 0
    views = site.element("views").find_elements("tag name", "button")
    assert [view.get_attribute("data-view") for view in views] == ["mask", "doubt", "picture"]
    shown = "return [...document.getElementById('canvas').getContext('2d').getImageData(0, 0, 14, 10).data]"
    views[2].click()
    site.wait(lambda: site.driver.execute_script(shown)[:3] == images[0, 0, 0].tolist())
    np.testing.assert_array_equal(np.reshape(site.driver.execute_script(shown), (10, 14, 4))[..., :3], images[0])
    views[1].click()
    site.driver.execute_script(
        "const at = document.getElementById('opacity'); at.value = 100; at.dispatchEvent(new Event('input'))"
    )
    ensemble = open_ensemble(read_plan(world.plans["colour"]), Options(), None)
    from engine.fusion.evidence import Evidence
    from exporters.tiles import tiles_source

    logits = ensemble.logits(next(tiles_source(images[:1]).batches(1)), ensemble.variant.decoding.suppress)[0]
    doubt = ensemble.explain(logits, ensemble.variant, (10, 14), Evidence("", "entropy", "float32")).shown.doubt
    grey = np.reshape(site.driver.execute_script(shown), (10, 14, 4))[..., 0]
    assert np.abs(grey - 255 * doubt.reshape(10, 14) / doubt.max()).max() <= 1


def test_what_is_refused_says_why(site: Site, saved: Saved, tmp_path: Path) -> None:
    good = generate(1, seed=1).images
    colour = np.random.default_rng(0).integers(0, 256, (64, 128, 3)).astype(np.uint8)
    (small,), (plain,) = saved(good[:, :32], "small"), saved(good, "plain")
    (equal,), (rgb,) = saved(np.repeat(good[..., None], 3, axis=3), "equal"), saved(colour[None], "rgb")
    torn, damaged, text, tiff = (tmp_path / name for name in ("torn.png", "damaged.png", "text.png", "scan.tiff"))
    data = bytearray(plain.read_bytes())
    torn.write_bytes(data[: len(data) // 2])
    data[len(data) // 2] ^= 255
    damaged.write_bytes(data)
    text.write_text("no picture")
    Image.fromarray(good[0]).save(tiff)
    turned, exif = tmp_path / "turned.png", Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(good[0]).save(turned, exif=exif)
    site.open("tiles/")
    refused = {
        small: "the picture has 32 x 128 pixels (height x width), the ensemble takes 64 x 128: cut it, or use engine "
        "ensemble --tile, which cuts and joins",
        rgb: "the picture has colours, the ensemble takes grey: tick “RGB as grey” to convert it",
        torn: "the PNG ends too early: copy it again",
        damaged: "the PNG is damaged: copy it again",
        text: "not a PNG, JPEG, WebP or BMP: save it as PNG",
        tiff: "not a PNG, JPEG, WebP or BMP: save it as PNG",
        turned: "the picture is stored turned (EXIF): save it upright",
    }
    told = site.drop(plain, equal, *refused)
    assert told.startswith("2 pictures predicted on WASM: ")
    assert told.endswith("; 7 refused.")
    buttons = site.element("list").find_elements("tag name", "button")
    for path, button in zip((plain, equal, *refused), buttons, strict=True):
        assert button.get_attribute("title") == path.stem + (f": {refused[path]}" if path in refused else "")
    buttons[3].click()
    assert site.element("refused").text == refused[rgb]
    masks = site.masks()
    np.testing.assert_array_equal(masks["plain0"], masks["equal0"])
    site.element("alike").click()
    site.wait(lambda: "; 6 refused." in site.state)
    grey = decode(str(rgb), "images", reading=Reading(rgb_as_grey=True))
    site.drop(saved(grey[None, ..., 0], "converted")[0])
    masks = site.masks()
    np.testing.assert_array_equal(masks["rgb0"], masks["converted0"])


def test_jpegs_are_read_as_the_browser_does_and_it_says_so(site: Site, saved: Saved, tmp_path: Path) -> None:
    image = generate(1, seed=2).images[0]
    Image.fromarray(image).save(tmp_path / "grey.jpg", quality=95)
    site.open("tiles/")
    assert site.drop(tmp_path / "grey.jpg") == "1 picture predicted on WASM."
    assert "decoded by the browser" in site.element("told").text


def test_a_gpu_is_used_where_it_gives_the_same_labels(world: World, saved: Saved, tmp_path: Path) -> None:
    """On a GPU that is computed. The second page takes any difference for too much."""
    images = np.random.default_rng(3).integers(0, 256, (2, 20, 30, 3)).astype(np.uint8)
    paths, plan = saved(images), world.plans["colour"]
    strict = tmp_path / "pages" / "strict"
    shutil.copytree(world.folder / "colour", strict)
    text = (strict / "predict.js").read_text("utf-8")
    (strict / "predict.js").write_text(text.replace("MOST_APART = 1e-3", "MOST_APART = -1"), "utf-8")
    (strict.parent / "colour").symlink_to(world.folder / "colour")
    with opened_site(strict.parent, tmp_path, more=SWIFTSHADER) as (site, rest):
        told = site.open("colour/")
        if "the browser offers none" in told:
            pytest.skip("this Chromium has no WebGPU")
        assert told.startswith("Runs on WebGPU")
        assert site.drop(*paths).startswith("2 pictures predicted on WebGPU: ")
        assert check_masks(site, plan, images, paths) <= 2
        assert re.search(
            r"WASM, one thread; not on WebGPU: 0\.\d+ % of its labels on a trial differ", site.open("strict/")
        )
        assert site.drop(*paths).startswith("2 pictures predicted on WASM: ")
        assert check_masks(site, plan, images, paths) <= 2
        assert left(rest) == []


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_it_fits_every_screen(size: tuple[int, int], scheme: str, site: Site, saved: Saved) -> None:
    look(site.driver, size, scheme)
    site.open("tiles/")
    site.drop(*saved(generate(3, seed=5).images, "a rather long name of a picture that was taken on a hill "))
    drawn = site.driver.execute_script(
        """
        const canvas = document.getElementById("canvas").getBoundingClientRect();
        const small = [...document.querySelectorAll("button, .button, .drop")].filter((item) => item.offsetParent)
          .filter((item) => item.getBoundingClientRect().height < 24);
        return {
          overflow: document.documentElement.scrollWidth - innerWidth, canvas: [canvas.width, canvas.height],
          small: small.length, background: getComputedStyle(document.body).backgroundColor,
          thumbs: [...document.querySelectorAll("#list canvas")].map((item) => item.width),
        };
        """
    )
    assert drawn["overflow"] <= 0
    assert drawn["canvas"][0] > 300
    assert drawn["canvas"][0] / drawn["canvas"][1] == pytest.approx(2, abs=0.02)
    assert drawn["small"] == 0
    assert drawn["background"] == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")
    assert drawn["thumbs"] == [64] * 3
    assert site.complaints() == []


def test_it_is_used_by_keyboard(site: Site, saved: Saved) -> None:
    from selenium.webdriver import ActionChains, Keys

    look(site.driver)
    site.open("tiles/")
    site.drop(*saved(generate(2, seed=6).images))
    focused = "const at = document.activeElement; return at.id || at.title || at.dataset.view"
    site.driver.execute_script("document.activeElement.blur()")

    def press(key: str) -> str:
        ActionChains(site.driver).send_keys(key).perform()
        return str(site.driver.execute_script(focused))

    assert [press(Keys.TAB) for _ in range(5)] == ["files", "alike", "tile0", "tile1", "mask"]
    assert [press(Keys.TAB), press(Keys.TAB)] == ["picture", "opacity"]
    press(Keys.ARROW_RIGHT)
    assert site.element("opacity").get_attribute("value") == "61"
    site.element("views").find_element("tag name", "button").send_keys(Keys.ENTER)
    ActionChains(site.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    press(Keys.ENTER)
    assert site.element("name").text == "tile1"
    assert site.driver.execute_script("return document.querySelector('[aria-current]').title") == "tile1"
    label = site.element("canvas").get_attribute("aria-label")
    assert label.startswith("tile1: ")
    assert label.endswith(" %")


def test_without_a_server_it_says_what_to_do(site: Site, world: World) -> None:
    site.driver.get((world.folder / "tiles" / "index.html").as_uri())
    assert "python -m http.server" in site.state
    assert not site.element("drop").is_displayed()
