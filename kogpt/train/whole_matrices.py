"""Whole matrices for Muon from what ZeRO has cut. In: each rank's parts of the hidden matrices. Out: their directions.

Each matrix has an owner, and the FLOPs are divided evenly among the ranks. Every rank sends its parts to the owners
(all-to-all), the owners orthogonalize, and send the parts back (all-to-all). At stage 0 every rank has the whole
matrices already, so only the results are sent. A matrix is orthogonalized whole whatever the stage and the number of
ranks; they change only the rounding of the gradients.

A parameter may be several matrices, one above the other (`Decoder.STACKED`): each is orthogonalized on its own.

Cost: per step a rank sends and receives each of its elements about once in each direction, at stage 0 the elements of
the whole model once. In rounds of at most `MUON_ROUND` elements on each rank, so memory is a few times `MUON_ROUND`.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from kogpt.model.decoder import Decoder
from kogpt.optim.muon import NewtonSchulz, Piece, cost, orthogonalize, update_scale
from kogpt.optim.parameter_groups import hidden_matrices
from kogpt.train.distributed import Ranks
from kogpt.train.full_state import FullState
from kogpt.train.memory import MUON_ROUND


class Part(NamedTuple):
    """One rank's part of a flattened parameter."""

    start: int
    numel: int


@dataclass(frozen=True)
class Place:
    """A hidden matrix, or several one above the other."""

    shape: tuple[int, int]
    stacked: int
    tensor: Tensor
    """The optimizer's tensor that holds this rank's part."""
    offset: int
    """Where in it."""
    parts: tuple[Part, ...]
    """Of each rank."""

    @property
    def numel(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def single(self) -> tuple[int, int]:
        """The shape of each of its matrices."""
        return self.shape[0] // self.stacked, self.shape[1]

    @property
    def cost(self) -> int:
        return self.stacked * cost(*self.single)


class WholeMatrices:
    """Computes the directions of Muon's update (`kogpt.optim.muon.Directions`). All ranks must make the same calls."""

    def __init__(
        self, model: Decoder, state: FullState, ranks: Ranks, dtype: torch.dtype, method: NewtonSchulz
    ) -> None:
        self.ranks, self.dtype, self.method = ranks, dtype, method
        names = list(hidden_matrices(model))
        mine = [Part(*state.extent(name)) for name in names]
        everyone: list[list[Part]] = [mine] * ranks.world_size
        if ranks.world_size > 1:
            dist.all_gather_object(everyone, mine)
        self.places = []
        for index, name in enumerate(names):
            rows, columns = state.shape(name)
            stacked = next((count for end, count in model.STACKED.items() if name.endswith(end)), 1)
            parts = tuple(Part(*extents[index]) for extents in everyone)
            self.places.append(Place((rows, columns), stacked, *state.place(name), parts))

    def __call__(self, tensors: list[Tensor]) -> Iterator[Piece]:
        """The pieces of `tensors` that this rank has, and their directions from the gradients of all ranks."""
        wanted = {id(tensor) for tensor in tensors}
        for places, owners in rounds(
            [place for place in self.places if id(place.tensor) in wanted], self.ranks.world_size
        ):
            own = [place for place, owner in zip(places, owners, strict=True) if owner == self.ranks.rank]
            whole = self._orthogonalized(own, self._gather(places, owners, own))
            for place, direction in zip(places, self._hand_back(places, owners, own, whole), strict=True):
                part = place.parts[self.ranks.rank]
                if part.numel:
                    weight = place.tensor.view(-1).narrow(0, place.offset, part.numel)
                    rows, columns = place.single
                    yield Piece(weight, direction.to(weight.device, weight.dtype), update_scale(rows, columns))

    def _gather(self, places: list[Place], owners: list[int], own: list[Place]) -> list[Tensor]:
        """The whole gradients of this rank's `own` places, flat."""
        if not _are_cut(places):
            return [self._gradient(place) for place in own]
        sent: list[list[Tensor]] = [[] for _ in range(self.ranks.world_size)]
        for place, owner in zip(places, owners, strict=True):
            sent[owner].append(self._gradient(place))
        received = self._exchange(sent, [sum(place.parts[r].numel for place in own) for r in range(len(sent))])
        found = [torch.empty(place.numel, dtype=self.dtype, device=self.ranks.device) for place in own]
        for rank, flat in enumerate(received):
            cuts = flat.split([place.parts[rank].numel for place in own])
            for place, whole, cut in zip(own, found, cuts, strict=True):
                whole[place.parts[rank].start :][: cut.numel()] = cut
        return found

    def _hand_back(self, places: list[Place], owners: list[int], own: list[Place], whole: list[Tensor]) -> list[Tensor]:
        """This rank's parts of the directions, flat, in the order of `places`. `whole` are those of `own`."""
        if self.ranks.world_size == 1:
            return whole
        ranks = range(self.ranks.world_size)
        sent = [[flat.narrow(0, *place.parts[r]) for place, flat in zip(own, whole, strict=True)] for r in ranks]
        mine = [place.parts[self.ranks.rank].numel for place in places]
        by_owner = [[numel for numel, owner in zip(mine, owners, strict=True) if owner == r] for r in ranks]
        received = self._exchange(sent, [sum(numels) for numels in by_owner])
        cuts = [iter(flat.split(numels)) for flat, numels in zip(received, by_owner, strict=True)]
        return [next(cuts[owner]) for owner in owners]

    def _orthogonalized(self, own: list[Place], whole: list[Tensor]) -> list[Tensor]:
        """The flat matrices `whole` orthogonalized, those of the same shape in one batch."""
        batches: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, place in enumerate(own):
            batches[place.single].append(index)
        for single, indices in batches.items():
            stack = torch.cat([whole[index].view(-1, *single) for index in indices])
            done = orthogonalize(stack, self.method).split([own[index].stacked for index in indices])
            for index, direction in zip(indices, done, strict=True):
                whole[index] = direction.flatten()
        return whole

    def _gradient(self, place: Place) -> Tensor:
        """This rank's part of u, flat, in the dtype and on the device of the iteration."""
        gradient = place.tensor.grad
        assert gradient is not None
        part = gradient.view(-1).narrow(0, place.offset, place.parts[self.ranks.rank].numel)
        return part.to(self.ranks.device, self.dtype)

    def _exchange(self, sent: list[list[Tensor]], counts: list[int]) -> list[Tensor]:
        """Send a rank's tensors to each rank; returns what each rank sent here, `counts` elements, as one tensor."""
        empty = torch.empty(0, dtype=self.dtype, device=self.ranks.device)
        out = torch.empty(sum(counts), dtype=self.dtype, device=self.ranks.device)
        sizes = [sum(tensor.numel() for tensor in tensors) for tensors in sent]
        together = torch.cat([empty, *(tensor for tensors in sent for tensor in tensors)])
        dist.all_to_all_single(out, together, counts, sizes)
        return list(out.split(counts))


def rounds(places: list[Place], world_size: int) -> Iterator[tuple[list[Place], list[int]]]:
    """The places in rounds, the costliest first, each with its owner: the rank that has the least to do so far.

    An owner takes at most `MUON_ROUND` elements in a round, or one place. If every rank receives all directions of a
    round, that is the limit of the whole round.
    """
    limit = MUON_ROUND if _are_cut(places) else MUON_ROUND // world_size
    load, room = [0] * world_size, [limit] * world_size
    chosen: list[Place] = []
    owners: list[int] = []
    for place in sorted(places, key=lambda place: -place.cost):  # stable, so the same on all ranks
        owner = load.index(min(load))
        if room[owner] < place.numel and room[owner] < limit:
            yield chosen, owners
            chosen, owners, room = [], [], [limit] * world_size
        chosen.append(place)
        owners.append(owner)
        load[owner] += place.cost
        room[owner] -= place.numel
    if chosen:
        yield chosen, owners


def _are_cut(places: list[Place]) -> bool:
    """Whether ranks hold parts; at stage 0, and on one rank, each holds everything."""
    return any(part.numel != place.numel for place in places for part in place.parts)
