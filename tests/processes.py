"""Processes that a test starts, kills and waits for.

They are forked from one that has imported the package, as workers are: a new Python takes ten seconds to import it.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

from accelerate import PartialState

from idgen.data.engines import worker_context

PRELOADED = ["idgen.training.run", "idgen.evaluation.command", "tests.preloaded"]
"""Modules that the server of forks imports, so that its children need not."""


def start_server() -> None:
    """Start the process that all others are forked from, before the package starts one that has imported less."""
    forkserver.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()


def start(work: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Call a function of a module in a process of its own; both are found by name there."""
    process: BaseProcess = worker_context().Process(target=work, args=arguments)  # pyright: ignore
    process.start()
    return process


def start_command(*arguments: object) -> BaseProcess:
    """The `idgen` command with these arguments."""
    return start(run_command, *arguments)


def run_command(*arguments: object) -> None:
    """Run the `idgen` command in this process."""
    from idgen.cli import main

    sys.argv = ["idgen", *map(str, arguments)]
    main()


def run_command_together(*arguments: object) -> None:
    """The same in one of two processes, which must know of each other."""
    run_command(*arguments)
    assert PartialState().num_processes == 2


def run_in_two(work: Callable[..., Any], *arguments: Any) -> None:
    """Call a function in two processes that find each other by what a launcher of torch's would have told them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [start(_one_of_two, rank, port, work, *arguments) for rank in range(2)]
    try:
        for process in processes:
            process.join(240)
        assert [process.exitcode for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


def _one_of_two(rank: int, port: int, work: Callable[..., Any], *arguments: Any) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    work(*arguments)
