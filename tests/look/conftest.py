"""A real browser to open pages in."""

import shutil

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, where there is one."""
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine: pages were not opened")
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pages were not opened")
    with api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()
