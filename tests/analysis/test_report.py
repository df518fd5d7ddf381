"""The report in a real browser: hostile names, phones and dark pages, pointer, finger and keyboard,
what is missing.
"""

import html
import re
import shutil
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest

from analysis.figures import activity
from analysis.measurements.representations import ACTIVITY, SIMILARITY
from analysis.paper import published
from analysis.report import page, write_report
from analysis.tables import RESULTS, StudyResults
from tests.miniature import made_once
from transferability.files import write_atomic
from transferability.tasks.splits import SIMILAR

SCRIPT = "<script>window.hacked=1</script>"
IMAGE = '"><img src=x onerror=window.hacked=1>'
DATASET = f"D {SCRIPT} {IMAGE} & 'x' {{{{ 7 * 7 }}}} {'long' * 20}"
SPLIT = f"{IMAGE}\n{SCRIPT} a & b 'c' \"d\" #222222 url(#e)"
CLASSES = [SCRIPT, IMAGE, "a & b", 'it\'s "quoted"', "two\nlines", "</p></details>"]
FIGURES = {"accuracy", "distance", "dissimilar", "decomposition", "volume"}
# of weights, which are not published; of a base that is given
INSIDE = {"filters", "similarity", "activity", "curves", "predictors", "advice"}
FIGURES |= INSIDE
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Of every text outside charts: its contrast with what is behind it (WCAG 2), as [contrast, text].
CONTRASTS = """() => {
  const rgb = color => {
    const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const up = function* (e) { for (; e; e = e.parentElement) yield getComputedStyle(e); };
  const light = c => [.2126, .7152, .0722].reduce((sum, w, i) => {
    const s = c[i] / 255;
    return sum + w * (s <= .04045 ? s / 12.92 : ((s + .055) / 1.055) ** 2.4);
  }, 0);
  const read = e => e.checkVisibility({visibilityProperty: true}) &&
    [...e.childNodes].some(t => t.data?.trim());
  return [...document.querySelectorAll("body *:not(svg, svg *, script)")].filter(read).map(e => {
    const behind = [...up(e)].map(style => rgb(style.backgroundColor)).find(c => c[3] > 0);
    const solid = [...up(e)].reduce((product, style) => product * style.opacity, 1);
    const ink = rgb(getComputedStyle(e).color).map((c, i) => c * solid + behind[i] * (1 - solid));
    const [low, high] = [light(ink), light(behind)].sort((a, b) => a - b);
    return [(high + .05) / (low + .05), e.textContent.trim().slice(0, 60)];
  });
}"""
# Every verdict there is, whatever those of the study.
ALL_VERDICTS = """() => document.querySelectorAll(".claims .verdict").forEach((one, i) =>
  one.className = "verdict " +
    ["supported", "contradicted", "inconclusive", "not-tested"][i % 4])"""
COLOURS = (
    "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
)
# Texts of one chart that lie on each other, or partly outside it.
COLLISIONS = """() => [...document.querySelectorAll("svg.chart")].flatMap(chart => {
  const texts = [...chart.querySelectorAll("text")].filter(
    t => t.textContent.trim() && t.checkVisibility());
  const boxes = texts.map(t => t.getBoundingClientRect());
  const whole = chart.getBoundingClientRect(), all = [];
  const shared = (p, q) => [Math.min(p.right, q.right) - Math.max(p.left, q.left),
                            Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top)];
  boxes.forEach((p, i) => {
    const [width, height] = shared(p, whole);
    const found = what => all.push([chart.ariaLabel, what, texts[i].textContent]);
    if (width < p.width - 1 || height < p.height - 1) found("cut");
    boxes.slice(0, i).forEach((q, j) => {
      if (Math.min(...shared(p, q)) > 1) found(texts[j].textContent);
    });
  });
  return all;
})"""
# The marks of a chart, now in the middle of the viewport: [middle x, middle y, tooltip,
# whether nothing covers it].
MARKS = """async chart => {
  const frame = () => new Promise(requestAnimationFrame);
  chart.scrollIntoView({block: "center"});
  await frame(); await frame();  // the page has heard of it
  return [...chart.querySelectorAll("[data-tip]")].map(mark => {
    const {x, y, width, height} = mark.getBoundingClientRect();
    const middle = [x + width / 2, y + height / 2];
    return [...middle, mark.dataset.tip, document.elementFromPoint(...middle) === mark];
  });
}"""
# What the tooltip says, and whether it is inside the viewport; null if there is none.
TIP = """() => {
  const {left, top, right, bottom} = tip.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  const inside = left >= 0 && top >= 0 && right <= width && bottom <= innerHeight;
  return getComputedStyle(tip).visibility === "visible" ? [tip.textContent, inside] : null;
}"""
FOCUS = """() => {
  const at = document.activeElement, {outlineStyle, outlineWidth} = getComputedStyle(at);
  const place = [...document.querySelectorAll("svg.chart")].indexOf(at);
  return [at.tagName, place, outlineStyle, parseFloat(outlineWidth)];
}"""
# Every link, and every url(...) of an attribute.
TARGETS = """() => [...document.querySelectorAll("*")].flatMap(e => [...e.attributes]).flatMap(
  ({name, value}) => /href$/.test(name) ? [value] : /tip|label/.test(name) ? []
    : [...value.matchAll(/url\\((.*?)\\)/g)].map(m => m[1])
).filter(target => !target.startsWith("data:"))"""


