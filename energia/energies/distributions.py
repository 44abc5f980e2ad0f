"""Distributions by name: energies of a value and its parameters, with NumPyro's densities."""

import inspect
import keyword
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia import supports
from energia._types import (
    as_array,
    as_float,
    as_shape,
    check_broadcast,
    check_count,
    is_concrete,
)
from energia.energies import analytic
from energia.energies._energy import Energy
from energia.energies._exact import Exact
from energia.energies._factors import Categorical, Factors
from energia.energies._factors import Normal as NormalFactors
from energia.energies._law import Law, real
from energia.energies._laws import LAWS, MEANING
from energia.energies._numpyro import numpyro
from energia.energies._substituted import replace
from energia.supports import Support

Shape = tuple[int, ...]
VALUE = "x"


class Distribution(Energy):
    r"""$E(x, \theta) = -\sum_i \log p(x_i \mid \theta)$: a distribution of a value and parameters.

    Made by the functions of this module. The density is NumPyro's. Where the shape of a value is
    unknown its support is too, and the energy itself is infinite outside.
    """

    law: str = eqx.field(static=True)
    parameters: tuple[str, ...] = eqx.field(static=True)
    sizes: tuple[tuple[str, int], ...] = eqx.field(static=True)
    shape: Shape | None = eqx.field(static=True)
    support: Support | None = eqx.field(static=True)

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        values = self._bind(args, kwargs)
        distribution = self._given(values)
        value = self._cast(values[VALUE])
        self._check_shape(value.shape, distribution)
        energy = -jnp.sum(distribution.log_prob(value))
        if self.support is not None or LAWS[self.law].support is real:
            return energy
        return jnp.where(jnp.all(distribution.support(value)), energy, jnp.inf)

    @property
    def variables(self) -> tuple[str, ...]:
        return (VALUE, *self.parameters)

    def _supports(self) -> Mapping[str, Support | None]:
        return {VALUE: self.support}

    def _given(self, values: Mapping[str, Any]) -> Any:
        """NumPyro's distribution at values of the parameters."""
        law, library = LAWS[self.law], numpyro(f"en.{self.law}")
        make = getattr(library.distributions, law.class_name(self.parameters))
        given = {name: values[name] for name in self.parameters}
        return make(**dict(self.sizes), **given, validate_args=False)

    def _cast(self, value: Any) -> jax.Array:
        """The value as NumPyro needs it: functions of integers lose digits in 64 bits."""
        if not LAWS[self.law].indexes:
            return as_float(value, self._name)
        whole = as_array(value, self._name)
        return whole.astype(jnp.int32)

    def _check_shape(self, shape: Shape, distribution: Any) -> None:
        """Raise where parameters would widen a value: a sum over copies of it looks plausible."""
        if self.shape is not None and shape != self.shape:
            raise ValueError(
                f"{self._formula()} takes one value of shape {self.shape}, got {shape}: batches "
                "are made with jax.vmap, and shape= says what is one value"
            )
        _check_fits(self.law, distribution.batch_shape, distribution.event_shape, shape)

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        law = LAWS[self.law]
        if name == VALUE and self.shape is not None and law.event == 0:
            if isinstance(self.support, supports.Discrete):
                states = self.support.values(jnp.arange(len(self.support.states)))
                return self._categorical(states, values)
            if law.name == "Discrete":  # its states are known with the parameter
                count = jnp.shape(values[self.parameters[0]])[-1]
                return self._categorical(jnp.arange(count, dtype=jnp.int32), values)
            if law.name == "Normal":
                return self._quadratic(name, jnp.zeros(self.shape), values)
        if law.name == "Normal" and name == "loc":
            return self._quadratic(name, as_float(values[VALUE]), values)
        return super()._factorize(name, values)

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        support, shape = self.support, self.shape
        if set(values) != set(self.parameters) or support is None or shape is None:
            return super()._exact(values)

        def draw(key: jax.Array) -> dict[str, jax.Array]:
            distribution = self._given(values)
            batch = shape[: len(shape) - len(distribution.event_shape)]
            drawn = distribution.expand(batch).sample(key)
            return {VALUE: drawn.astype(support.dtype)}

        return Exact(draw, as_float(0.0), constant=True)

    def _categorical(self, states: jax.Array, values: Mapping[str, Any]) -> Categorical:
        assert self.shape is not None
        shape, distribution = self.shape, self._given(values)
        _check_fits(self.law, distribution.batch_shape, distribution.event_shape, shape)
        logits = jax.vmap(lambda state: distribution.log_prob(jnp.broadcast_to(state, shape)))
        return Categorical(as_float(0.0), jnp.moveaxis(logits(self._cast(states)), 0, -1))

    def _quadratic(self, name: str, like: jax.Array, values: Mapping[str, Any]) -> NormalFactors:
        """A normal distribution as a function of its value or of its location.

        The location may be narrower than the value: whoever knows its shape sums over the rest.
        """
        other = values["loc" if name == VALUE else VALUE]
        precision = jnp.broadcast_to(jnp.asarray(values["scale"], like.dtype) ** -2, like.shape)
        base = self.at({**values, name: jnp.zeros_like(like)})
        return NormalFactors(base, precision * other, precision)

    @property
    def _name(self) -> str:
        return self.law

    def _formula(self, shown: Mapping[str, str] | None = None) -> str:
        shown = shown or {}
        sizes = [f"{name}={size}" for name, size in self.sizes]
        given = [*sizes, *(shown.get(name, name) for name in self.parameters)]
        return f"{self.law}({shown.get(VALUE, VALUE)} | {', '.join(given)})"


