// Tests the board in a browser, and what strangers can do to it.
import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import puppeteer from 'puppeteer-core'

const TOKEN = 'a-token-for-the-test'
const port = execFileSync('../free-port').toString().trim()
const base = `http://127.0.0.1:${port}`
const db = new pg.Client()
await db.connect()
const browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] })
let server
after(async () => {
  await browser.close()
  server.kill('SIGKILL')
  await db.end()
})

const wrong = []
const page = await browser.newPage()
page.on('pageerror', (error) => wrong.push(error.message))
page.on('console', (message) => { if (/Content.Security/.test(message.text())) wrong.push(message.text()) })
await page.authenticate({ username: 'anyone', password: TOKEN })
const text = (selector) => page.$eval(selector, (element) => element.innerText)
const shows = (selector, words, timeout = 30_000) => page.waitForFunction((s, w) => document.querySelector(s).innerText.includes(w), { timeout }, selector, words)
const cells = (selector) => page.$$eval(`${selector} tr`, (rows) => rows.map((each) => [...each.cells].map((cell) => cell.textContent)))
const eventDate = new Date(Date.now() - 864e5).toISOString()
const event = (mailId, eventType, country, campaignId, campaignName) =>
  ({ mailId, eventType, eventDate, to: { firstName: 'Dolores', lastName: 'Okafor', email: 'dolores@harbourvale.example', country }, meta: { campaignId, campaignName } })
const ingest = (...events) => db.query('SELECT postalytics.ingest($1::json)', [JSON.stringify(events)])
const environment = { ...process.env, PORT: port, PGUSER: 'board', PGPASSWORD: 'board' }
let log = ''
function start(more = {}) {
  server = spawn('node', ['server.js'], { env: { ...environment, BOARD_TOKEN: TOKEN, ...more }, stdio: ['ignore', 'pipe', 'pipe'] })
  for (const stream of [server.stdout, server.stderr]) stream.on('data', (data) => { log += data })
}
// A request with headers that fetch does not let one set.
const ask = (path, headers = {}, method = 'GET') => new Promise((resolve, reject) => {
  request(base + path, { method, headers: { authorization: `Basic ${btoa(`x:${TOKEN}`)}`, ...headers } }, (answer) => { answer.resume(); resolve(answer) }).on('error', reject).end()
})
// The processes of the database server, for SIGSTOP.
async function family() {
  const [{ data_directory: folder }] = (await db.query('SHOW data_directory')).rows
  const postmaster = Number(readFileSync(`${folder}/postmaster.pid`, 'utf8').split('\n')[0])
  return () => execFileSync('ps', ['-o', 'pid=', '--ppid', String(postmaster)]).toString().trim().split(/\s+/).map(Number).concat(postmaster)
}

await ingest(event(1, 11, 'US', 1, 'Spring recall'), event(1, 4, 'US', 1), event(2, 11, 'CA', 1)) // before the server starts
start()

test('shows existing events', async () => {
  for (let i = 0; i < 100 && !(await page.goto(base).catch(() => null)); i++) await sleep(100)
  await shows('#live', 'live')
  await shows('#about', '2 pieces')
  assert.equal(await page.$eval('#campaign', (select) => select.selectedOptions[0].text), 'Spring recall')
  assert.deepEqual((await cells('#counts tbody')).slice(0, 3), [['Pieces', '1', '1'], ['Mailed', '1', '1'], ['In Transit', '1', '–']])
  assert.equal(await text('#mailed .count'), '2')
  assert.equal(await text('#mailed .share'), '100.0 %')
  assert.deepEqual((await cells('#latest')).map((row) => row.slice(1)).sort(), [['In Transit', '1'], ['Mailed', '1'], ['Mailed', '2']])
})

test('new events appear without a reload', async () => {
  await ingest(event(3, 6, 'US', 1), event(3, 7, 'US', 1))
  await shows('#in_mailboxes', '1')
  await shows('#responded .count', '1')
  await page.waitForFunction(() => Chart.getChart('funnel').data.datasets[0]?.data[3] === 1)
  const bars = await page.evaluate(() => Chart.getChart('funnel').data.datasets.map(({ label, data }) => [label, data[0], data[3]]))
  assert.deepEqual(bars, [['United States', 1, 1], ['Canada', 1, null]])
  assert.deepEqual(await page.evaluate(() => Chart.getChart('days').data.datasets.map(({ label, data }) => [label, ...data])), [['In mailboxes', 1], ['Responded', 1]])
  assert.match(await text('#statuses'), /In mailboxes\s+1/)
})

