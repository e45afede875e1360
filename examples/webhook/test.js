// Tests the receiver under load, and while it and the server are killed with SIGKILL.
import assert from 'node:assert/strict'
import { spawn, spawnSync, execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { after, test } from 'node:test'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import autocannon from 'autocannon'
import pg from 'pg'

const port = execFileSync('../free-port').toString().trim()
const base = `http://127.0.0.1:${port}`
const accounts = JSON.stringify({ 5510: 'a-secret-for-5510', 5511: 'another-for-5511-é', 5512: { secret: 'bound-for-5512-x', user: 'webhook_5512', password: 'bound' } })
let receiver

// The receiver connects as the role that its README describes.
const role = { 'receiver.js': { PGUSER: 'webhook', PGPASSWORD: 'webhook' } }
let log = ''
async function start(program = 'receiver.js', more = {}) {
  receiver = spawn('node', [program], {
    env: { ...process.env, ...role[program], PORT: port, ACCOUNTS: accounts, REQUEST_TIMEOUT: 3000, STATEMENT_TIMEOUT: 2000, ...more }, stdio: ['ignore', 'pipe', 'inherit'],
  })
  receiver.stdout.on('data', (data) => { log += data })
  for (let i = 0; i < 100; i++) {
    if (await fetch(base).catch(() => null)) return
    await sleep(100)
  }
  throw new Error(`${program} does not listen`)
}

async function stop(signal = 'SIGTERM') {
  const ended = new Promise((resolve) => receiver.once('exit', resolve))
  receiver.kill(signal)
  return ended
}

async function ask(text, values) {
  const db = new pg.Client()
  await db.connect()
  try {
    return (await db.query(text, values)).rows
  } finally {
    await db.end()
  }
}

// Kill the postmaster with SIGKILL and start the server again, which works only once
// the sessions have noticed and ended.
async function killServer() {
  const [{ data_directory: folder }] = await ask('SHOW data_directory')
  process.kill(Number(readFileSync(`${folder}/postmaster.pid`, 'utf8').split('\n')[0]), 'SIGKILL')
  for (let i = 0; i < 100; i++) {
    await sleep(100)
    try {
      return execFileSync('pg_ctlcluster', [...process.env.CLUSTER.split(' '), 'start'], { stdio: 'ignore' })
    } catch { /* not yet */ }
  }
  throw new Error('the server does not start again')
}

const event = (id, more = {}) => JSON.stringify({
  mailId: id, eventDate: '2026-10-06T14:21:09.487', eventType: 4,
  to: { id: 9921734, firstName: 'Dolores', lastName: 'Okafor-Lindqvist', country: 'US' }, meta: { campaignId: 77120 }, ...more,
})
const post = (body, path = '/webhook/a-secret-for-5510', headers = {}) => fetch(base + path, { method: 'POST', body, headers })

after(() => receiver.kill())
await start()

test('accepts valid events, and gives a reason for refusals', async () => {
  assert.equal((await post(event('one'))).status, 200)
  assert.equal((await post(`[${event('two')}, ${event('three')}]`)).status, 200)
  assert.equal((await post(`{"data": [${event('four')}]}`)).status, 200)
  assert.equal((await post('[]')).status, 200)
  assert.equal((await post(event('n').replace('"n"', '12345678901234567890'))).status, 200)
  assert.equal((await post(event('five'), '/webhook', { authorization: `Basic ${Buffer.from('5511:another-for-5511-é').toString('base64')}` })).status, 200)
  const bad = await post('{"mailId": ')
  assert.equal(bad.status, 400)
  assert.match((await bad.json()).error, /^not JSON/)
  assert.equal((await post(event('x'), '/webhook/wrong')).status, 401)
  assert.equal((await post(event('x'), '/webhook', { authorization: `Basic ${btoa('5511:a-secret-for-5510')}` })).status, 401)
  // The receiver refuses it by its length, and may close the connection while it is still
  // being sent.
  assert.equal((await post(`"${'x'.repeat(2e6)}"`).catch(() => ({ status: 413 }))).status, 413)
  assert.equal((await post('{"mailId": 1}')).status, 200)
  const rows = await ask('SELECT piece_id, account FROM postalytics.events ORDER BY 1')
  assert.deepEqual(rows.map((row) => `${row.piece_id} ${row.account}`),
    ['12345678901234567890 5510', 'five 5511', 'four 5510', 'one 5510', 'three 5510', 'two 5510'])
  assert.equal((await ask('SELECT FROM postalytics.rejects')).length, 1)
  const health = await (await fetch(`${base}/health`, { headers: { authorization: `Basic ${btoa('5510:a-secret-for-5510')}` } })).json()
  assert.equal(health.ok, true)
  assert.ok(Date.parse(health.last_stored) > Date.now() - 60_000)
})

test('does not start with a configuration that lets strangers in', () => {
  const run = (value) => {
    const { status, stderr } = spawnSync('node', ['receiver.js'], { env: { ...process.env, ACCOUNTS: value, PORT: port }, encoding: 'utf8' })
    assert.equal(status, 2)
    assert.equal(stderr.trim().split('\n').length, 1, stderr)
    return stderr
  }
  assert.match(run(''), /^ACCOUNTS is not set/)
  for (const value of ['{"D": ""}', '{"D": "short"}', '{"D": null}', '{"D": 1234567890123456789}', '{"D": {"user": "x"}}']) assert.match(run(value), /^ACCOUNTS has a secret of fewer than 16/)
  for (const value of ['[]', '{}', 'null', '"x"']) assert.match(run(value), /^ACCOUNTS names no account/)
  const broken = run('{"D": "a-secret-that-is-long"')
  assert.match(broken, /^ACCOUNTS is not JSON/)
  assert.doesNotMatch(broken, /a-secret/)
  assert.match(run('{"D": "a-secret-that-is-long", "E": "a-secret-that-is-long"}'), /^ACCOUNTS has the same secret twice/)
})

test('strangers get nothing, and their bodies are not read', async () => {
  for (const path of ['/webhook/', '/webhook', '/webhook/a-secret-for-551%C3%A9', '/webhook/%C3%A9-secret-for-5510', '/webhook/a-secret-for-5510x', '/webhook/toString', '/webhook/__proto__']) {
    assert.equal((await post(event('stranger'), path)).status, 401, path)
  }
  for (const path of ['/webhook/a-secret-for-5510/', '/a-secret-for-5510', '/webhook/a-secret-for-5510/more']) assert.equal((await post('{}', path)).status, 404, path)
  assert.equal((await post('{}', '/webhook/%ff')).status, 400)
  // The answer arrives while the body is still to be sent.
  for (const [request, status] of [['POST /webhook/wrong', 401], ['POST /nowhere', 404], ['PUT /webhook/wrong', 404], ['POST /webhook/a-secret-for-5510', 413]]) {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => {})
    socket.write(`${request} HTTP/1.1\r\nhost: x\r\ncontent-length: ${status === 413 ? 100_000_000 : 1_000_000}\r\n\r\n`)
    const [answer] = await once(socket, 'data')
    assert.match(String(answer), new RegExp(`^HTTP/1\\.1 ${status}`), request)
    socket.destroy()
  }
  assert.deepEqual(await ask("SELECT FROM postalytics.events WHERE piece_id = 'stranger'"), [])
  assert.doesNotMatch(log, /secret-for|stranger/) // in no log line
})

