"""The metrics of membership: who is in the cluster by the view of this node, and who was refused."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from hotshard.core.members import Refusal, State

MEETINGS = ("ok", "silent", "stranger", "refused")


class MemberMetrics:
    """Counts for `cluster.membership`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._members = Gauge(
            "hotshard_members",
            "Members of the cluster, of all zones, by state.",
            ["state"],
            registry=registry,
        )
        self._slots = Gauge(
            "hotshard_slots_owned",
            "Slots that this node owns in the first rank.",
            registry=registry,
        )
        self._views = Counter(
            "hotshard_view_changes", "Views of the cluster made.", registry=registry
        )
        self._moved = Counter(
            "hotshard_slots_moved",
            "Slots that came to another first owner with a new view.",
            registry=registry,
        )
        self._meetings = Counter(
            "hotshard_meetings",
            "Addresses asked who is there.",
            ["outcome"],
            registry=registry,
        )
        self._refusals = Counter(
            "hotshard_members_refused",
            "Addresses and members not taken in; each time counts.",
            ["reason"],
            registry=registry,
        )
        for state in State:
            self._members.labels(state)
        for outcome in MEETINGS:
            self._meetings.labels(outcome)
        for refusal in Refusal:
            self._refusals.labels(refusal)

    def view(self, members: Mapping[State, int], slots_owned: int, moved: int) -> None:
        """There is a new view."""
        self._views.inc()
        self._moved.inc(moved)
        self._slots.set(slots_owned)
        for state in State:
            self._members.labels(state).set(members.get(state, 0))

    def meeting(self, outcome: str) -> None:
        """An address was asked; `outcome` is one of MEETINGS."""
        self._meetings.labels(outcome).inc()

    def refused(self, refusal: Refusal) -> None:
        """Somebody was not taken in."""
        self._refusals.labels(refusal).inc()
