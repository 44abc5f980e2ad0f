"""Chains on several devices: the same draws, whatever their number."""

import json
import os
import socket
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia._mesh import check_mesh

NORMAL = en.Gaussian(jnp.zeros(2))
ONE = jax.make_mesh((1,), ("chains",))

COMMON = """
    import hashlib, json, sys, warnings
    import jax, jax.numpy as jnp, numpy as np
    import energia as en
    warnings.simplefilter("ignore", en.ConvergenceWarning)

    @en.energy(tau=en.Positive(), z=en.Real(3))
    def energy(tau, z):
        return tau**2 + jnp.sum((z - tau) ** 2) / 2

    def draw(kernel, mesh, chain_method="parallel"):
        return en.sample(
            energy, kernel, key=jax.random.key(1), num_chains=8, num_warmup=60, num_samples=40,
            mesh=mesh, chain_method=chain_method,
        )

    def digest(draws):
        arrays = [*draws.positions.values(), *draws.stats.values()]
        assert all(len(array) == 8 for array in arrays)
        return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in arrays)).hexdigest()
"""


def script(text: str, first: str = "") -> list[str]:
    return [sys.executable, "-c", "\n".join(map(textwrap.dedent, (first, COMMON, text)))]


def environment(devices: int) -> dict[str, str]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags}


@pytest.mark.slow
def test_draws_do_not_depend_on_the_number_of_devices(tmp_path):
    run = script("""
        meshes = [
            None,
            jax.make_mesh((2,), ("chains",), devices=jax.devices()[:2]),
            jax.make_mesh((4, 2), ("hosts", "chains")),
        ]
        told = {}
        for name in ("nuts", "mala"):
            runs = [draw(name, mesh) for mesh in meshes]
            told[name] = [digest(run.extend(20)) for run in runs]
            runs[2].save(sys.argv[1])
            told[name].append(digest(en.Draws.load(sys.argv[1], energy=energy).extend(20)))
        side_by_side = [draw("mala", mesh, "vectorized")["z"] for mesh in meshes]
        told["apart"] = max(float(np.abs(z - side_by_side[0]).max()) for z in side_by_side)
        print(json.dumps(told))
    """)
    path = str(tmp_path / "draws.npz")
    printed = subprocess.run(
        [*run, path], env=environment(8), check=True, capture_output=True, text=True
    ).stdout
    told = json.loads(printed)
    assert told.pop("apart") < 1e-3
    for digests in told.values():
        assert len(digests) == 4
        assert len(set(digests)) == 1
    assert told["nuts"] != told["mala"]


@pytest.mark.slow
def test_two_processes_get_the_draws_of_one():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    joined = """
        import sys, jax
        jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
    """
    run = script(
        """
        assert len(jax.devices()) == 2 * len(jax.local_devices()) == 4
        mesh = jax.make_mesh((4,), ("chains",))
        print(json.dumps([digest(draw("nuts", m).extend(20)) for m in (mesh, None)]))
        """,
        first=joined,
    )
    processes = [
        subprocess.Popen(
            [*run, address, str(number)], env=environment(2), stdout=subprocess.PIPE, text=True
        )
        for number in range(2)
    ]
    digests = set()
    for process in processes:
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        digests |= set(json.loads(printed.splitlines()[-1]))
    assert len(digests) == 1


@pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")
def test_a_mesh_of_one_device_changes_nothing(key):
    options = {"key": key, "num_chains": 2, "num_warmup": 50, "num_samples": 50}
    for sampler in ("nuts", "gibbs"):
        energy = NORMAL if sampler == "nuts" else en.Ising((2, 2), coupling=0.3)
        (name,) = energy.variables
        alone, meshed = (en.sample(energy, sampler, **options, mesh=mesh) for mesh in (None, ONE))
        np.testing.assert_array_equal(alone[name], meshed[name])


@pytest.mark.parametrize(
    ("sampler", "text"),
    [
        ("chees_hmc", "ChEESHMC is tuned on all chains together"),
        ("smc", "SMC moves all particles together"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(key, sampler, text):
    with pytest.raises(ValueError, match=text):
        en.sample(NORMAL, sampler, key=key, mesh=ONE)


def test_a_number_is_no_mesh():
    with pytest.raises(TypeError, match=r"mesh= takes a mesh such as .*, got 8"):
        check_mesh(8, 8, "num_chains=8")


def test_chains_must_divide_evenly():
    run = script("""
        try:
            draw("nuts", jax.make_mesh((3,), ("chains",)))
        except ValueError as error:
            print(error)
    """)
    printed = subprocess.run(
        run, env=environment(3), check=True, capture_output=True, text=True
    ).stdout
    assert printed.startswith("num_chains=8 cannot be shared out evenly to the 3 devices")
    assert "take 6 or 9" in printed