def _check_fits(law: str, batch: Shape, event: Shape, shape: Shape) -> None:
    if shape[len(shape) - len(event) :] != event or len(shape) < len(event):
        raise ValueError(f"{law} has draws of shape {event} in the last axes, got shape {shape}")
    check_broadcast(
        batch,
        shape[: len(shape) - len(event)],
        f"{law} (shape= says what one value is): parameters",
    )


# --- constructors


def _construct(law: Law, args: tuple[Any, ...], shape: Any, kwargs: Mapping[str, Any]) -> Energy:
    name, args = (args[0], args[1:]) if args and isinstance(args[0], str) else (VALUE, args)
    sizes, given = _arguments(law, args, kwargs)
    replacements = {parameter: _replacement(law, parameter, v) for parameter, v in given.items()}
    numbers = {p: v for p, v in replacements.items() if isinstance(v, jax.Array)}
    _check_names(law, name, [v for v in replacements.values() if isinstance(v, str)])
    parameters = tuple(given)
    seen = {p: np.asarray(v) for p, v in numbers.items() if is_concrete(v)}
    _check_numbers(law, parameters, seen)
    energy = Distribution(law.name, parameters, tuple(sizes.items()), None, None)
    known = as_shape(shape) if shape is not None else None
    if len(numbers) == len(parameters):
        batch, event = _shapes(energy, numbers)
        if known is None:
            known = batch + event
        _check_fits(law.name, batch, event, known)
    elif known is None and law.event == 0:
        known = np.broadcast_shapes(*(_batch(law, p, v.shape) for p, v in numbers.items()))
    if known is not None and len(known) < law.event:
        raise ValueError(f"{law.name} has draws of {law.event} axes, got shape={known}")
    if known is not None:
        absent = {"low": -np.inf, "high": np.inf} if law.optional else {}
        ends = {p: np.asarray(absent[p]) for p in law.optional if p not in given}
        support = law.support(known, {**seen, **ends})
        energy = Distribution(law.name, parameters, tuple(sizes.items()), known, support)
    new = {VALUE: name, **replacements}
    new = {
        old: value for old, value in new.items() if not (isinstance(value, str) and value == old)
    }
    return replace(energy, new) if new else energy


def _batch(law: Law, parameter: str, shape: Shape) -> Shape:
    """The shape of the values that a parameter of this shape is for."""
    return shape[:-1] if parameter in ("probs", "logits", "cutpoints") and law.indexes else shape


def _is(value: Any, name: str) -> bool:
    return isinstance(value, str) and value == name


