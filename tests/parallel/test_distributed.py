"""selection="global" over two processes against one process that holds all rows."""

from typing import Any

import pytest
import torch
from torch import Tensor

from entprop_fast.parallel.rows import gather_rows, own_share, shuffle_rows, world_size
from tests.methods.support import assert_equal, batch, dual_network, frozen_network, generator, make
from tests.processes import WORLD, in_two_processes

ROWS = 6
MIXED: dict[str, Any] = {"k": 1.0, "aux_labels": "mixed"}


def step(images: Tensor, labels: Tensor, **options: Any) -> dict[str, Any]:
    method = make(model=frozen_network(), n=2, alpha=0.02, **options)
    result = method.backward(images, labels)
    assert method.selected_index is not None and method.perturbed is not None
    return {
        "selected": method.selected_index,
        "perturbed": method.perturbed,
        "gradients": {n: p.grad for n, p in method.model.named_parameters()},
        "result": result._asdict(),
    }


def fast_advprop(images: Tensor, labels: Tensor, source: torch.Generator) -> dict[str, Any]:
    """A step; its last forward's images, and what was perturbed."""
    model, inputs = dual_network(), []
    model.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach().clone()))
    method = make("fast_advprop", model=model, p_adv=0.5, eps=0.1, generator=source)
    method.backward(images, labels)
    return {"perturbed": method.perturbed, "last": inputs[-1]}


def run_rank(rank: int) -> dict[str, Any]:
    images, labels = (t[rank * ROWS :][:ROWS] for t in batch(WORLD * ROWS))
    return {
        "world": world_size(),
        "gathered": gather_rows(labels),
        "share": own_share(torch.arange(7)),
        "plain": step(images, labels, k=0.5, mixup=0.0, selection="global"),
        "mixed": step(images, labels, **MIXED, selection="global", generator=generator(rank)),
        "shuffled": shuffle_rows(images, labels, generator(rank)),
        "fast_advprop": fast_advprop(images, labels, generator(rank)),
        "own rows": step(images, labels, k=0.5, mixup=0.0, selection="rank"),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found, rank by rank."""
    return in_two_processes(run_rank, tmp_path_factory.mktemp("ranks"))


def close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_rows_of_all_ranks_come_in_their_order(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["world"] == WORLD
        assert_equal(found["gathered"], batch(WORLD * ROWS)[1])
    assert [found["share"].tolist() for found in ranks] == [[0, 2, 4, 6], [1, 3, 5]]


def test_the_ranks_select_what_one_process_would(ranks: list[dict[str, Any]]) -> None:
    alone = step(*batch(WORLD * ROWS), k=0.5, mixup=0.0)
    both = [found["plain"] for found in ranks]
    merged = torch.stack([found["selected"] for found in both], dim=1).flatten()
    assert merged.tolist() == alone["selected"].tolist()
    assert {len(found["selected"]) for found in both} == {3}  # the same work for every rank
    assert len({int(i) // ROWS for i in both[0]["selected"]}) == 2  # rows of the other rank too


def test_the_ranks_perturb_as_one_process_would(ranks: list[dict[str, Any]]) -> None:
    alone = step(*batch(WORLD * ROWS), k=0.5, mixup=0.0)
    both = [found["plain"] for found in ranks]
    close(torch.stack([f["perturbed"] for f in both], dim=1).flatten(0, 1), alone["perturbed"])
    for name, gradient in alone["gradients"].items():
        close(sum(found["gradients"][name] for found in both) / WORLD, gradient)
    for name in ("entropy_selected", "entropy_unselected"):
        for found in both:  # over the rows of all
            close(found["result"][name], alone["result"][name])


def test_rows_keep_the_lam_that_they_were_mixed_with(ranks: list[dict[str, Any]]) -> None:
    """With k = 1 every row is selected by some rank: the losses add up to those of rank by rank."""
    images, labels = (t.split(ROWS) for t in batch(WORLD * ROWS))
    separate = [
        step(images[rank], labels[rank], **MIXED, generator=generator(rank))
        for rank in range(WORLD)
    ]
    together = sum(found["mixed"]["result"]["aux_loss"] for found in ranks)
    close(together, sum(found["result"]["aux_loss"] for found in separate))


def test_selection_by_rank_stays_at_home(ranks: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(ranks):
        images, labels = (t[rank * ROWS :][:ROWS] for t in batch(WORLD * ROWS))
        alone = step(images, labels, k=0.5, mixup=0.0)
        assert_equal(found["own rows"]["selected"], alone["selected"])
        close(found["own rows"]["perturbed"], alone["perturbed"])


def test_rows_are_dealt_out_anew_with_their_labels(ranks: list[dict[str, Any]]) -> None:
    """The ranks draw from generators of other seeds and agree all the same."""
    images, labels = batch(WORLD * ROWS)
    known = {
        tuple(image.flatten().tolist()): int(y) for image, y in zip(images, labels, strict=True)
    }
    dealt = [found["shuffled"] for found in ranks]
    rows = [tuple(image.flatten().tolist()) for shuffled, _ in dealt for image in shuffled]
    assert set(rows) == set(known) and len(rows) == len(known) == WORLD * ROWS
    assert [int(y) for _, own in dealt for y in own] == [known[row] for row in rows]
    assert [len(shuffled) for shuffled, _ in dealt] == [ROWS, ROWS]
    assert set(rows[:ROWS]) != {tuple(image.flatten().tolist()) for image in images[:ROWS]}


def test_fast_advprop_learns_from_the_perturbed_rows_of_all_ranks(
    ranks: list[dict[str, Any]],
) -> None:
    found = [found["fast_advprop"] for found in ranks]
    perturbed, last = (
        {tuple(image.flatten().tolist()) for one in found for image in one[key]}
        for key in ("perturbed", "last")
    )
    assert perturbed == last and len(last) == WORLD * ROWS // 2
    assert all(len(one["last"]) == ROWS // 2 for one in found)
    assert not torch.equal(found[0]["last"], found[0]["perturbed"])


def test_one_process_has_all_rows() -> None:
    rows = torch.arange(5)
    assert world_size() == 1
    assert gather_rows(rows) is rows and own_share(rows) is rows
    before = torch.get_rng_state()
    assert shuffle_rows(rows, rows, None) == (rows, rows)  # as they are, and nothing drawn
    assert_equal(torch.get_rng_state(), before)
    one, other = (step(*batch(), mixup=0.0, selection=s) for s in ("global", "rank"))
    assert_equal(one, other)
