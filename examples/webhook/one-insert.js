// The baseline for the load test of the receiver: one INSERT into inbox per request.
import Fastify from 'fastify'
import pg from 'pg'

const pool = new pg.Pool({ max: 16 })
const server = Fastify({ logger: false })

server.removeAllContentTypeParsers()
server.addContentTypeParser('*', { parseAs: 'string' }, (request, body, done) => done(null, body))
server.post('/webhook/:secret', async (request) => {
  JSON.parse(request.body)
  await pool.query({ name: 'insert', text: 'INSERT INTO postalytics.inbox (payload) VALUES ($1)', values: [request.body] })
  return { ok: true }
})
await server.listen({ port: Number(process.env.PORT) })