def _arguments(
    law: Law, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, int], dict[str, Any]]:
    """Sizes, and what is given for each parameter, in the order of the table."""
    forms = {form: p.split("|") for p in law.parameters for form in p.split("|")}
    forms |= {p: [p] for p in law.optional}
    order = [*law.sizes, *(p.split("|")[0] for p in law.parameters)]
    signature = f"en.{law.name}{_signature(law)}"
    if len(args) > len(order):
        raise TypeError(f"{signature} got {len(args)} parameters by position")
    given = dict(zip(order, args, strict=False))
    if unknown := [name for name in kwargs if name not in forms and name not in law.sizes]:
        raise TypeError(f"{signature} got an unknown parameter {unknown[0]!r}")
    if twice := [name for name in kwargs if name in given]:
        raise TypeError(f"{signature} got {twice[0]!r} twice")
    given |= kwargs
    for parameter in (*law.sizes, *law.parameters):
        found = [form for form in parameter.split("|") if form in given]
        if len(found) != 1:
            raise TypeError(
                f"{signature} needs {' or '.join(parameter.split('|'))}"
                + (f", and one of them: got {found}" if found else "")
            )
    if law.optional and not any(name in given for name in law.optional):
        raise TypeError(f"{signature} needs {' or '.join(law.optional)}")
    sizes = {name: check_count(given.pop(name), name, 2) for name in law.sizes}
    return sizes, {form: given[form] for form in forms if form in given}


def _replacement(law: Law, parameter: str, value: Any) -> Any:
    """What stands for a parameter: a name, a function, or an array."""
    if isinstance(value, Energy | Support | type):
        raise TypeError(
            f"{law.name}: {parameter}= must be numbers, the name of a variable, or a function of "
            f"variables, got {value!r}"
        )
    if isinstance(value, str) or callable(value):
        return value
    return as_float(value, f"{law.name}: {parameter}=")


def _check_names(law: Law, name: str, parameters: list[str]) -> None:
    for each in (name, *parameters):
        if not each.isidentifier() or keyword.iskeyword(each):
            raise ValueError(f"{law.name}: {each!r} can be no variable: it is no Python name")
    if name in parameters:
        raise ValueError(f"{law.name}: the variable {name!r} cannot be its own parameter")


def _check_numbers(law: Law, parameters: tuple[str, ...], numbers: Mapping[str, Any]) -> None:
    """Raise where a number is outside NumPyro's constraint for its parameter."""
    if not numbers:
        return
    distributions = numpyro(f"en.{law.name}").distributions
    known = getattr(distributions, law.class_name(parameters, constraints=True)).arg_constraints
    for parameter, value in numbers.items():
        constraint, what = known.get(parameter), "finite"
        good = bool(np.isfinite(value).all())
        if constraint is not None and not distributions.constraints.is_dependent(constraint):
            what += f" and in {constraint}, as NumPyro calls it"
            if value.ndim < constraint.event_dim:
                raise ValueError(
                    f"{law.name}: {parameter}= needs at least {constraint.event_dim} axes, got "
                    f"shape {value.shape}"
                )
            good = good and bool(np.all(constraint(value)))
        if not good:
            shown = np.round(value, 6).tolist()
            raise ValueError(f"{law.name}: {parameter}= must be {what}; got {shown}")


def _shapes(energy: Distribution, numbers: Mapping[str, jax.Array]) -> tuple[Shape, Shape]:
    """Batch and event shape of the distribution, without a computation."""
    shapes: list[tuple[Shape, Shape]] = []

    def look(numbers: Mapping[str, jax.Array]) -> None:
        distribution = energy._given(numbers)
        shapes.append((tuple(distribution.batch_shape), tuple(distribution.event_shape)))

    try:
        jax.eval_shape(look, dict(numbers))
    except ValueError as error:
        given = ", ".join(f"{name} of shape {value.shape}" for name, value in numbers.items())
        raise ValueError(f"{energy.law}: the parameters do not fit together: {given}") from error
    return shapes[0]


# --- the functions


