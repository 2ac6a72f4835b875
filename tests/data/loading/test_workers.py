import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from videonet.data.loading.workers import TRIES_WHEN_KILLED, WorkerFailure, WorkerPool
from videonet.errors import DecodeError

TASKS = """
    import ctypes, logging, os, signal, time
    from videonet.errors import DecodeError

    def work(task):
        if task == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if task == "exit":
            os._exit(3)
        if task == "sleep":
            time.sleep(600)
        if task == "hold":  # sleeps without giving the interpreter's lock back, as a decoder may
            ctypes.PyDLL(None).sleep(600)
        if task == "refuse":
            raise DecodeError("cannot read x: because")
        if task == "mistake":
            return 1 / 0
        if task == "talk":
            logging.getLogger("videonet.data").warning("said %s", "once")
        if task.startswith(("once", "slow")):  # a file says that it was tried before
            kind, path = task.split(":")
            tried = os.path.exists(path)
            with open(path, "a") as file:
                file.write(f"{os.getpid()}\\n")
            if kind == "once" and not tried:
                os.kill(os.getpid(), signal.SIGSEGV)
            if kind == "slow":
                time.sleep(1.5)
        return task, os.getpid()

    class Unready:
        def __setstate__(self, state):
            os._exit(4)
        def __getstate__(self):
            return {"a": 1}

    class StoppedOnce:  # its first process gets SIGTERM before it is ready
        def __init__(self, mark):
            self.mark = mark
        def __setstate__(self, state):
            self.__dict__.update(state)
            if not os.path.exists(self.mark):
                open(self.mark, "w").close()
                os.kill(os.getpid(), signal.SIGTERM)
        def __call__(self, task):
            return task
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A module that worker processes can import."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "tasks_of_workers.py").write_text(textwrap.dedent(TASKS))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        import tasks_of_workers

        yield tasks_of_workers


@pytest.fixture
def pool(tasks):
    pools = []

    def start(workers=2, timeout=0.0):
        pools.append(WorkerPool(tasks.work, workers, timeout))
        return pools[-1]

    yield start
    for each in pools:
        each.close()


def results(pool, *names):
    for k, name in enumerate(names):
        pool.submit(k, name)
    found = {}
    while (done := pool.result()) is not None:
        found[done[0]] = done[1]
    return found


def test_every_task_has_its_result(pool):
    found = results(pool(), *"abcdefgh")
    assert {k: task for k, (task, _) in found.items()} == dict(enumerate("abcdefgh"))
    assert os.getpid() not in {process for _, process in found.values()}


@pytest.mark.parametrize(("fault", "reason"), [("crash", "with SIGSEGV"), ("exit", "exit code 3")])
def test_a_crash_costs_one_task_and_one_process(pool, fault, reason):
    found = results(pool(1), "a", "b", fault, "c", "d", fault, "e")
    assert [k for k, outcome in found.items() if isinstance(outcome, WorkerFailure)] == [2, 5]
    assert reason in found[2].reason
    processes = [found[k][1] for k in (0, 1, 3, 4, 6)]
    assert len(set(processes)) == 3 and processes == sorted(processes)


@pytest.mark.parametrize("fault", ["sleep", "hold"])
def test_a_hang_costs_one_task_and_one_process(pool, fault):
    found = results(pool(2, timeout=3.0), "a", fault, "b", "c", "d")
    assert [k for k, outcome in found.items() if isinstance(outcome, WorkerFailure)] == [1]
    assert found[1].reason == "it took longer than 3 s"


def tries(path):
    return path.read_text().split() if path.exists() else []


def wait_for(path, count=1):
    while len(tries(path)) < count:
        time.sleep(0.02)


def test_a_lost_worker_condemns_no_task(pool, tmp_path):
    path = tmp_path / "tried"
    found = results(pool(1), "a", f"once:{path}", "b")
    assert not any(isinstance(outcome, WorkerFailure) for outcome in found.values())
    assert len(set(tries(path))) == 2  # in a fresh process


def test_who_is_killed_from_outside_again_and_again_is_not_to_blame(pool, tmp_path):
    some, path = pool(1), tmp_path / "tried"
    some.submit(0, f"slow:{path}")
    for count in range(1, TRIES_WHEN_KILLED):
        while len(tries(path)) < count:
            assert some.result(0.02) is None
        os.kill(int(tries(path)[-1]), signal.SIGKILL)
    assert some.result(60.0)[1][0] == f"slow:{path}"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_the_clock_stands_while_a_worker_is_paused(pool, tmp_path):
    some, path = pool(1, timeout=3.0), tmp_path / "tried"
    some.submit(0, f"slow:{path}")
    wait_for(path)
    os.kill(int(tries(path)[0]), signal.SIGSTOP)
    assert some.result(5.0) is None
    os.kill(int(tries(path)[0]), signal.SIGCONT)
    assert some.result(60.0)[1][0] == f"slow:{path}" and len(tries(path)) == 1


def test_the_clock_stands_while_nobody_asks(pool, tmp_path):
    """A run that is paused does not look at its clock either."""
    some, path = pool(1, timeout=1.6), tmp_path / "tried"
    some.submit(0, f"slow:{path}")
    wait_for(path)
    time.sleep(3)
    assert some.result(60.0)[1][0] == f"slow:{path}" and len(tries(path)) == 1


def test_exceptions_come_through(pool):
    refusing, mistaken = pool(1), pool(1)
    refusing.submit(0, "refuse")
    with pytest.raises(DecodeError, match="cannot read x: because"):
        refusing.result()
    assert results(refusing, "a")[0][0] == "a"  # and the worker lives
    mistaken.submit(0, "mistake")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        mistaken.result()


def test_what_is_logged_in_workers_is_logged_once(pool, caplog):
    with caplog.at_level(logging.INFO, logger="videonet.data"):
        results(pool(2), *["talk"] * 6)
    assert [record.getMessage() for record in caplog.records] == ["said once"]


def test_an_idle_worker_that_ends_is_replaced(pool):
    some = pool(1)
    (_, process) = results(some, "a")[0]
    os.kill(process, signal.SIGKILL)
    outcomes = results(some, "b", "c")
    again = results(some, "d")[0]
    assert outcomes[1][0] == "c" and again[1] != process


def test_waiting_has_an_end_and_tasks_can_be_dropped(pool):
    some = pool(1)
    assert some.result(0.01) is None and len(some) == 0
    some.submit(0, "a")
    assert some.result(60.0) is not None
    for k in range(5):
        some.submit(k, "b")
    some.discard()
    assert len(some) == 0 and results(some, "c")[0][0] == "c"


def test_a_worker_that_cannot_start_is_an_error(tasks):
    pool = WorkerPool(tasks.Unready(), 1)
    pool.submit(0, "a")
    with pytest.raises(RuntimeError, match="while it started: .* exit code 4"):
        pool.result()
    pool.close()


def test_workers_end_with_their_pool(pool):
    some = pool(2, timeout=60)
    processes = {process for _, process in results(some, *"abcd").values()}
    some.submit(0, "sleep")
    some.close()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_is_left_to_the_process_that_has_the_workers(number, pool):
    some = pool(2)
    processes = {process for _, process in results(some, *"abcd").values()}
    for process in processes:
        os.kill(process, number)
    assert {process for _, process in results(some, *"efgh").values()} <= processes


def test_a_worker_that_is_stopped_while_it_starts_is_started_again(tasks, tmp_path):
    mark = tmp_path / "stopped"
    some = WorkerPool(tasks.StoppedOnce(str(mark)), 1)
    some.submit(0, "a")
    assert some.result() == (0, "a") and mark.exists()
    some.close()


@pytest.mark.parametrize("task", ["a", "sleep"])
def test_workers_end_with_the_process_that_has_them(task, tasks):
    script = """
        import sys, time
        import tasks_of_workers
        from videonet.data.loading.workers import WorkerPool
        if __name__ == "__main__":
            pool = WorkerPool(tasks_of_workers.work, 2)
            for k in range(4):
                pool.submit(k, "a")
            found = {pool.result()[1][1] for _ in range(4)}
            for k in range(2):
                pool.submit(k, sys.argv[1])
            print(*[worker.process.pid for worker in pool._workers], flush=True)
            time.sleep(600)
    """
    folder = os.path.dirname(tasks.__file__)
    path = os.path.join(folder, "has_workers.py")
    with open(path, "w", encoding="utf-8") as file:
        file.write(textwrap.dedent(script))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([folder, *sys.path])}
    with subprocess.Popen(
        [sys.executable, path, task], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        workers = [int(number) for number in parent.stdout.readline().split()]
        assert len(workers) == 2
        parent.kill()
    deadline = time.monotonic() + 60
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < deadline, f"of {workers} some still run"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
