"""The documentation: it builds without a warning, nothing in it is broken or missing."""

import inspect
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import build_site
import pytest

import energia as en

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NAME = re.compile(r"(?<![\w./])en(?:ergia)?((?:\.[A-Za-z_]\w*)+)")


def public_names() -> set[str]:
    """The dotted names of `__all__`, and of what the public modules have beside them."""
    found = set()
    for name in en.__all__:
        value = getattr(en, name)
        if not inspect.ismodule(value):
            found.add(f"energia.{name}")
            continue
        for each in value.__all__:
            if getattr(value, each) is not getattr(en, each, None):
                found.add(f"energia.{name}.{each}")
    return found


def exists(path: str) -> bool:
    """Whether `.samplers.NUTS`, say, is an attribute of an attribute of the package."""
    value = en
    for name in path.strip(".").split("."):
        annotated = inspect.isclass(value) and any(
            name in getattr(cls, "__annotations__", {}) for cls in value.__mro__
        )
        if not hasattr(value, name):
            return annotated
        value = getattr(value, name)
    return True


class Page(HTMLParser):
    """What a page links to, what it shows, and the anchors that it has."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.sources, self.anchors, self.text = [], [], set(), ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given.get("id"), given.get("name")}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in ("img", "script") and given.get("src"):
            self.sources.append(given["src"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon"):
            self.sources.append(given["href"])

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("zensical", reason="the extra `docs` is not installed")
    try:
        return build_site.build(tmp_path_factory.mktemp("documentation"))
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stdout)


@pytest.fixture(scope="module")
def built(site):
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_page_is_there_and_in_the_navigation(site, built):
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ +- (?:.*: )?(\S+\.md)$", config, re.MULTILINE)
    written = {str(page.relative_to(DOCS)) for page in PAGES}
    tutorials = {f"tutorials/{e.stem}.md" for e in build_site.EXAMPLES} | {"tutorials/index.md"}
    assert sorted(listed) == sorted(written | tutorials)
    assert {site / name.replace(".md", ".html") for name in listed} == set(built)


def test_no_link_is_broken_and_no_picture_missing(site, built):
    broken = []
    for path, page in built.items():
        for target in (*page.links, *page.sources):
            if re.match(r"https?:|mailto:", target):
                if target in page.sources:
                    broken.append(f"{path.name} needs the network for {target}")
                continue
            name, anchor = urldefrag(unquote(target))
            there = (path.parent / name).resolve() if name else path
            there = there / "index.html" if there.is_dir() else there
            known = built[there].anchors if there in built else set()
            if not there.is_file() or (anchor and anchor not in known):
                broken.append(f"{path.relative_to(site)} links to {target}")
    assert not broken
    assert sum(len(page.links) for page in built.values()) > 1000


def test_a_broken_page_is_an_error(tmp_path, monkeypatch):
    pytest.importorskip("zensical", reason="the extra `docs` is not installed")
    docs = tmp_path / "broken"
    docs.mkdir()
    (docs / "index.md").write_text("# Home\n\n[nowhere](nowhere.md) and $\\nonsense{x}$\n")
    (docs / "images").mkdir()
    monkeypatch.setattr(build_site, "DOCS", docs)
    with pytest.raises(subprocess.CalledProcessError):
        build_site.build(tmp_path)


def test_every_public_name_is_documented(site, built):
    directives = [
        name
        for page in (DOCS / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert sorted(directives) == sorted(public_names())
    anchors = set().union(*(page.anchors for page in built.values()))
    assert public_names() <= anchors


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_pages_name_what_exists(page):
    text = page.read_text(encoding="utf-8")
    unknown = {path for path in NAME.findall(text) if not exists(path)}
    assert not unknown


def test_what_does_not_exist_is_found():
    assert [exists(path) for path in (".sample", ".Fit.history", ".sampel", ".plot.rank")] == [
        True,
        True,
        False,
        False,
    ]


def test_formulae_are_drawn_by_the_browser(site):
    text = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert text[site / "composition.html"].count("<math") > 60
    for path, page in text.items():
        assert "merror" not in page, path
        prose = re.sub(r"<(pre|code|script|math)\b.*?</\1>", "", page, flags=re.DOTALL)
        assert "$" not in prose, path


def test_the_search_knows_parallel_tempering(site):
    index = json.loads((site / "search.json").read_text(encoding="utf-8"))
    found = [entry for entry in index["items"] if "parallel tempering" in json.dumps(entry).lower()]
    assert found


NUMBER = re.compile(r"(?<![\w.])[-−+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
MEASURED = ("benchmarks.md", "choose-objective.md", "choose-sampler.md")


def numbers(text: str) -> list[str]:
    return [
        number.replace("−", "-").replace(",", "").lstrip("+") for number in NUMBER.findall(text)
    ]


def tables(page: Path):
    """Cells with numbers of each section, and the result files that the section names."""
    for section in re.split(r"^#+ ", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        files = re.findall(r"`benchmarks/results/([\w.-]+)`", section)
        rows = [
            line.strip("|\n").split("|")[1:] for line in section.splitlines() if line[:1] == "|"
        ]
        cells = [cell for row in rows[2:] for cell in row]
        if files and cells:
            yield files, cells


@pytest.mark.parametrize("name", MEASURED)
def test_measured_numbers_stand_in_the_results(name):
    """Each number of a table is one of the file that its section names, rounded."""
    found = list(tables(DOCS / name))
    assert found
    for files, cells in found:
        results = ROOT / "benchmarks" / "results"
        text = " ".join((results / file).read_text(encoding="utf-8") for file in files)
        measured = [float(number) for number in numbers(text)]
        for cell in cells:
            for number in numbers(re.sub(r"`[^`]*`.*", "", cell)):
                half = 0.5 * 10.0 ** -len(number.partition(".")[2]) * 1.001
                near = min(abs(value - float(number)) for value in measured)
                assert near <= half, f"{number} of {cell!r} is in none of {files}"


def test_every_reference_is_one_of_a_docstring():
    """A paper of the page is named by the docstring of something that it gave something to."""
    sources = " ".join(
        " ".join(path.read_text(encoding="utf-8").split())
        for path in (ROOT / "energia").rglob("*.py")
    )
    page = (DOCS / "references.md").read_text(encoding="utf-8")
    cited = [
        each.strip()
        for row in re.findall(r"^\| (.*?) \| .* \|$", page, re.MULTILINE)
        for each in row.split(";")
        if re.search(r"\(\d{4}\)", each)
    ]
    assert len(cited) > 50
    for each in cited:
        start = re.match(r".*?\(\d{4}\), \S+ \S+", each)
        assert start, each
        assert start[0] in sources, each
