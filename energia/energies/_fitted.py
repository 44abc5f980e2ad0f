"""A law that is fitted: normal for real variables, independent for the entries of discrete ones."""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values, as_array, as_float
from energia.energies._energy import Energy
from energia.energies._exact import Exact
from energia.energies._factors import Categorical, Factors, Normal
from energia.energies._trainable import constant
from energia.supports import Discrete, Real, Support

DENSE_SIZE = 32  # entries, up to which correlations are fitted
PRIOR_DRAWS = 5.0  # what the law before a fit counts for
LARGEST_WEIGHT = 1 - 1e-5  # of correlations: keeps a fit positive definite in 32 bits


class Fitted(Energy):
    r"""$-\log \mathcal N(x; m, L L^\top) - \sum_i \log p_i(z_i)$, normalised, with exact draws.

    One normal law of all entries of the real variables, and an independent law for each entry of
    the discrete ones: never a normal law of a variable that takes finitely many values.

    Args:
        declared: the variables with their supports, real or finite.
        mean: $m$, shape (n,), over the real variables sorted by name and flattened.
        factor: $L$, lower triangular, shape (n, n); or its diagonal, shape (n,).
        log_odds: by discrete variable $\log p$, of its shape and a last axis over states.
    """

    declared: tuple[tuple[str, Support], ...] = eqx.field(static=True)
    mean: jax.Array = constant()
    factor: jax.Array = constant()
    log_odds: dict[str, jax.Array] = constant()

    @staticmethod
    def unit(energy: Energy) -> "Fitted":
        """Standard normals and equal odds, for the variables of an energy.

        Raises:
            ValueError: when a variable is neither real nor takes finitely many values.
        """
        declared, log_odds, size = [], {}, 0
        for name, support in energy.supports.items():
            if isinstance(support, Discrete):
                count = len(support.states)
                log_odds[name] = as_float(np.full((*support.shape, count), -math.log(count)))
            elif isinstance(support, Real):
                size += math.prod(support.shape)
            else:
                raise ValueError(
                    f"no reference can be fitted to {name!r} of {energy._formula()}, which is "
                    f"{support}: give reference=, an energy of {energy.variables} with exact draws"
                )
            declared.append((name, support))
        factor = np.eye(size) if size <= DENSE_SIZE else np.ones(size)
        return Fitted(tuple(declared), as_float(np.zeros(size)), as_float(factor), log_odds)

    def uncorrelated(self) -> "Fitted":
        """The same without the correlations of the real variables."""
        if self.factor.ndim == 1:
            return self
        scale = jnp.sqrt(jnp.sum(self.factor**2, axis=1))
        return Fitted(self.declared, self.mean, scale, self.log_odds)

    def fit(self, summary: "Summary", count: Any, effective: Any = None) -> "Fitted":
        r"""The law of so many draws; this one counts for five more, so that no variance vanishes.

        Correlations are shrunk to none as far as they could be noise: with $R$ their matrix of
        $d$ variables and $n$ effective draws they keep the weight $1 - \rho$,
        $\rho = \frac{(1 - 2/d) \operatorname{tr} R^2 + d^2}
        {(n + 1 - 2/d)(\operatorname{tr} R^2 - d)}$ and at most 1.

        Args:
            summary: of the draws.
            count: how many.
            effective: how many independent ones they are worth; None: all.

        References:
            Chen, Wiesel, Eldar and Hero (2010), Shrinkage algorithms for MMSE covariance estimation
            (oracle approximating shrinkage).
        """
        keep = count / (count + PRIOR_DRAWS)
        dense = self.factor.ndim == 2
        before = jnp.sum(self.factor**2, axis=1) if dense else self.factor**2
        scatter = summary.covariance
        variance = keep * (jnp.diagonal(scatter) if dense else scatter) + (1 - keep) * before
        if dense:
            weight = keep * _reliable(scatter, count if effective is None else effective)
            unit = jnp.eye(self.mean.size, dtype=bool)
            factor = jnp.linalg.cholesky(jnp.where(unit, jnp.diag(variance), weight * scatter))
        else:
            factor = jnp.sqrt(variance)
        log_odds = {
            name: jnp.log(keep * summary.frequencies[name] + (1 - keep) * jnp.exp(odds))
            for name, odds in self.log_odds.items()
        }
        return Fitted(self.declared, summary.mean, factor, log_odds)

    def summary(self, values: Mapping[str, Any]) -> "Summary":
        """Mean, covariance and frequencies of draws with a leading axis."""
        rows = [jnp.reshape(values[name], (len(values[name]), -1)) for name in self._real]
        x = jnp.concatenate(rows, axis=1) if rows else jnp.zeros((1, 0), self.mean.dtype)
        mean = jnp.mean(x, axis=0)
        offset = x - mean
        dense = self.factor.ndim == 2
        covariance = offset.T @ offset / len(x) if dense else jnp.mean(offset**2, axis=0)
        frequencies = {}
        for name, support in self.declared:
            if isinstance(support, Discrete):
                count = len(support.states)
                states = jax.nn.one_hot(support.positions(values[name]), count)
                frequencies[name] = jnp.mean(states, axis=0)
        return Summary(mean, covariance, frequencies)

    # --- an energy

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        return self._energy_of(self._bind(args, kwargs))

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.declared)

    def _supports(self) -> Mapping[str, Support]:
        return dict(self.declared)

    @property
    def _ordered(self) -> bool:
        return False

    @property
    def _real(self) -> tuple[str, ...]:
        return tuple(sorted(name for name, support in self.declared if not support.discrete))

    def _energy_of(self, values: Mapping[str, Any]) -> jax.Array:
        """The energy of the real variables, and of what there is of the discrete ones."""
        total = as_float(0.0)
        for name, support in self.declared:
            if isinstance(support, Discrete) and name in values:
                states = support.positions(as_array(values[name]))[..., None]
                chosen = jnp.take_along_axis(self.log_odds[name], states, axis=-1)
                total = total - jnp.sum(chosen)
        if not self._real:
            return total
        x = jnp.concatenate([jnp.ravel(as_float(values[name])) for name in self._real])
        if self.factor.ndim == 1:
            noise, scale = (x - self.mean) / self.factor, self.factor
        else:
            noise = jax.scipy.linalg.solve_triangular(self.factor, x - self.mean, lower=True)
            scale = jnp.diagonal(self.factor)
        constants = jnp.sum(jnp.log(scale)) + 0.5 * math.log(2 * math.pi) * self.mean.size
        return total + 0.5 * noise @ noise + constants

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        if name in self.log_odds:
            others = {n: value for n, value in values.items() if n != name}
            return Categorical(self._energy_of(others), self.log_odds[name])
        if self.factor.ndim == 2:
            return super()._factorize(name, values)
        mean, scale = (self._split(rows)[name] for rows in (self.mean, self.factor))
        base = self._energy_of({**values, name: jnp.zeros_like(mean)})
        return Normal(base, mean / scale**2, scale**-2)

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        if values:
            return super()._exact(values)
        return Exact(self._draw, as_float(0.0), constant=True)

    def _draw(self, key: jax.Array) -> Values:
        key, key_noise = jax.random.split(key)
        noise = jax.random.normal(key_noise, self.mean.shape, self.mean.dtype)
        spread = self.factor * noise if self.factor.ndim == 1 else self.factor @ noise
        drawn = self._split(self.mean + spread)
        for index, (name, support) in enumerate(self.declared):
            if isinstance(support, Discrete):
                subkey = jax.random.fold_in(key, index)
                drawn[name] = support.values(jax.random.categorical(subkey, self.log_odds[name]))
        return {name: drawn[name] for name in self.variables}

    def _split(self, rows: jax.Array) -> Values:
        """The entries of the real variables, in their shapes."""
        supports, parts, begin = dict(self.declared), {}, 0
        for name in self._real:
            shape = supports[name].shape
            end = begin + math.prod(shape)
            parts[name] = rows[begin:end].reshape(shape)
            begin = end
        return parts


