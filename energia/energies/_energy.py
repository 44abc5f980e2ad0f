"""Energy: a scalar function of named variables, and the operations that every energy has."""

import abc
import functools
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

from energia._types import as_array, as_float, is_concrete, parameters_of
from energia.energies._checks import bound, check_names, not_scalar, real_scalar
from energia.energies._exact import Exact, factorized
from energia.energies._factors import Factors, enumerated
from energia.energies._remember import remembered
from energia.energies._trainable import count_parameters
from energia.supports import Support

if TYPE_CHECKING:
    from energia.energies._algebra import Constrained, Frozen
    from energia.energies._substituted import Substituted


@functools.cache
def _variables_of(cls: type["Energy"]) -> tuple[str, ...]:
    return parameters_of(cls.__call__, cls.__name__, skip=1)


@remembered
def _supports_of(energy: "Energy") -> Mapping[str, Support | None]:
    known = energy._supports()
    return {name: known.get(name) for name in energy.variables}


class Energy(eqx.Module):
    r"""A scalar function of named variables, with $p(\text{variables}) \propto e^{-E}$.

    Subclass it and write `__call__` for **one** configuration, with no batch axis: its parameters
    without a default are the energy's variables. Batches are made with `jax.vmap`. An energy knows
    nothing of sampling or training.

    Energies add (`E1 + E2`, a product of experts), scale (`w * E`, and `E / T` for a temperature),
    condition, and rename; each operation gives another energy that can be jitted over, vmapped over
    and differentiated.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> class Quartic(en.Energy):
        ...     barrier: jax.Array
        ...     def __call__(self, x):
        ...         return jnp.sum(self.barrier * (x**2 - 1) ** 2)
        >>> well = Quartic(jnp.array(2.0))
        >>> float(well(jnp.zeros(2))), well.variables
        (4.0, ('x',))
        >>> print(0.5 * well + en.Gaussian(jnp.zeros(2)))
        0.5·Quartic(x) + Gaussian(x)  [x: real (2,); 4 parameters]
    """

    __array_ufunc__ = None  # np.ones(3) * E must not broadcast over the array

    @abc.abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> jax.Array:
        """The energy of one configuration, a scalar."""

    def __check_init__(self):
        _ = self.variables

    # --- what it is a function of

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the variables, in the order of `__call__`."""
        return _variables_of(type(self))

    @property
    def supports(self) -> dict[str, Support | None]:
        """The support of each variable; None where it is unknown."""
        return dict(_supports_of(self))

    def _supports(self) -> Mapping[str, Support | None]:
        """Hook: the supports that the class itself knows; asked for once an object."""
        return {}

    def _support_at(self, name: str, values: Mapping[str, Any]) -> Support | None:
        """Hook: the support of a variable, with its bounds at these values of the others."""
        support = self.supports[name]
        return None if support is None else support.at(values)

    @property
    def _ordered(self) -> bool:
        """Whether values may be given by position: a sum's terms commute, positions do not."""
        return True

    def _terms(self) -> "tuple[Energy, ...]":
        """Hook: energies of which this one is the sum."""
        return (self,)

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        """Hook: the energy of one variable given `values` of all others, entry by entry.

        None where its entries are not independent, or nobody knows; one entry needs no closed form.
        Where `values` has the variable too, they need be so only within a colour of the factors.
        """
        return enumerated(self, name, values)

    def _multilinear(self, names: Collection[str]) -> bool:
        """Hook: whether it is linear in each entry of these variables, and takes their means."""
        return not set(names) & set(self.variables)

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        """Hook: independent draws of the variables that have no value here, and their normaliser.

        None where nobody knows a way; by default where one variable is left, with a closed form.
        """
        return factorized(self, values)

    def _subsample(self, key: jax.Array, batch_size: int) -> "Energy":
        """Hook: a random energy whose mean over keys is this one, from fewer rows of data.

        Itself where there is no data factor in it.
        """
        return self

    # --- evaluate

    def at(self, values: Mapping[str, Any]) -> jax.Array:
        """The energy at a dict of values, one for each variable.

        Args:
            values: a value for each of `variables`, and no other.

        Raises:
            TypeError: when a name is missing or unknown.

        Example:
            >>> import energia as en, jax.numpy as jnp
            >>> pair = en.Ring() + en.Ring().rename(x="z")
            >>> float(pair.at({"x": jnp.ones(2), "z": jnp.ones(2)}))
            17.157...
        """
        check_names(self, values)
        return as_array(self(**values), self._name)

    def log_density(self, *args: Any, **kwargs: Any) -> jax.Array:
        """$-E$, the unnormalised log density; takes what a call takes."""
        return -as_array(self(*args, **kwargs), self._name)

    def score(self, *args: Any, **kwargs: Any) -> jax.Array | dict[str, jax.Array]:
        r"""The score $-\nabla E$ with respect to the continuous variables; takes what a call takes.

        Returns:
            The array itself where one value is given by position, else a dict by variable name
            (continuous variables only).

        Raises:
            TypeError: when no variable given is continuous, or the energy is not a scalar.

        Example:
            >>> import energia as en, jax.numpy as jnp
            >>> en.Gaussian(jnp.zeros(2)).score(jnp.array([1.0, 2.0])).tolist()
            [-1.0, -2.0]
        """
        values = {name: as_array(value) for name, value in self._bind(args, kwargs).items()}
        supports = self.supports
        alone = len(values) == 1 and bool(args)
        moving = {}
        for name, value in values.items():
            support = supports[name]
            known_discrete = support is not None and support.discrete
            real = alone or support is not None or jnp.issubdtype(value.dtype, jnp.floating)
            if real and not known_discrete:
                moving[name] = as_float(value)
        if not moving:
            raise TypeError(
                f"{self._name} has no score here: none of {list(values)} is continuous "
                "(a discrete variable has no gradient)"
            )
        gradient = jax.grad(lambda moving: -self._scalar_at({**values, **moving}))(moving)
        return next(iter(gradient.values())) if alone else gradient

    def _scalar_at(self, values: Mapping[str, Any]) -> jax.Array:
        energy = self.at(values)
        if energy.shape != ():
            raise TypeError(not_scalar(self, energy, values))
        if not jnp.issubdtype(energy.dtype, jnp.floating):
            raise TypeError(f"{self._formula()} must return a real number, got {energy.dtype}")
        return energy

    # --- compose

    def __add__(self, other: "Energy") -> "Energy":
        from energia.energies._algebra import add

        if not isinstance(other, Energy):
            return NotImplemented
        return add(self, other)

    def __radd__(self, other: Any) -> "Energy":
        # sum([E1, E2]) starts from 0
        return self if isinstance(other, int | float) and other == 0 else NotImplemented

    def __sub__(self, other: "Energy") -> "Energy":
        if not isinstance(other, Energy):
            return NotImplemented
        return self + (-other)

    def __neg__(self) -> "Energy":
        return -1.0 * self

    def __mul__(self, weight: Any) -> "Energy":
        from energia.energies._algebra import scale

        if isinstance(weight, Energy):
            raise TypeError("energies add; they do not multiply: a product of densities is E1 + E2")
        return scale(self, real_scalar(weight, "a weight"))

    __rmul__ = __mul__

    def __truediv__(self, temperature: Any) -> "Energy":
        from energia.energies._algebra import scale

        if isinstance(temperature, Energy):
            raise TypeError("energies subtract; they do not divide: a quotient is E1 - E2")
        temperature = real_scalar(temperature, "a temperature")
        if is_concrete(temperature) and not temperature > 0:
            raise ValueError(
                f"a temperature must be positive, got {temperature}: "
                "-E negates an energy, w * E weights it by any number"
            )
        return scale(self, 1 / temperature)

    def condition(self, **values: Any) -> "Substituted":
        """Fix variables: the energy of the rest, given these values.

        The values are array leaves, so batches and ladders of them vmap, and another value compiles
        nothing. They are never trained.

        Args:
            **values: a value by variable name.

        Raises:
            ValueError: when a name is not a variable, or a value does not fit its support.

        Example:
            >>> import energia as en, jax.numpy as jnp
            >>> @en.energy
            ... def coupled(x, y):
            ...     return (x - y) ** 2
            >>> float(coupled.condition(y=3)(1.0))
            4.0
        """
        from energia.energies._substituted import condition

        return condition(self, values)

    def rename(self, **names: str) -> "Substituted":
        """Rename variables: `E.rename(x='z')` is the energy of `z`.

        Args:
            **names: the new name by the old one.

        Raises:
            ValueError: when a name is not a variable, or the new one is taken.

        Example:
            >>> import energia as en
            >>> en.Ring().rename(x="z").variables
            ('z',)
        """
        from energia.energies._substituted import rename

        return rename(self, names)

    def substitute(self, **functions: Callable[..., Any]) -> "Substituted":
        """Replace variables by functions of other variables: the energy after a function.

        It is a substitution in the energy, with no Jacobian: right for inpainting, inverse
        problems, tied variables and non-centred forms, not for a change of variables in a density.

        Args:
            **functions: for each replaced variable a function whose parameter names are the new
                variables (or variables that the energy already has). Arrays inside an Equinox
                module given as a function are trained.

        Raises:
            ValueError: when a name is not a variable.

        Example:
            >>> import energia as en, jax.numpy as jnp
            >>> image = jnp.ones(3)
            >>> inpainted = en.Gaussian(jnp.zeros(3)).substitute(
            ...     x=lambda missing, image: image.at[1].set(missing))
            >>> inpainted.condition(image=image).variables
            ('missing',)
        """
        from energia.energies._substituted import substitute

        return substitute(self, functions)

    def marginalize(self, *names: str) -> "Energy":
        r"""Sum variables out: the free energy $-\log \sum_h e^{-E(v, h)}$ of the others.

        In closed form where the energy has one for the variable given the others (a layer of a
        Boltzmann machine, a Gaussian factor), else by enumeration of a finite support, of up to
        $2^{20}$ states in chunks, so that memory stays bounded. Of a sum only the terms that hold a
        variable are touched, and several variables are eliminated one after another in an order
        that keeps tables small: a hidden Markov model written as factors costs what the forward
        algorithm costs. A temperature stays where it was put: `(E / T).marginalize('h')` is not
        `E.marginalize('h') / T`.

        Args:
            *names: variables of known support, at least one.

        Raises:
            ValueError: when a name is no variable, its support is unknown, it is continuous and has
                no closed form, or there are too many states to enumerate.

        References:
            Dechter (1999), Bucket elimination: a unifying framework for reasoning.

        Example:
            >>> import energia as en, jax.numpy as jnp
            >>> @en.energy(z=en.Categorical(2))
            ... def labelled(x, z):
            ...     return 0.5 * (x - 4.0 * z) ** 2
            >>> round(float(labelled.marginalize("z")(2.0)), 4)  # 2 - log 2
            1.3069
        """
        from energia.energies._marginal import marginalize

        return marginalize(self, names)

    def constrain(self, **supports: Support) -> "Constrained":
        """Attach or replace the supports of variables; the values of the energy do not change.

        Args:
            **supports: a support by variable name.

        Raises:
            ValueError: when a name is not a variable.

        Example:
            >>> import energia as en
            >>> str(en.Ring().constrain(x=en.Interval(-1, 1, (2,))).supports["x"])
            '(-1, 1) (2,)'
        """
        from energia.energies._algebra import constrain

        return constrain(self, supports)

    def freeze(self) -> "Frozen":
        """The same energy with arrays that `en.fit` never trains.

        Example:
            >>> import energia as en
            >>> print(en.Ring().freeze())
            Ring(x)  [x: real (2,); 0 parameters]
        """
        from energia.energies._algebra import Frozen

        return Frozen(self)

    # --- read

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _formula(self, shown: Mapping[str, str] | None = None) -> str:
        """The energy as a formula; `shown` has what stands in the place of a variable."""
        shown = shown or {}
        return f"{self._name}({', '.join(shown.get(name, name) for name in self.variables)})"

    def _factor(self, shown: Mapping[str, str] | None = None) -> str:
        """The formula as a factor of a product: a sum stands in brackets."""
        return self._formula(shown)

    def __str__(self) -> str:
        known = [f"{n}: {s}" for n, s in self.supports.items() if s is not None]
        count = count_parameters(self)
        details = ", ".join(known) + "; " * bool(known)
        return f"{self._formula()}  [{details}{count} parameters]"

    def __repr__(self) -> str:
        return str(self)

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Values by variable name, from what a call was given."""
        return bound(self, args, kwargs)
