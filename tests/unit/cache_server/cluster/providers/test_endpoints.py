import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_server.cluster.providers.endpoints import BadSlice, Endpoints
from hotshard.core.members import Candidate
from support.kube_api import endpoint, slice_of


def seen(*slices) -> list[Candidate]:
    endpoints = Endpoints("grpc", 9999)
    endpoints.replace(slices)
    return endpoints.candidates()


def test_address_port_zone_and_node():
    assert seen(slice_of("a", [endpoint("10.0.0.1")])) == [
        Candidate("10.0.0.1:7070", serving=True, zone="eu-1a", node="node-10.0.0.1")
    ]


# What the API reference says of the three conditions, and what it makes of a member.
CONDITIONS = [
    # ready, serving, terminating -> listed, serving
    (None, None, None, True, True),
    (True, True, False, True, True),
    (True, None, None, True, True),
    (False, None, None, True, False),
    (False, False, False, True, False),
    (False, True, True, True, False),
    (True, True, True, True, False),  # publishNotReadyAddresses
    (False, False, True, False, False),
    (False, None, True, True, False),
]


@pytest.mark.parametrize(("ready", "serving", "terminating", "listed", "good"), CONDITIONS)
def test_conditions(ready, serving, terminating, listed, good):
    one = endpoint("10.0.0.1", ready=ready, serving=serving, terminating=terminating)
    found = seen(slice_of("a", [one]))
    assert [each.serving for each in found] == ([good] if listed else [])


def test_several_slices_make_one_list_and_the_serving_entry_counts():
    found = seen(
        slice_of("a", [endpoint("10.0.0.2", ready=False), endpoint("10.0.0.1")]),
        slice_of("b", [endpoint("10.0.0.2"), endpoint("10.0.0.3", ready=False)]),
    )
    assert [(c.address, c.serving) for c in found] == [
        ("10.0.0.1:7070", True),
        ("10.0.0.2:7070", True),
        ("10.0.0.3:7070", False),
    ]


def test_ipv6_and_slices_that_do_not_name_the_port():
    other = slice_of("a", [endpoint("fd00::1")])
    other["ports"] = [{"name": "http", "port": 80}]
    assert seen(other)[0].address == "[fd00::1]:9999"
    other["ports"] = None
    assert seen(other)[0].address == "[fd00::1]:9999"


def test_empty_slices():
    empty = slice_of("a", [])
    empty["endpoints"] = None
    assert seen(empty) == []


def test_events():
    endpoints = Endpoints("grpc", 7070)
    endpoints.apply("ADDED", slice_of("a", [endpoint("10.0.0.1")]))
    endpoints.apply("ADDED", slice_of("b", [endpoint("10.0.0.2")]))
    endpoints.apply("MODIFIED", slice_of("a", [endpoint("10.0.0.3")]))
    assert [c.address for c in endpoints.candidates()] == ["10.0.0.2:7070", "10.0.0.3:7070"]
    endpoints.apply("DELETED", slice_of("b", []))
    endpoints.apply("DELETED", slice_of("unknown", []))
    assert [c.address for c in endpoints.candidates()] == ["10.0.0.3:7070"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metadata", "name", "endpoints", "addresses", "ports", "conditions"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_nonsense_changes_nothing(nonsense):
    endpoints = Endpoints("grpc", 7070)
    endpoints.replace([slice_of("a", [endpoint("10.0.0.1")])])
    before = endpoints.candidates()
    try:
        endpoints.apply("MODIFIED", nonsense)
    except BadSlice:
        assert endpoints.candidates() == before
