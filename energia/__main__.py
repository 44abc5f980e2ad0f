"""`python -m energia`: versions, devices, registered names, and a check that it works here."""

import platform
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version

import jax
import jax.numpy as jnp
import numpy as np
import optax

import energia as en

PACKAGES = ("jax", "jaxlib", "equinox", "blackjax", "optax", "arviz-base", "arviz-stats", "numpy")
OPTIONAL = ("numpyro", "matplotlib", "scikit-learn")
MAX_Z = 5.0


def main() -> int:
    """Print what is here, run the checks, and return 0 where all of them hold."""
    print(f"energia {en.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(", ".join(f"{name} {_version(name)}" for name in PACKAGES))
    print("optional: " + ", ".join(f"{name} {_version(name)}" for name in OPTIONAL))
    print("devices: " + ", ".join(f"{device} ({device.device_kind})" for device in jax.devices()))
    print("samplers: " + ", ".join(en.samplers.names()))
    print("objectives: " + ", ".join(en.objectives.names()))
    failed = 0
    for what, check in CHECKS.items():
        start = time.perf_counter()
        wrong = check()
        failed += wrong is not None
        seconds = time.perf_counter() - start
        print(f"{what}: {wrong or 'ok'} ({seconds:.1f} s)")
    return int(failed > 0)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def sampling() -> str | None:
    """What is wrong with draws of a normal law, if anything."""
    covariance = np.array([[1.0, 0.6], [0.6, 2.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", en.ConvergenceWarning)
        draws = en.sample(
            en.Gaussian(jnp.zeros(2), covariance=covariance), "nuts", key=jax.random.key(0)
        )
    x = np.asarray(draws["x"], np.float64)
    size = draws.diagnose(show=False).min_ess
    z = np.abs(x.mean((0, 1))) / np.sqrt(np.diag(covariance) / size)
    return None if np.all(z < MAX_Z) else f"means {z.max():.1f} standard errors off"


def learning() -> str | None:
    """What is wrong with a normal law that is learned, if anything."""
    rows = np.random.default_rng(0).normal(size=(512, 1)) * 2 + 1
    model = en.Gaussian(jnp.zeros(1), scale=jnp.ones(1))
    fit = en.fit(
        model, rows, "sm", key=jax.random.key(1), num_steps=500, optimizer=optax.adam(0.05)
    )
    slope = jax.grad(fit.energy)
    root = float(slope(jnp.zeros(1))[0] / (slope(jnp.zeros(1)) - slope(jnp.ones(1)))[0])
    error = abs(root - rows.mean())
    return None if error < 0.1 else f"the mean is {error:.2f} off"


def normalising() -> str | None:
    """What is wrong with the normaliser of a lattice, if anything."""
    lattice = en.Ising((5, 5), coupling=0.2, field=0.2)
    found = en.evaluate.log_partition(lattice, "ais", key=jax.random.key(2), num_steps=200)
    z = abs(found.value - 19.674086) / found.stderr
    return None if z < MAX_Z else f"{z:.1f} standard errors off"


CHECKS = {
    "the mean of a normal law, drawn by 'nuts'": sampling,
    "the mean of normal data, learned by 'sm'": learning,
    "log Z of an Ising lattice, by 'ais' against the transfer matrix": normalising,
}

if __name__ == "__main__":
    sys.exit(main())
