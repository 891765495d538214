"""A small py-libp2p peer for the interop suite: QUIC below, circuits through relays, ping, identify, echo, perf and
rendezvous."""

import argparse
import json
import logging
import secrets
import signal
import sys

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.discovery.rendezvous import RendezvousClient, RendezvousService
from libp2p.host.ping import PingService
from libp2p.io.exceptions import IncompleteReadError
from libp2p.io.utils import read_exactly
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.relay.circuit_v2.config import RelayConfig, RelayRole
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID as HOP, CircuitV2Protocol
from libp2p.relay.circuit_v2.resources import RelayLimits
from libp2p.relay.circuit_v2.transport import CircuitV2Transport
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

ECHO = "/echo/1.0.0"
PERF = "/perf/1.0.0"
CHUNK = 64 << 10
LIBRARY_LIMIT = 1000
LIBRARY_TTL = 7200
WATCH_PAUSE_SECONDS = 0.5
DIAL_SECONDS = 25
# What a relay takes at most: no limit is in the way of a measurement.
MANY = 1 << 20


def parse():
    parser = argparse.ArgumentParser(prog="peer.py")
    # NDJSON is the only form there is.
    parser.add_argument("--json", action="store_true")
    commands = parser.add_subparsers(dest="command", required=True)
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--json", action="store_true")
    everywhere.add_argument("--seed", type=int, help="the key whose seed is this byte 32 times")
    everywhere.add_argument("--listen", type=Multiaddr, action="append", default=[])
    at_point = argparse.ArgumentParser(add_help=False)
    at_point.add_argument("--point", type=Multiaddr, required=True)
    at_point.add_argument("--namespace", required=True)
    dialling = argparse.ArgumentParser(add_help=False)
    dialling.add_argument("target", type=Multiaddr)
    relay = commands.add_parser("relay", parents=[everywhere])
    relay.add_argument("--circuit-bytes", type=int, default=0)
    relay.add_argument("--circuit-duration", type=int, default=0)
    listen = commands.add_parser("listen", parents=[everywhere])
    listen.add_argument("--relay", type=Multiaddr, action="append", default=[])
    ping = commands.add_parser("ping", parents=[everywhere, dialling])
    ping.add_argument("-c", type=int, default=5, dest="count")
    echo = commands.add_parser("echo", parents=[everywhere, dialling])
    echo.add_argument("--bytes", type=int, required=True)
    commands.add_parser("rendezvous", parents=[everywhere])
    register = commands.add_parser("register", parents=[everywhere, at_point])
    register.add_argument("--ttl", type=int, default=LIBRARY_TTL)
    register.add_argument("--keep", action="store_true")
    discover = commands.add_parser("discover", parents=[everywhere, at_point])
    discover.add_argument("--limit", type=int)
    discover.add_argument("--watch", action="store_true")
    return parser.parse_args()


async def serve_relay(host, options):
    limits = RelayLimits(
        duration=options.circuit_duration or (1 << 32) - 1,
        data=options.circuit_bytes or 1 << 62,
        max_circuit_conns=MANY,
        max_reservations=MANY,
    )
    async with background_trio_service(CircuitV2Protocol(host, limits, allow_hop=True)):
        emit_listening(host)
        await until_terminated()


async def listen(host, options):
    protocol = CircuitV2Protocol(host, allow_hop=False)
    async with background_trio_service(protocol), trio.open_nursery() as nursery:
        emit_listening(host)
        for relay in options.relay:
            await reserve(host, protocol, relay, nursery)
        await until_terminated()
        nursery.cancel_scope.cancel()


async def reserve(host, protocol, relay, nursery):
    info = info_from_p2p_addr(relay)
    await host.connect(info)
    stream = await host.new_stream(info.peer_id, [HOP])
    config = RelayConfig(roles=RelayRole.STOP | RelayRole.CLIENT)
    transport = CircuitV2Transport(host, protocol, config)
    if not await transport.reserve(stream, info.peer_id, nursery):
        raise RuntimeError("no reservation")
    address = f"{full(relay, info.peer_id)}/p2p-circuit/p2p/{host.get_id()}"
    emit("reservation", relay=str(info.peer_id), expires=None, addresses=[address])


