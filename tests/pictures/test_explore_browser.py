"""The explorer in a real browser: headless Chromium, driven as a person would, with the page opened from a file.
Skipped, and said so, where there is no Chromium or no Playwright (the extra `browser`)."""

import base64
import io
import os
import shutil
import time

import numpy as np
import pytest
from explore_runs import DRAWN, GREY, RUNS, make_run, zoo_run
from PIL import Image

from tinyvae import zoo
from tinyvae.pictures.explore import describe_run, write_page
from tinyvae.pictures.explore import page as html

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install '.[browser]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium is installed: apt-get install chromium", allow_module_level=True)

DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {
    "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses root without it
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def runs():
    """Each run once."""
    made = {}
    return lambda name: made.setdefault(name, (RUNS | DRAWN)[name]())


@pytest.fixture
def show(browser, tmp_path):
    """show(run or HTML, options) → the page, opened; at the end it must have had no trouble and asked no network."""
    contexts, trouble = [], []

    def opened(run, expect_trouble=False, **options):
        file = tmp_path / f"page{len(contexts)}.html"
        if isinstance(run, str):
            file.write_text(run, "utf-8")
        else:
            write_page(run, file)
        context = browser.new_context(**{**DESK, **options})
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        if not expect_trouble:
            page.on("console", lambda message: trouble.append(message.text))
            page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or trouble.append(request.url))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not trouble


