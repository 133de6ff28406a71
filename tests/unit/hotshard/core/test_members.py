import pytest

from hotshard.core.members import Member, Refusal, Refused, Terms, check_address, check_member
from hotshard.core.slots import WEIGHT_MAX

TERMS = Terms("prod", 16384, 2, 256 << 20)


@pytest.mark.parametrize("address", ["10.0.0.1:7070", "node-1.hotshard:1", "[fd00::1]:65535"])
def test_good_addresses(address):
    check_address(address)
    check_member(Member("a" * 32, address, address))


BAD_ADDRESSES = (
    *("", ":7070", "host", "host:", "host:0", "host:65536", "host:123456", "a b:1", "fd00::1"),
    *("h:-1", "h:\u0661", "h\n:1", "h" * 300 + ":1", "[]:1", "/x:1"),
)


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_bad_addresses(address):
    with pytest.raises(Refused, match="should be host:port") as caught:
        check_address(address)
    assert caught.value.refusal is Refusal.BAD_ADDRESS
    if address:
        with pytest.raises(Refused):
            check_member(Member("a", "good:1", address))


@pytest.mark.parametrize("id_", ["", " ", "a b", "x" * 65, "-a", "a\0", "\u00e9"])
def test_bad_ids(id_):
    with pytest.raises(Refused) as caught:
        check_member(Member(id_, "h:1"))
    assert caught.value.refusal is Refusal.BAD_ID


@pytest.mark.parametrize("weight", [0, -1, WEIGHT_MAX + 1])
def test_bad_weights(weight):
    with pytest.raises(Refused, match=f"weight {weight} of a; should be from 1 to 1000") as caught:
        check_member(Member("a", "h:1", weight=weight))
    assert caught.value.refusal is Refusal.BAD_WEIGHT


def test_terms_say_what_differs():
    assert TERMS.differs(TERMS) == ""
    assert TERMS.differs(Terms("dev", 1, 1, 1)) == "its cluster is 'dev', ours 'prod'"
    assert TERMS.differs(Terms("prod", 65536, 2, 256 << 20)) == "its slots is 65536, ours 16384"
