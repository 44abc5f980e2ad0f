"""NumPyro's models and distributions as energies."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_array, is_concrete, strong_tree
from energia.energies import Energy, constant
from energia.energies._numpyro import numpyro
from energia.interop._constraints import ends, support_of
from energia.supports import Binary, Interval, Support
from energia.supports._support import Bound


class NumPyroModel(Energy):
    """The negative log joint density of a NumPyro model; see `from_numpyro`."""

    model: Callable[..., Any]
    declared: tuple[tuple[str, Support], ...] = eqx.field(static=True)
    args: tuple[Any, ...] = constant()
    kwargs: dict[str, Any] = constant()

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        values, known = self._bind(args, kwargs), dict(self.declared)
        library = numpyro("from_numpyro()")
        values = {  # NumPyro's Bernoulli draws are integers, and models index by them
            name: x.astype(jnp.int32) if isinstance(known.get(name), Binary) else x
            for name, x in ((name, as_array(x)) for name, x in values.items())
        }
        # where a NumPyro model runs, the sites are none of its own; its checks warn by precision
        with library.handlers.block(), library.validation_enabled(False):
            joint, _ = library.infer.util.log_density(self.model, self.args, self.kwargs, values)
        return -as_array(joint)

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.declared)

    def _supports(self) -> Mapping[str, Support | None]:
        return dict(self.declared)

    def _support_at(self, name: str, values: Mapping[str, Any]) -> Support | None:
        support = dict(self.declared)[name]
        if isinstance(support, Interval) and support.functional:
            low, high = (self._end(end) for end in (support.low, support.high))
            support = Interval(low, high, support.shape)
        return support.at(values)

    def _end(self, end: Any) -> Any:
        """A bound that reads the arguments of this energy, not those that it was made with."""
        if not isinstance(end, Bound):
            return np.asarray(end)
        assert isinstance(end.function, _End)
        read = dataclasses.replace(end.function, args=self.args, kwargs=self.kwargs)
        return dataclasses.replace(end, function=read)

    @property
    def _name(self) -> str:
        return _name_of(self.model)


@dataclasses.dataclass(frozen=True)
class _End:
    """A bound of a site as a function of the sites before it, read off the model."""

    model: Callable[..., Any]
    site: str
    upper: bool
    args: tuple[Any, ...] = dataclasses.field(compare=False)
    kwargs: dict[str, Any] = dataclasses.field(compare=False)

    def __call__(self, **values: Any) -> Any:
        site = _trace(self.model, self.args, self.kwargs, values)[self.site]
        bounds = ends(site["fn"].support)
        assert bounds is not None
        return bounds[self.upper]


def from_numpyro(model: Any, /, *args: Any, **kwargs: Any) -> Energy:
    r"""A NumPyro model, or one of its distributions, as an energy.

    The energy is the negative log joint density of the model at its latent sites,
    $E(\theta) = -\log p(\theta, y)$, with the sites as variables in the space where the model has
    them, and their supports. Observed sites and factors are parts of it, deterministic sites are
    not variables. A support whose bounds depend on other sites becomes an interval between
    functions of them.

    Args:
        model: a function that calls `numpyro.sample`, or a distribution.
        *args: what the model is called with. Arrays are array leaves of the energy, never trained:
            other data of the same shape compile nothing.
        **kwargs: likewise; for a distribution `name=` is the variable's name, by default `x`.

    Raises:
        ImportError: when NumPyro is not installed.
        TypeError: when the model reads numbers of its arguments while it is traced: close over
            those, `from_numpyro(lambda: model(X, y))`.
        ValueError: when it has no latent site, subsamples a plate, has `param` sites, or a site's
            support cannot be said.

    References:
        Phan, Pradhan, Jankowiak (2019), Composable effects for flexible and accelerated
        probabilistic programming in NumPyro.

    Example:
        >>> import energia as en, numpyro, numpyro.distributions as dist, numpy as np
        >>> def model(y):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 5))
        ...     tau = numpyro.sample("tau", dist.HalfCauchy(5))
        ...     numpyro.sample("y", dist.Normal(mu, tau), obs=y)
        >>> E = en.interop.from_numpyro(model, np.array([1.0, 2.0, 4.0]))
        >>> print(E)
        model(mu, tau)  [mu: real (), tau: positive (); 0 parameters]
        >>> print(en.interop.from_numpyro(dist.Gamma(2.0, 1.0), name="rate"))
        Gamma(rate)  [rate: positive (); 0 parameters]
    """
    library = numpyro("from_numpyro()")
    if isinstance(model, library.distributions.Distribution):
        name = kwargs.pop("name", "x")
        if args or kwargs:
            raise TypeError(f"from_numpyro() of a distribution takes name=, got {args} {kwargs}")
        model, args = _One(name, type(model).__name__), (model,)
    if isinstance(model, Energy) or not callable(model):
        raise TypeError(f"from_numpyro() takes a model or a distribution of NumPyro, got {model!r}")
    args, kwargs = strong_tree((args, kwargs))
    supports = _supports(model, args, kwargs)
    if not supports:
        raise ValueError(f"from_numpyro(): {_name_of(model)} has no latent sample site")
    return NumPyroModel(model, tuple(supports.items()), args, kwargs)


@dataclasses.dataclass(frozen=True)
class _One:
    """The model of one site."""

    site: str
    __name__: str

    def __call__(self, distribution: Any) -> None:
        numpyro("from_numpyro()").sample(self.site, distribution)


def _trace(
    model: Callable[..., Any], args: Any, kwargs: Any, values: Mapping[str, Any], seed: int = 0
) -> dict[str, Any]:
    """The sites of a run of the model, where latent ones without a value are drawn."""
    library = numpyro("from_numpyro()")

    def value(site: dict[str, Any]) -> Any:
        name = site["name"]
        return values[name] if name in values else library.infer.init_to_uniform(site)

    handlers = library.handlers
    run = handlers.substitute(handlers.seed(model, seed), substitute_fn=value)
    with handlers.block():
        return handlers.trace(run).get_trace(*args, **kwargs)


def _supports(model: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> dict[str, Support]:
    """The latent sites with their supports."""
    sites = _latent_sites(model, args, kwargs)
    if all(_is_plain(site["fn"].support) for site in sites.values()):
        runs = [sites]
    else:  # bounds that depend on other sites differ between two runs
        runs = [_latent(_trace(model, args, kwargs, {}, seed)) for seed in (1, 2)]
    supports: dict[str, Support] = {}
    for name, site in sites.items():
        constraints = [run[name]["fn"].support for run in runs]
        shape = tuple(jnp.shape(site["value"]))
        first, last = (_numbers(constraint) for constraint in (constraints[0], constraints[-1]))
        if all(map(np.array_equal, first, last)):
            supports[name] = support_of(constraints[0], shape, name)
            continue
        pairs = [ends(constraint) for constraint in constraints]
        before = tuple(supports)

        def bound(upper: bool, pairs=pairs, before=before, name=name) -> Any:
            numbers = [np.asarray(pair[upper], float) for pair in pairs if pair is not None]
            if np.array_equal(numbers[0], numbers[-1]):
                return numbers[0]
            end = _End(model, name, upper, args, kwargs)
            return Bound(end, before, tuple((other,) for other in before))

        if None in pairs or not before:
            raise ValueError(
                f"from_numpyro(): the support of {name!r}, {constraints[0]}, differs between two "
                "runs of the model, and is no interval between functions of other sites"
            )
        supports[name] = Interval(bound(False), bound(True), shape)
    return supports


def _latent_sites(model: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """The latent sites of an abstract run, in which arrays have no numbers."""
    found: list[dict[str, Any]] = []
    dynamic, static = eqx.partition((args, kwargs), eqx.is_array)

    def look(dynamic: Any) -> None:
        args, kwargs = eqx.combine(dynamic, static)
        found.append(_latent(_trace(model, args, kwargs, {})))

    try:
        jax.eval_shape(look, dynamic)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise TypeError(
            f"from_numpyro(): {_name_of(model)} reads numbers of its arguments while it is traced; "
            "arrays are arguments of the compiled energy: close over what must be numbers, "
            "from_numpyro(lambda: model(X, y))"
        ) from error
    return found[0]


def _latent(trace: Mapping[str, Any]) -> dict[str, Any]:
    """The latent sample sites; raises where a site has no place in a density."""
    for name, site in trace.items():
        if site["type"] in ("param", "mutable"):
            raise ValueError(
                f"from_numpyro(): {name!r} is a {site['type']} site, which a density of latent "
                "variables has no place for: sample it, or fix it with numpyro.handlers.substitute"
            )
        if site["type"] == "plate":
            size, subsample_size = site["args"]
            if subsample_size not in (None, size):
                raise ValueError(
                    f"from_numpyro(): the plate {name!r} draws {subsample_size} of {size} rows at "
                    "random, so that the density would be random: leave out subsample_size"
                )
    return {n: s for n, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}


def _numbers(constraint: Any) -> list[Any]:
    return jax.tree.leaves(constraint)


def _is_plain(constraint: Any) -> bool:
    """Whether the numbers in a constraint can be seen."""
    return all(map(is_concrete, _numbers(constraint)))


def _name_of(model: Any) -> str:
    while not hasattr(model, "__name__"):
        inner = getattr(model, "func", None) or getattr(model, "fn", None)
        if inner is None:
            return type(model).__name__
        model = inner
    return model.__name__