async def connect(host, target):
    """Connects to the target, directly or through the relay in its address."""
    relayed = "/p2p-circuit" in str(target)
    with trio.fail_after(DIAL_SECONDS):
        if relayed:
            relay, peer = str(target).split("/p2p-circuit")
            await host.connect(info_from_p2p_addr(Multiaddr(relay)))
            config = RelayConfig(roles=RelayRole.STOP)
            transport = CircuitV2Transport(host, CircuitV2Protocol(host, allow_hop=False), config)
            await transport.dial(target)
            info = info_from_p2p_addr(Multiaddr(peer))
        else:
            info = info_from_p2p_addr(target)
            await host.connect(info)
    emit("connected", peer=str(info.peer_id), address=str(target), relayed=relayed)
    return info.peer_id


async def ping(host, options):
    peer = await connect(host, options.target)
    for rtt_ms in await PingService(host).ping(peer, options.count):
        emit("ping", peer=str(peer), rtt_us=rtt_ms * 1000)


async def echo(host, options):
    """Sends random bytes and wants exactly these back, then the end of the stream."""
    peer = await connect(host, options.target)
    stream = await host.new_stream(peer, [ECHO])
    sent = secrets.token_bytes(options.bytes)
    with trio.fail_after(DIAL_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, stream, sent)
            received = b"".join([chunk async for chunk in chunks(stream)])
    if received != sent:
        raise RuntimeError(f"{len(received)} of {len(sent)} bytes came back")
    emit("echo", bytes=len(received), ok=True)


async def send(stream, data):
    if data:
        await stream.write(data)
    await stream.close_write()


async def chunks(stream):
    """What comes up to the end of a stream: over QUIC that is an exception."""
    while True:
        try:
            chunk = await stream.read(CHUNK)
        except StreamEOF:
            return
        if not chunk:
            return
        yield chunk


async def answer_echo(stream):
    async for chunk in chunks(stream):
        await stream.write(chunk)
    await stream.close_write()


async def answer_perf(stream):
    try:
        left = int.from_bytes(await read_exactly(stream, 8), "big")
    except (StreamEOF, IncompleteReadError):
        left = 0
    async for _ in chunks(stream):
        pass
    while left > 0:
        await stream.write(bytes(min(left, CHUNK)))
        left -= min(left, CHUNK)
    await stream.close_write()


async def serve_point(host, _options):
    RendezvousService(host)
    emit_listening(host)
    await until_terminated()


async def register(host, options):
    emit_listening(host)
    client = await client_at(host, options.point)
    ttl = await client.register(options.namespace, options.ttl)
    emit("registered", namespace=options.namespace, ttl=ttl)
    if options.keep:
        await until_terminated()


async def discover(host, options):
    """Asks until there is no more, and when watching goes on asking for what is new."""
    client = await client_at(host, options.point)
    cookie = b""
    while True:
        found, cookie = await client.discover(options.namespace, options.limit or LIBRARY_LIMIT, cookie)
        for info in found:
            addresses = [full(address, info.peer_id) for address in info.addrs]
            emit("peer", peer=str(info.peer_id), addresses=addresses, ttl=None)
        emit("page", peers=len(found))
        if found and cookie:
            continue
        if not options.watch:
            return
        await trio.sleep(WATCH_PAUSE_SECONDS)


async def client_at(host, point):
    info = info_from_p2p_addr(point)
    with trio.fail_after(DIAL_SECONDS):
        await host.connect(info)
    return RendezvousClient(host, info.peer_id)


async def until_terminated():
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            return


def emit_listening(host):
    for address in host.get_addrs():
        emit("listening", address=str(address))


def full(address, peer):
    """The address with the peer's id at its end."""
    suffix = f"/p2p/{peer}"
    return str(address).removesuffix(suffix) + suffix


def emit(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


COMMANDS = {
    "relay": serve_relay,
    "listen": listen,
    "ping": ping,
    "echo": echo,
    "rendezvous": serve_point,
    "register": register,
    "discover": discover,
}


async def main(options):
    seed = secrets.token_bytes(32) if options.seed is None else bytes([options.seed]) * 32
    host = new_host(key_pair=create_new_key_pair(seed), enable_quic=True)
    host.set_stream_handler(ECHO, answer_echo)
    host.set_stream_handler(PERF, answer_perf)
    async with host.run(options.listen):
        await COMMANDS[options.command](host, options)


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr)
    try:
        trio.run(main, parse())
    except Exception as error:
        logging.exception("failed")
        emit("error", message=repr(error))
        sys.exit(1)
