"""The machine that training runs on: its properties, and whether it can follow a plan that was made elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from segpipe.errors import ConfigError, MissingError
from segpipe.progress import say
from segpipe.training.plan import Machine, NetworkPlan, Plan

_MAX_GPU_WORKERS, _MAX_CPU_WORKERS = 12, 4


def choose_device(accelerator: str) -> str:
    """Return "cpu" or "cuda" for `train.accelerator`.

    Raises:
        MissingError: A GPU is asked for, and there is none.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise MissingError(
            "no CUDA device here", where="train.accelerator", fix="set it to auto or cpu, or use a machine with a GPU"
        )
    return "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def has_bf16(device: str) -> bool:
    """Return whether the device computes in bfloat16, and does not merely store it. device: "cpu" or "cuda"."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) if torch.backends.mkldnn.is_available() else False


def worker_counts(device: str, devices: int = 1) -> list[int]:
    """List how many processes might prepare batches, the most promising number first.

    It is one if the CPU also trains, because that process is mostly idle, and several with a GPU; smaller numbers follow.

    Args:
        device: "cpu" or "cuda".
        devices: processes of this machine that train, each with workers of its own.
    """
    default = _default_workers(device, devices)
    fewer = [default // 2] if device == "cuda" else [1, 0]
    return list(dict.fromkeys([default, *(count for count in fewer if count < default)]))


def _default_workers(device: str, devices: int) -> int:
    cores = max(1, available_cores() // devices)
    if device == "cuda":
        return max(1, min(_MAX_GPU_WORKERS, cores - 1))
    return 0 if cores == 1 else max(1, min(_MAX_CPU_WORKERS, cores // 4))


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def synchronize(device: str) -> None:
    """Wait until the device has finished all its work. device: "cpu" or "cuda"."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_memory_mib(device: str) -> int:
    """Return the peak memory of this process so far: on the GPU, or on the machine. device: "cpu" or "cuda"."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() >> 20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)


def gpu_memory(device: str) -> dict[str, float]:
    """Return the peak GPU memory of tensors so far, for the log; empty without a GPU. It does not wait for the device."""
    return {"gpu_memory_mib": float(torch.cuda.max_memory_allocated() >> 20)} if device == "cuda" else {}


def make_deterministic() -> None:
    """Make the GPU give the same bits each time: deterministic algorithms, chosen by fixed rules and not by timing.

    If an operation has no such algorithm, torch warns.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory that it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def this_machine(device: str) -> Machine:
    """Return the properties of the machine that this process runs on. device: "cpu" or "cuda"."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20 if hasattr(os, "sysconf") else 0
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        return Machine(
            device="cuda",
            processor=properties.name,
            threads=torch.get_num_threads(),
            memory_mib=properties.total_memory >> 20,
            torch=torch.__version__,
        )
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    capability = torch.backends.cpu.get_cpu_capability()
    return Machine(
        device="cpu",
        processor=f"{names[0] if names else sys.platform} ({capability})",
        threads=torch.get_num_threads(),
        memory_mib=memory,
        torch=torch.__version__,
    )


def check_plan(plan: Plan) -> None:
    """Check that this machine can follow a plan.

    A note is printed if training will only be slower here, or if weights may differ in their last bits.

    Raises:
        ConfigError: It cannot.
    """
    if not isinstance(plan, NetworkPlan):
        return
    where, fix = f"plans/{plan.candidate}.json", f"segpipe plan {plan.candidate} --refresh"
    planned = plan.execution.machine
    if planned.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("the plan needs a GPU, and there is none here", where=where, fix=fix)
    if plan.execution.setting.precision == "bf16" and not has_bf16(planned.device):
        raise ConfigError("the plan computes in bfloat16, which this machine does not support", where=where, fix=fix)
    here = this_machine(planned.device)
    if here.memory_mib < plan.execution.peak_memory_mib:
        raise ConfigError(
            "the plan needs more memory than this machine has",
            where=where,
            found=f"{here.memory_mib:,} MiB",
            expected=f"{plan.execution.peak_memory_mib:,}",
            fix=fix,
        )
    if planned.device == "cpu" and here.threads < planned.threads:
        say(
            f"note: planned for {planned.threads} threads, but this machine has {here.threads}: training takes longer than planned ({fix})"
        )
    if (here.processor, here.torch) != (planned.processor, planned.torch):
        say(
            f"note: planned on {planned.processor} with torch {planned.torch}; this is {here.processor} with torch {here.torch}: "
            "weights may differ in their last bits, and the measured setting may not be the fastest"
        )
