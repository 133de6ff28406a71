"""The composition root: builds the parts of a node, opens them in order, closes them in reverse.

    store -> origins -> cache -> local socket, gRPC, admin HTTP -> ready
    SIGTERM -> not ready -> no owner any more, what is in use offered to the next ones -> no new requests
            -> requests under way finish -> fills end -> store closed clean

Everything that runs in the background lives in one TaskGroup (tasks.py).
"""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from cache_server.admin import AdminServer
from cache_server.cache import Cache
from cache_server.catalog import Catalog
from cache_server.cluster.answers import Alone, ClusterAnswers, InCluster, Locating
from cache_server.cluster.bulk_calls import Identity
from cache_server.cluster.channels import read_credentials
from cache_server.cluster.joining import address_of_bulk, address_of_grpc, membership
from cache_server.cluster.membership import Membership
from cache_server.cluster.overview import Overviews
from cache_server.cluster.peers import Peers
from cache_server.cluster.ports import Placement
from cache_server.cluster.wiring import (
    BULK_PORT,
    BulkParts,
    ClusterNode,
    Settings,
    forget_who_left,
    leave,
    open_bulk,
    read_secret,
    taking,
)
from cache_server.config import HostPort, ServerConfig
from cache_server.config.memory import read_auto_memory_bytes
from cache_server.core.money import Prices
from cache_server.fill import FillTools
from cache_server.grpc_server import GrpcServer
from cache_server.local_calls import LocalCalls
from cache_server.local_socket import LocalSocketServer
from cache_server.metrics import Metrics
from cache_server.metrics.members import MemberMetrics
from cache_server.metrics.peers import PeerMetrics
from cache_server.origins.table import OriginTable
from cache_server.requests import Requests
from cache_server.service import CacheService
from cache_server.slots import FetchSlots
from cache_server.sources import limits, new_store, open_origin
from cache_server.status import Parts, Statuses, dataset_namer
from cache_server.store.store import Store
from cache_server.tasks import Tasks
from cache_server.tracing import open_tracer
from cache_server.transient import Transient
from cache_server.upkeep import (
    calm_collector,
    keep_freed_memory,
    probe,
    raise_open_files_limit,
    remember,
    scrub,
    tend,
)
from cache_server.warm import Warmer
from hotshard.core.blocks import Geometry
from hotshard.core.members import State

log = logging.getLogger(__name__)

LOOP_THREADS = 8  # for what the loop hands over: preads of gRPC reads, socket files, name look-ups
FETCH_BUFFER_BYTES = 1 << 20  # what a fetch thread holds