def _signature(law: Law) -> inspect.Signature:
    kinds = inspect.Parameter
    positional = ["name", *law.sizes, *(p.split("|")[0] for p in law.parameters)]
    others = [form for p in law.parameters for form in p.split("|")[1:]]
    keywords = [*others, *law.optional, "shape"]
    return inspect.Signature(
        [kinds(p, kinds.POSITIONAL_OR_KEYWORD) for p in positional]
        + [kinds(p, kinds.KEYWORD_ONLY, default=None) for p in keywords]
    )


def _document(law: Law) -> str:
    forms = [form for p in (*law.sizes, *law.parameters) for form in p.split("|")]
    lines = [f"        {name}: {MEANING[name]}." for name in (*forms, *law.optional)]
    example = f'en.{law.name}("y", {law.example})'
    return f"""{law.summary}.

    $p(x) = {law.density}$

    An energy of a value and its parameters, $E = -\\log p$, summed over the entries of `shape`,
    and normalised. A parameter is given as numbers, which are never trained; as the name of a
    variable; or as a function whose parameter names are variables. The density is NumPyro's.

    Args:
        name: the variable; `x` where it is left out.
{chr(10).join(lines)}
        shape: shape of one value; by default what the parameters that are numbers broadcast to:
            a scalar where none is an array.

    Raises:
        ImportError: when NumPyro is not installed.
        TypeError: when a parameter is missing, unknown or given twice.
        ValueError: when numbers are outside what the parameter may be, or shapes do not fit.

    Example:
        >>> import energia as en
        >>> {example}.variables
        ('y',)
    """


def _function(name: str, make: Callable[..., Energy] | None = None) -> Callable[..., Energy]:
    """The function `en.<name>`."""
    law = LAWS[name]

    def distribution(*args: Any, shape: Any = None, **kwargs: Any) -> Energy:
        if make is not None:
            return make(*args, shape=shape, **kwargs)
        return _construct(law, args, shape, kwargs)

    distribution.__name__ = distribution.__qualname__ = law.name
    distribution.__doc__ = _document(law)
    distribution.__dict__["__signature__"] = _signature(law)
    return distribution


def _uniform(*args: Any, shape: Any = None, **kwargs: Any) -> Energy:
    named = bool(args) and isinstance(args[0], str)
    bounds = {**dict(zip(("low", "high"), args[named:], strict=False)), **kwargs}
    plain = set(bounds) == {"low", "high"} and len(args[named:]) + len(kwargs) == 2
    if plain and all(isinstance(end, int | float) for end in bounds.values()):
        box = analytic.Uniform(**bounds, shape=() if shape is None else shape)  # needs no NumPyro
        return box.rename(x=args[0]) if named and args[0] != VALUE else box
    return _construct(LAWS["Uniform"], args, shape, kwargs)


AsymmetricLaplace = _function("AsymmetricLaplace")
Bernoulli = _function("Bernoulli")
Beta = _function("Beta")
BetaBinomial = _function("BetaBinomial")
Binomial = _function("Binomial")
Cauchy = _function("Cauchy")
Chi2 = _function("Chi2")
Dirichlet = _function("Dirichlet")
Discrete = _function("Discrete")
Exponential = _function("Exponential")
Gamma = _function("Gamma")
Geometric = _function("Geometric")
Gumbel = _function("Gumbel")
HalfCauchy = _function("HalfCauchy")
HalfNormal = _function("HalfNormal")
InverseGamma = _function("InverseGamma")
LKJ = _function("LKJ")
Laplace = _function("Laplace")
LogNormal = _function("LogNormal")
LogUniform = _function("LogUniform")
Logistic = _function("Logistic")
MultivariateNormal = _function("MultivariateNormal")
NegativeBinomial = _function("NegativeBinomial")
NegativeBinomial2 = _function("NegativeBinomial2")
Normal = _function("Normal")
OrderedLogistic = _function("OrderedLogistic")
Pareto = _function("Pareto")
Poisson = _function("Poisson")
StudentT = _function("StudentT")
TruncatedNormal = _function("TruncatedNormal")
Uniform = _function("Uniform", _uniform)
VonMises = _function("VonMises")
Weibull = _function("Weibull")
ZeroInflatedPoisson = _function("ZeroInflatedPoisson")
