"""Values that come back."""

from hotshard.calls import WarmProgress
from hotshard.core.errors import NotFound


def test_complete_means_all_of_it():
    assert WarmProgress(done=True).complete
    assert not WarmProgress().complete
    assert not WarmProgress(done=True, failed_objects=1).complete


def test_two_jobs_as_one():
    failures = tuple(NotFound(str(i)) for i in range(80))
    first = WarmProgress(False, 1, 10, 2, 20, 3, 30, failures, done=True)
    second = WarmProgress(True, 4, 40, 5, 50, 6, 60, failures, done=False)
    both = first.plus(second)
    assert both == WarmProgress(True, 5, 50, 7, 70, 9, 90, (failures * 2)[:100], done=False)