test('a stranger sees whether it works, and causes no query', async () => {
  const calls = async () => (await ask("SELECT xact_commit::int AS n FROM pg_stat_database WHERE datname = current_database()"))[0].n
  const answers = await Promise.all(Array.from({ length: 200 }, () => fetch(`${base}/health`).then((answer) => answer.json())))
  assert.deepEqual(new Set(answers.map((answer) => JSON.stringify(answer))), new Set(['{"ok":true}']))
  await sleep(1500) // statistics of the receiver's sessions
  const before = await calls()
  await Promise.all(Array.from({ length: 500 }, () => fetch(`${base}/health`)))
  await sleep(1500)
  assert.ok(await calls() - before < 100, 'queries')
})

test('an account with a role of its own is bound to it', async () => {
  assert.equal((await post(event('of 5512'), '/webhook/bound-for-5512-x')).status, 200)
  assert.deepEqual(await ask("SELECT account FROM postalytics.events WHERE piece_id = 'of 5512'"), [{ account: '5512' }])
  const db = new pg.Client({ user: 'webhook_5512', password: 'bound' })
  await db.connect()
  await assert.rejects(db.query("SELECT postalytics.ingest('[]', '5510')"), { code: '42501' })
  await db.end()
})

// A body that PostgreSQL cannot accept must not affect others in the same batch.
test('a bad body fails alone', async () => {
  const deep = '['.repeat(20000) + ']'.repeat(20000)
  const answers = await Promise.all([event('good 1'), deep, event('good 2')].map((body) => post(body)))
  assert.deepEqual(answers.map((answer) => answer.status), [200, 400, 200])
})

