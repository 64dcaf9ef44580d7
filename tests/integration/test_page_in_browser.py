"""The report in a real browser without network: it draws, follows controls, keyboard, screen and dark."""

import json
import re
from collections.abc import Iterator
from itertools import product

import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from sim.reporting.html.page import report_page
from support.browser import CHROMIUM, DRIVER, chromium, look, press, settled
from support.reports import TWO_FIELDS, a_sweep

CHARTS = ("loss-time", "loss-iteration", "hours", "ledger", "usd")
WCAG_AA = 4.5

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine")


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(report_page(a_sweep(folder, TWO_FIELDS)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    """One browser for all, without network."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        driver.get("about:blank")
        driver.get_log("performance")  # of the browser's own first page
        yield driver


@pytest.fixture
def page(browser, page_path) -> webdriver.Chrome:
    """The page, wide and light, with all its charts drawn."""
    look(browser, 1280, "light")
    browser.get(page_path.as_uri())
    WebDriverWait(browser, 20, 0.02).until(
        lambda driver: driver.find_element(By.TAG_NAME, "html").get_attribute("data-drawn") == str(len(CHARTS))
    )
    return browser


def drawing(driver: webdriver.Chrome, chart: str) -> list[str]:
    """All of a chart that has a place, its marks and its labels: what changes if the chart does."""
    script = "return [...document.querySelectorAll(arguments[0])].map(one => one.outerHTML).sort()"
    return list(driver.execute_script(script, f"#{chart} svg .role-mark [d], #{chart} svg .role-axis-label text"))


def lines(driver: webdriver.Chrome, chart: str) -> set[str]:
    """The colours of a chart's lines."""
    found = driver.find_elements(By.CSS_SELECTOR, f"#{chart} svg .mark-line path[d]:not([d=''])")
    return {str(path.get_attribute("stroke")) for path in found}


def focused(driver: webdriver.Chrome) -> WebElement:
    return driver.switch_to.active_element


# ---- it draws, alone -----------------------------------------------------------------------------
def test_it_opens_offline_with_an_empty_console(browser, page_path, page):
    assert [entry for entry in page.get_log("browser") if entry["level"] != "INFO"] == []
    requests = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = {one["params"]["request"]["url"] for one in requests if one["method"] == "Network.requestWillBeSent"}
    assert page_path.as_uri() in urls
    assert {url.partition(":")[0] for url in urls} <= {"file", "data"}


def test_every_chart_is_filled_with_marks_and_described(page):
    for chart, marks in (
        ("loss-time", "mark-line"), ("loss-time", "mark-area"), ("loss-iteration", "mark-line"),
        ("hours", "mark-symbol"), ("hours", "mark-rule"), ("ledger", "mark-rect"), ("usd", "mark-symbol"),
    ):  # fmt: skip
        found = page.find_elements(By.CSS_SELECTOR, f"#{chart} svg .{marks} :is(path[d]:not([d='']), line)")
        rects = [one.rect for one in found]
        assert len(found) >= 3
        width = max(one["x"] + one["width"] for one in rects) - min(one["x"] for one in rects)
        assert width > 0.4 * page.find_element(By.ID, chart).rect["width"]
    for chart in CHARTS:
        caption = page.find_element(By.CSS_SELECTOR, f"#{chart} ~ figcaption").text
        drawn = page.find_element(By.CSS_SELECTOR, f"[id='{chart}'] [role='graphics-document'], [id='{chart}'][role]")
        assert str(drawn.get_attribute("aria-label")).endswith(caption)


def test_lines_have_the_figures_colours_and_all_can_be_hidden(page):
    assert lines(page, "loss-time") == {"#000000", "#D55E00", "#009E73"}
    page.get_log("browser")
    for button in page.find_elements(By.CSS_SELECTOR, "button[data-strategy]"):
        button.click()
    settled(page, lambda: lines(page, "loss-time") == set())
    assert page.get_log("browser") == []


# ---- keyboard ------------------------------------------------------------------------------------
def test_tab_visits_everything_in_order_with_a_visible_focus(page):
    press(page, Keys.TAB)
    assert focused(page).text == "Skip to the summary"
    assert focused(page).rect["x"] >= 0
    seen = []
    for _ in range(150):
        press(page, Keys.TAB)
        one = focused(page)
        if one.tag_name == "body":
            break
        assert one.value_of_css_property("outline-style") == "solid", one.get_attribute("outerHTML")
        seen.append((one.tag_name, one.get_attribute("id") or one.text.partition("\n")[0]))
    controls = [name for tag, name in seen if tag in ("button", "select")]
    of_charts = ["no failures", "checkpointing", "CheckFree", "marks", "point", "axis", "before", "after", "seeds"]
    assert [name for name in controls if name in of_charts] == of_charts
    assert controls.count("Download CSV") == 5
    assert sum(name.startswith("Data of this chart") for _, name in seen) == len(CHARTS)
    assert ("summary", "The scenario, every default written out (YAML)") in seen


def test_enter_and_space_hide_and_show_a_strategy_in_every_chart(page):
    before = {chart: drawing(page, chart) for chart in CHARTS}
    button = page.find_element(By.XPATH, "//button[contains(., 'checkpointing')]")
    page.execute_script("arguments[0].focus()", button)
    press(page, Keys.ENTER)
    settled(page, lambda: "#D55E00" not in lines(page, "loss-time"))
    assert button.get_attribute("aria-pressed") == "false"
    settled(page, lambda: all(drawing(page, chart) != before[chart] for chart in CHARTS))
    assert page.find_element(By.ID, "status").get_attribute("textContent") == (
        "Charts show no failures, CheckFree at failure rate 50 % per hour, checkpoint interval 10 iterations."
    )
    press(page, Keys.SPACE)
    settled(page, lambda: {chart: drawing(page, chart) for chart in CHARTS} == before)
    assert button.get_attribute("aria-pressed") == "true"


def test_the_keyboard_chooses_point_and_axis_and_charts_follow(page):
    before = {chart: drawing(page, chart) for chart in CHARTS}
    page.execute_script("document.getElementById('point').focus()")
    press(page, Keys.ARROW_DOWN)
    settled(page, lambda: drawing(page, "ledger") != before["ledger"])
    assert page.execute_script("return document.getElementById('point').value") == "1"
    settled(page, lambda: drawing(page, "loss-time") != before["loss-time"])

    def ticks() -> list[str]:
        return [one.text for one in page.find_elements(By.CSS_SELECTOR, "#hours .role-axis-label text")]

    assert {"50", "90"} <= set(ticks())
    page.execute_script("document.getElementById('axis').focus()")
    press(page, Keys.ARROW_DOWN)
    settled(page, lambda: {"10", "40"} <= set(ticks()))


def test_marks_and_tooltips_are_shown_on_request(page):
    def crosses() -> int:
        return len(page.find_elements(By.CSS_SELECTOR, "#loss-time path[d^='M-']"))

    button = page.find_element(By.ID, "marks")
    assert (crosses(), button.get_attribute("aria-pressed")) == (0, "false")
    page.execute_script("arguments[0].focus()", button)
    press(page, Keys.SPACE)
    settled(page, lambda: crosses() > 3)
    target = page.find_elements(By.CSS_SELECTOR, "#hours .mark-symbol path")[0]
    ActionChains(page).move_to_element(target).perform()
    settled(page, lambda: page.find_elements(By.CSS_SELECTOR, "#vg-tooltip-element.visible"))
    told = page.find_element(By.ID, "vg-tooltip-element").text
    assert "no failures" in told
    assert re.search(r"hours to loss 4\.9:? \d\.\d\d", told)


def test_the_table_behind_a_chart_follows_the_chart(page):
    summary = page.find_element(By.CSS_SELECTOR, "#hours-data summary")
    page.execute_script("arguments[0].focus()", summary)
    press(page, Keys.ENTER)

    def cells() -> list[list[str]]:
        found = page.find_elements(By.CSS_SELECTOR, "#hours-data tbody tr")
        return [[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in found]

    settled(page, lambda: len(cells()) == 3 * 2)
    assert [row[:2] for row in cells()][:2] == [["no failures", "50"], ["checkpointing", "50"]]
    assert page.find_element(By.CSS_SELECTOR, "#hours-data caption").text == "Time to loss 4.9"
    headings = page.find_elements(By.CSS_SELECTOR, "#hours-data thead th[scope=col]")
    assert [one.text for one in headings][2] == "hours to loss 4.9"
    page.find_element(By.XPATH, "//button[contains(., 'CheckFree')]").click()
    settled(page, lambda: len(cells()) == 2 * 2)


def test_a_table_is_sorted_and_downloaded(page, tmp_path):
    def hours() -> list[str]:
        cells = page.find_elements(By.CSS_SELECTOR, "table[data-saved='Every run'] tbody td:nth-child(8)")
        return [cell.get_attribute("textContent") for cell in cells]

    head = page.find_element(By.CSS_SELECTOR, "table[data-saved='Every run'] th:nth-child(8) button")
    page.execute_script("arguments[0].focus()", head)
    for sign, order in ((1, "ascending"), (-1, "descending")):
        press(page, Keys.ENTER)
        found = [float(text) for text in hours() if text != "-"]
        assert found == sorted(found, key=lambda value, sign=sign: sign * value)
        assert head.find_element(By.XPATH, "..").get_attribute("aria-sort") == order
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.execute_script("document.querySelector('#tables .tools button').click()")
    path = tmp_path / "strategies_compared.csv"
    settled(page, path.is_file)
    table = pd.read_csv(path)
    assert set(table["strategy"]) == {"no failures", "checkpointing", "CheckFree"}
    assert table["hours to end"].dtype == float
    assert "hours to loss 4.9 (interval)" in table


# ---- the strips ----------------------------------------------------------------------------------
def titles(driver: webdriver.Chrome) -> list[str]:
    return [one.text.partition(":")[0] for one in driver.find_elements(By.CSS_SELECTOR, "#strip .strip-title")]


def test_strips_follow_strategies_seeds_and_point(page):
    losses = "Validation loss of the proxy (nats per token)"
    assert titles(page) == ["no failures", "checkpointing", "CheckFree", losses]
    page.find_element(By.XPATH, "//button[contains(., 'checkpointing')]").click()
    assert titles(page) == ["no failures", "CheckFree", losses]
    drawn = [page.find_element(By.ID, "strip").get_attribute("innerHTML")]
    for name, times in (("seeds", 1), ("point", 2)):
        page.execute_script(f"document.getElementById('{name}').focus()")
        press(page, *times * [Keys.ARROW_DOWN])
        drawn.append(page.find_element(By.ID, "strip").get_attribute("innerHTML"))
    assert len(set(drawn)) == 3


def test_the_slider_and_the_pointer_tell_what_happened(page):
    def told() -> str:
        return page.find_element(By.ID, "readout").text

    page.execute_script("document.getElementById('instant').focus()")
    press(page, Keys.HOME)
    assert "CheckFree: iteration 0; 0 lost" in told()
    page.execute_script("document.getElementById('after').focus()")
    press(page, Keys.ENTER)
    assert re.search(r"checkpointing: iteration \d+;.* 1 lost; last: S\d lost at .* back to iteration", told())
    assert page.find_element(By.ID, "instant").get_attribute("aria-valuetext").endswith(" hours")
    mark = page.find_element(By.CSS_SELECTOR, "#strip .strip-mark")
    ActionChains(page).move_to_element(mark).perform()
    settled(page, lambda: page.find_elements(By.CSS_SELECTOR, "#strip-tip.visible"))
    assert re.match(r"S\d lost at .* recovered by", page.find_element(By.ID, "strip-tip").text)


# ---- screen, dark, paper, names ------------------------------------------------------------------
CUT_OFF = """
const isOut = (box) => box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
return [...document.querySelectorAll("main *, header *, footer *")]
  .filter((one) => !one.closest(".scroll, pre, .hidden") && isOut(one.getBoundingClientRect()))
  .map((one) => one.outerHTML.slice(0, 100));
"""


def test_the_first_column_of_a_wide_table_stays(browser, page_path):
    look(browser, 400, "light")
    browser.get(page_path.as_uri())
    script = """
    const box = [...document.querySelectorAll(".scroll")].find((one) => one.scrollWidth > one.clientWidth + 100);
    box.scrollLeft = 100;
    const [first, second] = [...box.querySelectorAll("tbody tr:first-child > *")];
    const [left, one, other] = [box, first, second].map((each) => Math.round(each.getBoundingClientRect().left));
    return [one - left, other < one + first.getBoundingClientRect().width];
    """
    assert browser.execute_script(script) == [0, True]


def test_nothing_scrolls_sideways_on_a_narrow_screen(browser, page_path):
    look(browser, 360, "light")
    browser.get(page_path.as_uri())
    settled(browser, lambda: browser.find_elements(By.CSS_SELECTOR, f"html[data-drawn='{len(CHARTS)}']"))
    for details in browser.find_elements(By.TAG_NAME, "details"):
        browser.execute_script("arguments[0].open = true", details)
    whole, window = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert whole <= window
    assert browser.execute_script(CUT_OFF) == []
    for chart in CHARTS:
        assert browser.find_element(By.CSS_SELECTOR, f"#{chart} svg").rect["width"] <= 360


TEXTS = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const ground = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = parse(getComputedStyle(one).backgroundColor);
    if (colour.length < 4 || colour[3] > 0.99) return colour.slice(0, 3);
  }
  return [255, 255, 255];
};
const found = [];
for (const details of document.querySelectorAll("details")) details.open = true;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || element.closest("script, noscript, .hidden, option, svg defs")) continue;
  const style = getComputedStyle(element);
  const isDrawn = element.closest("svg") !== null;
  const ink = parse(isDrawn ? style.fill : style.color).slice(0, 3);
  found.push([walker.currentNode.data.trim().slice(0, 40), ink, ground(element)]);
}
return found;
"""


def contrast(one: list[float], other: list[float]) -> float:
    """WCAG's contrast of two colours."""

    def luminance(colour: list[float]) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in colour)]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_dark_and_light_differ_and_every_text_has_contrast(page):
    page.find_element(By.CSS_SELECTOR, "button[data-strategy]").click()  # one is switched off
    grounds = {}
    for scheme in ("light", "dark"):
        look(page, 1280, scheme)
        texts = page.execute_script(TEXTS)
        assert len(texts) > 300
        assert [text for text in texts if contrast(text[1], text[2]) < WCAG_AA] == []
        grounds[scheme] = texts[0][2]
    assert (min(grounds["light"]), max(grounds["dark"])) >= (250, 0)
    assert max(grounds["dark"]) < 40