test('syncs have buttons, and no personal data is sent', async () => {
  await db.query("SELECT postalytics.create_sync('crm', statuses => '{ReturnedToSender}')")
  await ingest(event(5, 3, 'US', 1))
  await shows('#syncs tbody', 'crm')
  await page.waitForFunction(() => document.querySelector('#syncs tbody tr').cells[2].textContent === '1')
  await db.query("SELECT postalytics.nack('crm', array_agg(delivery_id), 'no person dolores@harbourvale.example', dead => true) FROM postalytics.fetch('crm')")
  await shows('#syncs tbody', 'refused')
  const click = (words) => page.$$eval('#syncs button', (buttons, w) => buttons.find((button) => button.textContent === w).click(), words)
  await click('Pause')
  await shows('#syncs tbody', 'paused until')
  await click('Resume')
  await page.waitForFunction(() => !document.querySelector('#syncs tbody').innerText.includes('paused'))
  await click('Redrive')
  await page.waitForFunction(() => !document.querySelector('#syncs tbody').innerText.includes('refused'))
  assert.equal((await db.query("SELECT state FROM postalytics.deliveries WHERE sync = 'crm'")).rows[0].state, 'waiting')
  // All that the server sends, until the next event.
  const stream = await fetch(`${base}/stream`, { headers: { authorization: `Basic ${btoa(`x:${TOKEN}`)}` } })
  const reader = stream.body.getReader()
  const sent = new TextDecoder().decode((await reader.read()).value)
  await reader.cancel()
  assert.match(sent, /Spring recall/)
  assert.doesNotMatch(sent, /@|Dolores|Okafor/)
})

test('the chosen campaign is kept, and names are not parsed as HTML', async () => {
  await ingest(event(6, 11, 'US', 2, '<img src=x onerror="document.title=1">'), event(60, 11, 'US', 3, `A long name that does not fit ${'x'.repeat(200)}`))
  await page.waitForFunction(() => document.querySelector('#campaign').options.length === 3)
  await page.$eval('#campaign', (select) => { select.value = [...select.options].find(({ text }) => text.startsWith('<img')).value; select.dispatchEvent(new Event('change')) })
  await shows('#about', '1 piece')
  await ingest(event(7, 11, 'US', 2))
  await shows('#about', '2 pieces')
  assert.equal(await page.title(), 'Campaign board')
  assert.equal((await page.$$('img')).length, 0)
  await page.evaluate(() => document.activeElement.blur())
  await page.keyboard.press('Tab') // by keyboard: the list comes first
  assert.equal(await page.evaluate(() => document.activeElement.id), 'campaign')
  await page.keyboard.press('S') // Spring recall
  await shows('#about', '4 pieces')
})

test('is readable on a phone, and in the dark', async () => {
  const piece = 'a-piece-id-that-is-longer-than-a-phone-is-wide-48213377'
  await ingest(event(piece, 11, 'US', 1))
  await shows('#about', '5 pieces')
  await page.setViewport({ width: 360, height: 740, isMobile: true })
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360)
  const lines = await page.$$eval('#latest time, #latest .id, #about time', (all) => all.map((each) => each.getClientRects().length))
  assert.deepEqual(new Set(lines), new Set([1])) // dates and ids are not broken
  await page.setViewport({ width: 1100, height: 900 })
  await page.waitForFunction(() => Chart.getChart('funnel').width > 400)
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }])
  // The contrast of each text to the card or page behind it is 4.5 at least (WCAG AA).
  const low = () => page.evaluate(() => {
    const parse = (value) => value.match(/[\d.]+/g).map(Number)
    const light = ([r, g, b]) => [r, g, b].map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)).reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0)
    return [...document.querySelectorAll('body *')].filter((it) => [...it.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && it.getClientRects().length && !['OPTION', 'SCRIPT'].includes(it.tagName)).flatMap((it) => {
      let behind = it
      while (behind && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement
      const [a, b] = [light(parse(getComputedStyle(it).color)), light(parse(getComputedStyle(behind).backgroundColor))]
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
      return contrast < 4.5 ? [`${it.tagName} ${it.textContent.slice(0, 20)} ${contrast.toFixed(2)}`] : []
    })
  })
  await sleep(400)
  assert.deepEqual(await low(), [])
  assert.match(await page.evaluate(() => Chart.getChart('funnel').options.scales.x.ticks.color), /9ba7b7/)
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'light' }])
  await sleep(400)
  assert.deepEqual(await low(), [])
})

test('an unexpected notification does not stop the server', async () => {
  for (const payload of ['boo', '', '{"events": 5}', 'null']) await db.query(`SELECT pg_notify('postalytics_board', $1)`, [payload])
  await sleep(1000)
  assert.equal(server.exitCode, null)
  assert.match(await text('#live'), /live/)
})

