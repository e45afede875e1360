// A live board of the campaigns: serves a page, and sends it each new state as a
// server-sent event.
//
//   node server.js
//
// The PG* variables specify the database.  PORT and HOST are the address to listen on
// (3001 of 127.0.0.1), BOARD_TOKEN is the password of the page, and BOARD_HOSTS are the
// names under which browsers reach it, with commas between them, if not localhost.
import Fastify from 'fastify'
import pg from 'pg'
import { createReadStream } from 'node:fs'
import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'
import { guard } from './guard.js'
import { Reports } from './reports.js'

const PAUSE = 500 // milliseconds between two reads of the reports, at least
const REST = 10_000 // milliseconds after which it reads them without a notification
const BEAT = 1500 // milliseconds between two checks of the database
const ANSWER = 1500 // milliseconds in which it must respond
const VIEWERS = 200 // pages at a time
const BACKLOG = 4e6 // bytes that a page may be behind

const { PORT: port = '3001', HOST: host = '127.0.0.1', BOARD_TOKEN: token = '', BOARD_HOSTS: names = '' } = process.env
const server = Fastify({ logger: { level: process.env.LOG_LEVEL ?? 'warn' }, bodyLimit: 1024, requestTimeout: 10_000 })
try {
  guard(server, { host, token, names: names.split(',').filter(Boolean) })
} catch (error) {
  console.error(error.message)
  process.exit(2)
}

const pool = new pg.Pool({ max: 2, connectionTimeoutMillis: 5000, statement_timeout: 20_000, query_timeout: 25_000, keepAlive: true })
const reports = new Reports(pool)
const watching = new Set()
let report = { campaigns: [], days: [], syncs: [], latest: [] }
// Why the database is not available, or null.
const NOT_YET = 'not yet connected'
let down = NOT_YET
let stale = true
let wake = () => {}
pool.on('error', () => {}) // the next query uses another connection

const UNREADABLE = 'the reports cannot be read'

const state = () => JSON.stringify({ down, actions: token !== '', ...report })
function sendAll(text) {
  for (const response of watching) {
    if (response.writableLength > BACKLOG) response.destroy() // it does not read; a page connects again
    else response.write(text)
  }
}
const sendState = () => sendAll(`data: ${state()}\n\n`)

// Note whether the database is available.  Only a change is logged and sent.
// Pages get the reason, and the log the error, which may quote addresses and roles.
function note(reason, error) {
  if (reason === down) return
  if (!reason) server.log[down === NOT_YET ? 'info' : 'warn'](down === NOT_YET ? 'connected' : 'the database is available again')
  else if (down === null || down === NOT_YET) server.log.error(`the database is not available: ${reason}: ${error.message}`)
  down = reason
  sendState()
}

function refresh() {
  stale = true
  wake()
}

// Read the reports after a notification, at most every PAUSE and at least every REST.  A
// read that takes long is followed by as long a pause.
async function keepRefreshing() {
  for (;;) {
    if (!stale) await Promise.race([new Promise((resolve) => { wake = resolve }), sleep(REST)])
    stale = false
    const start = Date.now()
    try {
      if (down === null || down === UNREADABLE) report = await reports.read()
      if (down === UNREADABLE) note(null)
      sendState()
    } catch (error) {
      if (down === null) note(UNREADABLE, error)
      stale = true
    }
    await sleep(Math.max(PAUSE, stale ? BEAT : Date.now() - start))
  }
}

// Listen, and check every BEAT whether the database still responds.
async function listen() {
  const client = new pg.Client({ connectionTimeoutMillis: ANSWER, query_timeout: ANSWER, keepAlive: true })
  let lost
  try {
    client.on('error', (error) => { lost ??= error }) // the next query fails
    client.on('notification', refresh) // anybody can send one, so its payload is not used
    await client.connect()
    await client.query('LISTEN postalytics_board')
    if (down !== UNREADABLE) note(null)
    refresh()
    for (;;) {
      await client.query('SELECT')
      await sleep(BEAT)
    }
  } catch (error) {
    const cause = lost ?? error
    note(/timeout/i.test(cause.message) ? 'it does not respond' : `no connection (${cause.code ?? 'unknown error'})`, cause)
  }
  client.connection.stream.destroy() // end() would wait for a server that does not respond
}

async function keepListening() {
  for (let wait = 500; ; wait = Math.min(2 * wait, 8000)) {
    const start = Date.now()
    await listen()
    if (Date.now() - start > 20_000) wait = 500
    await sleep(wait)
  }
}

const chart = createRequire(import.meta.url).resolve('chart.js/auto').replace(/auto\/auto\.\w+$/, 'dist/chart.umd.min.js')
const local = (name) => new URL(name, import.meta.url)
for (const [path, file, type] of [['/', local('index.html'), 'text/html'], ['/board.js', local('board.js'), 'text/javascript'],
  ['/board.css', local('board.css'), 'text/css'], ['/chart.js', chart, 'text/javascript']]) {
  server.get(path, (request, reply) => reply.type(`${type}; charset=utf-8`).send(createReadStream(file)))
}
server.get('/stream', (request, reply) => {
  if (watching.size >= VIEWERS) return reply.code(503).send({ error: 'too many viewers' })
  reply.hijack()
  reply.raw.writeHead(200, { ...reply.getHeaders(), 'content-type': 'text/event-stream' })
  watching.add(reply.raw)
  reply.raw.on('error', () => {}).on('close', () => watching.delete(reply.raw))
  reply.raw.write(`data: ${state()}\n\n`)
})
setInterval(() => sendAll('event: beat\ndata: \n\n'), BEAT).unref() // the page reports a failure when these stop

// What can be done with a sync; setup.sql has the functions.
const ACTIONS = { pause: 'SELECT board.pause($1)', resume: 'SELECT board.resume($1)', redrive: 'SELECT board.redrive($1)' }
server.post('/syncs/:name/:action', async ({ params: { name, action } }, reply) => {
  // Only for syncs that the role of the board sees.
  if (!Object.hasOwn(ACTIONS, action) || !report.syncs.some((sync) => sync.name === name)) return reply.code(404).send({ error: 'not found' })
  try {
    await pool.query(ACTIONS[action], [name])
    refresh()
    return { ok: true }
  } catch (error) {
    return reply.code(error.code === '42704' ? 404 : 503).send({ error: error.code === '42704' ? 'no such sync' : 'the action failed' })
  }
})

for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => process.exit())
try {
  await server.listen({ port: Number(port), host })
} catch (error) {
  console.error(error.message)
  process.exit(2)
}
keepListening()
keepRefreshing()