def test_all_lines_are_visible_in_the_dark_theme(page):
    for scheme, floor in (("light", 2.8), ("dark", 3.0)):
        look(page, 1280, scheme)
        script = """return [...document.querySelectorAll('#loss-time .mark-line path')].map(
            one => getComputedStyle(one).stroke.match(/[\\d.]+/g).map(Number))"""
        ground = {"light": [255, 255, 255], "dark": [20, 23, 27]}[scheme]
        colours = page.execute_script(script)
        assert min(contrast(colour, ground) for colour in colours) > floor
        assert colours[0] == ([0, 0, 0] if scheme == "light" else [242, 242, 242])


def test_controls_and_parts_have_accessible_names(page):
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    needing = ("button", "combobox", "DisclosureTriangle", "region", "navigation", "figure", "table", "link")
    assert [one for one in named if one[0] in needing and not one[1]] == []
    for landmark, number in (("main", 1), ("banner", 1), ("contentinfo", 1), ("navigation", 1), ("combobox", 3)):
        assert sum(role == landmark for role, _ in named) == number, landmark
    assert {name for role, name in named if role == "combobox"} == {"Swept point", "Compare along", "Seeds"}
    headings = [one.tag_name for one in page.find_elements(By.CSS_SELECTOR, "h1, h2, h3")]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1


