// Tests in a browser that the board changes when events are ingested.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { after, test } from 'node:test'
import pg from 'pg'
import puppeteer from 'puppeteer-core'

const port = execFileSync('../free-port').toString().trim()
const db = new pg.Client()
await db.connect()
const browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] })
after(async () => {
  await browser.close()
  server.kill()
  await db.end()
})

const wrong = []
const page = await browser.newPage()
page.on('pageerror', (error) => wrong.push(error.message))
const text = (selector) => page.$eval(selector, (element) => element.innerText)
const shows = (selector, words) => page.waitForFunction((s, w) => document.querySelector(s).innerText.includes(w), { timeout: 60_000 }, selector, words)
const eventDate = new Date(Date.now() - 864e5).toISOString()
const event = (mailId, eventType, country, campaignId, campaignName) =>
  ({ mailId, eventType, eventDate, to: { firstName: 'D', country }, meta: { campaignId, campaignName } })
const ingest = (...events) => db.query('SELECT postalytics.ingest($1::json)', [JSON.stringify(events)])

await ingest(event(1, 11, 'US', 1, 'Spring recall'), event(1, 4, 'US', 1), event(2, 11, 'CA', 1)) // before the server starts
const server = spawn('node', ['server.js'], { env: { ...process.env, PORT: port, PGUSER: 'board', PGPASSWORD: 'board' }, stdio: 'inherit' })

test('shows what there is', async () => {
  for (let i = 0; i < 100 && !(await page.goto(`http://127.0.0.1:${port}/`).catch(() => null)); i++) await new Promise((resolve) => setTimeout(resolve, 100))
  await shows('#live', 'live')
  await shows('#campaign', 'Spring recall')
  await shows('#counts', 'Canada')
  assert.deepEqual((await text('#counts tbody')).split('\n').map((line) => line.split('\t')).slice(0, 3),
    [['Pieces', '1', '1'], ['Mailed', '1', '1'], ['In Transit', '1', '–']])
  await shows('#latest tbody', 'Mailed')
  const latest = (await text('#latest tbody')).split('\n').map((line) => line.split('\t').slice(1))
  assert.deepEqual(latest.sort(), [['In Transit', '1'], ['Mailed', '1'], ['Mailed', '2']])
})

test('an ingest shows by itself', async () => {
  await ingest(event(3, 6, 'US', 1))
  await shows('#latest', 'Processed for Delivery')
  await page.waitForFunction(() => document.querySelector('#counts tbody').innerText.includes('Processed\t1'), { timeout: 60_000 })
  await shows('#syncs', 'board')
  const bars = await page.evaluate(() => Chart.getChart('chart').data.datasets.map(({ label, data }) => [label, data[0], data[4]]))
  assert.deepEqual(bars, [['United States', 2, 1], ['Canada', 1, null]])
})

test('what a worker does shows', async () => {
  await db.query("SELECT postalytics.create_sync('crm', statuses => '{pURLOpened}')")
  await ingest(event(3, 7, 'US', 1))
  await shows('#syncs tbody', 'crm\t1\t1\t0')
  await db.query("SELECT postalytics.nack('crm', array_agg(delivery_id), 'no such person', dead => true) FROM postalytics.fetch('crm')")
  await shows('#syncs tbody', 'crm\t0\t0\t1\tno such person')
})

test('another campaign is chosen, and stays', async () => {
  await ingest(event(4, 11, 'US', 2, '<img src=x onerror="document.title=1">'))
  await shows('#campaign', '<img')
  await page.select('#campaign', '2')
  await shows('#counts tbody', 'Pieces\t1')
  await ingest(event(5, 11, 'US', 2))
  await shows('#counts tbody', 'Pieces\t2')
  assert.equal(await page.title(), 'Campaign board')
  // By keyboard: Tab reaches the list first.
  await page.evaluate(() => document.activeElement.blur())
  await page.keyboard.press('Tab')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'campaign')
  await page.keyboard.press('S') // Spring recall
  await shows('#counts', 'Canada')
})

test('is readable on a phone', async () => {
  await page.setViewport({ width: 360, height: 740, isMobile: true })
  if (process.env.SCREENSHOT) await page.screenshot({ path: `${process.env.SCREENSHOT}-phone.png`, fullPage: true })
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360)
  await page.setViewport({ width: 1100, height: 800 })
  await page.waitForFunction(() => Chart.getChart('chart').width > 400, { timeout: 60_000 })
  if (process.env.SCREENSHOT) {
    await new Promise((resolve) => setTimeout(resolve, 1000))
    await page.screenshot({ path: `${process.env.SCREENSHOT}.png` })
  }
})

test('comes back when the database was gone', async () => {
  await db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'board'")
  await ingest(event(6, 8, 'US', 1))
  await shows('#counts tbody', 'Responded\t2')
  assert.deepEqual(wrong, [])
})
