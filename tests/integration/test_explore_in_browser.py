"""The page to explore in a real browser: sliders, keyboard, a bad value, a server that has ended, screen and dark."""

import pytest
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By

from support.browser import CHROMIUM, DRIVER, chromium, look, press, settled
from support.explored import served

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with served(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def page(browser, site):
    look(browser, 1280, "light")
    browser.get(site.address)
    settled(browser, lambda: answers(browser) == 1, 30)
    return browser


def answers(driver) -> int:
    return int(driver.find_element(By.TAG_NAME, "html").get_attribute("data-answered") or 0)


def text(driver, name) -> str:
    return driver.find_element(By.ID, name).text


def test_keys_on_a_slider_change_figures_table_and_command(page):
    before = {name: page.find_element(By.ID, name).get_attribute("innerHTML") for name in ("loss", "ledger", "rows")}
    assert all("<path" in before[name] for name in ("loss", "ledger"))
    press(page, Keys.TAB)
    assert page.switch_to.active_element.get_attribute("id") == "slider-0"
    press(page, *4 * [Keys.ARROW_RIGHT])
    rate = page.find_element(By.ID, "value-0").get_attribute("value")
    settled(page, lambda: f"--set failures.rate_per_hour={rate}" in text(page, "command"), 30)
    for name, old in before.items():
        settled(page, lambda name=name, old=old: page.find_element(By.ID, name).get_attribute("innerHTML") != old)
    page.find_element(By.CSS_SELECTOR, "button.reset").click()
    settled(page, lambda: text(page, "command") == "churnlab run tiny.yaml", 30)
    assert [entry for entry in page.get_log("browser") if entry["level"] != "INFO"] == []


def test_a_bad_value_is_said_and_a_good_one_mends_it(page):
    typed = page.find_element(By.ID, "value-0")
    for value in ("7", ""):
        typed.clear()
        typed.send_keys(value, Keys.TAB)
        settled(page, lambda: page.find_element(By.ID, "error").is_displayed(), 30)
        assert "Chance of a failure" in text(page, "error") or "chance of a failure" in text(page, "error")
        assert text(page, "verdict")
        typed.clear()
        typed.send_keys("0.2", Keys.TAB)
        settled(page, lambda: not page.find_element(By.ID, "error").is_displayed(), 30)
    assert "failures.rate_per_hour=0.2" in text(page, "command")


def test_nothing_is_too_wide_and_dark_is_dark(page):
    for width, scheme in ((1280, "dark"), (360, "light")):
        look(page, width, scheme)
        page.refresh()
        settled(page, lambda: answers(page) == 1, 30)
        whole, window = page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert whole <= window
        ground = page.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
        assert ground == ("rgba(20, 23, 27, 1)" if scheme == "dark" else "rgba(255, 255, 255, 1)")


def test_every_control_has_a_name(page):
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    assert [one for one in named if one[0] in ("slider", "spinbutton", "button", "region") and not one[1]] == []
    assert sum(role == "slider" for role, _ in named) == 3


def test_a_server_that_has_ended_is_said(browser, tmp_path):
    with served(tmp_path, "--no-training") as found:
        browser.get(found.address)
        settled(browser, lambda: answers(browser) == 1, 30)
        assert browser.find_elements(By.ID, "loss") == []
        assert found.interrupted()[0] == 0
    browser.find_element(By.CSS_SELECTOR, "button.reset").click()
    settled(browser, lambda: "the server in the terminal has ended" in text(browser, "error"))
