import math
import os
import signal
import sys
import time
import warnings

import pytest

from remasc.parallel import default_workers, on_cluster, ordered, tracked, unordered


def square(number: int) -> tuple[int, int]:
    return 1, number * number


def fail(number: int) -> tuple[int, int]:
    if number == 3:
        raise ValueError("three is wrong")
    return square(number)


def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2, None])
def test_every_job_is_done_once(workers):
    jobs = [(number,) for number in range(20)]
    results = tracked(unordered(square, jobs, workers), "squaring", 20, 0, False)
    assert sorted(results) == [number * number for number in range(20)]
    assert list(unordered(square, [], workers)) == []


def late_if_even(number: int) -> int:
    time.sleep(0.02 * (number % 2 == 0))
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_ordered_results_come_in_the_order_of_the_jobs(workers):
    assert list(ordered(late_if_even, [(number,) for number in range(12)], workers)) == list(range(12))
    results = ordered(late_if_even, [(number,) for number in range(1000)], workers)
    assert next(results) == 0  # as they come, not when all are done
    with warnings.catch_warnings(action="error"):
        results.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_arrives_as_it_was_raised(workers):
    with pytest.raises(ValueError, match="three is wrong"):
        list(unordered(fail, [(number,) for number in range(6)], workers))


@pytest.mark.slow
@pytest.mark.parametrize("results", [ordered, unordered])
def test_a_killed_process_is_one_sentence(results):
    with pytest.raises(OSError, match="run again with fewer"):
        list(results(die, [(1,), (2,)], 2))
    assert sorted(unordered(square, [(1,), (2,)], 2)) == [(1, 1), (1, 4)]  # and the next run works


def test_workers_are_at_least_one():
    assert default_workers() >= 1
    with pytest.raises(ValueError, match="workers"):
        list(unordered(square, [(1,)], 0))


def test_a_cluster_that_is_not_there_is_one_sentence():
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    with pytest.raises(OSError, match="no Dask scheduler answers"), on_cluster("tcp://127.0.0.1:9"):
        pass
    with on_cluster(None) as there:
        assert there is None


@pytest.mark.slow
def test_a_cluster_of_two_workers_gives_the_same_results():
    distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as here,
        on_cluster(here.scheduler_address) as there,
    ):
        assert there == 2
        assert sorted(unordered(math.factorial, [(n,) for n in range(20)], there)) == [
            math.factorial(n) for n in range(20)
        ]


def test_without_its_library_a_cluster_is_one_sentence(monkeypatch):
    for address, library, extra in (("ray", "ray", "ray"), ("tcp://h:1", "dask.distributed", "cluster")):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ValueError, match=rf"pip install replayguard\[{extra}\]"), on_cluster(address):
            pass


def test_a_ray_cluster_that_is_not_there_is_one_sentence(monkeypatch):
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("none is running")))
    with pytest.raises(OSError, match=r"no Ray cluster answers here.*ray start"), on_cluster("ray"):
        pass


@pytest.mark.slow
def test_a_ray_cluster_of_two_workers_gives_the_same_results(monkeypatch):
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    start = ray.init
    here = {"num_cpus": 2, "include_dashboard": False, "log_to_driver": False}
    monkeypatch.setattr(ray, "init", lambda **_: start(**here))  # a cluster of this process alone
    with on_cluster("ray") as there:
        assert there == 2
        wanted = [math.factorial(n) for n in range(20)]
        assert sorted(unordered(math.factorial, [(n,) for n in range(20)], there)) == wanted
        assert list(ordered(math.factorial, [(n,) for n in range(20)], there)) == wanted
        results = ordered(math.factorial, [(n,) for n in range(100)], there)
        assert next(results) == 1  # as they come, not when all are done
        results.close()
        with pytest.raises(ValueError, match="factorial"):
            list(unordered(math.factorial, [(-1,), (1,)], there))
    with pytest.raises(OSError, match="a worker of the Ray cluster was lost"), on_cluster("ray") as there:
        list(unordered(os._exit, [(1,), (1,)], there))
