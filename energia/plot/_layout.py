"""Where the nodes of a factor graph stand: layers by distance from the data, and few crossings."""

import itertools
from collections import deque
from collections.abc import Sequence

import numpy as np

from energia.plot._graph import Graph

STEP = 0.25  # of the grid that nodes stand on, in units of the distance of layers
GAP = 0.4  # between nodes of one layer
PAD = 0.25  # between a plate's border and what it holds
OVERLAP, CROSSING, THROUGH = 60.0, 4.0, 8.0  # against 1 for an edge that leans by one unit
STARTS, ROUNDS = 6, 200


def levels_of(graph: Graph) -> np.ndarray:
    """The layer of each node: its distance from observed variables, which stand at the bottom.

    Edges then join neighbouring layers only. A part without data hangs from its centre.
    """
    count = len(graph.nodes)
    near: list[list[int]] = [[] for _ in range(count)]
    for factor, variable in graph.edges:
        near[factor].append(variable)
        near[variable].append(factor)
    observed = [index for index, node in enumerate(graph.nodes) if node.kind == "observed"]
    levels = _distances(near, observed)
    while (levels < 0).any():
        left = [i for i in range(count) if levels[i] < 0 and graph.nodes[i].kind != "factor"]
        reached = _distances(near, [left[0]]) >= 0
        part = [i for i in left if reached[i]]
        centre = min(part, key=lambda i: _distances(near, [i]).max())
        levels = np.where(reached, _distances(near, [centre]), levels)
    return levels


def _distances(near: Sequence[Sequence[int]], sources: Sequence[int]) -> np.ndarray:
    """Edges from the nearest source; -1 where there is no way."""
    found = np.full(len(near), -1)
    found[list(sources)] = 0
    queue = deque(sources)
    while queue:
        node = queue.popleft()
        for other in near[node]:
            if found[other] < 0:
                found[other] = found[node] + 1
                queue.append(other)
    return found