def made_up() -> StudyResults:
    """A study of hostile names that has every figure: a part of the paper's numbers,
    with tables made up around it.
    """
    study = published().results
    study = study[study.split.isin(["random-0", "natural-manmade", "all"])].reset_index(drop=True)
    user = study.split == "random-0"
    study = study.assign(
        dataset=DATASET,
        split=study.split.where(~user, SPLIT),
        run=[f"run-{i}" for i in study.index],
    )
    study = study.assign(
        split_kind=study.split_kind.where(~user, "user"), val_loss=1.5, train_loss=1.25, seconds=1.0
    )
    about = published().metadata | {"title": DATASET, "published": False, "statistic": "top1"}
    about["dataset"] = {"name": DATASET, "classes": 1000, "class_names": CLASSES}
    about["tasks"] = {SPLIT: {"rule": SCRIPT, "classes": {"A": CLASSES[:2], "B": CLASSES[2:]}}}
    steps = pd.DataFrame(
        {"step": [10, 20], "train_loss": [2, 1], "val_loss": [3, 2], "val_top1": [0.2, 0.3]}
    )
    curves = study.loc[study.state == "done", ["run"]].merge(steps, how="cross")
    pixels = np.indices((3, 4, 5, 5)).reshape(4, -1).T
    filters = pd.DataFrame(pixels, columns=["network", "filter", "row", "column"]).assign(
        split=SPLIT, seed=0
    )
    filters["network"] = np.array(["baseA", "baseB", "untrained"])[filters.network]
    filters[["red", "green", "blue"]] = pixels[:, 1:] - 2.2
    pairs = [
        (SPLIT, "bases"),
        (SPLIT, "untrained"),
        ("natural-manmade", "bases"),
        (SPLIT, "other seed"),
    ]
    layers = pd.DataFrame({"layer": range(1, 8), "cka": np.linspace(0.9, 0.2, 7)})
    similarity = pd.DataFrame(pairs, columns=["split", "pair"]).merge(layers, how="cross")
    similarity = similarity.reindex(columns=SIMILARITY, fill_value=0)
    measured = pd.DataFrame(
        {"layer": range(1, 8), "cosine": np.linspace(0.8, 1, 7), "silent": 0.5, "images": 100}
    )
    activity = study.loc[study.split == "all", ["run"]].merge(measured, how="cross")
    return StudyResults(about, study[RESULTS], curves, filters, similarity, activity[ACTIVITY])


def finished() -> StudyResults:
    """The made-up study without its missing networks."""
    tables = made_up()
    tables.results = tables.results[tables.results.state == "done"]
    return tables


def bases(tables: StudyResults, missing: int = 0) -> StudyResults:
    """The bases of a study, the last of them not finished; a page of a single figure."""
    results = tables.results[
        (tables.results.treatment == "base") & (tables.results.split != "all")
    ].reset_index(drop=True)
    results.loc[len(results) - missing :, ["state", "top1"]] = ["missing", np.nan]
    return StudyResults(tables.metadata, results)