class Node:
    """One cache server."""

    def __init__(self, config: ServerConfig, version: str) -> None:
        self._config = config
        self._version = version
        self._stop = asyncio.Event()
        self._membership: Membership | None = None
        self._peers: Peers | None = None
        self._secret = b""
        self._bulk_port = 0
        self._stopped_by = 0.0
        self._is_ours: Callable[[bytes], bool] = lambda _digest: True

    def stop(self) -> None:
        """Begin to shut down; idempotent."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop`, or SIGTERM or SIGINT.

        Raises:
            ConfigError: what the configuration asks for cannot be had (a port in use, no usable disk).
        """
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(LOOP_THREADS, "hotshard"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        raise_open_files_limit()
        keep_freed_memory()
        async with AsyncExitStack() as stack:
            await self._open(stack)
            calm_collector()
            await self._stop.wait()
            log.info("stopping")
            self._stopped_by = loop.time() + self._config.shutdown_grace_s

    async def _open(self, stack: AsyncExitStack) -> None:
        """Open all parts; the stack closes them in reverse."""
        config = self._config
        prefixes = [origin.prefix for origin in config.origins]
        metrics = Metrics(self._version, prefixes, dataset_of=dataset_namer(prefixes))
        geometry = Geometry(config.shard_bytes, config.block_bytes)
        store = new_store(config, geometry, metrics, self._owns)
        await store.start()
        stack.push_async_callback(store.close)
        tasks = await stack.enter_async_context(_tasks())
        self._spawn = tasks.spawn
        requests = await self._open_requests(stack, metrics, store.node_id)
        events = self._peer_events = PeerMetrics(metrics.registry)
        self._member_events = MemberMetrics(metrics.registry)
        cluster = await self._join(stack, store, events, tasks)
        mounted = [await open_origin(c, config, metrics, stack) for c in config.origins]
        table = OriginTable([cluster.mounted(m) for m in mounted] if cluster else mounted)
        slots = FetchSlots(
            config.fetch.concurrency,
            max(1, int(config.fetch.concurrency * config.fetch.prefetch_share)),
        )
        catalog = Catalog(
            table,
            spawn=tasks.spawn,
            clock=time.monotonic,
            recall=store.recall,
            entries_max=config.metadata_entries,
            dataset_of=dataset_namer(prefixes),
        )
        transient = await self._transient(geometry, slots, metrics)
        tools = FillTools(store, slots, geometry, tasks.spawn, metrics.fill, metrics.reads.moved)
        cache = Cache(table, catalog, transient, tools, metrics)
        warmer = Warmer(cache, tasks.spawn)
        parts = Parts(
            cache,
            store,
            slots,
            transient,
            warmer,
            known_bytes=catalog.known_bytes,
            prices=Prices(**config.prices.model_dump()),
            peers=events.reports,
            limits=partial(limits, mounted),
        )
        statuses = Statuses(parts, metrics, self._version)
        for upkeep in (tend(store), probe(store), scrub(store, slots.busy), remember(statuses)):
            tasks.spawn(upkeep)
        bulk = BulkParts(cache, table, tasks, events, requests, metrics.reads.opened)
        await self._open_bulk(stack, cluster, bulk)
        await self._open_edges(stack, parts, statuses, metrics, requests)

    async def _open_requests(
        self, stack: AsyncExitStack, metrics: Metrics, node_id: str
    ) -> Requests:
        """What is around each request; with traces, if they are asked for."""
        tracing, tracer = self._config.tracing, None
        if tracing.endpoint is not None:
            tracer = await asyncio.to_thread(open_tracer, tracing.endpoint, tracing.sample, node_id)
            stack.push_async_callback(asyncio.to_thread, tracer.close)
        return Requests(metrics, slow_s=self._config.log.slow_request_s, tracer=tracer)

    async def _join(
        self, stack: AsyncExitStack, store: Store, events: PeerMetrics, tasks: Tasks
    ) -> ClusterNode | None:
        """Become a member of the cluster, if there is one."""
        config = self._config
        self._secret = await asyncio.to_thread(read_secret, config.bulk.secret_file)
        placement = await self._placement(stack, store, tasks)
        if placement is None:
            return None
        settings = Settings(
            name=self._cluster_name,
            secret=self._secret,
            connections=config.bulk.connections,
            bulk_tls=config.bulk.tls,
            grpc_tls=config.grpc.tls,
        )
        geometry = Geometry(config.shard_bytes, config.block_bytes)
        cluster = ClusterNode(placement, settings, geometry, events, tasks.spawn)
        stack.push_async_callback(cluster.peers.close)
        self._peers = cluster.peers
        self._is_ours = cluster.owns
        if self._membership is not None:
            tasks.spawn(forget_who_left(self._membership, cluster.peers))
        return cluster

    def _owns(self, digest: bytes) -> bool:
        """Whether a shard is this node's to fetch; asked by the store, which is older than the cluster."""
        return self._is_ours(digest)

    async def _open_bulk(
        self, stack: AsyncExitStack, cluster: ClusterNode | None, parts: BulkParts
    ) -> None:
        """Open the bulk port: in a cluster, or where it was asked for."""
        config = self._config
        listen = config.bulk.listen
        if cluster is not None:
            identity = cluster.identity
            listen = listen or HostPort(config.grpc.listen.host, BULK_PORT)
        else:
            identity = Identity(secret=self._secret, shard_bytes=config.shard_bytes)
        if listen is not None:
            server = await open_bulk(identity, listen, config.bulk.tls, parts)
            self._bulk_port = server.port
            stack.push_async_callback(self._closing, server.close)

    async def _placement(
        self, _stack: AsyncExitStack, store: Store, tasks: Tasks
    ) -> Placement | None:
        """Find the other members and meet them, so that we know who owns what before we are asked."""
        config = self._config
        credentials = await asyncio.to_thread(read_credentials, config.grpc.tls)
        found = membership(config, store.node_id, self._member_events, credentials)
        if found is None:
            return None
        tasks.spawn(found.run())
        async with asyncio.TaskGroup() as group:
            settled = group.create_task(found.settle(config.cluster.start_wait_s))
            stopped = group.create_task(self._stop.wait())
            await asyncio.wait((settled, stopped), return_when=asyncio.FIRST_COMPLETED)
            settled.cancel()
            stopped.cancel()
        self._membership = found
        return found

    async def _take_part(self, stack: AsyncExitStack, store: Store, grpc_port: int) -> None:
        """Tell the others that this node is ready; the stack tells them when it stops."""
        found = self._membership
        if found is None:
            return
        grpc_address = await asyncio.to_thread(address_of_grpc, self._config, grpc_port)
        found.located(grpc_address, address_of_bulk(self._config, self._bulk_port))
        await found.become(State.READY)
        if self._peers is not None:
            limit_s = self._config.shutdown_grace_s / 2
            size_max = self._config.cluster.offer_bytes
            stack.push_async_callback(leave, found, self._peers, store, size_max, limit_s)

    async def _closing(self, close: Callable[[float], Awaitable[None]]) -> None:
        """Close a part within what is left of the grace."""
        loop = asyncio.get_running_loop()
        await close(max(0.0, self._stopped_by - loop.time()))

    def _answers(self, cache: Cache) -> ClusterAnswers:
        config = self._config
        locating = Locating(Geometry(config.shard_bytes, config.block_bytes), self._secret)
        if self._membership is None:
            return Alone(locating, self._cluster_name)
        return InCluster(self._membership, locating, taking(cache, self._peer_events))

    @property
    def _cluster_name(self) -> str:
        config = self._config.cluster
        return "" if config.provider == "none" else config.name

    async def _open_edges(
        self,
        stack: AsyncExitStack,
        parts: Parts,
        statuses: Statuses,
        metrics: Metrics,
        requests: Requests,
    ) -> None:
        """Open what others talk to. Admin first and closed last, so that probes see every state."""
        config = self._config
        overviews = Overviews(statuses.status, self._membership, self._peers)
        admin = AdminServer(config.admin, metrics, overviews, lambda: statuses.unready)
        await admin.start()
        stack.push_async_callback(admin.close)
        node_id = parts.store.node_id
        local = LocalSocketServer(
            config.local_socket.path,
            LocalCalls(
                cache=parts.cache,
                warmer=parts.warmer,
                statuses=statuses,
                requests=requests,
                spawn=self._spawn,
                node_id=node_id,
                version=self._version,
            ),
            mode=config.local_socket.mode,
            allowed_uids=_uids(config.local_socket.allowed_uids),
        )
        await local.start()
        stack.push_async_callback(self._closing, local.close)
        answers = self._answers(parts.cache)
        statuses.cluster = answers.status
        service = CacheService(parts.cache, parts.warmer, statuses, requests, members=answers)
        grpc_server = GrpcServer(config.grpc, service)
        await grpc_server.start()
        stack.push_async_callback(self._closing, grpc_server.close)
        await grpc_server.set_ready(ready=True)
        statuses.unready = ""
        await self._take_part(stack, parts.store, grpc_server.port)
        stack.callback(setattr, statuses, "unready", "stopping")
        log.info(
            "ready",
            extra={
                "node": node_id,
                "local": config.local_socket.path,
                "grpc": f"{config.grpc.listen.host}:{grpc_server.port}",
                "admin": f"{config.admin.listen.host}:{admin.port}",
                "origins": len(config.origins),
            },
        )

    async def _transient(
        self, geometry: Geometry, slots: FetchSlots, metrics: Metrics
    ) -> Transient:
        """What serves without disk, with what the fetches leave of the memory budget."""
        config = self._config
        budget = config.memory_bytes
        if budget is None:
            budget = await asyncio.to_thread(read_auto_memory_bytes)
        return Transient(
            max(config.block_bytes, budget - config.fetch.concurrency * FETCH_BUFFER_BYTES),
            geometry=geometry,
            slots=slots,
            spawn=self._spawn,
            on_bytes=metrics.reads.moved,
        )


def _uids(uids: tuple[int, ...] | None) -> frozenset[int] | None:
    return None if uids is None else frozenset(uids)


@asynccontextmanager
async def _tasks() -> AsyncIterator[Tasks]:
    """The server's task group; what is left in it is ended at the end."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = Tasks(group)
            try:
                yield tasks
            finally:
                await tasks.cancel()
    except BaseExceptionGroup as errors:
        # The tasks let no error out: what the group wraps is the one error of the code inside the `with`.
        raise errors.exceptions[0] from None
