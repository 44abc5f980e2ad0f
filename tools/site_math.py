"""A Markdown extension: formulae between dollars become MathML when the site is built.

Browsers draw MathML by themselves, so that a page needs no script and no network for it.
"""

import re
from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from math_core import LatexToMathML

# $x$ and $$x$$: no space inside the dollars, no digit after them ("5$ to 10$" is no formula)
FORMULA = r"(?<![\\$])(\$\$?)(?!\s)((?:\\.|[^\\$])+?)(?<!\s)\1(?![$\d])"
FIRST = 185  # before backslashes lose their meaning, after code


class Formula(InlineProcessor):
    """Replaces a formula by MathML that no later pattern looks into."""

    convert = LatexToMathML(annotation=True, fancy_error=False).convert_with_local_state

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:
        block = m[1] == "$$"
        latex = re.sub(r"\s+", " ", m[2])
        mathml = self.convert(latex, displaystyle=block)
        return self.md.htmlStash.store(mathml), m.start(0), m.end(0)


class Formulae(Extension):
    """`markdown_extensions: [site_math]` in mkdocs.yml."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(Formula(FORMULA, md), "formula", FIRST)


def makeExtension(**options: Any) -> Formulae:
    """Python-Markdown's entry point."""
    return Formulae(**options)
