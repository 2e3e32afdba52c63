"""The page in a headless Chromium: joints on a dropped picture, a video, errors in one line, no network."""

import json
import os
import shutil
import time
import urllib.request
from fractions import Fraction

import numpy as np
import pytest
from conftest import free_port, picture
from PIL import Image

from hourglass_jax import predictor
from hourglass_jax.demo import page, service
from hourglass_jax.media import videos

pytestmark = [
    pytest.mark.usefixtures("quick_compiles", "one_look"),
    pytest.mark.filterwarnings("ignore"),  # Gradio's own packages warn
    pytest.mark.slow,
]
IMAGE = picture(100, 160, (40, 30), (120, 60), (80, 50), radius=0.02)
BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--window-size=1400,1300", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture
def one_look(monkeypatch):
    monkeypatch.setattr(predictor, "LEAST_JOINTS", 99)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (BROWSER and DRIVER):
        pytest.skip("needs Chromium and its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.downloads = downloads
    yield driver
    driver.quit()


@pytest.fixture
def opened(chromium, spots, tmp_path, monkeypatch):
    """The page in the browser, and its address; `HOURGLASS_SHOTS` is a folder for a final screenshot."""
    pytest.importorskip("gradio")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    blocks, address = page.serve(service.Service(tmp_path / "service"), port=free_port(), megabytes=0.05)
    chromium.get(address)
    yield chromium, address
    if folder := os.environ.get("HOURGLASS_SHOTS"):
        chromium.save_screenshot(os.path.join(folder, f"{time.time():.0f}.png"))
    chromium.get("about:blank")
    blocks.close(verbose=False)


def wait(what, seconds=60):
    """Calls `what` until it returns a true value; returns that value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come")


def find(driver, selector):
    return wait(lambda: driver.find_elements("css selector", selector))[0]


def note(driver, part):
    box = find(driver, "#note textarea")
    return wait(lambda: (line := box.get_attribute("value")) and part in line and line)


def test_a_dropped_picture_shows_its_joints_without_a_network(opened, tmp_path):
    driver, address = opened
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    find(driver, "#show_heatmaps input").click()
    find(driver, "#threshold textarea, #threshold input").send_keys("0.01")
    find(driver, "#picture input[type=file]").send_keys(str(tmp_path / "a.png"))
    assert note(driver, "joints are").startswith("1 person; joints are drawn from a score of 0.01 on.")
    *_, found = service.Service(tmp_path / "alone").look(tmp_path / "a.png", service.Choice(threshold=0.01))
    shown = find(driver, "#joints img").get_attribute("src")
    with urllib.request.urlopen(shown) as file:
        assert (np.asarray(Image.open(file).convert("RGB")) == np.asarray(Image.open(found.overlay))).all()
    find(driver, "#json").click()
    taken = driver.downloads / "predictions.json"
    wait(taken.is_file)
    assert json.loads(taken.read_text()) == json.loads(found.json.read_text())
    assert "160 x 100 px at (0, 0)" in find(driver, "#people").text
    assert find(driver, "#heatmaps img")
    log = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in log if one["method"] == "Network.requestWillBeSent"]
    elsewhere = {url for url in asked if not url.startswith((address, "data:", "blob:", "chrome"))}
    assert len(asked) > 10 and not elsewhere
    assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def test_errors_take_one_line_and_uploads_are_limited(opened, tmp_path):
    driver, _ = opened
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "large.png").write_bytes(bytes(60_000))
    upload = find(driver, "#picture input[type=file]")
    upload.send_keys(str(tmp_path / "bad.png"))
    line = note(driver, "Error")
    assert line == "Error: bad.png: not a picture that can be read (of an unknown kind)"
    driver.refresh()
    find(driver, "#picture input[type=file]").send_keys(str(tmp_path / "large.png"))
    assert "maximum" in wait(lambda: driver.find_element("css selector", ".toast-wrap, .toast-body").text)


def test_the_page_plays_a_video_with_its_joints(opened, tmp_path):
    pytest.importorskip("av")
    driver, _ = opened
    with videos.writing(tmp_path / "a.mp4", Fraction(25)) as write:
        for _ in range(12):
            write(IMAGE)
    tabs = wait(lambda: driver.find_elements("css selector", "[role=tab]"))
    next(tab for tab in tabs if tab.text == "Video").click()
    find(driver, "#video input[type=file]").send_keys(str(tmp_path / "a.mp4"))
    assert "1 person in 12 frames" in note(driver, "joints are")
    video = find(driver, "#played video")
    assert wait(lambda: driver.execute_script("return arguments[0].duration", video)) == pytest.approx(0.48)
