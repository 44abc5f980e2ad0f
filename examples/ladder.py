"""Digits from noise, and chains that stay: energies at noise levels by 'dsm', 'drl' and 'pcd'.

Energies E(x, sigma) of scikit-learn's digits are learned by denoising score matching, and by
diffusion recovery likelihood. Digits are drawn from each down the noise levels: by annealed
Langevin dynamics or another kernel by name, and by the sampler that `fit` gives with 'drl', its
chain of conditionals. From there chains run on at one level. Where an energy is right they may move
among the digits and must not leave them; scores that were matched where the data are say nothing of
the rest, and some steps of 'pcd' at that level, whose chains go and look, mend what they find. How
far images are from those of the training is told by the Fréchet distance in the features of a small
network, beside how far test images are; noise is taken away first by Tweedie's formula.

    python examples/ladder.py
    python examples/ladder.py --sampler reverse_diffusion
    python examples/ladder.py --full

See Song and Ermon (2019), Generative modeling by estimating gradients of the data distribution;
Gao, Song, Poole, Wu and Kingma (2021), Learning energy-based models by diffusion recovery
likelihood; and Nijkamp, Hill, Han, Zhu and Wu (2020), On the anatomy of MCMC-based maximum
likelihood learning of energy-based models (chains that stay, and chains that do not).
"""

import argparse
import pathlib
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from _digits import NOISE, SCALE, Network, fitted, judged

import energia as en

LEVEL = 0.3  # noise at which chains run on, where a pixel runs from -1 to 1
KEPT = 8  # images of each chain


def denoised(energy, x, sigma):
    """The mean of what is under the noise, x - sigma² ∇E(x): shape (rows, 8, 8)."""
    score = jax.vmap(energy.score)(jnp.asarray(x))
    return np.clip(x + sigma**2 * np.asarray(score), -1, 1)


def draw(fit, options, key):
    """Images down the noise levels, with the noise of the last; by the fit's sampler, if any."""
    path, sampler = fit.ema_energy, fit.sampler
    if sampler is None:
        path, sampler = en.Path(path, sigma=NOISE), options.sampler
        if sampler != "reverse_diffusion":  # which takes one step a level
            sampler = en.samplers.Annealed(sampler, steps_per_level=10)
    draws = en.sample(path, sampler, key=key, num_samples=options.count // 4)
    return np.asarray(draws["x"]).reshape(-1, 8, 8)


def run(energy, starts, options, key):
    """Chains from images: shape (chain, draw, 8, 8)."""
    draws = en.sample(
        energy,
        en.samplers.Thin("mala", options.thin),
        key=key,
        init={"x": starts},
        num_chains=len(starts),
        num_warmup=100,
        num_samples=KEPT,
    )
    return np.asarray(draws["x"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sampler", default="langevin", help="a kernel, or 'reverse_diffusion'")
    parser.add_argument("--full", action="store_true", help="a wider network, longer training")
    parser.add_argument("--num-steps", type=int, help="of 'dsm'; the others have a part of them")
    parser.add_argument("--count", type=int, default=360, help="images drawn, a multiple of 4")
    parser.add_argument("--thin", type=int, default=200, help="steps between the images of a chain")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    width, num_steps = (512, 20_000) if options.full else (256, 4000)
    num_steps = options.num_steps or num_steps
    keys = jax.random.split(jax.random.key(options.seed), 9)
    rng = np.random.default_rng(options.seed)
    warnings.simplefilter("ignore", en.ConvergenceWarning)  # so few draws cannot be checked

    data = en.data.digits()
    order = rng.permutation(len(data["y"]))
    data = {"x": 2 * data["x"][order] - 1, "y": data["y"][order]}
    train = {name: rows[:-360] for name, rows in data.items()}
    test = data["x"][-360:]
    told = judged(train, num_steps, *keys[:2])
    features = en.evaluate.feature_network(train, num_steps=min(num_steps, 1000), key=keys[2])
    shown, strips = [], []

    def report(name, x):
        far = en.evaluate.frechet_distance(x, train["x"], features=features)
        shares = np.bincount(told(x), minlength=10) / len(x)
        digits = np.exp(-np.sum(shares * np.log(np.maximum(shares, 1e-12))))
        print(f"{name:42s} {far:8.1f} {digits:8.1f}", flush=True)
        if "steps" not in name:
            shown.append(x[:20])

    def run_on(name, energy, images):
        """Chains at the level from images, and what they are after more and more steps."""
        starts = images[:90] + LEVEL * rng.normal(size=images[:90].shape)
        chains = run(energy, starts, options, keys[8])
        clean = [denoised(energy, chains[:, index], LEVEL) for index in range(KEPT)]
        for index in (0, KEPT // 2 - 1, KEPT - 1):
            report(f"{name}, {(index + 1) * options.thin} steps", clean[index])
        strips.extend(np.stack(clean, axis=1)[:4])

    print(f"{'':42s} {'Fréchet':>8s} {'digits':>8s}")
    report("test digits", test)
    report("uniform noise", rng.uniform(-1, 1, test.shape))

    # --- denoising score matching, and PCD at one level
    network = Network((8, 8), width, keys[3])
    model = en.NoiseConditional(network, form="quadratic", data_scale=SCALE, shape=(8, 8))
    dsm = fitted(model, train["x"], en.objectives.DSM(sigma=NOISE), num_steps, keys[4])
    x, lowest = draw(dsm, options, keys[5]), float(NOISE[-1])
    images = denoised(dsm.ema_energy.condition(sigma=lowest), x, lowest)
    report(f"dsm, {options.sampler}", images)
    level = dsm.ema_energy.condition(sigma=LEVEL)
    run_on("dsm, chains", level, images)
    kernel = en.samplers.Langevin(step_size=0.3 * LEVEL**2)
    pcd = en.objectives.PCD(sampler=kernel, num_steps=20, buffer_size=2048, reinit_prob=0.0)
    noisy = en.data.add_noise(LEVEL)
    pcd = fitted(level, train["x"], pcd, num_steps // 4, keys[6], rate=1e-4, augment=noisy)
    run_on("dsm and pcd, chains", pcd.ema_energy, images)

    # --- diffusion recovery likelihood
    model = en.NoiseConditional(Network((), width, keys[3]), data_scale=SCALE, shape=(8, 8))
    recovery = en.objectives.DRL(num_levels=6, num_steps=30, sigma_min=LEVEL, sigma_max=4.0)
    drl = fitted(model, train["x"], recovery, num_steps * 3 // 8, keys[7])
    level = drl.ema_energy.condition(sigma=LEVEL)
    images = denoised(level, draw(drl, options, keys[5]), LEVEL)
    report("drl, its conditionals", images)
    run_on("drl, chains", level, images)

    en.plot.images(np.concatenate(shown), columns=20, bounds=(-1, 1)).savefig(
        options.out / "ladder_images.png"
    )
    en.plot.strips(
        strips, thin=options.thin, num_columns=KEPT, num_chains=len(strips), bounds=(-1, 1)
    ).savefig(options.out / "ladder_chains.png")
    print(f"pictures in {options.out}; {time.process_time():.0f} s of processor time")


if __name__ == "__main__":
    main()
