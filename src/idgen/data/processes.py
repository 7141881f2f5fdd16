"""How worker processes begin."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext


def worker_context() -> BaseContext:
    """Workers are forked from a process that has imported the package and done nothing else: a fork of one that runs
    torch's threads can hang, and importing takes each worker seconds."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["idgen.data.shard", "idgen.data.dataset"])
    return context
