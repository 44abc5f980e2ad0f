"""Data to learn from: toys of two dimensions, images of digits, random transforms of images."""

from energia.data._images import digits, mnist
from energia.data._toys import (
    checkerboard,
    eight_gaussians,
    moons,
    pinwheel,
    rings,
    two_spirals,
)
from energia.data._transforms import (
    add_noise,
    compose,
    dequantize,
    diffuse,
    flip,
    rotate,
    translate,
)

__all__ = [
    "add_noise",
    "checkerboard",
    "compose",
    "dequantize",
    "diffuse",
    "digits",
    "eight_gaussians",
    "flip",
    "mnist",
    "moons",
    "pinwheel",
    "rings",
    "rotate",
    "translate",
    "two_spirals",
]


def __dir__() -> list[str]:
    """What completion shows: the public names."""
    return list(__all__)
