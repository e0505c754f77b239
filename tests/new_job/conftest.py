"""The fixtures of workers that are killed."""

from tests.harness.faults.conftest import new_worker, workers_can_import_the_tests

__all__ = ["new_worker", "workers_can_import_the_tests"]
