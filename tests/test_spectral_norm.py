"""Spectral normalisation: the norm is one, sampling leaves its vectors, and training moves them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energia as en
from energia.energies._spectral import SpectralNorm
from energia.energies._trainable import refreshed, split

KEY = jax.random.key(0)
ENERGIES = {
    "mlp": lambda: en.MLPEnergy(5, width=7, depth=2, spectral_norm=True, key=KEY),
    "conv": lambda: en.ConvEnergy((6, 5, 2), widths=(4, 6), spectral_norm=True, key=KEY),
    "resnet": lambda: en.ResNetEnergy((6, 5), width=3, depth=3, spectral_norm=True, key=KEY),
}
SETTINGS = {
    "batch_size": 16,
    "optimizer": optax.adam(optax.cosine_decay_schedule(0.01, 40)),
    "ema_decay": 0.9,
    "progress": False,
}
PCD = en.objectives.PCD(num_steps=2, buffer_size=32)


def normed(tree):
    """The normalised layers of an energy."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, SpectralNorm))
    return [leaf for leaf in leaves if isinstance(leaf, SpectralNorm)]


@eqx.filter_jit
def matrix(layer):
    return jax.jacfwd(lambda x: layer(x))(jnp.zeros(layer.right.shape))


def norms(energy):
    """The largest singular value of each normalised layer, as the linear map that it is."""
    layers = normed(energy)
    found = [np.asarray(matrix(each)).reshape(-1, each.right.size) for each in layers]
    return np.array([np.linalg.norm(each, 2) for each in found])


def fitted(energy, num_steps, **options):
    shape = energy.supports["x"].shape
    data = np.asarray(jax.random.normal(jax.random.key(1), (64, *shape)))
    return en.fit(energy, data, PCD, key=KEY, num_steps=num_steps, **SETTINGS, **options)


@pytest.fixture(scope="module", params=ENERGIES)
def trained(request):
    start = ENERGIES[request.param]()
    return start, fitted(start, 40)


def test_the_norm_of_each_layer_is_one(trained):
    start, fit = trained
    count = {"MLPEnergy": 2, "ConvEnergy": 2, "ResNetEnergy": 1 + 3 * 2 + 2}[type(start).__name__]
    for energy in (start, fit.energy, fit.ema_energy):
        found = norms(energy)
        assert len(found) == count
        assert np.all((found > 1 - 1e-4) & (found < 1.05)), found
    # the weights themselves are not, and went their way
    old, new = ([layer.layer.weight for layer in normed(each)] for each in (start, fit.energy))
    raw = [np.linalg.norm(np.asarray(weight).reshape(len(weight), -1), 2) for weight in old]
    assert np.abs(np.array(raw) - 1).max() > 0.05
    assert min(np.abs(a - b).max() for a, b in zip(old, new, strict=True)) > 0.01


def test_stale_vectors_would_not_do(trained):
    start, fit = trained
    parameters, skeleton = split(fit.energy)
    assert norms(skeleton.merge(parameters, split(start)[1].followed)).max() > 1.05


def test_each_optimiser_step_is_one_refreshment(trained):
    start, _ = trained
    fit = fitted(start, 1)
    for energy in (fit.energy, fit.ema_energy):
        parameters = split(energy)[0]
        expected = refreshed(split(start)[1].merge(parameters))
        for one, two in zip(normed(energy), normed(expected), strict=True):
            np.testing.assert_allclose(one.right, two.right, atol=1e-5)
            np.testing.assert_allclose(one.slope, two.slope, atol=1e-5)


@pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")
def test_sampling_moves_no_vector():
    """The last draw of a chain has the energy that it has under the vectors of the beginning."""
    energy = ENERGIES["mlp"]()
    draws = en.sample(energy, "mala", key=KEY, num_chains=2, num_warmup=20, num_samples=20)
    found = -jax.jit(jax.vmap(energy))(draws["x"].reshape(-1, 5))
    np.testing.assert_allclose(draws.stats["lp"].ravel(), found, rtol=1e-5, atol=1e-5)


def test_the_energy_does_not_know_the_scale_of_a_weight(trained):
    """So its derivative along the weight is zero: the norm is differentiated through."""
    energy = trained[1].energy
    x = jax.random.normal(KEY, energy.supports["x"].shape)
    slopes = eqx.filter_jit(eqx.filter_grad(lambda energy: energy(x)))(energy)
    for layer, slope in zip(normed(energy), normed(slopes), strict=True):
        along = float(jnp.vdot(layer.layer.weight, slope.layer.weight))
        size = float(jnp.linalg.norm(layer.layer.weight) * jnp.linalg.norm(slope.layer.weight))
        assert abs(along) < 1e-4 * size


def test_no_slope_is_steeper_than_the_last_layer(key):
    energy = en.ConvEnergy((6, 5), widths=(4, 6), spectral_norm=True, activation=jnp.tanh, key=KEY)
    energy = fitted(energy, 20).energy
    bound = float(jnp.linalg.norm(energy.last.weight)) * 1.05**2
    x = 0.3 * jax.random.normal(key, (200, 6, 5))
    slopes = jnp.linalg.norm(jax.jit(jax.vmap(energy.score))(x).reshape(200, -1), axis=1)
    assert 0.05 * bound < float(slopes.max()) < bound


def test_a_run_that_is_resumed_has_the_same_vectors(tmp_path):
    start = ENERGIES["mlp"]()
    whole = fitted(start, 12)
    fitted(start, 5, checkpoint=tmp_path)
    resumed = fitted(start, 12, checkpoint=tmp_path)
    for one, two in ((whole.energy, resumed.energy), (whole.ema_energy, resumed.ema_energy)):
        assert eqx.tree_equal(one, two)
    last, average = (normed(energy)[0].right for energy in (whole.energy, whole.ema_energy))
    assert not np.array_equal(last, average)


def test_a_frozen_energy_keeps_its_vectors():
    one, two = (en.MLPEnergy(5, width=4, spectral_norm=True, key=jax.random.key(n)) for n in (1, 2))
    fit = fitted(one + 2 * two.freeze(), 3)
    moved, kept = normed(fit.energy)[:2], normed(fit.energy)[2:]
    assert all(eqx.tree_equal(a, b) for a, b in zip(kept, normed(two), strict=True))
    assert not any(
        np.array_equal(a.right, b.right) for a, b in zip(moved, normed(one), strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ENERGIES)
def test_laws(name):
    en.testing.check_energy(ENERGIES[name]())


def test_groups_and_spectral_norms_do_not_go_together():
    for make in (en.ConvEnergy, en.ResNetEnergy):
        with pytest.raises(ValueError, match="ask for one of them"):
            make((8, 8), num_groups=2, spectral_norm=True, key=KEY)
