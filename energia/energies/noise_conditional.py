"""An energy at every noise level: one network of a datum and the level."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from energia._types import as_float, as_shape, check_count, check_key
from energia.energies._checks import one_value, positive
from energia.energies._energy import Energy
from energia.energies._trainable import constant
from energia.supports import Positive, Real, Support

FORMS = ("scalar", "quadratic")
EMBEDDINGS = ("fourier", "learned", None)
LOWEST, HIGHEST = 0.25, 4.0  # frequencies, in radians for each factor e of the level


class NoiseConditional(Energy):
    r"""$E(x, \sigma)$: an energy of the data at every noise level, by one network.

    What `'dsm'` with a ladder and `'drl'` train, and what `en.Path(E, sigma=sigmas)` runs along.
    With the form 'scalar' the energy is the network's value, $E(x, \sigma) = f(x, \sigma)$. With
    'quadratic' the network gives values like x, and

    $E(x, \sigma) = \lVert x - f(x, \sigma) \rVert^2 / 2\sigma^2$,

    which is bounded from below, and whose scores grow as $1/\sigma$, as those of noised data do,
    while the network's values have the size of the data. What is learned is the gradient,
    $(I - \partial f / \partial x)^\top (x - f) / \sigma^2$, so that f has a denoiser's size and is
    none: the best guess of the datum is $x - \sigma^2 \nabla E$.

    With `data_scale`, $s$, the network sees $u = x / \sqrt{s^2 + \sigma^2}$, of about the size of
    1 at every level, and what it gives is added to a first guess:

    $E = \tfrac12 \lVert u \rVert^2 + f(u, \sigma)$ for 'scalar', where the guess is exact for
    normal data of that scale, and for 'quadratic'
    $E = \lVert x - D \rVert^2 / 2\sigma^2$ with
    $D = \tfrac{s^2}{s^2 + \sigma^2}\, x + \tfrac{s\sigma}{\sqrt{s^2 + \sigma^2}}\, f(u, \sigma)$,
    where the guess is their posterior mean, and E too flat by the factor
    $\sigma^2 / (s^2 + \sigma^2)$ until f is trained.

    A network that is an energy of one variable, as `en.MLPEnergy` and `en.ConvEnergy` are, gets x
    and the level side by side: joined on the last axis, of an image as further channels, the same
    everywhere. So `en.ConvEnergy((8, 8, 1 + 16), key=key)` serves images of shape (8, 8, 1) with an
    embedding of size 16, and with `shape=(8, 8)` those without an axis of channels.

    Args:
        network: $f$, called as `network(x, sigma)` with a scalar sigma, or with its embedding of
            shape (embedding_size,) in its place: an Equinox module, whose arrays are trained, or a
            function. Its values are scalars, or have the shape of x where the form is 'quadratic'.
        form: 'scalar' or 'quadratic'.
        embedding: what the network gets in place of the number. 'fourier':
            $\cos$ and $\sin$ of $\omega_k \log \sigma$, with frequencies from 1/4 to 4 at equal
            ratios, which are not trained. 'learned': a perceptron of $\log \sigma$ with one hidden
            layer, trained with the network. None: the number itself.
        embedding_size: numbers in an embedding, at least 1; for 'fourier' even.
        data_scale: $s$, the standard deviation of the data, a positive number, not trained; None:
            the network gets x as it is, and its value is all there is.
        shape: of x, a real variable. None: what is left of the variable of such an energy, else
            unknown: then `.constrain` says it where a sampler or an objective needs to know.
        key: a typed JAX key for the initial weights of a 'learned' embedding.

    Raises:
        TypeError: when `network` cannot be called, or a 'learned' embedding has no key.
        ValueError: for another form or embedding, and when the network's values or the size of its
            variable do not fit.

    References:
        Song and Ermon (2019), Generative modeling by estimating gradients of the data distribution.
        Salimans and Ho (2021), Should EBMs model the energy or the score? (the quadratic form).
        Karras, Aittala, Aila and Laine (2022), Elucidating the design space of diffusion-based
        generative models (the scalings of `data_scale`).
        Tancik et al. (2020), Fourier features let networks learn high frequency functions in low
        dimensional domains.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> network = en.MLPEnergy(2 + 8, width=16, key=jax.random.key(0))
        >>> blurred = en.NoiseConditional(network, embedding="fourier", embedding_size=8)
        >>> print(blurred)
        NoiseConditional(x, sigma)  [x: real (2,), sigma: positive (); 465 parameters]
        >>> en.Path(blurred, sigma=jnp.geomspace(3.0, 0.1, 5)).variables
        ('x',)
        >>> denoiser = lambda x, sigma: x / (1 + sigma**2)
        >>> quadratic = en.NoiseConditional(denoiser, form="quadratic", shape=2)
        >>> round(float(quadratic(jnp.array([3.0, 4.0]), 1.0)), 3)
        3.125
    """

    network: Callable[..., jax.Array]
    embedding: "_Fourier | _Learned | None"
    form: str = eqx.field(static=True)
    shape: tuple[int, ...] | None = eqx.field(static=True)
    data_scale: jax.Array | None = constant()

    def __init__(
        self,
        network: Callable[..., jax.Array],
        *,
        form: str = "scalar",
        embedding: str | None = None,
        embedding_size: int = 16,
        data_scale: float | None = None,
        shape: int | Sequence[int] | None = None,
        key: jax.Array | None = None,
    ):
        if not callable(network):
            raise TypeError(f"network must be a function of x and sigma, got {network!r}")
        if form not in FORMS:
            raise ValueError(f"form= must be one of {FORMS}, got {form!r}")
        if embedding not in EMBEDDINGS:
            raise ValueError(f"embedding= must be one of {EMBEDDINGS}, got {embedding!r}")
        size = check_count(embedding_size, "embedding_size", 1)
        self.embedding = None
        if embedding == "fourier":
            self.embedding = _Fourier(size)
        elif embedding == "learned":
            self.embedding = _Learned(size, check_key(key))
        self.network, self.form = network, form
        self.data_scale = None
        if data_scale is not None:
            self.data_scale = positive(as_float(data_scale, "data_scale"), "data_scale")
        shape = None if shape is None else as_shape(shape)
        if _is_network_of_one(network):
            shape = _left(network, 1 if embedding is None else size, shape)
        self.shape = shape
        if shape is not None:
            x = jax.ShapeDtypeStruct(shape, as_float(0.0).dtype)
            eqx.filter_eval_shape(self, x, jax.ShapeDtypeStruct((), x.dtype))

    def __call__(self, x: ArrayLike, sigma: ArrayLike) -> jax.Array:
        x = as_float(x, "x") if self.shape is None else one_value(self, x, self.shape)
        sigma = as_float(sigma, "sigma")
        if sigma.shape:
            raise ValueError(
                f"{self._formula()} takes one level sigma, got shape {sigma.shape}: batches are "
                "made with jax.vmap"
            )
        sigma = positive(sigma, "sigma")
        inner, scale = x, self.data_scale
        if scale is not None:
            inner = x / jnp.sqrt(scale**2 + sigma**2)
        value = as_float(self._value(inner, sigma), "network")
        wanted = x.shape if self.form == "quadratic" else ()
        if value.shape != wanted:
            hint = "" if wanted else ": form='quadratic' takes a network whose values are like x"
            raise ValueError(
                f"network must give values of shape {wanted} for form={self.form!r}, got "
                f"{value.shape}{hint}"
            )
        if self.form == "scalar":
            return value if scale is None else 0.5 * jnp.sum(inner**2) + value
        if scale is None:
            return 0.5 * jnp.sum((x - value) ** 2) / sigma**2
        # (x - D) / σ, with σ divided out: at small levels x and D are all but alike
        residual = (sigma * inner - scale * value) / jnp.sqrt(scale**2 + sigma**2)
        return 0.5 * jnp.sum(residual**2)

    def _value(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
        level = sigma if self.embedding is None else self.embedding(sigma)
        network = self.network
        if not _is_network_of_one(network):
            return network(x, level)
        wanted = _variable(network)
        x, level = x.reshape(*wanted[:-1], -1), jnp.atleast_1d(level)
        return network(
            jnp.concatenate([x, jnp.broadcast_to(level, (*x.shape[:-1], level.size))], -1)
        )

    def _supports(self) -> Mapping[str, Support | None]:
        return {"x": None if self.shape is None else Real(self.shape), "sigma": Positive()}


class _Fourier(eqx.Module):
    frequencies: jax.Array = constant()

    def __init__(self, size: int):
        if size % 2:
            raise ValueError(f"embedding_size= must be even for 'fourier', got {size}")
        count = size // 2
        ratio = (HIGHEST / LOWEST) ** (1 / max(count - 1, 1))
        self.frequencies = as_float([LOWEST * ratio**index for index in range(count)])

    def __call__(self, sigma: jax.Array) -> jax.Array:
        angles = self.frequencies * jnp.log(sigma)
        return math.sqrt(2) * jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])


class _Learned(eqx.Module):
    network: eqx.nn.MLP

    def __init__(self, size: int, key: jax.Array):
        self.network = eqx.nn.MLP("scalar", size, size, 1, activation=jax.nn.silu, key=key)

    def __call__(self, sigma: jax.Array) -> jax.Array:
        return self.network(jnp.log(sigma))


def _is_network_of_one(network: Any) -> bool:
    return isinstance(network, Energy) and len(network.variables) == 1


def _variable(network: Any) -> tuple[int, ...]:
    """The shape of the one variable of an energy."""
    ((name, support),) = network.supports.items()
    if support is None or not support.shape:
        raise ValueError(
            f"a network that is an energy takes x and the level joined on the last axis: say of "
            f"which shape {name!r} is, {network._formula()}.constrain({name}=en.Real(...))"
        )
    return support.shape


def _left(network: Any, size: int, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape that the level leaves of the variable of an energy."""
    *rest, last = _variable(network)
    left = (*rest, last - size)
    if last <= size:
        raise ValueError(
            f"{network._formula()} of shape {(*rest, last)} leaves no room for x beside the level, "
            f"which takes {size} of the last axis"
        )
    if shape is None or shape == left or (*shape, 1) == left:
        return left if shape is None else shape
    raise ValueError(
        f"shape={shape} does not fit {network._formula()} of shape {(*rest, last)}: beside the "
        f"level, which takes {size} of the last axis, x has the shape {left}"
    )