let sent = 0
const load = (seconds) => autocannon({
  url: `${base}/webhook/a-secret-for-5510`, connections: 128, duration: seconds,
  requests: [{ method: 'POST', setupRequest: (request) => ({ ...request, body: event(`load ${sent++}`) }) }],
})

// How many times as fast as one INSERT each depends on how busy the machine is, so that is
// only shown; the number of commits does not.
test('under load, every acknowledged request is stored, and many share a commit', async () => {
  const count = async () => (await ask('SELECT (SELECT count(*) FROM postalytics.events)::int AS events, xact_commit::int AS commits FROM pg_stat_database WHERE datname = current_database()'))[0]
  for (let round = 0; round < 3; round++) {
    const rates = [], shares = []
    for (const program of ['one-insert.js', 'receiver.js']) {
      await stop()
      await start(program)
      const before = await count()
      const result = await load(4)
      await stop() // sessions report their commits when they end, if not before
      const after = await count()
      await start(program)
      assert.equal(result.non2xx + result.errors, 0)
      assert.ok(result['2xx'] > 0)
      assert.ok(after.events - before.events >= result['2xx'], `${after.events - before.events} stored of ${result['2xx']} answered`)
      rates.push(result['2xx'] / result.duration)
      shares.push((after.commits - before.commits) / result['2xx'])
    }
    console.log(`round ${round}: ${rates.map(Math.round).join(' and ')} requests a second: ${(rates[1] / rates[0]).toFixed(2)}; ${shares.map((share) => share.toFixed(2)).join(' and ')} commits a request`)
    assert.ok(shares[0] > 0.95, `${shares[0]}`)
    assert.ok(shares[1] < 0.4, `${shares[1]}`)
  }
})

test('kill -9 of receiver and server loses nothing that was answered', async () => {
  const answered = []
  let going = true
  const client = async (name) => {
    for (let i = 0; going; i++) {
      const answer = await post(event(`${name}-${i}`)).catch(() => null)
      if (answer?.status === 200) answered.push(`${name}-${i}`)
      else await sleep(20)
    }
  }
  const clients = Array.from({ length: 30 }, (_, i) => client(`client${i}`))
  for (let round = 0; round < 3; round++) {
    await sleep(700)
    await stop('SIGKILL')
    await start()
    await sleep(700)
    await killServer()
  }
  await sleep(700)
  going = false
  await Promise.all(clients)
  const missing = await ask('SELECT a FROM unnest($1::text[]) AS a LEFT JOIN postalytics.events AS e ON e.piece_id = a WHERE e.piece_id IS NULL', [answered])
  assert.ok(answered.length > 300, `${answered.length} answered`)
  assert.deepEqual(missing, [])
})

