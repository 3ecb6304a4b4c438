"""Training in several processes: they connect, agree, and leave some work to the first one.

torchrun starts the processes, or anything else that sets its variables: WORLD_SIZE, RANK, LOCAL_RANK,
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

from mlic_runtime.base.override import override
from mlic_train.errors import ConfigError, TrainError

# The other processes wait while the first works alone, for example on cached features. When a process dies they do not
# wait that long: its connections close (gloo), and torchrun ends the others.
_TIMEOUT = timedelta(days=7)

T = TypeVar("T")


class Autocast(MixedPrecision):
    """Fabric's mixed precision, except that batches stay as they are: targets and masks must not be rounded.

    Autocast casts the inputs of a layer; parameters, their gradients and the optimizer stay float32.
    """

    @override
    def convert_input(self, data: Any) -> Any:
        return data


def create_fabric(device: str, mixed_precision: str = "none") -> Fabric:
    """Create this process's Fabric, connected to the other processes if any (gloo on CPUs, NCCL on GPUs).

    Args:
        device: "auto", "cpu", "cuda" or "mps"; each of several processes on a machine gets a GPU of its own.
        mixed_precision: one of `config.MIXED_PRECISIONS`.

    Raises:
        ConfigError: the device is missing, float16 without CUDA, or numbers of processes that do not fit together.
    """
    world = _number_of_processes("WORLD_SIZE", 1)
    local = _number_of_processes("LOCAL_WORLD_SIZE", world)
    if world % local:
        raise ConfigError(f"WORLD_SIZE is {world}, LOCAL_WORLD_SIZE {local}; machines need equal numbers")
    kind = _accelerator(device, local, world)
    plugins: list[Any] = []
    if mixed_precision == "fp16" and kind != "cuda":
        raise ConfigError(f"--mixed-precision fp16 needs a CUDA GPU, the device is {kind}; bf16 does not")
    if mixed_precision != "none":
        plugins.append(Autocast("16-mixed" if mixed_precision == "fp16" else "bf16-mixed", kind))
    if world == 1:
        return Fabric(accelerator=kind, devices=1, plugins=plugins)
    # A process whose rows have no picture has no gradient for the backbone, so DDP has to search for unused parameters.
    strategy = DDPStrategy(find_unused_parameters=True, timeout=_TIMEOUT)
    plugins.append(TorchElasticEnvironment())
    _connect("nccl" if kind == "cuda" else "gloo")
    fabric = Fabric(accelerator=kind, strategy=strategy, devices=local, num_nodes=world // local, plugins=plugins)
    fabric.launch()
    return fabric


def _connect(backend: str) -> None:
    """Connect to the other processes that torchrun started, under names of this start.

    torchrun keeps one store for all starts, and torch 2.15 uses the same names there after a restart. The first process
    would find the address of a process that is gone, and wait for it forever.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or dist.is_initialized():
        return  # Fabric connects
    store, rank, world = next(rendezvous("env://", timeout=_TIMEOUT))
    store.set_timeout(_TIMEOUT)
    prefix = f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    start = dist.PrefixStore(prefix, store)  # type: ignore[attr-defined] # torch documents it there
    dist.init_process_group(backend, store=start, rank=rank, world_size=world, timeout=_TIMEOUT)
    if backend == "nccl":
        atexit.register(dist.destroy_process_group)


def on_first_process(fabric: Fabric, work: Callable[[], T]) -> T:
    """Let the first process do `work` while the others wait; return its result in all of them (it is pickled).

    Raises:
        Exception: in the first process, the error of `work`.
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


def mean_over_processes(fabric: Fabric, value: Tensor) -> float:
    """Return the mean over the processes of a scalar on `fabric.device`."""
    if fabric.world_size > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
        value = value / fabric.world_size
    return value.item()


def any_process(fabric: Fabric, flag: bool) -> bool:
    """Return whether `flag` is set in any process."""
    return mean_over_processes(fabric, torch.tensor(float(flag), device=fabric.device)) > 0


def average_statistics(fabric: Fabric, module: nn.Module) -> None:
    """Average the running statistics of batch normalisation, which each process computes from its own rows.

    Layers in eval mode are left out: their statistics are equal in every process.
    """
    if fabric.world_size == 1:
        return
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.training]
    statistics = [value for layer in layers for value in (layer.running_mean, layer.running_var) if value is not None]
    if not statistics:
        return
    together = torch.cat(statistics)  # one message instead of two per layer
    dist.all_reduce(together)
    together /= fabric.world_size
    for own, mean in zip(statistics, torch.split(together, [len(value) for value in statistics]), strict=True):
        own.copy_(mean)


def _number_of_processes(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"the environment variable {name} is {text!r}; expected a number of processes")
    return int(text)


def _accelerator(device: str, local: int, world: int) -> str:
    """Return the device that "auto" stands for (CUDA, else MPS, else the CPU), or `device` itself if it is there."""
    gpus = torch.cuda.device_count()
    if device == "auto":
        device = "cuda" if gpus else "mps" if torch.backends.mps.is_available() and world == 1 else "cpu"
    if device == "cuda" and gpus < local:
        raise ConfigError(f"--device cuda: {gpus} GPUs found, {local} needed, one per process; try --device cpu")
    if device == "mps" and (world > 1 or not torch.backends.mps.is_available()):
        raise ConfigError("--device mps: it is not available, or several processes cannot share it; try --device cpu")
    return device