STUDIES = {
    "paper": published,
    "made up": made_up,
    "finished": finished,
    "bases": lambda: bases(
        StudyResults(published().metadata | {"published": False}, published().results)
    ),
}


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """studies(name): the folder with its tables and page.html."""

    def make(name, folder):
        STUDIES[name]().write(folder)
        (folder / "page.html").write_text(page(StudyResults.read(folder)), encoding="utf-8")

    def study(name):
        folder = f"report-{name.replace(' ', '-')}"
        return made_once(tmp_path_factory, folder, lambda folder: make(name, folder))

    return study


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = [p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p]
    if not found:
        pytest.skip("neither chromium nor google-chrome is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found[0], args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def visit(chromium, studies):
    """visit(study, width, ...): the page in a context of its own;
    on leaving nothing may have gone wrong on it.
    """

    @contextmanager
    def open_page(name, width=1280, **options):
        context = chromium.new_context(
            viewport={"width": width, "height": 720}, offline=True, **options
        )
        tab, requests, faults = context.new_page(), [], []
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("console", lambda message: faults.append(message.text))
        tab.on("pageerror", lambda error: faults.append(str(error)))
        url = (studies(name) / "page.html").as_uri()
        tab.goto(url)
        yield tab
        assert tab.evaluate("typeof window.hacked") == "undefined"
        assert [request for request in requests if not request.startswith("data:")] == [url]
        assert faults == []
        context.close()

    return open_page


@pytest.mark.browser
@pytest.mark.parametrize("name", ["paper", "made up", "bases"])
def test_a_figure_is_drawn_or_the_page_says_why_not(visit, name):
    with visit(name) as tab:
        drawn = set(tab.eval_on_selector_all("figure", "all => all.map(figure => figure.id)"))
        absent = tab.eval_on_selector_all("#missing li", "all => all.map(item => item.textContent)")
    reasons = dict(line.removeprefix("No figure ").split(": ") for line in absent)
    # it has nothing but AnB between dissimilar tasks, as the paper
    made_up = FIGURES - {"dissimilar", "predictors", "advice"}
    expected = {"made up": made_up, "paper": made_up - INSIDE, "bases": set()}[name]
    assert drawn == expected | {"design"} and set(reasons) == FIGURES - expected
    assert all(len(why) > 15 for why in reasons.values())


@pytest.mark.browser
def test_hostile_names_are_text(visit):
    with visit("made up") as tab:
        text = tab.evaluate("document.body.textContent")
        assert f"dataset {DATASET}." in text and ", ".join(CLASSES) in text and SPLIT in text
        assert DATASET in tab.title() and DATASET in tab.get_attribute(
            "#accuracy svg.chart >> nth=0", "aria-label"
        )
        assert tab.locator("img, body script").count() == 1  # the page's own script


# 6 s of a CPU: six pages
@pytest.mark.slow
def test_only_the_page_of_an_unfinished_study_loads_itself_again(tmp_path):
    """It says when it was written, and nothing else is different; what the paper lacks will not
    come.
    """
    unfinished = bases(made_up(), missing=1)
    for name, tables in (
        ("paper", bases(published(), missing=1)),
        ("made up", unfinished),
        ("finished", bases(made_up())),
    ):
        tables.write(tmp_path / name)
        text = write_report(tmp_path / name).read_text()
        assert ("refresh" in text) == (tables is unfinished), name
        if tables is unfinished:
            text = re.sub(r"Written [^.<]*\.", "Written noon.", text)
            assert text.count('<meta http-equiv="refresh" content="60; url=?">') == 1
            assert "Written noon." in text
        written = "noon" if tables is unfinished else None
        assert text == page(StudyResults.read(tmp_path / name), written), name


def test_hostile_names_are_escaped():
    """A browser shows them as they are: see test_hostile_names_are_text."""
    text = page(bases(made_up(), missing=1))
    own = page(bases(published(), missing=1))
    assert DATASET in html.unescape(text) and "A (2 classes): " in text
    assert text.count("<script") == own.count("<script") == 1 and "<img" not in text


@pytest.mark.browser
def test_whoever_reads_an_unfinished_page_goes_on_where_they_were(chromium, tmp_path):
    """It is opened again by hand, where a browser begins at the top."""
    path = tmp_path / "report.html"
    tab = chromium.new_page(viewport={"width": 1280, "height": 720})
    text = page(made_up(), "at noon")
    for written in ("at noon", "later"):
        write_atomic(path, text.replace("Written at noon", f"Written {written}"))
        tab.goto(path.as_uri())
        assert f"Written {written}" in tab.text_content(".warning")
        if written == "at noon":
            tab.locator("#run details summary").last.click()
            tab.evaluate("scrollTo(0, 1234)")
    assert tab.evaluate("scrollY") == 1234
    opened = tab.eval_on_selector_all(
        "details[open] > summary", "all => all.map(one => one.textContent)"
    )
    assert opened == ["Every network"]
    tab.close()


@pytest.mark.browser
def test_an_unfinished_page_loads_itself_again(chromium, tmp_path):
    """After a second here; also where a link of its contents was followed."""
    path = tmp_path / "report.html"
    text = page(made_up(), "at noon")
    write_atomic(path, text.replace('content="60;', 'content="1;'))
    tab = chromium.new_page()
    tab.goto(f"{path.as_uri()}#claims")
    write_atomic(path, text.replace("Written at noon", "Written later"))
    tab.wait_for_function("document.querySelector('.warning')?.textContent.includes('later')")
    tab.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", ["paper", "made up"])
def test_the_page_names_every_missing_network(visit, studies, name):
    results = StudyResults.read(studies(name)).results
    missing = results[results.state == "missing"]
    assert len(missing) == {"paper": 22, "made up": 7}[name]
    with visit(name) as tab:
        text = tab.text_content("#missing")
        assert f"{len(missing)} of {len(results)} networks" in tab.text_content(
            "#question .warning"
        )
    assert all(f"{row.split} {row.cell}" in text for row in missing.itertuples())


@pytest.mark.browser
@pytest.mark.parametrize("name", ["paper", "made up"])
def test_both_themes_fit_every_width_and_can_be_read(visit, name):
    colors = {}
    for scheme in ("light", "dark"):
        for width in (360, 768, 1280):
            with visit(name, width, color_scheme=scheme) as tab:
                for _ in range(2):  # as it opens, and unfolded
                    assert tab.evaluate(
                        "document.documentElement.scrollWidth <= "
                        "document.documentElement.clientWidth"
                    )
                    tab.evaluate(
                        "document.querySelectorAll('details').forEach(one => one.open = true)"
                    )
        with visit(name, color_scheme=scheme) as tab:
            tab.evaluate(ALL_VERDICTS)
            colors[scheme] = tab.evaluate(COLOURS)
            contrasts = tab.evaluate(CONTRASTS)
        assert len(contrasts) > 100 and min(contrasts)[0] >= 4.5, min(contrasts)
        assert (
            next(
                ratio
                for ratio, text in contrasts
                if text.startswith("The first layer of a network")
            )
            >= 7
        )
    assert all(light != dark for light, dark in zip(colors["light"], colors["dark"], strict=True))


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["paper", "made up"])
def test_texts_of_a_chart_do_not_overlap(visit, name, width):
    with visit(name, width) as tab:
        assert tab.evaluate(COLLISIONS) == []
        assert tab.locator("svg.chart text").count() > 100


