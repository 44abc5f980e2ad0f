"""Energies as NumPyro models."""

from collections.abc import Callable
from typing import Any

import numpy as np

from energia.energies import Energy
from energia.energies._numpyro import numpyro
from energia.energies._unconstrained import by_dependency
from energia.supports import Binary, Categorical, Continuous, Interval, Support


def to_numpyro(energy: Energy) -> Callable[[], None]:
    r"""An energy as a NumPyro model, which NumPyro's samplers run.

    The model has one latent site a variable, flat on its support, and a factor $-E$. A finite
    variable is a site of integers, so that NumPyro's samplers for discrete sites apply. Where the
    support of a variable depends on others, the energy is recorded as a deterministic site.

    Args:
        energy: the energy; the support of each variable has to be known.

    Raises:
        ImportError: when NumPyro is not installed.
        TypeError: when what is given is no energy.
        ValueError: when a support is unknown, or NumPyro has no such site.

    Example:
        >>> import energia as en, jax, numpyro
        >>> model = en.interop.to_numpyro(en.Gaussian(0.0, scale=2.0))
        >>> log_joint, _ = numpyro.infer.util.log_density(model, (), {}, {"x": 0.0})
        >>> round(float(log_joint), 4)
        -1.6121
    """
    library = numpyro("to_numpyro()")
    if not isinstance(energy, Energy):
        raise TypeError(f"to_numpyro() takes an energy, got {energy!r}")
    order = by_dependency(energy.supports, energy._formula())
    for name, support in order:
        if support is None:
            raise ValueError(
                f"to_numpyro(): the support of {name!r} is unknown: say "
                f".constrain({name}=en.Real(...))"
            )
        if not isinstance(support, Continuous | Binary | Categorical):
            raise ValueError(
                f"to_numpyro(): {name!r} is {support}, which NumPyro has no flat site for: "
                f"constrain it to en.Binary or en.Categorical"
            )

    functional = any(support is not None and support.functional for _, support in order)
    finite = [name for name, support in order if support is not None and support.discrete]
    if functional and finite:
        raise ValueError(
            f"to_numpyro(): bounds are functions of other variables beside the discrete {finite}, "
            "which NumPyro's samplers of discrete sites take for the bounds of their first trace: "
            f"sum them out, .marginalize({finite[0]!r})"
        )

    def model() -> None:
        values: dict[str, Any] = {}
        for name, declared in order:
            support = energy._support_at(name, values)
            assert support is not None
            assert declared is not None
            values[name] = library.sample(name, _flat(support, declared.functional))
        value = energy.at(values)
        library.factor(f"{energy._name}_log_density", -value)
        if functional:  # then NumPyro maps each draw by running the model, not by the first maps
            library.deterministic(f"{energy._name}_energy", value)

    model.__name__ = model.__qualname__ = energy._name
    return model


def _flat(support: Support, functional: bool) -> Any:
    """A flat distribution on a support."""
    distributions = numpyro("to_numpyro()").distributions
    if isinstance(support, Binary | Categorical):
        states = distributions.DiscreteUniform(0, len(support.states) - 1)
        return states.expand(support.shape).mask(False)
    if functional and isinstance(support, Interval):  # its bounds are no static numbers
        constraint = _between(support, distributions.constraints)
    else:
        from energia.interop._support_constraint import SupportConstraint

        assert isinstance(support, Continuous)
        constraint = SupportConstraint(support)
    return distributions.ImproperUniform(constraint, (), support.shape)


def _between(support: Interval, constraints: Any) -> Any:
    low, high = support.ends(support.dtype)
    bounded = [not (isinstance(end, np.ndarray) and np.isinf(end).all()) for end in (low, high)]
    if all(bounded):
        return constraints.interval(low, high)
    return constraints.greater_than(low) if bounded[0] else constraints.less_than(high)
