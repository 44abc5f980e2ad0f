"""The verb `log_likelihood`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from energia._types import Values
from energia.energies._energy import Energy
from energia.energies._mean_field import has_mean_field, mean_field
from energia.evaluate._estimate import LogPartition, warn
from energia.evaluate._log_partition import METHODS, log_partition_of
from energia.evaluate._rows import rows_of
from energia.samplers._sampler import Kernel

ROWS = 256  # whose energies are evaluated side by side


@dataclasses.dataclass(frozen=True, repr=False)
class LogLikelihood:
    r"""The log-likelihood of data, $\log p(x_i) = -F(x_i) - \log Z$, in nats.

    F is the energy with everything summed out that is no datum; or the variational free energy of a
    mean field, at least F: then all of this is a lower bound, and says so.

    Attributes:
        value: the mean of a datum.
        stderr: its standard error as an estimate of the mean over all data that there might be:
            the spread of the data over the root of their number, and the error of $\log Z$.
        per_datum: shape (rows,), in the data's order; all share one error, that of $\log Z$.
        bits_per_dimension: minus the value, in bits a scalar entry of a datum.
        lower: mean of these data with the upper side of $\log Z$; `-inf` where there is none.
        upper: mean of these data with its lower side; `inf` where there is none.
        log_partition: the estimate of $\log Z$.
        is_bound: whether it is the variational lower bound.

    Example:
        >>> import energia as en, numpy as np
        >>> rbm = en.RBM.from_parameters(np.zeros((2, 1)), np.zeros(2), np.zeros(1))
        >>> result = en.evaluate.log_likelihood(rbm, np.array([[0, 1], [1, 1]]))
        >>> round(result.value, 4), round(result.bits_per_dimension, 4), result.is_bound
        (-1.3863, 1.0, False)
    """

    value: float
    stderr: float
    per_datum: np.ndarray
    bits_per_dimension: float
    lower: float
    upper: float
    log_partition: LogPartition
    is_bound: bool = False

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        sides = ""
        if np.isfinite(self.lower) and np.isfinite(self.upper) and self.lower < self.upper:
            sides = f" in [{self.lower:.5g}, {self.upper:.5g}]"
        bound = "a lower bound, " if self.is_bound else ""
        return (
            f"LogLikelihood({bound}{self.value:.6g} ± {self.stderr:.2g} nats a datum{sides}, "
            f"{self.bits_per_dimension:.4g} bits a dimension; {len(self.per_datum)} rows, "
            f"{self.log_partition!r})"
        )


def log_likelihood(
    energy: Energy,
    data: Any,
    method: str = "auto",
    *,
    key: jax.Array | None = None,
    log_partition: float | LogPartition | None = None,
    reference: Energy | None = None,
    kernel: str | Kernel = "auto",
    num_chains: int = 128,
    num_steps: int = 1000,
    levels: Any = None,
) -> LogLikelihood:
    r"""The log-likelihood of data under $p = e^{-E} / Z$.

    Variables that are no data are summed out as `marginalize` has it: the hidden layer of a
    Boltzmann machine in closed form. Where that is impossible and their mean field is known, as for
    the hidden layers of a deep Boltzmann machine, the result is the variational lower bound
    $\log p(x) \ge H(q) - E_q[E] - \log Z$, with $q$ a law of independent entries: the local optimum
    that is found from even odds.

    A likelihood of binary data is one of the way in which they were made binary. The literature's
    on MNIST hold for pixels drawn at random by their grey level; thresholded digits score some 15
    nats higher, and do not compare.

    Args:
        energy: an energy whose supports are known.
        data: an array with a leading axis over rows, values of the energy's first variable, or a
            dict of them by variable name.
        method: how $\log Z$ is found, see `log_partition`: 'auto' is 'exact' where that is possible
            (a Boltzmann machine whose smaller layer has at most 20 binary units, few states, at
            most two continuous entries), else 'bracket'.
        key: a typed JAX key; needed but for 'exact' and a given `log_partition`.
        log_partition: $\log Z$ if it is known: a number, or an estimate that `log_partition` made,
            whose error is carried over.
        reference: as for `log_partition`, like the four that follow; by default fitted to the data.
        kernel: what moves the chains.
        num_chains: how many weights.
        num_steps: levels after the first.
        levels: the levels themselves.

    Returns:
        A `LogLikelihood`; an `EvaluationWarning` tells where $\log Z$ cannot be trusted.

    Raises:
        TypeError, ValueError: for data that do not fit the energy, variables that cannot be summed
            out, and for whatever `log_partition` raises.

    Example:
        >>> import energia as en, jax, numpy as np
        >>> rbm = en.RBM(6, 3, key=jax.random.key(0))
        >>> result = en.evaluate.log_likelihood(rbm, np.zeros((10, 6)))
        >>> result.log_partition.method, result.per_datum.shape
        ('exact', (10,))
        >>> round(result.bits_per_dimension, 1)  # weights are small: about a bit each
        1.0
    """
    if not isinstance(energy, Energy):
        raise TypeError(f"log_likelihood() takes an energy, got {energy!r}")
    rows = rows_of(energy, data)
    latent = tuple(name for name in energy.variables if name not in rows)
    free, is_bound = _free(energy, latent, rows)
    if log_partition is None:
        if method not in METHODS:
            raise ValueError(f"method= must be one of {METHODS}, got {method!r}")
        estimate = log_partition_of(
            energy,
            method,
            key=key,
            reference=reference,
            kernel=kernel,
            num_chains=num_chains,
            num_steps=num_steps,
            levels=levels,
            data=rows,
        )
    elif isinstance(log_partition, LogPartition):
        estimate = log_partition
    else:
        number = float(log_partition)
        if not math.isfinite(number):
            raise ValueError(f"log_partition= must be finite, got {number}")
        estimate = LogPartition(number, 0.0, number, number, None, "given")
    free_energies = _free_energies(free, latent if is_bound else (), rows)
    per_datum = -free_energies - estimate.value
    mean, count = float(np.mean(per_datum)), len(per_datum)
    spread = float(np.std(per_datum, ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    size = sum(math.prod(array.shape[1:]) for array in rows.values())
    warn(estimate.problems)
    return LogLikelihood(
        value=mean,
        stderr=math.hypot(spread, estimate.stderr),
        per_datum=per_datum,
        bits_per_dimension=-mean / (size * math.log(2)),
        lower=mean + estimate.value - estimate.upper,
        upper=math.inf if is_bound else mean + estimate.value - estimate.lower,
        log_partition=estimate,
        is_bound=is_bound,
    )


def _free(
    energy: Energy, latent: tuple[str, ...], rows: Mapping[str, jax.Array]
) -> tuple[Energy, bool]:
    """The energy without its latent variables; or as it is, where only their mean field is known.

    Raises:
        ValueError: when neither is.
    """
    if not latent:
        return energy, False
    try:
        return energy.marginalize(*latent), False
    except ValueError:
        shapes = {n: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for n, x in rows.items()}
        if not has_mean_field(energy, latent, shapes):
            raise
    return energy, True


def _free_energies(
    free: Energy, averaged: tuple[str, ...], rows: Mapping[str, jax.Array]
) -> np.ndarray:
    energies = np.asarray(_evaluate(free, averaged, dict(rows)), np.float64)
    if not (good := np.isfinite(energies)).all():
        first = int(np.nonzero(~good)[0][0])
        raise ValueError(f"the energy of row {first} is {energies[first]}: it has no likelihood")
    return energies


@eqx.filter_jit
def _evaluate(free: Energy, averaged: tuple[str, ...], rows: Values) -> jax.Array:
    def one(row: Values) -> jax.Array:
        return mean_field(free, averaged, row).free_energy if averaged else free.at(row)

    count = len(next(iter(rows.values())))
    return jax.lax.map(one, rows, batch_size=min(ROWS, count))
