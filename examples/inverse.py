"""A learned energy as the prior of inverse problems: what is missing, and what was blurred.

An energy E(x, sigma) of scikit-learn's digits is learned at many noise levels. At the lowest, the
grain of the pictures, it is the prior of two posteriors that it was not trained for:

    inpainting = digits.substitute(x=completed).condition(known=upper_half)    # over `missing`
    deblurring = digits + likelihood.condition(seen=blurred)                   # over `x`

Both are sampled twice with as many gradients: by a kernel alone, in 48 chains, and by parallel
tempering with that kernel, in 4 chains along 12 noise levels. R-hat and effective sample sizes tell
which chains are to be trusted; the posterior mean is set beside that of a normal prior with the
data's mean and covariance, and 90% intervals are counted that hold the true pixel.

    python examples/inverse.py
    python examples/inverse.py --kernel mala --objective drl
    python examples/inverse.py --full
"""

import argparse
import pathlib
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from _digits import SCALE, Network, learn

import energia as en

GRAIN = 0.2  # noise of the pictures, where a pixel runs from -1 to 1
LEVELS = jnp.geomspace(0.6, GRAIN, 12)  # which replicas move along
TRAINED = jnp.geomspace(4.0, GRAIN, 16)
OBJECTIVES = {
    "dsm": en.objectives.DSM(sigma=TRAINED),
    "drl": en.objectives.DRL(num_levels=15, num_steps=10, sigma_min=GRAIN, sigma_max=4.0),
}
BLURRED = 0.1  # noise of a picture after it was blurred


def completed(known, missing):
    """An image of its upper and its lower half."""
    return jnp.concatenate([known, missing])


SMOOTHING = np.exp(-0.5 * (np.subtract.outer(np.arange(8), np.arange(8)) / 1.2) ** 2)
SMOOTHING = np.float32(SMOOTHING / SMOOTHING.sum(1, keepdims=True))


def blur(x):
    return SMOOTHING @ x @ SMOOTHING.T


@en.energy(x=en.Real((8, 8)))
def likelihood(x, seen, sigma):
    """What was seen, given the picture: noise of `BLURRED` at the lowest level, and more above."""
    return jnp.sum((blur(x) - seen) ** 2) / (2 * (BLURRED**2 + sigma**2 - GRAIN**2))


def normal_posterior(train, matrix, seen, noise):
    """The posterior mean of a picture, where the prior is normal: the baseline."""
    rows = train.reshape(len(train), -1)
    mean, covariance = rows.mean(0), np.cov(rows.T) + GRAIN**2 * np.eye(64)
    gain = covariance @ matrix.T
    gain = gain @ np.linalg.inv(matrix @ gain + noise**2 * np.eye(len(matrix)))
    return (mean + gain @ (seen.ravel() - matrix @ mean)).reshape(8, 8)