def settle(page):
    """Waits until what was asked for is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def until(page, condition):
    """Waits for a condition on the page; the page's own policy forbids Playwright's way of doing so."""
    for _ in range(1000):
        if page.evaluate(condition):
            return
        time.sleep(0.01)
    raise AssertionError(f"never came true: {condition}")


def picture(page, canvas="$('image')"):
    """The pixels of a canvas, (H, W, 3)."""
    url = page.evaluate(f"{canvas}.toDataURL('image/png')")
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert (pixels[..., 3] == 255).all()
    return pixels[..., :3].astype(int)


def z_of(page):
    return np.array(page.evaluate("Array.from(z)"))


def shown(model, z):
    """The pixels that Python would show at z."""
    image = np.rint(model.decode(np.atleast_2d(z))[0].clip(0, 1) * 255)
    return np.broadcast_to(image, (*image.shape[:2], 3)).astype(int)


def assert_shows(page, model):
    """The picture is what Python decodes where the page stands, to within rounding."""
    settle(page)
    assert np.abs(picture(page) - shown(model, z_of(page))).max() <= 1


def dot(page, i):
    """The place of code i on the screen."""
    x, y = page.evaluate(f"plane.toPixel(codes[{i}].z, {i})")
    box = page.locator("#plane").bounding_box()
    return box["x"] + x, box["y"] + y


def lonely(page, but=()):
    """A code that stands alone enough to be clicked, other than those in `but`."""
    script = "codes.map((c, i) => plane.toPixel(c.z, i))"
    places = np.array(page.evaluate(script))
    gaps = np.hypot(*(places[:, None] - places[None]).T) + np.diag(np.full(len(places), np.inf))
    room = np.minimum(
        gaps.min(axis=1), np.minimum(places, page.evaluate("[plane.width, plane.height]") - places).min(1)
    )
    room[list(but)] = -1
    assert room.max() > 3
    return int(room.argmax())


# ---------------------------------------------------------------------------------------------- the decoder


@pytest.mark.parametrize("name", [*RUNS, *DRAWN])
def test_the_page_decodes_as_python_does(name, runs, show):
    run = runs(name)
    page, model = show(run), run.model
    assert page.locator("#trouble").text_content() == ""
    assert page.title().endswith("tinyvae explore")
    z = np.random.Generator(np.random.Philox(3)).normal(size=(4, model.latent_dim)) * 1.5
    decoded = page.evaluate("(zs) => zs.map((z) => Array.from(decoder.decode(z)))", z.tolist())
    expected = model.decode(z)
    assert np.ptp(expected) > 0.2
    np.testing.assert_allclose(np.reshape(decoded, expected.shape), expected, atol=1e-5)
    before = picture(page)
    page.evaluate("(z) => go(z)", z[0].tolist())
    assert_shows(page, model)
    assert (picture(page) != before).any()


def test_extreme_logits_do_not_overflow(runs, show):
    run = runs("vae of 2 dimensions")
    page = show(run)
    for value in (-1e4, 1e4):
        page.evaluate("(v) => go([v, v])", value)
        assert_shows(page, run.model)


# ---------------------------------------------------------------------------------------------- the plane


@pytest.mark.parametrize(
    "name", ["vae of 2 dimensions", "vae of 13 dimensions, in colour", "vae of 1 dimension", "conv-ae of 2 dimensions"]
)
def test_a_drag_moves_z_and_changes_the_picture(name, runs, show):
    run = runs(name)
    page = show(run)
    box = page.locator("#plane").bounding_box()
    place = lambda across, down: (box["x"] + across * box["width"], box["y"] + down * box["height"])  # noqa: E731
    seen = []
    page.mouse.move(*place(0.3, 0.3))
    page.mouse.down()
    for across, down in ((0.35, 0.4), (0.5, 0.6), (0.7, 0.65)):
        page.mouse.move(*place(across, down), steps=3)
        assert_shows(page, run.model)
        expected = page.evaluate("([x, y]) => plane.toLatent(x, y)", [across * box["width"], down * box["height"]])
        moved = page.evaluate("plane.axes.map((d) => z[d])")[: run.model.latent_dim]
        np.testing.assert_allclose(moved, expected[: len(moved)], atol=0.02)
        seen.append(picture(page).tobytes())
    page.mouse.up()
    assert len(set(seen)) == 3
    still = z_of(page)
    page.mouse.move(*place(0.2, 0.2))
    settle(page)
    np.testing.assert_array_equal(z_of(page), still)  # the button is up
    if run.model.latent_dim > 2:
        others = np.setdiff1d(np.arange(run.model.latent_dim), page.evaluate("plane.axes"))
        assert (still[others] == 0).all()


def test_a_drag_beyond_the_border_stays_inside(runs, show):
    page = show(runs("vae of 2 dimensions"))
    box = page.locator("#plane").bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(1279, 799)
    settle(page)
    high, low = page.evaluate("[limits[0][1], limits[1][0]]")
    np.testing.assert_allclose(z_of(page), [high, low])


def test_two_clicks_walk_from_one_code_to_the_other(runs, show):
    run = runs("vae of 2 dimensions")
    page, model, images = show(run), run.model, run.data.test_images
    a = lonely(page)
    b = lonely(page, but=[a])
    codes = model.encode(images)[0]
    page.mouse.click(*dot(page, a))
    np.testing.assert_allclose(z_of(page), codes[a], atol=1e-5)
    assert_shows(page, model)
    assert page.locator("#strip canvas").count() == 2
    assert f"A: image {a}, “{run.data.test_labels[a]}”" in page.locator("#walk-names").text_content()
    page.mouse.click(*dot(page, b))
    until(page, "playing === null && Number($('along').value) === 1")
    np.testing.assert_allclose(z_of(page), codes[b], atol=1e-5)
    assert_shows(page, model)
    strip = [picture(page, f"$('strip').querySelectorAll('canvas')[{k}]") for k in range(9)]
    for found, i in ((strip[0], a), (strip[8], b)):
        np.testing.assert_array_equal(found, np.broadcast_to(images[i], found.shape))
    walk = model.interpolate(images[a], images[b], steps=7)
    for found, image in zip(strip[1:8], walk, strict=True):
        assert np.abs(found - np.rint(image * 255)).max() <= 1
    page.locator("#along").fill("0.3")
    np.testing.assert_allclose(z_of(page), 0.7 * codes[a] + 0.3 * codes[b], atol=1e-5)
    assert_shows(page, model)
    assert page.locator("#strip .now figcaption").text_content() == "0.33"  # the nearest of those in the strip
    page.click("#play")
    until(page, "playing !== null && along > 0.4")
    page.click("#play")  # now it says Stop
    settle(page)
    stopped = z_of(page)
    time.sleep(0.2)
    np.testing.assert_array_equal(z_of(page), stopped)
    assert page.locator("#strip .now").count() == 1
    page.click("#zero")
    settle(page)
    assert page.locator("#strip .now").count() == 0  # no longer on the line
    page.click("#clear")
    assert page.locator("#strip canvas").count() == 0
    assert not page.locator("#play").is_visible()


def test_a_click_beside_all_codes_picks_none(runs, show):
    page = show(runs("vae of 2 dimensions"))
    corner = page.locator("#plane").bounding_box()
    page.mouse.click(corner["x"] + 3, corner["y"] + 3)
    settle(page)
    assert page.evaluate("picks.length") == 0
    assert (z_of(page) != 0).all()


def test_a_drag_that_begins_on_a_code_picks_none(runs, show):
    page = show(runs("vae of 2 dimensions"))
    a = lonely(page)
    x, y = dot(page, a)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y + 25, steps=4)
    page.mouse.move(x, y, steps=4)  # back to where it began
    page.mouse.up()
    settle(page)
    assert page.evaluate("picks.length") == 0


def test_less_motion_where_it_is_asked_for(runs, show):
    page = show(runs("vae of 2 dimensions"), reduced_motion="reduce")
    page.evaluate("pick(0); pick(1)")
    settle(page)
    assert page.evaluate("playing") is None
    np.testing.assert_allclose(z_of(page), page.evaluate("Array.from(codes[1].z)"))
    assert page.locator("#play").is_visible()


def test_a_label_alone_and_the_image_under_the_pointer(runs, show):
    page = show(runs("vae of 2 dimensions"))
    a = lonely(page)
    everything = picture(page, "$('plane')")
    page.mouse.move(*dot(page, a))
    settle(page)
    hovered = picture(page, "$('plane')")
    assert (hovered != everything).sum() > 3 * 500  # the image, 60 by 50 pixels and more
    page.mouse.move(5, 5)
    settle(page)
    np.testing.assert_array_equal(picture(page, "$('plane')"), everything)
    label = page.evaluate(f"codes[{a}].label")
    other = page.evaluate(f"labels.findIndex((label) => label !== {label})")
    page.locator("#legend button").nth(other).click()
    assert page.locator("#legend [aria-pressed=true]").count() == 1
    page.mouse.move(*dot(page, a))
    settle(page)
    assert page.evaluate("plane.hover") != a  # hidden
    page.locator("#legend button").nth(other).click()
    page.mouse.move(5, 5)
    settle(page)
    np.testing.assert_array_equal(picture(page, "$('plane')"), everything)


def test_the_whole_plane_decoded(runs, show):
    """Each tile is the image of its middle, drawn at one place of the plane, and the codes come back."""
    run = runs("vae of 2 dimensions")
    page = show(run)
    codes = picture(page, "$('plane')")
    page.click("#everywhere")
    until(page, "$('everywhere').getAttribute('aria-busy') === 'false'")
    settle(page)
    assert (picture(page, "$('plane')") != codes).mean() > 0.5
    tiles = picture(page, "plane.tiles")
    for x, y in ((0, 0), (5, 3), (11, 9)):
        z = page.evaluate(f"plane.toLatent({30 * x + 15}, {36 * y + 18})")
        middles = [3 * np.arange(n) + 1 for n in GREY[:2]]  # of 3×3 pixels each
        tile = tiles[36 * y : 36 * y + 36, 30 * x : 30 * x + 30][middles[0]][:, middles[1]]
        assert np.abs(tile - shown(run.model, np.array(z))).max() <= 1
    page.click("#everywhere")
    page.mouse.move(5, 5)
    settle(page)
    np.testing.assert_array_equal(picture(page, "$('plane')"), codes)


# ---------------------------------------------------------------------------------------------- sliders, buttons, keys


def test_sliders_stand_in_order_of_use(runs, show):
    run = runs("vae of 13 dimensions, in colour")
    page, model = show(run), run.model
    order = np.argsort(-np.array(describe_run(run)["activity"]), kind="stable")
    rows = page.locator(".slider:visible label").all_text_contents()
    assert rows == [f"z[{d}]" for d in order[:10]]
    assert page.evaluate("plane.axes") == order[:2].tolist()
    page.click("#more")
    assert page.locator(".slider:visible").count() == 13
    slider = page.get_by_label(f"z[{order[4]}]", exact=True)
    slider.fill("1.5")
    expected = np.zeros(13)
    expected[order[4]] = 1.5
    np.testing.assert_allclose(z_of(page), expected)
    assert_shows(page, model)
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert z_of(page)[order[4]] > 1.5
    page.select_option("#axis-u", str(order[1]))
    assert page.evaluate("plane.axes") == order[[1, 0]].tolist()  # they have changed places
    page.select_option("#axis-v", str(order[12]))
    assert page.evaluate("plane.axes") == order[[1, 12]].tolist()
    assert f"z[{order[12]}]" in page.locator("#plane").get_attribute("aria-label")


def test_random_and_zero(runs, show):
    run = runs("vae of 13 dimensions, in colour")
    page = show(run)
    draws = []
    for _ in range(40):
        page.click("#random")
        draws.append(z_of(page))
    assert_shows(page, run.model)
    values = np.ravel(draws)  # 520 of them: 5 standard errors
    assert abs(values.mean()) < 5 / np.sqrt(520)
    assert abs(values.var() - 1) < 5 * np.sqrt(2 / 520)
    assert len(np.unique(values)) == 520
    assert not page.locator("#fitted").is_visible()
    page.click("#zero")
    assert (z_of(page) == 0).all()
    assert_shows(page, run.model)


def test_an_autoencoder_draws_like_its_codes(runs, show):
    run = runs("conv-ae of 2 dimensions")
    page = show(run)
    prior = describe_run(run)["prior"]
    draws = np.array(page.evaluate("Array.from({ length: 2000 }, () => (draw(run.prior), Array.from(z)))"))
    covariance = np.array(prior["factor"]) @ np.array(prior["factor"]).T
    std = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(axis=0) - prior["mean"]) < 5 * std / np.sqrt(2000)).all()
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.2 * std.max() ** 2)
    page.click("#fitted")
    assert_shows(page, run.model)


def test_the_plane_by_keyboard(runs, show):
    run = runs("vae of 2 dimensions")
    page = show(run)
    page.locator("#plane").focus()
    for key, axis, sign in (("ArrowRight", 0, 1), ("ArrowUp", 1, 1), ("ArrowLeft", 0, -1), ("ArrowDown", 1, -1)):
        before = z_of(page)
        page.keyboard.press(key)
        change = z_of(page) - before
        assert change[axis] * sign > 0
        assert change[1 - axis] == 0
        page.keyboard.press(f"Shift+{key}")
        np.testing.assert_allclose(z_of(page) - before, 5 * change)
    assert_shows(page, run.model)
    codes = run.model.encode(run.data.test_images)[0]
    nearest = int(np.square(codes - z_of(page)).sum(axis=1).argmin())
    page.keyboard.press("Enter")
    assert page.evaluate("picks") == [nearest]
    page.keyboard.press("Escape")
    assert page.evaluate("picks") == []


def test_a_line_by_keyboard(runs, show):
    """With one dimension the height of a code means nothing."""
    run = runs("vae of 1 dimension")
    page = show(run)
    page.locator("#plane").focus()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowUp")
    assert_shows(page, run.model)
    codes = run.model.encode(run.data.test_images)[0]
    nearest = int(np.abs(codes - z_of(page)).argmin())
    page.keyboard.press("Enter")
    assert page.evaluate("picks") == [nearest]


def test_everything_has_a_name(runs, show):
    """What a screen reader would say of each control, and that nothing that can be worked is silent."""
    page = show(runs("vae of 13 dimensions, in colour"))
    page.evaluate("pick(0); pick(1)")
    silent = page.evaluate(
        "[...document.querySelectorAll('button, input, select, canvas')].filter((e) => e.checkVisibility())"
        ".filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || (e.labels && e.labels.length)))"
        ".map((e) => e.outerHTML)"
    )
    assert silent == []
    assert page.get_by_role("img", name="Image decoded at").count() == 1
    assert page.get_by_role("status").text_content().startswith("A: image 0")


# ---------------------------------------------------------------------------------------------- phone, dark, broken


def touch(page, kind, x, y):
    points = [] if kind == "touchEnd" else [{"x": x, "y": y}]
    page.touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


@pytest.mark.parametrize("name", ["vae of 2 dimensions", "vae of 13 dimensions, in colour"])
def test_on_a_phone(name, runs, show):
    run = runs(name)
    page = show(run, **PHONE)
    page.touch = page.context.new_cdp_session(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    buttons = [button for button in page.locator("button").all() if button.is_visible()]
    assert min(button.bounding_box()["height"] for button in buttons) >= 30  # for a finger
    page.locator("#plane").scroll_into_view_if_needed()
    box = page.locator("#plane").bounding_box()
    before, top = picture(page), page.evaluate("scrollY")
    touch(page, "touchStart", box["x"] + 60, box["y"] + 150)
    for step in range(1, 8):
        touch(page, "touchMove", box["x"] + 60 + 25 * step, box["y"] + 150 + 12 * step)
    touch(page, "touchEnd", 0, 0)
    assert_shows(page, run.model)
    assert (picture(page) != before).any()
    assert page.evaluate("scrollY") == top  # the plane moved, not the page
    expected = page.evaluate("plane.toLatent(235, 234)")
    np.testing.assert_allclose(page.evaluate("plane.axes.map((d) => z[d])"), expected, atol=0.02)
    page.touchscreen.tap(*dot(page, lonely(page)))
    assert page.evaluate("picks.length") == 1
    page.locator(".slider:visible").last.scroll_into_view_if_needed()
    settle(page)
    view = page.locator("#image").bounding_box()  # it stays in sight while sliders move
    assert 0 <= view["y"] < 200
    assert view["width"] > 60


def test_light_and_dark(runs, show):
    run = runs("vae of 2 dimensions")
    light, dark = show(run, color_scheme="light"), show(run, color_scheme="dark")
    assert picture(light, "$('plane')").mean() > 200
    assert picture(dark, "$('plane')").mean() < 60
    light.emulate_media(color_scheme="dark")
    settle(light)
    np.testing.assert_array_equal(picture(light, "$('plane')"), picture(dark, "$('plane')"))
    np.testing.assert_array_equal(picture(light), picture(dark))


def test_without_labels_and_with_long_names(show):
    model = lambda: zoo.build("vae", GREY, 2, (8,), device="numpy")  # noqa: E731
    page = show(make_run(model(), GREY, labelled=False))
    assert page.locator("#legend button").count() == 0
    page.evaluate("pick(0)")
    assert page.locator("#walk-names").text_content() == "A: image 0"
    names = ("</script><b>", "<i>", "a name that is much longer than the names of classes are", "ü", "5")
    page = show(make_run(model(), GREY, names), **PHONE)
    assert page.locator("#legend button").all_text_contents() == list(names)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("class Decoder {", "class Decoder { not yet known;", "too old"),
        (
            "const run = JSON.parse",
            'throw Error("unheard of"); const run = JSON.parse',
            "stopped: Uncaught Error: unheard",
        ),
        ('"mean": "sigmoid"', '"mean": "cubic"', "The page has stopped: Uncaught TypeError"),
    ],
)
def test_trouble_is_said_in_plain_words(old, new, words, show):
    text = html(describe_run(zoo_run("vae", GREY, 2)))
    assert text.count(old) == 1
    page = show(text.replace(old, new), expect_trouble=True)
    assert words in page.locator("#trouble").text_content()


def test_a_file_cut_off_says_so(show):
    text = html(describe_run(zoo_run("vae", GREY, 2)))
    page = show(text[: len(text) // 3])
    assert "the file is not complete" in page.locator("#trouble").text_content()


def test_without_javascript(show):
    page = show(html(describe_run(zoo_run("vae", GREY, 2))), java_script_enabled=False)
    assert "switched off" in page.locator("noscript").inner_text()


# ---------------------------------------------------------------------------------------------- speed


DRAG = """(milliseconds) => new Promise((done) => {
  const [start, count, box] = [performance.now(), decoding.count, $("plane").getBoundingClientRect()];
  const mover = setInterval(() => {
    const time = performance.now() - start;
    const [clientX, clientY] = [box.left + 100 + 60 * Math.sin(time / 200), box.top + 100 + 60 * Math.cos(time / 300)];
    $("plane").dispatchEvent(new PointerEvent("pointermove", { clientX, clientY }));
    if (time < milliseconds) return;
    clearInterval(mover);
    done((1000 * (decoding.count - count)) / time);
  }, 4);
})"""


def images_per_second(page):
    """How many images the page decodes and draws in a second while the plane is dragged.

    The pointer's moves are made on the page: sent from outside, each would wait for the one before to be drawn.
    """
    box = page.locator("#plane").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.evaluate(DRAG, 500)  # the browser compiles the decoder meanwhile
    rate = page.evaluate(DRAG, 2000)
    page.mouse.up()
    return rate


@pytest.mark.slow
def test_dragging_shows_thirty_images_a_second(show):
    """The default network: 784-400-2."""
    run = make_run(zoo.build("vae", (28, 28, 1), 2, device="numpy"), (28, 28, 1))
    assert images_per_second(show(run)) >= 30
