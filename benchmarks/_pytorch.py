"""The training steps of benchmarks/training.py in PyTorch: plain, and by two libraries.

Each side is a function `(objective, rows, batch_size, num_steps) -> run`, and `run(steps)` trains.
All train the same network by Adam at the same rate. Chains persist in a buffer of 8,192, of which
one in twenty starts afresh, as far as a library can: torchebm stirs these chains in place of it.
"""

import math

import torch
from torch import nn

STEP_SIZE, SIGMA, RATE = 0.01, 0.1, 1e-4
BUFFER_SIZE, REINIT_PROB = 8192, 0.05

torch.set_num_threads(1)


def network():
    torch.manual_seed(0)
    layers = nn.Linear(2, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 1)
    return nn.Sequential(*layers)


class Energy(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, x):
        return self.network(x).squeeze(-1)


def plain(objective, rows, batch_size, num_steps):
    """As one writes it: eager, with the parameters frozen while chains move."""
    energy, data = Energy(), torch.tensor(rows)
    optimizer = torch.optim.Adam(energy.parameters(), lr=RATE)
    buffer = torch.randn(BUFFER_SIZE, 2)

    def slope(x, create_graph=False):
        return torch.autograd.grad(energy(x).sum(), x, create_graph=create_graph)[0]

    def pcd(x):
        slots = torch.randint(BUFFER_SIZE, (batch_size,))
        chains = buffer[slots]
        again = torch.rand(batch_size) < REINIT_PROB
        chains[again] = torch.randn(int(again.sum()), 2)
        energy.requires_grad_(False)
        for _ in range(num_steps):
            moved = chains - STEP_SIZE * slope(chains.requires_grad_())
            chains = moved.detach() + math.sqrt(2 * STEP_SIZE) * torch.randn_like(moved)
        energy.requires_grad_(True)
        buffer[slots] = chains
        return energy(x).mean() - energy(chains).mean()

    def dsm(x):
        noise = torch.randn_like(x)
        slopes = slope((x + SIGMA * noise).requires_grad_(), create_graph=True)
        return 0.5 * ((slopes - noise / SIGMA) ** 2).sum(1).mean()

    def ssm(x):
        x, v = x.requires_grad_(), torch.randint(2, x.shape) * 2.0 - 1.0
        slopes = slope(x, create_graph=True)
        curved = torch.autograd.grad((slopes * v).sum(), x, create_graph=True)[0]
        return (0.5 * (slopes**2).sum(1) - (curved * v).sum(1)).mean()

    loss = {"pcd": pcd, "dsm": dsm, "ssm": ssm}[objective]

    return loop(loss, data, batch_size, optimizer)


def loop(loss, data, batch_size, optimizer):
    """So many steps down the loss of random batches."""

    def run(steps):
        for _ in range(steps):
            value = loss(data[torch.randint(len(data), (batch_size,))])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

    return run


def torchebm(objective, rows, batch_size, num_steps):
    """Its losses and its sampler in a plain loop, with its regularisation off."""
    from torchebm import losses
    from torchebm.core import BaseModel
    from torchebm.samplers import LangevinDynamics

    class Model(BaseModel):
        def __init__(self):
            super().__init__(device="cpu")
            self.network = network()

        def forward(self, x):
            return self.network(x).squeeze(-1)

    energy, data = Model(), torch.tensor(rows)
    optimizer = torch.optim.Adam(energy.parameters(), lr=RATE)
    if objective == "pcd":
        sampler = LangevinDynamics(energy, step_size=STEP_SIZE, device="cpu")
        contrast = losses.PersistentContrastiveDivergence(
            energy,
            sampler,
            k_steps=num_steps,
            buffer_size=BUFFER_SIZE,
            init_steps=0,
            new_sample_ratio=REINIT_PROB,
            energy_reg_weight=0.0,
        )

        def loss(x):
            return contrast(x)[0]

    elif objective == "dsm":
        loss = losses.DenoisingScoreMatching(energy, noise_scale=SIGMA, device="cpu")
    else:
        loss = losses.SlicedScoreMatching(energy, n_projections=1, device="cpu")

    return loop(loss, data, batch_size, optimizer)


def ebmkit(objective, rows, batch_size, num_steps):
    """Its losses, sampler, buffer and trainer."""
    import ebm

    if objective == "pcd":
        loss = ebm.ContrastiveDivergence(
            ebm.LangevinDynamics(step_size=STEP_SIZE, steps=num_steps),
            buffer=ebm.ReplayBuffer(BUFFER_SIZE, (2,), reinit_prob=REINIT_PROB),
        )
    elif objective == "dsm":
        loss = ebm.DenoisingScoreMatching(SIGMA)
    else:
        loss = ebm.SlicedScoreMatching()
    torch.manual_seed(0)
    trainer = ebm.Trainer(ebm.nets.MLPEnergy(2, (128, 128)), loss, lr=RATE, device="cpu")
    data = torch.tensor(rows)
    return lambda steps: trainer.fit(data, steps=steps, batch_size=batch_size, verbose=False)


SIDES = {"pytorch": plain, "torchebm": torchebm, "ebmkit": ebmkit}