class Layout:
    """Horizontal positions in given layers, by descent on a cost: deterministic.

    The cost counts leaning edges, crossings, overlaps, edges over nodes, and nodes and edges inside
    plates that are not theirs.
    """

    def __init__(self, graph: Graph, widths: np.ndarray):
        self.levels = levels_of(graph)
        self.widths = widths
        self.edges = np.asarray(graph.edges, int).reshape(-1, 2)
        nodes = range(len(graph.nodes))
        level = self.levels
        pairs = [(i, j) for i, j in itertools.combinations(nodes, 2) if level[i] == level[j]]
        self.pairs = np.asarray(pairs, int).reshape(-1, 2)
        # from the lower end to the upper one
        self.upward = np.asarray(
            [(a, b) if level[a] < level[b] else (b, a) for a, b in self.edges], int
        ).reshape(-1, 2)
        both = [
            (e, f)
            for e, f in itertools.combinations(range(len(self.upward)), 2)
            if level[self.upward[e, 0]] == level[self.upward[f, 0]]
            and not set(self.upward[e]) & set(self.upward[f])
        ]
        self.both = np.asarray(both, int).reshape(-1, 2)
        # nodes of a layer where an edge ends that is not theirs, and how far up the edge they reach
        self.beside = np.asarray(
            [
                (e, node, part)
                for e, (lower, upper) in enumerate(self.upward)
                for end, part in ((lower, 3), (upper, 7))
                for node in nodes
                if level[node] == level[end] and node != end
            ],
            int,
        ).reshape(-1, 3)
        self.plates = [
            np.asarray([i for i in nodes if plate in graph.nodes[i].plates])
            for plate in range(len(graph.plates))
        ]

    def solve(self) -> np.ndarray:
        """The position of each node."""
        random = np.random.default_rng(0)
        orders = [self._depth_first(), np.arange(len(self.levels))]
        orders += [random.permutation(len(self.levels)) for _ in range(STARTS - 2)]
        ends = [self._descend(self._spread(order)) for order in orders]
        best = min(ends, key=lambda x: float(self.cost(x[None])[0]))
        return best - (best.min() + best.max()) / 2

    def _depth_first(self) -> np.ndarray:
        """The nodes as a walk meets them that follows edges: a tree has no crossing then."""
        order: dict[int, None] = {}
        for first in np.argsort(self.levels, kind="stable"):
            stack = [int(first)]
            while stack:
                node = stack.pop()
                if node not in order:
                    order[node] = None
                    ends = self.edges[(self.edges == node).any(1)]
                    stack += [int(n) for n in ends[ends != node]]
        return np.asarray(list(order), int)

    def _spread(self, order: np.ndarray) -> np.ndarray:
        """The nodes of each layer side by side, in this order."""
        x = np.zeros(len(self.levels))
        for level in range(int(self.levels.max()) + 1):
            row = order[self.levels[order] == level]
            apart = (self.widths[row][1:] + self.widths[row][:-1]) / 2 + GAP
            x[row[1:]] = np.cumsum(np.ceil(apart / STEP) * STEP)
            x[row] -= np.round(x[row].mean() / STEP) * STEP
        return x

    def _descend(self, x: np.ndarray) -> np.ndarray:
        cost = self.cost(x[None])[0]
        for _ in range(ROUNDS):
            moves = self._moves(x)
            costs = self.cost(moves)
            best = int(np.argmin(costs))
            if costs[best] > cost - 1e-9:
                break
            x, cost = moves[best], costs[best]
        return x

    def _moves(self, x: np.ndarray) -> np.ndarray:
        """Other positions: one node elsewhere, two of a layer exchanged, a plate shifted."""
        grid = np.arange(x.min() - 2, x.max() + 2 + STEP, STEP)
        single = np.repeat(x[None], len(x) * len(grid), axis=0)
        nodes = np.repeat(np.arange(len(x)), len(grid))
        single[np.arange(len(single)), nodes] = np.tile(grid, len(x))
        swapped = np.repeat(x[None], len(self.pairs), axis=0)
        order = np.arange(len(self.pairs))
        for here, there in ((0, 1), (1, 0)):
            swapped[order, self.pairs[:, here]] = x[self.pairs[:, there]]
        shifted = []
        for members, shift in itertools.product(self.plates, np.arange(-6, 6 + STEP, STEP)):
            moved = x.copy()
            moved[members] += shift
            shifted.append(moved)
            mirrored = moved.copy()
            mirrored[members] = 2 * moved[members].mean() - moved[members]
            shifted.append(mirrored)
        return np.concatenate([single, swapped, np.reshape(shifted, (-1, len(x)))])

    def cost(self, x: np.ndarray) -> np.ndarray:
        """The cost of each of some layouts, shape (layout, node)."""
        low, high = x[:, self.upward[:, 0]], x[:, self.upward[:, 1]]
        lean = np.abs(high - low)  # not squared alone: one that leans is better than two that do
        cost = (lean + 0.5 * lean**2).sum(1) + 0.02 * (x**2).sum(1)
        left, right = self.pairs.T
        room = (self.widths[left] + self.widths[right]) / 2 + GAP
        cost = cost + _overlap(room - np.abs(x[:, left] - x[:, right]))
        first, second = self.both.T
        crossed = (low[:, first] - low[:, second]) * (high[:, first] - high[:, second])
        cost = cost + CROSSING * (crossed <= 0).sum(1)
        edge, node, tenths = self.beside.T
        where = low[:, edge] + (high - low)[:, edge] * tenths / 10
        touched = np.abs(where - x[:, node]) < self.widths[node] / 2 + 0.05
        cost = cost + THROUGH * touched.sum(1)
        boxes = [self._box(x, members) for members in self.plates]
        for members, (begin, end) in zip(self.plates, boxes, strict=True):
            bottom, top = self.levels[members].min(), self.levels[members].max()
            inside = (self.levels >= bottom) & (self.levels <= top)
            foreign = np.setdiff1d(np.nonzero(inside)[0], members)
            reach = self.widths[foreign] / 2 + PAD
            cost = cost + _overlap(
                np.minimum(end - x[:, foreign] + reach, x[:, foreign] + reach - begin)
            )
            lower, upper = self.upward.T
            passing = ~np.isin(lower, members) & ~np.isin(upper, members)
            passing &= (self.levels[upper] >= bottom) & (self.levels[lower] <= top)
            for part in (0.15, 0.5, 0.85):
                where = (1 - part) * low[:, passing] + part * high[:, passing]
                cost = cost + THROUGH * ((where > begin) & (where < end)).sum(1)
        for (one, first_box), (two, second_box) in itertools.combinations(
            zip(self.plates, boxes, strict=True), 2
        ):
            if np.isin(two, one).any():  # one inside the other
                continue
            together = np.minimum(first_box[1] - second_box[0], second_box[1] - first_box[0])
            cost = cost + _overlap(together + PAD)
        return cost

    def _box(self, x: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        half = self.widths[members] / 2 + PAD
        return (
            (x[:, members] - half).min(1, keepdims=True),
            (x[:, members] + half).max(1, keepdims=True),
        )


def _overlap(depth: np.ndarray) -> np.ndarray:
    """The cost of overlaps of some depths, shape (layout, overlap); none below 0."""
    return np.where(depth > 1e-9, OVERLAP * (1 + depth), 0.0).sum(1)
