// A small js-libp2p peer for the interop suite: QUIC below, circuits through relays, ping, identify, echo, perf and
// rendezvous.

import { createCipheriv, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { noise } from '@chainsafe/libp2p-noise'
import { quic } from '@chainsafe/libp2p-quic'
import { yamux } from '@chainsafe/libp2p-yamux'
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { generateKeyPair, generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tls } from '@libp2p/tls'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { emit, full } from './events.js'
import { discover, register, servePoint } from './rendezvous.js'

const ECHO = '/echo/1.0.0'
const PERF = '/perf/1.0.0'
const DIAL_TIMEOUT_MS = 25_000
// Lets a stream end on the far side first: go-libp2p resets pings beyond a few streams at once.
const PING_PAUSE_MS = 100
const CHUNK = 64 * 1024
const USAGE = 'usage: peer.js relay|listen|ping|echo|identify|rendezvous|register|discover [MULTIADDR] [--listen MA] ...'

const COMMANDS = {
  relay: serve,
  listen: serve,
  ping: dial,
  echo: dial,
  identify: dial,
  rendezvous: listening(servePoint),
  register: listening(register),
  discover
}

function parse () {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean' }, // the only form there is
      listen: { type: 'string', multiple: true, default: [] },
      relay: { type: 'string', multiple: true, default: [] },
      security: { type: 'string' },
      seed: { type: 'string' }, // a byte: the key whose seed is this byte 32 times, the same in every run
      count: { type: 'string', short: 'c', default: '5' },
      bytes: { type: 'string', default: '0' },
      'circuit-bytes': { type: 'string', default: '0' },
      'circuit-duration': { type: 'string', default: '0' },
      point: { type: 'string' },
      namespace: { type: 'string' },
      ttl: { type: 'string' },
      limit: { type: 'string' },
      keep: { type: 'boolean' },
      watch: { type: 'boolean' }
    }
  })
  const [command, target] = positionals
  if (COMMANDS[command] == null || positionals.length > 2) {
    throw new Error(USAGE)
  }
  return { ...values, command, target }
}

async function newNode (options) {
  const node = await createLibp2p({
    start: false,
    privateKey: options.key,
    addresses: { listen: [...options.listen, ...options.relay.map(relay => `${relay}/p2p-circuit`)] },
    transports: [quic(), circuitRelayTransport()],
    connectionEncrypters: securities(options.security),
    streamMuxers: [yamux()],
    connectionGater: { denyDialMultiaddr: () => false },
    services: {
      identify: identify(),
      ping: ping(),
      ...(options.command === 'relay' ? { relay: circuitRelayServer(relayLimits(options)) } : {})
    }
  })
  node.addEventListener('connection:open', ({ detail }) => emitConnected(detail))
  node.addEventListener('peer:identify', ({ detail }) => emitIdentified(detail))
  await node.handle(ECHO, answerEcho, { runOnLimitedConnection: true })
  await node.handle(PERF, answerPerf, { runOnLimitedConnection: true })
  await node.start()
  return node
}

async function keyOf (seed) {
  return seed == null
    ? await generateKeyPair('Ed25519')
    : await generateKeyPairFromSeed('Ed25519', new Uint8Array(32).fill(Number(seed)))
}

function securities (only) {
  switch (only) {
    case undefined: return [tls(), noise()]
    case 'tls': return [tls()]
    case 'noise': return [noise()]
    default: throw new Error(`no such security: ${only}`)
  }
}

function relayLimits (options) {
  const bytes = BigInt(options['circuit-bytes'])
  const seconds = Number(options['circuit-duration'])
  return {
    reservations: {
      maxReservations: 1024,
      applyDefaultLimit: bytes > 0n || seconds > 0,
      defaultDataLimit: bytes > 0n ? bytes : 2n ** 62n,
      defaultDurationLimit: seconds > 0 ? seconds * 1000 : 2 ** 31 - 1
    }
  }
}

function listening (command) {
  return async (node, options) => {
    emitListening(node)
    await command(node, options)
  }
}

async function serve (node, options) {
  const own = node.getMultiaddrs().map(String)
  emitListening(node)
  for (const relay of options.relay) {
    const id = relay.split('/p2p/').at(-1)
    emit({
      event: 'reservation',
      relay: id,
      expires: null,
      addresses: own.filter(address => address.includes(`/p2p/${id}/p2p-circuit`))
    })
  }
  await Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')])
}

