"""The documentation as a site: built strictly, complete, without other hosts, with a search that needs no server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from support.browser import CHROMIUM, DRIVER, chromium, look, settled
from support.pages import ROOT

pytestmark = pytest.mark.slow


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
def test_search_and_copying_work_from_the_disk(site, tmp_path):
    with chromium(tmp_path) as driver:
        look(driver, 1400, "light")
        driver.get((site / "docs" / "choosing.html").as_uri())
        buttons = driver.find_elements(By.CSS_SELECTOR, ".md-code__button[data-md-type=copy]")
        assert len(buttons) == len(driver.find_elements(By.CSS_SELECTOR, "article pre"))
        driver.execute_script("arguments[0].click()", buttons[0])
        settled(driver, lambda: "Copied" in driver.find_element(By.CSS_SELECTOR, ".md-dialog").text)
        field = driver.find_element(By.CSS_SELECTOR, "input.md-search__input")
        field.click()
        field.send_keys("redundant computation")
        settled(driver, lambda: driver.find_elements(By.CSS_SELECTOR, ".md-search-result__item"), 30)


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine")
def test_colours_follow_the_system_on_every_visit(site, tmp_path):
    with chromium(tmp_path) as driver:
        for scheme, expected in (("light", "default"), ("dark", "slate"), ("light", "default")):
            look(driver, 1400, scheme)
            driver.get((site / "docs" / "choosing.html").as_uri())
            body = driver.find_element(By.TAG_NAME, "body")
            settled(driver, lambda body=body, expected=expected: body.get_attribute("data-md-color-scheme") == expected)


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine")
def test_tables_are_not_clipped_on_a_wide_screen(site, tmp_path):
    wide = """return [...document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset__table")]
        .filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText.slice(0, 80))"""
    with chromium(tmp_path) as driver:
        look(driver, 1400, "light")
        for page in sorted([*site.glob("docs/*.html"), *site.glob("notebooks/pages/*.html")]):
            driver.get(page.as_uri())
            assert (page.name, driver.execute_script(wide)) == (page.name, [])