def _reliable(covariance: jax.Array, count: Any) -> jax.Array:
    """The weight that correlations keep, estimated from so many independent draws."""
    size = max(len(covariance), 1)
    deviation = jnp.sqrt(jnp.maximum(jnp.diagonal(covariance), jnp.finfo(covariance.dtype).tiny))
    squares = jnp.sum((covariance / jnp.outer(deviation, deviation)) ** 2)
    noise = (1 - 2 / size) * squares + size**2
    signal = (count + 1 - 2 / size) * (squares - size)
    return jnp.clip(1 - noise / jnp.maximum(signal, noise), 0, LARGEST_WEIGHT)


class Summary(eqx.Module):
    """What a law is fitted to: moments of real entries, frequencies of the states of others."""

    mean: jax.Array
    covariance: jax.Array
    frequencies: dict[str, jax.Array]

    def merge(self, new: "Summary", weight: jax.Array) -> "Summary":
        """The summary with another one in a weight."""
        shift = new.mean - self.mean
        between = jnp.outer(shift, shift) if self.covariance.ndim == 2 else shift**2
        covariance = self.covariance + weight * (
            new.covariance + (1 - weight) * between - self.covariance
        )
        frequencies = {
            name: old + weight * (new.frequencies[name] - old)
            for name, old in self.frequencies.items()
        }
        return Summary(self.mean + weight * shift, covariance, frequencies)