async function dial (node, { command, target, count, bytes }) {
  const signal = AbortSignal.timeout(DIAL_TIMEOUT_MS)
  const identified = Promise.withResolvers()
  const peer = target.split('/p2p/').at(-1)
  node.addEventListener('peer:identify', ({ detail }) => {
    if (detail.peerId.toString() === peer) {
      identified.resolve()
    }
  })
  const connection = await node.dial(multiaddr(target), { signal })
  switch (command) {
    case 'ping': return await pings(node, connection, Number(count), signal)
    case 'echo': return await echo(connection, Number(bytes), signal)
    default: return await Promise.race([identified.promise, aborted(signal)])
  }
}

async function pings (node, connection, count, signal) {
  for (let i = 0; i < count; i++) {
    const milliseconds = await node.services.ping.ping(connection.remotePeer, { signal })
    emit({ event: 'ping', peer: connection.remotePeer.toString(), rtt_us: milliseconds * 1000 })
    await new Promise(resolve => setTimeout(resolve, PING_PAUSE_MS))
  }
}

// Sends pseudo-random bytes and wants exactly these back, then the end of the stream.
async function echo (connection, bytes, signal) {
  const stream = await connection.newStream(ECHO, { signal, runOnLimitedConnection: true })
  signal.addEventListener('abort', () => stream.abort(new Error('timed out')))
  const seed = randomBytes(32)
  const [received] = await Promise.all([compare(stream, seed), send(stream, seed, bytes, signal)])
  if (received !== bytes) {
    throw new Error(`${received} of ${bytes} bytes came back`)
  }
  emit({ event: 'echo', bytes: received, ok: true })
}

async function send (stream, seed, bytes, signal) {
  const next = pseudoRandom(seed)
  for (let left = bytes; left > 0; left -= CHUNK) {
    if (!stream.send(next(Math.min(left, CHUNK)))) {
      await stream.onDrain({ signal })
    }
  }
  await stream.close({ signal })
}

async function compare (stream, seed) {
  const next = pseudoRandom(seed)
  let received = 0
  for await (const chunk of stream) {
    const got = chunk.subarray()
    if (!next(got.byteLength).equals(got)) {
      throw new Error(`the echo differs after byte ${received}`)
    }
    received += got.byteLength
  }
  return received
}

function pseudoRandom (seed) {
  const cipher = createCipheriv('aes-256-ctr', seed, Buffer.alloc(16))
  return length => cipher.update(Buffer.alloc(length))
}

async function answerEcho (stream) {
  for await (const chunk of stream) {
    if (!stream.send(chunk)) {
      await stream.onDrain()
    }
  }
  await stream.close()
}

// Reads a download size in eight bytes, big-endian, and an upload to its end, then sends that many bytes.
async function answerPerf (stream) {
  const size = []
  for await (const chunk of stream) {
    size.push(...chunk.subarray().subarray(0, 8 - size.length))
  }
  for (let left = Number(Buffer.from(size).readBigUInt64BE()); left > 0; left -= CHUNK) {
    if (!stream.send(new Uint8Array(Math.min(left, CHUNK)))) {
      await stream.onDrain()
    }
  }
  await stream.close()
}

async function aborted (signal) {
  await once(signal, 'abort')
  throw new Error('the peer did not identify itself in time')
}

function emitListening (node) {
  for (const address of node.getMultiaddrs().filter(address => !isRelayed(address))) {
    emit({ event: 'listening', address: address.toString() })
  }
}

function emitConnected ({ remotePeer, remoteAddr }) {
  emit({
    event: 'connected',
    peer: remotePeer.toString(),
    address: full(remoteAddr, remotePeer),
    relayed: isRelayed(remoteAddr)
  })
}

function emitIdentified ({ peerId, agentVersion, protocols, observedAddr }) {
  emit({
    event: 'identified',
    peer: peerId.toString(),
    agent: agentVersion,
    protocols,
    observed: observedAddr?.toString() ?? ''
  })
}

function isRelayed (address) {
  return address.toString().includes('/p2p-circuit')
}

async function main () {
  let options
  try {
    options = parse()
  } catch (error) {
    console.error(error.message)
    return 2
  }
  try {
    options.key = await keyOf(options.seed)
    const node = await newNode(options)
    await COMMANDS[options.command](node, options)
    await node.stop()
    return 0
  } catch (error) {
    console.error(error)
    emit({ event: 'error', message: error.message })
    return 1
  }
}

process.exit(await main())
