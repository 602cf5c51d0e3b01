"""The pages in a real browser: nothing is printed as an error, and every control does what it says."""

import pytest
from commands import ran
from pages import opened, works

SMALL = (
    "--hidden 12 --embedding 5 --batch 4 --window 8 --steps 20 --report-every 5 --validate-every 10 --sample-every 10"
)


@pytest.fixture
def text_page(text_file, capsys):
    ran(capsys, "train", "text", text_file, *SMALL.split(), "--sample-length", "30")
    ran(capsys, "show", "runs/text")
    return text_file.parent / "runs/text/show.html"


def test_every_control_of_a_text_run_works(text_page, browser):
    with opened(browser, text_page) as page:
        found = works(page)
        assert found["select"] == 3  # what tints, which unit, which graph
        assert found["input"] == 1


def test_the_slider_goes_through_the_samples(text_page, browser):
    with opened(browser, text_page) as page:
        steps, lines = [], []
        for at in "012":
            page.get_by_label("what it wrote at").fill(at)
            steps.append(page.locator("#sample-step").inner_text())
            lines.append(float(page.locator("#marker").get_attribute("x1")))
        assert steps == ["step 0", "step 10", "step 20"]
        assert lines == sorted(set(lines))


def test_the_text_is_read_by_mouse_and_by_keys(text_page, browser):
    with opened(browser, text_page) as page:
        text, said = page.locator("#reading"), page.locator("#expected")
        count = text.locator("span").count()
        text.focus()
        text.press("End")
        assert said.inner_text().startswith(f"{count:,} of {count:,}".replace(",", ""))
        text.press("ArrowLeft")
        assert said.inner_text().startswith(f"{count - 1} of ")
        text.locator("span").nth(3).hover()
        assert said.inner_text().startswith("4 of ")
        assert "expected next" in said.inner_text()
        assert text.locator("span.at").count() == 1


def test_units_states_and_surprise_tint_the_text(text_page, browser):
    with opened(browser, text_page) as page:
        tints = {}
        for name in ("surprise", "layer 1 h", "layer 1 forget_gate"):
            page.get_by_label("tint by").select_option(name)
            tints[name] = page.locator("#reading span").evaluate_all("all => all.map(s => s.style.background).join()")
            assert page.locator("#unit").is_disabled() == (name == "surprise")
        assert len(set(tints.values())) == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_told_from_the_paper(text_page, browser, scheme):
    with opened(browser, text_page, color_scheme=scheme) as page:
        ink, paper = page.evaluate(
            "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
        )
        light, dark = sorted(sum(map(int, c[4:-1].split(","))) / 765 for c in (ink, paper))[::-1]
        assert light > 0.85
        assert dark < 0.15
        assert (paper < ink) == (scheme == "dark") or len(paper) != len(ink)


def test_markup_in_a_text_never_runs(here, capsys, browser):
    bad = '</script><script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)> & "q" <!-- \n'
    (here / "bad<b>.txt").write_text(bad * 60)
    ran(capsys, "train", "text", "bad<b>.txt", *SMALL.split(), "--run", "a<img src=x onerror=alert(4)>b")
    ran(capsys, "show", "a<img src=x onerror=alert(4)>b", "--out", "page.html")
    with opened(browser, here / "page.html") as page:
        works(page)
        assert page.locator("img").count() == 0
        assert page.locator("script:not([type])").count() == 1
        assert "onerror=alert(2)" in page.locator("#reading").inner_text()


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("classify", "--hidden 4 --steps 2"),
        ("regress", "--hidden 4 --steps 2 --quantiles 0.1,0.5,0.9"),
        ("regress", "--recipe sine-cosine --steps 12"),
        ("tag", "--hidden 4 --steps 2"),
        ("translate", "--hidden 4 --steps 2"),
        ("transcribe", "--hidden 4 --steps 2"),
        ("caption", "--hidden 4 --steps 2"),
    ],
)
def test_every_control_of_every_task_works(here, capsys, browser, task, words):
    ran(capsys, "train", task, *words.split(), "--run", "run")
    ran(capsys, "show", "run")
    with opened(browser, here / "run/show.html") as page:
        assert sum(works(page).values()) >= 1
        assert page.locator("svg").count() >= 2


def test_every_control_of_a_graph_works(here, capsys, browser):
    ran(capsys, "graph", "lstm")
    with opened(browser, here / "graph.html") as page:
        assert works(page)["select"] == 1
        assert page.locator("svg:visible").count() == 1


def test_on_paper_all_choices_are_seen(here, capsys, browser):
    ran(capsys, "graph", "gru")
    with opened(browser, here / "graph.html") as page:
        page.emulate_media(media="print")
        assert page.locator("svg:visible").count() == page.locator("svg").count() == 3
