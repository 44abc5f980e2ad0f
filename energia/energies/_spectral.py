"""Spectral normalisation: layers divided by their largest singular value."""

import equinox as eqx
import jax
import jax.numpy as jnp

from energia.energies._trainable import Following, constant

FIRST_ITERATIONS, ITERATIONS = 100, 3
LEAST = 1e-12


class SpectralNorm(Following):
    r"""A layer whose weight is divided by its spectral norm, $Wx / \lVert W \rVert_2 + b$.

    $\lVert W \rVert_2$ is the largest singular value of the linear map itself: of a convolution,
    of the map of images with its padding and stride, not of the kernel reshaped to a matrix. With
    singular vectors $u$ and $v$ it is $\langle u, Wv \rangle$, linear in the weight, so that the
    layer holds its derivative by the weight, and one inner product gives the norm. The vectors are
    constant, so sampling does not move them; `en.fit` makes three power iterations after each
    optimiser step, with which they follow the weight. What the iterations lack, the norm is
    underestimated by: some parts in a hundred while weights move fast, less at small steps.

    Args:
        layer: a linear map with a `weight` and a bias.
        shape: of its argument.
        key: a typed JAX key for the vector that the iteration begins with.

    References:
        Miyato, Kataoka, Koyama and Yoshida (2018), Spectral normalization for generative
        adversarial networks. Gouk, Frank, Pfahringer and Cree (2021), Regularisation of neural
        networks by enforcing Lipschitz continuity (the norm of the convolution itself).
    """

    layer: eqx.nn.Linear | eqx.nn.Conv2d
    right: jax.Array = constant()
    slope: jax.Array = constant()

    def __init__(
        self, layer: eqx.nn.Linear | eqx.nn.Conv2d, shape: tuple[int, ...], key: jax.Array
    ):
        self.layer = layer
        start = jax.random.normal(key, shape, layer.weight.dtype)
        self.right, self.slope = _iterated(layer, start, jnp.int32(FIRST_ITERATIONS))

    def __call__(self, x: jax.Array) -> jax.Array:
        weight = self.layer.weight
        norm = jnp.vdot(self.slope, weight)
        return _with_weight(self.layer, weight / jnp.maximum(norm, LEAST))(x)

    def refreshed(self) -> "SpectralNorm":
        vectors = _iterated(self.layer, self.right, jnp.int32(ITERATIONS))
        return eqx.tree_at(lambda norm: (norm.right, norm.slope), self, vectors)


@eqx.filter_jit
def _iterated(
    layer: eqx.nn.Linear | eqx.nn.Conv2d, right: jax.Array, count: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The right singular vector after power iterations, and the norm's slope by the weight."""

    def image(weight: jax.Array, vector: jax.Array) -> jax.Array:
        whole = _with_weight(layer, weight)
        return jax.jvp(whole, (jnp.zeros_like(vector),), (vector,))[1]  # without the bias

    def iterate(_: jax.Array, right: jax.Array) -> jax.Array:
        left, transpose = jax.vjp(lambda vector: image(layer.weight, vector), right)
        return _unit(transpose(left)[0])

    right = jax.lax.fori_loop(0, count, iterate, _unit(right))
    left, by_weight = jax.vjp(lambda weight: image(weight, right), layer.weight)
    return right, by_weight(_unit(left))[0]


def _with_weight(
    layer: eqx.nn.Linear | eqx.nn.Conv2d, weight: jax.Array
) -> eqx.nn.Linear | eqx.nn.Conv2d:
    return eqx.tree_at(lambda layer: layer.weight, layer, weight)


def _unit(vector: jax.Array) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(jnp.ravel(vector)), LEAST)
