// The events, one JSON object a line on standard output.

import process from 'node:process'

export function emit (line) {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

// The address with the peer's id at its end.
export function full (address, peer) {
  const text = address.toString()
  return text.endsWith(`/p2p/${peer}`) ? text : `${text}/p2p/${peer}`
}
