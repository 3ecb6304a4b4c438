"""Several processes as one: how they find each other, agree, and leave to the first what one alone must do.

The processes are started by torchrun, or by anything else that sets its variables: WORLD_SIZE, RANK, LOCAL_RANK,
LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Without WORLD_SIZE there is one process, and nothing here communicates.
"""

import atexit
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from mlic_train.errors import ConfigError, TrainError

# The others wait for as long as the first works alone, on features say. When a process dies they do not wait for this:
# its connections close (gloo), and torchrun ends the others.
_WAIT = timedelta(days=7)

T = TypeVar("T")


class Autocast(MixedPrecision):
    """Fabric's mixed precision, except that a batch stays as it is: targets and masks are nothing to be rounded.

    Autocast casts what a layer needs; parameters, their gradients and the optimizer stay float32.
    """

    def convert_input(self, data: Any) -> Any:
        """The arguments of the forward pass, unchanged."""
        return data


def create_fabric(device: str, mixed_precision: str = "none") -> Fabric:
    """This process's Fabric, connected to the other processes where there are any (gloo on CPUs, NCCL on GPUs).

    Args:
        device: "auto", "cpu", "cuda" or "mps"; of several processes on a machine, each gets a GPU of its own.
        mixed_precision: one of `config.MIXED_PRECISIONS`.

    Raises:
        ConfigError: a device that is not there, float16 without CUDA, or numbers of processes that do not fit together.
    """
    world = _from_environment("WORLD_SIZE", 1)
    local = _from_environment("LOCAL_WORLD_SIZE", world)
    if world % local:
        raise ConfigError(f"WORLD_SIZE is {world}, LOCAL_WORLD_SIZE {local}; every machine needs as many processes")
    kind = _accelerator(device, local, world)
    plugins: list[Any] = []
    if mixed_precision == "fp16" and kind != "cuda":
        raise ConfigError(f"--mixed-precision fp16 needs a CUDA GPU, the device is {kind}; bf16 does not")
    if mixed_precision != "none":
        plugins.append(Autocast("16-mixed" if mixed_precision == "fp16" else "bf16-mixed", kind))
    if world == 1:
        return Fabric(accelerator=kind, devices=1, plugins=plugins)
    # A process whose rows have no picture has no gradient for the backbone: DDP has to look for that in every step.
    strategy = DDPStrategy(find_unused_parameters=True, timeout=_WAIT)
    plugins.append(TorchElasticEnvironment())
    _meet("nccl" if kind == "cuda" else "gloo")
    fabric = Fabric(accelerator=kind, strategy=strategy, devices=local, num_nodes=world // local, plugins=plugins)
    fabric.launch()
    return fabric


def _meet(backend: str) -> None:
    """Connect to the other processes that torchrun started, by what they say at this start and not at an earlier one.

    torchrun keeps one store for all starts, and torch 2.15 looks there under the same names after a restart: who comes
    first finds the address of a process that is gone, and waits for it without end.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or dist.is_initialized():
        return  # Fabric connects where nobody has yet
    store, rank, world = next(rendezvous("env://", timeout=_WAIT))
    store.set_timeout(_WAIT)
    prefix = f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    start = dist.PrefixStore(prefix, store)  # type: ignore[attr-defined] # torch documents it there
    dist.init_process_group(backend, store=start, rank=rank, world_size=world, timeout=_WAIT)
    if backend == "nccl":
        atexit.register(dist.destroy_process_group)


def in_first(fabric: Fabric, work: Callable[[], T]) -> T:
    """Let the first process do `work` while the others wait; all return what it returned (pickled on the way).

    Raises:
        Exception: in the first process, what `work` raised.
        TrainError: in the others, if `work` failed.
    """
    if fabric.world_size == 1:
        return work()
    outcome: list[T] = []
    error: Exception | None = None
    if fabric.is_global_zero:
        try:
            outcome.append(work())
        except Exception as caught:
            error = caught
    outcome = fabric.broadcast(outcome)
    if error is not None:
        raise error
    if not outcome:
        raise TrainError("stopped, because the first process failed; its message says why")
    return outcome[0]


def mean_of(fabric: Fabric, value: Tensor) -> float:
    """The mean over the processes of a scalar on `fabric.device`; the same in all of them."""
    if fabric.world_size > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
        value = value / fabric.world_size
    return value.item()


def any_of(fabric: Fabric, flag: bool) -> bool:
    """Whether `flag` is set in any process; the same in all of them."""
    return mean_of(fabric, torch.tensor(float(flag), device=fabric.device)) > 0


def average_statistics(fabric: Fabric, module: nn.Module) -> None:
    """Give the running statistics of batch normalisation, which each process takes from its own rows, their mean.

    Only of layers in train mode; the others have the same in every process.
    """
    if fabric.world_size == 1:
        return
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.training]
    statistics = [each for layer in layers for each in (layer.running_mean, layer.running_var) if each is not None]
    if not statistics:
        return
    together = torch.cat(statistics)  # one message instead of two per layer
    dist.all_reduce(together)
    together /= fabric.world_size
    start = 0
    for own in statistics:
        own.copy_(together[start : start + len(own)])
        start += len(own)


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"the environment variable {name} is {text!r}; a number of processes is needed")
    return int(text)


def _accelerator(device: str, local: int, world: int) -> str:
    """The device that "auto" stands for: CUDA, else MPS, else the CPU; others as they are, if they are there."""
    gpus = torch.cuda.device_count()
    if device == "auto":
        device = "cuda" if gpus else "mps" if torch.backends.mps.is_available() and world == 1 else "cpu"
    if device == "cuda" and gpus < local:
        raise ConfigError(f"--device cuda: {gpus} GPUs found, {local} needed, one per process; try --device cpu")
    if device == "mps" and (world > 1 or not torch.backends.mps.is_available()):
        raise ConfigError("--device mps: it is not there, or several processes cannot share it; try --device cpu")
    return device
