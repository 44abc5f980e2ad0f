"""Energies of the plane, learned apart and composed afterwards: "and", "or", "not".

    python examples/composition.py                    # the product of a ring and a bar
    python examples/composition.py --full             # five seeds, the published network
    python examples/composition.py --objective drl --samplers annealed_langevin hmc

Each density is learned on its own, at many noise levels. What they say together is then a sum of
energies, and one call draws from it down the levels, with any kernel by name:

    both = ring + bar
    path = en.Path(both, sigma=sigmas)
    draws = en.sample(path, en.samplers.Annealed("hmc", steps_per_level=10), key=key)

The product of a ring of eight normals with a bar keeps two of the eight, and its density is known,
so that what is drawn can be scored: the mean log density (3.482 at best), the share of the upper
mode (1/2), the errors of the covariances, the Wasserstein distance and the maximum mean discrepancy
to exact draws. See Du et al. (2023), Reduce, reuse, recycle, and docs/composition.md.
"""
