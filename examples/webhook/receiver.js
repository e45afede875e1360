// Receives the vendor's per-campaign webhooks and passes them to ingest.
//
//   ACCOUNTS='{"5510": "a-long-random-secret"}' node receiver.js
//
// The PG* variables specify the database.  A request is POST /webhook/<secret>, or
// POST /webhook with the account and its secret as Basic auth.  It is answered with 200
// once the events are committed.  README.md lists the other answers.
import Fastify from 'fastify'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { readAccounts } from './accounts.js'
import { Batcher, isBodyError } from './batcher.js'

const BODY_LIMIT = Number(process.env.BODY_LIMIT ?? 1024 * 1024) // bytes of a request
const QUEUE_LIMIT = Number(process.env.QUEUE_LIMIT ?? 32 * 1024 * 1024) // bytes of all requests that are not answered
const OVERHEAD = 4096 // bytes that a request takes beside its body, roughly
const STATEMENT_TIMEOUT = Number(process.env.STATEMENT_TIMEOUT ?? 10_000) // milliseconds
const REQUEST_TIMEOUT = Number(process.env.REQUEST_TIMEOUT ?? 20_000) // milliseconds until a request must have arrived
const CHECK = 4000 // milliseconds between two checks of the database
const ANSWER = 2000 // milliseconds in which it must respond to a check

let accounts, find
try {
  ({ accounts, find } = readAccounts(process.env.ACCOUNTS))
} catch (error) {
  console.error(error.message)
  process.exit(2)
}

// Paths are not logged, because they contain the secret.
const req = ({ method, ip }) => ({ method, ip })
const server = Fastify({
  logger: { level: process.env.LOG_LEVEL ?? 'info', serializers: { req } },
  bodyLimit: BODY_LIMIT,
  requestTimeout: REQUEST_TIMEOUT,
  http: { headersTimeout: Math.min(REQUEST_TIMEOUT, 10_000), connectionsCheckingInterval: 1000 },
  frameworkErrors: (error, request, reply) => reply.code(400).send({ error: 'bad request' }),
})
// The body of a request that leads nowhere is not read, either.
server.addHook('onRequest', async (request, reply) => {
  if (request.is404) return reply.code(404).header('connection', 'close').send({ error: 'not found' })
})
server.setErrorHandler((error, request, reply) => reply.code(error.statusCode ?? 500).send({ error: error.statusCode < 500 ? error.message : 'internal error' }))

// Whether the database was available at the last attempt, and what went wrong.  A change is
// logged, not each request that suffers from it.
const database = { error: 'not yet tried', lastStored: null }
function note(error) {
  const message = error ? error.message || error.code : null
  if (message === database.error) return
  database.error = message
  if (message) server.log.error(`the database is not available: ${message}`)
  else server.log.info('the database is available')
}

// Events of an account with a role of its own go through connections of that role.
function batcherOf(role) {
  const pool = new pg.Pool({ max: 4, connectionTimeoutMillis: 5000, statement_timeout: STATEMENT_TIMEOUT, query_timeout: STATEMENT_TIMEOUT + 2000, keepAlive: true, ...role })
  pool.on('error', () => {}) // the next query uses another connection
  return new Batcher(pool, {
    wait: Number(process.env.BATCH_MS ?? 3),
    most: Number(process.env.BATCH_MOST ?? 500),
    rejected: (account, count) => server.log.warn({ account, count }, 'rejected: see postalytics.rejects'),
  })
}
const shared = batcherOf({})
for (const account of accounts) {
  account.batcher = account.user ? batcherOf({ user: account.user, password: account.password }) : shared
  account.bytes = 0
}
// Through these connections it checks whether the database is available.
const checked = accounts.some((account) => !account.user) ? shared : accounts[0].batcher

async function check() {
  const silence = sleep(ANSWER, undefined, { ref: false }).then(() => { throw new Error('it does not respond') })
  const answer = checked.pool.query("SELECT postalytics.ingest('[]', $1)", [checked === shared ? null : accounts[0].name]) // the only call that its role may make
  await Promise.race([answer, silence]).then(() => note(), note)
  setTimeout(check, CHECK).unref()
}

// The account of a request, by the secret in its path or by Basic auth.
function accountOf({ params, headers }) {
  if (params.secret !== undefined) return find(undefined, params.secret)
  const [, basic] = /^Basic ([A-Za-z0-9+/=]+)$/.exec(headers.authorization ?? '') ?? []
  const [name, ...secret] = Buffer.from(basic ?? '', 'base64').toString().split(':')
  return find(name, secret.join(':'))
}

// Before the body is read, refuse unknown senders, and requests that do not fit into the
// queue.  If there are several accounts, each may use at most half of it.
let bytes = 0
async function admit(request, reply) {
  const account = accountOf(request)
  if (account === undefined) {
    return reply.code(401).headers({ 'www-authenticate': 'Basic', connection: 'close' }).send({ error: 'unknown secret' })
  }
  const length = Number(request.headers['content-length'] ?? BODY_LIMIT)
  if (length > BODY_LIMIT) return reply.code(413).header('connection', 'close').send({ error: `the body is larger than ${BODY_LIMIT} bytes` })
  const size = OVERHEAD + length
  const isFull = bytes + size > QUEUE_LIMIT
  if (isFull || accounts.length > 1 && account.bytes + size > QUEUE_LIMIT / 2) {
    return reply.code(isFull ? 503 : 429).headers({ 'retry-after': '2', connection: 'close' }).send({ error: 'too many requests are waiting: send the request again' })
  }
  bytes += size
  account.bytes += size
  // The room is free again when the response is closed, or the client has gone, and the
  // events are no longer in the queue.
  let holds = 1
  const hold = () => { holds++ }
  const release = () => {
    if (--holds > 0) return
    bytes -= size
    account.bytes -= size
  }
  reply.raw.once('close', release)
  Object.assign(request, { account, hold, release })
}

// Keep the body as text, because parsing it would round large integers.
server.removeAllContentTypeParsers()
server.addContentTypeParser('*', { parseAs: 'string' }, (request, body, done) => done(null, body))

async function receive(request, reply) {
  try {
    JSON.parse(request.body ?? '')
  } catch (error) {
    return reply.code(400).send({ error: `not JSON: ${error.message}` })
  }
  const { batcher } = request.account
  request.hold()
  try {
    const answer = await batcher.ingest(request.body, request.account.name)
    database.lastStored = new Date()
    if (batcher === checked) note()
    return answer
  } catch (error) {
    if (isBodyError(error)) return reply.code(400).send({ error: error.message })
    if (batcher === checked) note(error)
    else request.log.error(`account ${request.account.name}: ${error.message}`)
    return reply.code(503).header('retry-after', '5').send({ error: 'the database is not available: send the request again' })
  } finally {
    request.release()
  }
}

server.post('/webhook/:secret', { onRequest: admit }, receive)
server.post('/webhook', { onRequest: admit }, receive)
// Strangers learn only whether it works, and cause no query.
server.get('/health', (request, reply) => {
  const known = accountOf(request) && { error: database.error, waiting: bytes, last_stored: database.lastStored }
  reply.code(database.error ? 503 : 200).send({ ok: !database.error, ...known })
})

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, async () => {
    setTimeout(() => server.server.closeAllConnections(), 10_000).unref() // slow clients
    await server.close() // finishes pending requests, accepts no new ones
    process.exit()
  })
}
await server.listen({ port: Number(process.env.PORT ?? 3000), host: process.env.HOST ?? '127.0.0.1' })
check()
