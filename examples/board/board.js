// The client side of the page: shows each state that the server sends.
const FUNNEL = [
  ['mailed', 'Mailed'], ['in_transit', 'In Transit'], ['in_local_area', 'In Local Area'], ['processed_for_delivery', 'In mailboxes'],
  ['responded', 'Responded'], ['re_routed', 'Re-Routed'], ['returned_to_sender', 'Returned'],
]
const COUNTRIES = [['US', 'United States', '--way'], ['CA', 'Canada', '--canada'], ['', 'Elsewhere', '--quiet']]
const SCANS = ['in_transit', 'in_local_area', 'processed_for_delivery', 're_routed', 'returned_to_sender'] // not reported in Canada
const STATUSES = [['Mail Piece Created', 'quiet'], ['Addressed', 'quiet'], ['Printed', 'quiet'], ['Mailed', 'way'], ['In Transit', 'way'], ['In Local Area', 'way'],
  ['In mailboxes', 'arrived'], ['Re-Routed', 'returned'], ['Returned To Sender', 'returned']]
const FIGURES = [['mailed', 'Mailed', 'way', 'of all pieces'], ['in_mailboxes', 'In mailboxes', 'arrived', 'of those that can be tracked'],
  ['responded', 'Responded', 'responded', 'of those mailed'], ['returned', 'Returned', 'returned', 'of those that can be tracked']]
const SILENCE = 4500 // milliseconds after which the board's own server is taken not to respond

const $ = (id) => document.getElementById(id)
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()
const number = (value) => Number(value).toLocaleString()
const key = ({ account, id }) => JSON.stringify([account, id])
let state = { campaigns: [], countries: [], days: [], syncs: [], latest: [] }
let chosen = decodeURIComponent(location.hash.slice(1)) // kept in the address, for a reload