@pytest.mark.browser
@pytest.mark.parametrize(("name", "count"), [("paper", 112), ("made up", 37)])
def test_every_finished_network_has_a_mark_and_its_tip_the_value_of_the_table(
    visit, studies, name, count
):
    shown = StudyResults.read(studies(name)).networks
    shown = shown[
        shown.split_kind.isin(SIMILAR) & (shown.treatment != "RnB") & (shown.state == "done")
    ]
    with visit(name) as tab:
        _, height, tips, _ = zip(*tab.eval_on_selector("#accuracy svg.chart", MARKS), strict=True)
    assert len(tips) == len(shown) == count
    assert sorted(tips) == sorted(
        f"{r.cell}, {r.split}, seed {r.seed}: {r.accuracy:.3f}" for r in shown.itertuples()
    )
    values = [float(tip.split()[-1]) for tip in tips]
    assert np.corrcoef(height, values)[0, 1] < -0.9999  # each mark lies where its tip says


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
def test_pointing_at_a_mark_shows_its_value(visit, width):
    with visit("made up", width) as tab:
        marks = [mark for mark in tab.eval_on_selector("#accuracy svg.chart", MARKS) if mark[-1]]
        assert len(marks) > 25
        for x, y, text, _ in marks[::4]:
            tab.mouse.move(x, y)
            assert tab.evaluate(TIP) == [text, True]
            ring = tab.locator("#ring").bounding_box()
            assert [ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2] == pytest.approx(
                [x, y], abs=1
            )
            tab.mouse.move(1, 1)
            assert tab.evaluate(TIP) is None
        tab.mouse.move(x, y)
        tab.keyboard.press("Escape")
        assert tab.evaluate(TIP) is None


