from cache_server.recent import Recent


def test_the_least_recently_used_goes_first():
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert recent.get("b") is None
    assert recent.get("a") == 1
    assert recent.get("c") == 3
