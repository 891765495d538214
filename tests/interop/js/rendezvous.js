// Rendezvous as the specification has it, with standard signed peer records: js-libp2p brings none of its own.

import { once } from 'node:events'
import process from 'node:process'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { PeerRecord, RecordEnvelope } from '@libp2p/peer-record'
import { lpStream } from '@libp2p/utils'
import { multiaddr } from '@multiformats/multiaddr'
import protobuf from 'protobufjs'
import { emit, full } from './events.js'

const PROTOCOL = '/rendezvous/1.0.0'
const MAX_MESSAGE = 1024 * 1024
const TIMEOUT_MS = 25_000
// Between two questions of a watching discoverer.
const WATCH_PAUSE_MS = 500
const DEFAULT_TTL = 7200
const OK = 0
const E_INVALID_SIGNED_PEER_RECORD = 101
const E_INVALID_COOKIE = 103
const REGISTER = 0
const REGISTER_RESPONSE = 1
const DISCOVER = 3
const DISCOVER_RESPONSE = 4

const { root } = protobuf.parse(`
  syntax = "proto2";
  message Register { optional string ns = 1; optional bytes signedPeerRecord = 2; optional uint64 ttl = 3; }
  message RegisterResponse { optional int32 status = 1; optional string statusText = 2; optional uint64 ttl = 3; }
  message Discover { optional string ns = 1; optional uint64 limit = 2; optional bytes cookie = 3; }
  message DiscoverResponse {
    repeated Register registrations = 1; optional bytes cookie = 2; optional int32 status = 3; optional string statusText = 4;
  }
  message Message {
    optional int32 type = 1; optional Register register = 2; optional RegisterResponse registerResponse = 3;
    optional Discover discover = 5; optional DiscoverResponse discoverResponse = 6;
  }
`)
const Message = root.lookupType('Message')

export async function register (node, { key, point, namespace, ttl, keep }) {
  const record = new PeerRecord({
    peerId: peerIdFromPrivateKey(key),
    multiaddrs: node.getMultiaddrs().map(address => address.decapsulate('/p2p'))
  })
  const envelope = await RecordEnvelope.seal(record, key)
  const asked = { ns: namespace, signedPeerRecord: envelope.marshal(), ...(ttl == null ? {} : { ttl: Number(ttl) }) }
  const answer = (await ask(node, point, { type: REGISTER, register: asked })).registerResponse
  check(answer)
  emit({ event: 'registered', namespace, ttl: Number(answer.ttl) })
  if (keep) {
    await untilTerminated()
  }
}

// Asks until there is no more, and when watching goes on asking for what is new.
export async function discover (node, { point, namespace, limit, watch }) {
  let cookie
  for (;;) {
    const asked = { ns: namespace, ...(limit == null ? {} : { limit: Number(limit) }), ...(cookie == null ? {} : { cookie }) }
    const answer = (await ask(node, point, { type: DISCOVER, discover: asked })).discoverResponse
    check(answer)
    for (const registration of answer.registrations) {
      await emitFound(registration)
    }
    emit({ event: 'page', peers: answer.registrations.length })
    cookie = answer.cookie
    if (answer.registrations.length > 0 && cookie.length > 0) {
      continue
    }
    if (!watch) {
      return
    }
    await new Promise(resolve => setTimeout(resolve, WATCH_PAUSE_MS))
  }
}

// The least of a point: nothing expires, and a cookie says how many of the namespace were told.
export async function servePoint (node) {
  const registrations = []
  await node.handle(PROTOCOL, async (stream, connection) => {
    const messages = lpStream(stream, { maxDataLength: MAX_MESSAGE })
    const { type, register, discover } = Message.decode((await messages.read()).subarray())
    const answer = type === DISCOVER
      ? { type: DISCOVER_RESPONSE, discoverResponse: answerDiscover(registrations, discover) }
      : { type: REGISTER_RESPONSE, registerResponse: await answerRegister(registrations, register, connection.remotePeer) }
    await messages.write(Message.encode(answer).finish())
    await stream.close()
  })
  await untilTerminated()
}

async function answerRegister (registrations, { ns, signedPeerRecord, ttl }, peer) {
  try {
    const record = await open(signedPeerRecord)
    if (!record.peerId.equals(peer)) {
      throw new Error('the record is of another peer')
    }
  } catch (error) {
    return { status: E_INVALID_SIGNED_PEER_RECORD, statusText: error.message }
  }
  const registration = { peer, ns, signedPeerRecord, ttl: Number(ttl) || DEFAULT_TTL }
  const known = registrations.findIndex(other => other.ns === ns && other.peer.equals(peer))
  registrations.splice(known < 0 ? registrations.length : known, 1, registration)
  return { status: OK, ttl: registration.ttl }
}

function answerDiscover (registrations, { ns, limit, cookie }) {
  const told = Number(Buffer.from(cookie).toString()) // no cookie is an empty one, and that is 0
  if (Number.isNaN(told)) {
    return { status: E_INVALID_COOKIE, statusText: 'not a cookie of this point' }
  }
  const page = registrations.filter(registration => registration.ns === ns).slice(told, told + (Number(limit) || Infinity))
  return { registrations: page, cookie: Buffer.from(String(told + page.length).padStart(8, '0')), status: OK }
}

async function ask (node, point, message) {
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  const stream = await node.dialProtocol(multiaddr(point), PROTOCOL, { signal })
  const messages = lpStream(stream, { maxDataLength: MAX_MESSAGE })
  await messages.write(Message.encode(message).finish(), { signal })
  const answer = Message.decode((await messages.read({ signal })).subarray())
  await stream.close({ signal })
  return answer
}

function check ({ status, statusText }) {
  if (status !== OK) {
    throw new Error(`the point answers ${status}: ${statusText}`)
  }
}

async function emitFound ({ signedPeerRecord, ttl }) {
  const record = await open(signedPeerRecord)
  emit({
    event: 'peer',
    peer: record.peerId.toString(),
    addresses: record.multiaddrs.map(address => full(address, record.peerId)),
    ttl: Number(ttl)
  })
}

// Checks the signature, and that the signer speaks of itself.
async function open (signedPeerRecord) {
  const envelope = await RecordEnvelope.openAndCertify(signedPeerRecord, PeerRecord.DOMAIN)
  const record = PeerRecord.createFromProtobuf(envelope.payload)
  if (!record.peerId.publicKey.equals(envelope.publicKey)) {
    throw new Error('the record is signed by another peer')
  }
  return record
}

async function untilTerminated () {
  await Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')])
}
