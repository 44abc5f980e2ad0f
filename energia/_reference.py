"""The default reference: where it is easy to draw."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from energia._types import is_concrete
from energia.energies._algebra import with_supports
from energia.energies._checks import own_values
from energia.energies._energy import Energy
from energia.energies._fitted import Fitted
from energia.energies._unconstrained import Unconstrained


def reference_for(energy: Energy, positions: Mapping[str, Any] | None = None) -> Energy:
    r"""An energy with exact draws of all variables, for the easy end of a path to this one.

    The prior, where there is one: those terms of the sum that together have exact draws of all
    variables (an energy that has them itself is its own reference). Else a law that is fitted: a
    normal one of the real variables, with correlations up to 32 entries, and independent ones of
    the entries of discrete variables.

    Args:
        energy: the target. Where no prior is found, its variables are real, or take finitely many
            values: bounded ones are mapped to the reals before.
        positions: draws to fit to, by variable, shape (n, \*shape); five draws of standard normals
            and of equal odds count beside them. None: these alone.

    Raises:
        ValueError: when there is no prior, and nothing can be fitted to a variable.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> posterior = en.Gaussian(jnp.zeros(2), scale=5.0) + en.Ring()
        >>> print(en.paths.reference_for(posterior))
        Gaussian(x)  [x: real (2,); 3 parameters]
        >>> en.paths.reference_for(en.Ring()).variables
        ('x',)
    """
    if (chosen := prior_terms(energy)) is not None:
        return prior_of(energy, chosen)
    unit = Fitted.unit(energy)
    return unit if positions is None else fitted_to(unit, energy, positions)


def fitted_to(unit: Fitted, energy: Energy, positions: Mapping[str, Any]) -> Fitted:
    """The law of draws of an energy's variables, in which what is given counts for five more."""
    missing = [name for name in energy.variables if name not in positions]
    if missing:
        raise ValueError(f"positions= lacks {missing} of {energy._formula()}")
    count = len(next(iter(positions.values())))
    return _fit(unit, {n: positions[n] for n in energy.variables}, np.float32(count))


@eqx.filter_jit
def _fit(unit: Fitted, positions: Mapping[str, Any], count: Any) -> Fitted:
    return unit.fit(unit.summary(positions), count)


def check_reference(reference: Any) -> None:
    """Raise unless what is given for a sampler's `reference=` is an energy, or nothing."""
    if reference is not None and not isinstance(reference, Energy):
        raise TypeError(f"reference= must be an energy, got {reference!r}")


def given_reference(reference: Energy, target: Energy) -> Energy:
    """A reference in the coordinates of the target."""
    return Unconstrained(reference) if isinstance(target, Unconstrained) else reference


def prior_terms(energy: Energy) -> tuple[int, ...] | None:
    """The numbers of those terms that together have exact draws of all variables, or None.

    One after another, a term is taken that draws what is not drawn yet and is a density of it,
    whatever was drawn before.
    """
    energy = energy.energy if isinstance(energy, Unconstrained) else energy
    supports = energy.supports
    terms = [with_supports((term,), supports) for term in energy._terms()]
    good = [_has_normaliser(term) for term in terms]
    chosen: list[int] = []

    def search() -> None:
        known: dict[str, Any] = {}
        found = True
        while found:
            found = False
            for index, term in enumerate(terms):
                own = own_values(term, known)
                if index in chosen or len(own) == len(term.variables) or not good[index]:
                    continue
                exact = term._exact(own)
                if exact is not None and (exact.constant or not own):
                    known |= exact.draw(jax.random.key(0))
                    chosen.append(index)
                    found = True
        if set(known) != set(energy.variables):
            chosen.clear()

    jax.eval_shape(search)
    return tuple(chosen) or None


def _has_normaliser(energy: Energy) -> bool:
    """Whether there is one, where a law of all variables is known: not so for minus a Gaussian."""
    try:
        exact = energy._exact({})
    except ValueError:
        return False
    if exact is None or not is_concrete(exact.log_partition):
        return True
    return bool(np.isfinite(np.asarray(exact.log_partition)))


def prior_of(energy: Energy, chosen: tuple[int, ...]) -> Energy:
    """The sum of terms by their numbers, in unconstrained coordinates where the energy is."""
    if isinstance(energy, Unconstrained):
        return Unconstrained(prior_of(energy.energy, chosen))
    terms = energy._terms()
    if len(chosen) == len(terms):
        return energy
    return with_supports([terms[index] for index in sorted(chosen)], energy.supports)
