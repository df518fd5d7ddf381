"""The report in a real browser: hostile names, phones and dark pages, pointer, finger and keyboard, what is missing."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures import NEAR
from analysis.paper import published
from analysis.report import page
from analysis.representations import SIMILARITY
from analysis.tables import RESULTS, Tables, names

ROOT = Path(__file__).parent.parent
SCRIPT = "<script>window.hacked=1</script>"
IMAGE = '"><img src=x onerror=window.hacked=1>'
DATASET = f"D {SCRIPT} {IMAGE} & 'x' {{{{ 7 * 7 }}}}"
SPLIT = f"{IMAGE}\n{SCRIPT} a & b 'c' \"d\" #222222 url(#e)"
CLASSES = [SCRIPT, IMAGE, "a & b", 'it\'s "quoted"', "two\nlines", "</p></details>"]
FIGURES = {"accuracy", "distance", "decomposition", "volume", "filters", "similarity", "curves"}
WIDTHS = (360, 768, 1280)
NO_SERVICES = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]

# Of every text outside charts: its contrast with what is behind it (WCAG 2), as [contrast, text].
CONTRASTS = """() => {
  const rgb = colour => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const up = function* (e) { for (; e; e = e.parentElement) yield getComputedStyle(e); };
  const light = c => [.2126, .7152, .0722].reduce((sum, w, i) => {
    const s = c[i] / 255; return sum + w * (s <= .04045 ? s / 12.92 : ((s + .055) / 1.055) ** 2.4); }, 0);
  return [...document.querySelectorAll("body, body *:not(svg, svg *, script)")].filter(e =>
    e.checkVisibility({visibilityProperty: true}) && [...e.childNodes].some(t => t.nodeType == 3 && t.data.trim())
  ).map(e => {
    const behind = [...up(e)].map(style => rgb(style.backgroundColor)).find(c => c[3] > 0);
    const solid = [...up(e)].reduce((product, style) => product * style.opacity, 1);
    const ink = rgb(getComputedStyle(e).color).map((c, i) => c * solid + behind[i] * (1 - solid));
    const [low, high] = [light(ink), light(behind)].sort((a, b) => a - b);
    return [(high + .05) / (low + .05), e.textContent.trim().slice(0, 60)];
  });
}"""
# Texts of one chart that lie on each other, or outside it.
COLLISIONS = """() => [...document.querySelectorAll("svg.chart")].flatMap(chart => {
  const texts = [...chart.querySelectorAll("text")].filter(t => t.textContent.trim() && t.checkVisibility());
  const boxes = texts.map(t => t.getBoundingClientRect()), found = [], whole = chart.getBoundingClientRect();
  const name = chart.getAttribute("aria-label").slice(-60);
  const shared = (p, q) => [Math.min(p.right, q.right) - Math.max(p.left, q.left),
                            Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top)];
  boxes.forEach((p, i) => {
    const [width, height] = shared(p, whole);
    if (width < p.width - 1 || height < p.height - 1) found.push([name, "cut", texts[i].textContent]);
    boxes.slice(0, i).forEach((q, j) => {
      if (Math.min(...shared(p, q)) > 1) found.push([name, texts[j].textContent, texts[i].textContent]);
    });
  });
  return found;
})"""
# The marks of the first chart of figure accuracy that nothing covers: [middle x, middle y, its tooltip].
UNCOVERED = """() => [...document.querySelector("#accuracy svg.chart").querySelectorAll("[data-tip]")].map(mark => {
  const {x, y, width, height} = mark.getBoundingClientRect(), middle = [x + width / 2, y + height / 2];
  return [...middle, mark.dataset.tip, document.elementFromPoint(...middle) === mark];
}).filter(mark => mark[3])"""
TIP = """() => {
  const {left, top, right, bottom} = tip.getBoundingClientRect(), inside =
    left >= 0 && top >= 0 && right <= document.documentElement.clientWidth && bottom <= innerHeight;
  return getComputedStyle(tip).visibility === "visible" ? [tip.textContent, inside] : null;
}"""


def made_up() -> Tables:
    """A study of hostile names that has every figure: a part of the paper's numbers, with tables made up around it."""
    study = published().results
    study = study[study.split.isin(["random-0", "natural-manmade", "all"])].reset_index(drop=True)
    user, done = study.split == "random-0", study.state == "done"
    study = study.assign(dataset=DATASET, split=study.split.where(~user, SPLIT), run=[f"run-{i}" for i in study.index])
    study["split_kind"] = study.split_kind.where(~user, "user")
    study = study.assign(val_loss=1.5, train_loss=1.25, seconds=1.0)
    about = published().about | {"title": DATASET, "published": False, "statistic": "top1"}
    about["dataset"] = {"name": DATASET, "classes": 1000, "class_names": CLASSES}
    curves = [
        {"run": row.run, "step": step, "lr": 0.1, "train_loss": 9 / step, "val_loss": 8 / step, "val_top1": row.top1}
        for row in study[done].itertuples()
        for step in (10, 20)
    ]
    pixels = np.indices((3, 4, 5, 5)).reshape(4, -1).T
    filters = pd.DataFrame(pixels, columns=["network", "filter", "row", "column"]).assign(split=SPLIT, seed=0)
    filters["network"] = np.array(["baseA", "baseB", "untrained"])[filters.network]
    filters[["red", "green", "blue"]] = pixels[:, 1:] - 2.2
    pairs = [(SPLIT, "bases"), (SPLIT, "untrained"), ("natural-manmade", "bases"), (SPLIT, "other seed")]
    similarity = [
        dict.fromkeys(SIMILARITY, 0) | {"split": split, "pair": pair, "layer": layer, "cka": 1 - layer / 9}
        for split, pair in pairs
        for layer in range(1, 8)
    ]
    return Tables(about, study[RESULTS], pd.DataFrame(curves), filters, pd.DataFrame(similarity))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The made-up study as it lies on the disk."""
    folder = tmp_path_factory.mktemp("report") / "study"
    made_up().write(folder)
    return folder


@pytest.fixture(scope="module")
def studies(folder):
    every = published()
    bases = every.results[(every.results.treatment == "base") & (every.results.split != "all")]
    return {"paper": every, "made up": Tables.read(folder), "bases": Tables(every.about | {"published": False}, bases)}


@pytest.fixture(scope="module")
def pages(studies, tmp_path_factory):
    """The HTML files."""
    paths = {name: tmp_path_factory.mktemp("pages") / "page.html" for name in studies}
    for name, path in paths.items():
        path.write_text(page(studies[name]), encoding="utf-8")
    return paths


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = [p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p]
    if not found:
        pytest.skip("no chromium or chrome on the PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found[0], args=["--no-sandbox", "--disable-gpu", *NO_SERVICES])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def visit(chromium, pages):
    """visit(study, width, ...): the page in a context of its own; on leaving nothing may have gone wrong on it."""

    @contextmanager
    def open_page(name, width=1280, **options):
        context = chromium.new_context(viewport={"width": width, "height": 720}, offline=True, **options)
        tab, requests, faults = context.new_page(), [], []
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto(pages[name].as_uri())
        yield tab
        assert tab.evaluate("typeof window.hacked") == "undefined"
        assert [url for url in requests if not url.startswith("data:")] == [pages[name].as_uri()]
        assert faults == []
        context.close()

    return open_page


@pytest.mark.parametrize("name", ["paper", "made up", "bases"])
def test_a_page_is_drawn_or_says_why_not(visit, name):
    with visit(name) as tab:
        drawn = set(tab.eval_on_selector_all("figure", "all => all.map(f => f.id)"))
        absent = tab.eval_on_selector_all("#missing li", "all => all.map(li => li.textContent)")
    reasons = dict(line.removeprefix("No figure ").split(": ") for line in absent)
    assert drawn - {"design"} | set(reasons) == FIGURES and not drawn & set(reasons)
    assert all(len(why) > 15 for why in reasons.values())
    wanted = {"made up": FIGURES, "bases": set(), "paper": FIGURES - {"filters", "similarity", "curves"}}
    assert drawn == wanted[name] | {"design"}


def test_hostile_names_are_text(visit):
    with visit("made up") as tab:
        text = tab.evaluate("document.body.textContent")
        assert f"dataset {DATASET}." in text and ", ".join(CLASSES) in text
        assert f"splits {SPLIT}, all, natural-manmade" in text
        assert DATASET in tab.title()
        labels = tab.eval_on_selector_all("#accuracy svg.chart", "all => all.map(c => c.ariaLabel)")
        assert len(labels) == 2 and all(DATASET in label for label in labels)
        assert tab.evaluate("document.querySelectorAll('img, body script').length") == 1  # the page's own script


def test_equal_tables_give_equal_text(folder, pages):
    """In another process, where sets of strings have another order."""
    command = [sys.executable, "-m", "analysis.report", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PYTHONHASHSEED": "1"})
    assert (folder / "report.html").read_bytes() == pages["made up"].read_bytes()


@pytest.mark.parametrize("name", ["paper", "made up"])
def test_the_page_names_every_missing_network(visit, studies, name):
    results = studies[name].results
    missing = results[results.state == "missing"]
    assert len(missing) == {"paper": 22, "made up": 7}[name]
    with visit(name) as tab:
        text = tab.text_content("#missing p")
        assert f"{len(missing)} of {len(results)} networks are missing" in tab.text_content("#question .warning")
    assert text == f"{len(missing)} networks: {', '.join(names(missing))}."
    assert all(f"{row.split} {row.cell}" in text for row in missing.itertuples())


@pytest.mark.parametrize("name", ["paper", "made up"])
def test_both_themes_fit_every_width_and_are_readable(visit, name):
    seen = {}
    for scheme in ("light", "dark"):
        for width in WIDTHS:
            with visit(name, width, color_scheme=scheme) as tab:
                sizes = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
                for _ in range(2):  # as it opens, and with everything unfolded
                    needed, there = tab.evaluate(sizes)
                    assert needed <= there, (scheme, width)
                    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        with visit(name, color_scheme=scheme) as tab:
            verdicts = ["supported", "contradicted", "inconclusive", "not-tested"]
            tab.evaluate(  # every verdict there is, whatever the study's are
                "all => document.querySelectorAll('.claims .verdict').forEach((v, i) => "
                "v.className = 'verdict ' + all[i % 4])",
                verdicts,
            )
            style = "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
            seen[scheme] = tab.evaluate(style)
            contrasts = tab.evaluate(CONTRASTS)
        assert len(contrasts) > 100
        assert min(contrasts)[0] >= 4.5, min(contrasts)
        body = next(ratio for ratio, text in contrasts if text.startswith("The first layer of a network"))
        assert body >= 7
    assert all(light != dark for light, dark in zip(seen["light"], seen["dark"], strict=True))


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["paper", "made up"])
def test_texts_of_a_chart_do_not_overlap(visit, name, width):
    with visit(name, width) as tab:
        assert tab.evaluate(COLLISIONS) == []
        assert tab.locator("svg.chart text").count() > 100


def test_a_mark_is_a_finished_network_and_its_tip_the_value_in_the_table(visit, studies):
    for name in ("paper", "made up"):
        shown = studies[name].networks
        shown = shown[shown.split_kind.isin(NEAR) & (shown.treatment != "RnB") & (shown.state == "done")]
        wanted = [f"{row.cell}, {row.split}, seed {row.seed}: {row.accuracy:.3f}" for row in shown.itertuples()]
        with visit(name) as tab:
            marks = tab.locator("#accuracy svg.chart").first.locator("[data-tip]")
            tips = marks.evaluate_all("all => all.map(mark => mark.dataset.tip)")
        assert len(tips) == {"paper": 112, "made up": 37}[name]
        assert sorted(tips) == sorted(wanted)


@pytest.mark.parametrize("width", [360, 1280])
def test_pointing_at_a_mark_shows_its_value(visit, width):
    with visit("made up", width) as tab:
        tab.locator("#accuracy svg.chart").first.scroll_into_view_if_needed()
        marks = tab.evaluate(UNCOVERED)
        assert len(marks) > 25
        for x, y, text, _ in marks[::4]:
            tab.mouse.move(x, y)
            assert tab.evaluate(TIP) == [text, True]
            tab.mouse.move(0, 0)
            assert tab.evaluate(TIP) is None
        tab.mouse.move(*marks[0][:2])
        tab.keyboard.press("Escape")
        assert tab.evaluate(TIP) is None


def test_touching_a_mark_shows_its_value(visit):
    with visit("made up", 360, has_touch=True, is_mobile=True) as tab:
        tab.locator("#accuracy svg.chart").first.scroll_into_view_if_needed()
        marks = tab.evaluate(UNCOVERED)
        for x, y, text, _ in marks[::6]:
            tab.touchscreen.tap(x, y)
            assert tab.evaluate(TIP) == [text, True]
        right = max(marks)
        tab.touchscreen.tap(right[0] + 12, right[1])  # a finger is not that exact
        assert tab.evaluate(TIP) == [right[2], True]
        tab.locator("#accuracy figcaption").tap()
        assert tab.evaluate(TIP) is None


def test_the_keyboard_reaches_every_chart_and_walks_its_marks(visit):
    with visit("made up", 360) as tab:
        charts = tab.evaluate(
            "[...document.querySelectorAll('svg.chart')].filter(c => c.querySelector('[data-tip]')).length"
        )
        reached = []
        for _ in range(200):
            tab.keyboard.press("Tab")
            kind, index, outline, width = tab.evaluate(
                """() => { const at = document.activeElement, {outlineStyle, outlineWidth} = getComputedStyle(at);
                return [at.tagName, [...document.querySelectorAll("svg.chart")].indexOf(at), outlineStyle,
                parseFloat(outlineWidth)]; }"""
            )
            if kind == "BODY":
                break
            assert outline == "solid" and width >= 2
            if kind == "svg":
                reached.append(index)
        assert len(reached) == charts > 20 and reached == sorted(set(reached))
        for index in (reached[0], reached[1], reached[-1]):
            chart = tab.locator("svg.chart").nth(index)
            tips = chart.locator("[data-tip]").evaluate_all("all => all.map(mark => mark.dataset.tip)")
            chart.focus()
            tab.wait_for_function(
                "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
            )
            for text in [*tips, tips[0]]:
                tab.keyboard.press("ArrowRight")
                assert tab.evaluate(TIP) == [text, True]
            tab.keyboard.press("ArrowLeft")
            assert tab.evaluate(TIP) == [tips[-1], True]
            tab.keyboard.press("Escape")
            assert tab.evaluate(TIP) is None


@pytest.mark.parametrize("name", ["paper", "made up", "bases"])
def test_the_page_is_well_formed_for_a_screen_reader(visit, name):
    with visit(name) as tab:
        levels = tab.eval_on_selector_all("h1, h2, h3, h4, h5, h6", "all => all.map(h => +h.tagName[1])")
        assert levels.count(1) == 1 and levels[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert tab.get_attribute("html", "lang") == "en"
        charts = (
            "all => all.map(c => [c.getAttribute('role'), c.ariaLabel, !!c.closest('figure').querySelector('table')])"
        )
        for role, label, table in tab.eval_on_selector_all("svg.chart", charts):
            assert role == "img" and len(label) > 20 and ("table below" in label) == table
        heads = "all => all.map(t => [t.querySelectorAll('th').length, t.querySelectorAll('th:not([scope])').length])"
        tables = tab.eval_on_selector_all("table", heads)
        assert len(tables) >= 4 and all(cells > 0 and unscoped == 0 for cells, unscoped in tables)
        ids = tab.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
        assert len(ids) == len(set(ids)) > 5
        targets = tab.evaluate(
            """() => [...document.querySelectorAll("*")].flatMap(e => [...e.attributes])
            .flatMap(({name, value}) => /href$/.test(name) ? [value] : /tip|label/.test(name) ? [] :
              [...value.matchAll(/url\\(([^)]*)\\)/g)].map(match => match[1]))
            .filter(link => !link.startsWith("data:"))"""
        )
        assert len(targets) > 8 and set(targets) <= {f"#{one}" for one in ids}
