"""Training on several devices: the same, up to the order in which gradients are summed."""

import json

import jax
import numpy as np
import pytest
from devices import run, run_two
from short_fits import DATA, assert_equal_fits, train

ONE = jax.make_mesh((1,), ("rows",))
# nothing runs on it: what cannot be shared out is refused before
THREE = jax.sharding.Mesh(np.array(jax.devices()[:1] * 3), ("rows",))

COMMON = """
    import json, sys
    import equinox as eqx, jax, jax.numpy as jnp, numpy as np, optax
    import jax.monitoring
    import energia as en

    DATA = np.random.default_rng(0).normal(1.0, 0.5, (128, 2)).astype(np.float32)
    CHAINS = en.objectives.PCD(
        sampler=en.samplers.Langevin(step_size=0.05), num_steps=5, buffer_size=96, reinit_prob=0.2
    )
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **kw: compiled.append(kw.get("fun_name"))
        if event == "/jax/core/compile/backend_compile_duration" else None
    )

    class Centre(en.Energy):
        mean: jax.Array

        def __call__(self, x):
            return 0.5 * jnp.sum((x - self.mean) ** 2) + 0.1 * jnp.sum(jnp.cos(x * self.mean))

    MODEL = Centre(jnp.zeros(2)).constrain(x=en.Real((2,)))

    def fit(objective, mesh, num_steps=40, **settings):
        return en.fit(
            MODEL, DATA, objective, key=jax.random.key(0), num_steps=num_steps, batch_size=32,
            optimizer=optax.adam(1e-2), mesh=mesh, progress=False, **settings,
        )

    def numbers(result):
        leaves = jax.tree.leaves(eqx.filter((result.energy, result.ema_energy), eqx.is_array))
        columns = [result.history[name] for name in sorted(result.history)]
        return np.concatenate([np.ravel(np.asarray(leaf)) for leaf in [*leaves, *columns]])
"""


@pytest.mark.slow
def test_training_does_not_depend_on_the_number_of_devices(tmp_path):
    printed = run(
        COMMON,
        """
        two = jax.make_mesh((2,), ("rows",), devices=jax.devices()[:2])
        eight = jax.make_mesh((4, 2), ("hosts", "rows"))
        told = {}
        for name, objective in (("dsm", "dsm"), ("nce", "nce"), ("pcd", CHAINS)):
            alone = numbers(fit(objective, None))
            apart = [np.abs(numbers(fit(objective, m)) - alone).max() for m in (two, eight)]
            told[name] = [float(np.ptp(alone)), *map(float, apart)]
        # written on eight devices, gone on from on two, on none, and on eight again
        folder, steps = sys.argv[1], 40
        fit(CHAINS, eight, steps, checkpoint=folder)
        for mesh in (two, None, eight):
            steps += 20
            cut = fit(CHAINS, mesh, steps, checkpoint=folder)
        told["cut"] = float(np.abs(numbers(cut) - numbers(fit(CHAINS, None, steps))).max())
        compiled.clear()
        again = fit(CHAINS, eight, 100)
        told["compiled"] = compiled
        leaves = jax.tree.leaves(eqx.filter((again.energy, again.ema_energy), eqx.is_array))
        told["devices"] = [len(x.devices()) for x in leaves if isinstance(x, jax.Array)]
        told["committed"] = any(x.committed for x in leaves if isinstance(x, jax.Array))
        print(json.dumps(told))
        """,
        devices=8,
        arguments=[str(tmp_path)],
    )
    told = json.loads(printed)
    for name in ("dsm", "nce", "pcd"):
        scale, *apart = told[name]
        assert scale > 0.1
        assert len(apart) == 2
        assert max(apart) < 1e-4 * max(scale, 1), (name, told[name])
    assert told["cut"] < 1e-3
    assert not told["compiled"]
    assert set(told["devices"]) == {1}
    assert not told["committed"]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    lines = run_two(
        COMMON,
        """
        mesh = jax.make_mesh((4,), ("rows",))
        seen = []
        settings = {"validation": DATA[:30], "callback": lambda fit: seen.append(fit.num_steps)}
        settings |= {"evaluate_every": 20, "checkpoint": sys.argv[3], "checkpoint_every": 25}
        fit(CHAINS, mesh, 40, **settings)
        both = numbers(fit(CHAINS, mesh, 60, **settings))
        alone = numbers(fit(CHAINS, None, 60, **settings | {"checkpoint": None}))
        print(json.dumps([seen, both.tolist(), alone.tolist()]))
        """,
        devices=2,
        arguments=[str(tmp_path)],
    )
    assert lines[0] == lines[1]
    seen, both, alone = json.loads(lines[0])
    assert seen == [20, 40, 60, 20, 40, 60]
    np.testing.assert_allclose(both, alone, atol=1e-4, equal_nan=True)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.npz"]


def test_a_mesh_of_one_device_changes_nothing(tmp_path):
    alone = train(num_steps=30)
    train(num_steps=20, mesh=ONE, checkpoint=tmp_path)
    meshed = train(num_steps=30, mesh=ONE, checkpoint=tmp_path)
    assert_equal_fits(alone, meshed)
    assert not any(leaf.committed for leaf in jax.tree.leaves(meshed.energy))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, r"batch_size=32 cannot be .* 3 devices .* take 30 or 33"),
        ({"batch_size": None, "data": DATA[:2]}, r"batch_size=2 cannot be .* take 3$"),
        ({"data": [DATA[:4]]}, "a batch length of 4 cannot be"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(settings, text, compilations):
    with compilations() as seen, pytest.raises(ValueError, match=text):
        train(mesh=THREE, **settings)
    assert not any("begin" in name or "advance" in name for name in seen.compiled)
