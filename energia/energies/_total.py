"""Data factors: a sum of one energy over the rows of data."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from energia._types import as_array, as_float, check_count, is_concrete
from energia.energies._checks import check_fixed, check_known, check_rows, checked
from energia.energies._energy import Energy
from energia.energies._factors import Factors
from energia.energies._trainable import constant
from energia.supports import Support


class Total(Energy):
    r"""$w \sum_i E(\theta, y_i)$ over rows of data: see `total`."""

    energy: Energy
    rows: dict[str, jax.Array] = constant()
    weight: jax.Array = constant(default=1.0)

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        return self.weight * jnp.sum(self.per_row(self._bind(args, kwargs)))

    def per_row(self, values: Mapping[str, Any]) -> jax.Array:
        """The energy of each row, at a value of each variable."""

        def one(row: dict[str, jax.Array]) -> jax.Array:
            energy = self.energy.at({**values, **row})
            if energy.shape != ():
                raise TypeError(
                    f"{self.energy._formula()} must return a scalar for one row, got shape "
                    f"{energy.shape}: total() sums over the rows itself"
                )
            return energy

        values = {name: as_array(value) for name, value in values.items()}
        return jax.vmap(one)(self.rows)

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(name for name in self.energy.variables if name not in self.rows)

    def _supports(self) -> Mapping[str, Support | None]:
        return self.energy.supports

    def _support_at(self, name: str, values: Mapping[str, Any]) -> Support | None:
        return self.energy._support_at(name, values)

    @property
    def _ordered(self) -> bool:
        return self.energy._ordered

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        def one(row: dict[str, jax.Array]) -> Factors | None:
            return self.energy._factorize(name, {**values, **row})

        factors = jax.vmap(one)(self.rows)
        if factors is None:
            return super()._factorize(name, values)
        return jax.tree.map(lambda rows: self.weight * jnp.sum(rows, axis=0), factors)

    def _subsample(self, key: jax.Array, batch_size: int) -> Energy:
        count = self.num_rows
        batch_size = check_count(batch_size, "batch_size", 1)
        if batch_size > count:
            raise ValueError(f"batch_size={batch_size} is more than the {count} rows of the data")
        chosen = jax.random.choice(key, count, (batch_size,), replace=False)
        rows = {name: value[chosen] for name, value in self.rows.items()}
        return Total(self.energy, rows, self.weight * (count / batch_size))

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return next(iter(self.rows.values())).shape[0]

    def _formula(self, shown: Mapping[str, str] | None = None) -> str:
        inner = {**(shown or {}), **{name: f"{name}_i" for name in self.rows}}
        return f"Σ_{{i≤{self.num_rows}}} {self.energy._factor(inner)}"

    def _factor(self, shown: Mapping[str, str] | None = None) -> str:
        return f"({self._formula(shown)})"


def total(likelihood: Energy, /, **rows: Any) -> Total:
    r"""A data factor: $\sum_i E(\theta, y_i)$ over the rows $y_i$ of data.

    The rows are fixed and never trained, and their sum is one `jax.vmap`. Every other variable is
    shared by all rows. A latent variable of each row is summed out first:
    `en.total(E.marginalize('z'), y=Y)`.

    Args:
        likelihood: an energy of one row.
        **rows: by variable name arrays with a leading axis over rows, as many for each: responses,
            covariates.

    Raises:
        TypeError: when `likelihood` is no energy.
        ValueError: when a name is no variable, the numbers of rows differ, a shape does not fit, or
            a value lies outside its support: the message says which entry.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> @en.energy(y=en.Real())
        ... def normal(mu, y):
        ...     return 0.5 * (y - mu) ** 2
        >>> posterior = en.Gaussian(0.0).rename(x="mu") + en.total(normal, y=[1.0, 2.0, 3.0])
        >>> print(posterior)
        Gaussian(mu) + Σ_{i≤3} normal(mu, y_i)  [mu: real (); 2 parameters]
    """
    if not isinstance(likelihood, Energy):
        raise TypeError(f"total() takes the energy of one row, got {likelihood!r}")
    check_known(likelihood, rows, "total")
    if len(rows) == len(likelihood.variables):
        raise ValueError(
            f"total() would fix every variable of {likelihood._formula()}: leave one to be drawn"
        )
    supports = likelihood.supports
    arrays = {name: _rows(name, value, supports[name]) for name, value in rows.items()}
    counts = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"total() needs as many rows for each variable, got {counts}")
    if min(counts.values()) == 0:
        raise ValueError("total() got no rows")
    check_fixed(likelihood, arrays, "total")
    for name in arrays:
        support = supports[name]
        if support is not None and support.functional and all(map(is_concrete, arrays.values())):
            check_rows(likelihood, name, arrays, f"total({name}=...)")
    return Total(likelihood, arrays)


def _rows(name: str, value: Any, support: Support | None) -> jax.Array:
    what = f"total({name}=...)"
    whole = support is None or support.discrete
    array = as_array(value, what) if whole else as_float(value, what)
    if array.ndim == 0:
        raise ValueError(f"{what} needs a leading axis over rows, got a scalar: use condition")
    if support is None:
        return array
    if array.shape[1:] != support.shape:
        wanted = ", ".join(["rows", *map(str, support.shape)])
        raise ValueError(f"{what} must have shape ({wanted}) for {support}, got {array.shape}")
    return checked(array, support, what)