def sample(path, sampler, num_samples, key):
    """Four chains of a replica a level; or as many chains as these are replicas, at the lowest."""
    alone = isinstance(sampler, str)
    with warnings.catch_warnings():  # the table tells
        warnings.simplefilter("ignore", en.ConvergenceWarning)
        return en.sample(
            path.target if alone else path,
            sampler,
            key=key,
            num_chains=4 * path.num_levels if alone else 4,
            num_warmup=num_samples // 2,
            num_samples=num_samples,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kernel", default="hmc", help="a kernel by name: hmc, mala, nuts, ...")
    parser.add_argument("--objective", default="dsm", choices=OBJECTIVES)
    parser.add_argument("--full", action="store_true", help="a wider network, longer chains")
    parser.add_argument("--num-steps", type=int, help="training steps")
    parser.add_argument("--num-samples", type=int, help="draws of each chain")
    parser.add_argument("--count", type=int, help="test images")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    width, num_steps, num_samples, count = 128, 3000, 1000, 2
    if options.full:
        width, num_steps, num_samples, count = 256, 20_000, 4000, 20
    num_steps, count = options.num_steps or num_steps, options.count or count
    num_samples = options.num_samples or num_samples
    keys = jax.random.split(jax.random.key(options.seed), 3)
    samplers = {  # a wrong name is told before anything is learned
        f"{options.kernel} alone": options.kernel,
        "tempered": en.samplers.ParallelTempering(options.kernel),
    }

    random = np.random.default_rng(options.seed)
    images = 2 * random.permutation(en.data.digits()["x"]) - 1
    train, test = images[:-360], images[-360:][:count]
    network = Network((8, 8), width, keys[0])
    digits = en.NoiseConditional(network, form="quadratic", data_scale=SCALE, shape=(8, 8))
    digits = learn(digits, train, OBJECTIVES[options.objective], num_steps, keys[0])

    # --- two posteriors at every noise level, and what was seen of the test images
    grainy = test + GRAIN * random.normal(size=test.shape).astype(np.float32)
    blurred = np.stack([blur(x) for x in grainy])
    blurred += BLURRED * random.normal(size=test.shape).astype(np.float32)
    inpainting = digits.substitute(x=completed).constrain(missing=en.Real((4, 8)))
    deblurring = digits + likelihood
    print(inpainting, deblurring, sep="\n")
    problems = {
        "inpainting": [inpainting.condition(known=x[:4]) for x in grainy],
        "deblurring": [deblurring.condition(seen=x) for x in blurred],
    }
    flat = np.eye(64, dtype=np.float32).reshape(64, 8, 8)
    operators = {  # what is seen of a picture is linear in it, but for noise
        "inpainting": (np.eye(64)[:32], grainy[:, :4], 1e-3),
        "deblurring": (np.stack([blur(x).ravel() for x in flat], 1), blurred, BLURRED),
    }
    columns = (
        f"{'image':>6s}  {'sampler':16s} {'R-hat':>6s} {'ESS':>6s} {'error':>7s} {'normal':>7s}"
    )
    print(f"\n{'':10s} {columns}")
    rows = [test, grainy, blurred]
    for problem, energies in problems.items():
        matrix, seen, noise = operators[problem]
        hidden = slice(4, 8) if problem == "inpainting" else slice(0, 8)  # rows
        means, inside = test.copy(), []
        for index, energy in enumerate(energies):
            path = en.Path(energy, sigma=LEVELS)
            baseline = normal_posterior(train, matrix, seen[index], noise)[hidden]
            for name, sampler in samplers.items():
                draws = sample(path, sampler, num_samples, jax.random.fold_in(keys[1], index))
                verdict = draws.diagnose(show=False)
                x = np.concatenate(draws[path.variables[0]])
                means[index, hidden] = x.mean(0)
                errors = [
                    np.sqrt(np.mean((guess - test[index, hidden]) ** 2))
                    for guess in (x.mean(0), baseline)
                ]
                print(
                    f"{problem} {index:6d}  {name:16s} {verdict.max_rhat:6.2f} "
                    f"{verdict.min_ess:6.0f} {errors[0]:7.3f} {errors[1]:7.3f}",
                    flush=True,
                )
            low, high = np.quantile(x, [0.05, 0.95], axis=0)
            inside.append((low < grainy[index, hidden]) & (grainy[index, hidden] < high))
        print(f"{problem}, tempered: 90% intervals hold {np.mean(inside):.1%} of the true pixels")
        print(verdict)  # of the last image, in words
        rows.append(means)
    path = options.out / "inverse.png"
    names = ["true", "with grain", "blurred", "inpainted", "deblurred"]
    shown = np.stack(rows, axis=1).reshape(-1, 8, 8)  # a row of the picture for each test image
    labels = [*[""] * (len(shown) - len(names)), *names]
    figure = en.plot.images(shown, columns=len(names), bounds=(-1, 1), labels=labels)
    figure.savefig(path, dpi=200)
    print(f"picture in {path}; {time.process_time():.0f} s of processor time")


if __name__ == "__main__":
    main()