// Requests that arrive slowly, or do not end, neither stay nor take room from others.
test('slow clients are closed, and others are served meanwhile', async () => {
  const slow = Array.from({ length: 200 }, () => {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => {})
    socket.write('POST /webhook/a-secret-for-5510 HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{')
    return once(socket.resume(), 'close')
  })
  await sleep(300)
  for (let i = 0; i < 20; i++) assert.equal((await post(event(`beside ${i}`))).status, 200)
  await Promise.all(slow)
  assert.equal((await post(event('after them'))).status, 200)
})

test('large bodies do not fill the memory', async () => {
  const body = `[${event('large', { note: 'x'.repeat(900_000) })}]`
  const statuses = await Promise.all(Array.from({ length: 200 }, (_, i) => post(body, i % 2 ? '/webhook/a-secret-for-5510' : '/webhook/bound-for-5512-x').then((answer) => {
    if (answer.status !== 200) assert.ok(Number(answer.headers.get('retry-after')) > 0)
    return answer.status
  }, () => 503)))
  assert.ok(statuses.includes(503) || statuses.includes(429), 'some are refused')
  assert.ok(statuses.includes(200), 'others are stored')
  assert.deepEqual(statuses.filter((status) => ![200, 429, 503].includes(status)), [])
  const peak = Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${receiver.pid}/status`, 'utf8'))[1]) / 1024
  assert.ok(peak < 400, `${peak} MB`)
  assert.equal((await post(event('afterwards'))).status, 200)
})

test('while the server does not respond, requests get 503, and the log stays short', async () => {
  const [{ data_directory: folder }] = await ask('SHOW data_directory')
  const server = Number(readFileSync(`${folder}/postmaster.pid`, 'utf8').split('\n')[0])
  const family = execFileSync('ps', ['-o', 'pid=', '--ppid', String(server)]).toString().trim().split(/\s+/).map(Number).concat(server)
  log = ''
  for (const pid of family) process.kill(pid, 'SIGSTOP')
  // Clients that go away while the database does not respond do not make room for others.
  const gone = JSON.stringify({ note: 'x'.repeat(900_000) })
  for (let i = 0; i < 100; i++) fetch(`${base}/webhook/bound-for-5512-x`, { method: 'POST', body: gone, signal: AbortSignal.timeout(300) }).catch(() => {})
  await sleep(600)
  assert.equal((await post(gone, '/webhook/bound-for-5512-x')).status, 429)
  const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => post(event(`stopped ${i}`))))
  for (let i = 0; i < 80 && (await fetch(`${base}/health`)).status !== 503; i++) await sleep(100)
  const health = await fetch(`${base}/health`)
  for (const pid of family) process.kill(pid, 'SIGCONT')
  assert.equal(health.status, 503)
  assert.deepEqual(new Set(answers.map(({ status, headers }) => `${status} ${headers.get('retry-after')}`)), new Set(['503 5']))
  for (let i = 0; i < 100 && (await post(event('continued'))).status !== 200; i++) await sleep(100)
  assert.equal((await fetch(`${base}/health`)).status, 200)
  assert.ok(log.match(/the database is not available/g).length <= 3, log)
  assert.doesNotMatch(log, /\n\s+at /) // no stack traces
})

test('on SIGTERM, answers pending requests and exits', async () => {
  const answers = Array.from({ length: 50 }, (_, i) => post(event(`last ${i}`)).catch(() => null))
  await sleep(20)
  const code = await stop()
  assert.equal(code, 0)
  const good = (await Promise.all(answers)).filter((answer) => answer?.status === 200).length
  const [{ count }] = await ask("SELECT count(*)::int FROM postalytics.events WHERE piece_id LIKE 'last %'")
  assert.equal(count, good)
  assert.ok(good > 0)
})
