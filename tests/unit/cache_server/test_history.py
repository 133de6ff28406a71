from cache_server.history import SAMPLES_MAX, History, Sample


def test_the_oldest_samples_go_first_and_now_is_the_last():
    history = History()
    for i in range(SAMPLES_MAX + 10):
        history.add(Sample(float(i)))
    found = history.until(Sample(1e9))
    assert len(found) == SAMPLES_MAX + 1
    assert (found[0].at_s, found[-1].at_s) == (10.0, 1e9)