@pytest.mark.browser
def test_touching_a_mark_shows_its_value(visit):
    with visit("made up", 360, has_touch=True, is_mobile=True) as tab:
        marks = [mark for mark in tab.eval_on_selector("#accuracy svg.chart", MARKS) if mark[-1]]
        for x, y, text, _ in marks[::6]:
            tab.touchscreen.tap(x, y)
            assert tab.evaluate(TIP) == [text, True]
        x, y, text, _ = max(marks)
        tab.touchscreen.tap(x + 12, y)  # a finger is not that exact
        assert tab.evaluate(TIP) == [text, True]
        tab.touchscreen.tap(5, 5)
        assert tab.evaluate(TIP) is None


@pytest.mark.browser
def test_the_keyboard_reaches_every_chart_and_walks_its_marks(visit):
    with visit("made up", 360) as tab:
        reached = []
        for _ in range(200):
            tab.keyboard.press("Tab")
            tag, chart, outline, width = tab.evaluate(FOCUS)
            if tag == "BODY":
                break
            assert outline == "solid" and width >= 2
            reached += [chart] if tag == "svg" else []
        assert (
            reached == sorted(set(reached))
            and len(reached) == tab.locator("svg.chart:has([data-tip])").count() > 20
        )
        for chart in (
            tab.locator("svg.chart").nth(i) for i in (reached[0], reached[1], reached[-1])
        ):
            chart.focus()
            tips = [tip for _, _, tip, _ in chart.evaluate(MARKS)]
            for text in [*tips, tips[0]]:
                tab.keyboard.press("ArrowRight")
                assert tab.evaluate(TIP) == [text, True]
            tab.keyboard.press("ArrowLeft")
            assert tab.evaluate(TIP) == [tips[-1], True]
            tab.keyboard.press("Escape")
            assert tab.evaluate(TIP) is None


@pytest.mark.browser
@pytest.mark.parametrize("name", ["paper", "made up", "bases"])
def test_the_page_is_well_formed_for_a_screen_reader(visit, name):
    with visit(name) as tab:
        assert tab.get_attribute("html", "lang") == "en"
        levels = tab.eval_on_selector_all(
            "h1, h2, h3, h4, h5, h6", "all => all.map(h => +h.tagName[1])"
        )
        assert levels.index(1) == 0 and levels.count(1) == 1 and max(np.diff(levels)) == 1
        for chart in tab.locator("svg.chart").all():
            label, role = chart.get_attribute("aria-label"), chart.get_attribute("role")
            has_table = chart.evaluate("chart => !!chart.closest('figure').querySelector('table')")
            assert role == "img" and len(label) > 20 and ("table below" in label) == has_table
        assert (
            tab.locator("table:has(th):not(:has(th:not([scope])))").count()
            == tab.locator("table").count()
            >= 3
        )
        ids = tab.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
        assert len(ids) == len(set(ids))
        assert len(targets := tab.evaluate(TARGETS)) > 8 and set(targets) <= {
            f"#{one}" for one in ids
        }


def test_a_small_p_is_below_its_bound_not_equal_to_it():
    text = html.unescape(page(published()))
    assert "p < 0.001" in text and "p = < " not in text and "p = 0." in text


def test_activity_looks_at_random_layers_and_at_what_is_trained_above_them():
    """Silent units of random layers do not count, nor do those above the base's:
    the largest share above layer n.
    """
    tables = made_up()
    whole = tables.networks[
        (tables.networks.split == "all") & tables.networks.images_per_class.isna()
    ]
    networks = whole.set_index("cell").loc[["baseall", "R2all", "R7all"]]
    silent = [[0.1, 0.3, 0.2, 0, 0, 0, 0], [0.9, 0.8, 0.1, 0.6, 0.5, 0, 0], [1, 1, 1, 1, 1, 1, 1]]
    layers = pd.DataFrame({"layer": range(1, 8), "cosine": np.linspace(0.4, 1, 7), "images": 100})
    tables.activity = pd.concat(
        [layers.assign(run=r, silent=s) for r, s in zip(networks.run, silent, strict=True)]
    )
    table = activity.draw(tables).table.set_index("n")
    assert table.silent.to_dict() == pytest.approx({0: 0.3, 2: 0.6, 7: np.nan}, nan_ok=True)
    assert table["cosine of layer n"].to_dict() == pytest.approx(
        {0: np.nan, 2: 0.5, 7: 1}, nan_ok=True
    )
    assert table.accuracy.tolist() == networks.accuracy.tolist()
