// Shared by the targets that call an API over HTTP.
import http from 'node:http'
import https from 'node:https'

export const REFUSED = 900 // seconds for which refused credentials pause the sync
export const TIMEOUT = Number(process.env.API_TIMEOUT ?? 15_000) // milliseconds without an answer

// Return the value of an environment variable that must be set.
export function required(name) {
  if (!process.env[name]) throw new Error(`${name} is not set`)
  return process.env[name]
}

// Return the seconds that Retry-After asks for, as a number or as a date; undefined if it
// is missing or wrong.
export function retryAfter(value, now = Date.now()) {
  const text = String(value ?? '').trim()
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : (Date.parse(text) - now) / 1000
  return Number.isFinite(seconds) ? Math.min(Math.max(Math.ceil(seconds), 1), 86_400) : undefined
}

// An answer that is not a success.  429 pauses the sync for Retry-After, or a minute, and
// refused credentials pause it for longer.  408, 5xx and redirects are tried again, others
// are not.
export class Refused extends Error {
  constructor(status, text, after) {
    super(`HTTP ${status}: ${status < 400 ? 'a redirect, which is not followed' : String(text).slice(0, 500)}`)
    if (status === 429) this.pause = retryAfter(after) ?? 60
    else if (status === 401 || status === 403) this.pause = REFUSED
    else if (status === 408 || status >= 500 || status < 400) this.retryIn = retryAfter(after)
    else this.dead = true
  }
}

// Return an agent that connects only to the host of the URL, so that no redirect can take
// credentials or recipients elsewhere, and gives up when there is no answer.
export function agentFor(url) {
  const { protocol, hostname, port } = new URL(url)
  const { Agent } = protocol === 'https:' ? https : http
  return new (class extends Agent {
    createConnection(options, done) {
      const expected = port || (protocol === 'https:' ? '443' : '80')
      if (options.host !== hostname || String(options.port) !== expected) {
        return void done(new Error(`the API redirects to ${options.host}:${options.port}, which is not followed`))
      }
      const socket = super.createConnection(options, done)
      return socket.setTimeout(TIMEOUT, () => socket.destroy(new Error('timeout: the API does not answer')))
    }
  })({ keepAlive: false })
}
