"""Energies for the tests of objectives: small, with parameters whose answer is known."""

import jax

import energia as en


class Precision(en.Energy):
    """A normal in two dimensions around 0, by the three numbers of its precision."""

    entries: jax.Array

    def __call__(self, x):
        a, b, c = self.entries
        return 0.5 * (a * x[0] ** 2 + 2 * b * x[0] * x[1] + c * x[1] ** 2)

    def _supports(self):
        return {"x": en.Real(2)}


class Exponential(en.Energy):
    """The exponential density."""

    rate: jax.Array

    def __call__(self, x):
        return self.rate * x

    def _supports(self):
        return {"x": en.Positive()}
