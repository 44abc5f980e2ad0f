"""The pages of docs/ run, print what they show, and draw the pictures that they show."""

import re

import build_site
import numpy as np
import pytest

NUMBER = re.compile(r"(?<![\w.])[-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
END = "<<< end of a block >>>"


def agrees(shown: str, printed: str) -> bool:
    """Whether the same was printed: words alike, numbers to 10 % or 0.03, `...` for anything."""
    numbers = [float(number.replace("−", "-")) for number in NUMBER.findall(shown)]
    parts = [re.escape(part) for part in NUMBER.split(" ".join(shown.split()))]
    pattern = f"({NUMBER.pattern})".join(parts).replace(re.escape("..."), ".*?")
    found = re.fullmatch(pattern, " ".join(printed.split()))
    return found is not None and all(
        abs(float(text.replace("−", "-")) - number) <= max(0.1 * abs(number), 0.03)
        for text, number in zip(found.groups(), numbers, strict=True)
    )


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("mean -0.60, ok True", "mean -0.61,\n  ok True", True),
        ("mean -0.60, ok True", "mean -0.60, ok False", False),
        ("mean -0.60", "mean -0.70", False),
        ("mean 0.60", "mean -0.60", False),
        ("R-hat ..., ok", "R-hat 4.1e7, ok", True),
        ("R-hat ..., ok", "R-hat 4.1e7, bad", False),
        ("1.0 2.0", "1.0", False),
        ("x2 = 10", "x3 = 10", False),
    ],
)
def test_what_is_shown_is_compared_with_what_is_printed(shown, printed, same):
    assert agrees(shown, printed) is same


@pytest.mark.parametrize(
    "page", build_site.pages(), ids=lambda page: str(page.relative_to(build_site.DOCS))
)
def test_pages_print_what_they_show(page, tmp_path):
    """The blocks of a page run one after another, each against the text that follows it."""
    result = build_site.run_page(page, tmp_path, END)
    assert result.returncode == 0, result.stderr
    *printed, rest = result.stdout.split(f"{END}\n")
    assert not rest.strip()
    for (code, shown), text in zip(build_site.snippets(page), printed, strict=True):
        assert agrees(shown, text), f"{code}\nprints\n{text}\nand not\n{shown}"
    from matplotlib.image import imread

    for picture in tmp_path.glob("*.png"):
        assert np.std(imread(picture)) > 0.02, picture.name
        shown = build_site.DOCS / "images" / picture.name
        assert f"images/{picture.name})" in page.read_text(), picture.name
        assert shown.exists(), f"python tools/build_site.py --pictures {page.name}"
        assert shown.stat().st_size < 60_000, picture.name
