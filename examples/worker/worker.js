// Passes each delivery of a sync to a command: node worker.js SYNC COMMAND...
import pg from 'pg'
import { spawnSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'

const [sync, command, ...args] = process.argv.slice(2)
let delivered = [] // delivered but not acknowledged
let stopping = false
let wake = () => {}
process.on('SIGTERM', () => { stopping = true; wake() })

async function acknowledge(db) {
  if (delivered.length === 0) return
  await db.query('SELECT postalytics.ack($1, $2, $3)', [sync, delivered.map((row) => row.delivery_id), delivered.map((row) => row.attempt)])
  delivered = []
}

async function deliver(db, rows) {
  for (const [n, row] of rows.entries()) {
    await sleep(0) // lets signal handlers run
    if (stopping) { // give back the deliveries that are not started
      await db.query("SELECT postalytics.nack($1, $2, 'worker stopped', retry_in => '0')", [sync, rows.slice(n).map((row) => row.delivery_id)])
      return
    }
    const done = spawnSync(command, args, { input: row.payload, encoding: 'utf8' })
    if (done.status === 0) delivered.push(row)
    else await db.query('SELECT postalytics.nack($1, $2, $3)', [sync, [row.delivery_id], done.stderr || 'failed'])
  }
}

async function work(db) {
  let heard = false
  db.on('notification', () => { heard = true; wake() }).on('error', () => wake())
  await db.connect()
  if ((await db.query('SELECT pg_is_in_recovery() AS standby')).rows[0].standby) throw new Error('standby')
  await db.query(`LISTEN ${db.escapeIdentifier('postalytics_' + sync)}`)
  while (!stopping) {
    heard = false
    await acknowledge(db) // also what was delivered before the connection was lost
    const { rows } = await db.query('SELECT delivery_id, attempt, payload::text FROM postalytics.fetch($1, 10)', [sync])
    await deliver(db, rows)
    if (rows.length > 0) continue
    const next = await db.query('SELECT COALESCE(extract(epoch FROM postalytics.next_due($1) - now()), 60)::float AS due', [sync])
    const woken = new Promise((resolve) => (wake = resolve))
    if (!heard && !stopping) await Promise.race([woken, sleep(1000 * Math.min(Math.max(next.rows[0].due, 0.1), 60))]) // fetch at least once a minute
  }
  await acknowledge(db)
}

const list = (value, none) => (value || none).split(',')
for (let n = 0; !stopping; n++) { // try the hosts in turn
  const hosts = list(process.env.PGHOST, 'localhost'), ports = list(process.env.PGPORT, '5432')
  const db = new pg.Client({ host: hosts[n % hosts.length], port: +ports[n % ports.length], connectionTimeoutMillis: 10000 })
  await work(db).catch((error) => console.error('retrying:', error.message))
  await db.end().catch(() => {})
  if (!stopping) await sleep(1000)
}
process.exit()
