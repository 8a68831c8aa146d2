"""Takes the two pictures of the explorer, figures/explorer.png and figures/explorer_phone.png, in headless Chromium.

pip install '.[browser]', a Chromium, and then: python tutorials/explorer.py RUN [LABEL LABEL]
RUN is the folder of a run; the walk in the picture goes from the first code of one label to that of the other.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tinyvae.app.run import open_run
from tinyvae.pictures.explore import write_page

FIGURES = Path(__file__).resolve().parent / "figures"
VIEWS = {
    "explorer.png": {"viewport": {"width": 1280, "height": 800}},
    "explorer_phone.png": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "device_scale_factor": 1.35},
}
WALK = "(pair) => { pair.forEach((label) => pick(run.labels.indexOf(label))); playing = null; stand(0.5); refresh(); }"


def main() -> None:
    folder, *labels = sys.argv[1:]
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        file = Path(temporary, "explorer.html")
        print(write_page(open_run(Path(folder)), file))
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, view in VIEWS.items():
            page = browser.new_context(**view).new_page()
            page.goto(file.as_uri())
            page.evaluate(WALK, [int(label) for label in labels or (0, 1)])
            page.wait_for_timeout(500)
            page.screenshot(path=FIGURES / name)
            with Image.open(FIGURES / name) as picture:  # fewer shades make a smaller file
                shades = picture.convert("RGB").point(lambda value: round(value / 5) * 5)
            shades.save(FIGURES / name, optimize=True)
            print(FIGURES / name)


if __name__ == "__main__":
    main()