def test_paper_is_light_and_has_no_controls(page):
    look(page, 1280, "dark")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": [
        {"name": "prefers-color-scheme", "value": "dark"}]})  # fmt: skip
    body = page.find_element(By.TAG_NAME, "body")
    assert body.value_of_css_property("background-color") == "rgba(255, 255, 255, 1)"
    assert body.value_of_css_property("color") == "rgba(0, 0, 0, 1)"
    assert not page.find_element(By.CSS_SELECTOR, ".controls").is_displayed()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_scripts_in_names_do_not_run(browser, tmp_path):
    from support.reports import CURVE

    evil = "<img src=x onerror=window.hurt=1><script>window.hurt=1</script>"
    folder = a_sweep(tmp_path, f"description: '{evil}'\n{CURVE}")
    table = pd.read_parquet(folder / "runs.parquet")
    table["strategy"] = table["strategy"].replace({"checkfree": evil})
    table.to_parquet(folder / "runs.parquet")
    path = tmp_path / "report.html"
    path.write_text(report_page(folder), encoding="utf-8")
    browser.get(path.as_uri())
    settled(browser, lambda: browser.find_elements(By.CSS_SELECTOR, f"html[data-drawn='{len(CHARTS)}']"))
    for chart, name in product(CHARTS[:2], ("path", "circle")):
        for mark in browser.find_elements(By.CSS_SELECTOR, f"#{chart} .mark-symbol {name}")[:2]:
            ActionChains(browser).move_to_element(mark).perform()
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.execute_script("return window.hurt") is None
    assert browser.find_elements(By.CSS_SELECTOR, "img") == []
