"""A Markdown extension: formulae between dollars become MathML when the site is built.

Browsers draw MathML by themselves, so that a page needs no script and no network for it.
"""

import html
import re
from typing import Any
from xml.etree import ElementTree

from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from math_core import LatexToMathML

# $x$ and $$x$$: no space inside the dollars, no digit after them ("5$ to 10$" is no formula)
FORMULA = r"(?<![\\$])(\$\$?)(?!\s)((?:\\.|[^\\$])+?)(?<!\s)\1(?![$\d])"
FIRST = 185  # before backslashes lose their meaning, after code
LONG = 60  # characters: wider than a phone, so that it scrolls there


class Formula(InlineProcessor):
    """Replaces a formula by MathML that no later pattern looks into."""

    convert = LatexToMathML(fancy_error=False).convert_with_local_state

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:
        block = m[1] == "$$"
        latex = re.sub(r"\s+", " ", m[2])
        mathml = bars(self.convert(latex, displaystyle=block))
        if not block and len(latex) > LONG:
            mathml = f'<span class="formula">{mathml}</span>'
        return self.md.htmlStash.store(mathml), m.start(0), m.end(0)


def bars(mathml: str) -> str:
    """Draw lines over formulae as borders: no font stretches its line to every length."""
    named = r"&(?!lt;|gt;|amp;|quot;|apos;|#)\w+;"  # HTML's entities, unknown to XML
    root = ElementTree.fromstring(re.sub(named, lambda m: html.unescape(m[0]), mathml))
    for over in root.iter("mover"):
        if over[1].text == "\u0332":
            over.remove(over[1])
            over.tag, over.attrib = "mrow", {"class": "over"}
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


class Formulae(Extension):
    """`markdown_extensions: [site_math]` in mkdocs.yml."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(Formula(FORMULA, md), "formula", FIRST)


def makeExtension(**options: Any) -> Formulae:
    """Python-Markdown's entry point."""
    return Formulae(**options)
