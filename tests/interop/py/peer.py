"""A small py-libp2p peer for the interop suite: QUIC below, rendezvous."""

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
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

LIBRARY_LIMIT = 1000
LIBRARY_TTL = 7200
WATCH_PAUSE_SECONDS = 0.5
DIAL_SECONDS = 25


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
    commands.add_parser("rendezvous", parents=[everywhere])
    register = commands.add_parser("register", parents=[everywhere, at_point])
    register.add_argument("--ttl", type=int, default=LIBRARY_TTL)
    register.add_argument("--keep", action="store_true")
    discover = commands.add_parser("discover", parents=[everywhere, at_point])
    discover.add_argument("--limit", type=int)
    discover.add_argument("--watch", action="store_true")
    return parser.parse_args()


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


COMMANDS = {"rendezvous": serve_point, "register": register, "discover": discover}


async def main(options):
    seed = secrets.token_bytes(32) if options.seed is None else bytes([options.seed]) * 32
    host = new_host(key_pair=create_new_key_pair(seed), enable_quic=True)
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