test('is red within five seconds when the database is gone or does not respond', async () => {
  const processes = await family()
  const isRed = async (words) => {
    await shows('#live', words)
    assert.match(await page.$eval('#live', (it) => it.className), /down/)
  }
  // A busy machine may take longer, so add up the times that the board waits.
  const wait = (file, name) => Number(new RegExp(`const ${name} = (\\d+)`).exec(readFileSync(file, 'utf8'))[1])
  assert.ok(wait('server.js', 'BEAT') + wait('server.js', 'ANSWER') < 5000)
  assert.ok(wait('board.js', 'SILENCE') < 5000)
  log = ''
  const stopped = processes()
  for (const pid of stopped) process.kill(pid, 'SIGSTOP')
  try {
    await isRed('it does not respond')
    await sleep(4000)
  } finally {
    for (const pid of stopped) process.kill(pid, 'SIGCONT')
  }
  await shows('#live', 'live')
  assert.equal(log.trim().split('\n').length, 2, log) // not available, and available again
  log = ''
  await db.query("ALTER ROLE board NOLOGIN")
  await db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'board'")
  await isRed('28000') // it may not log in again
  await sleep(4000)
  assert.equal(log.trim().split('\n').length, 1, log)
  await db.query('ALTER ROLE board LOGIN')
  await shows('#live', 'live')
  await db.query("SELECT postalytics.revoke_read('board')")
  await shows('#live', 'reports cannot be read')
  await db.query("SELECT postalytics.grant_read('board')")
  await ingest(event(8, 8, 'US', 1))
  await shows('#live', 'live')
  await shows('#responded .count', '2')
})

test('is red when its own server does not respond', async () => {
  server.kill('SIGSTOP')
  await shows('#live', 'server does not respond')
  server.kill('SIGCONT')
  await shows('#live', 'live')
  assert.deepEqual(wrong, [])
})

test('strangers see nothing and do nothing', async () => {
  assert.equal((await ask('/', { authorization: '' })).statusCode, 401)
  assert.equal((await ask('/stream', { authorization: `Basic ${btoa('x:wrong')}` })).statusCode, 401)
  assert.equal((await ask('/stream', { authorization: 'Basic w6k6w6k=' })).statusCode, 401)
  assert.equal((await ask('/', { host: 'evil.example' })).statusCode, 421) // a name that points here
  const { headers } = await ask('/')
  assert.match(headers['content-security-policy'], /default-src 'none'; script-src 'self'; style-src 'self'/)
  assert.equal((await ask('/syncs/crm/pause', {}, 'POST')).statusCode, 403) // as a form of another site would
  assert.equal((await ask('/syncs/crm/pause', { 'x-board': '1', authorization: '' }, 'POST')).statusCode, 401)
  assert.equal((await ask('/syncs/crm/drop', { 'x-board': '1' }, 'POST')).statusCode, 404)
  assert.equal((await ask('/syncs/crm/constructor', { 'x-board': '1' }, 'POST')).statusCode, 404)
  assert.equal((await ask('/syncs/nothing/pause', { 'x-board': '1' }, 'POST')).statusCode, 404)
  assert.equal((await ask('/syncs/crm/pause', { 'x-board': '1' }, 'POST')).statusCode, 200)
  assert.equal((await ask('/../../etc/passwd')).statusCode, 404)
  // The role of the board can do nothing else.
  const client = new pg.Client({ user: 'board', password: 'board' })
  await client.connect()
  for (const command of ["SELECT postalytics.drop_sync('crm')", "SELECT postalytics.fetch('crm')", "SELECT postalytics.pause_sync('crm', '1 hour')", 'DELETE FROM postalytics.events']) {
    await assert.rejects(client.query(command), { code: '42501' }, command)
  }
  await client.end()
})

test('does not start if strangers could see it', async () => {
  const run = (more) => {
    const { status, stderr } = spawnSync('node', ['server.js'], { env: { ...environment, ...more }, encoding: 'utf8' })
    assert.equal(status, 2)
    assert.equal(stderr.trim().split('\n').length, 1)
    return stderr
  }
  assert.match(run({ HOST: '0.0.0.0' }), /^BOARD_TOKEN is not set/)
  assert.match(run({ BOARD_HOSTS: 'board.example' }), /^BOARD_TOKEN is not set/)
  assert.match(run({ HOST: '0.0.0.0', BOARD_TOKEN: 'short' }), /^BOARD_TOKEN has fewer/)
  assert.match(run({}), /EADDRINUSE/)
  server.kill()
  await new Promise((resolve) => server.once('exit', resolve))
  start({ BOARD_TOKEN: '' })
  for (let i = 0; i < 50 && !(await ask('/').catch(() => null)); i++) await sleep(100)
  assert.equal((await ask('/', { authorization: '' })).statusCode, 200) // from this machine
  assert.equal((await ask('/', { host: 'evil.example' })).statusCode, 421)
  assert.equal((await ask('/syncs/crm/pause', { 'x-board': '1' }, 'POST')).statusCode, 403)
})
