"""The verb `sample` and what it returns."""

from energia.sampling._draws import Draws
from energia.sampling._minimize import Minimum, minimize
from energia.sampling._sample import sample

__all__ = ["Draws", "Minimum", "minimize", "sample"]
