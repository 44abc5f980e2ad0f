"""Guidance by a classifier, and without one: against Bayes' rule and laws of normals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en

POINTS = np.random.default_rng(3).normal(size=(7, 2)).astype(np.float32)


def logits(x):
    return jnp.array([x[0], -x[1], x[0] * x[1]])


CLASSIFIER = en.Classifier(logits, shape=2)
PRIOR = en.Gaussian(jnp.zeros(2), scale=jnp.array([1.0, 2.0]))


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_adds_the_log_probability_of_a_class(scale: float) -> None:
    guided = en.guide(PRIOR, CLASSIFIER, y=2, scale=scale)
    assert guided.variables == ("x",)
    expected = [
        float(PRIOR(x)) - scale * float(jax.nn.log_softmax(logits(jnp.asarray(x)))[2])
        for x in POINTS
    ]
    np.testing.assert_allclose(jax.vmap(guided)(POINTS), expected, rtol=1e-5, atol=1e-5)


def test_it_is_the_formula_of_the_algebra() -> None:
    free = CLASSIFIER - CLASSIFIER.marginalize("y")
    written = PRIOR + 2.0 * free.condition(y=1)
    guided = en.guide(PRIOR, CLASSIFIER, y=1, scale=2.0)
    for x in POINTS:
        np.testing.assert_allclose(guided(x), written.at({"x": x}), rtol=1e-5, atol=1e-5)


def test_bayes_rule_of_normals() -> None:
    """A class has a normal density each; guided at scale 1 the prior becomes that of the class."""
    means = jnp.array([-1.0, 2.0])
    marginal = en.GaussianMixture(means, scales=1.0, weights=[0.25, 0.75])
    joint = en.Classifier(
        lambda x: jnp.log(jnp.array([0.25, 0.75])) - 0.5 * (x - means) ** 2, shape=()
    )
    one = en.guide(marginal, joint, y=0)
    grid = jnp.linspace(-4.0, 5.0, 19)
    difference = jax.vmap(one)(grid) - 0.5 * (grid + 1) ** 2
    np.testing.assert_allclose(difference, difference[0], atol=1e-4)


def test_levels_of_noise_join_by_name() -> None:
    @en.energy(x=en.Real((2,)))
    def blurred(x, sigma):
        return jnp.sum(x**2) / (2 + 2 * sigma**2)

    @en.energy(x=en.Real((2,)), y=en.Categorical(3))
    def noisy(x, y, sigma):
        return -logits(x / (1 + sigma))[y]

    guided = en.guide(blurred, noisy, y=1, scale=3.0)
    assert set(guided.variables) == {"x", "sigma"}
    path = en.Path(guided, sigma=[2.0, 0.1])
    x = jnp.array([0.3, -0.7])
    expected = blurred(x, 0.1) - 3 * jax.nn.log_softmax(logits(x / 1.1))[1]
    np.testing.assert_allclose(path.target.at({"x": x}), expected, rtol=1e-5)


def test_a_label_is_traced_and_batches_of_scales_vmap() -> None:
    @eqx.filter_jit
    def value(y, scale):
        return en.guide(PRIOR, CLASSIFIER, y=y, scale=scale)(POINTS[0])

    values = jax.vmap(value)(jnp.array([0, 1, 2]), jnp.array([1.0, 2.0, 3.0]))
    assert values.shape == (3,)
    expected = en.guide(PRIOR, CLASSIFIER, y=1, scale=2.0)(POINTS[0])
    np.testing.assert_allclose(values[1], expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [-1.0, 0.0, 2.0])
def test_classifier_free_of_normals(scale: float) -> None:
    r"""(1+s)E(x|y) - sE(x) of normals is normal, with precisions and shifts that combine so."""
    one, both = en.Gaussian(jnp.array([1.0]), scale=0.5), en.Gaussian(jnp.array([0.0]), scale=2.0)
    strong = en.classifier_free(one, both, scale=scale)
    precision = (1 + scale) * 4 - scale / 4
    mean = (1 + scale) * 4 / precision if precision else 0.0
    slope = jax.grad(strong)(jnp.array([0.3]))
    np.testing.assert_allclose(slope, precision * 0.3 - (1 + scale) * 4, rtol=1e-4, atol=1e-4)
    if scale == 2.0:
        draws = en.sample(strong, "nuts", key=jax.random.key(0))
        assert abs(float(draws["x"].mean()) - mean) < 0.05


def test_classifier_free_of_one_network_with_a_label_for_none() -> None:
    @en.energy(x=en.Real((2,)), y=en.Categorical(3))
    def joint(x, y):
        return (y + 1.0) * jnp.sum(x**2)

    strong = en.classifier_free(joint, joint.condition(y=2), scale=0.5)
    assert set(strong.variables) == {"x", "y"}
    x = jnp.array([1.0, 1.0])
    np.testing.assert_allclose(strong.condition(y=0).at({"x": x}), 1.5 * 2 - 0.5 * 6, rtol=1e-6)
    free = en.classifier_free(joint, joint.marginalize("y"), scale=1.0).condition(y=0)
    expected = 2 * joint(x=x, y=0) - joint.marginalize("y")(x)
    np.testing.assert_allclose(free.at({"x": x}), expected, rtol=1e-5)


def test_an_energy_that_stands_twice_is_one_parameter() -> None:
    network = en.MLPEnergy(3, width=4, depth=1, key=jax.random.key(0))
    joint = network.substitute(x=lambda x, y: jnp.append(x, y))
    strong = en.classifier_free(joint, joint.condition(y=0.0))
    fit = en.fit(
        strong,
        {"x": POINTS, "y": np.ones(7)},
        en.objectives.DSM(given=("y",)),
        key=jax.random.key(1),
        num_steps=3,
        batch_size=4,
    )
    arrays = eqx.filter(fit.energy, eqx.is_array)
    first, second = (leaf for leaf in jax.tree.leaves(arrays) if leaf.shape == (4, 3))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: en.guide(PRIOR, CLASSIFIER), TypeError, "needs what is wanted"),
        (lambda: en.guide(PRIOR, CLASSIFIER, z=3), ValueError, r"guide\(\) got \['z'\]"),
        (lambda: en.guide(CLASSIFIER, CLASSIFIER, y=1), ValueError, "has the variable 'y' itself"),
        (lambda: en.guide(PRIOR, CLASSIFIER, y=1, scale=jnp.ones(2)), TypeError, "a scalar"),
        (lambda: en.guide(PRIOR, PRIOR.rename(x="y") + PRIOR, y=1.0), ValueError, "y"),
        (lambda: en.guide(PRIOR.rename(x="z"), CLASSIFIER, y=1), ValueError, "nothing would be"),
        (lambda: en.classifier_free(PRIOR, CLASSIFIER), ValueError, "lacks"),
    ],
)
def test_errors(call, error, match) -> None:
    with pytest.raises(error, match=match):
        call()
