"""Normalisation and gathering over two gloo processes, in float64, against one process."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from clcae.aligner import Aligner
from clcae.losses.contrastive import info_nce
from clcae.nn.gather import gather_rows

IMAGES = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
CODES = torch.randn(8, 5, generator=torch.Generator().manual_seed(2)).double()


def build() -> Aligner:
    torch.manual_seed(0)
    aligner = Aligner(
        image_size=16, w_dim=5, dim=8, stem_channels=4, stages=[[6, 1], [8, 2]], stem_stride=1
    )
    return aligner.double().train()


def gradients(aligner: nn.Module, rows: slice) -> list[torch.Tensor]:
    assert isinstance(aligner, Aligner)
    images = gather_rows(aligner.embed_images(IMAGES[rows]))
    latents = gather_rows(aligner.embed_latents(CODES[rows]))
    info_nce(images, latents, aligner.scale).backward()
    return [parameter.grad for parameter in aligner.parameters() if parameter.grad is not None]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    aligner = build()
    found = gradients(aligner, slice(4 * rank, 4 * rank + 4))
    for gradient in found:  # as the trainer does
        dist.all_reduce(gradient)
        gradient /= 2
    if rank == 0:
        torch.save((found, dict(aligner.named_buffers())), f"{folder}/found.pt")
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads sometimes abort the exit of the interpreter (torch 2.15)


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    found, buffers = torch.load(tmp_path / "found.pt", weights_only=True)
    alone = build()
    expected = gradients(alone, slice(0, 8))
    assert len(found) == len(expected) > 40
    for value, target in zip(found, expected, strict=True):
        torch.testing.assert_close(value, target, rtol=1e-7, atol=1e-10)
    for name, buffer in alone.named_buffers():
        torch.testing.assert_close(buffers[name], buffer, rtol=1e-9, atol=1e-12)
