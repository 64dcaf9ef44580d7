"""The documentation as a site: built strictly, complete, without other hosts, with a search that needs no server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.pages import ROOT

pytestmark = pytest.mark.slow
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_page_of_the_repository_is_on_the_site(site):
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/pages/*.md")]
    there = {path.relative_to(site).with_suffix(".md").as_posix() for path in site.rglob("*.html")}
    expected = {page.relative_to(ROOT).as_posix().replace("docs/README", "docs/index") for page in pages}
    assert expected - there == set()
    assert "checkfree_plus" in (site / "docs" / "scenario.html").read_text(encoding="utf-8")


def test_the_library_page_has_every_public_name(site):
    import churnlab

    page = (site / "docs" / "api.html").read_text(encoding="utf-8")
    assert [name for name in churnlab.__all__ if f'id="churnlab.{name}"' not in page] == []


def test_pages_load_nothing_from_other_hosts(site):
    loads = re.compile(
        r"""<(?:script|img|iframe)[^>]*src="https?:|<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*https?:"""
    )
    assert [path.name for path in site.rglob("*.html") if loads.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine")
def test_search_works_from_the_disk(site, tmp_path):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        driver.set_window_size(1400, 1000)
        driver.get((site / "docs" / "choosing.html").as_uri())
        field = driver.find_element(By.CSS_SELECTOR, "input.md-search__input")
        field.click()
        field.send_keys("redundant computation")
        found = WebDriverWait(driver, 30).until(lambda d: d.find_elements(By.CSS_SELECTOR, ".md-search-result__item"))
        assert found
    finally:
        driver.quit()
