// Receives the vendor's per-campaign webhooks and passes them to ingest.
//
//   ACCOUNTS='{"5510": "secret"}' node receiver.js
//
// The PG* variables specify the database.  A request is POST /webhook/<secret>, or
// POST /webhook with the account and its secret as Basic auth.  It is answered with 200
// once the events are committed, and with 400 if the body is not JSON.
import Fastify from 'fastify'
import { timingSafeEqual } from 'node:crypto'
import pg from 'pg'
import { Batcher } from './batcher.js'

const accounts = Object.entries(JSON.parse(process.env.ACCOUNTS ?? '{}'))
const pool = new pg.Pool({ max: 4 })
// Paths are not logged, because they contain the secret.
const req = ({ method, ip }) => ({ method, ip })
const server = Fastify({ logger: { level: process.env.LOG_LEVEL ?? 'info', serializers: { req } }, bodyLimit: 10 * 1024 * 1024 })
const batcher = new Batcher(pool, {
  wait: Number(process.env.BATCH_MS ?? 3),
  most: Number(process.env.BATCH_MOST ?? 500),
  rejected: (account, count) => server.log.warn({ account, count }, 'rejected: see postalytics.rejects'),
})

let lastStored = null
pool.on('error', (error) => server.log.error(error, 'a database connection was lost'))

const same = (a, b) => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b))

// Return the account of a request, by the secret in its path or by Basic auth.
function accountOf(request) {
  const basic = /^Basic (.+)$/.exec(request.headers.authorization ?? '')
  if (request.params.secret !== undefined) {
    return accounts.find(([, secret]) => same(secret, request.params.secret))?.[0]
  }
  const [account, ...secret] = Buffer.from(basic?.[1] ?? '', 'base64').toString().split(':')
  return accounts.find(([name, expected]) => name === account && same(expected, secret.join(':')))?.[0]
}

// Keep the body as text, because parsing it would round large integers.
server.removeAllContentTypeParsers()
server.addContentTypeParser('*', { parseAs: 'string' }, (request, body, done) => done(null, body))

async function receive(request, reply) {
  const account = accountOf(request)
  if (account === undefined) {
    return reply.code(401).header('www-authenticate', 'Basic').send({ error: 'unknown secret' })
  }
  try {
    JSON.parse(request.body ?? '')
  } catch (error) {
    return reply.code(400).send({ error: `not JSON: ${error.message}` })
  }
  try {
    const answer = await batcher.ingest(request.body, account)
    lastStored = new Date()
    return answer
  } catch (error) {
    // Class 22 (data exception) and class 54 (program limit exceeded) are errors of the
    // body, which would fail again.
    const bad = error.code?.startsWith('22') || error.code?.startsWith('54')
    request.log.error(error)
    return reply.code(bad ? 400 : 503).send({ error: bad ? error.message : 'the database is not there: send it again' })
  }
}

server.post('/webhook/:secret', receive)
server.post('/webhook', receive)
server.get('/health', async (request, reply) => {
  try {
    await pool.query("SELECT postalytics.ingest('[]')") // the only call that its role may make
    return { ok: true, waiting: batcher.waiting, last_stored: lastStored }
  } catch (error) {
    return reply.code(503).send({ ok: false, error: error.message })
  }
})

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, async () => {
    await server.close() // finishes pending requests, accepts no new ones
    await pool.end()
  })
}
await server.listen({ port: Number(process.env.PORT ?? 3000), host: process.env.HOST ?? '127.0.0.1' })
