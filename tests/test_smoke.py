"""One quick test of each main path: what works on every Python and with every dependency."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energia as en

pytestmark = [
    pytest.mark.smoke,
    pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning"),
]


@en.energy(rate=en.Positive(), share=en.Interval(0, 1))
def constrained(rate, share):
    """Gamma(3, 2) and Beta(2, 4)."""
    gamma = 2 * rate - 2 * jnp.log(rate)
    return gamma - jnp.log(share) - 3 * jnp.log1p(-share)


@pytest.mark.parametrize("sampler", ["nuts", "hmc", "mala", "langevin"])
def test_sample(key, sampler, tmp_path):
    draws = en.sample(constrained, sampler, key=key, num_warmup=200, num_samples=200)
    assert draws["rate"].shape == (4, 200)
    assert float(draws["rate"].min()) > 0
    tree = draws.to_arviz()
    assert tree.posterior.sizes["draw"] == 200
    assert {"mean", "sd", "ess_bulk", "r_hat"} <= set(draws.summary().columns)
    assert np.isfinite(draws.diagnose(show=False).max_rhat)
    draws.save(tmp_path / "draws.npz")
    loaded = en.Draws.load(tmp_path / "draws.npz", energy=constrained)
    longer, again = draws.extend(50), loaded.extend(50)
    np.testing.assert_array_equal(longer["share"], again["share"])


def test_nuts_finds_the_moments(key):
    draws = en.sample(constrained, "nuts", key=key, num_chains=8)
    assert abs(float(draws["rate"].mean()) - 1.5) < 0.1
    assert abs(float(draws["share"].mean()) - 1 / 3) < 0.03


@pytest.mark.parametrize(
    "objective",
    ["dsm", en.objectives.PCD(sampler=en.samplers.Langevin(step_size=0.05), buffer_size=512)],
    ids=["dsm", "pcd"],
)
def test_fit(key, objective, tmp_path):
    data = 2.0 + 0.5 * np.random.default_rng(0).normal(size=(500, 1))
    model = en.Gaussian(jnp.zeros(1), precision=jnp.eye(1))

    def train(num_steps):
        return en.fit(
            model,
            data,
            objective,
            key=key,
            num_steps=num_steps,
            optimizer=optax.adam(2e-2),
            checkpoint=tmp_path,
        )

    train(300)
    fit = train(600)
    assert fit.history["loss"].shape == (600,)
    assert abs(float(fit.ema_energy.mean[0]) - 2.0) < 0.2


def test_compose_and_print(key):
    network = en.MLPEnergy(2, width=8, key=key)
    both = 2 * network - 0.5 * en.Ring() + en.mixture([en.Gaussian(jnp.zeros(2)), network])
    assert both.variables == ("x",)
    assert str(both).startswith("2·MLPEnergy(x) - 0.5·Ring(x) + mixture(")
    values = jax.vmap(both)(jnp.ones((3, 2)))
    assert values.shape == (3,)


def test_configurations_print_their_numbers():
    pcd = en.objectives.PCD(sampler=en.samplers.Langevin(step_size=0.5), num_steps=3)
    assert repr(pcd).startswith("PCD(sampler=Langevin(step_size=0.5), ")
    assert "num_steps=3, buffer_size=8192" in repr(pcd)
    assert repr(en.samplers.BlockGibbs({"v": "gibbs"})) == "BlockGibbs(blocks=((('v',), Gibbs()),))"


def test_conformance_checks():
    en.testing.check_energy(en.Ring())