// Set contents as text, never as HTML, because the feed is not trusted.
function element(name, { className = '', text = '' } = {}, ...children) {
  const it = document.createElement(name)
  if (className) it.className = className
  if (text !== '') it.textContent = text
  it.append(...children)
  return it
}
const row = (name, cells) => element('tr', {}, ...cells.map(([text, className]) => element(name, { text, className })))
function time(value) {
  const it = element('time', { text: new Date(value).toLocaleString([], { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit' }) })
  it.dateTime = value
  return it
}

const base = { maintainAspectRatio: false, animation: { duration: 250 }, plugins: { legend: { position: 'bottom', align: 'start', labels: { boxWidth: 12, boxHeight: 12 } } } }
const funnel = new Chart($('funnel'), { type: 'bar', data: { labels: FUNNEL.map(([, label]) => label), datasets: [] },
  options: { ...base, indexAxis: 'y', scales: { x: { stacked: true, ticks: { precision: 0, maxTicksLimit: 6 } }, y: { stacked: true, grid: { display: false } } } } })
const days = new Chart($('days'), { type: 'bar', data: { labels: [], datasets: [] },
  options: { ...base, interaction: { mode: 'index', intersect: false }, scales: { x: { grid: { display: false }, ticks: { maxRotation: 0, maxTicksLimit: 8 } }, y: { beginAtZero: true, ticks: { precision: 0, maxTicksLimit: 5 } } } } })
function colourCharts() {
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily
  for (const chart of [funnel, days]) {
    chart.options.color = colour('--quiet')
    for (const scale of Object.values(chart.options.scales)) Object.assign(scale, { ticks: { ...scale.ticks, color: colour('--quiet') }, grid: { ...scale.grid, color: colour('--line') } })
  }
}

function showFigures(campaign) {
  $('figures').replaceChildren(...FIGURES.map(([name, label, className, of]) => {
    const rate = campaign?.[`${name}_rate`]
    const it = element('dl', { className: `figure ${className}` }, element('dt', { text: label }),
      element('dd', { className: 'count', text: campaign ? number(campaign[name]) : '–' }),
      element('dd', { className: 'of' }, element('span', { className: 'share', text: rate == null ? '–' : `${(100 * rate).toFixed(1)} %` }), ` ${of}`))
    it.id = name
    for (const each of it.querySelectorAll('dd')) each.style.margin = 0
    it.style.margin = 0
    return it
  }))
}

function showFunnel() {
  const rows = state.countries.filter((each) => key(each) === chosen)
  const count = (country, stage) => (country === 'CA' && SCANS.includes(stage) ? null
    : rows.filter((each) => (['US', 'CA'].includes(each.country) ? each.country : '') === country).reduce((sum, each) => sum + each[stage], 0))
  const present = COUNTRIES.filter(([country]) => count(country, 'pieces') > 0)
  funnel.data.datasets = present.map(([country, label, name]) => ({ label, backgroundColor: colour(name), borderRadius: 3, data: FUNNEL.map(([stage]) => count(country, stage)) }))
  funnel.update()
  $('counts').tHead.replaceChildren(row('th', [['status'], ...present.map(([, label]) => [label, 'number'])]))
  $('counts').tBodies[0].replaceChildren(...[['pieces', 'Pieces'], ...FUNNEL].map(([stage, label]) =>
    row('td', [[label], ...present.map(([country]) => [count(country, stage) === null ? '–' : number(count(country, stage)), 'number'])])))
}

function showDays() {
  const rows = new Map(state.days.filter((each) => key(each) === chosen).map((each) => [each.day, each]))
  const labels = []
  // Days without events are shown, too.
  if (rows.size > 0) for (let day = new Date([...rows.keys()][0]); day <= new Date([...rows.keys()].at(-1)); day.setUTCDate(day.getUTCDate() + 1)) labels.push(day.toISOString().slice(0, 10))
  days.data.labels = labels.map((day) => new Date(day).toLocaleDateString([], { month: 'short', day: 'numeric', timeZone: 'UTC' }))
  days.data.datasets = [['arrived', 'In mailboxes', '--arrived'], ['responded', 'Responded', '--responded']].map(([name, label, of]) =>
    ({ label, backgroundColor: colour(of), borderRadius: 2, data: labels.map((day) => rows.get(day)?.[name] ?? 0) }))
  days.update()
}

function showStatuses(campaign) {
  const most = Math.max(1, ...(campaign?.statuses ?? []))
  $('statuses').replaceChildren(...STATUSES.map(([label, className], n) => {
    const fill = element('i')
    fill.style.width = `${100 * (campaign?.statuses[n] ?? 0) / most}%`
    return element('li', { className }, element('span', { text: label }), element('span', { text: number(campaign?.statuses[n] ?? 0) }), element('div', { className: 'bar' }, fill))
  }))
}

const REASONS = { refused: 'refused', max_attempts: 'after all attempts', lease_expired: 'lease expired' }
function showSyncs() {
  $('syncs').tBodies[0].replaceChildren(...state.syncs.map((sync) => {
    const paused = sync.paused_until !== null && new Date(sync.paused_until) > Date.now()
    const reasons = Object.entries(sync.dead_by_reason ?? {})
    const dead = reasons.map(([reason, count]) => `${reasons.length > 1 ? `${number(count)} ` : ''}${REASONS[reason] ?? reason}`).join(', ')
    const button = (action, text) => {
      const it = element('button', { text })
      it.addEventListener('click', () => act(sync.name, action))
      return it
    }
    const tr = row('td', [[sync.name], [''], [number(sync.due), 'number'], [number(sync.waiting), 'number'], [number(sync.done_last_hour), 'number'],
      [number(sync.dead), sync.dead > 0 ? 'number wrong' : 'number'], ['', 'number']])
    tr.cells[1].append(...(!sync.enabled ? ['off'] : paused ? ['paused until ', time(sync.paused_until)] : ['on']))
    if (dead) tr.cells[5].append(element('div', { className: 'reason', text: dead }))
    if (state.actions) tr.cells[6].append(...(sync.dead > 0 ? [button('redrive', 'Redrive')] : []), paused ? button('resume', 'Resume') : button('pause', 'Pause'))
    return tr
  }))
}

async function act(name, action) {
  const answer = await fetch(`syncs/${encodeURIComponent(name)}/${action}`, { method: 'POST', headers: { 'x-board': '1' } }).catch(() => null)
  $('done').textContent = answer?.ok ? `${action} ${name}: done` : `${action} ${name}: ${(await answer?.json().catch(() => null))?.error ?? 'the board does not respond'}`
}

function showCampaign() {
  const campaign = state.campaigns.find((each) => key(each) === chosen)
  $('about').replaceChildren(...(campaign ? [`${number(campaign.pieces)} ${campaign.pieces === 1 ? 'piece' : 'pieces'}`, ...(campaign.account ? [` · account ${campaign.account}`] : []),
    ...(campaign.median_days == null ? [] : [` · ${campaign.median_days.toFixed(1)} days to the mailbox`]), ...(campaign.last_event_at ? [' · last event ', time(campaign.last_event_at)] : [])] : ['no campaign yet']))
  showFigures(campaign)
  showFunnel()
  showStatuses(campaign)
  showDays()
}

function show() {
  const keys = state.campaigns.map(key)
  chosen = keys.includes(chosen) ? chosen : keys[0]
  $('campaign').replaceChildren(...state.campaigns.map((each) => new Option(each.account ? `${each.name} (${each.account})` : each.name, key(each), false, key(each) === chosen)))
  showCampaign()
  $('latest').tBodies[0].replaceChildren(...state.latest.map((event) => {
    const tr = row('td', [[''], [event.label], [event.piece_id, 'id']])
    tr.cells[0].append(time(event.occurred_at))
    tr.cells[2].title = event.piece_id
    return tr
  }))
  showSyncs()
}

// The page is live if its server responds and the database is available.
let lastHeard = 0
let down = 'connecting'
function showLive() {
  const silent = Date.now() - lastHeard > SILENCE
  const reason = silent ? 'the board’s server does not respond' : down && `the database is not available: ${down}`
  $('live').textContent = reason || 'live'
  $('live').className = reason ? 'down' : ''
  document.body.classList.toggle('stale', Boolean(reason))
}

$('campaign').addEventListener('change', ({ target }) => { chosen = target.value; history.replaceState(null, '', `#${encodeURIComponent(chosen)}`); showCampaign() })
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { colourCharts(); showCampaign() })
colourCharts()
const heard = (act) => (event) => { lastHeard = Date.now(); act?.(event); showLive() }
const stream = new EventSource('stream')
stream.addEventListener('beat', heard())
stream.onmessage = heard(({ data }) => { state = { ...state, ...JSON.parse(data) }; down = state.down; show() })
setInterval(showLive, 500)
