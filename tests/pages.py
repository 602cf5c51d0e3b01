"""A page in a real browser: opened from the disk, its errors gathered, its controls moved."""

from contextlib import contextmanager

CONTROLS = "select, input, button, [tabindex]"
NAMELESS = """controls => controls.filter(c => !(c.labels?.length || c.textContent.trim() || c.ariaLabel)).length"""


@contextmanager
def opened(browser, path, **how):
    """The page at a path, at the end of which it must have met no error, no request and no dialog."""
    page, met = browser.new_page(**how), []
    page.on("console", lambda message: met.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: met.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (met.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or met.append(request.url))
    page.goto(path.absolute().as_uri())
    yield page
    page.close()
    assert met == []


def moved(page, control, values):
    """What is seen of the section of a control at each of its values."""
    section = control.locator("xpath=ancestor::section")
    seen = []
    for value in values:
        if control.evaluate("c => c.tagName") == "SELECT":
            control.select_option(value)
        else:
            control.fill(value)
        seen.append(
            section.evaluate("s => [s.innerText, s.innerHTML, ...[...s.querySelectorAll('select')].map(c => c.value)]")
        )
    return seen


def works(page):
    """Every control of a page has a name and does something; how many there are, by tag."""
    assert page.locator(CONTROLS).evaluate_all(NAMELESS) == 0
    for select in page.locator("select:enabled").all():
        values = select.locator("option").evaluate_all("all => all.map(o => o.value)")
        before = select.input_value()
        seen = moved(page, select, [before, *values[:6], before])
        assert len({str(s) for s in seen}) >= min(2, len(values)), f"a list without effect: {values[:3]}"
        select.select_option(before)
    for slider in page.locator("input[type=range]").all():
        least, most = slider.get_attribute("min"), slider.get_attribute("max")
        if least != most:
            seen = moved(page, slider, [least, most, least])
            assert seen[0] == seen[2] != seen[1], "a slider without effect"
    for button in page.locator("button[data-unit]").all():
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
    for button in page.locator("button.play").all():
        box = button.locator("xpath=..")
        at = box.locator("output").inner_text()
        button.click()
        page.wait_for_function("([o, at]) => o.textContent !== at", arg=[box.locator("output").element_handle(), at])
        button.click()
        assert button.inner_text() == "play"
    return {tag: page.locator(tag).count() for tag in ("select", "input", "button")}
