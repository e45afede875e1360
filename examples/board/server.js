// A live board of the campaigns: serves a page, and sends it each new state as a
// server-sent event.
//
//   node server.js
//
// The PG* variables specify the database, and PORT the port to listen on.
import Fastify from 'fastify'
import pg from 'pg'
import { createReadStream } from 'node:fs'
import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'

const LATEST = 12 // events shown
const PAUSE = 500 // milliseconds between two reads of the reports
const REST = 10_000 // milliseconds after which it reads them without a notification, since ack and nack do not notify this sync

const pool = new pg.Pool({ max: 2 })
const server = Fastify({ logger: { level: process.env.LOG_LEVEL ?? 'warn' } })
const watching = new Set()
pool.on('error', (error) => server.log.error(error.message)) // the next query uses another connection
let state
let latest = []

async function readReports() {
  const ask = async (text) => (await pool.query(text)).rows
  const campaigns = await ask(`
    SELECT campaign_id AS id, COALESCE(campaign_name, campaign_id, 'without a campaign') AS name, pieces, last_event_at
    FROM postalytics.campaign_funnel
    ORDER BY last_event_at DESC
    LIMIT 50`)
  const countries = await ask(`
    SELECT campaign_id AS id, COALESCE(country, '') AS country, pieces, mailed, in_transit, in_local_area,
           processed_for_delivery, re_routed, returned_to_sender, responded
    FROM postalytics.campaign_funnel_by_country`)
  const syncs = await ask('SELECT name, enabled, waiting, due, dead, last_error FROM postalytics.sync_health ORDER BY name')
  return { campaigns, countries, syncs, latest }
}

// Keep the latest events by arrival, whether they were read or came in a notification.
function add(events) {
  const known = new Map([...latest, ...events].map((event) => [event.event_id, event]))
  latest = [...known.values()].sort((a, b) => b.event_id - a.event_id).slice(0, LATEST)
}

async function addStored() {
  const { rows } = await pool.query(`
    SELECT event_id::float8, piece_id, postalytics.label(status) AS label, occurred_at
    FROM postalytics.events
    WHERE occurred_at > now() - interval '3 months'
    ORDER BY event_id DESC
    LIMIT ${LATEST}`)
  add(rows)
}

function send(response) {
  response.write(`data: ${JSON.stringify(state)}\n\n`)
}

// Read the reports after a notification, at most every PAUSE and at least every REST.
let stale = true
let wake = () => {}
async function keepRefreshing() {
  for (;;) {
    if (!stale) await Promise.race([new Promise((resolve) => { wake = resolve }), sleep(REST)])
    stale = false
    try {
      state = await readReports()
      for (const response of watching) send(response)
    } catch (error) {
      server.log.error(error)
      stale = true
    }
    await sleep(PAUSE)
  }
}

async function listen() {
  for (;;) {
    const client = new pg.Client()
    try {
      const lost = new Promise((resolve) => client.on('error', resolve).on('end', resolve))
      client.on('notification', ({ payload }) => {
        add(JSON.parse(payload).events)
        stale = true
        wake()
      })
      await client.connect()
      await client.query('LISTEN postalytics_board')
      await addStored() // because earlier notifications are not sent again
      stale = true
      wake()
      await lost
    } catch (error) {
      server.log.error(error)
    }
    await sleep(1000)
  }
}

const chart = createRequire(import.meta.url).resolve('chart.js/auto').replace(/auto\/auto\.\w+$/, 'dist/chart.umd.js')
const file = (path, type) => (request, reply) => reply.type(type).send(createReadStream(path))
server.get('/', file(new URL('index.html', import.meta.url), 'text/html; charset=utf-8'))
server.get('/board.js', file(new URL('board.js', import.meta.url), 'text/javascript; charset=utf-8'))
server.get('/chart.js', file(chart, 'text/javascript; charset=utf-8'))
server.get('/stream', (request, reply) => {
  reply.hijack()
  reply.raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' })
  watching.add(reply.raw)
  request.raw.on('close', () => watching.delete(reply.raw))
  if (state) send(reply.raw)
})

await server.listen({ port: Number(process.env.PORT ?? 3001), host: process.env.HOST ?? '127.0.0.1' })
listen()
keepRefreshing()
