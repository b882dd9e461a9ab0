"""Dask of every kind: a laptop's cores, its GPUs, or a scheduler that already runs."""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import dask
from distributed import Client, LocalCluster

from galpipe.code_version import code_version
from galpipe.config import ClusterSettings
from galpipe.errors import BadData, ConfigurationError, RemoteFailure
from tasks.catalog import predictor
from tasks.context import RunContext
from tasks.workers import predicting_workers, worker_count

REPOSITORY = Path(__file__).resolve().parent.parent
"""Workers need the checkout on PYTHONPATH; without it a remote worker hangs without a word."""

PROBE_SECONDS = 120
CONNECT_SECONDS = 15


def gpu_count() -> int:
    """GPUs that torch can use here; 0 on a machine without."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def default_workers() -> int:
    """One worker per core, at most eight: each holds a model and a whole band."""
    return max(1, min(8, os.cpu_count() or 1))


def _local(settings: ClusterSettings) -> LocalCluster:
    """A cluster on this machine: one worker per GPU where there are any, else one per core."""
    gpus = gpu_count()
    if gpus and find_spec("dask_cuda") is not None:
        from dask_cuda import LocalCUDACluster  # only importable where the CUDA bindings are

        return LocalCUDACluster(n_workers=settings.workers or gpus, threads_per_worker=1, resources={"GPU": 1})
    workers = settings.workers or default_workers()
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=settings.memory,
        resources={"GPU": 1},  # the same resource as on a GPU machine, so that the graph is the same
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
        silence_logs=40,
    )


def probe(context: RunContext) -> tuple[str, str]:
    """Runs on a worker before anything else: it has our code, and the run's model loads there.

    Returns
    -------
    tuple of str
        The worker's code version and the hash of the model it loaded.
    """
    return code_version(), predictor(context).model_hash


def peak_memory(client: Client) -> int:
    """The most memory that a worker ever held, bytes; the largest of all workers that are alive, 0 if they cannot be asked."""
    peaks = client.run(_own_peak, on_error="ignore")
    return max(peaks.values(), default=0)


def _own_peak() -> int:
    # Linux counts in kilobytes
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextmanager
def connect(context: RunContext) -> Iterator[Client]:
    """A client of a working cluster.

    Raises
    ------
    ConfigurationError
        If the scheduler's address cannot be reached, or a worker cannot import our code or load the model.
    """
    settings = context.settings.cluster
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(REPOSITORY), *filter(None, paths)])),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    # Prefect sets the root logger to INFO in passing; the scheduler would fill the terminal
    logging.getLogger("distributed").setLevel(logging.ERROR)
    options = {"distributed.nanny.pre-spawn-environ": environment, "distributed.scheduler.allowed-failures": 2}
    with dask.config.set(options):
        cluster = None if settings.address else _local(settings)
        try:
            client = Client(cluster or settings.address, timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            raise ConfigurationError("a Dask scheduler that answers", f"{error} at {settings.address!r}") from error
        try:
            _check(client, context)
            yield client
        finally:
            if cluster is not None:
                # on a busy machine a heartbeat may still be under way when the scheduler goes: not a failure, a screenful of traceback
                client.run(_hush, on_error="ignore")
            client.close()
            if cluster is not None:
                cluster.close(timeout=10)


def _hush() -> None:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)


def _check(client: Client, context: RunContext) -> None:
    expected = (context.code_version, context.model_hash)
    try:
        found = client.submit(probe, context, pure=False).result(timeout=PROBE_SECONDS)
    except TimeoutError as error:
        raise RemoteFailure(f"a Dask worker that answers within {PROBE_SECONDS} s (is the checkout on its PYTHONPATH?)", "none") from error
    except ImportError as error:
        raise ConfigurationError("workers that can import galpipe (put the checkout on their PYTHONPATH)", str(error)) from error
    except BadData as error:
        raise ConfigurationError(f"a usable model in {context.model_folder}", str(error)) from error
    if not predicting_workers(client):
        # inference asks for this resource; without it the run would wait for ever
        raise ConfigurationError("at least one Dask worker started with --resources GPU=1", f"{worker_count(client)} without")
    if found != expected:
        raise ConfigurationError(f"workers with code and model {expected}", repr(found))
