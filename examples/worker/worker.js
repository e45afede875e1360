// Passes the deliveries of a sync to a target: node worker.js SYNC TARGET [ARGUMENT...]
//
// The PG* variables specify the database.  With a cluster, this is the front.  Then either
// SLOTS has the connection strings of all slots, separated by blanks, on which the worker
// also listens, or MAX_WAIT is the time that each fetch may wait, such as 10s.
//
// A target is a module in targets/ whose default export is a function of the arguments.
// It returns an object with either
//
//   deliver(delivery, db)       called for each delivery, for up to `parallel` at a time (1)
//   deliverAll(deliveries, db)  called for up to `batch` deliveries; returns an array with
//                               the error of each that failed
//
// and may have `batch`, the number of deliveries that are fetched together (20), and
// `lease`, the time that they may take (1 minute).  A delivery is a row of fetch, with its
// payload as text.  An error means that the delivery failed.  Properties of the
// error: retryIn (seconds until it is tried again; by default the usual wait), dead (it is
// not tried again), pause (seconds for which the whole sync is paused), disable (the sync
// is disabled).
import pg from 'pg'
import { setTimeout as sleep } from 'node:timers/promises'

const [sync, name, ...args] = process.argv.slice(2)
const maxWait = process.env.MAX_WAIT || '0'
let acknowledged = [] // delivered, but not yet acknowledged
let stopping = false
let heard = false // a notification arrived since the last fetch began
let wake = () => {}
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => { stopping = true; wake() })
pg.types.setTypeParser(pg.types.builtins.JSON, String) // parsing would round large integers

class NotStarted extends Error {
  retryIn = 0
}

async function acknowledge(db) {
  if (acknowledged.length === 0) return
  await db.query('SELECT postalytics.ack($1, $2, $3)', [sync, acknowledged.map((row) => row.delivery_id), acknowledged.map((row) => row.attempt)])
  acknowledged = []
}

// Call deliver for each row, but not after SIGTERM or after an error that stops the sync.
function oneByOne({ deliver, parallel = 1 }) {
  return async (rows, db) => {
    const errors = []
    let next = 0, stopped = false
    const take = async () => {
      while (next < rows.length) {
        const n = next++
        await sleep(0) // lets signal handlers run
        errors[n] = stopping || stopped ? new NotStarted(stopping ? 'the worker was stopped before this delivery' : 'the sync was paused before this delivery') : await deliver(rows[n], db).then(() => null, (error) => error)
        stopped ||= Boolean(errors[n]?.pause || errors[n]?.disable)
      }
    }
    await Promise.all(Array.from({ length: parallel }, take))
    return errors
  }
}

function hear() {
  heard = true
  wake()
}

// Listen on a slot of a cluster as well, because its front sends no notifications.
async function listenOn(connectionString) {
  for (; !stopping; await sleep(1000)) {
    const slot = new pg.Client({ connectionString, connectionTimeoutMillis: 10_000, keepAlive: true })
    const lost = new Promise((resolve) => slot.on('error', resolve).on('end', resolve))
    slot.on('notification', hear)
    await slot.connect().then(() => slot.query(`LISTEN ${slot.escapeIdentifier('postalytics_' + sync)}`))
      .then(() => { hear(); return lost }, (error) => console.error('retrying:', error.message))
    slot.end().catch(() => {})
  }
}

async function work(db, target) {
  const deliverAll = target.deliverAll?.bind(target) ?? oneByOne(target)
  db.on('notification', hear).on('error', () => wake())
  await db.connect()
  if ((await db.query('SELECT pg_is_in_recovery() AS standby')).rows[0].standby) throw new Error('standby')
  await db.query(`LISTEN ${db.escapeIdentifier('postalytics_' + sync)}`)
  while (!stopping) {
    heard = false
    await acknowledge(db) // also what was delivered before the connection was lost
    const { rows } = await db.query('SELECT * FROM postalytics.fetch($1, $2, lease => $3, max_wait => $4)', [sync, target.batch ?? 20, target.lease ?? '1 minute', maxWait])
    const errors = rows.length === 0 ? [] : await deliverAll(rows, db).catch((error) => rows.map(() => error))
    acknowledged = rows.filter((_, n) => !errors[n])
    await acknowledge(db)
    await giveBack(db, rows, errors)
    if (rows.length > 0 || maxWait !== '0') continue
    const next = await db.query('SELECT COALESCE(extract(epoch FROM postalytics.next_due($1) - now()), 60)::float AS due', [sync])
    const woken = new Promise((resolve) => (wake = resolve))
    if (!heard && !stopping) await Promise.race([woken, sleep(1000 * Math.min(Math.max(next.rows[0].due, 0.1), 60))]) // fetch at least once a minute
  }
}

// Record the failures, those with the same error in one call.
async function giveBack(db, rows, errors) {
  const seconds = (value) => (value === undefined ? null : `${value} seconds`)
  const failures = new Map()
  for (const [n, error] of errors.entries()) if (error) failures.set(error.message, [...failures.get(error.message) ?? [], n])
  for (const failed of failures.values()) {
    const error = errors[failed[0]]
    if (!(error instanceof NotStarted)) console.error(`${failed.length} failed: ${error.message}`)
    await db.query('SELECT postalytics.nack($1, $2, $3, retry_in => $4, dead => $5, attempts => $6, pause => $7)', [
      sync, failed.map((n) => rows[n].delivery_id), error.message.replaceAll('\0', ' ').slice(0, 1000) || 'failed', seconds(error.retryIn ?? error.pause),
      error.dead ?? false, failed.map((n) => rows[n].attempt), seconds(error.pause)])
    if (error.disable) await db.query('SELECT postalytics.disable_sync($1)', [sync])
  }
}

const list = (value, none) => (value || none).split(',')
let target
try {
  if (!/^[a-z]+$/.test(name ?? '')) throw new Error('usage: node worker.js SYNC TARGET [ARGUMENT...]')
  const module = await import(`./targets/${name}.js`).catch((error) => { if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error })
  if (!module?.default) throw new Error(`there is no target "${name}", or npm ci was not run`)
  target = await module.default(...args)
} catch (error) {
  console.error(error.message)
  process.exit(2)
}
for (const slot of (process.env.SLOTS ?? '').split(' ').filter(Boolean)) listenOn(slot)
for (let n = 0; !stopping; n++) { // try the hosts in turn
  const hosts = list(process.env.PGHOST, 'localhost'), ports = list(process.env.PGPORT, '5432')
  const db = new pg.Client({ host: hosts[n % hosts.length], port: +ports[n % ports.length], connectionTimeoutMillis: 10_000, query_timeout: 60_000, keepAlive: true })
  await work(db, target).catch((error) => console.error('retrying:', error.message))
  await Promise.race([db.end().catch(() => {}), sleep(1000)]) // a server that does not respond does not close the connection
  if (!stopping) await sleep(1000)
}
process.exit()
