"""Data to learn from: toys of two dimensions, drawn as many as are wanted."""

from energia.data._toys import (
    checkerboard,
    eight_gaussians,
    moons,
    pinwheel,
    rings,
    two_spirals,
)

__all__ = ["checkerboard", "eight_gaussians", "moons", "pinwheel", "rings", "two_spirals"]
